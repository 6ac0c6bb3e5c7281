//! Real people at the door: tokens of a login, cookies, log-outs that end open streams, keys of services, management.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use bytes::Bytes;
use futures_util::StreamExt as _;
use portico_testkit::TestPlugin;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client};
use crate::recorder::Recorder;

const PASSWORD: &str = "correct-horse-battery-9";

/// Registers a user; answers what the login answered.
pub(crate) async fn enter(house: &House, name: &str) -> Value {
    let body = json!({
        "method": "username", "identifier": name, "password": PASSWORD,
        "device": { "platform": "cli", "name": "test" },
    });
    let request = client()
        .post(format!("{}/api/identity/register", house.http))
        .json(&body);
    let made = answer(request).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    made.json()
}

fn access(login: &Value) -> String {
    let text = login["tokens"]["access_token"].as_str();
    text.or(login["access_token"].as_str())
        .unwrap_or_else(|| panic!("no token in {login}"))
        .to_owned()
}

async fn ask(house: &House, method: Method, path: &str, token: &str) -> Answer {
    let request = client()
        .request(method, format!("{}{path}", house.http))
        .bearer_auth(token);
    answer(request).await.unwrap()
}

/// Answers with a stream that never ends by itself.
async fn ticking() -> TestPlugin {
    let router = Router::new().fallback(any(|| async {
        let first = futures_util::stream::once(async { Ok(Bytes::from_static(b"data: here\n\n")) });
        let rest = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let body = Body::from_stream(first.chain(rest));
        ([("content-type", "text/event-stream")], body)
    }));
    TestPlugin::with(router).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_out_ends_open_streams_and_closes_the_door() {
    let house = House::start(&[]);
    let plugin = ticking().await;
    let closed = json!({ "default_access": "authenticated" });
    house.register("ticks", plugin.address.port(), closed).await;
    let (ann, bob) = (enter(&house, "ann").await, enter(&house, "bob").await);
    let open = async |token: &str| {
        let request = client()
            .get(format!("{}/api/ticks/", house.http))
            .header("accept", "text/event-stream")
            .bearer_auth(token);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = response.bytes_stream();
        assert_eq!(
            &stream.next().await.unwrap().unwrap()[..],
            b"data: here\n\n"
        );
        stream
    };
    let (mut of_ann, mut of_bob) = (open(&access(&ann)).await, open(&access(&bob)).await);
    let begun = Instant::now();
    let out = client()
        .post(format!("{}/api/identity/logout", house.http))
        .bearer_auth(access(&ann))
        .json(&json!({ "scope": "this" }));
    assert_eq!(answer(out).await.unwrap().status, 204);
    let refused = ask(&house, Method::GET, "/api/ticks/", &access(&ann)).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (401, Some("identity.session_revoked")),
        "{}",
        refused.text
    );
    let ended = tokio::time::timeout(Duration::from_secs(10), of_ann.next())
        .await
        .expect("the stream of a session that has ended is closed");
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let other = tokio::time::timeout(Duration::from_millis(200), of_bob.next()).await;
    assert!(other.is_err(), "somebody else's goes on");
}

#[tokio::test]
async fn what_a_login_gives_is_what_services_see() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    let asking = json!({ "default_access": "authenticated", "identity_statement": true });
    let made = house.enrol("hello", hello.port(), asking).await;
    let jwks = made["identity"]["jwks_url"].as_str().expect("an address");
    assert!(jwks.starts_with(&house.http), "{jwks}");
    let keys = answer(client().get(jwks)).await.unwrap();
    assert_eq!(keys.json()["keys"][0]["crv"], "Ed25519", "{}", keys.text);
    let login = enter(&house, "ann").await;
    let token = access(&login);
    let got = ask(&house, Method::GET, "/api/hello/x", &token).await;
    assert_eq!(got.status, 200, "{}", got.text);
    let seen = hello.last();
    assert_eq!(seen.headers["x-portico-tenant"], "default");
    assert_eq!(seen.headers["x-portico-aal"], "1");
    assert!(!seen.headers["x-portico-session"].is_empty());
    assert!(!seen.headers.contains_key("authorization"));
    let statement = seen.headers["x-portico-identity"].to_str().unwrap();
    assert_eq!(statement.split('.').count(), 3, "{statement}");
    ask(&house, Method::GET, "/api/hello/y", &token).await;
    assert_eq!(
        hello.last().headers["x-portico-identity"],
        statement,
        "one signature for half a minute"
    );
    let nobody = house.get("/api/hello/x").await;
    assert_eq!(nobody.json()["code"], "identity.token_missing");
    let key = format!("/api/hello/x?key={}", "ptk_0123456789abcdefghij");
    assert_eq!(
        house.get(&key).await.json()["code"],
        "identity.key_in_query"
    );
}

