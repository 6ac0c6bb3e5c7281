//! The registry in a whole house: real process, real door, real plug-ins, on both databases.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use portico_testkit::{TestApp, TestOptions, TestPlugin};
use serde_json::{Value, json};

/// Options for each database that is there.
async fn databases() -> Vec<TestOptions> {
    let mut all = vec![TestOptions::default()];
    if let Some((options, _name)) = portico_db::testing::postgres_options().await {
        let url = options.url.expose().clone();
        all.push(TestOptions {
            database: Some(url),
            ..TestOptions::default()
        });
    }
    all
}

/// Asks again until an answer fits: for what happens in the background.
async fn until<F: Future<Output = Option<T>>, T>(what: &str, ask: impl Fn() -> F) -> T {
    let wait = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_after_a_registration_is_routed_and_after_leaving_it_is_not() {
    for options in databases().await {
        let house = TestApp::with(options).await;
        let token = house
            .registration_token("hello", json!({"allow_public": true}))
            .await;
        for round in 0..10 {
            let plugin = TestPlugin::echo("hello").await;
            let body = plugin.registration("hello", &json!({}));
            let answer = token
                .post("/api/registry/register", &body)
                .await
                .expect(201)
                .json();
            let routed = house.anonymous().get("/api/hello/x").await;
            assert_eq!(routed.code(), 200, "round {round}: {}", routed.text);
            let path = format!(
                "/api/registry/services/{}?now=true",
                answer["id"].as_str().unwrap()
            );
            assert_eq!(
                token.delete(&path).await.expect(200).json()["state"],
                "removed"
            );
            house
                .anonymous()
                .get("/api/hello/x")
                .await
                .expect_problem(503, "gateway.no_instance");
        }
        house
            .anonymous()
            .get("/api/nobody/x")
            .await
            .expect_problem(404, "gateway.service_not_found");
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_and_serves_at_once() {
    for options in databases().await {
        let house = TestApp::with(options.clone()).await;
        let plugin = TestPlugin::echo("hello").await;
        let body = plugin.registration("hello", &json!({"tags": ["kept"]}));
        let before = house
            .operator()
            .post("/api/registry/register", &body)
            .await
            .expect(201)
            .json();
        let folder = house.folder();
        house.stop().await;
        let house = TestApp::at(folder, options).await;
        assert_eq!(house.anonymous().get("/api/hello/x").await.code(), 200);
        let id = before["id"].as_str().unwrap();
        let path = format!("/api/registry/services/{id}");
        let operator = house.operator();
        let found = until("the probe", || async {
            let found = operator.get(&path).await.json();
            (found["state"] == "ready").then_some(found)
        })
        .await;
        assert_eq!(found["tags"], json!(["kept"]));
        let secret = house.holder(before["instance_secret"].as_str().unwrap());
        let beat = secret
            .post("/api/registry/heartbeat", &json!({"service_id": id}))
            .await
            .expect(200)
            .json();
        assert_eq!(beat["next_s"], 30);
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_is_taken_out_without_an_error_for_clients() {
    for options in databases().await {
        let house = TestApp::with(options).await;
        let (dying, staying) = (
            TestPlugin::echo("dying").await,
            TestPlugin::echo("staying").await,
        );
        let mut ids = Vec::new();
        for plugin in [&dying, &staying] {
            let body = plugin.registration("hello", &json!({}));
            let answer = house
                .operator()
                .post("/api/registry/register", &body)
                .await
                .expect(201)
                .json();
            ids.push(answer["id"].as_str().unwrap().to_owned());
        }
        drop(dying);
        for _ in 0..50 {
            assert_eq!(house.anonymous().get("/api/hello/x").await.code(), 200);
        }
        let operator = house.operator();
        let path = format!("/api/registry/services/{}", ids[0]);
        until("the failure", || async {
            house.anonymous().get("/api/hello/x").await;
            (operator.get(&path).await.json()["state"] == "failing").then_some(())
        })
        .await;
        assert_eq!(
            operator
                .get(&format!("/api/registry/services/{}", ids[1]))
                .await
                .json()["state"],
            "ready"
        );
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_plug_ins_are_gathered() {
    let document = json!({"openapi": "3.1.0", "info": {"title": "Notes", "version": "1"},
        "paths": {"/notes": {"get": {"responses": {"200": {"description": "all"}}}}}});
    let shared = Arc::new(document);
    let router = Router::new().route(
        "/openapi.json",
        get(move || {
            let document = Arc::clone(&shared);
            async move { portico_web::Json(Value::clone(&document)) }
        }),
    );
    let plugin = TestPlugin::with(router).await;
    let house = TestApp::start().await;
    let body = plugin.registration("notes", &json!({"openapi_url": "/openapi.json"}));
    let _ = house
        .operator()
        .post("/api/registry/register", &body)
        .await
        .expect(201);
    let operator = house.operator();
    until("the document", || async {
        let all = operator.get("/openapi.json").await.json();
        all["paths"].get("/api/notes/notes").map(|_| ())
    })
    .await;
    let own = operator.get("/openapi.json").await.json();
    assert!(
        own["paths"].get("/api/registry/register").is_some(),
        "ours are in it too"
    );
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_instances() {
    let house = TestApp::start().await;
    let plugin = TestPlugin::echo("hello").await;
    let body = plugin.registration("hello", &json!({}));
    let _ = house
        .operator()
        .post("/api/registry/register", &body)
        .await
        .expect(201);
    let text = house.admin().get("/metrics").await.text;
    for line in [
        "portico_registry_instances{service=\"hello\",state=\"ready\"} 1",
        "portico_registry_events_total{kind=\"registry.instance.registered\"} 1",
        "portico_registry_register_seconds_count 1",
        "portico_registry_shards 16",
    ] {
        assert!(text.contains(line), "{line} is missing");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_protocol_is_answered_with_the_range() {
    let house = TestApp::start().await;
    let plugin = TestPlugin::echo("hello").await;
    let body = plugin.registration("hello", &json!({}));
    for (protocol, status) in [("2", 400), ("1", 201)] {
        let operator = house.operator();
        let request = operator
            .request(http::Method::POST, "/api/registry/register")
            .header("x-portico-protocol", protocol)
            .json(&body);
        let answer = operator.send(request).await;
        assert_eq!(answer.code(), status, "{}", answer.text);
    }
    house.stop().await;
}
