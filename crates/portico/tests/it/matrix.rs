//! Every route of the services' own APIs as every kind of caller, and every writing route's audit record.

mod audit;
mod backups;
mod control;
mod settings;

use std::collections::BTreeSet;

use portico_testkit::{Answer, Caller, TestApp, TestPlugin};
use reqwest::Method;
use serde_json::{Value, json};

/// Nobody has this id.
const NOBODY: &str = "01900000-0000-7000-8000-00000000dead";

/// Statuses for: anonymous, operator, registration token, instance, user, user with scopes, user of another tenant.
type Statuses = [u16; 7];
const CALLERS: [&str; 7] = [
    "anonymous",
    "operator",
    "registrar",
    "instance",
    "user",
    "user with scopes",
    "another tenant's user",
];

/// A route as the service declares it, and a request to it that changes nothing.
struct Row {
    route: &'static str,
    url: String,
    body: Option<Value>,
    expected: Statuses,
}

/// Only administrators; they get `status`.
const fn admin(status: u16) -> Statuses {
    [401, status, 403, 403, 403, 403, 403]
}

/// Administrators and whoever registers.
const fn registering(status: u16) -> Statuses {
    [401, status, status, status, 403, 403, 403]
}

/// Everybody with a credential.
const fn known(status: u16) -> Statuses {
    [401, status, status, status, status, status, status]
}

fn row(route: &'static str, url: &str, body: Option<Value>, expected: Statuses) -> Row {
    let service = route.split(' ').next().unwrap();
    Row {
        route,
        url: format!("/api/{service}{url}"),
        body,
        expected,
    }
}

fn registry() -> Vec<Row> {
    let id = |before: &str, after: &str| format!("{before}/{NOBODY}{after}");
    let empty = || Some(json!({}));
    vec![
        row(
            "registry POST /register",
            "/register",
            empty(),
            registering(400),
        ),
        row(
            "registry POST /heartbeat",
            "/heartbeat",
            Some(json!({ "service_id": NOBODY })),
            registering(404),
        ),
        row(
            "registry POST /deregister/{id}",
            &id("/deregister", ""),
            empty(),
            registering(404),
        ),
        row(
            "registry DELETE /services/{id}",
            &id("/services", ""),
            None,
            registering(404),
        ),
        row("registry GET /services", "/services", None, known(200)),
        row(
            "registry GET /services/{id}",
            &id("/services", ""),
            None,
            known(404),
        ),
        row("registry GET /catalog", "/catalog", None, known(200)),
        // What is gone has no owner: only administrators may read its history.
        row(
            "registry GET /services/{id}/history",
            &id("/services", "/history"),
            None,
            admin(404),
        ),
        row(
            "registry GET /sd/prometheus",
            "/sd/prometheus",
            None,
            // An instance does not learn where others are.
            [401, 200, 200, 403, 403, 403, 403],
        ),
        row(
            "registry GET /watch",
            "/watch?wait=0",
            None,
            registering(200),
        ),
    ]
}

/// What only administrators do with the registry.
fn registry_administration() -> Vec<Row> {
    let id = |before: &str, after: &str| format!("{before}/{NOBODY}{after}");
    let empty = || Some(json!({}));
    vec![
        row(
            "registry POST /services/{id}/drain",
            &id("/services", "/drain"),
            empty(),
            admin(404),
        ),
        row(
            "registry POST /services/{id}/maintenance",
            &id("/services", "/maintenance"),
            empty(),
            admin(404),
        ),
        row(
            "registry POST /services/{id}/resume",
            &id("/services", "/resume"),
            None,
            admin(404),
        ),
        row(
            "registry POST /services/{id}/weight",
            &id("/services", "/weight"),
            Some(json!({ "weight": 1 })),
            admin(404),
        ),
        row(
            "registry POST /services/{id}/enabled",
            &id("/services", "/enabled"),
            Some(json!({ "enabled": true })),
            admin(404),
        ),
        row("registry GET /tokens", "/tokens", None, admin(200)),
        row("registry POST /tokens", "/tokens", empty(), admin(400)),
        row(
            "registry DELETE /tokens/{id}",
            &id("/tokens", ""),
            None,
            admin(404),
        ),
        row(
            "registry GET /reservations",
            "/reservations",
            None,
            admin(200),
        ),
        row(
            "registry POST /reservations",
            "/reservations",
            empty(),
            admin(400),
        ),
        row(
            "registry POST /reservations/{name}",
            "/reservations/NOT-A-NAME",
            None,
            admin(400),
        ),
        row(
            "registry DELETE /reservations/{name}",
            "/reservations/nobody",
            None,
            admin(404),
        ),
    ]
}

