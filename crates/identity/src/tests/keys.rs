//! Signing keys through their life: first start, rotation under traffic, emergency, the documents about them (ID-92…94).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::body::Body;
use portico_base::{Principal, id};
use portico_contract::tokens::{Denied, TokenVerifier as _};
use portico_db::testing::{TestDb, each_backend};
use portico_token::AccessClaims;
use serde_json::{Value, json};
use tower_service::Service as _;

use super::edge::{ask, claims, new_id, token};
use super::rig::{Rig, faults, read};
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::http::well_known;
use crate::ops::keys;
use crate::store::keys::{KeyState, SigningKeyRow};
use crate::{migrations, store};

async fn rows(rig: &Rig) -> Vec<SigningKeyRow> {
    store::keys::all(rig.core.db.reader()).await.unwrap()
}

async fn kid(rig: &Rig, state: KeyState) -> String {
    let rows = rows(rig).await;
    let mut found = rows.into_iter().filter(|r| r.state == state);
    let kid = found.next().unwrap().kid;
    assert_eq!(found.next(), None, "one {}", state.as_str());
    kid
}

async fn document(rig: &Rig, path: &str) -> (::http::HeaderMap, Value) {
    let request = ::http::Request::get(path).body(Body::empty()).unwrap();
    let answer = well_known::routes(Arc::clone(&rig.core))
        .call(request)
        .await
        .unwrap_or_else(|never| match never {});
    let headers = answer.headers().clone();
    let (status, body) = read(answer).await;
    assert_eq!(status, 200, "{path}");
    (headers, body)
}

