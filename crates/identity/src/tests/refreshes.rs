//! Refreshing on both databases: the table, races, ends, networks, fingerprints, cookies (ID-62, ID-95, ID-100…104, ID-124).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::body::Body;
use portico_base::envelope::MasterKeys;
use portico_base::{Context, Fault as _, Principal, Secret, Timestamp, id};
use portico_contract::tokens::{Denied, TokenVerifier as _};
use portico_db::metrics::Observed;
use portico_db::sea_query::SelectStatement;
use portico_db::testing::{TestDb, each_backend};
use portico_token::refresh as format;
use portico_web::Came;
use serde_json::json;
use uuid::Uuid;

use super::logins::{check, log_in, nobody, proof, tokens};
use super::rig::Rig;
use crate::domain::fingerprint::COMPONENTS;
use crate::domain::login::{Tokens, Transport};
use crate::domain::session::Session;
use crate::error::{Error, Result, reason};
use crate::ops::refresh::{self, Wish};
use crate::ops::{login, tickets, users};
use crate::store;
use crate::store::sessions::Filter;

fn wish(token: &Secret<String>) -> Wish {
    Wish {
        token: token.clone(),
        device_secret: None,
        fingerprint: BTreeMap::new(),
        cookie: false,
    }
}

async fn refresh(rig: &Rig, token: &Secret<String>) -> Result<Tokens> {
    refresh::refresh(&rig.core, &nobody(rig), &wish(token)).await
}

/// The same with the secret of the device.
async fn retry(rig: &Rig, token: &Secret<String>, secret: &Secret<String>) -> Result<Tokens> {
    let wish = Wish {
        device_secret: Some(secret.clone()),
        ..wish(token)
    };
    refresh::refresh(&rig.core, &nobody(rig), &wish).await
}

async fn row(rig: &Rig, session: Uuid) -> Session {
    store::sessions::get(rig.core.db.reader(), session)
        .await
        .expect("the database answers")
        .expect("the session")
}

async fn topics(rig: &Rig) -> Vec<String> {
    rig.events().await.into_iter().map(|e| e.topic).collect()
}

#[tokio::test]
async fn tokens_rotate_and_a_lost_answer_is_given_again() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let first = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let secret = first.device_secret.clone().unwrap();
        rig.advance(1_000);
        let second = refresh(&rig, &first.refresh_token).await.unwrap();
        assert_ne!(second.refresh_token, first.refresh_token);
        assert_eq!(second.session_id, first.session_id);
        assert_eq!(second.device_secret, None);
        assert_eq!(check(&rig, &second.access_token), Ok(()));
        rig.advance(10);
        let raced = refresh(&rig, &first.refresh_token).await.unwrap();
        assert_eq!(raced.refresh_token, second.refresh_token, "tabs raced");
        rig.advance(1);
        let late = retry(&rig, &first.refresh_token, &secret).await.unwrap();
        assert_eq!(
            late.refresh_token, second.refresh_token,
            "the answer was lost"
        );
        assert_eq!(rig.audit.count("identity.refresh.retried"), 1);
        let session = row(&rig, first.session_id).await;
        assert_eq!((session.rt_counter, session.rt_retried), (2, 1));
        let third = refresh(&rig, &second.refresh_token).await.unwrap();
        let session = row(&rig, first.session_id).await;
        assert_eq!((session.rt_counter, session.rt_retried), (3, 2));
        // The second late retry in a row is the leapfrog of a thief and a victim.
        rig.advance(11);
        let refused = retry(&rig, &second.refresh_token, &secret)
            .await
            .unwrap_err();
        assert!(refused.is(reason::REFRESH_INVALID));
        let ended = row(&rig, first.session_id).await;
        assert_eq!(ended.revoke_reason.as_deref(), Some("refresh_reused"));
        assert!(
            refresh(&rig, &third.refresh_token).await.is_err(),
            "everything has ended"
        );
        assert_eq!(
            check(&rig, &third.access_token),
            Err(Denied::SESSION_REVOKED)
        );
    })
    .await;
}

