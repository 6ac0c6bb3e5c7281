//! Linking and unlinking Apple, its notices, and telling it that an account has ended (ID-69, ID-70, ID-84).

use std::sync::atomic::Ordering::SeqCst;

use portico_base::{Context, Principal, id};
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::{Queue, Ran};
use serde_json::{Value, json};

use super::apple::{House, code};
use super::apple_standin::{BUNDLE, Behaviour};
use super::rig::OTHER;
use crate::domain::user::{User, UserStatus};
use crate::unit::Unit;
use crate::{ops, store};

fn queue(house: &House) -> Queue {
    let core = &house.rig.core;
    let handler = ops::apple::handler(core);
    Queue::new(
        core.db.clone(),
        core.clock.clone(),
        core.random.clone(),
        "me",
        [handler],
    )
}

/// What an app sends to link an identity.
async fn statement(house: &House, subject: &str) -> Value {
    let (claims, nonce) = house.claims(subject).await;
    json!({
        "provider": "apple", "id_token": house.apple.sign(&claims), "nonce": nonce,
        "code": house.apple.code(BUNDLE, subject, None),
    })
}

async fn with_password(house: &House, user: &User) {
    let tx = house.rig.core.db.begin().await.unwrap();
    let mut secrets = store::secrets::get(&tx, user.id).await.unwrap();
    secrets.password = Some(portico_base::Secret::from("$argon2id$x"));
    store::secrets::put(&tx, &secrets).await.unwrap();
    tx.commit().await.unwrap();
}

async fn unlink(house: &House, who: &Principal, user: &User) -> (u16, Value) {
    let all = house.identities(user).await;
    let path = format!("/me/identities/{}", all[0].id);
    house.rig.call(who, "DELETE", &path, Value::Null).await
}

/// Posts a notice as Apple does.
async fn tell(house: &House, kind: &str, subject: &str, more: Value) -> (u16, Value) {
    let now = house.rig.core.clock.now();
    let event = json!({
        "type": kind, "sub": subject, "event_time": now.timestamp_millis(),
        "email": "x@privaterelay.appleid.com", "is_private_email": "true",
    });
    let mut claims = json!({
        "iss": "https://appleid.apple.com", "aud": BUNDLE, "iat": now.timestamp(),
        "exp": now.timestamp() + 86_400, "jti": format!("jti-{kind}"),
        "events": event.to_string(),
    });
    for (key, value) in more.as_object().unwrap() {
        claims[key] = value.clone();
    }
    house
        .post(
            "/webhooks/apple",
            json!({"payload": house.apple.sign(&claims)}),
        )
        .await
}

async fn live_sessions(house: &House, user: &User) -> usize {
    let conn = house.rig.core.db.reader();
    store::sessions::live(conn, user.id).await.unwrap().len()
}

#[tokio::test]
async fn an_account_has_one_apple_identity_and_an_identity_one_account() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (anna, bert) = (house.rig.user("anna").await, house.rig.user("bert").await);
        let (anna_in, bert_in) = (
            house.rig.principal(&anna).await,
            house.rig.principal(&bert).await,
        );
        let link =
            async |who: &Principal, body: Value| house.rig.post(who, "/me/identities", body).await;
        let (status, linked) = link(&anna_in, statement(&house, "001.a").await).await;
        assert_eq!(
            (status, &linked["email_enabled"]),
            (201, &json!(true)),
            "{linked}"
        );
        let (status, again) = link(&anna_in, statement(&house, "001.a").await).await;
        assert_eq!((status, &again["id"]), (201, &linked["id"]), "linked once");
        let second = link(&anna_in, statement(&house, "001.b").await).await;
        assert_eq!(code(&second), (409, "identity.identity_exists"));
        let taken = link(&bert_in, statement(&house, "001.a").await).await;
        assert_eq!(code(&taken), (409, "identity.identity_taken"));
        assert_eq!(house.rig.audit.count("identity.apple.linked"), 1);
        let (_, listed) = house.rig.get(&anna_in, "/me/identities").await;
        assert_eq!(listed["items"][0]["id"], linked["id"]);
        let (_, listed) = house.rig.get(&bert_in, "/me/identities").await;
        assert_eq!(listed["items"], json!([]));
        let theirs = format!("/me/identities/{}", linked["id"].as_str().unwrap());
        let stolen = house
            .rig
            .call(&bert_in, "DELETE", &theirs, Value::Null)
            .await;
        assert_eq!(stolen.0, 404);
        for bad in [
            json!({"provider": "apple"}),
            json!({"provider": "apple", "ticket": "t", "nonce": "n"}),
            json!({"provider": "apple", "id_token": "a.b.c"}),
            json!({"provider": "evil", "ticket": "t"}),
        ] {
            assert_eq!(link(&bert_in, bad.clone()).await.0, 400, "{bad}");
        }
        let replayed = statement(&house, "001.b").await;
        assert_eq!(link(&bert_in, replayed.clone()).await.0, 201);
        let again = link(&bert_in, replayed).await;
        assert_eq!(
            code(&again),
            (401, "identity.apple_token_invalid"),
            "a nonce is good once"
        );
    })
    .await;
}

