//! Bad neighbours: instances that die, hang, talk nonsense, close early, lie about lengths, trickle.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::house::{House, answer, client};
use crate::raw::{RawServer, answer_always, read_head};

async fn status_of(house: &House, name: &str) -> (u16, String) {
    let answer = house.get(&format!("/api/{name}/")).await;
    (
        answer.status,
        answer.json()["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

#[tokio::test]
async fn nobody_there_is_503_with_retry_after() {
    let house = House::start(&[]);
    let unknown = house.get("/api/nobody/").await;
    assert_eq!(
        (unknown.status, unknown.json()["code"].as_str()),
        (404, Some("gateway.service_not_found"))
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    let id = house.register("gone", port, json!({})).await;
    drop(closed);
    let (status, code) = status_of(&house, "gone").await;
    assert!(
        matches!(
            (status, code.as_str()),
            (502, "gateway.upstream_unreachable") | (503, _)
        ),
        "{status} {code}"
    );
    let path = format!("/api/registry/deregister/{id}");
    house
        .operate(reqwest::Method::POST, &path, Some(&json!({ "now": true })))
        .await;
    let none = house.get("/api/gone/").await;
    assert_eq!(
        (none.status, none.json()["code"].as_str()),
        (503, Some("gateway.no_instance")),
        "{}",
        none.text
    );
    assert_eq!(none.headers["retry-after"], "1");
    assert_eq!(none.headers["content-type"], "application/problem+json");
}

#[tokio::test]
async fn nonsense_early_ends_and_wrong_lengths_are_502() {
    let house = House::start(&[]);
    let cases: &[(&str, &[u8])] = &[
        ("garbage", b"\x16\x03\x01 nonsense\r\n\r\n"),
        ("no-status", b"HTTP/1.1 xyz OK\r\n\r\n"),
        (
            "two-lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        ),
        (
            "both-framings",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("nothing", b""),
        ("half-head", b"HTTP/1.1 200 OK\r\nContent-"),
    ];
    for (name, bytes) in cases {
        let bytes = bytes.to_vec();
        let upstream = RawServer::start(move |mut stream, _| {
            if read_head(&mut stream).is_some() {
                let _ = stream.write_all(&bytes);
            }
        });
        house.register(name, upstream.port(), json!({})).await;
        let (status, code) = status_of(&house, name).await;
        assert_eq!(status, 502, "{name}: {code}");
        assert!(code.starts_with("gateway.upstream_"), "{name}: {code}");
    }
}

#[tokio::test]
async fn a_body_that_ends_too_early_breaks_the_answer_off() {
    let house = House::start(&[]);
    let upstream = RawServer::start(|mut stream, _| {
        if read_head(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
        }
    });
    house.register("short", upstream.port(), json!({})).await;
    let result = answer(client().get(format!("{}/api/short/", house.http))).await;
    assert!(
        result.is_err(),
        "a cut answer must not look whole: {result:?}"
    );
    assert_eq!(house.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_hanging_instance_is_504_and_hurts_nobody_else() {
    let house = House::start(&[]);
    let hanging = RawServer::start(|mut stream, _| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_secs(60));
    });
    let good = RawServer::start(|stream, _| answer_always(stream, "fine"));
    let endpoints =
        json!({ "endpoints": [{ "path": "/*", "is_public": true, "timeout_ms": 300 }] });
    house.register("hanging", hanging.port(), endpoints).await;
    house.register("good", good.port(), json!({})).await;
    let url = format!("{}/api/hanging/", house.http);
    let waiting = tokio::spawn(async move { answer(client().get(url)).await.unwrap() });
    assert_eq!(house.get("/api/good/").await.text, "fine");
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (504, Some("gateway.upstream_timeout"))
    );
}

#[tokio::test]
async fn killing_one_of_two_under_load_costs_no_idempotent_request() {
    let house = House::start(&[]);
    let good = RawServer::start(|stream, _| answer_always(stream, "good"));
    // Dies in the middle of its life: answers a few requests, then every connection is cut without an answer.
    let left = std::sync::atomic::AtomicI32::new(40);
    let dying = RawServer::start(move |mut stream, _| {
        while read_head(&mut stream).is_some() {
            if left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) <= 0 {
                return;
            }
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nweak")
                .is_err()
            {
                return;
            }
        }
    });
    house
        .register("pair", good.port(), json!({ "instance_key": "a" }))
        .await;
    house
        .register("pair", dying.port(), json!({ "instance_key": "b" }))
        .await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = format!("{}/api/pair/", house.http);
        clients.spawn(async move {
            let client = client();
            let mut bad = Vec::new();
            for _ in 0..250 {
                match answer(client.get(&url)).await {
                    Ok(answer) if answer.status == 200 => {}
                    other => bad.push(format!("{other:?}")),
                }
            }
            bad
        });
    }
    let bad: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    assert!(
        bad.is_empty(),
        "{} of 2000 failed, first: {:?}",
        bad.len(),
        bad.first()
    );
}
