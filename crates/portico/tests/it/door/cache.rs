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

/// Asks as clients do who know this machine by its name.
async fn by_name(house: &House, path: &str) -> Answer {
    let port = house.address().rsplit(':').next().unwrap();
    let request = client()
        .get(format!("{}{path}", house.http))
        .header("host", format!("localhost:{port}"));
    answer(request).await.unwrap()
}

async fn cache_stats(house: &House) -> serde_json::Value {
    let stats = house
        .operate(Method::GET, "/api/gateway/cache/stats", None)
        .await;
    assert_eq!(stats.status, 200, "{}", stats.text);
    stats.json()
}

#[tokio::test]
async fn the_list_is_warm_before_anybody_asks() {
    let list = "[settings]\n\"gateway.cache.warmup\" = [\"/api/hello/warm\", \"/api/hello/secret\", \"/api/later/x\"]\n";
    let house = House::configured(list, &[]);
    let origin = Origin::start("max-age=60").await;
    let secret = json!({ "endpoints": [{ "path": "/secret", "required_roles": ["chief"] }] });
    house.register("hello", origin.port(), secret).await;
    until("it is fetched without a client", || async {
        cache_stats(&house).await["stored"] == 1
    })
    .await;
    let first = by_name(&house, "/api/hello/warm").await;
    assert_eq!((first.text.as_str(), cache(&first)), ("0", "L1"));
    assert_eq!(
        origin.count(),
        1,
        "what strangers may not see was not asked for"
    );
    assert_eq!(by_name(&house, "/api/hello/secret").await.status, 401);

    // What is registered later is warmed later, what is purged is warmed again.
    let later = Origin::start("max-age=60").await;
    house.register("later", later.port(), json!({})).await;
    until("the second service is warm too", || async {
        later.count() == 1
    })
    .await;
    let order = json!({ "by": "service", "value": "hello", "soft": false });
    let purge = house
        .operate(Method::POST, "/api/gateway/cache/purge", Some(&order))
        .await;
    assert_eq!(purge.status, 200, "{}", purge.text);
    until("it is warm again", || async { origin.count() == 2 }).await;
    until("and stored", || async {
        cache_stats(&house).await["stored"] == 3
    })
    .await;
    let again = by_name(&house, "/api/hello/warm").await;
    assert_eq!((again.text.as_str(), cache(&again)), ("1", "L1"));
}

#[tokio::test]
async fn bounds_hold_and_change_while_it_runs() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("portico.toml");
    std::fs::write(&file, "[settings]\n\"gateway.cache.l1_entries\" = 20\n").unwrap();
    let house = House::at(Arc::clone(&folder), &[]);
    let origin = Origin::start("max-age=60").await;
    house.register("hello", origin.port(), json!({})).await;
    for n in 0..50 {
        assert_eq!(house.get(&format!("/api/hello/{n}")).await.status, 200);
    }
    let stats = cache_stats(&house).await;
    assert!(stats["l1_entries"].as_u64().unwrap() <= 20, "{stats}");
    assert_eq!(stats["stored"], 50, "{stats}");
    std::fs::write(
        &file,
        "[settings]\n\"gateway.cache.l1_entries\" = 5\n\"gateway.cache.enabled\" = false\n",
    )
    .unwrap();
    house.signal(nix::sys::signal::Signal::SIGHUP);
    until("fewer are kept", || async {
        cache_stats(&house).await["l1_entries"].as_u64().unwrap() <= 5
    })
    .await;
    until("and the cache is off", || async {
        let answer = house.get("/api/hello/49").await;
        cache(&answer).is_empty()
    })
    .await;
}

