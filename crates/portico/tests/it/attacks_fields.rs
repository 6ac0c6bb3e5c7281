//! Fields and ids that nobody was asked for: more of oneself (mass assignment), and of another tenant (hopping).

use portico_testkit::{Caller, PASSWORD, Person, TestApp, TestOptions};
use reqwest::Method;
use serde_json::{Value, json};

/// What somebody who wants to be more would try to set.
const WANTED: [(&str, &str); 20] = [
    ("id", r#""01900000-0000-7000-8000-00000000dead""#),
    ("role", r#""super_admin""#),
    ("roles", r#"["super_admin"]"#),
    ("role_ids", "[]"),
    ("permissions", r#"["*"]"#),
    ("scopes", r#"["identity:*"]"#),
    ("is_admin", "true"),
    ("tenant_id", r#""00000000-0000-7000-8000-000000000001""#),
    ("status", r#""active""#),
    ("legal_hold", "true"),
    ("must_change_password", "false"),
    ("email_verified", "true"),
    ("email_verified_at", r#""2026-01-01T00:00:00Z""#),
    ("phone_verified_at", r#""2026-01-01T00:00:00Z""#),
    ("tv", "0"),
    ("aal", "2"),
    ("created_at", r#""2026-01-01T00:00:00Z""#),
    ("last_login_at", r#""2026-01-01T00:00:00Z""#),
    ("__proto__", r#"{"admin": true}"#),
    ("password_phc", r#""$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA""#),
];

async fn app() -> TestApp {
    let wide = r#"["100000/min"]"#;
    TestApp::with(
        TestOptions::default()
            .setting("identity.limit.registration_per_address", wide)
            .setting("identity.limit.username_per_address", wide)
            .setting("identity.limit.password_per_address", wide),
    )
    .await
}

async fn patch(caller: &Caller, path: &str, body: &Value) -> portico_testkit::Answer {
    caller
        .send(caller.request(Method::PATCH, path).json(body))
        .await
}

/// A body with one field more, as text, so that no library can drop it.
fn with(body: &Value, name: &str, value: &str) -> Value {
    let mut body = body.clone();
    body[name] = serde_json::from_str(value).unwrap();
    body
}

/// The account before and after must be the same but for its clock.
async fn me(person: &Person) -> Value {
    let mut me = person
        .caller
        .get("/api/identity/me")
        .await
        .expect(200)
        .json();
    me["updated_at"] = Value::Null;
    me
}

#[tokio::test]
async fn nobody_becomes_more_by_naming_it() {
    let app = app().await;
    let nobody = app.anonymous();
    let anna = app.person("anna", "default", &[]).await;
    let before = me(&anna).await;
    let new = json!({
        "method": "username", "identifier": "wanted", "password": PASSWORD,
        "device": { "platform": "cli" },
    });
    let own = anna.caller.get("/api/identity/me/devices").await.json();
    let own = own["items"][0]["id"].as_str().unwrap().to_owned();
    for (name, value) in WANTED {
        let answer = nobody
            .post("/api/identity/register", &with(&new, name, value))
            .await;
        answer.expect_problem(400, "system.invalid");
        assert!(answer.text.contains(name), "{}", answer.text);
        // Within the device, too.
        let mut inner = new.clone();
        inner["device"][name] = serde_json::from_str(value).unwrap();
        let answer = nobody.post("/api/identity/register", &inner).await;
        answer.expect_problem(400, "system.invalid");
        let hello = json!({ "display_name": "Anna" });
        for path in ["/api/identity/me".to_owned(), device_path(&own)] {
            let answer = patch(&anna.caller, &path, &with(&hello, name, value)).await;
            assert_eq!(answer.code(), 400, "{path} {name}: {}", answer.text);
        }
        let login =
            json!({ "identifier": "anna", "password": PASSWORD, "device": { "platform": "cli" } });
        let answer = nobody
            .post("/api/identity/login/password", &with(&login, name, value))
            .await;
        assert_eq!(answer.code(), 400, "login {name}: {}", answer.text);
    }
    for (name, value) in [
        ("username", "\"root\""),
        ("email", "\"a@example.com\""),
        ("phone", "\"+8613800000000\""),
        ("password", "\"another phrase 77\""),
        ("avatar_object", "\"../../etc/passwd\""),
    ] {
        let answer = patch(
            &anna.caller,
            "/api/identity/me",
            &with(&json!({}), name, value),
        )
        .await;
        answer.expect_problem(400, "system.invalid");
    }
    // The same name twice is neither the first nor the last.
    let twice = anna
        .caller
        .request(Method::PATCH, "/api/identity/me")
        .header("content-type", "application/json")
        .body(r#"{"display_name":"a","display_name":"b"}"#);
    assert_eq!(anna.caller.send(twice).await.code(), 400);
    // What belongs in the body means nothing in the address.
    let answer = patch(
        &anna.caller,
        "/api/identity/me?roles=super_admin&status=active",
        &json!({ "locale": "en" }),
    )
    .await;
    answer.expect_problem(400, "system.invalid");
    assert_eq!(me(&anna).await, before);
    // Of all those registrations there is no account: the name is still free.
    let answer = nobody.post("/api/identity/register", &new).await;
    let made = answer.expect(201).json();
    assert_eq!(made["user"]["roles"], json!(["user"]), "{made}");
}

fn device_path(id: &str) -> String {
    format!("/api/identity/me/devices/{id}")
}

#[tokio::test]
async fn an_administrator_of_a_tenant_makes_nothing_greater_than_a_tenant() {
    let app = app().await;
    let admin = app.person("admin", "default", &["tenant_admin"]).await;
    let user = app.person("user", "default", &[]).await;
    let users = "/api/identity/users";
    let new = json!({ "username": "made" });
    for (name, value) in WANTED {
        // What an administrator may say is judged by what they hold; everything else is unknown.
        let answer = admin.caller.post(users, &with(&new, name, value)).await;
        let code = answer.code();
        assert!(
            code == 400 || (name == "roles" && code == 403),
            "{name}: {code} {}",
            answer.text
        );
        let path = format!("{users}/{}", user.id);
        let answer = patch(&admin.caller, &path, &with(&json!({}), name, value)).await;
        let may = ["legal_hold", "must_change_password"].contains(&name);
        assert_eq!(answer.code() == 400, !may, "{name}: {}", answer.text);
    }
    for more in [
        json!({ "name": "k", "scopes": ["identity:tenant:manage"] }),
        json!({ "name": "k", "scopes": ["identity:*"] }),
        json!({ "name": "k", "scopes": ["*"] }),
        json!({ "name": "k", "scopes": [], "owner_user_id": admin.id }),
        json!({ "name": "k", "scopes": [], "tenant_id": 1 }),
    ] {
        let answer = user.caller.post("/api/identity/me/api-keys", &more).await;
        assert!(
            [400, 403].contains(&answer.code()),
            "{more}: {}",
            answer.text
        );
    }
    let listed = admin.caller.get(&format!("{users}?name=made")).await;
    assert_eq!(listed.expect(200).json()["items"], json!([]));
}

/// Ids and slugs of the other tenant in every place of a body or an address that takes one.
#[tokio::test]
async fn what_is_another_tenants_is_reached_by_no_field() {
    let app = app().await;
    app.tenant("globex").await;
    let foreign = app.person("stranger", "globex", &["tenant_admin"]).await;
    let admin = app.person("admin", "default", &["tenant_admin"]).await;
    let victim = app.person("victim", "default", &[]).await;
    let role =
        json!({ "name": "editor", "title_en": "Editor", "title_zh": "编辑", "permissions": [] });
    let _ = admin
        .caller
        .post("/api/identity/roles", &role)
        .await
        .expect(201);
    let before = me(&victim).await;
    by_tenant(&foreign, &victim).await;
    let told = [
        format!("users?id={}", victim.id),
        "users?name=victim".to_owned(),
        format!("sessions?user={}", victim.id),
        format!("api-keys?owner_user_id={}", victim.id),
        "users?role=editor".to_owned(),
    ];
    for path in told {
        let answer = foreign.caller.get(&format!("/api/identity/{path}")).await;
        assert!(answer.code() < 500, "{path}: {}", answer.text);
        assert!(!answer.text.contains("victim"), "{path}: {}", answer.text);
        if answer.code() == 200 {
            assert_eq!(answer.json()["items"], json!([]), "{path}");
        }
    }
    by_id(&foreign, &victim).await;
    assert_eq!(me(&victim).await, before);
    let users = admin.caller.get("/api/identity/users?name=planted").await;
    assert_eq!(users.expect(200).json()["items"], json!([]));
}

/// Other tenants by slug and id, in bodies and addresses.
async fn by_tenant(foreign: &Person, victim: &Person) {
    let tenant = portico_base::id::TENANT_DEFAULT.to_string();
    for named in ["default", tenant.as_str(), "system"] {
        let posts = [
            ("users", json!({ "username": "planted", "tenant": named })),
            (
                "roles",
                json!({ "name": "planted", "title_en": "P", "title_zh": "P", "permissions": [], "tenant": named }),
            ),
            ("invitations", json!({ "tenant": named })),
            (
                "users/bulk",
                json!({ "tenant": named, "ids": [victim.id], "order": { "action": "disable" } }),
            ),
            (
                "users/bulk",
                json!({ "tenant": named, "filter": {}, "order": { "action": "disable" }, "dry_run": true }),
            ),
        ];
        for (path, body) in posts {
            let answer = foreign
                .caller
                .post(&format!("/api/identity/{path}"), &body)
                .await;
            assert!(
                [400, 403, 404].contains(&answer.code()),
                "{path} {body}: {} {}",
                answer.code(),
                answer.text
            );
        }
        for list in [
            "users",
            "roles",
            "api-keys",
            "invitations",
            "sessions",
            "sms/records",
            "sms/stats",
            "sms/providers",
        ] {
            let path = format!("/api/identity/{list}?tenant={named}");
            let answer = foreign.caller.get(&path).await;
            assert!(
                [400, 403, 404].contains(&answer.code()),
                "{path}: {} {}",
                answer.code(),
                answer.text
            );
        }
    }
}

/// Ids of the victim in bodies that take ids, and its tokens in questions.
async fn by_id(foreign: &Person, victim: &Person) {
    let caller = &foreign.caller;
    let key = json!({ "name": "k", "scopes": [], "owner_user_id": victim.id });
    let answer = caller.post("/api/identity/api-keys", &key).await;
    assert!([400, 403, 404].contains(&answer.code()), "{}", answer.text);
    let question = json!({ "user_id": victim.id, "permission": "identity:user:read" });
    let answer = caller.post("/api/identity/roles/simulate", &question).await;
    assert_eq!(answer.code(), 404, "{}", answer.text);
    // A role of the other tenant is no role here.
    let path = format!("/api/identity/users/{}/roles", foreign.id);
    let answer = caller
        .put(
            &path,
            &json!({ "roles": ["user", "tenant_admin", "editor"] }),
        )
        .await;
    assert!([400, 403, 404].contains(&answer.code()), "{}", answer.text);
    // Each user of an order is looked for in the own tenant.
    let order = json!({ "ids": [victim.id], "order": { "action": "log_out" } });
    let answer = caller.post("/api/identity/users/bulk", &order).await;
    assert!([202, 400, 404].contains(&answer.code()), "{}", answer.text);
    for path in ["token/introspect", "token/revoke"] {
        let token = victim.tokens["access_token"].as_str().unwrap();
        let request = caller
            .request(Method::POST, &format!("/api/identity/{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("token={token}"));
        let answer = caller.send(request).await;
        assert_eq!(answer.code(), 403, "{path}: {}", answer.text);
    }
}

/// Every body of our own API is closed: by its schema, which is made from the type that reads it.
#[tokio::test]
async fn every_body_names_all_that_it_takes() {
    let app = app().await;
    let document = app.operator().get("/openapi.json").await.expect(200).json();
    // Read field by field, or extensible by whoever defines them (RFC 7662, RFC 7009, Apple).
    let open = [
        "InstanceRegistration",
        "EndpointView",
        "TokenQuestion",
        "AppleCallback",
        "AppleNotice",
        // Its variants refuse what they do not know, which their schemas do not say.
        "UserBulkAction",
    ];
    let mut faults = Vec::new();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let content = &operation["requestBody"]["content"];
            for body in content.as_object().into_iter().flatten() {
                seen += 1;
                let mut way = Vec::new();
                closed(&document, &body.1["schema"], &mut way, &mut |name| {
                    if !open.contains(&name) && !name.starts_with("GatewayRelease") {
                        faults.push(format!("{method} {path}: {name}"));
                    }
                });
            }
        }
    }
    assert!(seen > 60, "{seen} bodies");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Calls back for each object below a schema that takes unknown fields.
fn closed<'d>(
    document: &'d Value,
    schema: &'d Value,
    way: &mut Vec<&'d str>,
    fault: &mut impl FnMut(&str),
) {
    let named = schema["$ref"].as_str();
    let schema = match named.map(|text| text.trim_start_matches("#/components/schemas/")) {
        Some(name) if way.contains(&name) => return,
        Some(name) => {
            way.push(name);
            &document["components"]["schemas"][name]
        }
        None => schema,
    };
    let object = schema["properties"].is_object();
    if object && schema["additionalProperties"] != json!(false) {
        fault(way.last().copied().unwrap_or("the body itself"));
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        for inner in schema[list].as_array().into_iter().flatten() {
            closed(document, inner, way, fault);
        }
    }
    for inner in schema["properties"].as_object().into_iter().flatten() {
        closed(document, inner.1, way, fault);
    }
    closed_items(document, schema, way, fault);
    if named.is_some() {
        way.pop();
    }
}

fn closed_items<'d>(
    document: &'d Value,
    schema: &'d Value,
    way: &mut Vec<&'d str>,
    fault: &mut impl FnMut(&str),
) {
    if schema["items"].is_object() {
        closed(document, &schema["items"], way, fault);
    }
}
