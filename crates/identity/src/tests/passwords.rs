//! Logging in with passwords: the same for known and unknown names, limits, waits, blocks, rehash, new passwords.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::{Principal, Secret, id};
use portico_contract::address_rules::AddressRules as _;
use portico_db::metrics::Observed;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use crate::domain::login::{Proof, Transport};
use crate::domain::user::User;
use crate::error::reason;
use crate::ops::login;
use crate::store;
use crate::store::secrets::Secrets;

const GOOD: &str = "quiet-otter-91-lamp";
const NEW: &str = "brisk-maple-27-door";
/// `quiet-otter-91-lamp` by Python's bcrypt.
const BCRYPT: &str = "$2b$04$zZW7ssMDXgysNq92TIPoHO.vD.u0usdtGor3LM7AXVXqiW3BIhBEO";

async fn rig(db: &TestDb) -> Rig {
    let rig = Rig::new(db).await;
    // Cheap hashes: what they cost is another test's matter.
    rig.set(
        "identity.password.argon2",
        json!({"m_kib": 7168, "t": 1, "p": 1}),
    );
    rig.set("identity.limit.password_per_address", json!(["1000/min"]));
    rig.set("identity.mfa.admin", json!("optional"));
    rig
}

async fn set_password(rig: &Rig, user: &User, phc: Secret<String>) {
    let tx = rig.core.db.begin().await.unwrap();
    let secrets = Secrets {
        password: Some(phc),
        password_changed_at: Some(rig.core.clock.now()),
        ..Secrets::none(user.id)
    };
    store::secrets::put(&tx, &secrets).await.unwrap();
    tx.commit().await.unwrap();
}

async fn user(rig: &Rig, name: &str) -> User {
    let user = rig.user(name).await;
    let cost = rig.core.settings.system(&crate::settings::password::ARGON2);
    let phc = rig
        .core
        .passwords
        .hash(&Secret::from(GOOD), cost)
        .await
        .unwrap();
    set_password(rig, &user, phc).await;
    user
}

fn body(name: &str, password: &str) -> Value {
    json!({"identifier": name, "password": password, "device": {"platform": "cli"}})
}

async fn log_in(rig: &Rig, name: &str, password: &str) -> (u16, Value) {
    rig.post(
        &Principal::anonymous(),
        "/login/password",
        body(name, password),
    )
    .await
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_password_opens_and_wrong_anything_is_one_answer() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "Anna").await;
        let (status, answer) = log_in(&rig, "aNNa", GOOD).await;
        assert_eq!(
            (status, answer["status"].as_str()),
            (200, Some("ok")),
            "{answer}"
        );
        assert_eq!(answer["user"]["id"], json!(anna.id));
        assert!(answer["tokens"]["access_token"].is_string());
        let mut problems = Vec::new();
        for wrong in [
            body("anna", "quiet-otter-91-lamb"),
            body("nobody", GOOD),
            body("not a name", GOOD),
            body("nobody@example.com", GOOD),
            body("+8613800000000", GOOD),
            body("anna", ""),
            body("anna", &"x".repeat(5_000)),
            json!({"identifier": "anna", "password": GOOD, "tenant": "other",
                "device": {"platform": "cli"}}),
            json!({"identifier": "anna", "password": GOOD, "tenant": "no-such-tenant",
                "device": {"platform": "cli"}}),
        ] {
            let answer = rig
                .post(&Principal::anonymous(), "/login/password", wrong)
                .await;
            assert_eq!(code(&answer), (401, "identity.invalid_credentials"));
            problems.push(answer.1);
        }
        assert!(problems.windows(2).all(|p| p[0] == p[1]), "{problems:?}");
        let odd = rig
            .post(
                &Principal::anonymous(),
                "/login/password",
                json!({"identifier": "anna"}),
            )
            .await;
        assert_eq!(odd.0, 400);
        assert_eq!(rig.audit.count("identity.login.failed"), 9);
    })
    .await;
}

