//! Access tokens of the house at the real listener: forged ones, revoked ones across a kill, and new keys in an emergency.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{Answer, House, answer, client};

const PASSWORD: &str = "a long enough phrase, 7 words";

/// A new session of a new user: its access token.
async fn register(house: &House, name: &str) -> String {
    let body = json!({
        "method": "username", "identifier": name, "password": PASSWORD,
        "device": { "platform": "cli" },
    });
    let request = client()
        .post(format!("{}/api/identity/register", house.http))
        .json(&body);
    let answer = answer(request).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text);
    let token = answer.json()["tokens"]["access_token"].clone();
    token.as_str().unwrap().to_owned()
}

async fn ask(house: &House, method: Method, path: &str, token: &str) -> Answer {
    let request = client().request(method, format!("{}{path}", house.http));
    answer(request.bearer_auth(token).json(&json!({})))
        .await
        .unwrap()
}

async fn me(house: &House, token: &str) -> (u16, Value) {
    let answer = ask(house, Method::GET, "/api/identity/me", token).await;
    (answer.status, answer.json()["code"].clone())
}

fn refused(code: &str) -> (u16, Value) {
    (401, json!(format!("identity.{code}")))
}

#[tokio::test]
async fn what_was_revoked_stays_out_after_kill_9() {
    let mut house = House::start(&[]);
    let published = house.get("/.well-known/jwks.json").await;
    assert_eq!(published.status, 200);
    assert_eq!(published.headers["cache-control"], "public, max-age=300");
    assert_eq!(published.json()["keys"].as_array().unwrap().len(), 2);
    let document = house.get("/.well-known/openid-configuration").await.json();
    assert!(
        document["issuer"]
            .as_str()
            .unwrap()
            .starts_with("urn:portico:")
    );
    let jwks = document["jwks_uri"].as_str().unwrap();
    assert_eq!(jwks, format!("{}/.well-known/jwks.json", house.http));

    let (out, stays) = (
        register(&house, "ann-out").await,
        register(&house, "bob-stays").await,
    );
    assert_eq!(me(&house, &out).await.0, 200);
    let left = ask(&house, Method::POST, "/api/identity/logout", &out).await;
    assert_eq!(left.status, 204, "{}", left.text);
    assert_eq!(me(&house, &out).await, refused("session_revoked"));
    house.signal(Signal::SIGKILL);
    house.wait();

    // Another port, the same installation: who was in is in, who was out is out, with the first request.
    let house = House::at(house.folder.clone(), &[]);
    assert_eq!(me(&house, &out).await, refused("session_revoked"));
    assert_eq!(me(&house, &stays).await.0, 200);
    assert_eq!(
        house.get("/.well-known/jwks.json").await.text,
        published.text
    );

    let wish = json!({ "emergency": true, "reason": "drill" });
    let rotated = house
        .operate(Method::POST, "/api/identity/keys/rotate", Some(&wish))
        .await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert_eq!(me(&house, &stays).await, refused("token_stale"));
    assert_ne!(
        house.get("/.well-known/jwks.json").await.text,
        published.text
    );
    let new = register(&house, "cid-new").await;
    assert_eq!(me(&house, &new).await.0, 200);
    let log = house.log();
    for secret in [&out, &stays, &new] {
        assert!(!log.contains(secret.rsplit('.').next().unwrap()));
    }
}

/// What a stranger can make of a good token without our key, and of the public key.
#[tokio::test]
async fn forged_tokens_are_refused_at_the_door() {
    let house = House::start(&[]);
    let good = register(&house, "dora").await;
    assert_eq!(me(&house, &good).await.0, 200);
    let parts: Vec<&str> = good.split('.').collect();
    let read = |part: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    let write = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = |name: &str, value: Value| {
        let mut header = read(parts[0]);
        header[name] = value;
        format!("{}.{}.{}", write(&header), parts[1], parts[2])
    };
    let claim = |name: &str, value: Value| {
        let mut payload = read(parts[1]);
        payload[name] = value;
        format!("{}.{}.{}", parts[0], write(&payload), parts[2])
    };
    let flipped = if parts[2].starts_with('A') { 'B' } else { 'A' };
    let forged = [
        header("alg", json!("none")),
        format!(
            "{}.{}.",
            write(&json!({"alg": "none", "typ": "at+jwt"})),
            parts[1]
        ),
        header("alg", json!("HS256")),
        header("typ", json!("JWT")),
        header("kid", json!("../../dev/null")),
        header("kid", json!("' OR 1=1 --")),
        header("jku", json!("http://127.0.0.1:1/jwks.json")),
        header("crit", json!(["exp"])),
        claim("roles", json!(["super_admin"])),
        claim("tid", json!("00000000-0000-7000-8000-000000000001")),
        claim("exp", json!(9_999_999_999_i64)),
        format!("{}.{}.{flipped}{}", parts[0], parts[1], &parts[2][1..]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}.x"),
        format!("{good}="),
    ];
    for token in forged {
        assert_eq!(
            me(&house, &token).await,
            refused("token_invalid"),
            "{token}"
        );
        let answer = ask(&house, Method::GET, "/api/identity/me", &token).await;
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_eq!(me(&house, &good).await.0, 200);
}