async fn published(rig: &Rig) -> BTreeSet<String> {
    let (_, jwks) = document(rig, "/.well-known/jwks.json").await;
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|k| k["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn of_many_first_starts_one_makes_the_keys() {
    each_backend(async |db: &TestDb| {
        db.db
            .migrate(&[("identity", migrations::all())])
            .await
            .unwrap();
        let master = portico_base::envelope::MasterKeys::new("mk1", [7; 32]);
        let mut starting = Vec::new();
        for _ in 0..6 {
            let (db, master, clock) = (db.another().await, master.clone(), db.clock.clone());
            starting.push(tokio::spawn(async move {
                keys::prepare(&db, &master, &clock, &portico_base::SystemRandom).await
            }));
        }
        let mut installations = BTreeSet::new();
        for start in starting {
            installations.insert(start.await.unwrap().unwrap());
        }
        assert_eq!(installations.len(), 1);
        let rows = store::keys::all(db.db.reader()).await.unwrap();
        let mut states: Vec<_> = rows.iter().map(|r| r.state.as_str()).collect();
        states.sort_unstable();
        assert_eq!(states, ["active", "next"]);
        for row in &rows {
            // Only the master key opens the private half, and only in its own row.
            assert!(row.private.starts_with("penc_"));
            let place = crate::edge::place(&row.kid);
            assert_eq!(master.open(place, &row.private).unwrap().expose().len(), 32);
            assert!(
                master
                    .open(crate::edge::place("other"), &row.private)
                    .is_err()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_is_published_for_ten_minutes_before_it_signs() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let admin = Principal {
            fresh_until_s: i64::MAX,
            ..rig.super_admin().await
        };
        let (first, next) = (
            kid(&rig, KeyState::Active).await,
            kid(&rig, KeyState::Next).await,
        );
        assert_eq!(published(&rig).await, [first.clone(), next.clone()].into());
        rig.advance(599);
        let (status, problem) = rig.post(&admin, "/keys/rotate", json!({})).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("identity.key_not_ready"))
        );
        rig.audit.take();
        rig.advance(1);
        let (status, keys) = rig.post(&admin, "/keys/rotate", json!({})).await;
        assert_eq!(status, 200, "{keys}");
        assert_eq!(rig.audit.take(), ["identity.key.rotated"]);
        assert_eq!(kid(&rig, KeyState::Active).await, next);
        assert_eq!(kid(&rig, KeyState::Retired).await, first);
        assert_eq!(published(&rig).await.len(), 3);
        // The private half of a key that never signs again is gone.
        let retired = rows(&rig)
            .await
            .into_iter()
            .find(|r| r.kid == first)
            .unwrap();
        assert_eq!(retired.private, "");
        assert!(!keys.to_string().contains("penc_"));
        // And again at once: the new next is too young.
        assert_eq!(rig.post(&admin, "/keys/rotate", json!({})).await.0, 409);
    })
    .await;
}

/// Tokens are minted and verified on two replicas while keys change under them: no good token is ever refused.
#[tokio::test]
async fn rotation_during_traffic_loses_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let user = rig.user("user").await;
        let admin = rig.super_admin().await;
        let mut kids = BTreeSet::new();
        for round in 0..4 {
            let mut minted = Vec::new();
            for minter in [&rig, &other] {
                minted.push(token(minter, &claims(minter, &user, new_id(&rig))));
            }
            let rotate = async {
                rig.advance(601);
                keys::rotate(&rig.core, &rig.cx(&admin)).await.unwrap();
            };
            let traffic = async {
                for _ in 0..50 {
                    for minter in [&rig, &other] {
                        let token = token(minter, &claims(minter, &user, new_id(&rig)));
                        assert!(ask(&rig, &token).is_ok() && ask(&other, &token).is_ok());
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::join!(rotate, traffic);
            // The other replica has not heard: it signs with the retired key, which everybody still takes,
            // and knows the new one since it was published.
            let late = token(&other, &claims(&other, &user, new_id(&rig)));
            let new = token(&rig, &claims(&rig, &user, new_id(&rig)));
            for token in minted.iter().chain([&late, &new]) {
                assert!(ask(&rig, token).is_ok(), "round {round}");
                assert!(ask(&other, token).is_ok(), "round {round}");
            }
            other.core.edge.catch_up().await;
            assert!(ask(&other, &new).is_ok());
            kids.insert(kid(&rig, KeyState::Active).await);
        }
        assert_eq!(kids.len(), 4);
    })
    .await;
}

/// ID-93: all tokens die everywhere, sessions live on.
#[tokio::test]
async fn an_emergency_drops_every_key_and_token() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let other = rig.another(db).await;
        let user = rig.user("user").await;
        let admin = rig.super_admin().await;
        let old = token(&rig, &claims(&rig, &user, new_id(&rig)));
        let before = published(&rig).await;
        let ge = rig.core.edge.ge();
        rig.audit.take();
        let wish = json!({"emergency": true, "reason": "a laptop was stolen"});
        let (status, answer) = rig.post(&admin, "/keys/rotate", wish).await;
        assert_eq!(status, 200, "{answer}");
        let records = rig.audit.all();
        assert_eq!(records[0].reason.as_deref(), Some("a laptop was stolen"));
        assert_eq!(rig.audit.take(), ["identity.key.dropped"]);
        assert_eq!(rig.core.edge.ge(), ge + 1);
        assert_eq!(ask(&rig, &old).unwrap_err(), Denied::STALE);
        assert!(published(&rig).await.is_disjoint(&before));
        // A replica that has not heard signs with the dropped key: nobody who has takes that.
        let late = token(&other, &claims(&other, &user, new_id(&rig)));
        assert_eq!(ask(&rig, &late).unwrap_err(), Denied::STALE);
        other.core.edge.catch_up().await;
        assert_eq!(ask(&other, &late).unwrap_err(), Denied::STALE);
        assert_eq!(ask(&other, &old).unwrap_err(), Denied::STALE);
        let new = token(&other, &claims(&other, &user, new_id(&rig)));
        assert!(ask(&rig, &new).is_ok());
        assert!(
            rows(&rig)
                .await
                .iter()
                .filter(|r| r.state == KeyState::Dropped)
                .all(|r| r.private.is_empty())
        );
        // A token of the dropped key stays refused after a restart, and once the row is gone.
        let restarted = rig.another(db).await;
        assert_eq!(ask(&restarted, &old).unwrap_err(), Denied::STALE);
    })
    .await;
}

async fn add_session(rig: &Rig, user: &User) {
    let now = rig.core.clock.now();
    let session = Session {
        id: new_id(rig),
        tenant: user.tenant,
        user: user.id,
        device: new_id(rig),
        method: "password".to_owned(),
        amr: vec!["pwd".to_owned()],
        aal: 1,
        auth_time: now,
        ip: None,
        user_agent: None,
        cookie: false,
        rt_kid: "mk1".to_owned(),
        rt_counter: 0,
        rt_rotated_at: now,
        rt_retried: 0,
        idle_expires_at: now + chrono::Duration::days(7),
        abs_expires_at: now + chrono::Duration::days(90),
        created_at: now,
        last_active_at: now,
        revoked_at: None,
        revoke_reason: None,
    };
    let tx = rig.core.db.begin().await.unwrap();
    store::sessions::insert(&tx, &session).await.unwrap();
    tx.commit().await.unwrap();
}

