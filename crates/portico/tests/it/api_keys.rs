//! API keys through the door: by both headers, within their limits, and gone as soon as they are revoked (ID-130…133).

use portico_testkit::{Person, TestApp, TestOptions};
use reqwest::Method;
use serde_json::{Value, json};

const USERS: &str = "/api/identity/users";

async fn make(person: &Person, wish: &Value) -> (String, String) {
    let answer = person.caller.post("/api/identity/me/api-keys", wish).await;
    let made = answer.expect(201).json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

#[tokio::test]
async fn a_key_opens_what_it_is_for_until_it_is_revoked() {
    let app = TestApp::with(TestOptions::default()).await;
    let boss = app.person("boss", "default", &["tenant_admin"]).await;
    let wish = |more: Value| {
        let mut wish = json!({ "name": "k", "scopes": ["identity:user:read"] });
        let more = more.as_object().unwrap().clone();
        wish.as_object_mut().unwrap().extend(more);
        wish
    };
    let (id, key) = make(&boss, &wish(json!({}))).await;
    let holder = app.holder(&key);
    let _ = holder.get(USERS).await.expect(200);
    let nobody = app.anonymous();
    let other = nobody.request(Method::GET, USERS).header("x-api-key", &key);
    let _ = nobody.send(other).await.expect(200);
    let query = format!("{USERS}?api_key={key}");
    nobody
        .get(&query)
        .await
        .expect_problem(400, "identity.key_in_query");
    let mut mistyped = key.clone();
    mistyped.pop();
    app.holder(&mistyped)
        .get(USERS)
        .await
        .expect_problem(401, "identity.token_invalid");

    // Less than its owner, and nothing about keys, factors and passwords.
    let roles = holder.get("/api/identity/roles").await;
    roles.expect_problem(403, "identity.permission_denied");
    let more = holder
        .post("/api/identity/me/api-keys", &wish(json!({})))
        .await;
    more.expect_problem(403, "identity.not_for_keys");
    assert!(holder.get("/api/identity/me").await.code() >= 400);

    // Limits of its own.
    let (_, far) = make(&boss, &wish(json!({ "cidrs": ["10.0.0.0/8"] }))).await;
    let far = app.holder(&far).get(USERS).await;
    far.expect_problem(401, "identity.ip_mismatch");
    let (_, elsewhere) = make(&boss, &wish(json!({ "services": ["music"] }))).await;
    assert_eq!(app.holder(&elsewhere).get(USERS).await.code(), 403);
    let (_, slow) = make(&boss, &wish(json!({ "per_s": 0.01 }))).await;
    let slow = app.holder(&slow);
    let _ = slow.get(USERS).await.expect(200);
    assert_eq!(slow.get(USERS).await.code(), 429);

    let path = format!("/api/identity/me/api-keys/{id}");
    let _ = boss.caller.delete(&path).await.expect(204);
    holder
        .get(USERS)
        .await
        .expect_problem(401, "identity.token_invalid");
}

#[tokio::test]
async fn the_keys_of_a_disabled_owner_are_dead() {
    let app = TestApp::with(TestOptions::default()).await;
    let anna = app.person("anna", "default", &["tenant_admin"]).await;
    let (_, key) = make(
        &anna,
        &json!({ "name": "k", "scopes": ["identity:user:read"] }),
    )
    .await;
    let holder = app.holder(&key);
    let _ = holder.get(USERS).await.expect(200);
    let path = format!("{USERS}/{}/disable", anna.id);
    let answer = app.operator().post(&path, &json!({})).await;
    assert!(answer.code() < 300, "{}", answer.text);
    holder
        .get(USERS)
        .await
        .expect_problem(401, "identity.token_invalid");
}
