//! Tokens good and bad: the attack list of the identity facts (§7), and what a worker remembers.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::HeaderValue;
use portico_base::id::TENANT_DEFAULT;
use portico_contract::credentials::CredentialSource;
use portico_token::jwks;
use serde_json::{Value, json};

use super::jwt::{Expected, JwtVerifier};
use super::source::KeysUnavailable;
use super::*;

const NOW: i64 = 1_800_000_000;
const FAR: Origin = Origin {
    address: None,
    direct_loopback: false,
    https: false,
};

struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    verifier: Arc<JwtVerifier>,
}

impl Issuer {
    fn new() -> Self {
        let ed = Ed25519KeyPair::generate().unwrap();
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let expected = Expected {
            issuer: Some("https://id.example".into()),
            audience: Some("portico".into()),
            tenant_claim: "tid".into(),
            roles_claim: "realm.roles".into(),
        };
        let keys = jwks(&ed, &ec, &rsa);
        let verifier = Arc::new(JwtVerifier::new(
            expected,
            KeySet::parse(keys.to_string().as_bytes()).unwrap(),
        ));
        Self {
            ed,
            ec,
            rsa,
            verifier,
        }
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", B64.encode(header), B64.encode(payload));
        let header: Value = serde_json::from_str(header).unwrap_or_default();
        let random = SystemRandom::new();
        let mut rsa = vec![0; self.rsa.public_modulus_len()];
        let signature = match header["alg"].as_str().unwrap_or("") {
            "ES256" => self
                .ec
                .sign(&random, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
            "RS256" => {
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut rsa)
                    .unwrap();
                rsa
            }
            "RS512" => {
                self.rsa
                    .sign(&RSA_PKCS1_SHA512, &random, signed.as_bytes(), &mut rsa)
                    .unwrap();
                rsa
            }
            _ => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", B64.encode(signature))
    }

    fn token(&self, kid: &str, alg: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.sign(
            &json!({"alg": alg, "kid": kid, "typ": "at+jwt"}).to_string(),
            &claims.to_string(),
        )
    }

    fn good(&self) -> String {
        self.token("ed", "EdDSA", |_| {})
    }

    fn why(&self, token: &str) -> Option<&'static str> {
        self.verifier.verify(token, NOW).err().map(|d| d.0)
    }
}

fn jwks(ed: &Ed25519KeyPair, ec: &EcdsaKeyPair, rsa: &RsaKeyPair) -> Value {
    let point = ec.public_key().as_ref();
    let components = rsa.public_key();
    let (n, e) = (
        components.modulus().big_endian_without_leading_zero(),
        components.exponent().big_endian_without_leading_zero(),
    );
    json!({"keys": [
        {"kid": "ed", "kty": "OKP", "crv": "Ed25519", "x": B64.encode(ed.public_key().as_ref())},
        {"kid": "ec", "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..])},
        {"kid": "rsa", "kty": "RSA", "n": B64.encode(n), "e": B64.encode(e)},
        {"kid": "hmac", "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"kid": "enc", "kty": "RSA", "use": "enc", "n": B64.encode(n), "e": B64.encode(e)},
    ]})
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": ["other", "portico"], "sub": "ann@example.com", "exp": NOW + 600, "iat": NOW - 5, "nbf": NOW,
        "tid": "acme", "sid": "s-1", "aal": 2, "scope": "notes:note:write gateway:route:write *:*:*", "plan": "free",
        "realm": {"roles": ["editor", "super_admin", "tenant_admin", "a,b"]}
    })
}

#[test]
fn good_tokens_become_principals_without_the_houses_own_rights() {
    let issuer = Issuer::new();
    for (kid, alg) in [("ed", "EdDSA"), ("ec", "ES256"), ("rsa", "RS256")] {
        let verified = issuer
            .verifier
            .verify(&issuer.token(kid, alg, |_| {}), NOW)
            .unwrap_or_else(|e| panic!("{alg}: {e:?}"));
        let principal = &verified.principal;
        assert_eq!(
            (
                &*principal.subject,
                principal.session.as_deref(),
                principal.aal
            ),
            ("ann@example.com", Some("s-1"), 2)
        );
        assert_eq!(
            principal.roles[..],
            ["editor"],
            "built-in roles of a foreign issuer are ignored"
        );
        assert!(principal.may(&portico_base::Permission::new("notes:note:write")));
        assert!(!principal.may(&portico_base::Permission::new("gateway:route:write")));
        assert_eq!(
            (verified.tenant_name.as_deref(), verified.expires_s),
            (Some("acme"), NOW + 600)
        );
        assert!(
            principal.tenant != TENANT_DEFAULT
                && verified
                    .claims
                    .iter()
                    .any(|(n, v)| (&**n, &**v) == ("plan", "free"))
        );
    }
    let plain = issuer
        .verifier
        .verify(
            &issuer.token("ed", "EdDSA", |c| {
                c.as_object_mut().unwrap().remove("tid");
            }),
            NOW,
        )
        .unwrap();
    assert_eq!(plain.principal.tenant, TENANT_DEFAULT);
}