/// ID-33: the same hashes, the same statements in the same order.
#[tokio::test]
async fn known_and_unknown_names_cost_the_same_work() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        let seen: Arc<Mutex<Vec<Observed>>> = Arc::default();
        let sink = Arc::clone(&seen);
        rig.core.db.metrics().observe(move |what, _| {
            if matches!(what, Observed::Query(_)) {
                sink.lock().push(what);
            }
        });
        let work = async |name: &str, device: Value| {
            let hashes = rig.core.passwords.done();
            seen.lock().clear();
            let wish = json!({"identifier": name, "password": "wrong", "device": device});
            let answer = rig
                .post(&Principal::anonymous(), "/login/password", wish)
                .await;
            assert_eq!(answer.0, 401, "{}", answer.1);
            (rig.core.passwords.done() - hashes, seen.lock().clone())
        };
        let plain = json!({"platform": "web"});
        let (hashes, known) = work("anna", plain.clone()).await;
        assert_eq!(hashes, 1);
        assert!(known.len() >= 5, "{known:?}");
        for unknown in [
            "berta",
            "berta@example.com",
            "13800000000",
            "no such name !",
        ] {
            assert_eq!(
                work(unknown, plain.clone()).await,
                (1, known.clone()),
                "{unknown}"
            );
        }
        let proving = json!({"platform": "web", "device_id": "0190a2b3c4", "device_secret": "x"});
        let (hashes, known) = work("anna", proving.clone()).await;
        assert_eq!(hashes, 1);
        assert_eq!(work("berta", proving).await, (1, known));
    })
    .await;
}

#[tokio::test]
async fn a_bcrypt_row_logs_in_and_is_renewed_once() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let old = rig.user("import").await;
        set_password(&rig, &old, Secret::from(BCRYPT)).await;
        assert_eq!(log_in(&rig, "import", "wrong").await.0, 401);
        assert_eq!(log_in(&rig, "import", GOOD).await.0, 200);
        let phc = async || {
            let secrets = store::secrets::get(rig.core.db.reader(), old.id)
                .await
                .unwrap();
            secrets.password.unwrap().expose().clone()
        };
        let renewed = phc().await;
        assert!(
            renewed.starts_with("$argon2id$v=19$m=7168,t=1,p=1$"),
            "{renewed}"
        );
        assert_eq!(log_in(&rig, "import", GOOD).await.0, 200);
        assert_eq!(phc().await, renewed, "what is current stays");
        rig.set(
            "identity.password.argon2",
            json!({"m_kib": 65536, "t": 1, "p": 4}),
        );
        assert_eq!(log_in(&rig, "import", GOOD).await.0, 200);
        assert!(
            phc().await.starts_with("$argon2id$v=19$m=65536,t=1,p=4$"),
            "the preset"
        );
    })
    .await;
}

/// ID-161: strangers wait, the known device does not, and nobody learns from it that there is an account.
#[tokio::test]
async fn strangers_wait_and_the_known_device_does_not() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        let (_, first) = log_in(&rig, "anna", GOOD).await;
        let tokens = &first["tokens"];
        let device = json!({"platform": "cli", "device_id": tokens["device_id"],
            "device_secret": tokens["device_secret"]});
        let known = async |password: &str| {
            let wish = json!({"identifier": "anna", "password": password, "device": device});
            rig.post(&Principal::anonymous(), "/login/password", wish)
                .await
        };
        for name in ["anna", "nobody"] {
            for _ in 0..5 {
                assert_eq!(log_in(&rig, name, "wrong").await.0, 401);
            }
            let waits = log_in(&rig, name, GOOD).await;
            assert_eq!(code(&waits), (429, "identity.account_locked"), "{name}");
        }
        assert_eq!(known("wrong").await.0, 401);
        assert_eq!(known(GOOD).await.0, 200, "the owner gets in");
        rig.advance(59);
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 429);
        rig.advance(1);
        assert_eq!(
            log_in(&rig, "anna", "wrong").await.0,
            401,
            "one try after the wait"
        );
        rig.advance(119);
        assert_eq!(
            log_in(&rig, "anna", GOOD).await.0,
            429,
            "the next wait is longer"
        );
        rig.advance(1);
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 200);
        // What was forgotten counts anew.
        for _ in 0..5 {
            assert_eq!(log_in(&rig, "anna", "wrong").await.0, 401);
        }
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 429);
        for _ in 0..5 {
            assert_eq!(known("wrong").await.0, 401);
        }
        assert_eq!(
            known(GOOD).await.0,
            429,
            "a stolen device has a budget, too"
        );
    })
    .await;
}

#[tokio::test]
async fn a_restart_forgets_no_failure_and_an_administrator_does() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "anna").await;
        for _ in 0..5 {
            log_in(&rig, "anna", "wrong").await;
        }
        let again = rig.another(db).await;
        assert_eq!(log_in(&again, "anna", GOOD).await.0, 429);
        let path = format!("/users/{}/unlock", anna.id);
        let stranger = again.tenant_admin(OTHER).await;
        assert_eq!(again.post(&stranger, &path, Value::Null).await.0, 404);
        let admin = again.tenant_admin(id::TENANT_DEFAULT).await;
        assert_eq!(again.post(&admin, &path, Value::Null).await.0, 204);
        assert_eq!(log_in(&again, "anna", GOOD).await.0, 200);
        assert_eq!(again.audit.count("identity.user.unlocked"), 1);
    })
    .await;
}

