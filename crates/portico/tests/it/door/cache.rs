//! The response cache as clients see it: hits, stale answers, purges, and nobody else's copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::response::IntoResponse as _;
use http::StatusCode;
use portico_testkit::TestPlugin;
use reqwest::Method;
use serde_json::json;

use crate::house::{Answer, House, answer, client, until};

/// Counts what it answers, and fails when told.
struct Origin {
    plugin: TestPlugin,
    count: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

impl Origin {
    async fn start(cache_control: &'static str) -> Self {
        let (count, broken) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counter, fails) = (Arc::clone(&count), Arc::clone(&broken));
        let router = Router::new().fallback(move || {
            let (number, fails) = (
                counter.fetch_add(1, Ordering::SeqCst),
                fails.load(Ordering::SeqCst),
            );
            async move {
                if fails {
                    return StatusCode::SERVICE_UNAVAILABLE.into_response();
                }
                (
                    [("cache-control", cache_control), ("cache-tag", "things")],
                    number.to_string(),
                )
                    .into_response()
            }
        });
        Self {
            plugin: TestPlugin::with(router).await,
            count,
            broken,
        }
    }

    fn port(&self) -> u16 {
        self.plugin.address.port()
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

fn cache(answer: &Answer) -> &str {
    answer
        .headers
        .get("x-cache")
        .map_or("", |v| v.to_str().unwrap())
}

#[tokio::test]
async fn an_answer_is_fetched_once() {
    let house = House::start(&[]);
    let origin = Origin::start("max-age=60").await;
    let cached = json!({ "endpoints": [{ "path": "/cached/*", "is_public": true, "cache": { "ttl_s": 60 } }] });
    house.register("hello", origin.port(), cached).await;
    let first = house.get("/api/hello/cached/a").await;
    assert_eq!((first.text.as_str(), cache(&first)), ("0", "MISS"));
    let second = house.get("/api/hello/cached/a").await;
    assert_eq!((second.text.as_str(), cache(&second)), ("0", "L1"));
    assert!(
        second.headers.contains_key("age") && second.headers.contains_key("cache-status"),
        "{:?}",
        second.headers
    );
    let other = house.get("/api/hello/cached/a?b").await;
    assert_eq!(cache(&other), "MISS");
    for _ in 0..2 {
        let answer = answer(client().post(format!("{}/api/hello/cached/a", house.http)))
            .await
            .unwrap();
        assert_ne!(
            cache(&answer),
            "L1",
            "unsafe methods are never answered from the cache"
        );
    }
}

#[tokio::test]
async fn a_crowd_of_misses_is_one_request() {
    let house = House::start(&[]);
    let origin = Origin::start("max-age=60").await;
    let cached =
        json!({ "endpoints": [{ "path": "/*", "is_public": true, "cache": { "ttl_s": 60 } }] });
    house.register("hello", origin.port(), cached).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let url = format!("{}/api/hello/one", house.http);
        crowd.spawn(async move { answer(client().get(url)).await.unwrap() });
    }
    let answers = crowd.join_all().await;
    assert!(
        answers.iter().all(|a| a.status == 200 && a.text == "0"),
        "{answers:?}"
    );
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn a_broken_origin_is_hidden_by_what_was_known() {
    let house = House::start(&[]);
    let origin = Origin::start("max-age=1").await;
    house.register("hello", origin.port(), json!({})).await;
    house
        .save(
            "cache-rules",
            "all",
            json!({ "policy": { "mode": "response", "stale_if_error_s": 600 } }),
        )
        .await;
    assert_eq!(house.get("/api/hello/x").await.text, "0");
    origin.broken.store(true, Ordering::SeqCst);
    until("the copy is stale", || async {
        let answer = house.get("/api/hello/x").await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (200, "0"),
            "{answer:?}"
        );
        cache(&answer) == "STALE"
    })
    .await;
    origin.broken.store(false, Ordering::SeqCst);
    until("a fresh one is fetched", || async {
        house.get("/api/hello/x").await.text != "0"
    })
    .await;
}

#[tokio::test]
async fn users_never_get_each_others_copy() {
    let (house, keys) = House::with_users("");
    let origin = Origin::start("private, max-age=60").await;
    house
        .register(
            "hello",
            origin.port(),
            json!({ "endpoints": [{ "path": "/*", "cache": { "ttl_s": 60, "per_user": true } }] }),
        )
        .await;
    let now = chrono::Utc::now().timestamp();
    let mut texts = std::collections::BTreeSet::new();
    for user in ["alice", "bob", "carol"] {
        let token = keys.token(user, portico_base::id::TENANT_DEFAULT, &[], now);
        let answer = answer(
            client()
                .get(format!("{}/api/hello/me", house.http))
                .bearer_auth(token),
        )
        .await
        .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
        texts.insert(answer.text);
    }
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!(
        house.get("/api/hello/me").await.status,
        401,
        "what is cached asks for a credential all the same"
    );
}

#[tokio::test]
async fn purges_by_url_and_tag_are_in_force_with_the_answer() {
    let house = House::start(&[]);
    let origin = Origin::start("max-age=60").await;
    house.register("hello", origin.port(), json!({})).await;
    let rule = json!({ "policy": { "mode": "response" } });
    house.save("cache-rules", "all", rule).await;
    for (by, value) in [
        ("url", "/api/hello/x"),
        ("tag", "things"),
        ("service", "hello"),
        ("prefix", "/api/hello/"),
    ] {
        let before = house.get("/api/hello/x").await.text;
        let hit = house.get("/api/hello/x").await;
        assert_eq!(
            (hit.text.as_str(), cache(&hit)),
            (before.as_str(), "L1"),
            "{by}"
        );
        let purge = house
            .operate(
                Method::POST,
                "/api/gateway/cache/purge",
                Some(&json!({ "by": by, "value": value, "soft": false })),
            )
            .await;
        assert!((200..300).contains(&purge.status), "{by}: {}", purge.text);
        let after = house.get("/api/hello/x").await;
        assert_ne!(after.text, before, "{by}");
    }
}
