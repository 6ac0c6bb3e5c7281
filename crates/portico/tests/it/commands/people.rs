//! `portico admin`, `user`, `keys`, `token`, `apikey`, `sms`: people and what they hold, from the shell.

use reqwest::Method;
use serde_json::{Value, json};

use super::{done, err, out, portico, portico_reads};
use crate::house::{House, answer, client};

const PASSWORD: &str = "quartz lantern 88 ferry";

/// POST of JSON without a credential.
async fn post(house: &House, path: &str, body: &Value) -> (u16, Value) {
    let got = answer(client().post(format!("{}{path}", house.http)).json(body))
        .await
        .unwrap();
    let status = got.status;
    (status, serde_json::from_str(&got.text).unwrap_or_default())
}

async fn log_in(house: &House, name: &str) -> (u16, Value) {
    let wish = json!({
        "identifier": name, "password": PASSWORD, "device": { "platform": "cli" },
    });
    post(house, "/api/identity/login/password", &wish).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_rescued_and_administered() {
    let house = House::start(&[]);
    let link = done(
        &house,
        &["admin", "create-user", "ada", "--email", "ada@example.com"],
    );
    let link = link.lines().last().unwrap().to_owned();
    let (page, token) = link.split_once("/auth/reset#").expect("a link");
    assert_eq!(page, house.http.trim_end_matches('/'));
    let wish = json!({ "token": token, "password": PASSWORD });
    let (status, told) = post(&house, "/api/identity/password/reset/confirm", &wish).await;
    assert_eq!(status, 204, "{told}");
    let (status, result) = log_in(&house, "ada").await;
    assert_eq!((status, &result["status"]), (200, &json!("ok")), "{result}");
    let token = result["tokens"]["access_token"].as_str().unwrap();

    let told = done(&house, &["token", "inspect", token]);
    assert!(
        told.contains("pass  signature") && !told.contains("FAIL"),
        "{told}"
    );
    assert!(!told.contains(token), "{told}");
    let shown: Value = serde_json::from_str(&done(
        &house,
        &["user", "show", "ADA@example.com", "--json"],
    ))
    .unwrap();
    assert_eq!(shown["username"], "ada");
    assert!(done(&house, &["user", "list", "--role", "user"]).contains("ada"));
    assert!(done(&house, &["admin", "grant", "ada", "auditor"]).contains("auditor"));
    assert!(done(&house, &["user", "roles", "ada", "--set", "user"]).contains("user"));
    done(&house, &["user", "logout", "ada"]);
    let ended = portico_reads(&house, &["token", "inspect", "-"], token.as_bytes());
    assert_eq!(ended.status.code(), Some(1), "{}", err(&ended));
    assert!(out(&ended).contains("FAIL  active"), "{}", out(&ended));

    done(&house, &["user", "disable", "ada", "--reason", "left"]);
    assert_eq!(log_in(&house, "ada").await.0, 401);
    done(&house, &["user", "enable", "ada"]);
    assert_eq!(log_in(&house, "ada").await.0, 200);
    let temporary = done(&house, &["admin", "reset-password", "ada", "--temporary"]);
    assert_eq!(log_in(&house, "ada").await.0, 401, "{temporary}");
    let nobody = portico(&house, &["user", "show", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        err(&nobody).contains("there is no user nobody"),
        "{}",
        err(&nobody)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_made_and_taken_back() {
    let house = House::start(&[]);
    let keys = done(&house, &["keys", "list"]);
    assert!(keys.contains("active") && keys.contains("next"), "{keys}");
    let rotated = done(&house, &["keys", "emergency", "--reason", "a test"]);
    assert!(rotated.contains("dropped"), "{rotated}");

    done(
        &house,
        &["admin", "create-user", "bob", "--role", "tenant_admin"],
    );
    let words = [
        "apikey", "create", "--name", "ci", "--owner", "bob", "--json", "--scope",
    ];
    let made = done(&house, &[&words[..], &["registry:instance:read"]].concat());
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("ptk_live_"), "{made}");
    let listed = done(&house, &["apikey", "list"]);
    assert!(listed.contains("ci") && !listed.contains(key), "{listed}");
    let with = |key: &str| {
        client()
            .request(Method::GET, format!("{}/api/registry/services", house.http))
            .header("X-Api-Key", key)
    };
    assert_eq!(answer(with(key)).await.unwrap().status, 200);
    done(&house, &["apikey", "revoke", made["id"].as_str().unwrap()]);
    assert_eq!(answer(with(key)).await.unwrap().status, 401);

    let vectors = done(&house, &["sms", "vectors"]);
    assert!(
        vectors.contains("tencent") && !vectors.contains("DIFFERS"),
        "{vectors}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_administrator_is_made_by_a_link_that_works_once() {
    let house = House::start(&[]);
    let link = done(&house, &["admin", "setup-link"]);
    let link = link.lines().next().unwrap();
    let (page, token) = link.split_once('#').expect("a token behind the page");
    let page = answer(client().get(page)).await.unwrap();
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("script-src 'self'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(page.text.contains("/auth/auth.js") && !page.text.contains("<script>"));

    let wish = |password: &str| {
        json!({
            "token": token, "username": "root", "password": password,
            "device": { "platform": "web" },
        })
    };
    let (status, weak) = post(&house, "/api/identity/setup", &wish("password12")).await;
    assert_eq!(
        (status, &weak["errors"][0]["field"]),
        (400, &json!("password")),
        "{weak}"
    );
    let (status, made) = post(&house, "/api/identity/setup", &wish(PASSWORD)).await;
    assert_eq!(
        (status, &made["status"]),
        (201, &json!("enrol_required")),
        "{made}"
    );
    let (status, again) = post(&house, "/api/identity/setup", &wish(PASSWORD)).await;
    assert_eq!(
        (status, &again["code"]),
        (401, &json!("identity.one_time_token_invalid"))
    );
    let refused = portico(&house, &["admin", "setup-link"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("identity.already_set_up"),
        "{}",
        err(&refused)
    );
}
