//! The cache of two replicas: one fetches for both, and a purge holds on both.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use portico_testkit::TestPlugin;
use reqwest::Method;
use serde_json::json;

use super::Pair;
use crate::house::{Answer, House, answer, client, until};

/// Counts what it answers.
async fn counting() -> (TestPlugin, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let router = Router::new().fallback(move || {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let headers = [("cache-control", "max-age=600"), ("cache-tag", "things")];
            (headers, number.to_string())
        }
    });
    (TestPlugin::with(router).await, count)
}

/// Under one name, as behind one load balancer.
async fn shop(house: &House, path: &str) -> Answer {
    let request = client().get(format!("{}{path}", house.http));
    answer(request.header("host", "localhost")).await.unwrap()
}

fn cache(answer: &Answer) -> &str {
    let level = answer.headers.get("x-cache");
    level.map_or("", |v| v.to_str().unwrap())
}

#[tokio::test]
async fn one_fetches_for_both_and_a_purge_holds_on_both() {
    let Some(pair) = Pair::start() else { return };
    let (origin, count) = counting().await;
    let port = origin.address.port();
    pair.first.register("hello", port, json!({})).await;
    until("the second replica routes to it", || async {
        shop(&pair.second, "/api/hello/ready").await.status == 200
    })
    .await;

    until("the answer of that is in redis", || async {
        stored_in_redis(pair.redis.url()) == 1
    })
    .await;
    let fetched = count.load(Ordering::SeqCst);
    assert_eq!(cache(&shop(&pair.first, "/api/hello/a").await), "MISS");
    until("this answer is in redis", || async {
        stored_in_redis(pair.redis.url()) == 2
    })
    .await;
    let before = count.load(Ordering::SeqCst);
    let other = shop(&pair.second, "/api/hello/a").await;
    assert_eq!(
        (other.text.as_str(), cache(&other)),
        (&*fetched.to_string(), "L2")
    );
    assert_eq!(cache(&shop(&pair.second, "/api/hello/a").await), "L1");
    assert_eq!(count.load(Ordering::SeqCst), before, "it came from redis");
    assert!(
        pair.second
            .metric(
                "portico_gateway_cache_requests_total{route=\"api\",level=\"l2\",result=\"hit\"}"
            )
            .await
            >= 1.0
    );

    for (by, value, soft) in [
        ("url", "http://localhost/api/hello/a", false),
        ("tag", "things", false),
        ("prefix", "/api/hello/", true),
    ] {
        let mut old = Vec::new();
        for house in [&pair.first, &pair.second] {
            shop(house, "/api/hello/a").await;
            let hit = shop(house, "/api/hello/a").await;
            assert_eq!(cache(&hit), "L1", "{by}");
            old.push(hit.text);
        }
        let order = json!({ "by": by, "value": value, "soft": soft });
        let begin = Instant::now();
        let purge = pair
            .first
            .operate(Method::POST, "/api/gateway/cache/purge", Some(&order))
            .await;
        assert_eq!(purge.status, 200, "{}", purge.text);
        let fresh = shop(&pair.first, "/api/hello/a").await;
        assert!(!old.contains(&fresh.text), "{by}: in force with the answer");
        until("it is in force on the other", || async {
            pair.second
                .metric("portico_gateway_cache_purges_total")
                .await
                >= f64::from(purges(by))
        })
        .await;
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "{by} took {took:?}");
        let there = shop(&pair.second, "/api/hello/a").await;
        assert!(!old.contains(&there.text), "{by}: {}", there.text);
    }
}

/// Answers in Redis, asked in its own words.
fn stored_in_redis(url: &str) -> usize {
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).unwrap();
    stream.write_all(b"KEYS *gwc:o:*\r\nQUIT\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.matches("gwc:o:").count()
}

/// How many orders came before and with this one.
fn purges(by: &str) -> u8 {
    match by {
        "url" => 1,
        "tag" => 2,
        _ => 3,
    }
}
