//! Every route of identity as every kind of caller, generated from the route table, and one tenant's things as
//! the other tenant's administrator.

use std::collections::BTreeMap;

use portico_base::{Access, Permission};
use portico_testkit::{Answer, Caller, Person, TestApp, TestOptions};
use portico_web::RouteInfo;
use reqwest::Method;
use serde_json::{Value, json};

/// Nobody has this id.
const NOBODY: &str = "01900000-0000-7000-8000-00000000dead";

/// What would end the caller, or everybody: tried only by those who may not.
const FATAL: [&str; 5] = [
    "POST /logout",
    "POST /keys/rotate",
    "POST /epoch/raise",
    "POST /me/delete",
    "POST /setup/link",
];

async fn house(mfa: &str) -> TestApp {
    TestApp::with(
        TestOptions::default()
            .setting("identity.limit.password_per_address", r#"["10000/min"]"#)
            .setting(
                "identity.limit.registration_per_address",
                r#"["10000/min"]"#,
            )
            .setting("identity.mfa.admin", &format!("{mfa:?}")),
    )
    .await
}

/// One caller, and what its roles allow.
struct Who {
    name: &'static str,
    caller: Caller,
    /// Code of the refusal that every route but public ones answers, for credentials that are no good.
    refused: Option<&'static str>,
    permissions: Vec<Permission>,
    aal2: bool,
}

fn identity_routes(app: &TestApp) -> Vec<RouteInfo> {
    let routes: Vec<RouteInfo> = app
        .routes()
        .into_iter()
        .filter(|(service, _)| *service == "identity")
        .map(|(_, route)| route)
        .collect();
    assert!(routes.len() > 60, "{} routes", routes.len());
    routes
}

fn named(route: &RouteInfo) -> String {
    format!("{} {}", route.method, route.path)
}

async fn ask(caller: &Caller, route: &RouteInfo, ids: &BTreeMap<&str, String>) -> Answer {
    let mut path = route.path.clone();
    while let (Some(open), Some(close)) = (path.find('{'), path.find('}')) {
        let name = path[open + 1..close].to_owned();
        let value = ids.get(name.as_str()).map_or(NOBODY, String::as_str);
        path.replace_range(open..=close, value);
    }
    let method: Method = route.method.parse().unwrap();
    let request = caller.request(method.clone(), &format!("/api/identity{path}"));
    if matches!(method, Method::GET | Method::DELETE | Method::HEAD) {
        caller.send(request).await
    } else {
        caller.send(request.json(&json!({}))).await
    }
}

/// The permissions of the roles by their names, as the installation has them.
async fn role_permissions(app: &TestApp) -> BTreeMap<String, Vec<Permission>> {
    let of = |role: &Value| {
        let permissions = role["permissions"].as_array().unwrap().iter();
        permissions
            .map(|p| Permission::parse(p.as_str().unwrap()).unwrap())
            .collect()
    };
    let mut all = BTreeMap::new();
    for tenant in ["default", "system"] {
        let path = format!("/api/identity/roles?tenant={tenant}");
        let listed = app.operator().get(&path).await.expect(200).json();
        for role in listed["items"].as_array().unwrap() {
            all.insert(role["name"].as_str().unwrap().to_owned(), of(role));
        }
    }
    all
}

async fn callers(app: &TestApp) -> Vec<Who> {
    let roles = role_permissions(app).await;
    app.tenant("globex").await;
    let mut all = vec![Who {
        name: "anonymous",
        caller: app.anonymous(),
        refused: Some("identity.token_missing"),
        permissions: Vec::new(),
        aal2: false,
    }];
    for (name, tenant, role) in [
        ("user", "default", "user"),
        ("foreign-user", "globex", "user"),
        ("admin", "default", "tenant_admin"),
        ("foreign-admin", "globex", "tenant_admin"),
        ("auditor", "default", "auditor"),
        ("root", "system", "super_admin"),
    ] {
        let person = app.person(name, tenant, &[role]).await;
        let granted = ["user", role].into_iter().flat_map(|r| roles[r].clone());
        let me = person
            .caller
            .get("/api/identity/me")
            .await
            .expect(200)
            .json();
        assert_eq!(me["username"], name);
        all.push(Who {
            name,
            caller: person.caller,
            refused: None,
            permissions: granted.collect(),
            // Whoever holds an administrator's permission had to show a second factor at the login (ID-76).
            aal2: role != "user",
        });
    }
    let revoked = app.person("gone", "default", &[]).await;
    let left = json!({ "scope": "this" });
    let left = revoked.caller.post("/api/identity/logout", &left).await;
    assert_eq!(left.code(), 204, "{}", left.text);
    all.push(lost("revoked", revoked, "identity.session_revoked"));
    let stale = app.person("changed", "default", &[]).await;
    let path = format!("/api/identity/users/{}/roles", stale.id);
    let roles = json!({ "roles": ["user", "auditor"] });
    let set = app.operator().put(&path, &roles).await;
    assert_eq!(set.code(), 200, "{}", set.text);
    all.push(lost("stale", stale, "identity.token_stale"));
    all
}

fn lost(name: &'static str, person: Person, code: &'static str) -> Who {
    Who {
        name,
        caller: person.caller,
        refused: Some(code),
        permissions: Vec::new(),
        aal2: false,
    }
}

/// What the route's declaration says to a caller: the code of the refusal, or nothing.
fn declared(access: &Access, who: &Who) -> Option<&'static str> {
    let holds = |wanted: &Permission| who.permissions.iter().any(|held| held.covers(wanted));
    match access {
        Access::Public => None,
        _ if who.refused.is_some() => who.refused,
        Access::Authenticated => None,
        Access::Permission(one) if holds(one) => None,
        Access::AnyOf(several) if several.iter().any(holds) => None,
        Access::Permission(_) | Access::AnyOf(_) => Some("identity.permission_denied"),
        Access::Strong { access, .. } => {
            declared(access, who).or_else(|| (!who.aal2).then_some("identity.step_up_required"))
        }
    }
}