#[tokio::test]
async fn a_used_token_ends_the_session() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        // One behind and late without the secret, and two behind with it.
        for behind in [1, 2] {
            let first = tokens(&rig, &user, json!({"platform": "ios"})).await;
            let other = tokens(&rig, &user, json!({"platform": "tv"})).await;
            let mut newest = first.clone();
            for _ in 0..behind {
                newest = refresh(&rig, &newest.refresh_token).await.unwrap();
            }
            rig.advance(11);
            let refused = if behind == 1 {
                refresh(&rig, &first.refresh_token).await
            } else {
                let secret = first.device_secret.as_ref().unwrap();
                retry(&rig, &first.refresh_token, secret).await
            };
            assert!(refused.unwrap_err().is(reason::REFRESH_INVALID));
            assert_eq!(
                check(&rig, &newest.access_token),
                Err(Denied::SESSION_REVOKED)
            );
            assert_eq!(
                check(&rig, &other.access_token),
                Ok(()),
                "other devices go on"
            );
            refresh(&rig, &other.refresh_token).await.unwrap();
        }
        let reused = topics(&rig).await;
        let reused = reused
            .iter()
            .filter(|t| *t == "identity.refresh.reused")
            .count();
        assert_eq!(reused, 2);
        assert_eq!(rig.audit.count("identity.refresh.reused"), 2);
        let history = store::logins::of_user(rig.core.db.reader(), user.tenant, user.id, None, 50);
        let history = history.await.unwrap();
        assert_eq!(
            history
                .iter()
                .filter(|e| e.kind == "refresh_reused")
                .count(),
            2
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_refreshes_of_one_token_are_one_step() {
    each_backend(async |db: &TestDb| {
        let rig = Arc::new(Rig::new(db).await);
        let user = rig.user("anna").await;
        let first = tokens(&rig, &user, json!({"platform": "web"})).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (rig, token) = (Arc::clone(&rig), first.refresh_token.clone());
            tasks.spawn(async move { refresh(&rig, &token).await.expect("new tokens") });
        }
        let all = tasks.join_all().await;
        assert!(all.iter().all(|t| t.refresh_token == all[0].refresh_token));
        assert!(all.iter().all(|t| check(&rig, &t.access_token) == Ok(())));
        assert_eq!(row(&rig, first.session_id).await.rt_counter, 2);
    })
    .await;
}

#[tokio::test]
async fn whoever_copies_the_database_refreshes_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let good = tokens(&rig, &user, json!({"platform": "web"})).await;
        let session = row(&rig, good.session_id).await;
        // Everything that the row tells, without the master key.
        let guessed = MasterKeys::new(&session.rt_kid, [8; 32]);
        let key = format::session_key(&guessed, &session.rt_kid, session.id).unwrap();
        let forged = format::encode(&key, session.id, session.rt_counter);
        let ahead = {
            let key = format::session_key(&rig.core.keys, &session.rt_kid, session.id).unwrap();
            format::encode(&key, session.id, session.rt_counter + 1)
        };
        let unknown = {
            let id = Uuid::from_u128(7);
            let key = format::session_key(&rig.core.keys, &session.rt_kid, id).unwrap();
            format::encode(&key, id, 1)
        };
        for bad in [
            forged,
            ahead,
            unknown,
            Secret::from("ptr_"),
            Secret::from(""),
        ] {
            let refused = refresh(&rig, &bad).await.unwrap_err();
            assert!(refused.is(reason::REFRESH_INVALID), "{refused:?}");
        }
        refresh(&rig, &good.refresh_token)
            .await
            .expect("nothing happened to it");
    })
    .await;
}

