//! Statements that are not Apple's, not for us, not now, or not the first time (P§7).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portico_base::Principal;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::apple::{House, code};
use super::apple_standin::{BUNDLE, Behaviour, KID};
use super::rig::OTHER;
use crate::ops;

const REFUSED: (u16, &str) = (401, "identity.apple_token_invalid");

fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (header.to_string(), claims.to_string());
    let (header, claims) = (encode(header.as_bytes()), encode(claims.as_bytes()));
    format!("{header}.{claims}.{}", encode(signature))
}

/// Signed symmetrically, with something that everybody knows.
fn symmetric(key: &[u8], claims: &Value) -> String {
    let token = raw(&json!({"kid": KID, "alg": "HS256"}), claims, &[]);
    let signed = token.trim_end_matches('.');
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn statements_that_apple_did_not_sign_are_refused() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (claims, nonce) = house.claims("001.anna").await;
        let good = house.apple.sign(&claims);
        let public = house.apple.public_der();
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(&public)
        );
        let signature = good.rsplit('.').next().unwrap();
        let unsigned = &good[..good.len() - signature.len()];
        let header = |more: Value| {
            let mut header = json!({"kid": KID, "alg": "RS256"});
            for (key, value) in more.as_object().unwrap() {
                header[key] = value.clone();
            }
            house.apple.sign_with(&header, &claims)
        };
        let mut all: Vec<(String, String)> = ["none", "None", "NONE", "nOnE", ""]
            .into_iter()
            .map(|alg| {
                (
                    format!("alg {alg}"),
                    raw(&json!({"kid": KID, "alg": alg}), &claims, &[]),
                )
            })
            .collect();
        for (name, token) in [
            ("public key as DER", symmetric(&public, &claims)),
            ("public key as PEM", symmetric(pem.as_bytes(), &claims)),
            ("no signature", unsigned.to_owned()),
            ("short signature", format!("{unsigned}AAAA")),
            ("padded", format!("{good}=")),
            ("two parts", unsigned.trim_end_matches('.').to_owned()),
            ("four parts", format!("{good}.x")),
            ("empty", String::new()),
            ("long", format!("{good}{}", "A".repeat(9_000))),
            ("not base64", "a.b!.c".to_owned()),
            ("alg of the family", header(json!({"alg": "RS512"}))),
            ("alg is no text", header(json!({"alg": 7}))),
            ("jku", header(json!({"jku": "https://evil.example/keys"}))),
            ("jwk", header(json!({"jwk": {"kty": "RSA"}}))),
            ("x5c", header(json!({"x5c": ["AAAA"]}))),
            ("x5u", header(json!({"x5u": "https://evil.example/"}))),
            ("crit", header(json!({"crit": ["exp"]}))),
            ("b64", header(json!({"b64": false}))),
            ("zip", header(json!({"zip": "DEF"}))),
            ("typ", header(json!({"typ": "at+jwt"}))),
            ("kid is a number", header(json!({"kid": 1}))),
            ("kid is a path", header(json!({"kid": "../../dev/null"}))),
            ("kid is SQL", header(json!({"kid": "' OR 1=1 --"}))),
            ("kid is long", header(json!({"kid": "k".repeat(5_000)}))),
            (
                "no kid",
                house.apple.sign_with(&json!({"alg": "RS256"}), &claims),
            ),
        ] {
            all.push((name.to_owned(), token));
        }
        for (name, token) in &all {
            let answer = house.show(token, &nonce, json!({})).await;
            assert_eq!(code(&answer), REFUSED, "{name}");
        }
        let asked = house.apple.keys_asked();
        assert!(
            asked <= 2,
            "{asked} fetches: one at first, none for what cannot be a key of Apple's"
        );
        assert_eq!(house.rig.audit.count("identity.login.failed"), all.len());
        assert_eq!(house.rig.audit.actions().len(), all.len());
        let (status, answer) = house.show(&good, &nonce, json!({})).await;
        assert_eq!(status, 200, "and the nonce was not used up: {answer}");
    })
    .await;
}

