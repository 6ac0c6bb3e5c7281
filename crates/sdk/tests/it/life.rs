//! Register, heartbeat, register again, drain; and what is let through meanwhile.

use std::time::Duration;

use http::{HeaderMap, Method, Uri};
use portico_sdk::{Checked, Options, Plugin, ServiceConfig, StartError, State, signed_headers};
use serde_json::json;
use tokio::time::timeout;

use crate::fake_gateway::{FakeGateway, registered};
use crate::{alice, now_ms, options, plugin};

async fn outcome(plugin: &Plugin, method: Method, target: &str, headers: &HeaderMap) -> u16 {
    let target: Uri = target.parse().unwrap();
    match plugin.check(&method, &target, headers).await {
        Checked::Answer(answer) => answer.status().as_u16(),
        Checked::Unsigned => 0,
        Checked::Identified(who) => {
            assert_eq!(who.tenant.as_deref(), Some("acme"));
            200
        }
    }
}

async fn get(plugin: &Plugin, secret: &str) -> u16 {
    let headers = signed_headers(&alice(), secret, "GET", "/notes?a=1", now_ms());
    outcome(plugin, Method::GET, "/notes?a=1", &headers).await
}

#[tokio::test]
async fn registers_with_its_configuration() {
    let mut gateway = FakeGateway::start([]).await;
    let plugin = plugin(&gateway);
    assert_eq!(
        (plugin.state(), plugin.bind_address()),
        (State::New, ("127.0.0.1".to_owned(), 0))
    );
    plugin.start(4711);
    plugin.start(4711);
    let said = gateway.next("register").await;
    assert_eq!(said.path, "/api/registry/register");
    assert_eq!(
        (
            said.header("authorization"),
            said.header("x-portico-protocol")
        ),
        ("Bearer prt_test", "1")
    );
    assert_eq!(
        said.body,
        json!({
            "name": "notes", "version": "1.0.0", "host": "127.0.0.1", "port": 4711, "base_path": "/", "endpoints": [], "tags": [],
            "metadata": {}, "health_check_url": "/healthz", "openapi_url": "/openapi.json", "heartbeat_s": 30,
            "default_access": "authenticated",
        })
    );
    // The first request waits for the answer that brings its secret.
    assert_eq!(get(&plugin, "pis_first").await, 200);
    assert_eq!(
        (plugin.state(), plugin.id().as_deref()),
        (State::Registered, Some("i-1"))
    );
    plugin.drain().await;
    let said = gateway.next("deregister").await;
    assert_eq!(
        (said.path.as_str(), said.header("authorization")),
        ("/api/registry/deregister/i-1", "Bearer pis_first")
    );
    assert_eq!(said.body, json!({"reason": "stopping"}));
    assert!(gateway.is_silent(), "one start, one registration");
}

#[tokio::test]
async fn tries_again_until_the_registry_is_there() {
    let refusals = [
        (
            "register",
            503,
            json!({"status": 503, "code": "system.draining"}),
        ),
        (
            "register",
            400,
            json!({"status": 400, "code": "registry.invalid", "errors": [{"field": "port", "code": "x", "message": "y"}]}),
        ),
        ("register", 200, json!("not what a registry says")),
    ];
    let mut gateway = FakeGateway::start(refusals).await;
    let plugin = plugin(&gateway);
    plugin.start(1);
    for _ in 0..4 {
        gateway.next("register").await;
    }
    assert_eq!(get(&plugin, "pis_first").await, 200);
    assert_eq!(plugin.state(), State::Registered);
}

#[tokio::test]
async fn heartbeats_and_registers_again_when_forgotten() {
    let mut gateway = FakeGateway::start([
        ("register", 201, registered(Some("pis_first"), 0.1)),
        ("heartbeat", 200, json!({"next_s": 0.1})),
        ("heartbeat", 500, json!({"code": "system.internal"})),
        ("heartbeat", 409, json!({"code": "registry.drained"})),
        (
            "heartbeat",
            404,
            json!({"code": "registry.unknown_instance"}),
        ),
    ])
    .await;
    let plugin = plugin(&gateway);
    plugin.start(1);
    let first = gateway.next("register").await;
    for _ in 0..4 {
        let beat = gateway.next("heartbeat").await;
        assert_eq!(beat.header("authorization"), "Bearer pis_first");
        assert_eq!(beat.body, json!({"service_id": "i-1"}));
    }
    assert_eq!(gateway.next("register").await.body, first.body);
}