#[tokio::test]
async fn a_refresh_reads_the_user_anew() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let first = tokens(&rig, &user, json!({"platform": "web"})).await;
        let tx = rig.core.db.begin().await.unwrap();
        let auditor = crate::domain::role::built_in_id("auditor").unwrap();
        store::roles::grant(
            &tx,
            user.tenant,
            user.id,
            auditor,
            "test",
            rig.core.clock.now(),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let second = refresh(&rig, &first.refresh_token).await.unwrap();
        let now_s = rig.core.clock.now().timestamp();
        let verified = rig
            .core
            .edge
            .verify(second.access_token.expose(), now_s)
            .unwrap();
        assert_eq!(verified.principal.roles[..], ["auditor", "user"]);

        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        users::disable(&rig.core, &rig.cx(&admin), user.id, None, None)
            .await
            .unwrap();
        let refused = refresh(&rig, &second.refresh_token).await.unwrap_err();
        assert!(refused.is(reason::ACCOUNT_DISABLED));
        users::enable(&rig.core, &rig.cx(&admin), user.id)
            .await
            .unwrap();
        let refused = refresh(&rig, &second.refresh_token).await.unwrap_err();
        assert!(
            refused.is(reason::REFRESH_INVALID),
            "it has ended all the same"
        );
        let Error::With(_, members) = refused else {
            panic!("no reason")
        };
        assert_eq!(members["reason"], "disabled");
    })
    .await;
}

#[tokio::test]
async fn sessions_end_idle_or_old_and_administrators_sooner() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let idle = tokens(&rig, &user, json!({"platform": "web"})).await;
        rig.advance(604_800);
        assert!(refresh(&rig, &idle.refresh_token).await.is_err());

        let mut used = tokens(&rig, &user, json!({"platform": "web"})).await;
        let began = rig.core.clock.now();
        for _ in 0..14 {
            rig.advance(6 * 86_400);
            used = refresh(&rig, &used.refresh_token).await.unwrap();
        }
        rig.advance(6 * 86_400 - 600);
        used = refresh(&rig, &used.refresh_token).await.unwrap();
        assert_eq!(
            (used.expires_in, used.refresh_expires_in),
            (600, 600),
            "cut at the end"
        );
        rig.advance(600);
        assert_eq!((rig.core.clock.now() - began).num_days(), 90);
        assert!(refresh(&rig, &used.refresh_token).await.is_err());

        rig.set("identity.mfa.admin", json!("optional"));
        let boss = rig
            .add_user(id::TENANT_DEFAULT, "boss", &["tenant_admin"])
            .await;
        let mut used = tokens(&rig, &boss, json!({"platform": "web"})).await;
        assert_eq!(used.refresh_expires_in, 28_800);
        for _ in 0..3 {
            rig.advance(7 * 3_600);
            used = refresh(&rig, &used.refresh_token).await.unwrap();
        }
        rig.advance(3 * 3_600);
        assert!(
            refresh(&rig, &used.refresh_token).await.is_err(),
            "24 hours"
        );
        let used = tokens(&rig, &boss, json!({"platform": "web"})).await;
        rig.advance(28_800);
        assert!(
            refresh(&rig, &used.refresh_token).await.is_err(),
            "idle for 8 hours"
        );

        // Whoever becomes an administrator has an administrator's time from the login on.
        let used = tokens(&rig, &user, json!({"platform": "web"})).await;
        let tx = rig.core.db.begin().await.unwrap();
        let role = crate::domain::role::built_in_id("tenant_admin").unwrap();
        let now: Timestamp = rig.core.clock.now();
        store::roles::grant(&tx, user.tenant, user.id, role, "test", now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        rig.advance(86_400);
        assert!(refresh(&rig, &used.refresh_token).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_bound_session_stays_on_its_network() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let from = |address: &str| -> Context {
            let mut cx = nobody(&rig);
            cx.caller.address = Some(address.parse().unwrap());
            cx
        };
        let free = tokens(&rig, &user, json!({"platform": "web"})).await;
        let wished = wish(&free.refresh_token);
        let moved = refresh::refresh(&rig.core, &from("198.51.100.9"), &wished).await;
        moved.expect("not bound");
        rig.set("identity.token.ip_binding", json!("all"));
        let bound = tokens(&rig, &user, json!({"platform": "web"})).await;
        let now_s = rig.core.clock.now().timestamp();
        let verified = rig
            .core
            .edge
            .verify(bound.access_token.expose(), now_s)
            .unwrap();
        assert_ne!(verified.stamp.unwrap().network, 0);
        let elsewhere = rig
            .core
            .edge
            .check(&verified, Some("198.51.100.9".parse().unwrap()));
        assert_eq!(elsewhere, Err(Denied::IP_MISMATCH));
        let wished = wish(&bound.refresh_token);
        let refused = refresh::refresh(&rig.core, &from("198.51.100.9"), &wished).await;
        assert!(refused.unwrap_err().is(reason::IP_MISMATCH));
        assert_eq!(rig.audit.count("identity.session.ip_mismatch"), 1);
        let same = refresh::refresh(&rig.core, &from("203.0.113.200"), &wished).await;
        same.expect("the same /24");
        rig.set("identity.token.ip_binding", json!("admins"));
        let mine = tokens(&rig, &user, json!({"platform": "web"})).await;
        let wished = wish(&mine.refresh_token);
        refresh::refresh(&rig.core, &from("198.51.100.9"), &wished)
            .await
            .expect("no administrator");
    })
    .await;
}

