//! The database goes away, comes back, or is full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_base::{Fault as _, SystemClock};
use portico_db::sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use portico_db::testing::{PrivateServer, sqlite_options};
use portico_db::{Db, DbError, DbOptions, Pooler};

use crate::{get, put, words};

#[tokio::test]
async fn addresses_that_cannot_be_used_are_refused() {
    for url in [
        "mysql://x",
        "sqlite::memory:",
        "sqlite:///nowhere/at/all/x.db",
        "nonsense",
    ] {
        let error = Db::connect(&DbOptions::new(url), Arc::new(SystemClock)).await;
        assert!(matches!(error, Err(DbError::Address(_))), "{url}");
    }
}

#[tokio::test]
async fn an_absent_server_is_an_answer_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("postgres://x@localhost/x?host={}", dir.path().display());
    let mut options = DbOptions::new(url);
    options.acquire_timeout = Duration::from_millis(300);
    let start = Instant::now();
    let error = Db::connect(&options, Arc::new(SystemClock))
        .await
        .err()
        .unwrap();
    assert!(error.is_unavailable(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// SC-4: errors within the acquire time-out while it is away, and back by itself.
#[tokio::test]
async fn postgres_restarts_in_the_middle() {
    let Some(mut server) = PrivateServer::start() else {
        return;
    };
    let mut options = DbOptions::new(server.url());
    options.acquire_timeout = Duration::from_millis(500);
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let tx = db.begin().await.unwrap();
    put(&tx, "before", 1).await.unwrap();
    tx.commit().await.unwrap();

    let open = db.begin().await.unwrap();
    put(&open, "in between", 1).await.unwrap();
    server.down();
    let error = open.commit().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    for _ in 0..3 {
        let start = Instant::now();
        let error = get(db.reader(), "before").await.unwrap_err();
        assert_eq!(error.code(), "system.database_unavailable", "{error}");
        assert_eq!(error.retry_after_s(), Some(5));
        let error = db.begin().await.err().unwrap();
        assert!(error.is_unavailable(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(6));
    }

    server.up();
    // Every connection that was open before may tell once that it is dead (SC-4), so each call is repeated.
    let back = Instant::now();
    assert_eq!(healed(back, || get(db.reader(), "before")).await, Some(1));
    assert_eq!(healed(back, || get(db.reader(), "in between")).await, None);
    healed(back, || async {
        let tx = db.begin_durable().await?;
        put(&tx, "after", 1).await?;
        tx.commit().await
    })
    .await;
    let errors = db.metrics().errors();
    assert!(
        errors
            .iter()
            .any(|(kind, n)| *kind == "unavailable" && *n >= 6)
    );
    db.close().await;
}

/// Repeats a call while it says that the database is away, at most for 20 seconds.
async fn healed<T, F>(since: Instant, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, DbError>>,
{
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_unavailable(), "{error}"),
        }
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "it never came back"
        );
    }
}

#[tokio::test]
async fn more_connections_than_the_server_has_are_refused() {
    let Some((mut options, _)) = portico_db::testing::postgres_options().await else {
        return;
    };
    options.max_connections = 150;
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    db.check_server_connections(2).await.unwrap();
    let error = db.check_server_connections(3).await.unwrap_err();
    let DbError::ServerConnections { wanted, available } = error else {
        panic!("{error}");
    };
    assert_eq!(wanted, 450);
    assert!((300..450).contains(&available));
    db.close().await;
}

