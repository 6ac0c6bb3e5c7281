//! Requests that two parsers could read in two ways, slow clients, floods: refused, bounded, counted.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::house::House;
use crate::raw::{RawServer, exchange, read_head, status};

#[tokio::test]
async fn smuggling_vectors_never_reach_an_instance() {
    let house = House::start(&[]);
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let upstream = RawServer::start(move |mut stream, _| {
        while read_head(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    house.register("target", upstream.port(), json!({})).await;
    let vectors: &[&str] = &[
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Content-Length: 0x5\r\n\r\nhello",
        "Content-Length: 1_0\r\n\r\nhellohello",
        "Content-Length:\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        " Folded: yes\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "X: a\0b\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "Host: other\r\n\r\n",
        "Connection: X-Portico-User\r\nX-Portico-User: admin\r\n\r\n",
    ];
    for vector in vectors {
        let request = format!(
            "POST /api/target/ HTTP/1.1\r\nHost: {}\r\n{vector}",
            house.address()
        );
        let text = exchange(house.address(), request.as_bytes());
        assert!(
            matches!(status(&text), 400 | 501),
            "{vector:?} gave {text:?}"
        );
        assert!(
            text.to_lowercase().contains("connection: close"),
            "{vector:?}: {text:?}"
        );
    }
    let http10 = format!(
        "POST /api/target/ HTTP/1.0\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        house.address()
    );
    assert_eq!(status(&exchange(house.address(), http10.as_bytes())), 400);
    assert_eq!(seen.load(Ordering::SeqCst), 0, "none may be forwarded");
    assert!(
        house.metric("portico_gateway_protocol_errors_total").await >= vectors.len() as f64 - 1.0
    );
}

#[tokio::test]
async fn broken_chunks_are_refused_and_only_whole_requests_arrive() {
    let house = House::start(&[]);
    let upstream = RawServer::start(|mut stream, _| {
        while read_head(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    house.register("chunks", upstream.port(), json!({})).await;
    for body in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\n",
        "5;\rx\r\nhello\r\n0\r\n\r\n",
    ] {
        let request = format!(
            "POST /api/chunks/ HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
            house.address()
        );
        let text = exchange(house.address(), request.as_bytes());
        // The head may have been answered already; a second request must never be read from the rest.
        assert!(
            text.matches("HTTP/1.1 ").count() <= 1,
            "{body:?} gave {text:?}"
        );
    }
}

#[tokio::test]
async fn limits_of_line_and_headers_are_answered() {
    let house = House::start(&[]);
    let host = house.address();
    let long = "a".repeat(9 * 1024);
    let line = exchange(
        host,
        format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
    );
    assert_eq!(status(&line), 414, "{line}");
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    let fields = exchange(
        host,
        format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{many}\r\n").as_bytes(),
    );
    assert_eq!(status(&fields), 431, "{fields}");
    let bomb = exchange(
        host,
        format!(
            "GET /healthz HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n",
            "b".repeat(33 * 1024)
        )
        .as_bytes(),
    );
    assert_eq!(status(&bomb), 431, "{bomb}");
    let unknown = exchange(
        host,
        b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(status(&unknown), 421, "{unknown}");
}

#[tokio::test]
async fn slow_clients_and_idle_crowds_do_not_keep_others_out() {
    let house = House::start(&[]);
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(house.address()).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
        slow.push(stream);
    }
    assert_eq!(house.get("/healthz").await.status, 200);
    // All began within the same second, so that the rest ends with the first.
    for mut stream in slow {
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .unwrap();
        let mut out = Vec::new();
        let end = stream.read_to_end(&mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(
            end.is_ok() && (out.is_empty() || status(&text) == 408),
            "a head that takes over 10 s is cut: {end:?} {text:?}"
        );
    }
}
