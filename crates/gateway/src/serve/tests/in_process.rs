//! Services of this process, called on the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http_body_util::BodyExt as _;

use super::client::eventually;
use super::rig::{Rig, Setup};

fn rig(router: Router) -> Rig {
    Rig::start(Setup {
        router: Some(router),
        ..Setup::default()
    })
}

#[test]
fn a_router_answers_without_a_hop() {
    let rig = rig(Router::new().route("/hello", get(|| async { "hello" })));
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer();
        assert_eq!(
            (
                answer.status(),
                answer.text(),
                answer.header("content-length")
            ),
            (200, "hello", Some("5"))
        );
    }
    client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status(), 404);
    client.send("HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().contains("content-length: 5\r\n"));
}

#[test]
fn what_a_handler_opens_lives_on_the_shared_runtime() {
    let router = Router::new().route(
        "/spawn",
        get(|| async {
            let task = tokio::spawn(async {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                std::thread::current().name().unwrap_or("").to_owned()
            });
            task.await.unwrap()
        }),
    );
    let rig = rig(router);
    let mut client = rig.client();
    client.send("GET /spawn HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert!(
        !answer.text().starts_with("data-"),
        "ran on {}",
        answer.text()
    );
}

#[test]
fn a_panic_is_500_and_the_worker_lives() {
    let router = Router::new()
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("on purpose")
                }
            }),
        )
        .route("/hello", get(|| async { "hello" }));
    let rig = rig(router);
    let mut client = rig.client();
    client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status(), 500);
    assert!(answer.text().contains("on purpose"));
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn bodies_stream_through_in_both_directions() {
    let router = Router::new().route("/echo", post(|body: Body| async move { body }));
    let rig = rig(router);
    let mut client = rig.client();
    let size = 3_000_000;
    let body = "z".repeat(size);
    let mut sender = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        std::io::Write::write_all(&mut sender, head.as_bytes()).unwrap();
        std::io::Write::write_all(&mut sender, body.as_bytes()).unwrap();
    });
    assert_eq!(client.answer().body.len(), size);
    sending.join().unwrap();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n");
    let answer = client.answer();
    assert_eq!(
        (answer.text(), answer.trailers.as_str()),
        ("abc", "x-sum: 1\n")
    );
}

#[test]
fn a_body_cut_off_by_the_client_is_an_error_not_an_end() {
    let (wrong, right) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (w, r) = (Arc::clone(&wrong), Arc::clone(&right));
    let router = Router::new().route(
        "/read",
        post(move |body: Body| {
            let (w, r) = (Arc::clone(&w), Arc::clone(&r));
            async move {
                // The handler may be dropped instead of seeing the error; it must never see an end.
                match body.collect().await {
                    Ok(_) => w.fetch_add(1, Ordering::SeqCst),
                    Err(_) => r.fetch_add(1, Ordering::SeqCst),
                };
                ""
            }
        }),
    );
    let rig = rig(router);
    let mut client = rig.client();
    client.send("POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.shut();
    client.until_close();
    eventually(|| (rig.control().totals().open == 0).then_some(()));
    assert_eq!(wrong.load(Ordering::SeqCst), 0);
}

#[test]
fn a_client_that_goes_away_cancels_the_handler() {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (begun, dropped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (b, d) = (Arc::clone(&begun), Arc::clone(&dropped));
    let router = Router::new().route(
        "/wait",
        get(move || {
            let (b, guard) = (Arc::clone(&b), Guard(Arc::clone(&d)));
            async move {
                b.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<()>().await;
                drop(guard);
            }
        }),
    );
    let rig = rig(router);
    let mut client = rig.client();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| (begun.load(Ordering::SeqCst) == 1).then_some(()));
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    drop(client);
    eventually(|| (dropped.load(Ordering::SeqCst) == 1).then_some(()));
}

#[test]
fn head_of_a_body_with_a_length_has_it_once() {
    let rig = rig(Router::new().fallback(|| async { "a body that nobody asked for" }));
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("HEAD /any HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.head();
        assert_eq!(head.matches("content-length: 28\r\n").count(), 1, "{head}");
        assert_eq!(head.matches("content-length").count(), 1, "{head}");
    }
}

#[test]
fn long_pieces_of_unknown_length_are_chunked_whole() {
    let router = Router::new().route(
        "/long",
        get(|| async {
            let pieces = [
                vec![b'a'; 1_000_000],
                vec![b'b'; 70_000],
                vec![b'c'; 10],
                vec![b'd'; 61_440],
            ];
            let frames = pieces.map(|p| Ok::<_, std::io::Error>(bytes::Bytes::from(p)));
            Body::from_stream(futures_util::stream::iter(frames))
        }),
    );
    let rig = rig(router);
    let mut client = rig.client();
    for _ in 0..2 {
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.answer();
        let count = |byte| answer.body.iter().filter(|b| **b == byte).count();
        assert_eq!(
            [count(b'a'), count(b'b'), count(b'c'), count(b'd')],
            [1_000_000, 70_000, 10, 61_440]
        );
    }
}
