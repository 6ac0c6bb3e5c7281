//! A limit that three replicas share: together they let through what one may, also while Redis is away (GW-62, §12.9).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{Pair, upstream};
use crate::house::{House, answer, client, until};

const PER_S: f64 = 40.0;
const BURST: u32 = 40;

/// Asks all replicas far above the limit and counts what passes; the answer's time is measured from the first.
async fn drive(houses: &[&House], path: &str, time: Duration) -> (f64, Duration) {
    let passed = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    for house in houses {
        for _ in 0..2 {
            let (url, passed) = (format!("{}{path}", house.http), Arc::clone(&passed));
            lanes.spawn(async move {
                let client = client();
                while begin.elapsed() < time {
                    let got = answer(client.get(&url)).await.unwrap();
                    assert!(matches!(got.status, 200 | 429), "{}", got.text);
                    passed.fetch_add(u64::from(got.status == 200), Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    }
    lanes.join_all().await;
    (passed.load(Ordering::SeqCst) as f64, begin.elapsed())
}

fn held(what: &str, passed: f64, time: Duration) {
    let most = (f64::from(BURST) + PER_S * time.as_secs_f64()) * 1.1;
    assert!(passed <= most, "{what}: {passed} passed, at most {most:.0}");
    let least = PER_S * time.as_secs_f64() * 0.6;
    assert!(passed >= least, "{what}: only {passed} passed in {time:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_keep_one_limit_with_redis_and_without() {
    let Some(pair) = Pair::start() else { return };
    let (database, state) = (pair.postgres.url(), pair.redis.url().to_owned());
    let third = House::configured(
        &format!("[keys]\nmaster = \"{}\"\n", "5a".repeat(32)),
        &["--database", &database, "--redis", &state],
    );
    let hello = upstream("hello");
    pair.first.register("hello", hello.port(), json!({})).await;
    let houses = [&pair.first, &pair.second, &third];
    let doc = json!({ "scope": { "services": ["hello"] }, "by": "service", "per_s": PER_S, "burst": BURST, "shared": true });
    pair.first.save("limits", "together", doc).await;
    for house in houses {
        until("every replica knows service and limit", || async {
            let got = house.get("/api/hello/").await;
            got.headers.contains_key("ratelimit")
        })
        .await;
    }
    let time = Duration::from_secs(4);
    let (passed, took) = drive(&houses, "/api/hello/", time).await;
    held("with redis", passed, took);

    for house in houses {
        until("every replica knows that there are three", || async {
            house.metric("portico_replicas_ready").await >= 3.0
        })
        .await;
    }
    pair.redis.kill();
    let (passed, took) = drive(&houses, "/api/hello/", time).await;
    held("without redis", passed, took);

    pair.redis.start_again();
    // A replica that still counts for itself would add its own share to the common one.
    for house in houses {
        until("redis is back for everybody", || async {
            house.metric("portico_redis_up").await > 0.0
        })
        .await;
    }
    let (passed, took) = drive(&houses, "/api/hello/", time).await;
    held("with redis again", passed, took);
    let refused = pair.first.operate(Method::GET, "/api/hello/", None).await;
    assert!(matches!(refused.status, 200 | 429));
}