#[test]
fn algorithms_come_from_the_key() {
    let issuer = Issuer::new();
    let claims = claims().to_string();
    for alg in [
        "none", "None", "NONE", "nOnE", "HS256", "RS512", "PS256", "ES256", "EdDsa", "",
    ] {
        for kid in ["ed", "rsa"] {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            assert!(
                issuer.why(&issuer.sign(&header, &claims)).is_some(),
                "{alg} with {kid}"
            );
        }
    }
    // The public key as the secret of an HMAC.
    let header = json!({"alg": "HS256", "kid": "ed"}).to_string();
    let signed = format!("{}.{}", B64.encode(header), B64.encode(&claims));
    for secret in [
        issuer.ed.public_key().as_ref(),
        B64.encode(issuer.ed.public_key().as_ref()).as_bytes(),
    ] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        assert_eq!(
            issuer.why(&format!("{signed}.{}", B64.encode(tag.as_ref()))),
            Some("algorithm")
        );
    }
    assert_eq!(
        issuer.why(&issuer.token("hmac", "HS256", |_| {})),
        Some("unknown_key"),
        "symmetric keys are not taken"
    );
    assert_eq!(
        issuer.why(&issuer.token("enc", "RS256", |_| {})),
        Some("unknown_key"),
        "keys for encryption are not taken"
    );
}

#[test]
fn signatures_are_exact() {
    let issuer = Issuer::new();
    let good = issuer.token("ec", "ES256", |_| {});
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = B64.decode(signature).unwrap();
    let order =
        hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let with = |bytes: &[u8]| format!("{signed}.{}", B64.encode(bytes));
    for bad in [
        with(&[]),
        with(&bytes[..63]),
        with(&[&bytes[..], &[0]].concat()),
        with(&[0; 64]),
        with(&[&[0; 32], &bytes[32..]].concat()),
        with(&[&bytes[..32], &[0; 32]].concat()),
        with(&[&order[..], &bytes[32..]].concat()),
        with(&[&bytes[..32], &order[..]].concat()),
        format!("{good}="),
        format!("{good} "),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{good}."),
        format!("{good}.x"),
        signed.to_owned(),
        signed.split('.').next().unwrap().to_owned(),
        String::new(),
        "..".into(),
        "...".into(),
        format!(
            "{signed}.{}",
            signature.replace('-', "+").replace('_', "/") + "+"
        ),
    ] {
        assert!(issuer.why(&bad).is_some(), "{bad}");
    }
    // The last letter of a signature of 64 bytes carries four unused bits: they must be zero.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let other = alphabet
        .chars()
        .nth(alphabet.find(last).unwrap() + 1)
        .unwrap();
    assert_eq!(
        issuer.why(&format!("{}{other}", &good[..good.len() - 1])),
        Some("base64")
    );
}