#[tokio::test]
async fn takes_a_new_secret_and_keeps_the_old_one() {
    let mut gateway = FakeGateway::start([
        ("register", 201, registered(Some("pis_first"), 0.1)),
        (
            "heartbeat",
            200,
            json!({"next_s": 0.1, "key_rotation": {"instance_secret": "pis_second"}}),
        ),
    ])
    .await;
    let plugin = plugin(&gateway);
    plugin.start(1);
    gateway.next("register").await;
    assert_eq!(
        gateway.next("heartbeat").await.header("authorization"),
        "Bearer pis_first"
    );
    assert_eq!(
        gateway.next("heartbeat").await.header("authorization"),
        "Bearer pis_second"
    );
    for (secret, expected) in [("pis_first", 200), ("pis_second", 200), ("pis_third", 401)] {
        assert_eq!(get(&plugin, secret).await, expected, "{secret}");
    }
}

#[tokio::test]
async fn gets_a_new_secret_when_the_old_one_is_lost() {
    let mut gateway = FakeGateway::start([("register", 200, registered(None, 30.0))]).await;
    let plugin = plugin(&gateway);
    plugin.start(1);
    gateway.next("register").await;
    let said = gateway.next("deregister").await;
    assert_eq!(said.body["now"], true);
    gateway.next("register").await;
    assert_eq!(get(&plugin, "pis_first").await, 200);
}

#[tokio::test]
async fn stopping_is_not_held_up() {
    // A registry that never answers, and one that is not there.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let urls = [&deaf, &gone].map(|l| format!("http://{}", l.local_addr().unwrap()));
    drop(gone);
    for url in urls {
        let options = Options {
            url,
            token: Some("prt_x".into()),
            linger: Duration::ZERO,
            ..Options::default()
        };
        let plugin = Plugin::new(ServiceConfig::new("notes", "1"), options).unwrap();
        plugin.start(1);
        timeout(Duration::from_secs(15), plugin.drain())
            .await
            .unwrap();
        assert_eq!(plugin.state(), State::Stopping);
    }
}

#[tokio::test]
async fn health_openapi_and_refusals() {
    let gateway = FakeGateway::start([]).await;
    let options = Options {
        instance_secret: Some("pis_given".into()),
        token: None,
        service: Some("jotter".to_owned()),
        ..options(&gateway)
    };
    let config = ServiceConfig {
        openapi_url: Some("/openapi.json".to_owned()),
        ..ServiceConfig::new("notes", "1")
    };
    let plugin = Plugin::new(config, options).unwrap();
    plugin.start(1);
    assert_eq!((plugin.state(), plugin.name()), (State::Managed, "jotter"));
    let none = HeaderMap::new();
    assert_eq!(outcome(&plugin, Method::GET, "/healthz", &none).await, 200);
    assert_eq!(
        outcome(&plugin, Method::GET, "/openapi.json?x", &none).await,
        0
    );
    for (method, target) in [
        (Method::POST, "/openapi.json"),
        (Method::POST, "/healthz"),
        (Method::GET, "/healthz/"),
        (Method::GET, "/"),
    ] {
        assert_eq!(
            outcome(&plugin, method, target, &none).await,
            401,
            "{target}"
        );
    }
    let headers = signed_headers(&alice(), "pis_given", "POST", "/x", now_ms());
    assert_eq!(outcome(&plugin, Method::POST, "/x", &headers).await, 200);
    let Checked::Answer(again) = plugin
        .check(&Method::POST, &"/x".parse().unwrap(), &headers)
        .await
    else {
        panic!("replayed")
    };
    assert_eq!(again.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(again.body()).unwrap();
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(401), &json!("jotter.signature_invalid"))
    );
    plugin.drain().await;
    assert_eq!(outcome(&plugin, Method::GET, "/healthz", &none).await, 503);
    assert_eq!(
        get(&plugin, "pis_given").await,
        200,
        "what is on its way is still served"
    );
}

#[tokio::test]
async fn nothing_to_register_with() {
    let refused = Plugin::new(ServiceConfig::new("notes", "1"), Options::default());
    assert!(matches!(refused, Err(StartError::NoToken)));
}
