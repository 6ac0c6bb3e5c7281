//! HTTP/2 from clients and to instances, with clients and servers that are not ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol as ConnectProtocol;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};

use super::backend::Backend;
use super::client::eventually;
use super::rig::{Rig, Setup};
use crate::serve::{Outcome, ServeLimits};
use crate::upstream::{Endpoint, Protocol, Target};

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    client.ready().await.unwrap()
}

/// Sends a request with a body and reads the whole answer.
async fn fetch(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    body: &'static [u8],
) -> (Response<Bytes>, Option<HeaderMap>) {
    let mut client = client.clone().ready().await.unwrap();
    let (answer, mut sender) = client.send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        sender.send_data(Bytes::from_static(body), true).unwrap();
    }
    let (parts, mut stream) = answer.await.unwrap().into_parts();
    let mut whole = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap();
    (Response::from_parts(parts, Bytes::from(whole)), trailers)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://example.com{path}"))
        .body(())
        .unwrap()
}

/// An HTTP/2 server that answers like a gRPC service: what came, then trailers.
async fn grpc_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(grpc_answer(request, respond));
                }
            });
        }
    });
    address
}

async fn grpc_answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let (parts, mut body) = request.into_parts();
    let te = parts
        .headers
        .get("te")
        .map_or("none", |v| v.to_str().unwrap())
        .to_owned();
    if parts.uri.path() == "/refused" {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-te", te)
        .body(())
        .unwrap();
    let mut sender = respond.send_response(head, false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        sender.send_data(data, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    sender.send_trailers(trailers).unwrap();
}

fn h2c_target(address: SocketAddr) -> Arc<Target> {
    let endpoint = Endpoint::Tcp {
        host: "127.0.0.1".into(),
        port: address.port(),
    };
    Arc::new(Target::new("grpc", endpoint, Protocol::Http2, None))
}

#[test]
fn prior_knowledge_is_recognised_and_translated() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        let mut request = get("/p?q=1");
        request
            .headers_mut()
            .append("cookie", "a=1".parse().unwrap());
        request
            .headers_mut()
            .append("cookie", "b=2".parse().unwrap());
        request
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        let (answer, _) = fetch(&client, request, b"").await;
        let text = std::str::from_utf8(answer.body()).unwrap().to_owned();
        assert!(text.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{text}");
        assert!(
            text.contains("host: example.com\r\n") && text.contains("cookie: a=1; b=2\r\n"),
            "{text}"
        );
        assert!(text.contains("te: trailers\r\n"), "{text}");
        assert!(answer.headers().contains_key("date"));
        let post = Request::post("http://example.com/up").body(()).unwrap();
        let (answer, _) = fetch(&client, post, b"hello").await;
        let text = std::str::from_utf8(answer.body()).unwrap().to_owned();
        assert!(
            text.contains("transfer-encoding: chunked\r\n")
                && text.ends_with("5\r\nhello\r\n0\r\n\r\n"),
            "{text}"
        );
    });
    assert!(rig.ends(2).iter().all(|e| e.outcome == Outcome::Complete));
}

#[test]
fn a_preface_in_pieces_is_recognised() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    let mut client = rig.client();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for byte in preface {
        client.send([*byte]);
    }
    let settings = client.exactly(9);
    assert_eq!(settings[3], 4, "a SETTINGS frame: {settings:?}");
}

#[test]
fn trailers_of_a_chunked_answer_reach_http2() {
    let backend = Backend::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 7\r\n\r\n");
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        let (answer, trailers) = fetch(&client, get("/"), b"").await;
        assert_eq!(answer.body().as_ref(), b"abc");
        assert_eq!(trailers.unwrap()["grpc-status"], "7");
    });
}