#[tokio::test]
async fn what_is_stored_is_explained_to_those_who_may_know() {
    let house = House::start(&[]);
    let origin = Origin::start("max-age=60, stale-while-revalidate=30").await;
    house.register("hello", origin.port(), json!({})).await;
    let ask = async |url: &str| {
        let url: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
        let path = format!("/api/gateway/cache/explain?url={url}");
        let told = house.operate(Method::GET, &path, None).await;
        assert_eq!(told.status, 200, "{}", told.text);
        told.json()["found"].clone()
    };
    let url = format!("{}/api/hello/a?b", house.http);
    let before = ask(&url).await;
    assert_eq!(
        (before["state"].as_str(), before["rule"].as_str()),
        (Some("absent"), Some("default")),
        "{before}"
    );
    for _ in 0..2 {
        assert_eq!(house.get("/api/hello/a?b").await.text, "0");
    }
    let after = ask(&url).await;
    assert_eq!(after["state"], "fresh", "{after}");
    assert_eq!(
        (&after["service"], &after["version"]),
        (&json!("hello"), &json!("1.0.0"))
    );
    assert_eq!(
        (&after["stored"]["hits"], &after["stored"]["tags"]),
        (&json!(1), &json!(["things"]))
    );
    assert_eq!(ask("/api/hello/a?b").await["state"], "fresh", "by path");
    assert!(ask("/api/nobody/").await.is_null());
    let bad = house
        .operate(Method::GET, "/api/gateway/cache/explain?url=ftp://x", None)
        .await;
    assert_eq!(
        (bad.status, bad.json()["errors"][0]["field"].as_str()),
        (400, Some("url")),
        "{}",
        bad.text
    );

    // The same in one field of the answer itself.
    let key = format!("/api/hello/a?b tenant={}", portico_base::id::TENANT_DEFAULT);
    let status = |answer: &Answer| answer.headers["cache-status"].to_str().unwrap().to_owned();
    let told = house.operate(Method::GET, "/api/hello/a?b", None).await;
    assert!(status(&told).contains(&key), "{}", status(&told));
    let stranger = house.get("/api/hello/a?b").await;
    assert!(!status(&stranger).contains("key="), "{}", status(&stranger));
    let stats = cache_stats(&house).await;
    assert!(stats["requests"]["hit_l1"].as_u64() >= Some(2), "{stats}");
    assert!(stats["hit_ratio"].as_f64().unwrap() > 0.5, "{stats}");
    let hits = "portico_gateway_cache_requests_total{route=\"api\",level=\"l1\",result=\"hit\"}";
    assert!(house.metric(hits).await >= 2.0);
    let misses =
        "portico_gateway_cache_requests_total{route=\"api\",level=\"none\",result=\"miss\"}";
    assert!(house.metric(misses).await >= 1.0);
    assert!(
        house
            .metric("portico_gateway_cache_bytes{level=\"l1\"}")
            .await
            > 0.0
    );
}

#[tokio::test]
async fn a_bad_purge_is_refused_with_all_its_faults() {
    let house = House::start(&[]);
    let order = json!({ "by": "prefix", "value": "/a?b" });
    let refused = house
        .operate(Method::POST, "/api/gateway/cache/purge", Some(&order))
        .await;
    assert_eq!(
        (
            refused.status,
            refused.json()["errors"][0]["field"].as_str()
        ),
        (400, Some("value")),
        "{}",
        refused.text
    );
    let order = json!({ "by": "tenant", "value": "", "tenant": "x" });
    let refused = house
        .operate(Method::POST, "/api/gateway/cache/purge", Some(&order))
        .await;
    let errors = refused.json()["errors"].as_array().unwrap().len();
    assert_eq!((refused.status, errors), (400, 2), "{}", refused.text);
}

#[tokio::test]
async fn answers_without_a_body_are_kept_too() {
    let house = House::start(&[]);
    let router = Router::new()
        .route(
            "/none",
            axum::routing::get(|| async {
                (StatusCode::NO_CONTENT, [("cache-control", "max-age=60")])
            }),
        )
        .route(
            "/empty",
            axum::routing::get(|| async { ([("cache-control", "max-age=60")], "") }),
        );
    let origin = TestPlugin::with(router).await;
    house
        .register("hello", origin.address.port(), json!({}))
        .await;
    for (path, status) in [("/api/hello/none", 204), ("/api/hello/empty", 200)] {
        for level in ["MISS", "L1", "L1"] {
            let answer = house.get(path).await;
            assert_eq!((answer.status, cache(&answer)), (status, level), "{path}");
        }
    }
}
