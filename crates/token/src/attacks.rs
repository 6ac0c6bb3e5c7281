//! Everything that was ever tried on verifiers of signed tokens, as one table (identity-protocols §7; RFC 8725).

mod claims;
mod forms;
mod properties;
mod signatures;
mod skew;

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portico_base::random::SeededRandom;
use portico_contract::tokens::Denied;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::access::{self, AccessClaims, Issuer, mint};
use crate::signing::{Kind, SigningKey, VerifyingKey};

const NOW_S: i64 = 1_767_225_600;

struct House {
    key: SigningKey,
    public: VerifyingKey,
    /// A key of a stranger.
    other: SigningKey,
    issuer: Issuer,
}

impl House {
    fn new() -> Self {
        let random = SeededRandom::new(3);
        let (key, _) = SigningKey::generate(&random).unwrap();
        let (other, _) = SigningKey::generate(&random).unwrap();
        Self {
            public: VerifyingKey::from_jwk(&key.public_jwk()).unwrap(),
            key,
            other,
            issuer: Issuer {
                issuer: Arc::from("https://portico.example"),
                audience: Arc::from("urn:portico:0190a2b3-c4d5-7e8f-8a1b-2c3d4e5f6070"),
            },
        }
    }

    fn verify(&self, token: &str) -> Result<AccessClaims, Denied> {
        let find = |kid: &str| {
            if *kid == **self.key.kid() {
                Ok(&self.public)
            } else {
                Err(Denied("unknown_key"))
            }
        };
        access::verify(token, &self.issuer, find, NOW_S)
    }

    fn good(&self) -> String {
        mint(&self.key, &self.issuer, &claims())
            .unwrap()
            .expose()
            .clone()
    }

    fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": &**self.key.kid()})
    }

    fn payload(&self) -> Value {
        let token = self.good();
        let payload = URL_SAFE_NO_PAD
            .decode(token.split('.').nth(1).unwrap())
            .unwrap();
        serde_json::from_slice(&payload).unwrap()
    }

    /// A header and a payload as bytes, with our own good signature.
    fn signed(&self, header: &[u8], payload: &[u8]) -> String {
        let body = format!("{}.{}", b64(header), b64(payload));
        let signature = self.key.raw_signature(body.as_bytes());
        format!("{body}.{}", b64(&signature))
    }

    fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        change(&mut header);
        let payload = self.payload().to_string();
        self.signed(header.to_string().as_bytes(), payload.as_bytes())
    }

    fn with_payload(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut payload = self.payload();
        change(&mut payload);
        let header = self.header().to_string();
        self.signed(header.as_bytes(), payload.to_string().as_bytes())
    }

    /// The good token with another signature.
    fn with_signature(&self, signature: &str) -> String {
        let good = self.good();
        let (body, _) = good.rsplit_once('.').unwrap();
        format!("{body}.{signature}")
    }
}