/// Releases have paths of their own beside those of all kinds.
fn releases() -> Vec<Row> {
    let verb = |route: &'static str, verb: &str| {
        let url = format!("/releases/nobody/{verb}");
        row(route, &url, None, admin(404))
    };
    let bad = || Some(json!({ "doc": { "plan": { "steps": [] } } }));
    vec![
        row(
            "gateway GET /releases/{service}",
            "/releases/nobody",
            None,
            admin(404),
        ),
        row(
            "gateway PUT /releases/{service}",
            "/releases/nobody",
            bad(),
            admin(400),
        ),
        row(
            "gateway DELETE /releases/{service}",
            "/releases/nobody",
            None,
            admin(404),
        ),
        verb("gateway POST /releases/{service}/step", "step"),
        verb("gateway POST /releases/{service}/pause", "pause"),
        verb("gateway POST /releases/{service}/resume", "resume"),
        verb("gateway POST /releases/{service}/promote", "promote"),
        verb("gateway POST /releases/{service}/abort", "abort"),
        verb("gateway POST /releases/{service}/rollback", "rollback"),
    ]
}

/// What operators look at and decide.
fn operating() -> Vec<Row> {
    let breaker = |route: &'static str, verb: &str| {
        let url = format!("/breakers/{NOBODY}/{verb}");
        row(route, &url, None, admin(404))
    };
    vec![
        row(
            "gateway GET /explain",
            "/explain?url=/api/matrix/x",
            None,
            admin(200),
        ),
        row("gateway GET /topology", "/topology", None, admin(200)),
        row("gateway GET /live", "/live", None, admin(200)),
        row("gateway GET /breakers", "/breakers", None, admin(200)),
        breaker("gateway POST /breakers/{id}/open", "open"),
        breaker("gateway POST /breakers/{id}/close", "close"),
        breaker("gateway POST /breakers/{id}/auto", "auto"),
    ]
}

fn gateway() -> Vec<Row> {
    let doc = || Some(json!({ "doc": {} }));
    vec![
        row("gateway GET /{kind}", "/routes", None, admin(200)),
        row("gateway POST /{kind}", "/routes", doc(), admin(400)),
        row(
            "gateway GET /{kind}/{name}",
            "/routes/nobody",
            None,
            admin(404),
        ),
        row(
            "gateway PUT /{kind}/{name}",
            "/routes/nobody",
            doc(),
            admin(400),
        ),
        row(
            "gateway DELETE /{kind}/{name}",
            "/routes/nobody",
            None,
            admin(404),
        ),
        row(
            "gateway GET /{kind}/{name}/versions",
            "/routes/nobody/versions",
            None,
            admin(404),
        ),
        row(
            "gateway POST /{kind}/{name}/rollback",
            "/routes/nobody/rollback",
            Some(json!({})),
            admin(404),
        ),
        row(
            "gateway POST /cache/purge",
            "/cache/purge",
            Some(json!({ "by": "tag", "value": "none" })),
            admin(200),
        ),
        row("gateway GET /cache/stats", "/cache/stats", None, admin(200)),
        row(
            "gateway GET /cache/explain",
            "/cache/explain?url=/",
            None,
            admin(200),
        ),
        row("gateway GET /requests", "/requests", None, admin(200)),
    ]
}

struct House {
    app: TestApp,
    plugin: TestPlugin,
    /// In the order of [`CALLERS`].
    callers: [Caller; 7],
}

async fn house() -> House {
    let app = TestApp::start().await;
    let plugin = TestPlugin::echo("matrix").await;
    let registrar = app
        .registration_token("matrix", json!({ "allow_public": true }))
        .await;
    let made = registrar
        .post(
            "/api/registry/register",
            &plugin.registration("matrix", &json!({})),
        )
        .await;
    let made = made.expect(201).json();
    let instance = app.holder(
        made["instance_secret"]
            .as_str()
            .expect("a native instance gets a secret"),
    );
    let scopes = "registry:instance:write registry:*:* gateway:route:write *:*:* notes:note:write";
    let callers = [
        app.anonymous(),
        app.operator(),
        registrar,
        instance,
        app.user(&["member"]),
        app.user_with_scopes(scopes),
        app.other_tenant(&["tenant_admin", "super_admin"]),
    ];
    House {
        app,
        plugin,
        callers,
    }
}