#[tokio::test]
async fn many_tries_at_once_pass_no_limit() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        let tries = (0..30).map(|_| log_in(&rig, "anna", "wrong"));
        let answers = futures_util::future::join_all(tries).await;
        let wrong = answers.iter().filter(|a| a.0 == 401).count();
        let refused = answers.iter().filter(|a| a.0 == 429).count();
        assert_eq!(wrong + refused, 30);
        assert!((1..=5).contains(&wrong), "{wrong} guesses went through");
    })
    .await;
}

/// ID-162: so many different pairs block the network for a day; the block can be lifted.
#[tokio::test]
async fn stuffing_blocks_the_network_until_it_is_lifted() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        let address: IpAddr = super::rig::ADDRESS;
        let now = || rig.core.clock.now().timestamp();
        let open = || rig.core.address_rules.check(address, now()).is_ok();
        for n in 0..14 {
            log_in(&rig, &format!("someone-{n}"), "wrong").await;
            log_in(&rig, &format!("someone-{n}"), "wrong").await;
            assert!(open(), "{n}");
        }
        log_in(&rig, "someone-14", "wrong").await;
        assert!(!open());
        let refused = rig.core.address_rules.check(address, now()).unwrap_err();
        assert_eq!(refused.until_s, Some(now() + 86_400));
        let neighbour: IpAddr = "203.0.113.8".parse().unwrap();
        assert!(rig.core.address_rules.check(neighbour, now()).is_ok());
        // Another replica knows it after its next look.
        let other = rig.another(db).await;
        other.core.address_rules.load().await.unwrap();
        assert!(other.core.address_rules.check(address, now()).is_err());

        let admin = rig.super_admin().await;
        let (status, blocks) = rig.get(&admin, "/blocks").await;
        assert_eq!(status, 200);
        let block = &blocks["items"][0];
        assert_eq!(block["cidr"], "203.0.113.7/32");
        assert_eq!(block["source"], "stuffing");
        assert_eq!(rig.get(&admin, "/ip-rules").await.1["items"], json!([]));
        let path = format!("/blocks/{}", block["id"].as_str().unwrap());
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        assert!(open());
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 404);
        log_in(&rig, "someone-15", "wrong").await;
        assert!(open(), "it begins to count anew");
        let actions = rig.audit.actions();
        assert!(actions.contains(&"identity.ip_rule.created"));
        assert!(actions.contains(&"identity.block.lifted"));
    })
    .await;
}

#[tokio::test]
async fn an_address_has_so_many_tries() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        rig.set(
            "identity.limit.password_per_address",
            json!(["10/min", "50/h"]),
        );
        for _ in 0..10 {
            assert_eq!(log_in(&rig, "anna", GOOD).await.0, 200);
        }
        let refused = rig
            .send(
                &Principal::anonymous(),
                ::http::Request::post("/login/password").header("content-type", "application/json"),
                axum::body::Body::from(body("anna", GOOD).to_string()),
            )
            .await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "6");
        rig.advance(6);
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 200);
    })
    .await;
}

/// ID-42: while the pool is full logins are refused, and what needs no hash goes on.
#[tokio::test]
async fn a_flood_of_logins_stops_nothing_else() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        let (_, first) = log_in(&rig, "anna", GOOD).await;
        let full = rig.core.passwords.saturate();
        let busy = log_in(&rig, "anna", GOOD).await;
        assert_eq!(code(&busy), (503, "identity.hash_busy"));
        let unknown = log_in(&rig, "nobody", GOOD).await;
        assert_eq!(code(&unknown), (503, "identity.hash_busy"));
        let refresh = json!({"refresh_token": first["tokens"]["refresh_token"]});
        let (status, answer) = rig
            .post(&Principal::anonymous(), "/token/refresh", refresh)
            .await;
        assert_eq!(status, 200, "{answer}");
        drop(full);
        assert_eq!(
            rig.audit.count("identity.login.failed"),
            0,
            "a refusal is no failure"
        );
    })
    .await;
}