/// A fingerprint of which some components are other ones.
fn print(changed: &[&str]) -> BTreeMap<String, String> {
    let of = |name: &str| if changed.contains(&name) { "b" } else { "a" };
    COMPONENTS
        .iter()
        .map(|(name, _)| ((*name).to_owned(), of(name).to_owned()))
        .collect()
}

/// Refreshes from a device of which some components have changed.
async fn changed(rig: &Rig, token: &Secret<String>, names: &[&str]) -> Result<Tokens> {
    let wish = Wish {
        fingerprint: print(names),
        ..wish(token)
    };
    refresh::refresh(&rig.core, &nobody(rig), &wish).await
}

#[tokio::test]
async fn a_changed_device_is_noted_and_must_authenticate_again() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let scores = async || {
            let all = store::logins::of_user(rig.core.db.reader(), user.tenant, user.id, None, 50);
            let all = all.await.unwrap().into_iter();
            let mut scores: Vec<i64> = all
                .filter(|e| e.kind == "fingerprint")
                .map(|e| e.detail["score"].as_i64().unwrap())
                .collect();
            scores.sort_unstable();
            scores
        };
        let device = json!({"platform": "ios", "fingerprint": print(&[])});
        let login = tokens(&rig, &user, device).await;
        let one = changed(&rig, &login.refresh_token, &["os", "app"])
            .await
            .unwrap();
        assert!(scores().await.is_empty(), "an update is no attack");
        let names = ["os", "app", "model", "screen"];
        let two = changed(&rig, &one.refresh_token, &names).await.unwrap();
        assert_eq!(scores().await, [30]);
        let same = changed(&rig, &two.refresh_token, &names).await.unwrap();
        assert_eq!(scores().await, [30], "told once");
        let session = row(&rig, login.session_id).await;
        assert_ne!(session.auth_time, Timestamp::default());
        // Back again, and more besides.
        let names = ["platform", "language"];
        let weak = changed(&rig, &same.refresh_token, &names).await.unwrap();
        assert_eq!(scores().await, [30, 80]);
        let session = row(&rig, login.session_id).await;
        assert_eq!((session.aal, session.auth_time), (1, Timestamp::default()));
        let now_s = rig.core.clock.now().timestamp();
        let verified = rig.core.edge.verify(weak.access_token.expose(), now_s);
        assert!(verified.unwrap().principal.fresh_until_s < now_s);
    })
    .await;
}

