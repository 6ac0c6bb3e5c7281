//! From a proof to tokens: standing, tickets, known devices, their number, and races (ID-3, ID-60…63, ID-120…125).

use std::sync::Arc;

use portico_base::{Context, Principal, Secret, Timestamp, id};
use portico_contract::tenants::TenantStatus;
use portico_contract::tokens::{Denied, TokenVerifier as _};
use portico_db::testing::{TestDb, each_backend};
use portico_telemetry::metrics::Format;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{OTHER, Rig};
use crate::domain::login::{LoginResult, LoginStatus, Proof, Tokens, Transport};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::ops::{login, one_time, sessions, stranger, tickets, users};
use crate::store;
use crate::unit::Unit;

/// A proof of a user on a device.
pub(super) fn proof(user: &User, device: Value) -> Proof {
    Proof {
        user: user.clone(),
        method: "password",
        amr: vec!["pwd".to_owned()],
        aal: 1,
        device: serde_json::from_value(device).expect("a device"),
        transport: Transport::Body,
    }
}

pub(super) fn nobody(rig: &Rig) -> Context {
    rig.cx(&Principal::anonymous())
}

pub(super) async fn log_in(rig: &Rig, user: &User, device: Value) -> Result<LoginResult> {
    login::finish(&rig.core, &nobody(rig), proof(user, device)).await
}

/// Logs in and gives the tokens.
pub(super) async fn tokens(rig: &Rig, user: &User, device: Value) -> Tokens {
    let result = log_in(rig, user, device).await.expect("a login");
    assert_eq!(result.status, LoginStatus::Ok);
    result.tokens.expect("tokens")
}

/// What the edge says of an access token.
pub(super) fn check(rig: &Rig, token: &Secret<String>) -> std::result::Result<(), Denied> {
    let now_s = rig.core.clock.now().timestamp();
    let verified = rig.core.edge.verify(token.expose(), now_s)?;
    rig.core.edge.check(&verified, Some(super::rig::ADDRESS))
}

async fn live(rig: &Rig, user: &User) -> Vec<crate::domain::session::Session> {
    store::sessions::live(rig.core.db.reader(), user.id)
        .await
        .expect("sessions")
}

async fn put(rig: &Rig, user: &User) {
    let tx = rig.core.db.begin().await.expect("a transaction");
    store::users::put(&tx, user).await.expect("the user");
    tx.commit().await.expect("a commit");
}

#[tokio::test]
async fn a_login_gives_tokens_that_hold() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let first = tokens(&rig, &user, json!({"platform": "ios", "name": "Anna's"})).await;
        assert_eq!(check(&rig, &first.access_token), Ok(()));
        assert_eq!(
            (first.expires_in, first.refresh_expires_in),
            (1_800, 604_800)
        );
        assert!(first.refresh_token.expose().starts_with("ptr_"));
        assert!(first.device_secret.is_some());
        let now = rig.core.clock.now();
        let verified = rig
            .core
            .edge
            .verify(first.access_token.expose(), now.timestamp());
        let verified = verified.expect("a good token");
        let who = &verified.principal;
        assert_eq!(who.id, Some(user.id));
        assert_eq!((who.aal, &who.roles[..]), (1, &["user".to_owned()][..]));
        assert_eq!(sessions::session_of(who), Some(first.session_id));
        assert!(
            !serde_json::to_string(&format!("{first:?}"))
                .unwrap()
                .contains("ptr_")
        );

        rig.advance(60);
        let device = json!({"platform": "ios", "device_id": first.device_id,
            "device_secret": first.device_secret.as_ref().unwrap().expose()});
        let again = log_in(&rig, &user, device).await.expect("a login");
        let brief = again.user.expect("the user");
        assert_eq!(brief.last_login_at, Some(now), "the login before this one");
        assert_eq!(brief.last_login_method.as_deref(), Some("password"));
        assert_eq!(brief.last_login_ip.as_deref(), Some("203.0.113.7"));
        assert_eq!(again.tokens.unwrap().device_secret, None, "it is known");

        let actions = rig.audit.actions();
        assert_eq!(
            actions,
            ["identity.login.succeeded", "identity.login.succeeded"]
        );
        let topics: Vec<String> = rig.events().await.into_iter().map(|e| e.topic).collect();
        let count = |topic: &str| topics.iter().filter(|t| *t == topic).count();
        assert_eq!(count("identity.login.succeeded"), 2);
        assert_eq!(count("identity.session.started"), 2);
        assert_eq!(count("identity.session.revoked"), 1, "the replaced one");
        assert_eq!(count("identity.device.added"), 1);
        let history = store::logins::of_user(rig.core.db.reader(), user.tenant, user.id, None, 10);
        let history = history.await.expect("the history");
        assert_eq!(history.len(), 2);
        assert_eq!(history[1].detail["new_device"], true);
        assert_eq!(history[0].detail["new_device"], false);
    })
    .await;
}