#[tokio::test]
async fn every_route_of_identity_as_every_caller() {
    let app = house("required").await;
    let (routes, callers) = (identity_routes(&app), callers(&app).await);
    let mut faults = Vec::new();
    for who in &callers {
        for route in &routes {
            let name = named(route);
            let wanted = declared(&route.access, who);
            if wanted.is_none() && FATAL.contains(&name.as_str()) {
                continue;
            }
            let answer = ask(&who.caller, route, &BTreeMap::new()).await;
            let code = answer.json()["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let good = match wanted {
                Some(wanted) => code == wanted,
                None => {
                    let refused = code == "identity.permission_denied" && who.name == "root";
                    let anonymous = route.access != Access::Public && code.contains(".token_");
                    answer.code() < 500 && !refused && !anonymous
                }
            };
            if !good {
                faults.push(format!(
                    "{name} as {}: {} {code}, wanted {wanted:?}",
                    who.name,
                    answer.code()
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    // Everybody who was somebody still is.
    for who in callers.iter().filter(|who| who.refused.is_none()) {
        assert_eq!(
            who.caller.get("/api/identity/me").await.code(),
            200,
            "{}",
            who.name
        );
    }
}

#[tokio::test]
async fn strong_routes_ask_an_administrator_with_one_factor_for_another() {
    let app = house("optional").await;
    let root = app.person("root", "system", &["super_admin"]).await;
    let strong: Vec<RouteInfo> = identity_routes(&app)
        .into_iter()
        .filter(|route| matches!(route.access, Access::Strong { .. }))
        .collect();
    assert!(strong.len() > 5, "{} routes", strong.len());
    for route in &strong {
        let answer = ask(&root.caller, route, &BTreeMap::new()).await;
        answer.expect_problem(401, "identity.step_up_required");
        let told = answer.json();
        assert!(
            told["ticket"].is_string() && told["methods"].is_array(),
            "{told}"
        );
    }
}

#[tokio::test]
async fn one_tenants_things_are_nothing_to_the_others_administrator() {
    let app = house("required").await;
    app.tenant("globex").await;
    let foreign = app
        .person("foreign-admin", "globex", &["tenant_admin"])
        .await;
    let admin = app.person("admin", "default", &["tenant_admin"]).await;
    let victim = app.person("victim", "default", &[]).await;
    let role =
        json!({ "name": "editor", "title_en": "Editor", "title_zh": "编辑", "permissions": [] });
    let role = admin
        .caller
        .post("/api/identity/roles", &role)
        .await
        .expect(201)
        .json();
    let key = json!({ "name": "key", "scopes": [] });
    let key = admin
        .caller
        .post("/api/identity/api-keys", &key)
        .await
        .expect(201)
        .json();
    let devices = format!("/api/identity/users/{}/devices", victim.id);
    let devices = admin.caller.get(&devices).await.expect(200).json();
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    let device = id(&devices["items"][0]);
    let session = victim.tokens["session_id"].as_str().unwrap().to_owned();
    let tenant = portico_base::id::TENANT_DEFAULT.to_string();
    let mut tried = 0;
    for route in identity_routes(&app) {
        let first = route.path.split('/').nth(1).unwrap_or_default();
        let own = match first {
            "users" => victim.id.clone(),
            "roles" => id(&role),
            "api-keys" => id(&key),
            "sessions" => session.clone(),
            "tenants" => tenant.clone(),
            _ => continue,
        };
        if !route.path.contains("{id}") {
            continue;
        }
        let ids = BTreeMap::from([("id", own), ("did", device.clone())]);
        let answer = ask(&foreign.caller, &route, &ids).await;
        let code = answer.code();
        // What the body lacks may be told first; what is there never is.
        assert!(
            [400, 403, 404].contains(&code),
            "{}: {code} {}",
            named(&route),
            answer.text
        );
        assert!(
            !answer.text.contains("victim"),
            "{}: {}",
            named(&route),
            answer.text
        );
        tried += 1;
    }
    assert!(tried > 25, "{tried} routes");
    assert_eq!(victim.caller.get("/api/identity/me").await.code(), 200);
    for (path, name) in [
        ("users", &victim.id),
        ("roles", &id(&role)),
        ("api-keys", &id(&key)),
    ] {
        let path = format!("/api/identity/{path}/{name}");
        assert_eq!(admin.caller.get(&path).await.code(), 200, "{path}");
    }
    lists_show_nothing_of(&foreign.caller, &[&victim.id, "editor"]).await;
}

async fn lists_show_nothing_of(caller: &Caller, words: &[&str]) {
    for list in [
        "users",
        "roles",
        "api-keys",
        "sessions",
        "users?name=victim",
    ] {
        let seen = caller
            .get(&format!("/api/identity/{list}"))
            .await
            .expect(200);
        for word in words {
            assert!(!seen.text.contains(word), "{list}: {}", seen.text);
        }
    }
}
