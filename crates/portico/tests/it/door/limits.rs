//! Limits: rates by several dimensions, requests at once, bodies, blocked networks.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::house::{Answer, House, answer, client};
use crate::raw::{RawServer, read_head};
use crate::recorder::Recorder;

fn limited(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (429, Some("gateway.rate_limited")),
        "{}",
        answer.text
    );
    for name in [
        "retry-after",
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ] {
        assert!(
            answer.headers.contains_key(name),
            "{name}: {:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn a_rate_by_service_holds_for_that_service() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    for name in ["narrow", "wide"] {
        house.register(name, hello.port(), json!({})).await;
    }
    let doc =
        json!({ "scope": { "services": ["narrow"] }, "by": "service", "per_s": 0.01, "burst": 3 });
    house.save("limits", "narrow", doc).await;
    let mut last = house.get("/api/narrow/").await;
    for _ in 0..2 {
        assert_eq!(last.status, 200, "{}", last.text);
        assert!(last.headers.contains_key("ratelimit"), "{:?}", last.headers);
        last = house.get("/api/narrow/").await;
    }
    assert_eq!(
        (
            last.status,
            last.headers["x-ratelimit-remaining"].to_str().unwrap()
        ),
        (200, "0")
    );
    limited(&house.get("/api/narrow/").await);
    assert_eq!(hello.count(), 3);
    assert_eq!(house.get("/api/wide/").await.status, 200);
    assert!(house.metric("portico_gateway_limited_total").await >= 1.0);
    house
        .operate(Method::DELETE, "/api/gateway/limits/narrow", None)
        .await;
    assert_eq!(house.get("/api/narrow/").await.status, 200);
}

#[tokio::test]
async fn rates_count_by_header_user_and_endpoint() {
    let (house, keys) = House::with_users("");
    let hello = Recorder::start("hello").await;
    house
        .register(
            "hello",
            hello.port(),
            json!({ "endpoints": [
        { "path": "/declared", "is_public": true, "rate_limit": { "per_s": 0.01, "burst": 2 } }] }),
        )
        .await;
    let get = |path: &str, header: (&'static str, String)| {
        let request = client()
            .get(format!("{}/api/hello{path}", house.http))
            .header(header.0, header.1);
        async { answer(request).await.unwrap() }
    };
    let rate = |by: serde_json::Value, path: &str| json!({ "scope": { "path_prefix": path }, "by": by, "per_s": 0.01, "burst": 1 });
    house
        .save(
            "limits",
            "by-header",
            rate(json!({ "header": "x-key" }), "/api/hello/keyed"),
        )
        .await;
    house
        .save("limits", "by-user", rate(json!("user"), "/api/hello/own"))
        .await;
    for key in ["a", "b"] {
        assert_eq!(
            get("/keyed", ("x-key", key.to_owned())).await.status,
            200,
            "{key}"
        );
        limited(&get("/keyed", ("x-key", key.to_owned())).await);
    }
    let now = chrono::Utc::now().timestamp();
    let bearer = |user: &str| {
        (
            "authorization",
            format!(
                "Bearer {}",
                keys.token(user, portico_base::id::TENANT_DEFAULT, &[], now)
            ),
        )
    };
    for user in ["alice", "bob"] {
        assert_eq!(get("/own", bearer(user)).await.status, 200, "{user}");
        limited(&get("/own", bearer(user)).await);
    }
    for _ in 0..2 {
        assert_eq!(
            get("/declared", ("accept", "*/*".to_owned())).await.status,
            200
        );
    }
    limited(&get("/declared", ("accept", "*/*".to_owned())).await);
}

#[tokio::test]
async fn the_default_of_addresses_holds_for_whoever_is_not_direct() {
    let house = House::configured("[settings]\n\"gateway.limit.address_per_s\" = 5.0\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let url = format!("{}/api/hello/", house.http);
    let client = client();
    let mut statuses = Vec::new();
    for _ in 0..60 {
        // Somebody on this machine that speaks for others is no direct peer.
        let request = client.get(&url).header("x-forwarded-for", "203.0.113.7");
        statuses.push(answer(request).await.unwrap().status);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&429),
        "{statuses:?}"
    );
    assert_eq!(
        house.get("/api/hello/").await.status,
        200,
        "a direct peer is exempt"
    );
}

