//! The golden values that all SDKs and the gateway share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico_sdk::{
    Identity, Refused, Secret, Values, Verifier, sign, signature_base, signed_headers,
};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../sdk/golden/signature.json")).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn identity(case: &Value) -> Identity {
    let who = &case["identity"];
    let word = |name: &str| Some(text(who, name).to_owned()).filter(|w| !w.is_empty());
    let words = |name: &str| {
        list(who, name)
            .iter()
            .map(|w| w.as_str().unwrap().to_owned())
            .collect()
    };
    Identity {
        user: word("user"),
        tenant: word("tenant"),
        session: word("session"),
        roles: words("roles"),
        scopes: words("scopes"),
        aal: text(who, "aal").parse().unwrap_or(0),
        request_id: text(who, "request_id").to_owned(),
        deadline: None,
    }
}

#[test]
fn base_and_signature() {
    for case in list(&golden(), "cases") {
        let given = &case["values"];
        let values = Values {
            user: text(given, "user"),
            tenant: text(given, "tenant"),
            session: text(given, "session"),
            roles: text(given, "roles"),
            scopes: text(given, "scopes"),
            aal: text(given, "aal"),
            request_id: text(given, "request-id"),
        };
        let base = signature_base(
            case["timestamp_ms"].as_u64().unwrap(),
            text(case, "method"),
            text(case, "target"),
            &values,
        );
        assert_eq!(base, text(case, "base"));
        assert_eq!(sign(text(case, "secret"), &base), text(case, "signature"));
    }
}

#[test]
fn headers_and_identity() {
    for case in list(&golden(), "cases") {
        let stamp = case["timestamp_ms"].as_u64().unwrap();
        let (method, target, secret) = (
            text(case, "method"),
            text(case, "target"),
            text(case, "secret"),
        );
        let mut who = identity(case);
        let headers = signed_headers(&who, secret, method, target, stamp);
        assert_eq!(headers["x-portico-signature"], text(case, "signature"));
        let verifier = Verifier::new([Secret::from(secret)]);
        let method: Method = method.parse().unwrap();
        who.roles.sort();
        who.scopes.sort();
        assert_eq!(
            verifier.verify(&method, target, &headers, at(stamp)),
            Ok(who),
            "{}",
            text(case, "name")
        );
    }
}

#[test]
fn conversations() {
    for talk in list(&golden(), "verify") {
        let secrets: Vec<Secret> = list(talk, "secrets")
            .iter()
            .map(|s| s.as_str().unwrap().into())
            .collect();
        let verifier = Verifier::new(secrets);
        for request in list(talk, "requests") {
            let mut headers = HeaderMap::new();
            for pair in list(request, "headers") {
                let name: HeaderName = pair[0].as_str().unwrap().parse().unwrap();
                headers.append(
                    name,
                    HeaderValue::from_str(pair[1].as_str().unwrap()).unwrap(),
                );
            }
            let method: Method = text(request, "method").parse().unwrap();
            let now = at(request["now_ms"].as_u64().unwrap());
            let got = verifier.verify(&method, text(request, "target"), &headers, now);
            let got = got.map_or_else(|refused| refused.to_string(), |_| "ok".to_owned());
            assert_eq!(got, text(request, "expect"), "{}", text(talk, "name"));
        }
    }
}

#[test]
fn without_a_secret_nothing_passes() {
    let headers = signed_headers(&Identity::default(), "", "GET", "/", 1_000);
    for verifier in [Verifier::new([]), Verifier::new([Secret::from("")])] {
        assert_eq!(
            verifier.verify(&Method::GET, "/", &headers, at(1_000)),
            Err(Refused::Mismatch)
        );
        assert!(verifier.newest().is_none());
    }
}

#[test]
fn rotation_keeps_one_secret_before() {
    let verifier = Verifier::new([Secret::from("pis_1")]);
    let passes = |secret: &str| {
        let headers = signed_headers(&Identity::default(), secret, "GET", "/", 1_000);
        verifier
            .verify(&Method::GET, "/", &headers, at(1_000))
            .is_ok()
    };
    verifier.rotate("pis_2".into());
    verifier.rotate("pis_2".into());
    verifier.rotate("".into());
    assert!(passes("pis_1") && passes("pis_2"));
    verifier.rotate("pis_3".into());
    assert!(!passes("pis_1") && passes("pis_2") && passes("pis_3"));
    assert_eq!(verifier.newest().unwrap().expose(), "pis_3");
    assert!(!format!("{verifier:?}").contains("pis_"));
}

#[test]
fn one_of_many_threads_wins() {
    let verifier = Verifier::with_memory([Secret::from("pis_1")], 10);
    let headers = signed_headers(&Identity::default(), "pis_1", "POST", "/", 1_000);
    let won = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    verifier
                        .verify(&Method::POST, "/", &headers, at(1_000))
                        .is_ok()
                })
            })
            .collect();
        runs.into_iter()
            .map(|run| run.join().unwrap())
            .filter(|won| *won)
            .count()
    });
    assert_eq!(won, 1);
}