#[tokio::test]
async fn the_tenant_is_the_hosts_then_the_bodys_then_default() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let unit = Unit::begin(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        let now = unit.now();
        store::tenants::insert_host(&unit.tx, "other.example", OTHER, now)
            .await
            .unwrap();
        unit.revoke(
            store::revocations::Kind::Tenants,
            OTHER,
            "other",
            0,
            "hosts",
        )
        .await
        .unwrap();
        unit.commit().await.unwrap();
        let of = |host, slug| login::tenant_of(&rig.core, host, slug);
        let tenant = |host, slug| of(host, slug).map(|p| (p.tenant, p.chosen));
        assert_eq!(tenant(None, None), Some((id::TENANT_DEFAULT, false)));
        assert_eq!(
            tenant(Some("else.example"), None),
            Some((id::TENANT_DEFAULT, false))
        );
        assert_eq!(tenant(None, Some("other")), Some((OTHER, true)));
        assert_eq!(
            tenant(Some("other.example"), Some("default")),
            Some((OTHER, true))
        );
        assert_eq!(tenant(None, Some("unknown")), None);
        assert_eq!(
            of(None, None).unwrap().tenants(),
            [id::TENANT_SYSTEM, id::TENANT_DEFAULT]
        );
        assert_eq!(of(None, Some("other")).unwrap().tenants(), [OTHER]);
    })
    .await;
}

#[tokio::test]
async fn whoever_may_not_log_in_is_told_after_the_proof() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let device = || json!({"platform": "web"});
        let user = rig.user("anna").await;
        for (status, code) in [
            (UserStatus::Disabled, reason::ACCOUNT_DISABLED),
            (UserStatus::Pending, reason::ACCOUNT_PENDING),
            (UserStatus::Deleted, reason::INVALID_CREDENTIALS),
        ] {
            put(
                &rig,
                &User {
                    status,
                    ..user.clone()
                },
            )
            .await;
            // The proof holds the user as they were a moment before.
            let refused = log_in(&rig, &user, device()).await.unwrap_err();
            assert!(refused.is(code), "{status:?}: {refused:?}");
        }
        let due = Some(rig.core.clock.now());
        put(
            &rig,
            &User {
                delete_at: due,
                ..user.clone()
            },
        )
        .await;
        assert!(
            log_in(&rig, &user, device())
                .await
                .unwrap_err()
                .is(reason::ACCOUNT_DISABLED)
        );
        let grace = Some(rig.core.clock.now() + chrono::Duration::days(1));
        put(
            &rig,
            &User {
                delete_at: grace,
                ..user.clone()
            },
        )
        .await;
        tokens(&rig, &user, device()).await;
        let kept = rig.get_user(user.tenant, user.id).await;
        assert_eq!(kept.delete_at, None, "whoever logs in keeps the account");
        assert_eq!(rig.audit.count("identity.user.restored"), 1);
        assert_eq!(live(&rig, &user).await.len(), 1, "nobody else got in");

        let other = rig.add_user(OTHER, "otto", &["user"]).await;
        let unit = Unit::begin(&rig.core, &rig.core.own_context("test"))
            .await
            .unwrap();
        let mut tenant = store::tenants::get(&unit.tx, OTHER).await.unwrap().unwrap();
        tenant.status = TenantStatus::Suspended;
        store::tenants::put(&unit.tx, &tenant).await.unwrap();
        unit.revoke(store::revocations::Kind::Tenants, OTHER, "other", 0, "x")
            .await
            .unwrap();
        unit.commit().await.unwrap();
        let refused = log_in(&rig, &other, device()).await.unwrap_err();
        assert!(refused.is(reason::TENANT_SUSPENDED));
    })
    .await;
}