#[tokio::test]
async fn requests_at_once_are_limited() {
    let house = House::start(&[]);
    let slow = RawServer::start(|mut stream, _| {
        use std::io::Write as _;
        while read_head(&mut stream).is_some() {
            std::thread::sleep(Duration::from_millis(400));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    house.register("slow", slow.port(), json!({})).await;
    house
        .save(
            "limits",
            "one",
            json!({ "scope": { "services": ["slow"] }, "by": "service", "concurrent": 1 }),
        )
        .await;
    let mut both = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = format!("{}/api/slow/", house.http);
        both.spawn(async move { answer(client().get(url)).await.unwrap().status });
    }
    let statuses = both.join_all().await;
    assert!(
        statuses.contains(&200) && statuses.contains(&429),
        "{statuses:?}"
    );
    assert_eq!(
        house.get("/api/slow/").await.status,
        200,
        "the place is free again"
    );
}

#[tokio::test]
async fn a_body_has_a_limit_that_holds_while_it_streams() {
    let house = House::configured("[settings]\n\"gateway.body_max_bytes\" = 1000\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let url = format!("{}/api/hello/", house.http);
    assert_eq!(
        answer(client().post(&url).body(vec![b'x'; 1000]))
            .await
            .unwrap()
            .status,
        200
    );
    let declared = answer(client().post(&url).body(vec![b'x'; 1001]))
        .await
        .unwrap();
    assert_eq!(
        (declared.status, declared.json()["code"].as_str()),
        (413, Some("gateway.body_too_large")),
        "{}",
        declared.text
    );
    let pieces =
        futures_util::stream::iter((0..30).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100])));
    let streamed = answer(client().post(&url).body(reqwest::Body::wrap_stream(pieces)))
        .await
        .unwrap();
    assert_eq!(streamed.status, 413, "{}", streamed.text);
    assert_eq!(hello.count(), 1, "no broken body arrives whole");
    let big = json!({ "path": { "prefix": "/upload" }, "target": { "service": { "name": "hello" } }, "body_max_bytes": 0 });
    house.save("routes", "upload", big).await;
    assert_eq!(
        answer(
            client()
                .post(format!("{}/upload", house.http))
                .body(vec![b'x'; 100_000])
        )
        .await
        .unwrap()
        .status,
        200
    );
    assert_eq!(hello.last().body.len(), 100_000);
}

#[tokio::test]
async fn blocked_networks_get_403_and_nothing_else() {
    let house = House::configured("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n", &[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    house
        .save(
            "blocks",
            "bad",
            json!({ "networks": ["203.0.113.0/24"], "reason": "scans" }),
        )
        .await;
    let deny = json!({ "path": { "prefix": "/inner" }, "target": { "service": { "name": "hello" } }, "access": { "allow": ["10.0.0.0/8"] } });
    house.save("routes", "inner", deny).await;
    for (address, path, status) in [
        ("203.0.113.9", "/api/hello/", 403),
        ("198.51.100.1", "/api/hello/", 200),
        ("10.1.1.1", "/inner/x", 200),
        ("198.51.100.1", "/inner/x", 403),
    ] {
        let request = client()
            .get(format!("{}{path}", house.http))
            .header("x-forwarded-for", address);
        let answer = answer(request).await.unwrap();
        assert_eq!(answer.status, status, "{address} {path}: {}", answer.text);
    }
    house
        .operate(Method::DELETE, "/api/gateway/blocks/bad", None)
        .await;
    let request = client()
        .get(format!("{}/api/hello/", house.http))
        .header("x-forwarded-for", "203.0.113.9");
    assert_eq!(answer(request).await.unwrap().status, 200);
}
