//! Active checks against real servers, and what the data plane sees.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use portico_contract::directory::{DirectorySource as _, Observation};
use portico_db::testing::each_backend;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{House, operator};
use crate::domain::check::{CheckKey, CheckSpec, Probe, Status};
use crate::domain::node::NodeKey;
use crate::hub::Source;
use crate::model::Topic;
use crate::ops::checks::Wanted;
use crate::{aliases, checks, life, ops};

/// A server that answers `/healthz` with a status that can be changed.
async fn server(status: Arc<std::sync::atomic::AtomicU16>) -> (u16, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let answer = get(move || {
        let code = status.load(std::sync::atomic::Ordering::SeqCst);
        async move {
            (
                http::StatusCode::from_u16(code).unwrap(),
                "body of the check",
            )
        }
    });
    let router = Router::new().route("/healthz", answer);
    let serve = axum_serve(listener, router, stop.clone());
    tokio::spawn(serve);
    (port, stop)
}

async fn axum_serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let tasks = tokio_util::task::TaskTracker::new();
    portico_web::serve::serve(
        listener,
        router,
        portico_web::serve::Limits::default(),
        tasks,
        stop,
    )
    .await;
}

/// The background work of a process.
fn work(house: &House) -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn(checks::run(Arc::clone(&house.core), stop.clone()));
    tokio::spawn(life::run(Arc::clone(&house.core), stop.clone()));
    stop
}

/// Waits until an instance has a state.
async fn until(house: &House, id: &str, state: &str) {
    let wait = async {
        loop {
            let woken = house.core.topics.listen(Topic::Services);
            if house.state(id) == state {
                return;
            }
            woken.woken().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("{id} is {} and not {state}", house.state(id)));
}

#[tokio::test]
async fn an_instance_with_a_check_starts_fails_and_returns() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let stop = work(&house);
        let status = Arc::new(std::sync::atomic::AtomicU16::new(503));
        let (port, server) = server(Arc::clone(&status)).await;
        let body = json!({"name": "hello", "port": port, "host": "127.0.0.1",
            "check": {"url": "/healthz", "interval_s": 1, "timeout_ms": 500, "body_match": "of the"}});
        let (code, answer) = house.register(&operator(), body).await;
        assert_eq!((code, answer["state"].as_str()), (201, Some("starting")));
        let id = answer["id"].as_str().unwrap();
        until(&house, id, "failing").await;
        status.store(200, std::sync::atomic::Ordering::SeqCst);
        until(&house, id, "ready").await;
        server.cancel();
        until(&house, id, "failing").await;
        let (_, history) = house.get(&operator(), &format!("/services/{id}/history")).await;
        assert_eq!(history["items"][0]["reason"], "a check fails");
        stop.cancel();
    })
    .await;
}

#[tokio::test]
async fn a_refused_connection_takes_out_and_a_probe_brings_back() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let stop = work(&house);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let id = house.enter("hello", address.port()).await;
        assert_eq!(house.state(&id), "ready");
        let source = Source(Arc::clone(&house.core));
        let uuid: Uuid = id.parse().unwrap();
        source.observe(uuid, Observation::ConnectFailed);
        assert_eq!(
            house.state(&id),
            "ready",
            "once is not enough; a probe looks"
        );
        until(&house, &id, "failing").await;
        let listener = TcpListener::bind(address).await.unwrap();
        let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        until(&house, &id, "ready").await;
        accepting.abort();
        stop.cancel();
    })
    .await;
}

#[tokio::test]
async fn restored_instances_are_probed_at_once() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let dead = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let alive = house.enter("hello", port).await;
        let dead = house.enter("hello", dead).await;
        house.advance(1);
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        assert_eq!(
            (after.state(&alive), after.state(&dead)),
            ("late".to_owned(), "late".to_owned())
        );
        let stop = work(&after);
        until(&after, &alive, "ready").await;
        until(&after, &dead, "failing").await;
        accepting.abort();
        stop.cancel();
    })
    .await;
}

