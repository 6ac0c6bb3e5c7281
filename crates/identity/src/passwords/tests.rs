//! Hashes of every kind, the pool under load, and an outside implementation of Argon2.

use std::process::Command;
use std::sync::Arc;

use portico_base::{Fault as _, SeededRandom};

use super::*;

/// Cheap, so that the tests are quick.
const CHEAP: Cost = Cost {
    m_kib: 7_168,
    t: 1,
    p: 1,
};

fn passwords(threads: usize) -> Passwords {
    Passwords::with_threads(
        &Registry::default(),
        Arc::new(SeededRandom::new(7)),
        threads,
    )
}

fn secret(text: &str) -> Secret<String> {
    Secret::from(text)
}

#[tokio::test]
async fn what_is_hashed_is_verified_and_nothing_else() {
    let pool = passwords(1);
    let phc = pool.hash(&secret("pässwort-73"), CHEAP).await.unwrap();
    assert!(
        phc.expose().starts_with("$argon2id$v=19$m=7168,t=1,p=1$"),
        "{}",
        phc.expose()
    );
    let again = pool.hash(&secret("pässwort-73"), CHEAP).await.unwrap();
    assert_ne!(phc.expose(), again.expose(), "each has its own salt");
    let verify = async |stored: Option<&Secret<String>>, text: &str, cost| {
        pool.verify(stored, &secret(text), cost).await.unwrap()
    };
    assert_eq!(
        verify(Some(&phc), "pässwort-73", CHEAP).await,
        Verdict::Right
    );
    // The same letters composed another way.
    assert_eq!(
        verify(Some(&phc), "pa\u{308}sswort-73", CHEAP).await,
        Verdict::Right
    );
    assert_eq!(
        verify(Some(&phc), "pässwort-74", CHEAP).await,
        Verdict::Wrong
    );
    assert_eq!(verify(Some(&phc), "", CHEAP).await, Verdict::Wrong);
    assert_eq!(verify(None, "pässwort-73", CHEAP).await, Verdict::Wrong);
    let outdated = verify(Some(&phc), "pässwort-73", Cost::DEFAULT).await;
    assert_eq!(outdated, Verdict::Outdated);
    let broken = secret("$argon2id$v=19$m=7168,t=1,p=1$notbase64!$x");
    assert_eq!(verify(Some(&broken), "x", CHEAP).await, Verdict::Wrong);
    assert_eq!(
        verify(Some(&phc), &"x".repeat(2_000), CHEAP).await,
        Verdict::Wrong
    );
}

#[tokio::test]
async fn known_unknown_and_broken_rows_cost_one_hash() {
    let pool = passwords(1);
    let phc = pool.hash(&secret("one"), CHEAP).await.unwrap();
    let before = pool.done();
    for stored in [Some(&phc), None, Some(&secret("rubbish"))] {
        let done = pool.done();
        pool.verify(stored, &secret("other"), CHEAP).await.unwrap();
        assert_eq!(pool.done(), done + 1);
    }
    assert_eq!(pool.done(), before + 3);
}

/// Hashes of `correct horse` by other programs: Debian's `argon2`, Python's bcrypt, hashlib and passlib, Apache's `htpasswd`, Django's form.
const FOREIGN: &[(&str, &str)] = &[
    (
        "argon2 -i",
        "$argon2i$v=19$m=4096,t=3,p=1$c2FsdHNhbHRzYWx0c2FsdA$TSWXQupParD7p4pi1ivxCVZCrQyRPRrHhlEd8pbeRw8",
    ),
    (
        "argon2 -id -v 10",
        "$argon2id$v=16$m=4096,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$2aP0ktfDLuYYKJbOG2b3zNaOHHCHgXDV",
    ),
    (
        "bcrypt 2a",
        "$2a$04$13Kq/gDqQQaIWT75Ki7kVeWZDqHyMrmZodw5mAEFSMSwkh6QGTYsC",
    ),
    (
        "bcrypt 2b",
        "$2b$04$qCqTt0yXoc7vh0RGVWQo.eCD3gd.L82/l6BrE3jMJ6hGyXUHQ/3gi",
    ),
    (
        "htpasswd",
        "$2y$04$G2567eSZlUFJwdUIyCGG4u3oriPySqWkG94eVz1rnkySrP.gXJ1Py",
    ),
    (
        "pbkdf2",
        "$pbkdf2-sha256$i=29000,l=32$c2FsdHNhbHQ$sUd0TKOZxumIOWhtTu9lhg8JGpKEjaKLLfwdRS7I9rk",
    ),
    (
        "passlib",
        "$pbkdf2-sha256$1000$r/X.H0MIQUip1Tqn1BqD0A$49UrtQXTz00aK7.I0RHTSfithBu729z8geVOYE4S6X8",
    ),
    (
        "django",
        "pbkdf2_sha256$36000$seasalt$BBCcutyVjQrO9izK+NBfJu27gpFhhd1Ko38+XUYU8vM=",
    ),
    (
        "scrypt",
        "$scrypt$ln=14,r=8,p=1$c2FsdHNhbHQ$WtK9PdpH8vWDdnUFV1FSBL76ZHV+sSF/p+0ht966jbQ",
    ),
];