#[tokio::test]
async fn a_token_on_quite_another_device_ends_the_session() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let all = COMPONENTS.map(|(name, _)| name);
        let device = json!({"platform": "ios", "fingerprint": print(&[])});
        let login = tokens(&rig, &user, device).await;
        let refused = changed(&rig, &login.refresh_token, &all).await.unwrap_err();
        assert!(refused.is(reason::SESSION_REVOKED), "{refused:?}");
        let over = Err(Denied::SESSION_REVOKED);
        assert_eq!(check(&rig, &login.access_token), over);
        let events = topics(&rig).await;
        assert!(events.iter().any(|t| t == "identity.fingerprint.jumped"));
        // The secret of that device proves nothing any more: the next login with it is a new device.
        let secret = login.device_secret.as_ref().unwrap().expose().clone();
        let wished = json!({"platform": "ios", "device_id": login.device_id,
            "device_secret": secret, "fingerprint": print(&all)});
        let fresh = tokens(&rig, &user, wished).await;
        assert!(fresh.device_secret.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_stolen_device_secret_is_no_known_device() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let print = |mark: &str| {
            json!({"platform": mark, "model": mark, "browser": mark, "os": mark, "app": mark,
                "screen": mark, "language": mark, "time_zone": mark})
        };
        let mine = json!({"platform": "ios", "device_id": "annas-phone", "fingerprint": print("a")});
        let mine = tokens(&rig, &user, mine).await;
        let stolen = json!({"platform": "web", "device_id": "annas-phone",
            "device_secret": mine.device_secret.as_ref().unwrap().expose(), "fingerprint": print("b")});
        let theirs = tokens(&rig, &user, stolen).await;
        assert_ne!(theirs.device_id, "annas-phone");
        assert_eq!(check(&rig, &mine.access_token), Err(Denied::SESSION_REVOKED));
        assert!(topics(&rig).await.iter().any(|t| t == "identity.fingerprint.jumped"));
    })
    .await;
}

#[tokio::test]
async fn refreshes_are_limited_by_session_and_bad_ones_by_address() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut mine = tokens(&rig, &user, json!({"platform": "web"})).await;
        for _ in 0..60 {
            mine = refresh(&rig, &mine.refresh_token)
                .await
                .expect("one of sixty");
        }
        let refused = refresh(&rig, &mine.refresh_token).await.unwrap_err();
        assert!(refused.is(reason::RATE_LIMITED) && refused.retry_after_s().is_some());
        let other = tokens(&rig, &user, json!({"platform": "tv"})).await;
        refresh(&rig, &other.refresh_token)
            .await
            .expect("another session");
        let bad = Secret::from("ptr_bad");
        let mut limited = false;
        for _ in 0..1_000 {
            let refused = refresh(&rig, &bad).await.unwrap_err();
            if refused.is(reason::RATE_LIMITED) {
                limited = true;
                break;
            }
        }
        assert!(limited);
        refresh(&rig, &other.refresh_token)
            .await
            .expect("good tokens of that address still work");
    })
    .await;
}

#[tokio::test]
async fn a_browser_refreshes_by_cookie() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let tx = rig.core.db.begin().await.unwrap();
        let waiting = proof(&user, json!({"platform": "web"}));
        let (code, _) = tickets::exchange_code(&rig.core, &tx, &waiting)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let anonymous = Principal::anonymous();
        let request = |path: &str, csrf: bool| {
            http::Request::post(path)
                .header("content-type", "application/json")
                .header("host", "auth.example")
                .header("origin", "https://auth.example")
                .extension(Came { https: true, csrf })
        };
        let body =
            json!({"code": code.expose(), "device": {"platform": "web"}, "transport": "cookie"});
        let sent = Body::from(body.to_string());
        let answer = rig
            .send(&anonymous, request("/login/exchange", true), sent)
            .await;
        let cookies = |answer: &axum::response::Response| -> BTreeMap<String, String> {
            let all = answer.headers().get_all("set-cookie").iter();
            all.map(|v| {
                let text = v.to_str().unwrap().split(';').next().unwrap();
                let (name, value) = text.split_once('=').unwrap();
                (name.to_owned(), value.to_owned())
            })
            .collect()
        };
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut jar = cookies(&answer);
        assert_eq!(jar.len(), 3);
        let (status, told) = super::rig::read(answer).await;
        assert_eq!(status, 200);
        assert!(
            told["tokens"].is_null() && told["session"]["expires_in"] == 1_800,
            "{told}"
        );
        assert!(!told.to_string().contains("ptr_"), "no token in the body");

        let refresh_by = async |jar: &BTreeMap<String, String>, csrf: bool| {
            let cookie = format!("__Secure-portico_rt={}", jar["__Secure-portico_rt"]);
            let request = request("/token/refresh", csrf).header("cookie", cookie);
            rig.send(&anonymous, request, Body::empty()).await
        };
        assert_eq!(refresh_by(&jar, false).await.status(), 403);
        let answer = refresh_by(&jar, true).await;
        assert_eq!(answer.status(), 200);
        let before = jar.clone();
        jar.extend(cookies(&answer));
        assert_ne!(jar["__Secure-portico_rt"], before["__Secure-portico_rt"]);
        // What a script sends is not what a cookie holds.
        let stolen = json!({"refresh_token": jar["__Secure-portico_rt"]});
        let (status, problem) = rig.post(&anonymous, "/token/refresh", stolen).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("identity.refresh_invalid"))
        );
        rig.advance(11);
        let reused = refresh_by(&before, true).await;
        assert_eq!(reused.status(), 401);
        assert_eq!(cookies(&reused)["__Secure-portico_rt"], "", "taken back");
        assert!(
            log_in(&rig, &user, json!({"platform": "web"}))
                .await
                .is_ok()
        );
    })
    .await;
}