fn claims() -> AccessClaims {
    let id = |n: u128| Uuid::from_u128(0x0190_a2b3_c4d5_7e8f_8a1b_2c3d_4e5f_6000 + n);
    AccessClaims {
        user: id(1),
        tenant: id(2),
        session: id(3),
        device: id(4),
        issued_s: NOW_S,
        expires_s: NOW_S + 1_800,
        id: id(5),
        tv: 1,
        te: 1,
        ge: 1,
        roles: vec!["user".to_owned()],
        scope: None,
        amr: vec!["pwd".to_owned()],
        aal: 1,
        auth_time_s: NOW_S,
        network: None,
        audiences: Vec::new(),
    }
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn b64_json(value: &Value) -> String {
    b64(value.to_string().as_bytes())
}

/// Attacks, each with the reason that it is refused for.
#[derive(Default)]
struct Table(Vec<(String, String, &'static str)>);

impl Table {
    fn add(&mut self, name: impl Into<String>, token: String, why: &'static str) {
        self.0.push((name.into(), token, why));
    }
}

#[test]
fn every_attack_is_refused_for_its_reason() {
    let house = House::new();
    assert_eq!(house.verify(&house.good()).unwrap(), claims());
    let mut table = Table::default();
    algorithms(&house, &mut table);
    signatures::add(&house, &mut table);
    key_ids(&house, &mut table);
    headers(&house, &mut table);
    kinds(&house, &mut table);
    claims::add(&house, &mut table);
    forms::add(&house, &mut table);
    assert!(table.0.len() > 100, "{} attacks", table.0.len());
    for (name, token, why) in table.0 {
        assert_eq!(
            house.verify(&token),
            Err(Denied(why)),
            "{name}: {token:.200}"
        );
    }
}

/// `none`, symmetric ones with the public key in every form that somebody could take it for, other families.
fn algorithms(house: &House, table: &mut Table) {
    let payload = b64_json(&house.payload());
    for none in ["none", "None", "NONE", "nOnE", "", "null"] {
        let mut header = house.header();
        header["alg"] = none.into();
        for signature in ["", "AA"] {
            let token = format!("{}.{payload}.{signature}", b64_json(&header));
            table.add(format!("alg {none}"), token, "algorithm");
        }
    }
    for alg in [
        "eddsa", "EDDSA", "Ed25519", "Ed448", "ES256", "ES512", "RS256", "PS256", "HS512",
    ] {
        table.add(
            alg,
            house.with_header(|h| h["alg"] = alg.into()),
            "algorithm",
        );
    }
    for (name, value) in [
        ("number", json!(1)),
        ("list", json!(["EdDSA"])),
        ("null", Value::Null),
    ] {
        table.add(
            format!("alg {name}"),
            house.with_header(|h| h["alg"] = value),
            "algorithm",
        );
    }
    let no_alg = house.with_header(|h| {
        h.as_object_mut().unwrap().remove("alg");
    });
    table.add("alg missing", no_alg, "algorithm");

    let jwk = house.key.public_jwk();
    let raw = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    let der = [
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ],
        raw.as_slice(),
    ]
    .concat();
    let pem = |end: &str| {
        let body = STANDARD.encode(&der);
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----{end}").into_bytes()
    };
    let keys = [
        ("raw bytes", raw.clone()),
        ("base64url", jwk["x"].as_str().unwrap().into()),
        ("DER", der.clone()),
        ("PEM", pem("\n")),
        ("PEM without its last line end", pem("")),
        ("JWK", jwk.to_string().into()),
        ("nothing", Vec::new()),
    ];
    for (name, key) in keys {
        let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": &**house.key.kid()});
        let body = format!("{}.{payload}", b64_json(&header));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let tag = hmac::sign(&key, body.as_bytes());
        let token = format!("{body}.{}", b64(tag.as_ref()));
        table.add(
            format!("HS256 with the public key as {name}"),
            token,
            "algorithm",
        );
        // The same bytes under the right name.
        let body = format!("{}.{payload}", b64_json(&house.header()));
        let tag = hmac::sign(&key, body.as_bytes());
        let token = format!("{body}.{}", b64(tag.as_ref()));
        table.add(
            format!("a MAC as signature, key as {name}"),
            token,
            "signature",
        );
    }
}

fn key_ids(house: &House, table: &mut Table) {
    let long = "a".repeat(1_000_000);
    for kid in [
        "unknown",
        "",
        "../../dev/null",
        "/dev/null",
        "' OR 1=1 --",
        "x' UNION SELECT 'AAAA",
        "| id",
        "\0",
    ] {
        table.add(
            format!("kid {kid:?}"),
            house.with_header(|h| h["kid"] = kid.into()),
            "unknown_key",
        );
    }
    let upper = house.key.kid().to_ascii_uppercase();
    table.add(
        "kid in capitals",
        house.with_header(|h| h["kid"] = upper.into()),
        "unknown_key",
    );
    let longer = format!("{} ", house.key.kid());
    table.add(
        "kid and a space",
        house.with_header(|h| h["kid"] = longer.into()),
        "unknown_key",
    );
    table.add(
        "kid of 1 MB",
        house.with_header(|h| h["kid"] = long.into()),
        "too_long",
    );
    for kid in [
        json!(1),
        json!([&**house.key.kid()]),
        json!({}),
        Value::Null,
        json!(true),
    ] {
        table.add(
            format!("kid {kid}"),
            house.with_header(|h| h["kid"] = kid),
            "kid",
        );
    }
    let missing = house.with_header(|h| {
        h.as_object_mut().unwrap().remove("kid");
    });
    table.add("kid missing", missing, "unknown_key");
    let twice = format!(
        r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"x","kid":"{}"}}"#,
        house.key.kid()
    );
    let twice = house.signed(twice.as_bytes(), house.payload().to_string().as_bytes());
    table.add("kid twice", twice, "json");
    // A stranger's key that calls itself ours.
    let body = format!(
        "{}.{}",
        b64_json(&house.header()),
        b64_json(&house.payload())
    );
    let forged = format!(
        "{body}.{}",
        b64(&house.other.raw_signature(body.as_bytes()))
    );
    table.add("our kid, a stranger's key", forged, "signature");
    let rotated_out = mint(&house.other, &house.issuer, &claims()).unwrap();
    table.add(
        "a key that was rotated out",
        rotated_out.expose().clone(),
        "unknown_key",
    );
}

/// Headers that would bring their own key, or change what is read.
fn headers(house: &House, table: &mut Table) {
    let evil = house.other.public_jwk();
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("jwk", evil.clone()),
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A256GCM")),
        ("p2c", json!(2_000_000_000)),
        ("other", json!(1)),
    ] {
        table.add(name, house.with_header(|h| h[name] = value), "header");
    }
    // Signed by the key that the header brings.
    let mut header = house.header();
    header["jwk"] = evil;
    let body = format!("{}.{}", b64_json(&header), b64_json(&house.payload()));
    let token = format!(
        "{body}.{}",
        b64(&house.other.raw_signature(body.as_bytes()))
    );
    table.add("its own jwk", token, "header");
}

fn kinds(house: &House, table: &mut Table) {
    for typ in [
        "JWT",
        "jwt",
        "id+jwt",
        "logout+jwt",
        "pi+jwt",
        "refresh+jwt",
        "at+JWT",
        "AT+JWT",
        "application/at+jwt",
        "at+jwt ",
        "",
    ] {
        table.add(
            format!("typ {typ:?}"),
            house.with_header(|h| h["typ"] = typ.into()),
            "kind",
        );
    }
    let missing = house.with_header(|h| {
        h.as_object_mut().unwrap().remove("typ");
    });
    table.add("typ missing", missing, "kind");
    table.add(
        "typ list",
        house.with_header(|h| h["typ"] = json!(["at+jwt"])),
        "kind",
    );
    let statement = house.key.sign(Kind::Statement, &house.payload()).unwrap();
    table.add("a statement", statement.expose().clone(), "kind");
    let nested = house.signed(
        house.header().to_string().as_bytes(),
        house.good().as_bytes(),
    );
    table.add("a token within a token", nested, "json");
    let refresh = "ptr_AQGQorPE1X6PihssPU5fYHEAAAAHvxRcY6UTPKuzxURT0U1LV2gV_p0";
    table.add("a refresh token", refresh.to_owned(), "not_three_parts");
}