async fn live_sessions(rig: &Rig) -> i64 {
    store::sessions::count_live(rig.core.db.reader(), rig.core.clock.now())
        .await
        .unwrap()
}

/// ID-94: the installation-wide log-out ends sessions as well; an emergency only when it is asked to.
#[tokio::test]
async fn raising_the_epoch_logs_everybody_out() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let admin = rig.super_admin().await;
        let user = rig.user("user").await;
        add_session(&rig, &user).await;
        let wish = json!({"emergency": true});
        assert_eq!(rig.post(&admin, "/keys/rotate", wish).await.0, 200);
        assert_eq!(live_sessions(&rig).await, 1);
        let token = token(&rig, &claims(&rig, &user, new_id(&rig)));
        let (status, answer) = rig
            .post(&admin, "/epoch/raise", json!({"reason": "drill"}))
            .await;
        assert_eq!((status, &answer["ge"]), (200, &json!(rig.core.edge.ge())));
        assert_eq!(ask(&rig, &token).unwrap_err(), Denied::STALE);
        assert_eq!(live_sessions(&rig).await, 0);
        add_session(&rig, &user).await;
        let wish = json!({"emergency": true, "end_sessions": true});
        assert_eq!(rig.post(&admin, "/keys/rotate", wish).await.0, 200);
        assert_eq!(live_sessions(&rig).await, 0);
    })
    .await;
}

/// The calendar: monthly, prepared ahead, and cleaned up when the last token is over.
#[tokio::test]
async fn the_calendar_rotates_and_forgets() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let first = kid(&rig, KeyState::Active).await;
        keys::keep(&rig.core).await.unwrap();
        rig.advance(30 * 86_400 - 1);
        keys::keep(&rig.core).await.unwrap();
        assert_eq!(kid(&rig, KeyState::Active).await, first);
        rig.advance(1);
        keys::keep(&rig.core).await.unwrap();
        assert_eq!(kid(&rig, KeyState::Retired).await, first);
        assert_eq!(rows(&rig).await.len(), 3);
        // Done twice, and by two replicas, it is done once.
        let other = rig.another(db).await;
        keys::keep(&rig.core).await.unwrap();
        keys::keep(&other.core).await.unwrap();
        assert_eq!(rows(&rig).await.len(), 3);
        rig.advance(86_400 + 59);
        keys::keep(&rig.core).await.unwrap();
        assert!(published(&rig).await.contains(&first));
        rig.advance(1);
        keys::keep(&rig.core).await.unwrap();
        assert!(!published(&rig).await.contains(&first));
        assert_eq!(rows(&rig).await.len(), 2);
        // A shorter month counts at once.
        rig.set("identity.keys.rotation_days", json!(1));
        keys::keep(&rig.core).await.unwrap();
        assert_eq!(rows(&rig).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn only_who_may_changes_keys() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let admin = rig.super_admin().await;
        let tenant_admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let weak = Principal {
            aal: 1,
            ..admin.clone()
        };
        let stale = Principal {
            fresh_until_s: 0,
            ..admin.clone()
        };
        let paths = [
            ("POST", "/keys/rotate"),
            ("POST", "/epoch/raise"),
            ("GET", "/keys"),
        ];
        for (method, path) in paths {
            let body = || {
                if method == "GET" {
                    Value::Null
                } else {
                    json!({})
                }
            };
            let status = async |who: &Principal| rig.call(who, method, path, body()).await;
            assert_eq!(status(&Principal::anonymous()).await.0, 401, "{path}");
            assert_eq!(status(&tenant_admin).await.0, 403, "{path}");
            let (code, problem) = status(&weak).await;
            assert_eq!(
                (code, &problem["code"]),
                (401, &json!("identity.step_up_required")),
                "{path}"
            );
            if method == "POST" {
                assert_eq!(
                    status(&stale).await.1["code"],
                    "identity.step_up_required",
                    "{path}"
                );
            }
        }
        // The use-cases check for themselves, whoever leads to them.
        let cx = rig.cx(&tenant_admin);
        assert!(keys::raise_epoch(&rig.core, &cx, None).await.is_err());
        assert!(keys::rotate(&rig.core, &cx).await.is_err());
        let survive = keys::Sessions::Survive;
        assert!(
            keys::emergency(&rig.core, &cx, survive, None)
                .await
                .is_err()
        );
        assert!(keys::list(&rig.core, &cx).await.is_err());
        let (status, keys) = rig.get(&admin, "/keys").await;
        assert_eq!(
            (status, keys["items"].as_array().map(Vec::len)),
            (200, Some(2))
        );

        for (body, fault) in [
            (json!({"end_sessions": true}), "end_sessions"),
            (
                json!({"emergency": true, "reason": "x".repeat(301)}),
                "reason",
            ),
        ] {
            let (status, problem) = rig.post(&admin, "/keys/rotate", body).await;
            assert_eq!(status, 400);
            assert_eq!(faults(&problem)[0].0, fault);
        }
        for body in [
            json!({"emergency": "yes"}),
            json!({"other": 1}),
            json!("now"),
        ] {
            assert_eq!(rig.post(&admin, "/keys/rotate", body).await.0, 400);
        }
        assert_eq!(rows(&rig).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn the_documents_say_what_is_true() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (headers, jwks) = document(&rig, "/.well-known/jwks.json").await;
        assert_eq!(headers["cache-control"], "public, max-age=300");
        assert_eq!(headers["content-type"], "application/jwk-set+json");
        for key in jwks["keys"].as_array().unwrap() {
            let members: Vec<_> = key
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            let mut public = ["alg", "crv", "kid", "kty", "use", "x"].to_vec();
            public.sort_unstable();
            let mut members = members;
            members.sort_unstable();
            assert_eq!(members, public, "nothing private");
        }
        let (_, document) = document(&rig, "/.well-known/openid-configuration").await;
        let base = rig.core.links.base();
        assert_eq!(document["issuer"], base);
        assert_eq!(
            document["jwks_uri"],
            format!("{base}/.well-known/jwks.json")
        );
        assert_eq!(document.get("authorization_endpoint"), None);

        let user = rig.user("user").await;
        let good: AccessClaims = claims(&rig, &user, new_id(&rig));
        let token = token(&rig, &good);
        let now_s = good.issued_s;
        assert!(rig.core.edge.verify(&token, now_s).is_ok());
        // The document of a key lists no more than the claims that are in a token.
        let payload = portico_token::jws::split(&token).unwrap().payload;
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        let said = document["claims_supported"].as_array().unwrap();
        for name in payload.as_object().unwrap().keys() {
            assert!(said.contains(&json!(name)), "{name}");
        }
    })
    .await;
}

