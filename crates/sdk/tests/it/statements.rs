//! Statements of the gateway's identity, good and forged.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use portico_sdk::{Plugin, StatementError};
use serde_json::{Value, json};

use crate::fake_gateway::{FakeGateway, registered};
use crate::plugin;

struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn jwks(&self) -> Value {
        let x = BASE64.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "unknown", "kid": "k0"}, {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x}]})
    }

    fn jwt(&self, header: &Value, claims: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut head = json!({"alg": "EdDSA", "typ": "pi+jwt", "kid": "k1"});
        let mut body = json!({"iss": "urn:portico:test", "aud": ["notes"], "sub": "alice", "iat": now, "exp": now + 60});
        for (whole, part) in [(&mut head, header), (&mut body, claims)] {
            for (name, value) in part.as_object().unwrap() {
                whole[name] = value.clone();
            }
        }
        let text = format!(
            "{}.{}",
            BASE64.encode(head.to_string()),
            BASE64.encode(body.to_string())
        );
        format!("{text}.{}", BASE64.encode(self.0.sign(text.as_bytes())))
    }
}

async fn begin(issuer: &Issuer) -> (FakeGateway, Plugin) {
    let mut gateway = FakeGateway::start([("other", 200, issuer.jwks())]).await;
    let mut document = registered(Some("pis_first"), 30.0);
    document["identity"]["jwks_url"] = format!("{}/.well-known/jwks.json", gateway.url).into();
    gateway.then("register", 201, document);
    let plugin = plugin(&gateway);
    plugin.start(1);
    gateway.next("register").await;
    plugin.drain().await;
    gateway.next("deregister").await;
    (gateway, plugin)
}

#[tokio::test]
async fn good_ones_are_believed() {
    let issuer = Issuer::new();
    let (gateway, plugin) = begin(&issuer).await;
    assert_eq!(plugin.issuer().as_deref(), Some("urn:portico:test"));
    assert!(plugin.jwks_url().unwrap().starts_with(&gateway.url));
    for audience in [json!(["other", "notes"]), json!("notes")] {
        let claims: Value = plugin
            .verify_statement(&issuer.jwt(&json!({}), &json!({"aud": audience})))
            .await
            .unwrap();
        assert_eq!(claims["sub"], "alice");
    }
    let token = issuer.jwt(&json!({"typ": "at+jwt"}), &json!({"aud": "portico"}));
    assert!(
        plugin
            .verify_token::<Value>(&token, "at+jwt", "portico")
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn forged_ones_are_not() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let (mut gateway, plugin) = begin(&issuer).await;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let heads = [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"typ": "at+jwt"}),
        json!({"typ": null}),
        json!({"kid": "k2"}),
        json!({"kid": 7}),
        json!({"kid": null}),
        json!({"crit": ["x"]}),
        json!({"jku": "http://127.0.0.1:9/"}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
    ];
    let claims = [
        json!({"aud": "other"}),
        json!({"aud": null}),
        json!({"iss": "urn:portico:test2"}),
        json!({"exp": now}),
        json!({"exp": "never"}),
        json!({"exp": null}),
        json!({"exp": -1}),
        json!({"nbf": now + 120}),
        json!({"iat": now + 120}),
        json!({"nbf": "x"}),
    ];
    let good = issuer.jwt(&json!({}), &json!({}));
    let mut bad: Vec<String> = heads
        .iter()
        .map(|head| issuer.jwt(head, &json!({})))
        .collect();
    bad.extend(claims.iter().map(|claims| issuer.jwt(&json!({}), claims)));
    bad.extend([
        stranger.jwt(&json!({}), &json!({})),
        good[..good.len() - 4].to_owned(),
        format!("{good}.x"),
        format!("{good}="),
    ]);
    bad.extend([String::new(), "a.b.c".to_owned(), "x".repeat(9_000)]);
    for jwt in bad {
        assert!(
            plugin.verify_statement::<Value>(&jwt).await.is_err(),
            "{jwt}"
        );
    }
    gateway.next("other").await;
    assert!(
        gateway.is_silent(),
        "keys are fetched once, not for each unknown id"
    );
    let unknown = plugin
        .verify_statement::<Value>(&issuer.jwt(&json!({"kid": "k2"}), &json!({})))
        .await;
    assert!(matches!(unknown, Err(StatementError::Key)));
}