#[tokio::test]
async fn a_browsers_cookie_opens_the_door_and_changes_need_our_own_page() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    let closed = json!({ "default_access": "authenticated" });
    house.register("hello", hello.port(), closed).await;
    let body = json!({
        "method": "username", "identifier": "ann", "password": PASSWORD,
        "device": { "platform": "web", "name": "browser" }, "transport": "cookie",
    });
    let request = client()
        .post(format!("{}/api/identity/register", house.http))
        .header("origin", &house.http)
        .header("x-portico-csrf", "1")
        .json(&body);
    let made = answer(request).await.unwrap();
    assert_eq!(made.status, 201, "{}", made.text);
    let cookies: Vec<&str> = made
        .headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|v| v.to_str().ok()?.split(';').next())
        .collect();
    let cookie = cookies.join("; ");
    assert!(cookie.contains("portico_at="), "{cookie}");
    let send = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = client()
            .request(method, format!("{}/api/hello/x", house.http))
            .header("cookie", format!("theme=dark; {cookie}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await.unwrap()
    };
    assert_eq!(send(Method::GET, &[]).await.status, 200);
    assert_eq!(hello.last().headers["cookie"], "theme=dark");
    let own = ("origin", &*house.http);
    assert_eq!(
        send(Method::POST, &[own]).await.json()["code"],
        "identity.csrf"
    );
    assert_eq!(
        send(Method::POST, &[own, ("x-portico-csrf", "1")])
            .await
            .status,
        200
    );
    let foreign = [("origin", "https://evil.example"), ("x-portico-csrf", "1")];
    assert_eq!(send(Method::POST, &foreign).await.status, 403);
}

#[tokio::test]
async fn services_call_each_other_with_their_own_credential_where_a_rule_lets_them() {
    let house = House::start(&[]);
    let (shop, music) = (
        Recorder::start("shop").await,
        Recorder::start("music").await,
    );
    let caller = house.enrol("shop", shop.port(), json!({})).await;
    let declared = json!({
        "default_access": "authenticated",
        "endpoints": [{ "path": "/tracks", "required_permissions": ["tunes:track:read"] }],
    });
    house.register("tunes", music.port(), declared).await;
    let internal = caller["internal_url"]
        .as_str()
        .expect("an address")
        .to_owned();
    let secret = caller["instance_secret"].as_str().unwrap().to_owned();
    let call = async |base: &str| {
        let request = client()
            .get(format!("{base}/api/tunes/tracks"))
            .bearer_auth(&secret);
        answer(request).await.unwrap()
    };
    for base in [&internal, &house.http] {
        let refused = call(base).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (403, Some("gateway.caller_not_allowed")),
            "{base}: {}",
            refused.text
        );
    }
    let rule =
        json!({ "service": "tunes", "callers": ["shop"], "permissions": ["tunes:track:read"] });
    house.save("callers", "shop-to-tunes", rule).await;
    let allowed = call(&internal).await;
    assert_eq!(allowed.status, 200, "{}", allowed.text);
    let seen = music.last();
    assert_eq!(seen.headers["x-portico-user"], "svc:shop");
    assert_eq!(seen.headers["x-portico-scopes"], "tunes:track:read");
    let login = enter(&house, "ann").await;
    let person = client()
        .get(format!("{internal}/api/tunes/tracks"))
        .bearer_auth(access(&login));
    assert_eq!(
        answer(person).await.unwrap().json()["code"],
        "gateway.caller_not_allowed"
    );
}

#[tokio::test]
async fn administration_answers_on_its_own_listener_alone() {
    let house = House::configured("[listen]\nconsole = \"127.0.0.1:0\"\n", &[]);
    let ready: Value = serde_json::from_str(
        &std::fs::read_to_string(house.data_dir().join("ready.json")).unwrap(),
    )
    .unwrap();
    let console = ready["console"].as_str().expect("a listener").to_owned();
    let at = async |base: &str, path: &str| {
        let request = client()
            .get(format!("{base}{path}"))
            .bearer_auth(house.operator());
        answer(request).await.unwrap().status
    };
    for path in [
        "/api/gateway/routes",
        "/api/identity/users",
        "/api/registry/tokens",
    ] {
        assert_eq!(at(&house.http, path).await, 404, "{path}");
        assert_eq!(at(&console, path).await, 200, "{path}");
    }
    let login = enter(&house, "ann").await;
    let me = ask(&house, Method::GET, "/api/identity/me", &access(&login)).await;
    assert_eq!(me.status, 200, "{}", me.text);
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    assert_eq!(
        house.get("/api/hello/x").await.status,
        200,
        "plug-ins come as before"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_list_shows_is_already_routable() {
    const SERVICES: usize = 40;
    let house = std::sync::Arc::new(House::start(&[]));
    let hello = Recorder::start("hello").await;
    let (registering, port) = (std::sync::Arc::clone(&house), hello.port());
    let registrations = tokio::spawn(async move {
        for number in 0..SERVICES {
            registering
                .register(&format!("listed-{number}"), port, json!({}))
                .await;
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < SERVICES {
        let list = house
            .operate(Method::GET, "/api/registry/services?limit=200", None)
            .await;
        assert_eq!(list.status, 200, "{}", list.text);
        let items = list.json()["items"].as_array().cloned().unwrap_or_default();
        for name in items.iter().filter_map(|item| item["name"].as_str()) {
            if name.starts_with("listed-") && seen.insert(name.to_owned()) {
                let got = house.get(&format!("/api/{name}/x")).await;
                assert_eq!(got.status, 200, "{name}: {}", got.text);
            }
        }
    }
    registrations.await.unwrap();
}
