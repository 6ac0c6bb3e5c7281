//! Who calls: tokens of users, roles and permissions of endpoints, and the signed headers that a service can trust.

use std::time::SystemTime;

use portico_sdk::{Identity, Refused, Secret, Verifier};
use portico_testkit::{AUDIENCE, ISSUER, TestKeys};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client, token};
use crate::recorder::{Recorder, Seen};

/// What the SDK makes of a request as it arrived.
fn verify(verifier: &Verifier, seen: &Seen) -> Result<Identity, Refused> {
    verifier.verify(&seen.method, &seen.target, &seen.headers, SystemTime::now())
}

async fn call(house: &House, method: Method, path: &str, token: Option<&str>) -> Answer {
    let mut request = client().request(method, format!("{}{path}", house.http));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    answer(request).await.unwrap()
}

#[tokio::test]
async fn a_service_can_trust_the_signed_headers() {
    let (house, keys) = House::with_users("");
    let hello = Recorder::start("hello").await;
    let made = house.enrol("hello", hello.port(), json!({})).await;
    let verifier = Verifier::new([Secret::from(made["instance_secret"].as_str().unwrap())]);

    assert_eq!(
        call(&house, Method::GET, "/api/hello/a%2Fb//c?x=%20&y", None)
            .await
            .status,
        200
    );
    let nobody = verify(&verifier, &hello.last()).unwrap();
    assert_eq!((nobody.user, nobody.tenant, nobody.aal), (None, None, 0));

    let alice = token(&keys, &["staff", "editor"], "notes:note:write");
    let answer = call(&house, Method::POST, "/api/hello/things?a=b", Some(&alice)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let seen = hello.last();
    let identity = verify(&verifier, &seen).unwrap();
    assert_eq!(
        (identity.user.as_deref(), identity.tenant.as_deref()),
        (Some("alice"), Some("default"))
    );
    assert_eq!(
        (identity.session.as_deref(), identity.aal),
        (Some("session-1"), 1)
    );
    assert_eq!(
        (identity.roles, identity.scopes),
        (
            vec!["editor".to_owned(), "staff".to_owned()],
            vec!["notes:note:write".to_owned()]
        )
    );
    assert_eq!(
        identity.request_id,
        answer.headers["x-request-id"].to_str().unwrap()
    );
    assert!(
        !seen.headers.contains_key("authorization"),
        "credentials stay at the door"
    );
    assert_eq!(
        verify(&verifier, &seen),
        Err(Refused::Replay),
        "an unsafe request counts once"
    );

    let mut forged = seen.clone();
    forged
        .headers
        .insert("x-portico-user", "mallory".parse().unwrap());
    assert_eq!(verify(&verifier, &forged), Err(Refused::Mismatch));
    let other = Verifier::new([Secret::from("pis_other")]);
    assert_eq!(
        verify(&other, &seen),
        Err(Refused::Mismatch),
        "each instance has its own secret"
    );
}

#[tokio::test]
async fn endpoints_ask_for_what_they_declare() {
    let (house, keys) = House::with_users("");
    let hello = Recorder::start("hello").await;
    let declared = json!({
        "default_access": "authenticated",
        "endpoints": [
            { "path": "/open", "is_public": true },
            { "path": "/admin/*", "required_roles": ["staff", "chief"] },
            { "path": "/notes", "method": "GET", "is_public": true },
            { "path": "/notes", "method": "POST", "required_permissions": ["notes:note:write"] },
            { "path": "/notes/{id}", "method": "DELETE", "required_roles": ["staff"], "required_permissions": ["notes:note:write"] },
        ],
    });
    house.register("hello", hello.port(), declared).await;
    let (plain, staff) = (token(&keys, &["member"], ""), token(&keys, &["staff"], ""));
    let (writer, both) = (
        token(&keys, &[], "notes:note:write"),
        token(&keys, &["staff"], "notes:note:write"),
    );
    let operator = house.operator();
    let who = [
        None,
        Some(&*plain),
        Some(&*staff),
        Some(&*writer),
        Some(&*both),
        Some(&*operator),
    ];
    for (method, path, expected) in [
        (Method::GET, "/open", [200, 200, 200, 200, 200, 200]),
        (Method::GET, "/else", [401, 200, 200, 200, 200, 200]),
        (Method::GET, "/admin/x", [401, 403, 200, 403, 200, 200]),
        (Method::GET, "/notes", [200, 200, 200, 200, 200, 200]),
        (Method::POST, "/notes", [401, 403, 403, 200, 200, 200]),
        (Method::PUT, "/notes", [401, 200, 200, 200, 200, 200]),
        (Method::DELETE, "/notes/1", [401, 403, 403, 403, 200, 200]),
    ] {
        for (token, expected) in who.iter().zip(expected) {
            let answer = call(&house, method.clone(), &format!("/api/hello{path}"), *token).await;
            let place = who.iter().position(|w| w == token);
            assert_eq!(
                answer.status, expected,
                "{method} {path} as {place:?}: {}",
                answer.text
            );
            if expected == 401 {
                assert!(
                    answer.headers.contains_key("www-authenticate"),
                    "{method} {path}"
                );
            }
        }
    }
}

fn claims(more: &Value) -> Value {
    let now = chrono::Utc::now().timestamp();
    let mut claims =
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600 });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
}