#[tokio::test]
async fn statements_for_others_and_other_times_are_refused() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (claims, nonce) = house.claims("001.anna").await;
        let now_s = claims["iat"].as_i64().unwrap();
        let with = |key: &str, value: Value| {
            let mut claims = claims.clone();
            claims[key] = value;
            (format!("{key} {}", claims[key]), claims)
        };
        let without = |key: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(key);
            (format!("without {key}"), claims)
        };
        let all = [
            with("iss", json!("https://appleid.apple.com/")),
            with("iss", json!("https://appleid.apple.com.evil.example")),
            with("iss", json!("http://appleid.apple.com")),
            with("iss", json!(["https://appleid.apple.com"])),
            without("iss"),
            with("aud", json!("com.evil.app")),
            with("aud", json!("com.example.ap")),
            with("aud", json!([BUNDLE])),
            with("aud", json!(null)),
            without("aud"),
            with("exp", json!(now_s)),
            with("exp", json!(now_s - 1)),
            with("exp", json!(format!("{}", now_s + 600))),
            with("exp", json!(1e300)),
            with("exp", json!(-1)),
            without("exp"),
            with("iat", json!(now_s + 61)),
            with("iat", json!(1.5)),
            without("iat"),
            with("nbf", json!(now_s + 61)),
            with("nbf", json!("now")),
            with("sub", json!("")),
            with("sub", json!(7)),
            with("sub", json!("s".repeat(256))),
            without("sub"),
            with("nonce", json!(nonce)),
            with("nonce", json!(ops::apple::hashed("another"))),
            with("nonce", json!("")),
            without("nonce"),
            with("email_verified", json!("yes")),
            with("is_private_email", json!(1)),
            with("email", json!(["a@example.com"])),
        ];
        for (name, claims) in &all {
            let answer = house
                .show(&house.apple.sign(claims), &nonce, json!({}))
                .await;
            assert_eq!(code(&answer), REFUSED, "{name}");
        }
        for issuer in ["https://appleid.apple.com", "https://account.apple.com"] {
            let (mut claims, nonce) = house.claims("001.anna").await;
            claims["iss"] = issuer.into();
            let (status, _) = house
                .show(&house.apple.sign(&claims), &nonce, json!({}))
                .await;
            assert_eq!(status, 200, "{issuer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_nonce_is_ours_good_once_and_for_ten_minutes() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (claims, nonce) = house.claims("001.anna").await;
        let token = house.apple.sign(&claims);
        assert_eq!(house.show(&token, &nonce, json!({})).await.0, 200);
        let again = house.show(&token, &nonce, json!({})).await;
        assert_eq!(code(&again), REFUSED, "replayed");
        let own = house
            .apple
            .claims(BUNDLE, "001.anna", &ops::apple::hashed("made up"));
        let shown = house
            .show(&house.apple.sign(&own), "made up", json!({}))
            .await;
        assert_eq!(code(&shown), REFUSED, "not ours");
        let (mut claims, nonce) = house.claims("001.anna").await;
        claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 3_600);
        let token = house.apple.sign(&claims);
        house.rig.advance(600);
        assert_eq!(
            code(&house.show(&token, &nonce, json!({})).await),
            REFUSED,
            "late"
        );
        // Twenty at once: one comes in.
        let (claims, nonce) = house.claims("001.anna").await;
        let token = house.apple.sign(&claims);
        let tries = (0..20).map(|_| house.show(&token, &nonce, json!({})));
        let all = futures_util::future::join_all(tries).await;
        assert_eq!(all.iter().filter(|(status, _)| *status == 200).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn tenants_have_nothing_of_each_other() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", Some("anna@example.com")).await;
        // The same account of the installation: another tenant, another user.
        let nonce = async |tenant: &str| {
            let wish = json!({ "tenant": tenant });
            let (_, answer) = house.post("/login/apple/nonce", wish).await;
            answer["nonce"].as_str().unwrap().to_owned()
        };
        let theirs = nonce("other").await;
        let claims = |nonce: &str| {
            house
                .apple
                .claims(BUNDLE, "001.anna", &ops::apple::hashed(nonce))
        };
        let token = house.apple.sign(&claims(&theirs));
        let crossed = house.show(&token, &theirs, json!({})).await;
        assert_eq!(code(&crossed), REFUSED, "a nonce of the other tenant");
        let (status, answer) = house
            .show(&token, &theirs, json!({"tenant": "other"}))
            .await;
        assert_eq!(status, 200, "which is still good there: {answer}");
        assert_eq!(answer["user"]["tenant_id"], OTHER.to_string());
        assert_ne!(answer["user"]["id"], anna.id.to_string());
        let nowhere = nonce("other").await;
        let token = house.apple.sign(&claims(&nowhere));
        let lost = house
            .show(&token, &nowhere, json!({"tenant": "no-such"}))
            .await;
        assert_eq!(code(&lost), REFUSED, "a tenant that is not there");

        // A tenant with client ids of its own takes no statement for others.
        house.rig.settings.set(
            Some(OTHER),
            "identity.apple.client_ids",
            json!(["com.other.app"]),
        );
        house
            .rig
            .settings
            .set(Some(OTHER), "identity.apple.services_id", json!(""));
        let own = nonce("other").await;
        let token = house.apple.sign(&claims(&own));
        let shown = house.show(&token, &own, json!({"tenant": "other"})).await;
        assert_eq!(code(&shown), REFUSED);
        let admin = house.rig.tenant_admin(OTHER).await;
        let path = format!("/users/{}/identities", anna.id);
        assert_eq!(house.rig.get(&admin, &path).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn unknown_keys_are_looked_for_once_a_minute_and_by_one_at_a_time() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        house.user("001.anna", None).await;
        assert_eq!(house.apple.keys_asked(), 1);
        house.rig.advance(61);
        let (claims, nonce) = house.claims("001.anna").await;
        // A storm of names that no key has.
        let tokens: Vec<String> = (0..40)
            .map(|n| {
                let header = json!({"alg": "RS256", "kid": format!("storm-{n}")});
                house.apple.sign_with(&header, &claims)
            })
            .collect();
        let storm = tokens
            .iter()
            .map(|token| house.show(token, &nonce, json!({})));
        for answer in futures_util::future::join_all(storm).await {
            assert_eq!(code(&answer), REFUSED);
        }
        assert_eq!(house.apple.keys_asked(), 2, "one fetch for all of them");
        // Apple rotates within that minute: its new key is found with the next one.
        house.apple.rotate("apple-key-2");
        let token = house.apple.sign(&claims);
        assert_eq!(code(&house.show(&token, &nonce, json!({})).await), REFUSED);
        house.rig.advance(60);
        let (status, answer) = house.show(&token, &nonce, json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(house.apple.keys_asked(), 3);

        // All wait for the one fetch that is under way, and a client that goes away does not end it.
        house.apple.rotate("apple-key-3");
        house.rig.advance(61);
        let (claims, nonce) = house.claims("001.anna").await;
        let token = house.apple.sign(&claims);
        house.apple.behave(Behaviour::Hang);
        {
            let gone = house.show(&token, &nonce, json!({}));
            tokio::select! {
                biased;
                _ = gone => panic!("nobody answers yet"),
                () = house.apple.hanging() => {}
            }
        }
        house.apple.behave(Behaviour::Well);
        let (status, answer) = house.show(&token, &nonce, json!({})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(house.apple.keys_asked(), 4);
    })
    .await;
}

#[tokio::test]
async fn tries_of_an_address_are_limited() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        house
            .rig
            .set("identity.limit.apple_per_address", json!(["3/min"]));
        let mut last = (0, Value::Null);
        for _ in 0..4 {
            last = house.show("a.b.c", "n", json!({})).await;
        }
        assert_eq!(code(&last), (429, "identity.rate_limited"));
        let wish = json!({});
        let (status, _) = house
            .rig
            .post(&Principal::anonymous(), "/login/apple/nonce", wish)
            .await;
        assert_eq!(status, 429);
        let bad = json!({"name": "n".repeat(2_000), "locale": "fr", "code": ""});
        let (status, answer) = house.show("a.b.c", "n", bad).await;
        let fields: Vec<String> = super::rig::faults(&answer)
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(
            (status, fields.len()),
            (400, 3),
            "all faults at once: {answer}"
        );
    })
    .await;
}