/// `service METHOD /path` of every declared route.
fn declared(app: &TestApp) -> BTreeSet<String> {
    let routes = app.routes();
    routes
        .iter()
        // Identity's are in `matrix_people`, with callers that only identity can make.
        .filter(|(service, _)| *service != "identity")
        .map(|(service, route)| format!("{service} {} {}", route.method, route.path))
        .collect()
}

async fn status_of(caller: &Caller, row: &Row) -> u16 {
    let method: Method = row.route.split(' ').nth(1).unwrap().parse().unwrap();
    let mut request = caller.request(method, &row.url);
    if let Some(body) = &row.body {
        request = request.json(body);
    }
    // The head is enough: some answers are streams without an end.
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_route_answers_every_kind_of_caller_as_the_table_says() {
    let house = house().await;
    let rows: Vec<Row> = [
        registry(),
        registry_administration(),
        gateway(),
        releases(),
        operating(),
        control::rows(),
        settings::rows(),
        audit::rows(),
        backups::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let listed: BTreeSet<String> = rows.iter().map(|row| row.route.to_owned()).collect();
    assert_eq!(
        listed,
        declared(&house.app),
        "every route needs a row, every row a route"
    );
    let mut wrong = Vec::new();
    for row in &rows {
        for ((name, caller), expected) in CALLERS.iter().zip(&house.callers).zip(row.expected) {
            let status = status_of(caller, row).await;
            if status != expected {
                wrong.push(format!(
                    "{} as {name}: {status} instead of {expected}",
                    row.route
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_bad_credential_is_401_even_where_none_is_needed_elsewhere() {
    let house = house().await;
    for token in [
        "prt_unknown",
        "pis_unknown",
        "pop_unknown",
        "ptk_unknown",
        "no-token",
        "a.b.c",
    ] {
        let answer = house.app.holder(token).get("/api/registry/services").await;
        assert_eq!(answer.code(), 401, "{token}: {}", answer.text);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{token}"
        );
        assert_eq!(
            answer.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .split(' ')
                .next(),
            Some("Bearer"),
            "{token}"
        );
        assert!(!answer.text.contains(token), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_tenants_service_is_nothing_to_another_tenant() {
    let house = house().await;
    let body = house.plugin.registration(
        "inner",
        &json!({ "tenant": "default", "instance_key": "inner-1" }),
    );
    let made = house
        .app
        .operator()
        .post("/api/registry/register", &body)
        .await
        .expect(201)
        .json();
    let (id, user, other) = (
        made["id"].as_str().unwrap(),
        house.app.user(&[]),
        house.app.other_tenant(&[]),
    );
    assert_eq!(user.get("/api/inner/x").await.code(), 200);
    other
        .get("/api/inner/x")
        .await
        .expect_problem(404, "gateway.service_not_found");
    for what in [id, "inner"] {
        assert_eq!(
            user.get(&format!("/api/registry/services/{what}"))
                .await
                .code(),
            200,
            "{what}"
        );
        assert_eq!(
            other
                .get(&format!("/api/registry/services/{what}"))
                .await
                .code(),
            404,
            "{what}"
        );
    }
    for path in ["/api/registry/services?state=all", "/api/registry/catalog"] {
        assert!(user.get(path).await.text.contains("inner"), "{path}");
        assert!(!other.get(path).await.text.contains("inner"), "{path}");
    }
    let shown = user.get("/api/registry/services/inner").await;
    assert!(
        !shown
            .text
            .contains(&house.plugin.address.port().to_string()),
        "addresses are not for users: {}",
        shown.text
    );
}

/// Calls writing routes one after the other and remembers which.
struct Writer<'h> {
    app: &'h TestApp,
    operator: Caller,
    covered: BTreeSet<String>,
}

impl Writer<'_> {
    /// One change, which must leave exactly one record of this action.
    async fn write(
        &mut self,
        route: &'static str,
        url: &str,
        body: Option<Value>,
        action: &str,
    ) -> Answer {
        let mut parts = route.split(' ');
        let (service, method) = (parts.next().unwrap(), parts.next().unwrap());
        let mut request = self
            .operator
            .request(method.parse().unwrap(), &format!("/api/{service}{url}"));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = self.operator.send(request).await;
        assert!(answer.status.is_success(), "{route}: {}", answer.text);
        let id = answer.headers["x-request-id"].to_str().unwrap();
        let actions: Vec<&str> = self
            .app
            .records()
            .of(id)
            .iter()
            .map(|record| record.action)
            .collect();
        // The audit service writes its own records itself, past whoever listens.
        if service != "audit" {
            assert_eq!(actions, [action], "{route} {url}");
        }
        let kept = audit::of_request(&self.operator, id).await;
        assert_eq!(kept, [action], "{route} {url}: in the database");
        self.covered.insert(route.to_owned());
        answer
    }
}

#[tokio::test]
async fn every_writing_route_leaves_one_record() {
    let house = house().await;
    let mut w = Writer {
        app: &house.app,
        operator: house.app.operator(),
        covered: BTreeSet::new(),
    };
    let registration = house.plugin.registration("written", &json!({}));
    registry_writes(&mut w, &registration).await;
    token_and_name_writes(&mut w).await;
    gateway_writes(&mut w).await;
    release_writes(&mut w, &house.plugin).await;
    breaker_writes(&mut w).await;
    control::writes(&mut w).await;
    settings::writes(&mut w).await;
    audit::writes(&mut w).await;
    backups::writes(&mut w).await;
    // A sign of life changes nothing that a person decided (RG-4).
    w.covered.insert("registry POST /heartbeat".to_owned());
    let writing: BTreeSet<String> = declared(&house.app)
        .into_iter()
        .filter(|route| !route.contains(" GET ") && !route.contains(" HEAD "))
        .collect();
    assert_eq!(w.covered, writing);

    let before = house.app.records().all().len();
    house
        .app
        .user(&[])
        .post("/api/registry/tokens", &json!({ "name_pattern": "x-*" }))
        .await
        .expect_problem(403, "identity.permission_denied");
    assert_eq!(
        w.operator
            .post("/api/registry/tokens", &json!({ "name_pattern": "?" }))
            .await
            .code(),
        400
    );
    let again = w
        .operator
        .post(
            "/api/registry/register",
            &house.plugin.registration("matrix", &json!({})),
        )
        .await;
    assert_eq!(again.code(), 200, "{}", again.text);
    assert_eq!(
        house.app.records().all().len(),
        before,
        "what changed nothing leaves no record"
    );
}

async fn registry_writes(w: &mut Writer<'_>, registration: &Value) {
    let made = w
        .write(
            "registry POST /register",
            "/register",
            Some(registration.clone()),
            "registry.instance.registered",
        )
        .await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let at = |verb: &str| format!("/services/{id}/{verb}");
    w.write(
        "registry POST /services/{id}/weight",
        &at("weight"),
        Some(json!({ "weight": 7 })),
        "registry.instance.weighed",
    )
    .await;
    w.write(
        "registry POST /services/{id}/maintenance",
        &at("maintenance"),
        None,
        "registry.instance.maintained",
    )
    .await;
    w.write(
        "registry POST /services/{id}/resume",
        &at("resume"),
        None,
        "registry.instance.resumed",
    )
    .await;
    let off = Some(json!({ "enabled": false }));
    w.write(
        "registry POST /services/{id}/enabled",
        "/services/written/enabled",
        off,
        "registry.service.switched",
    )
    .await;
    w.write(
        "registry POST /services/{id}/drain",
        &at("drain"),
        None,
        "registry.instance.drained",
    )
    .await;
    w.write(
        "registry DELETE /services/{id}",
        &format!("/services/{id}?now=true"),
        None,
        "registry.instance.removed",
    )
    .await;
    let made = w
        .write(
            "registry POST /register",
            "/register",
            Some(registration.clone()),
            "registry.instance.registered",
        )
        .await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let now = Some(json!({ "now": true }));
    w.write(
        "registry POST /deregister/{id}",
        &format!("/deregister/{id}"),
        now,
        "registry.instance.removed",
    )
    .await;
}

async fn token_and_name_writes(w: &mut Writer<'_>) {
    let wish = Some(json!({ "name_pattern": "shop-*" }));
    let token = w
        .write(
            "registry POST /tokens",
            "/tokens",
            wish,
            "registry.token.created",
        )
        .await
        .json();
    let text = token["token"].as_str().unwrap();
    assert!(
        w.app
            .records()
            .all()
            .iter()
            .all(|r| !format!("{r:?}").contains(text)),
        "a secret is in a record"
    );
    let url = format!("/tokens/{}", token["id"].as_str().unwrap());
    w.write(
        "registry DELETE /tokens/{id}",
        &url,
        None,
        "registry.token.deleted",
    )
    .await;
    let wish = Some(json!({ "name": "kept" }));
    w.write(
        "registry POST /reservations",
        "/reservations",
        wish,
        "registry.name.reserved",
    )
    .await;
    w.write(
        "registry POST /reservations/{name}",
        "/reservations/held",
        None,
        "registry.name.reserved",
    )
    .await;
    w.write(
        "registry DELETE /reservations/{name}",
        "/reservations/held",
        None,
        "registry.name.released",
    )
    .await;
}

async fn gateway_writes(w: &mut Writer<'_>) {
    let doc = |status: u16| json!({ "path": { "exact": "/fixed" }, "target": { "fixed": { "status": status } } });
    let wish = Some(json!({ "name": "fixed", "doc": doc(200) }));
    w.write(
        "gateway POST /{kind}",
        "/routes",
        wish,
        "gateway.object.created",
    )
    .await;
    w.write(
        "gateway PUT /{kind}/{name}",
        "/routes/fixed",
        Some(json!({ "doc": doc(204) })),
        "gateway.object.changed",
    )
    .await;
    w.write(
        "gateway POST /{kind}/{name}/rollback",
        "/routes/fixed/rollback",
        Some(json!({})),
        "gateway.object.changed",
    )
    .await;
    w.write(
        "gateway DELETE /{kind}/{name}",
        "/routes/fixed",
        None,
        "gateway.object.deleted",
    )
    .await;
    w.write(
        "gateway POST /cache/purge",
        "/cache/purge",
        Some(json!({ "by": "tag", "value": "none" })),
        "gateway.cache.purged",
    )
    .await;
}

async fn release_writes(w: &mut Writer<'_>, plugin: &TestPlugin) {
    for version in ["1.0.0", "2.0.0"] {
        let more = json!({ "version": version, "instance_key": version });
        let body = plugin.registration("shipped", &more);
        let made = w.operator.post("/api/registry/register", &body).await;
        assert_eq!(made.code(), 201, "{}", made.text);
    }
    let wish = || {
        Some(
            json!({ "doc": { "stable": "1.0.0", "candidate": { "version": "2.0.0" }, "plan": {} } }),
        )
    };
    let (created, changed) = ("gateway.object.created", "gateway.object.changed");
    let at = |verb: &str| format!("/releases/shipped/{verb}");
    let put = "gateway PUT /releases/{service}";
    w.write(put, "/releases/shipped", wish(), created).await;
    for (route, verb) in [
        ("gateway POST /releases/{service}/pause", "pause"),
        ("gateway POST /releases/{service}/resume", "resume"),
        ("gateway POST /releases/{service}/step", "step"),
        ("gateway POST /releases/{service}/promote", "promote"),
        ("gateway POST /releases/{service}/rollback", "rollback"),
    ] {
        w.write(route, &at(verb), None, changed).await;
    }
    w.write(put, "/releases/shipped", wish(), changed).await;
    let abort = "gateway POST /releases/{service}/abort";
    w.write(abort, &at("abort"), None, changed).await;
    let delete = "gateway DELETE /releases/{service}";
    let deleted = "gateway.object.deleted";
    w.write(delete, "/releases/shipped", None, deleted).await;
}

async fn breaker_writes(w: &mut Writer<'_>) {
    let forced = "gateway.breaker.forced";
    let wish = Some(json!({ "for_s": 60, "reason": "looking at it" }));
    let open = "gateway POST /breakers/{id}/open";
    w.write(open, "/breakers/matrix/open", wish, forced).await;
    let close = "gateway POST /breakers/{id}/close";
    w.write(close, "/breakers/matrix/close", None, forced).await;
    let auto = "gateway POST /breakers/{id}/auto";
    w.write(auto, "/breakers/matrix/auto", None, forced).await;
}
