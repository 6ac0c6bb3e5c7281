//! A clock that jumps: nobody is lost who is still there, and everything goes on.

use portico_testkit::{Caller, TestApp, TestOptions, TestPlugin};
use serde_json::{Value, json};

async fn enrol(app: &TestApp, plugin: &TestPlugin, name: &str) -> (String, Caller) {
    let made = app
        .operator()
        .post(
            "/api/registry/register",
            &plugin.registration(name, &json!({})),
        )
        .await
        .expect(201)
        .json();
    let secret = made["instance_secret"].as_str().unwrap();
    (made["id"].as_str().unwrap().to_owned(), app.holder(secret))
}

async fn beat(instance: &Caller, id: &str) -> Value {
    instance
        .post("/api/registry/heartbeat", &json!({ "service_id": id }))
        .await
        .expect(200)
        .json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_forward_is_healed_by_the_next_sign_of_life() {
    let options = TestOptions::default();
    let clock = options.clock.clone();
    let (app, plugin) = (
        TestApp::with(options).await,
        TestPlugin::echo("hello").await,
    );
    let (id, instance) = enrol(&app, &plugin, "hello").await;
    let hello = || async { app.anonymous().get("/api/hello/").await.code() };
    assert_eq!(hello().await, 200);
    clock.jump(120);
    assert_eq!(
        hello().await,
        200,
        "late instances serve when there is nobody else"
    );
    assert_eq!(beat(&instance, &id).await["state"], "ready");
    clock.jump(3600);
    assert_eq!(hello().await, 200, "a jump is nobody's silence");
    assert_eq!(beat(&instance, &id).await["state"], "ready");
    assert_eq!(hello().await, 200);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jump_back_stops_nothing() {
    let options = TestOptions::default();
    let clock = options.clock.clone();
    let (app, plugin) = (
        TestApp::with(options).await,
        TestPlugin::echo("hello").await,
    );
    let (id, instance) = enrol(&app, &plugin, "hello").await;
    clock.jump(-3600);
    assert_eq!(beat(&instance, &id).await["state"], "ready");
    assert_eq!(app.anonymous().get("/api/hello/").await.code(), 200);
    let (second, other) = enrol(&app, &plugin, "other").await;
    assert_eq!(
        app.anonymous().get("/api/other/").await.code(),
        200,
        "changes are followed"
    );
    assert_eq!(beat(&other, &second).await["state"], "ready");
    let doc = |text: &str| json!({ "doc": { "path": { "exact": "/word" }, "target": { "fixed": { "status": 200, "body": text } } } });
    for text in ["one", "two"] {
        let _ = app
            .operator()
            .put("/api/gateway/routes/word", &doc(text))
            .await
            .expect(200);
        assert_eq!(app.anonymous().get("/word").await.text, text);
        clock.jump(-60);
    }
    let list = app.operator().get("/api/registry/services").await.json();
    assert!(
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|i| i["state"] == "ready"),
        "{list}"
    );
    clock.jump(4000);
    assert_eq!(beat(&instance, &id).await["state"], "ready");
    app.stop().await;
}