#[tokio::test]
async fn a_method_that_is_off_opens_nothing() {
    each_backend(async |db| {
        let rig = rig(db).await;
        user(&rig, "anna").await;
        rig.set("identity.login.methods", json!(["sms"]));
        assert_eq!(
            code(&log_in(&rig, "anna", GOOD).await),
            (403, "identity.method_off")
        );
    })
    .await;
}

/// ID-44: the old password or a strong session; other sessions end, links and waits are forgotten.
#[tokio::test]
async fn a_changed_password_ends_other_sessions() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "anna").await;
        let (_, one) = log_in(&rig, "anna", GOOD).await;
        let (_, two) = log_in(&rig, "anna", GOOD).await;
        let session = |answer: &Value| -> uuid::Uuid {
            answer["tokens"]["session_id"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        };
        let mut who = rig.principal(&anna).await;
        who.session = Some(Arc::from(session(&one).to_string()));
        who.aal = 1;
        who.fresh_until_s = 0;
        let change = async |who: &Principal, wish: Value| rig.post(who, "/me/password", wish).await;
        let wish = |old: &str, new: &str| json!({"old_password": old, "new_password": new});
        let wrong = change(&who, wish("wrong", NEW)).await;
        assert_eq!(code(&wrong), (401, "identity.invalid_credentials"));
        let weak = change(&who, wish(GOOD, "anna-anna")).await;
        assert_eq!(
            faults(&weak.1),
            [("new_password".to_owned(), "password_too_similar".to_owned())]
        );
        let same = change(&who, wish(GOOD, GOOD)).await;
        assert_eq!(faults(&same.1)[0].1, "password_unchanged");
        let without = change(&who, json!({"new_password": NEW})).await;
        assert_eq!(code(&without), (401, "identity.step_up_required"));
        let tv = rig.get_user(anna.tenant, anna.id).await.tv;
        assert_eq!(change(&who, wish(GOOD, NEW)).await.0, 204);
        assert_eq!(rig.get_user(anna.tenant, anna.id).await.tv, tv + 1);
        let live = store::sessions::live(rig.core.db.reader(), anna.id)
            .await
            .unwrap();
        assert_eq!(
            live.iter().map(|s| s.id).collect::<Vec<_>>(),
            [session(&one)]
        );
        assert_ne!(session(&one), session(&two));
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 401);
        assert_eq!(log_in(&rig, "anna", NEW).await.0, 200);
        // A strong session needs no old password, and may keep the others.
        who.aal = 2;
        who.fresh_until_s = rig.core.clock.now().timestamp() + 60;
        let keep = json!({"new_password": GOOD, "keep_sessions": true});
        assert_eq!(change(&who, keep).await.0, 204);
        let live = store::sessions::live(rig.core.db.reader(), anna.id)
            .await
            .unwrap();
        assert_eq!(live.len(), 2);
        assert_eq!(rig.audit.count("identity.user.password_changed"), 2);
    })
    .await;
}

/// ID-45: the ticket opens nothing else, works once, and a login follows.
#[tokio::test]
async fn a_password_that_must_change_opens_the_way_to_a_new_one_only() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "anna").await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let path = format!("/users/{}/reset-password", anna.id);
        let (_, first) = log_in(&rig, "anna", GOOD).await;
        let (status, handed) = rig.post(&admin, &path, json!({"how": "temporary"})).await;
        assert_eq!(status, 200, "{handed}");
        let refresh = json!({"refresh_token": first["tokens"]["refresh_token"]});
        let dead = rig
            .post(&Principal::anonymous(), "/token/refresh", refresh)
            .await;
        assert_eq!(dead.0, 401, "all sessions have ended");
        assert_eq!(log_in(&rig, "anna", GOOD).await.0, 401);
        let temporary = handed["password"].as_str().unwrap();
        assert_eq!(temporary.len(), 24);
        let (status, answer) = log_in(&rig, "anna", temporary).await;
        assert_eq!(
            (status, answer["status"].as_str()),
            (200, Some("password_change_required"))
        );
        assert!(answer["tokens"].is_null());
        let ticket = answer["ticket"].as_str().unwrap();
        let mfa = json!({"ticket": ticket, "code": "123456"});
        assert_eq!(
            rig.post(&Principal::anonymous(), "/login/mfa", mfa).await.0,
            401
        );
        let change = async |password: &str| {
            let wish = json!({"ticket": ticket, "new_password": password});
            rig.post(&Principal::anonymous(), "/login/password-change", wish)
                .await
        };
        assert_eq!(change("password1").await.0, 400);
        assert_eq!(
            faults(&change(temporary).await.1)[0].1,
            "password_unchanged"
        );
        let (status, answer) = change(NEW).await;
        assert_eq!(
            (status, answer["status"].as_str()),
            (200, Some("ok")),
            "{answer}"
        );
        assert_eq!(code(&change(GOOD).await), (401, "identity.ticket_invalid"));
        assert_eq!(log_in(&rig, "anna", NEW).await.1["status"], "ok");
        let late = rig
            .post(&admin, &path, json!({"how": "require_change"}))
            .await;
        assert_eq!(late.0, 200);
        let (_, answer) = log_in(&rig, "anna", NEW).await;
        rig.advance(601);
        let wish = json!({"ticket": answer["ticket"], "new_password": GOOD});
        let expired = rig
            .post(&Principal::anonymous(), "/login/password-change", wish)
            .await;
        assert_eq!(code(&expired), (401, "identity.ticket_invalid"));
    })
    .await;
}