#[tokio::test]
async fn some_logins_wait_for_a_next_step() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let device = || json!({"platform": "web", "device_id": "browser-1"});
        let admin = rig
            .add_user(id::TENANT_DEFAULT, "boss", &["tenant_admin"])
            .await;
        let waits = log_in(&rig, &admin, device()).await.unwrap();
        assert_eq!(waits.status, LoginStatus::EnrolRequired);
        assert!(waits.tokens.is_none() && waits.ticket.is_some() && waits.user.is_none());

        let mut user = rig.user("anna").await;
        user.must_change_password = true;
        put(&rig, &user).await;
        let waits = log_in(&rig, &user, device()).await.unwrap();
        assert_eq!(waits.status, LoginStatus::PasswordChangeRequired);
        let ends = waits.ticket_expires_at.unwrap() - rig.core.clock.now();
        assert_eq!(ends, chrono::Duration::minutes(10));
        assert!(live(&rig, &user).await.is_empty());

        // The ticket opens one thing, once, on the network and the device that began.
        let ticket = waits.ticket.unwrap();
        let take = async |cx: &Context, kind, device: Option<&str>| {
            let unit = Unit::begin(&rig.core, cx).await?;
            let taken = tickets::take(&rig.core, cx, &unit.tx, kind, &ticket, device).await?;
            unit.commit().await?;
            Result::Ok(taken)
        };
        let here = nobody(&rig);
        let mut elsewhere = here.clone();
        elsewhere.caller.address = Some("198.51.100.9".parse().unwrap());
        let refused = |r: Result<Proof>| r.unwrap_err().is(reason::TICKET_INVALID);
        let (kind, own) = (tickets::PASSWORD, Some("browser-1"));
        assert!(refused(take(&here, tickets::MFA, own).await));
        assert!(refused(take(&elsewhere, kind, own).await));
        assert!(refused(take(&here, kind, Some("browser-2")).await));
        assert!(refused(take(&here, kind, None).await));
        let kept = take(&here, kind, own).await.unwrap();
        assert_eq!((kept.user.id, kept.method), (user.id, "password"));
        assert!(refused(take(&here, kind, own).await), "once");
    })
    .await;
}