#[tokio::test]
async fn tokens_that_are_not_good_are_refused_and_never_arrive() {
    let (house, keys) = House::with_users("");
    let hello = Recorder::start("hello").await;
    house
        .register(
            "hello",
            hello.port(),
            json!({ "default_access": "authenticated" }),
        )
        .await;
    let now = chrono::Utc::now().timestamp();
    let good = keys.sign(&claims(&json!({})));
    assert_eq!(
        call(&house, Method::GET, "/api/hello/", Some(&good))
            .await
            .status,
        200
    );
    let arrived = hello.count();
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let stranger = TestKeys::new("test-1");
    let bad = [
        keys.sign(&claims(&json!({ "exp": now - 1 }))),
        keys.sign(&claims(&json!({ "nbf": now + 600 }))),
        keys.sign(&claims(&json!({ "iss": "https://other.test" }))),
        keys.sign(&claims(&json!({ "aud": "other" }))),
        keys.sign(&claims(&json!({ "sub": "" }))),
        keys.sign(&claims(&json!({ "exp": null }))),
        stranger.sign(&claims(&json!({}))),
        TestKeys::new("unknown").sign(&claims(&json!({}))),
        format!("eyJhbGciOiJub25lIn0.{body}."),
        format!("{head}.{body}."),
        format!(
            "{head}.{body}.{}",
            signature.chars().rev().collect::<String>()
        ),
        format!("{head}.{body}x.{signature}"),
        "a.b.c".to_owned(),
        "x".repeat(7000),
    ];
    for token in &bad {
        let answer = call(&house, Method::GET, "/api/hello/", Some(token)).await;
        assert_eq!(answer.status, 401, "{token}: {}", answer.text);
        assert!(
            answer.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("Bearer"),
            "{token}"
        );
    }
    assert_eq!(hello.count(), arrived);
    let log = house.log();
    assert!(
        !log.contains(signature) && !log.contains(&bad[0]),
        "a token is in the log"
    );
}

#[tokio::test]
async fn an_issuer_outside_cannot_make_administrators() {
    let (house, keys) = House::with_users("");
    let claims = claims(
        &json!({ "roles": ["super_admin", "tenant_admin"], "scope": "registry:*:* gateway:route:write *:*:*" }),
    );
    let token = keys.sign(&claims);
    for path in ["/api/registry/tokens", "/api/gateway/routes"] {
        let answer = call(&house, Method::GET, path, Some(&token)).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (403, Some("identity.permission_denied")),
            "{path}"
        );
    }
    let hello = Recorder::start("hello").await;
    house.register("hello", hello.port(), json!({})).await;
    assert_eq!(
        call(&house, Method::GET, "/api/hello/", Some(&token))
            .await
            .status,
        200
    );
    assert_eq!(hello.last().header("x-portico-roles"), "");
}

#[tokio::test]
async fn credentials_are_forwarded_only_to_whom_they_were_granted() {
    let house = House::start(&[]);
    let hello = Recorder::start("hello").await;
    house
        .register(
            "hello",
            hello.port(),
            json!({ "forward_credentials": true }),
        )
        .await;
    let request = client()
        .get(format!("{}/api/hello/", house.http))
        .header("authorization", "Basic dXNlcjpwYXNz");
    assert_eq!(answer(request).await.unwrap().status, 200);
    assert_eq!(hello.last().header("authorization"), "Basic dXNlcjpwYXNz");
    let made = house
        .operate(
            Method::POST,
            "/api/registry/tokens",
            Some(&json!({ "name_pattern": "greedy" })),
        )
        .await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let body = json!({ "name": "greedy", "port": hello.port(), "host": "127.0.0.1", "forward_credentials": true, "default_access": "public" });
    let request = client()
        .post(format!("{}/api/registry/register", house.http))
        .bearer_auth(&token)
        .json(&body);
    let refused = answer(request).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.text);
    let fields: Vec<_> = refused.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["field"].clone())
        .collect();
    assert_eq!(fields.len(), 2, "both are named: {}", refused.text);
}