#[tokio::test]
async fn the_last_way_in_stays_and_apple_is_told_of_the_others() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", Some("anna@example.com")).await;
        let who = house.rig.principal(&anna).await;
        let last = unlink(&house, &who, &anna).await;
        assert_eq!(code(&last), (409, "identity.last_method"));
        with_password(&house, &anna).await;
        let mut stale = who.clone();
        stale.fresh_until_s = 0;
        assert_eq!(
            code(&unlink(&house, &stale, &anna).await),
            (401, "identity.step_up_required")
        );
        // The way that is left is none where it is switched off.
        house
            .rig
            .set("identity.login.methods", json!(["apple", "sms"]));
        assert_eq!(unlink(&house, &who, &anna).await.0, 409);
        house.rig.set(
            "identity.login.methods",
            json!(["password", "apple", "sms"]),
        );
        house.rig.audit.take();
        assert_eq!(unlink(&house, &who, &anna).await.0, 204);
        assert_eq!(house.rig.audit.take(), ["identity.apple.unlinked"]);
        assert!(house.identities(&anna).await.is_empty());

        let queue = queue(&house);
        house.apple.behave(Behaviour::Broken);
        assert!(matches!(
            queue.work_off().await.unwrap()[..],
            [(_, Ran::Retried)]
        ));
        assert!(house.apple.revoked().is_empty());
        house.apple.behave(Behaviour::Well);
        house.rig.advance(300);
        assert_eq!(
            queue.work_off().await.unwrap(),
            [("identity.apple.revoke", Ran::Done)]
        );
        assert_eq!(house.apple.revoked(), ["r0.001.anna"]);
        assert_eq!(house.apple.refused(), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_an_account_is_told_to_apple_ten_times_over_a_day() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", None).await;
        let cx: Context = house.rig.core.own_context("test");
        let unit = Unit::begin(&house.rig.core, &cx).await.unwrap();
        assert_eq!(ops::apple::revoke_all(&unit, &anna).await.unwrap(), 1);
        drop(unit);
        assert_eq!(
            house.identities(&anna).await.len(),
            1,
            "undone with its unit"
        );
        let unit = Unit::begin(&house.rig.core, &cx).await.unwrap();
        ops::apple::revoke_all(&unit, &anna).await.unwrap();
        unit.commit().await.unwrap();
        assert!(house.identities(&anna).await.is_empty());

        let queue = queue(&house);
        house.apple.behave(Behaviour::Broken);
        let (began, mut tries) = (house.rig.core.clock.now(), 0);
        let last = loop {
            match queue.work_off().await.unwrap().as_slice() {
                [] => house.rig.advance(300),
                [(_, Ran::Retried)] => tries += 1,
                [(_, ran)] => break *ran,
                more => panic!("{more:?}"),
            }
        };
        assert_eq!((last, tries), (Ran::Dead, 9));
        let hours = (house.rig.core.clock.now() - began).num_hours();
        assert!((12..=30).contains(&hours), "{hours} h");
        assert_eq!(house.apple.shared.revocations_asked.load(SeqCst), 10);
    })
    .await;
}