#[tokio::test]
async fn an_instance_waits_for_its_first_connection_when_asked_to() {
    each_backend(async |db| {
        let house = House::with(db, vec![("registry.probe_on_register", json!(true))]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let body = json!({"name": "hello", "port": port, "host": "127.0.0.1"});
        let (_, answer) = house.register(&operator(), body).await;
        assert_eq!(answer["state"], "starting");
        let stop = work(&house);
        until(&house, answer["id"].as_str().unwrap(), "ready").await;
        stop.cancel();
        drop(listener);
    })
    .await;
}

#[tokio::test]
async fn foreign_targets_are_not_looked_at() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, who) = house.token(json!({"name_pattern": "hello"})).await;
        let stop = work(&house);
        let body = json!({"name": "hello", "port": 9001, "host": "127.0.0.1",
            "check": {"url": "http://10.255.255.1/", "interval_s": 1}});
        let (_, answer) = house.register(&who, body).await;
        let id = answer["id"].as_str().unwrap();
        until(&house, id, "failing").await;
        let output = {
            let model = house.core.model.read();
            model
                .checks_of(id.parse().unwrap())
                .next()
                .map(|c| c.output.to_string())
        };
        assert_eq!(output.as_deref(), Some("address not allowed"));
        stop.cancel();
    })
    .await;
}

#[tokio::test]
async fn an_alias_says_what_others_say() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let cx = house.core.own_context("test");
        let node = NodeKey::new(None, "external");
        let key = |id: &str| CheckKey {
            node: node.clone(),
            id: Arc::from(id),
        };
        let put = async |id: &str, probe: Probe, status| {
            let wanted = Wanted {
                key: key(id),
                instance: None,
                name: id.to_owned(),
                notes: String::new(),
                spec: CheckSpec {
                    probe,
                    interval_ms: 0,
                    timeout_ms: 0,
                    fall: 1,
                    rise: 1,
                    deregister_after_ms: 0,
                    foreign: false,
                },
                status,
                output: String::new(),
                states: true,
            };
            ops::checks::put(&house.core, &cx, wanted).await.unwrap();
            aliases::step(&house.core, &cx).await.unwrap();
            let model = house.core.model.read();
            model.check(&key("alias")).map(|c| c.status)
        };
        let alias = Probe::Alias {
            service: None,
            node: Some("external".to_owned()),
        };
        let said = put("alias", alias, Status::Critical).await;
        assert_eq!(said, Some(Status::Passing), "there are no others");
        let said = put("disk", Probe::Stated, Status::Warning).await;
        assert_eq!(said, Some(Status::Warning));
        let said = put("disk", Probe::Stated, Status::Passing).await;
        assert_eq!(said, Some(Status::Passing));
    })
    .await;
}

/// A gRPC server that answers every health check with a serving status.
async fn grpc_server(status: u8) -> u16 {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(
                move |request: http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["te"], "trailers");
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    let message = bytes::Bytes::from(vec![0, 0, 0, 0, 2, 8, status]);
                    let frames = [Frame::data(message), Frame::trailers(trailers)];
                    let body = StreamBody::new(stream::iter(
                        frames.map(Ok::<_, std::convert::Infallible>),
                    ));
                    http::Response::builder()
                        .header("content-type", "application/grpc")
                        .body(body)
                },
            );
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), answer),
            );
        }
    });
    port
}

#[tokio::test]
async fn grpc_health_and_tcp_are_asked_too() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let stop = work(&house);
        for (status, state) in [(1, "ready"), (2, "failing")] {
            let port = grpc_server(status).await;
            let body = json!({"name": "hello", "port": port, "host": "127.0.0.1", "protocol": "h2c",
                "checks": [{"kind": "grpc", "service": "hello.v1", "interval_s": 1}, {"kind": "tcp", "interval_s": 1}]});
            let (_, answer) = house.register(&operator(), body).await;
            assert_eq!(answer["state"], "starting");
            until(&house, answer["id"].as_str().unwrap(), state).await;
        }
        stop.cancel();
    })
    .await;
}
