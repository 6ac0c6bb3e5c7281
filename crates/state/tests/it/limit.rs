//! Shared limits: three replicas together, with Redis there, away, and back (GW-62).

use std::time::{Duration, Instant};

use portico_state::testing::{Backend, Replica, each_backend};
use portico_state::{KeyHasher, Limit};

const LIMIT: Limit = Limit::new(200.0, 100);

/// Asks all replicas in turn, far above the limit, and counts what passes.
async fn drive(replicas: &[Replica], key: u64, epoch: Instant, time: Duration) -> u64 {
    let begin = Instant::now();
    let mut passed = 0;
    while begin.elapsed() < time {
        for replica in replicas {
            for _ in 0..3 {
                let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap() + 1;
                let decision = replica.state.limiter().check(key, LIMIT, now);
                passed += u64::from(decision.allowed);
            }
        }
        // About 9 × 1,000 requests a second: 45 times the limit.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    passed
}

/// What a perfect limiter lets through.
fn ideal(time: Duration, with_burst: bool) -> f64 {
    let burst = if with_burst {
        f64::from(LIMIT.burst)
    } else {
        0.0
    };
    burst + LIMIT.rate_per_s * time.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_pass_at_most_a_tenth_too_much_also_while_redis_is_killed() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let server = backend.server().unwrap();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let replica = backend.replica().await;
        replica.state.limiter().set_replicas(3);
        replicas.push(replica);
    }
    let epoch = Instant::now();
    let key = KeyHasher::new(7).key(&[b"address", b"203.0.113.9"]);
    let time = Duration::from_secs(2);
    let begin = Instant::now();
    let passed = drive(&replicas, key, epoch, time).await;
    let best = ideal(begin.elapsed(), true);
    eprintln!("shared: {passed} passed, {best:.0} would be exact");
    assert!((passed as f64) <= best * 1.1, "{passed} of {best}");
    assert!(
        (passed as f64) >= best * 0.7,
        "{passed} of {best}: a limit is a promise as well"
    );

    server.kill();
    let killed = Instant::now();
    let begin = Instant::now();
    let passed = drive(&replicas, key, epoch, time).await;
    // Each replica takes its third; its local table is fresh, so one burst is there again.
    let best = ideal(begin.elapsed(), true);
    assert!(
        (passed as f64) <= best * 1.1,
        "{passed} of {best} without Redis"
    );
    assert!(
        (passed as f64) >= best * 0.7,
        "{passed} of {best} without Redis"
    );
    for replica in &replicas {
        assert!(!replica.state.status().limits_shared, "and says so");
    }
    assert!(killed.elapsed() > Duration::from_secs(1));

    server.start_again();
    for replica in &replicas {
        replica.state.connected().await;
        assert!(replica.state.status().limits_shared);
    }
    let begin = Instant::now();
    let passed = drive(&replicas, key, epoch, time).await;
    let best = ideal(begin.elapsed(), true);
    assert!(
        (passed as f64) <= best * 1.1,
        "{passed} of {best} with Redis again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_moves_on_when_it_is_refused_gains_little() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let replica = backend.replica().await;
        replica.state.limiter().set_replicas(3);
        replicas.push(replica);
    }
    let (epoch, time) = (Instant::now(), Duration::from_secs(2));
    let (mut passed, mut at) = (0_u64, 0);
    while epoch.elapsed() < time {
        for _ in 0..5 {
            let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap() + 1;
            let decision = replicas[at].state.limiter().check(5, LIMIT, now);
            passed += u64::from(decision.allowed);
            if !decision.allowed {
                at = (at + 1) % replicas.len();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let best = ideal(epoch.elapsed(), true);
    eprintln!("shared, moving on: {passed} passed, {best:.0} would be exact");
    assert!((passed as f64) <= best * 1.1, "{passed} of {best}");
}

#[tokio::test]
async fn a_quiet_client_is_never_refused() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let limiter = replica.state.limiter();
        let limit = Limit::new(50.0, 10);
        let mut now = 1_000_000_000;
        for key in 0..20 {
            for _ in 0..3 {
                assert!(
                    limiter.check(key, limit, now).allowed,
                    "{} {key}",
                    backend.name()
                );
                // The time of the test is the caller's: one request in 100 ms, half the rate.
                now += 100_000_000;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn without_redis_each_replica_takes_its_part() {
    let replica = Backend::local().replica().await;
    let limiter = replica.state.limiter();
    limiter.set_replicas(2);
    let passed = |limit| {
        (0..200)
            .filter(|_| limiter.check(1, limit, 5).allowed)
            .count()
    };
    assert_eq!(passed(LIMIT), 50);
    let alone = (0..200)
        .filter(|_| limiter.check_local(2, LIMIT, 5).allowed)
        .count();
    assert_eq!(alone, 100);
    assert!(!limiter.is_shared());
}
