//! Long and unusual exchanges: WebSocket, event streams, streaming both ways, HEAD, ranges, 100-continue.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message as Inner, WebSocketUpgrade};
use axum::routing::any;
use futures_util::{SinkExt as _, StreamExt as _};
use portico_testkit::TestPlugin;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::house::{House, answer, client};
use crate::raw::{RawServer, read_head, status};
use crate::recorder::Recorder;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_goes_through_both_ways() {
    let house = House::start(&[]);
    let router = Router::new().fallback(any(|upgrade: WebSocketUpgrade| async {
        upgrade
            .protocols(["chat"])
            .on_upgrade(|mut socket| async move {
                while let Some(Ok(message)) = socket.recv().await {
                    if matches!(message, Inner::Text(_) | Inner::Binary(_))
                        && socket.send(message).await.is_err()
                    {
                        return;
                    }
                }
            })
    }));
    let plugin = TestPlugin::with(router).await;
    house
        .register("chat", plugin.address.port(), json!({}))
        .await;
    let mut request = format!("ws://{}/api/chat/room?x=1", house.address())
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "chat".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    assert!(response.headers().contains_key("x-request-id"));
    let big = vec![7_u8; 300_000];
    for message in [
        Message::text("hello"),
        Message::binary(big),
        Message::text("bye"),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(message.is_close(), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_of_another_origin_is_refused() {
    let house = House::start(&[]);
    let plugin = TestPlugin::with(
        Router::new().fallback(any(|upgrade: WebSocketUpgrade| async {
            upgrade.on_upgrade(|_| async {})
        })),
    )
    .await;
    house
        .register("chat", plugin.address.port(), json!({}))
        .await;
    let mut request = format!("ws://{}/api/chat/", house.address())
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("origin", "https://evil.example".parse().unwrap());
    assert!(tokio_tungstenite::connect_async(request).await.is_err());
}

/// Writes one piece of an answer whenever the test says so.
fn piecewise(head: &'static str) -> (RawServer, mpsc::Sender<&'static str>) {
    let (sender, receiver) = mpsc::channel::<&'static str>();
    let receiver = std::sync::Mutex::new(receiver);
    let server = RawServer::start(move |mut stream, _| {
        if read_head(&mut stream).is_none() {
            return;
        }
        let _ = stream.write_all(
            format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
        );
        for piece in receiver.lock().unwrap().iter() {
            let _ = stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
            if piece.is_empty() {
                return;
            }
        }
    });
    (server, sender)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_when_they_happen() {
    let house = House::start(&[]);
    let (server, pieces) = piecewise("Content-Type: text/event-stream\r\n");
    house.register("news", server.port(), json!({})).await;
    let mut response = client()
        .get(format!("{}/api/news/", house.http))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        // The next one is only written after this one was read: nothing is held back.
        pieces.send(event).unwrap();
        let mut got = Vec::new();
        while got.len() < event.len() {
            got.extend_from_slice(&response.chunk().await.unwrap().expect("the stream goes on"));
        }
        assert_eq!(got, event.as_bytes());
    }
    pieces.send("").unwrap();
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_streams_while_its_answer_does() {
    let house = House::start(&[]);
    // Sends each byte back as its own chunk, before the request's body is over.
    let server = RawServer::start(|mut stream, _| {
        if read_head(&mut stream).is_none() {
            return;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut bytes) {
            let _ = stream.write_all(format!("{n:x}\r\n").as_bytes());
            let _ = stream.write_all(&bytes[..n]);
            let _ = stream.write_all(b"\r\n");
            if bytes[..n].ends_with(b"0\r\n\r\n") {
                let _ = stream.write_all(b"0\r\n\r\n");
            }
        }
    });
    house.register("mirror", server.port(), json!({})).await;
    let mut stream = TcpStream::connect(house.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    write!(
        stream,
        "POST /api/mirror/ HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        house.address()
    )
    .unwrap();
    stream.write_all(b"3\r\none\r\n").unwrap();
    let head = read_head(&mut stream).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut got = String::new();
    let mut read_until = |stream: &mut TcpStream, wanted: &str| {
        let mut byte = [0];
        while !got.contains(wanted) {
            stream
                .read_exact(&mut byte)
                .unwrap_or_else(|e| panic!("{wanted} never came back: {e}; {got:?}"));
            got.push(char::from(byte[0]));
        }
    };
    read_until(&mut stream, "one");
    stream.write_all(b"3\r\ntwo\r\n").unwrap();
    read_until(&mut stream, "two");
    stream.write_all(b"0\r\n\r\n").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_and_ranges_pass_unchanged() {
    let house = House::start(&[]);
    let server = RawServer::start(|mut stream, _| {
        while let Some(head) = read_head(&mut stream) {
            let answer: &[u8] = if head.starts_with("HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"a\"\r\n\r\n"
            } else if head.to_lowercase().contains("range: bytes=2-4") {
                b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\n234"
            } else {
                b"HTTP/1.1 204 No Content\r\n\r\n"
            };
            let _ = stream.write_all(answer);
        }
    });
    house.register("plain", server.port(), json!({})).await;
    let url = format!("{}/api/plain/", house.http);
    let client = client();
    for _ in 0..3 {
        let head = answer(client.head(&url)).await.unwrap();
        assert_eq!(
            (
                head.status,
                head.headers["content-length"].to_str().unwrap(),
                head.headers["etag"].to_str().unwrap()
            ),
            (200, "12345", "\"a\"")
        );
        let part = answer(client.get(&url).header("range", "bytes=2-4"))
            .await
            .unwrap();
        assert_eq!(
            (
                part.status,
                part.text.as_str(),
                part.headers["content-range"].to_str().unwrap()
            ),
            (206, "234", "bytes 2-4/10")
        );
        let none = answer(client.get(&url)).await.unwrap();
        assert_eq!((none.status, none.text.as_str()), (204, ""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expect_100_continue_is_answered_before_the_body_is_sent() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let mut stream = TcpStream::connect(house.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let head = format!(
        "POST /api/hello/ HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        house.address()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let go = read_head(&mut stream).unwrap();
    assert_eq!(status(&go), 100, "{go}");
    stream.write_all(b"hello").unwrap();
    let done = read_head(&mut stream).unwrap();
    assert_eq!(status(&done), 200, "{done}");
    assert_eq!(hello.last().body, "hello");
    // A refused request is told so at once, and its body need not be sent.
    let refused = format!(
        "POST /api/nobody/ HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        house.address()
    );
    let mut stream = TcpStream::connect(house.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(refused.as_bytes()).unwrap();
    assert_eq!(status(&read_head(&mut stream).unwrap()), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_their_order() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let requests: String = (0..5)
        .map(|i| {
            format!(
                "GET /api/hello/{i} HTTP/1.1\r\nHost: {}\r\n\r\n",
                house.address()
            )
        })
        .collect();
    let last = format!(
        "GET /api/hello/last HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        house.address()
    );
    let text = crate::raw::exchange(house.address(), (requests + &last).as_bytes());
    let places: Vec<usize> = ["/0", "/1", "/2", "/3", "/4", "/last"]
        .iter()
        .map(|p| {
            text.find(&format!("hello {p}"))
                .unwrap_or_else(|| panic!("{p}: {text}"))
        })
        .collect();
    assert!(places.is_sorted(), "{text}");
}