#[tokio::test]
async fn guessing_ids_evicts_nobody() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let known = tokens(&rig, &user, json!({"platform": "ios", "device_id": "annas-phone"})).await;
        assert_eq!(known.device_id, "annas-phone");
        for secret in [None, Some("wrong"), Some(known.refresh_token.expose().as_str())] {
            let wish = json!({"platform": "ios", "device_id": "annas-phone", "device_secret": secret});
            let other = tokens(&rig, &user, wish).await;
            assert_ne!(other.device_id, "annas-phone");
            assert!(other.device_secret.is_some(), "a device of its own");
            assert_eq!(check(&rig, &known.access_token), Ok(()), "{secret:?}");
        }
        assert_eq!(live(&rig, &user).await.len(), 4);
        let secret = known.device_secret.unwrap();
        let wish = json!({"platform": "ios", "device_id": "annas-phone", "device_secret": secret.expose()});
        let again = tokens(&rig, &user, wish.clone()).await;
        assert_eq!(again.device_id, "annas-phone");
        assert_eq!(check(&rig, &known.access_token), Err(Denied::SESSION_REVOKED));
        assert_eq!(check(&rig, &again.access_token), Ok(()));
        assert_eq!(live(&rig, &user).await.len(), 4, "it took no slot");

        // Another user's device of that name is another device.
        let otto = rig.user("otto").await;
        let his = tokens(&rig, &otto, wish).await;
        assert_eq!(his.device_id, "annas-phone");
        assert!(his.device_secret.is_some());
        assert_eq!(check(&rig, &again.access_token), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn the_sixth_device_evicts_is_rejected_or_asks() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut all = Vec::new();
        for n in 0..5 {
            rig.advance(1);
            let device = json!({"platform": "ios", "name": format!("phone {n}")});
            all.push(tokens(&rig, &user, device).await);
        }
        rig.advance(1);
        let sixth = tokens(&rig, &user, json!({"platform": "web"})).await;
        assert_eq!(
            check(&rig, &all[0].access_token),
            Err(Denied::SESSION_REVOKED)
        );
        assert_eq!(check(&rig, &all[1].access_token), Ok(()));
        assert_eq!(check(&rig, &sixth.access_token), Ok(()));
        let ended = store::sessions::get(rig.core.db.reader(), all[0].session_id).await;
        let ended = ended.unwrap().unwrap();
        assert_eq!(ended.revoke_reason.as_deref(), Some("evicted"));
        let events = rig.events().await;
        assert!(events.iter().any(|e| e.topic == "identity.device.evicted"));

        rig.set("identity.device.policy", json!("reject"));
        let refused = log_in(&rig, &user, json!({"platform": "web"}))
            .await
            .unwrap_err();
        assert!(refused.is(reason::DEVICE_LIMIT));
        let Error::With(_, members) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(members["limit"], 5);

        rig.set("identity.device.policy", json!("ask"));
        let asks = log_in(&rig, &user, json!({"platform": "tv"}))
            .await
            .unwrap();
        assert_eq!(asks.status, LoginStatus::DeviceLimit);
        assert_eq!(asks.devices.len(), 5);
        assert!(asks.tokens.is_none());
        assert_eq!(live(&rig, &user).await.len(), 5, "nothing happened yet");
        let choice = asks
            .devices
            .iter()
            .find(|d| d.name == "phone 3")
            .unwrap()
            .id;
        let ticket = asks.ticket.unwrap();
        let body = json!({"ticket": ticket.expose(), "log_out": choice});
        let (status, answer) = rig
            .post(
                &Principal::anonymous(),
                "/login/device-choice",
                body.clone(),
            )
            .await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
        assert_eq!(
            check(&rig, &all[3].access_token),
            Err(Denied::SESSION_REVOKED)
        );
        assert_eq!(check(&rig, &all[1].access_token), Ok(()));
        assert_eq!(live(&rig, &user).await.len(), 5);
        let again = rig
            .post(&Principal::anonymous(), "/login/device-choice", body)
            .await;
        assert_eq!(
            (again.0, &again.1["code"]),
            (401, &json!("identity.ticket_invalid"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_platform_keeps_to_its_quota_and_expired_sessions_take_no_slot() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut all = Vec::new();
        for platform in ["ios", "web", "ios", "tv"] {
            rig.advance(1);
            all.push(tokens(&rig, &user, json!({ "platform": platform })).await);
        }
        rig.set("identity.device.platform_quota", json!({"tv": 1, "cli": 0}));
        let tv = tokens(&rig, &user, json!({"platform": "tv"})).await;
        assert_eq!(check(&rig, &tv.access_token), Ok(()));
        let state: Vec<bool> = all
            .iter()
            .map(|t| check(&rig, &t.access_token).is_ok())
            .collect();
        assert_eq!(
            state,
            [true, true, true, false],
            "the other television made room"
        );
        let refused = log_in(&rig, &user, json!({"platform": "cli"}))
            .await
            .unwrap_err();
        assert!(refused.is(reason::DEVICE_LIMIT));
        // An expired session takes no slot and is no eviction.
        rig.advance(700_000);
        tokens(&rig, &user, json!({"platform": "web"})).await;
        assert_eq!(live(&rig, &user).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_logins_at_once_leave_five() {
    each_backend(async |db: &TestDb| {
        let rig = Arc::new(Rig::new(db).await);
        let user = rig.user("anna").await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..50 {
            let (rig, user) = (Arc::clone(&rig), user.clone());
            tasks.spawn(async move {
                let device = json!({"platform": "ios", "device_id": format!("device-{n:03}")});
                tokens(&rig, &user, device).await
            });
        }
        let all = tasks.join_all().await;
        let live: Vec<Uuid> = live(&rig, &user).await.into_iter().map(|s| s.id).collect();
        assert_eq!(live.len(), 5);
        for tokens in &all {
            let wanted = if live.contains(&tokens.session_id) {
                Ok(())
            } else {
                Err(Denied::SESSION_REVOKED)
            };
            assert_eq!(check(&rig, &tokens.access_token), wanted);
        }
        let evicted = rig.events().await;
        let evicted = evicted
            .iter()
            .filter(|e| e.topic == "identity.device.evicted");
        assert_eq!(evicted.count(), 45);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_disabled_during_logins_has_no_session() {
    each_backend(async |db: &TestDb| {
        let rig = Arc::new(Rig::new(db).await);
        let user = rig.user("anna").await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let mut logins = tokio::task::JoinSet::new();
        for n in 0..12 {
            let (rig, user) = (Arc::clone(&rig), user.clone());
            logins.spawn(async move {
                let device = json!({"platform": "ios", "device_id": format!("device-{n:03}")});
                log_in(&rig, &user, device).await
            });
        }
        let cx = rig.cx(&admin);
        users::disable(&rig.core, &cx, user.id, None, None)
            .await
            .expect("disabled");
        for result in logins.join_all().await {
            match result {
                Ok(result) => {
                    let token = result.tokens.expect("tokens").access_token;
                    assert!(check(&rig, &token).is_err(), "it was made before");
                }
                Err(error) => assert!(error.is(reason::ACCOUNT_DISABLED), "{error:?}"),
            }
        }
        assert!(live(&rig, &user).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_disowned_login_ends_and_its_password_is_worthless() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mine = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let theirs = tokens(&rig, &user, json!({"platform": "web"})).await;
        let unit = Unit::begin(&rig.core, &nobody(&rig)).await.unwrap();
        let mut secrets = store::secrets::get(&unit.tx, user.id).await.unwrap();
        secrets.password = Some(Secret::from("$argon2id$phc"));
        store::secrets::put(&unit.tx, &secrets).await.unwrap();
        let session = store::sessions::get(&unit.tx, theirs.session_id)
            .await
            .unwrap()
            .unwrap();
        let token = stranger::link(&unit, &session).await.unwrap();
        unit.commit().await.unwrap();
        let post = async |token: &str| {
            let body = json!({"token": token});
            rig.post(&Principal::anonymous(), "/stranger", body).await.0
        };
        assert_eq!(post("guessed").await, 401);
        assert_eq!(check(&rig, &theirs.access_token), Ok(()));
        assert_eq!(post(token.expose()).await, 204);
        assert_eq!(
            check(&rig, &theirs.access_token),
            Err(Denied::SESSION_REVOKED)
        );
        assert_eq!(check(&rig, &mine.access_token), Ok(()));
        let secrets = store::secrets::get(rig.core.db.reader(), user.id)
            .await
            .unwrap();
        assert!(secrets.password.is_none());
        assert_eq!(post(token.expose()).await, 401, "once");
        assert_eq!(rig.audit.count("identity.login.disowned"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_within_a_minute() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let code = async || {
            let tx = rig.core.db.begin().await.unwrap();
            let proof = proof(&user, json!({"platform": "web"}));
            let (code, _) = tickets::exchange_code(&rig.core, &tx, &proof).await.unwrap();
            tx.commit().await.unwrap();
            code
        };
        let body = |code: &Secret<String>| {
            json!({"code": code.expose(), "device": {"platform": "web"}, "transport": "body"})
        };
        let anonymous = Principal::anonymous();
        let redeem = async |body: Value| rig.post(&anonymous, "/login/exchange", body).await;
        let one = code().await;
        let (status, answer) = redeem(body(&one)).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
        assert!(answer["tokens"]["access_token"].is_string());
        assert_eq!(redeem(body(&one)).await.0, 401);
        let late = code().await;
        rig.advance(61);
        assert_eq!(redeem(body(&late)).await.0, 401);
        let (status, problem) =
            redeem(json!({"code": "x", "device": {"platform": "web", "name": "\u{7}"}})).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("device.name")));
        let (status, _) = redeem(json!({"code": "x", "device": {"platform": "toaster"}})).await;
        assert_eq!(status, 400);
    })
    .await;
}

#[tokio::test]
async fn what_a_tenant_offers_is_told_to_anybody() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let anonymous = Principal::anonymous();
        let (status, answer) = rig.get(&anonymous, "/login/methods").await;
        assert_eq!(status, 200);
        assert_eq!(answer["methods"], json!(["password", "sms"]));
        assert_eq!(
            (&answer["registration"], &answer["mail"]),
            (&json!("open"), &json!(false))
        );
        let key = "identity.login.methods";
        rig.settings.set(Some(OTHER), key, json!(["password"]));
        let (_, answer) = rig.get(&anonymous, "/login/methods?tenant=other").await;
        assert_eq!(answer["methods"], json!(["password"]));
        let (_, unknown) = rig.get(&anonymous, "/login/methods?tenant=nobodys").await;
        let (_, default) = rig.get(&anonymous, "/login/methods?tenant=default").await;
        assert_eq!(unknown, default);
    })
    .await;
}

#[tokio::test]
async fn time_ends_what_nobody_ends() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let idle = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let unit = Unit::begin(&rig.core, &nobody(&rig)).await.unwrap();
        let kind = one_time::Kind("test");
        let life = chrono::Duration::minutes(5);
        let holder = one_time::Holder::default();
        one_time::issue(&rig.core, &unit.tx, kind, holder, &(), life)
            .await
            .unwrap();
        unit.commit().await.unwrap();
        let sweep = async || crate::ops::sweep::sweep(&rig.core).await.unwrap();
        let row = async || {
            store::sessions::get(rig.core.db.reader(), idle.session_id)
                .await
                .unwrap()
        };
        sweep().await;
        assert_eq!(row().await.unwrap().revoked_at, None::<Timestamp>);
        assert!(
            rig.metrics
                .render(Format::Prometheus)
                .contains("portico_identity_sessions_active 1")
        );
        rig.advance(604_800);
        sweep().await;
        assert_eq!(
            row().await.unwrap().revoke_reason.as_deref(),
            Some("expired")
        );
        rig.advance(90 * 86_400 + 1);
        sweep().await;
        assert!(row().await.is_none());
        let devices = async || {
            let all = store::devices::of_user(rig.core.db.reader(), user.tenant, user.id).await;
            all.unwrap().len()
        };
        assert_eq!(devices().await, 1);
        rig.advance(90 * 86_400);
        sweep().await;
        assert_eq!(devices().await, 0);
    })
    .await;
}
