//! HTTP/2 with prior knowledge, and gRPC with its trailers, through to an instance that speaks the same.

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::house::House;
use crate::recorder::Recorder;

/// An instance that sends every message back as it comes, and ends with a status in trailers.
async fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(reflect(request, respond));
                }
            });
        }
    });
    port
}

async fn reflect(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let told = parts.headers.get("te").is_some_and(|te| te == "trailers");
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-path", parts.uri.path());
    let mut send = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        send.send_data(data, false).unwrap();
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "grpc-status",
        if told { "0" } else { "13" }.parse().unwrap(),
    );
    trailers.insert("grpc-message", "fine".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

async fn connect(house: &House) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(house.address()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn request(house: &House, path: &str) -> Request<()> {
    Request::post(format!("{}{path}", house.http))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn grpc_streams_both_ways_and_keeps_its_trailers() {
    let house = House::start(&[]);
    let port = mirror().await;
    house
        .register("calls", port, json!({ "protocol": "h2c" }))
        .await;
    let mut client = connect(&house).await;
    let (response, mut send) = client
        .send_request(request(&house, "/api/calls/pkg.Service/Method"), false)
        .unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    send.send_data(message.clone(), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-path"]),
        (200, &"/pkg.Service/Method".parse().unwrap())
    );
    let mut body = response.into_body();
    for round in 0..3 {
        // The next message is sent after the one before came back.
        let mut got = Vec::new();
        while got.len() < message.len() {
            let data = body.data().await.expect("more is to come").unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            got.extend_from_slice(&data);
        }
        assert_eq!(got, message, "{round}");
        if round < 2 {
            send.send_data(message.clone(), false).unwrap();
        }
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert!(
        body.data()
            .await
            .is_none_or(|data| data.unwrap().is_empty())
    );
    let trailers = body
        .trailers()
        .await
        .unwrap()
        .expect("gRPC ends with trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"fine".parse().unwrap())
    );
}

#[tokio::test]
async fn errors_of_the_door_are_grpc_statuses() {
    let house = House::start(&[]);
    let mut client = connect(&house).await;
    let (response, _) = client
        .send_request(request(&house, "/api/nobody/pkg.Service/Method"), true)
        .unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["content-type"].to_str().unwrap()
        ),
        (200, "application/grpc")
    );
    assert_ne!(response.headers()["grpc-status"], "0");
    assert!(
        response.headers()["grpc-message"]
            .to_str()
            .unwrap()
            .contains("gateway.service_not_found")
    );
}

#[tokio::test]
async fn http2_clients_reach_http1_instances() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let mut client = connect(&house).await;
    let mut answers = Vec::new();
    for number in 0..20 {
        let request = Request::get(format!("{}/api/hello/{number}?a=b", house.http))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        answers.push((number, client.send_request(request, true).unwrap().0));
        client = client.ready().await.unwrap();
    }
    for (number, answer) in answers {
        let response = answer.await.unwrap();
        assert_eq!(response.status(), 200);
        let data = response.into_body().data().await.unwrap().unwrap();
        assert_eq!(data, format!("hello /{number}?a=b"));
    }
    let seen = hello.last();
    assert_eq!(
        (seen.header("cookie"), seen.header("x-forwarded-host")),
        ("a=1; b=2", house.address())
    );
}

#[tokio::test]
async fn what_cannot_be_said_in_http1_is_refused_in_http2() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    let vectors: [(&str, &str); 4] = [
        ("transfer-encoding", "chunked"),
        ("connection", "x-portico-user"),
        ("te", "gzip"),
        ("content-length", "7"),
    ];
    for (name, value) in vectors {
        let mut client = connect(&house).await;
        let request = Request::post(format!("{}/api/hello/", house.http))
            .header(name, value)
            .body(())
            .unwrap();
        // The client library refuses to send some of these itself.
        let Ok((response, mut send)) = client.send_request(request, false) else {
            continue;
        };
        let _ = send.send_data(Bytes::from_static(b"hello"), true);
        match response.await {
            Ok(response) => assert_eq!(response.status(), 400, "{name}: {value}"),
            Err(error) => assert_eq!(
                error.reason(),
                Some(Reason::PROTOCOL_ERROR),
                "{name}: {value}: {error}"
            ),
        }
    }
    assert_eq!(hello.count(), 0);
}