#[tokio::test]
async fn revoked_consent_ends_sessions_and_unlinks() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", Some("anna@example.com")).await;
        let bert = house.user("001.bert", None).await;
        assert_eq!(live_sessions(&house, &anna).await, 1);
        house.rig.advance(1);
        house.rig.audit.take();
        assert_eq!(
            tell(&house, "consent-revoked", "001.anna", json!({}))
                .await
                .0,
            200
        );
        assert_eq!(house.rig.audit.take(), ["identity.apple.consent_revoked"]);
        assert!(house.identities(&anna).await.is_empty());
        assert_eq!(live_sessions(&house, &anna).await, 0);
        let after = house.rig.get_user(anna.tenant, anna.id).await;
        assert_eq!((after.status, after.tv), (UserStatus::Active, anna.tv + 1));
        assert_eq!(live_sessions(&house, &bert).await, 1, "nobody else's");

        // The same notice again changes nothing, not even after the identity is linked again.
        let who = house.rig.principal(&after).await;
        let (status, _) = house
            .rig
            .post(&who, "/me/identities", statement(&house, "001.anna").await)
            .await;
        assert_eq!(status, 201);
        house.rig.audit.take();
        // One that was late: consent has been given again since.
        let before = (house.rig.core.clock.now().timestamp() - 60) * 1_000;
        let event = json!({"type": "consent-revoked", "sub": "001.anna", "event_time": before});
        let late = json!({"events": event.to_string(), "jti": "late"});
        assert_eq!(
            tell(&house, "consent-revoked", "001.anna", late).await.0,
            200
        );
        assert_eq!(house.identities(&anna).await.len(), 1);
        assert!(house.rig.audit.take().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_notice_is_taken_once_in_thirty_days() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", None).await;
        let enabled = async || house.identities(&anna).await[0].email_enabled;
        for (kind, on) in [("email-disabled", false), ("email-enabled", true)] {
            assert_eq!(tell(&house, kind, "001.anna", json!({})).await.0, 200);
            assert_eq!(enabled().await, on, "{kind}");
        }
        let asked = house.rig.audit.count("identity.apple.email_switched");
        assert_eq!(asked, 2);
        // Sent again by Apple, at once and after weeks, also to another replica.
        let again = || tell(&house, "email-disabled", "001.anna", json!({}));
        let all = futures_util::future::join_all((0..8).map(|_| again())).await;
        assert!(all.iter().all(|(status, _)| *status == 200), "{all:?}");
        house.rig.advance(29 * 86_400);
        ops::sweep::sweep(&house.rig.core).await.unwrap();
        assert_eq!(again().await.0, 200);
        assert!(enabled().await);
        house.rig.advance(86_400 + 1);
        ops::sweep::sweep(&house.rig.core).await.unwrap();
        assert_eq!(again().await.0, 200);
        assert!(!enabled().await, "after thirty days it is a new one");
    })
    .await;
}

