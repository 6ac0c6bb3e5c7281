//! What identity and registry do together for a tenant: services switched off, permissions of plug-ins.

use std::time::{Duration, Instant};

use portico_testkit::{TestApp, TestPlugin};
use serde_json::json;

#[tokio::test]
async fn a_service_switched_off_for_a_tenant_is_closed_at_the_door() {
    let app = TestApp::start().await;
    let plugin = TestPlugin::echo("notes").await;
    let more = json!({ "permissions": ["notes:note:write"] });
    let operator = app.operator();
    let registration = plugin.registration("notes", &more);
    operator
        .post("/api/registry/register", &registration)
        .await
        .expect(201);
    let (user, other) = (app.user(&[]), app.other_tenant(&[]));
    assert_eq!(user.get("/api/notes/x").await.code(), 200);
    let path = "/api/identity/tenants/default/services";
    let wish = |enabled: bool| json!({ "services": [{ "name": "notes", "enabled": enabled }] });
    operator.put(path, &wish(false)).await.expect(200);
    user.get("/api/notes/x")
        .await
        .expect_problem(403, "gateway.service_disabled");
    assert_eq!(other.get("/api/notes/x").await.code(), 200);
    let built_in = json!({ "services": [{ "name": "registry", "enabled": false }] });
    assert_eq!(operator.put(path, &built_in).await.code(), 400);
    operator.put(path, &wish(true)).await.expect(200);
    assert_eq!(user.get("/api/notes/x").await.code(), 200);

    // What the plug-in declared can be granted, once identity has followed the directory.
    let role = json!({
        "name": "writer", "title_zh": "作者", "title_en": "Writer", "permissions": ["notes:note:write"]
    });
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let made = operator.post("/api/identity/roles", &role).await;
        if made.code() == 201 {
            break;
        }
        assert!(Instant::now() < end, "{}", made.text);
    }
}