#[tokio::test]
async fn an_administrator_hands_over_a_link_to_whom_they_may_administer() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "anna").await;
        let path = format!("/users/{}/reset-password", anna.id);
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let link = async || {
            let (status, handed) = rig.post(&admin, &path, json!({"how": "link"})).await;
            assert_eq!(status, 200, "{handed}");
            let link = handed["link"].as_str().unwrap().to_owned();
            let (page, token) = link.split_once('#').unwrap();
            assert!(page.ends_with("/auth/reset"), "{link}");
            token.to_owned()
        };
        let (old, new) = (link().await, link().await);
        let confirm = async |token: &str, password: &str| {
            let wish = json!({"token": token, "password": password});
            rig.post(&Principal::anonymous(), "/password/reset/confirm", wish)
                .await
        };
        let used = (401, "identity.one_time_token_invalid");
        assert_eq!(
            code(&confirm(&old, NEW).await),
            used,
            "only the last one works"
        );
        let weak = confirm(&new, "12345678").await;
        assert_eq!(
            faults(&weak.1),
            [("password".to_owned(), "password_common".to_owned())]
        );
        assert_eq!(confirm(&new, NEW).await.0, 204);
        assert_eq!(code(&confirm(&new, GOOD).await), used);
        assert_eq!(log_in(&rig, "anna", NEW).await.0, 200);
        let late = link().await;
        rig.advance(1_801);
        assert_eq!(code(&confirm(&late, GOOD).await), used);

        // Time has passed: they authenticate again.
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let stranger = rig.tenant_admin(OTHER).await;
        let theirs = rig.post(&stranger, &path, json!({"how": "link"})).await;
        assert_eq!(theirs.0, 404);
        let chief = rig.super_admin().await;
        let chief_path = format!("/users/{}/reset-password", chief.id.unwrap());
        let up = rig.post(&admin, &chief_path, json!({"how": "link"})).await;
        assert_eq!(up.0, 404, "another tenant's user is not there");
        let mut weak = admin.clone();
        weak.aal = 1;
        let refused = rig.post(&weak, &path, json!({"how": "link"})).await;
        assert_eq!(code(&refused), (401, "identity.step_up_required"));
    })
    .await;
}

/// A login whose password was changed between the comparison and the session gets none.
#[tokio::test]
async fn a_password_that_changed_meanwhile_opens_nothing() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let anna = user(&rig, "anna").await;
        let cx = rig.cx(&Principal::anonymous());
        let proof = Proof {
            user: rig.get_user(anna.tenant, anna.id).await,
            method: "password",
            amr: vec!["pwd".to_owned()],
            aal: 1,
            device: serde_json::from_value(json!({"platform": "cli"})).unwrap(),
            transport: Transport::Body,
        };
        let who = rig.principal(&anna).await;
        let wish = json!({"old_password": GOOD, "new_password": NEW});
        assert_eq!(rig.post(&who, "/me/password", wish).await.0, 204);
        let late = login::finish(&rig.core, &cx, proof).await.unwrap_err();
        assert!(late.is(reason::INVALID_CREDENTIALS), "{late:?}");
        let live = store::sessions::live(rig.core.db.reader(), anna.id).await;
        assert!(live.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_administrator_needs_a_longer_password() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let change = async |who: &Principal| {
            rig.post(who, "/me/password", json!({"new_password": "kF7#q!zW9"}))
                .await
        };
        let (status, problem) = change(&admin).await;
        assert_eq!(status, 400);
        assert_eq!(faults(&problem)[0].1, "password_too_short");
        let anna = rig.principal(&user(&rig, "anna").await).await;
        assert_eq!(change(&anna).await.0, 204);
    })
    .await;
}