#[test]
fn grpc_passes_end_to_end_and_a_refused_stream_is_told() {
    let server = tokio::runtime::Runtime::new().unwrap();
    let address = server.block_on(grpc_server());
    let rig = Rig::start(Setup {
        target: Some(h2c_target(address)),
        ..Setup::default()
    });
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        for _ in 0..3 {
            let mut request = Request::post("http://example.com/pkg.Service/Method")
                .body(())
                .unwrap();
            request
                .headers_mut()
                .insert("te", "trailers".parse().unwrap());
            let (answer, trailers) = fetch(&client, request, b"\0\0\0\0\x03abc").await;
            assert_eq!(
                (answer.status(), answer.headers()["x-te"].to_str().unwrap()),
                (StatusCode::OK, "trailers")
            );
            assert_eq!(answer.body().as_ref(), b"\0\0\0\0\x03abc");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        let (answer, _) = fetch(&client, get("/refused"), b"").await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(
            answer.body().as_ref(),
            b"the instance refused the request unprocessed"
        );
    });
    assert_eq!(
        rig.control().totals().upstream_connects,
        1,
        "one connection carries them all"
    );
}

#[test]
fn http1_clients_reach_http2_instances() {
    let server = tokio::runtime::Runtime::new().unwrap();
    let address = server.block_on(grpc_server());
    let rig = Rig::start(Setup {
        target: Some(h2c_target(address)),
        ..Setup::default()
    });
    let mut client = rig.client();
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(
        (answer.text(), answer.trailers.as_str()),
        ("abc", "grpc-status: 0\n")
    );
}

#[test]
fn a_websocket_over_http2_becomes_an_upgrade() {
    let backend = Backend::new(|mut served| {
        let head = served.head().unwrap();
        assert!(
            head.starts_with("GET /chat HTTP/1.1\r\n")
                && head.contains("connection: upgrade\r\nupgrade: websocket\r\n"),
            "{head}"
        );
        assert!(
            head.contains("sec-websocket-key: ") && head.contains("sec-websocket-version: 13\r\n"),
            "{head}"
        );
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nearly");
        while let Some(bytes) = served.some() {
            served.send(bytes);
        }
    });
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        eventually_async(|| client.is_extended_connect_protocol_enabled()).await;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://example.com/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request
            .extensions_mut()
            .insert(ConnectProtocol::from_static("websocket"));
        let (answer, mut sender) = client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, false)
            .unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        let mut body = answer.into_body();
        sender
            .send_data(Bytes::from_static(b" ping"), false)
            .unwrap();
        let mut got = Vec::new();
        while got.len() < 10 {
            got.extend_from_slice(&body.data().await.unwrap().unwrap());
        }
        assert_eq!(got, b"early ping");
        sender.send_data(Bytes::new(), true).unwrap();
        while let Some(rest) = body.data().await {
            assert!(rest.unwrap().is_empty(), "only the end");
        }
    });
    assert_eq!(rig.ends(1)[0].sent, 10);
}

#[test]
fn plain_connect_and_odd_hosts_are_refused() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        let connect = Request::builder()
            .method(Method::CONNECT)
            .uri("example.com:443")
            .body(())
            .unwrap();
        let (answer, _sender) = client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(connect, false)
            .unwrap();
        assert_eq!(answer.await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
        let odd = Request::get("http://user@example.com/").body(()).unwrap();
        let (answer, _) = fetch(&client, odd, b"").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    });
    assert_eq!(
        rig.seen
            .refused
            .lock()
            .iter()
            .map(|r| r.1)
            .collect::<Vec<_>>(),
        ["connect", "invalid_host"]
    );
    assert_eq!(backend.received(), "");
}

#[test]
fn transfer_encoding_never_comes_down_from_http2() {
    let backend = Backend::echo();
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        for (name, value) in [
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("te", "gzip"),
        ] {
            let client = connect(rig.address).await;
            let mut request = Request::post("http://example.com/").body(()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
            // h2's client refuses to send some of them itself.
            let Ok((answer, mut sender)) = client
                .clone()
                .ready()
                .await
                .unwrap()
                .send_request(request, false)
            else {
                continue;
            };
            let _sent = sender.send_data(
                Bytes::from_static(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
                true,
            );
            let _ended = answer.await;
        }
    });
    assert!(
        !backend
            .received()
            .contains("transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET"),
        "{}",
        backend.received()
    );
}