#[tokio::test]
async fn a_cookie_session_is_made_for_cookies_only() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut waiting = proof(&user, json!({"platform": "web"}));
        waiting.transport = Transport::Cookie;
        let result = login::finish(&rig.core, &nobody(&rig), waiting)
            .await
            .unwrap();
        assert!(result.tokens.is_none());
        let brief = result.session.clone().unwrap();
        let hidden = result.cookies.clone().unwrap();
        assert_eq!(brief.session_id, hidden.session_id);
        let text = serde_json::to_string(&result).unwrap();
        assert!(!text.contains(hidden.access_token.expose()));
        assert!(!text.contains(hidden.device_secret.unwrap().expose()));
        assert!(refresh(&rig, &hidden.refresh_token).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_refresh_is_one_read_and_one_write() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut mine = tokens(&rig, &user, json!({"platform": "web"})).await;
        mine = refresh(&rig, &mine.refresh_token).await.unwrap();
        let statements = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&statements);
        rig.core.db.metrics().observe(move |what, _| {
            if matches!(what, Observed::Query(_)) {
                counted.fetch_add(1, Relaxed);
            }
        });
        for _ in 0..10 {
            mine = refresh(&rig, &mine.refresh_token).await.unwrap();
        }
        // The session as it stands, the compare-and-set, the commit.
        assert_eq!(statements.load(Relaxed), 30);
    })
    .await;
}

#[tokio::test]
async fn sessions_are_found_by_index() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let plan = async |statement: SelectStatement| db.db.explain(&statement).await.unwrap();
        let whole = |plan: &str| {
            let lines = plan.lines().map(str::trim);
            let scans = |line: &str| {
                let word = line.trim_start_matches(['-', '>', ' ']);
                word.starts_with("Seq Scan")
                    || (word.starts_with("SCAN") && !word.contains("INDEX"))
            };
            lines.filter(|line| scans(line)).count()
        };
        let one = plan(store::sessions::standing_statement(Uuid::nil())).await;
        assert_eq!(whole(&one), 0, "{one}");
        let now = rig.core.clock.now();
        for filter in [
            Filter::default(),
            Filter {
                ended: true,
                after: Some((now, Uuid::nil())),
                ..Filter::default()
            },
        ] {
            let statement = store::sessions::list_statement(id::TENANT_DEFAULT, &filter, now, 51);
            let list = plan(statement).await;
            assert!(list.contains("ix_sessions_tenant"), "{list}");
            assert_eq!(whole(&list), 0, "{list}");
            assert!(
                !list.contains("TEMP B-TREE") && !list.contains("Sort "),
                "{list}"
            );
        }
    })
    .await;
}