/// What verifies our tokens elsewhere: PyJWT, from our JWKS document and nothing else.
const PYJWT: &str = r#"
import json, sys, jwt
told = json.load(sys.stdin)
keys = jwt.PyJWKSet.from_dict(told["jwks"])
token = told["token"]
header = jwt.get_unverified_header(token)
assert header["typ"] == "at+jwt", header
key = next(k for k in keys.keys if k.key_id == header["kid"])
options = {"require": ["iss", "aud", "sub", "exp", "iat", "jti"], "verify_exp": False}
def read(text, audience):
    return jwt.decode(text, key.key, algorithms=["EdDSA"], audience=audience, issuer=told["issuer"], options=options)
claims = read(token, told["audience"])
for bad, audience in [(token[:-8] + "AAAAAAAA", told["audience"]), (token, "somebody else")]:
    try:
        read(bad, audience)
    except jwt.InvalidTokenError:
        continue
    sys.exit("accepted what it must not")
print(json.dumps(claims))
"#;

#[tokio::test]
async fn pyjwt_verifies_our_tokens_by_our_keys() {
    let Some(python) = python() else { return };
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("user").await;
        let (_, jwks) = document(&rig, "/.well-known/jwks.json").await;
        let session = new_id(&rig);
        let issuer = rig.core.edge.issuer().unwrap();
        let told = json!({
            "jwks": jwks,
            "token": token(&rig, &claims(&rig, &user, session)),
            "issuer": &*issuer.issuer,
            "audience": &*issuer.audience,
        });
        let mut child = Command::new(python)
            .args(["-c", PYJWT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(told.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read["sub"], user.id.to_string());
        assert_eq!(read["sid"], session.to_string());
    })
    .await;
}

/// A Python that has PyJWT with Ed25519; Debian's, where another one comes first in the path.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let probe = Command::new(python)
            .args(["-c", "import jwt, cryptography"])
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    if found.is_none() {
        skipped();
    }
    found
}

fn skipped() {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "PyJWT is not installed, and CI must not skip its test"
    );
    eprintln!("skipped: PyJWT is not installed");
}