#[test]
fn a_drain_says_goaway_and_lets_streams_end() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let backend = Backend::new(move |mut served| {
        while served.request().is_some() {
            wait.lock().recv().unwrap();
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let mut rig = Rig::new(&backend);
    let address = rig.address;
    let client_runtime = tokio::runtime::Runtime::new().unwrap();
    let client = client_runtime.block_on(connect(address));
    let task =
        client_runtime.spawn(async move { fetch(&client, get("/slow"), b"").await.0.status() });
    eventually(|| backend.received().contains("/slow").then_some(()));
    release.send(()).unwrap();
    let cut = rig.stop(Duration::from_secs(10));
    assert_eq!(cut, []);
    assert_eq!(client_runtime.block_on(task).unwrap(), StatusCode::OK);
}

#[test]
fn streams_are_limited_and_cut_by_key_alone() {
    let backend = Backend::new(|mut served| {
        let head = served.head().unwrap();
        served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        if head.contains("x-user: bob") {
            served.send("0\r\n\r\n");
        }
        served.some();
    });
    let limits = ServeLimits {
        h2_streams: 5,
        ..ServeLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            limits,
            ..Setup::default()
        },
    );
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        eventually_async(|| client.current_max_send_streams() == 5).await;
        let mut request = get("/events");
        request
            .headers_mut()
            .insert("x-user", "ann".parse().unwrap());
        let (answer, _) = client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, true)
            .unwrap();
        let mut events = answer.await.unwrap().into_body();
        assert_eq!(events.data().await.unwrap().unwrap().as_ref(), b"x");
        assert_eq!(rig.control().close_streams("user:ann").await, 1);
        assert!(events.data().await.unwrap().is_err(), "the stream is reset");
        let mut request = get("/other");
        request
            .headers_mut()
            .insert("x-user", "bob".parse().unwrap());
        let (answer, _) = fetch(&client, request, b"").await;
        assert_eq!(answer.body().as_ref(), b"x", "the connection lives on");
    });
}

#[test]
fn a_stream_whose_client_does_not_read_is_cut() {
    let backend = Backend::new(|mut served| {
        served.request();
        served.send("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n");
        served.send(vec![b'x'; 10_000_000]);
    });
    let limits = ServeLimits {
        write_stall: Duration::from_millis(200),
        ..ServeLimits::default()
    };
    let rig = Rig::with(
        &backend,
        Setup {
            limits,
            ..Setup::default()
        },
    );
    rig.runtime.block_on(async {
        let client = connect(rig.address).await;
        let (answer, _) = client
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(get("/"), true)
            .unwrap();
        let mut body = answer.await.unwrap().into_body();
        // No capacity is released: the window is used up and stays so.
        let error = loop {
            match body.data().await.unwrap() {
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert!(error.is_reset(), "{error}");
    });
    assert_eq!(rig.ends(1)[0].outcome, Outcome::Cut);
}

async fn eventually_async(mut ask: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !ask() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it never happened"
        );
        tokio::task::yield_now().await;
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let backend = Backend::new(|mut served| {
        served.head();
        served.send(
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        );
        while served.some().is_some() {}
    });
    let rig = Rig::new(&backend);
    rig.runtime.block_on(async {
        for path in ["/early", "/upload"] {
            let mut client = connect(rig.address).await;
            let post = Request::post(format!("http://example.com{path}"))
                .header("content-length", 102_400)
                .body(())
                .unwrap();
            let (answer, mut sender) = client.send_request(post, false).unwrap();
            sender
                .send_data(Bytes::from(vec![b'x'; 65_535]), false)
                .unwrap();
            let answer = answer.await.unwrap();
            assert!(
                matches!(answer.status().as_u16(), 401 | 405),
                "{}",
                answer.status()
            );
            let mut body = answer.into_body();
            let mut got = Vec::new();
            while let Some(data) = body.data().await {
                got.extend_from_slice(&data.unwrap());
            }
            assert!(matches!(got.as_slice(), b"early" | b"no"));
        }
    });
}