#[tokio::test]
async fn a_statement_has_its_time_limit() {
    let Some((mut options, _)) = portico_db::testing::postgres_options().await else {
        return;
    };
    options.statement_timeout = Duration::from_millis(50);
    let sleep = "SELECT pg_sleep(20)";
    for pooler in [Pooler::None, Pooler::PgBouncer] {
        options.pooler = pooler;
        let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
        let start = Instant::now();
        let statement = Statement::from_string(DbBackend::Postgres, sleep);
        let error = DbError::from(db.reader().query_one_raw(statement).await.unwrap_err());
        assert!(error.is_unavailable(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
        db.ping().await.unwrap();
        db.close().await;
    }
}

/// Without session state everything works as well: what pgBouncer in transaction mode asks for.
#[tokio::test]
async fn the_pgbouncer_mode_leaves_nothing_in_the_session() {
    let Some((mut options, _)) = portico_db::testing::postgres_options().await else {
        return;
    };
    options.pooler = Pooler::PgBouncer;
    let db = Db::connect(&options, Arc::new(SystemClock)).await.unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let tx = db.begin_durable().await.unwrap();
    put(&tx, "a", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(get(db.reader(), "a").await.unwrap(), Some(1));
    assert!(db.leases().acquire("x", "y").await.unwrap().is_some());
    let statement = Statement::from_string(
        DbBackend::Postgres,
        "SELECT count(*) AS n FROM pg_prepared_statements",
    );
    let row = db.reader().query_one_raw(statement).await.unwrap().unwrap();
    assert_eq!(row.try_get::<i64>("", "n").unwrap(), 0);
    db.close().await;
}

const CHILD: &str = "PORTICO_DB_TEST_CHILD";

/// Runs this test binary again as a process of its own, for one test.
fn child(test: &str, path: &std::path::Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, path);
    command
}

/// SC-11: a full disk is a clean error, nothing is broken, and it goes on when there is space again.
#[test]
fn a_full_disk_is_a_clean_error() {
    if let Some(path) = std::env::var_os(CHILD) {
        return fill(std::path::Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = child("faults::a_full_disk_is_a_clean_error", dir.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(dir.path().join("filled").exists());
}

/// A limit on the size of files, in a process of its own, stands in for a full file system.
#[tokio::main(flavor = "current_thread")]
async fn fill(dir: &std::path::Path) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::signal::{SigHandler, Signal};
    let url = format!("sqlite://{}", dir.join("full.db").display());
    let db = Db::connect(&DbOptions::new(url), Arc::new(SystemClock))
        .await
        .unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    db.checkpoint().await.unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    ignore(Signal::SIGXFSZ, SigHandler::SigIgn);
    setrlimit(Resource::RLIMIT_FSIZE, 200_000, hard).unwrap();
    let word = "w".repeat(2_000);
    let mut kept = 0;
    let error = loop {
        let tx = match db.begin_durable().await {
            Ok(tx) => tx,
            Err(e) => break e,
        };
        if let Err(e) = put(&tx, &format!("{word}{kept}"), kept).await {
            break e;
        }
        match tx.commit().await {
            Ok(_) => kept += 1,
            Err(e) => break e,
        }
        assert!(kept < 1_000, "the limit was never met");
    };
    assert!(matches!(error, DbError::DiskFull(_)), "{error}");
    assert_eq!(error.status(), 507);
    assert!(kept > 0);
    for i in 0..kept {
        assert_eq!(
            get(db.reader(), &format!("{word}{i}")).await.unwrap(),
            Some(i)
        );
    }
    assert_eq!(
        get(db.reader(), &format!("{word}{kept}")).await.unwrap(),
        None
    );
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    let tx = db.begin_durable().await.unwrap();
    put(&tx, "space again", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(get(db.reader(), "space again").await.unwrap(), Some(1));
    assert!(db.check_integrity().await.unwrap().is_empty());
    std::fs::write(dir.join("filled"), "").unwrap();
}

#[expect(
    unsafe_code,
    reason = "setting a signal's disposition has no safe form"
)]
fn ignore(signal: nix::sys::signal::Signal, handler: nix::sys::signal::SigHandler) {
    // SAFETY: the disposition is "ignore", so no handler of ours ever runs.
    unsafe { nix::sys::signal::signal(signal, handler) }.unwrap();
}

/// SC-1: what was answered is there after `kill -9` at any moment, and nothing is half there.
#[test]
fn answered_writes_survive_kill_9() {
    use std::io::BufRead as _;
    if let Some(path) = std::env::var_os(CHILD) {
        return journal(std::path::Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut answered = -1;
    for round in 1..=5 {
        let mut process = child("faults::answered_writes_survive_kill_9", dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // The kill comes while the next write is under way.
        for line in lines.map_while(Result::ok) {
            let Some(number) = line.strip_prefix("answered ") else {
                continue;
            };
            answered = number.parse().unwrap();
            seen += 1;
            if seen == round * 7 {
                process.kill().unwrap();
                break;
            }
        }
        process.wait().unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", dir.path().join("journal.db").display());
        let db = Db::connect(&DbOptions::new(url), Arc::new(SystemClock))
            .await
            .unwrap();
        for i in 0..=answered {
            assert_eq!(get(db.reader(), &format!("a{i}")).await.unwrap(), Some(i));
            assert_eq!(get(db.reader(), &format!("b{i}")).await.unwrap(), Some(i));
        }
        assert!(db.check_integrity().await.unwrap().is_empty());
        let next = answered + 1;
        let (a, b) = (format!("a{next}"), format!("b{next}"));
        assert_eq!(
            get(db.reader(), &a).await.unwrap(),
            get(db.reader(), &b).await.unwrap()
        );
    });
}

/// Writes pairs of rows until killed, and says each number after its commit.
#[tokio::main(flavor = "current_thread")]
async fn journal(dir: &std::path::Path) {
    let url = format!("sqlite://{}", dir.join("journal.db").display());
    let db = Db::connect(&DbOptions::new(url), Arc::new(SystemClock))
        .await
        .unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let mut next = 0;
    while get(db.reader(), &format!("a{next}"))
        .await
        .unwrap()
        .is_some()
    {
        next += 1;
    }
    loop {
        let tx = if next % 2 == 0 {
            db.begin_durable().await.unwrap()
        } else {
            db.begin().await.unwrap()
        };
        put(&tx, &format!("a{next}"), next).await.unwrap();
        put(&tx, &format!("b{next}"), next).await.unwrap();
        tx.commit().await.unwrap();
        crate::say(&format!("answered {next}"));
        next += 1;
    }
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::connect(&sqlite_options(&dir), Arc::new(SystemClock))
        .await
        .unwrap();
    db.ping().await.unwrap();
    assert_eq!(db.connections().len(), 2);
    let mode = std::os::unix::fs::MetadataExt::mode(
        &std::fs::metadata(dir.path().join("test.db")).unwrap(),
    );
    assert_eq!(mode & 0o777, 0o600);
    db.close().await;
    assert!(db.ping().await.unwrap_err().is_unavailable());
    assert!(db.begin().await.err().unwrap().is_unavailable());
}