#[test]
fn headers_that_choose_keys_or_change_meaning_are_refused() {
    let issuer = Issuer::new();
    let claims = claims().to_string();
    for (name, value) in [
        ("jku", json!("https://evil.test")),
        ("x5u", json!("https://evil.test")),
        ("jwk", json!({})),
        ("x5c", json!([])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("typ", json!("id+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("jwt ")),
        ("typ", json!(1)),
        ("kid", json!("../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("x".repeat(100_000))),
        ("kid", json!(7)),
        ("kid", json!(null)),
        ("kid", json!("ED")),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed"});
        header[name] = value.clone();
        assert!(
            issuer
                .why(&issuer.sign(&header.to_string(), &claims))
                .is_some(),
            "{name} {value}"
        );
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"ed","kid":"ed"}"#,
        r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#,
        r#"["EdDSA"]"#,
        r#"{"alg":"EdDSA","kid":"ed"} x"#,
        "\u{feff}{\"alg\":\"EdDSA\",\"kid\":\"ed\"}",
        "{\"alg\":\"EdDSA\",\"kid\":\"e\u{0}d\"}",
        r#"{"alg":"EdDSA"}"#,
    ] {
        assert!(
            issuer.why(&issuer.sign(header, &claims)).is_some(),
            "{header}"
        );
    }
}

#[test]
fn claims_are_read_in_one_way_only() {
    let issuer = Issuer::new();
    for (name, value) in [
        ("aud", json!("other")),
        ("aud", json!(["a", "b"])),
        ("aud", json!(null)),
        ("aud", json!({"portico": 1})),
        ("iss", json!("https://id.example/")),
        ("iss", json!("https://id.example.evil.test")),
        ("iss", json!(null)),
        ("exp", json!(NOW)),
        ("exp", json!(NOW - 1)),
        ("exp", json!(1.8e9 + 900.5)),
        ("exp", json!("1800000600")),
        ("exp", json!(9_223_372_036_854_775_807_i64)),
        ("exp", json!(9_300_000_000_000_000_000_u64)),
        ("exp", json!(-1)),
        ("exp", json!(null)),
        ("nbf", json!(NOW + 61)),
        ("iat", json!(NOW + 61)),
        ("nbf", json!("now")),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("sub", json!(7)),
        ("sub", json!("x".repeat(300))),
        ("tid", json!("system")),
        ("tid", json!("00000000-0000-7000-8000-000000000001")),
        ("tid", json!(["a"])),
        ("tid", json!("a b")),
    ] {
        assert!(
            issuer
                .why(&issuer.token("ed", "EdDSA", |c| c[name] = value.clone()))
                .is_some(),
            "{name} {value}"
        );
    }
    assert_eq!(
        issuer.why(&issuer.token("ed", "EdDSA", |c| {
            c["nbf"] = json!(NOW + 60);
            c["iat"] = json!(NOW + 60);
        })),
        None,
        "60 s of skew"
    );
    let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    assert_eq!(
        issuer.why(&issuer.sign(header, &twice)),
        Some("json"),
        "a claim that is there twice"
    );
    let nested = claims()
        .to_string()
        .replacen("\"roles\":", "\"roles\":[\"x\"],\"roles\":", 1);
    assert_eq!(issuer.why(&issuer.sign(header, &nested)), Some("json"));
    assert!(
        issuer.why(&issuer.sign(header, &issuer.good())).is_some(),
        "a token inside a token"
    );
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(50), "]".repeat(50));
    assert_eq!(issuer.why(&issuer.sign(header, &deep)), Some("json"));
    assert_eq!(
        issuer.why(&issuer.token("ed", "EdDSA", |c| c["x"] = json!("y".repeat(9_000)))),
        Some("too_long")
    );
    assert!(
        issuer
            .why(&json!({"payload": "x", "signatures": []}).to_string())
            .is_some()
    );
}

#[test]
fn tokens_are_remembered_until_they_end_or_keys_change() {
    let issuer = Issuer::new();
    let identifier = Identifier::new(Credentials::default(), Some(issuer.verifier.clone()), None);
    let token = issuer.good();
    let at = |now| identifier.signed(&token, FAR, now);
    let first = at(NOW).unwrap();
    assert!(Rc::ptr_eq(&first, &at(NOW + 1).unwrap()));
    assert_eq!(
        at(NOW + 600).unwrap_err(),
        BadCredential::from(Denied::EXPIRED),
        "remembered, but never past its end"
    );
    let next = Issuer::new();
    issuer.verifier.set_keys(
        KeySet::parse(jwks(&next.ed, &next.ec, &next.rsa).to_string().as_bytes()).unwrap(),
    );
    assert_eq!(
        at(NOW).unwrap_err(),
        BadCredential::from(Denied("signature")),
        "its key was rotated out"
    );
    let many = Issuer::new();
    let identifier = Identifier::new(Credentials::default(), Some(many.verifier.clone()), None);
    for i in 0..5_000 {
        identifier
            .signed(
                &many.token("ed", "EdDSA", |c| c["jti"] = json!(i)),
                FAR,
                NOW,
            )
            .unwrap();
    }
    assert!(identifier.remembered.len() <= 4_096);
}

struct Opaque(&'static str, Arc<Principal>);

impl CredentialSource for Opaque {
    fn prefix(&self) -> &'static str {
        self.0
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        (token.len() == 8).then(|| Arc::clone(&self.1))
    }
}

#[test]
fn opaque_tokens_are_told_by_their_prefix_and_the_operators_only_locally() {
    let credentials = Credentials::default();
    credentials.add(Arc::new(Opaque("pop_", Arc::new(Principal::operator()))));
    let key = Principal::new(PrincipalKind::ApiKey, "k1", TENANT_DEFAULT);
    credentials.add(Arc::new(Opaque("ptk_", Arc::new(key))));
    let identifier = Identifier::new(credentials, None, None);
    let with = |lines: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    };
    let who = |lines: &[(&'static str, &'static str)], local| {
        identifier
            .identify(
                &with(lines),
                Origin {
                    address: None,
                    direct_loopback: local,
                    https: false,
                },
                NOW,
                false,
            )
            .map(|shown| shown.identity.principal.kind)
            .map_err(drop)
    };
    assert_eq!(
        who(&[("authorization", "Bearer pop_1234")], true),
        Ok(PrincipalKind::Operator)
    );
    assert!(
        who(&[("authorization", "Bearer pop_1234")], false).is_err(),
        "not through a proxy or from afar"
    );
    assert_eq!(
        who(&[("authorization", "bearer ptk_1234")], false),
        Ok(PrincipalKind::ApiKey)
    );
    assert_eq!(
        who(&[("x-api-key", "ptk_1234")], false),
        Ok(PrincipalKind::ApiKey)
    );
    assert!(who(&[("authorization", "Bearer ptk_12345")], false).is_err());
    assert!(who(&[("authorization", "Bearer ")], false).is_err());
    assert!(
        who(&[("authorization", "Bearer a.b.c")], false).is_err(),
        "nobody verifies such tokens here"
    );
    assert!(
        who(
            &[
                ("authorization", "Bearer ptk_1234"),
                ("authorization", "Bearer ptk_1234")
            ],
            false
        )
        .is_err()
    );
    assert_eq!(
        who(&[("authorization", "Basic YTpi")], false),
        Ok(PrincipalKind::Anonymous)
    );
    assert_eq!(who(&[], false), Ok(PrincipalKind::Anonymous));
}

#[test]
fn documents_of_keys_are_read_carefully() {
    assert_eq!(KeySet::parse(b"[]").err(), Some(jwks::BadKeys::Form));
    assert_eq!(
        KeySet::parse(br#"{"keys":[{"kty":"oct","k":"YQ"}]}"#).err(),
        Some(jwks::BadKeys::Empty)
    );
    let one = json!({"kty": "OKP", "crv": "Ed25519", "x": B64.encode([7; 32])});
    let many = json!({"keys": vec![one; 101]});
    assert_eq!(
        KeySet::parse(many.to_string().as_bytes()).err(),
        Some(jwks::BadKeys::TooMany)
    );
    // The key and thumbprint of RFC 8037, appendix A.
    let known = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]});
    let keys = KeySet::parse(known.to_string().as_bytes()).unwrap();
    assert!(
        keys.find(Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"))
            .is_some()
    );
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes_and_kept_when_it_is_gone() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let write = |issuer: &Issuer| {
        std::fs::write(&path, jwks(&issuer.ed, &issuer.ec, &issuer.rsa).to_string()).unwrap()
    };
    write(&first);
    let verifier = Arc::new(JwtVerifier::new(
        Expected {
            tenant_claim: "tid".into(),
            ..Expected::default()
        },
        source::read_file(&path).unwrap(),
    ));
    let stop = tokio_util::sync::CancellationToken::new();
    let following = tokio::spawn(source::follow(
        source::KeySource::File(path.clone()),
        Arc::clone(&verifier),
        stop.clone(),
    ));
    assert!(
        verifier.verify(&first.good(), NOW).is_ok()
            && verifier.verify(&second.good(), NOW).is_err()
    );
    let began = std::time::Instant::now();
    // Another length, so that the change shows whatever the file system's clock does.
    write(&second);
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + " ").unwrap();
    while verifier.verify(&second.good(), NOW).is_err() {
        assert!(
            began.elapsed().as_secs() < 20,
            "the new keys were never read"
        );
        tokio::task::yield_now().await;
    }
    assert!(verifier.verify(&first.good(), NOW).is_err());
    std::fs::remove_file(&path).unwrap();
    assert!(verifier.verify(&second.good(), NOW).is_ok());
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn keys_come_from_an_address_only_over_https_or_from_this_machine() {
    let issuer = Issuer::new();
    let document = jwks(&issuer.ed, &issuer.ec, &issuer.rsa).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let large = "x".repeat(300 * 1024);
    let router = axum::Router::new()
        .route("/jwks", axum::routing::get(move || async move { document }))
        .route("/large", axum::routing::get(move || async move { large }))
        .route(
            "/moved",
            axum::routing::get(|| async { axum::response::Redirect::to("/jwks") }),
        );
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let fetch = |url: String| {
        let client = client.clone();
        async move { source::fetch(&client, &url.parse().unwrap()).await }
    };
    let keys = fetch(format!("http://127.0.0.1:{port}/jwks"))
        .await
        .unwrap();
    assert!(keys.find(Some("ed")).is_some());
    assert!(matches!(
        fetch(format!("http://127.0.0.1:{port}/large")).await,
        Err(KeysUnavailable::TooLarge)
    ));
    assert!(matches!(
        fetch(format!("http://127.0.0.1:{port}/none")).await,
        Err(KeysUnavailable::Fetch(_))
    ));
    assert!(
        matches!(
            fetch(format!("http://127.0.0.1:{port}/moved")).await,
            Err(KeysUnavailable::Bad(_))
        ),
        "redirects are not followed"
    );
    assert!(matches!(
        fetch("http://192.0.2.1/jwks".to_owned()).await,
        Err(KeysUnavailable::NotAllowed)
    ));
    server.abort();
}