#[tokio::test]
async fn foreign_rows_verify_and_are_outdated() {
    let pool = passwords(1);
    for (name, row) in FOREIGN {
        let row = secret(row);
        let right = pool
            .verify(Some(&row), &secret("correct horse"), CHEAP)
            .await;
        assert_eq!(right.unwrap(), Verdict::Outdated, "{name}");
        let wrong = pool
            .verify(Some(&row), &secret("correct horsf"), CHEAP)
            .await;
        assert_eq!(wrong.unwrap(), Verdict::Wrong, "{name}");
    }
}

#[tokio::test]
async fn every_cost_of_the_table_verifies() {
    let pool = passwords(1);
    for (m_kib, t, p) in [
        (19_456, 2, 1),
        (47_104, 1, 1),
        (12_288, 3, 1),
        (9_216, 4, 1),
        (7_168, 5, 1),
        (65_536, 1, 4),
        (65_536, 3, 4),
        (131_072, 4, 8),
    ] {
        let cost = Cost { m_kib, t, p };
        let phc = pool.hash(&secret("correct horse"), cost).await.unwrap();
        let right = pool
            .verify(Some(&phc), &secret("correct horse"), cost)
            .await;
        assert_eq!(right.unwrap(), Verdict::Right, "{cost:?}");
        let default = pool
            .verify(Some(&phc), &secret("correct horse"), Cost::DEFAULT)
            .await
            .unwrap();
        assert_eq!(default == Verdict::Right, cost == Cost::DEFAULT, "{cost:?}");
    }
}

#[tokio::test]
async fn a_full_pool_refuses_at_once_and_recovers() {
    let pool = passwords(2);
    let full = pool.saturate();
    assert_eq!(full.len(), 2 + 2 * 64);
    let refused = pool.hash(&secret("x"), CHEAP).await.unwrap_err();
    assert!(refused.is(reason::HASH_BUSY));
    assert_eq!(
        (refused.status(), refused.retry_after_s()),
        (503, Some(BUSY_RETRY_S))
    );
    drop(full);
    // What nobody waits for is left out, and there is room again.
    let mut done = pool.hash(&secret("x"), CHEAP).await;
    while matches!(&done, Err(error) if error.is(reason::HASH_BUSY)) {
        tokio::task::yield_now().await;
        done = pool.hash(&secret("x"), CHEAP).await;
    }
    assert!(done.is_ok());
}

#[tokio::test]
async fn other_work_goes_on_while_the_pool_is_full() {
    let pool = passwords(1);
    let full = pool.saturate();
    // The runtime of this test has one thread: if hashes ran on it, or anything waited for the pool
    // without yielding, this would not come back.
    let other = tokio::task::spawn(async { 1 + 1 }).await.unwrap();
    assert_eq!(other, 2);
    assert!(tokio::task::spawn_blocking(|| true).await.unwrap());
    assert_eq!(full.len(), 65);
}

#[tokio::test]
async fn a_panic_in_the_pool_takes_no_thread_away() {
    let pool = passwords(1);
    let answer: Result<()> = pool.work(|_| panic!("a defect")).await;
    assert!(matches!(answer, Err(Error::Internal(_))));
    assert!(pool.hash(&secret("x"), CHEAP).await.is_ok());
}

#[test]
fn rows_that_cost_too_much_or_say_too_little_are_not_read() {
    for bad in [
        "",
        "plain",
        "$argon2id$",
        "$argon2d$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=18$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=19$m=19456,t=999,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=19$m=19456,t=2,p=0$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=19$m=19456,t=2,p=1,keyid=x$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA$more",
        "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA",
        "$2b$31$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$2x$10$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$pbkdf2-sha256$i=99999999,l=32$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
        "pbkdf2_sha256$0$salt$c2FsdHNhbHRzYWx0c2FsdA==",
        "$scrypt$ln=30,r=8,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
        "$scrypt$ln=63,r=8,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA",
    ] {
        assert!(phc::parse(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn debians_argon2_and_ours_agree() {
    if Command::new("argon2").arg("-h").output().is_err() {
        assert!(
            !std::env::var("CI").is_ok_and(|v| v == "true"),
            "argon2 is not installed"
        );
        return;
    }
    let pool = passwords(1);
    // Ours is theirs: the same salt gives the same string, for each cost.
    for (m_kib, t, p) in [(19_456, 2, 1), (65_536, 1, 4), (7_168, 5, 1)] {
        let cost = Cost { m_kib, t, p };
        let mut memory = Memory::new();
        let salt = *b"somesaltsomesalt";
        let ours = phc::make("correct horse", &salt, cost, &mut memory).unwrap();
        let theirs = argon2_program(&salt, cost, "correct horse");
        assert_eq!(ours.expose(), &theirs);
        let found = pool
            .verify(Some(&secret(&theirs)), &secret("correct horse"), cost)
            .await;
        assert_eq!(found.unwrap(), Verdict::Right);
    }
}

fn argon2_program(salt: &[u8], cost: Cost, password: &str) -> String {
    use std::io::Write as _;
    let mut child = Command::new("argon2")
        .arg(std::str::from_utf8(salt).unwrap())
        .args(["-id", "-e", "-l", "32", "-k"])
        .arg(cost.m_kib.to_string())
        .args(["-t", &cost.t.to_string(), "-p", &cost.p.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(password.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