#[tokio::test]
async fn a_notice_reaches_every_tenant_of_the_team_and_no_other() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", None).await;
        let wish = json!({"tenant": "other"});
        let (_, made) = house.post("/login/apple/nonce", wish.clone()).await;
        let nonce = made["nonce"].as_str().unwrap();
        let claims = house
            .apple
            .claims(BUNDLE, "001.anna", &ops::apple::hashed(nonce));
        let (status, answer) = house.show(&house.apple.sign(&claims), nonce, wish).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        let other = house.rig.get_user(OTHER, id).await;
        house
            .rig
            .settings
            .set(Some(OTHER), "identity.apple.team_id", json!("OTHERTEAM1"));
        assert_eq!(
            tell(&house, "email-disabled", "001.anna", json!({}))
                .await
                .0,
            200
        );
        assert!(!house.identities(&anna).await[0].email_enabled);
        assert!(
            house.identities(&other).await[0].email_enabled,
            "another team's account"
        );
        house.rig.settings.set(
            Some(OTHER),
            "identity.apple.team_id",
            json!(super::apple_standin::TEAM),
        );
        house.rig.advance(1);
        let more = json!({"jti": "second"});
        assert_eq!(
            tell(&house, "consent-revoked", "001.anna", more).await.0,
            200
        );
        assert!(house.identities(&anna).await.is_empty());
        assert!(house.identities(&other).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn notices_that_are_not_apples_change_nothing() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", None).await;
        house.rig.advance(1);
        let now_s = house.rig.core.clock.now().timestamp();
        for (name, more) in [
            ("iss", json!({"iss": "https://evil.example"})),
            ("aud", json!({"aud": "com.evil.app"})),
            ("exp", json!({"exp": now_s})),
            ("iat", json!({"iat": now_s + 3_600})),
            ("jti", json!({"jti": null})),
            ("events", json!({"events": null})),
            ("events is no JSON", json!({"events": "{"})),
            ("events names nobody", json!({"events": "{\"type\":\"consent-revoked\",\"event_time\":1}"})),
            ("twice", json!({"events": "{\"type\":\"x\",\"type\":\"consent-revoked\",\"sub\":\"001.anna\",\"event_time\":1}"})),
        ] {
            let answer = tell(&house, "consent-revoked", "001.anna", more).await;
            assert_eq!(code(&answer), (401, "identity.apple_token_invalid"), "{name}");
        }
        // A login's statement is no notice, and a notice no login's statement.
        let (claims, nonce) = house.claims("001.anna").await;
        let body = json!({"payload": house.apple.sign(&claims)});
        assert_eq!(house.post("/webhooks/apple", body).await.0, 401);
        let events = json!({"type": "consent-revoked", "sub": "001.anna", "event_time": 1});
        let notice = json!({
            "iss": "https://appleid.apple.com", "aud": BUNDLE, "iat": now_s, "exp": now_s + 60,
            "jti": "j", "events": events.to_string(),
        });
        assert_eq!(house.show(&house.apple.sign(&notice), &nonce, json!({})).await.0, 401);
        for body in [json!({}), json!({"payload": 7}), json!([])] {
            assert_eq!(house.post("/webhooks/apple", body.clone()).await.0, 400, "{body}");
        }
        let large = json!({"payload": "x".repeat(70_000)});
        assert_eq!(house.post("/webhooks/apple", large).await.0, 413);
        assert_eq!(tell(&house, "something-new", "001.anna", json!({})).await.0, 200);
        assert_eq!(tell(&house, "consent-revoked", "001.nobody", json!({})).await.0, 200);
        assert_eq!(house.identities(&anna).await.len(), 1);
        assert_eq!(live_sessions(&house, &anna).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_apple_account_ends_the_account() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        for (number, kind) in ["account-deleted", "account-delete"]
            .into_iter()
            .enumerate()
        {
            let subject = format!("001.gone{number}");
            let user = house.user(&subject, None).await;
            house.rig.advance(1);
            house.rig.audit.take();
            assert_eq!(tell(&house, kind, &subject, json!({})).await.0, 200);
            let actions = house.rig.audit.take();
            assert_eq!(actions[0], "identity.apple.account_deleted");
            assert!(
                actions.contains(&"identity.user.erasure_started"),
                "{actions:?}"
            );
            assert!(house.identities(&user).await.is_empty());
            assert_eq!(live_sessions(&house, &user).await, 0);
            let after = house.rig.get_user(user.tenant, user.id).await;
            assert_eq!(after.status, UserStatus::Deleted);
        }
        // Whoever has another way in can come back by it.
        let anna = house.user("001.anna", Some("anna@example.com")).await;
        with_password(&house, &anna).await;
        house.rig.advance(1);
        let more = json!({"jti": "anna"});
        assert_eq!(
            tell(&house, "account-deleted", "001.anna", more).await.0,
            200
        );
        let after = house.rig.get_user(anna.tenant, anna.id).await;
        assert_eq!(
            (after.status, after.delete_at.is_some()),
            (UserStatus::Active, true)
        );
        assert_eq!(live_sessions(&house, &anna).await, 0);
        // Whoever must be kept is only logged out.
        let mut kept = house.user("001.kept", None).await;
        kept.legal_hold = true;
        let tx = house.rig.core.db.begin().await.unwrap();
        store::users::put(&tx, &kept).await.unwrap();
        tx.commit().await.unwrap();
        house.rig.advance(1);
        let more = json!({"jti": "kept"});
        assert_eq!(
            tell(&house, "account-deleted", "001.kept", more).await.0,
            200
        );
        let after = house.rig.get_user(kept.tenant, kept.id).await;
        assert_eq!((after.status, after.delete_at), (UserStatus::Active, None));
        assert_eq!(live_sessions(&house, &kept).await, 0);
        assert!(house.identities(&kept).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_deleted_user_frees_the_identity() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anna = house.user("001.anna", Some("anna@example.com")).await;
        let admin = house.rig.tenant_admin(id::TENANT_DEFAULT).await;
        let path = format!("/users/{}", anna.id);
        assert_eq!(
            house.rig.call(&admin, "DELETE", &path, Value::Null).await.0,
            204
        );
        let again = house.user("001.anna", Some("anna@example.com")).await;
        assert_ne!(again.id, anna.id, "a new account");
        assert_eq!(queue(&house).work_off().await.unwrap().len(), 1);
        assert_eq!(house.apple.revoked(), ["r0.001.anna"]);
    })
    .await;
}
