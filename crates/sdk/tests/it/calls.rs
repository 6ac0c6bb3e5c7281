//! Calls through the gateway.

use std::time::{Duration, Instant};

use portico_sdk::{Call, CallError, Identity};
use serde_json::{Value, json};

use crate::fake_gateway::FakeGateway;
use crate::plugin;

#[tokio::test]
async fn carries_credential_and_deadline() {
    let mut gateway =
        FakeGateway::start([("other", 200, json!({"now": 1})), ("other", 200, json!({}))]).await;
    let plugin = plugin(&gateway);
    let call = Call::post(&json!({"a": 1}))
        .unwrap()
        .timeout(Duration::from_secs(5));
    let answer = plugin.call("clock@2", "/now?zone=utc", call).await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap(), json!({"now": 1}));
    let said = gateway.next("other").await;
    assert_eq!(
        (said.path.as_str(), said.header("authorization")),
        ("/api/clock@2/now?zone=utc", "Bearer prt_test")
    );
    assert_eq!(
        (said.header("x-portico-deadline-ms"), &said.body),
        ("5000", &json!({"a": 1}))
    );
    plugin.start(1);
    gateway.next("register").await;
    plugin.drain().await;
    gateway.next("deregister").await;
    plugin.call("clock", "", Call::get()).await.unwrap();
    assert_eq!(
        gateway.next("other").await.header("authorization"),
        "Bearer pis_first"
    );
}

#[tokio::test]
async fn goes_by_the_listener_between_services_where_there_is_one() {
    let mut answer = crate::fake_gateway::registered(Some("pis_first"), 30.0);
    let mut internal = FakeGateway::start([("other", 200, json!({"by": "internal"}))]).await;
    answer["internal_url"] = json!(internal.url);
    let mut gateway = FakeGateway::start([("register", 201, answer)]).await;
    let plugin = plugin(&gateway);
    plugin.start(1);
    gateway.next("register").await;
    while plugin.id().is_none() {
        tokio::task::yield_now().await;
    }
    let answer = plugin.call("clock", "/now", Call::get()).await.unwrap();
    assert_eq!(answer.json::<Value>().unwrap(), json!({"by": "internal"}));
    let said = internal.next("other").await;
    assert_eq!(
        (said.path.as_str(), said.header("authorization")),
        ("/api/clock/now", "Bearer pis_first")
    );
}

#[tokio::test]
async fn never_outlives_the_request_that_it_serves() {
    let mut gateway = FakeGateway::start([("other", 200, json!({}))]).await;
    let plugin = plugin(&gateway);
    let until = |deadline: Instant| Identity {
        deadline: Some(deadline),
        ..Identity::default()
    };
    let soon = until(Instant::now() + Duration::from_millis(1500));
    plugin
        .call("clock", "/", Call::get().within(&soon))
        .await
        .unwrap();
    let left: u64 = gateway
        .next("other")
        .await
        .header("x-portico-deadline-ms")
        .parse()
        .unwrap();
    assert!((1..=1500).contains(&left), "{left}");
    let late = plugin
        .call("clock", "/", Call::get().within(&until(Instant::now())))
        .await;
    assert!(matches!(late, Err(CallError::Deadline)));
    assert!(gateway.is_silent());
}

#[tokio::test]
async fn refusals_are_problems_and_redirects_are_not_followed() {
    let refusal = json!({
        "type": "about:blank", "title": "t", "status": 403, "code": "gateway.caller_not_allowed", "detail": "no", "request_id": "r",
        "errors": [{"field": "a", "code": "b", "message": "c"}],
    });
    let elsewhere = json!({"location": "http://127.0.0.1:9/steal"});
    let gateway = FakeGateway::start([("other", 403, refusal), ("other", 307, elsewhere)]).await;
    let plugin = plugin(&gateway);
    let Err(CallError::Problem(problem)) = plugin.call("clock", "/", Call::get()).await else {
        panic!("it was refused")
    };
    assert_eq!(
        (problem.status, problem.code.as_str()),
        (403, "gateway.caller_not_allowed")
    );
    assert_eq!(
        (
            problem.request_id.as_deref(),
            problem.errors[0].field.as_str()
        ),
        (Some("r"), "a")
    );
    assert_eq!(
        problem.to_string(),
        "403 gateway.caller_not_allowed: no; a: c"
    );
    let Err(error) = plugin.call("clock", "/", Call::get()).await else {
        panic!("it was redirected")
    };
    assert_eq!(error.status(), Some(307));
}
