//! Authenticating again: by a second factor, by a password, and by nothing that belongs to somebody else (ID-77).

use std::sync::Arc;

use portico_base::{Principal, PrincipalKind, Secret, id};
use portico_db::testing::{TestDb, each_backend};
use portico_web::StepUp as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::factors::{Person, anna, claims};
use super::rig::Rig;
use crate::ops::step_up::Challenger;
use crate::store;
use crate::unit::Unit;

async fn stepping_up(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, who) = anna(&rig).await;
    let session = who.session.as_deref().expect("a session").to_owned();
    rig.advance(600);
    let stale = Principal {
        aal: 1,
        fresh_until_s: 0,
        ..who.clone()
    };
    let challenger = Challenger(Arc::clone(&rig.core));
    let challenge = challenger.challenge(&stale).await.expect("a challenge");
    assert_eq!(challenge.methods, ["totp", "recovery_code"]);
    let ticket = challenge.ticket.expose().clone();

    let (status, problem) = rig
        .post(
            &stale,
            "/step-up",
            json!({"ticket": ticket, "code": "000000"}),
        )
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.otp_invalid"))
    );
    assert_eq!(
        rig.post(&stale, "/step-up", json!({"ticket": ticket}))
            .await
            .0,
        400
    );
    // Somebody else's ticket, and another session's.
    let body = json!({"ticket": ticket, "code": anna.code()});
    let ben = rig.user("ben").await;
    let ben = Principal {
        session: stale.session.clone(),
        ..rig.principal(&ben).await
    };
    assert_eq!(rig.post(&ben, "/step-up", body.clone()).await.0, 401);
    let elsewhere = anna.at_session(Uuid::from_u128(77), 1).await;
    assert_eq!(rig.post(&elsewhere, "/step-up", body.clone()).await.0, 401);

    let (status, done) = rig.post(&stale, "/step-up", body.clone()).await;
    assert_eq!((status, &done["status"]), (200, &json!("ok")), "{done}");
    let claims = claims(&done);
    assert_eq!(
        (&claims["aal"], &claims["sid"]),
        (&json!(2), &json!(session))
    );
    assert_eq!(claims["auth_time"], json!(rig.core.clock.now().timestamp()));
    assert_eq!(
        rig.post(&stale, "/step-up", body).await.0,
        401,
        "the ticket is used up"
    );
    assert!(
        rig.audit
            .actions()
            .contains(&"identity.session.strengthened")
    );
}

async fn refusing(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, who) = anna(&rig).await;
    let stale = Principal {
        aal: 1,
        fresh_until_s: 0,
        ..who.clone()
    };
    let challenger = Challenger(Arc::clone(&rig.core));
    // Who holds a key or a program's secret cannot become stronger.
    let key = Principal::new(
        PrincipalKind::ApiKey,
        Uuid::from_u128(9).to_string(),
        id::TENANT_DEFAULT,
    );
    assert!(challenger.challenge(&key).await.is_none());
    assert_eq!(
        rig.post(&key, "/step-up", json!({"ticket": "x", "code": "1"}))
            .await
            .0,
        403
    );
    // A session that ended stays so.
    let challenge = challenger.challenge(&stale).await.expect("a challenge");
    let cx = rig.cx(&who);
    let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
    crate::ops::sessions::end_all(&unit, &anna.user, None, "logout")
        .await
        .expect("they end");
    unit.commit().await.expect("a commit");
    rig.advance(30);
    let body = json!({"ticket": challenge.ticket.expose(), "code": anna.code()});
    let (status, problem) = rig.post(&stale, "/step-up", body).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.session_revoked"))
    );
}

#[tokio::test]
async fn keys_and_ended_sessions_do_not_get_stronger() {
    each_backend(refusing).await;
}

#[tokio::test]
async fn the_same_session_gets_stronger_tokens() {
    each_backend(stepping_up).await;
}

#[tokio::test]
async fn a_password_makes_a_session_fresh_and_not_strong() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let anna = Person::new(&rig, id::TENANT_DEFAULT, "anna", &["user"]).await;
    let password = Secret::from("correct horse battery");
    let cost = rig.core.settings.system(&crate::settings::password::ARGON2);
    let hash = rig
        .core
        .passwords
        .hash(&password, cost)
        .await
        .expect("a hash");
    let secrets = store::secrets::Secrets {
        password: Some(hash),
        ..store::secrets::Secrets::none(anna.user.id)
    };
    let tx = db.db.begin().await.expect("a transaction");
    store::secrets::put(&tx, &secrets)
        .await
        .expect("a password");
    tx.commit().await.expect("a commit");
    let session = anna.proved().await.tokens.expect("tokens").session_id;
    rig.advance(600);
    let stale = Principal {
        fresh_until_s: 0,
        ..anna.at_session(session, 1).await
    };
    // Setting a factor up wants a fresh session, and says how to get one.
    let (status, problem) = rig.post(&stale, "/me/totp", Value::Null).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.step_up_required"))
    );
    assert_eq!(problem["methods"], json!(["password"]));
    let ticket = problem["ticket"].as_str().expect("a ticket");
    let (status, _) = rig
        .post(
            &stale,
            "/step-up",
            json!({"ticket": ticket, "password": "wrong"}),
        )
        .await;
    assert_eq!(status, 401);
    let body = json!({"ticket": ticket, "password": password.expose()});
    let (status, done) = rig.post(&stale, "/step-up", body).await;
    assert_eq!(status, 200, "{done}");
    let claims = claims(&done);
    assert_eq!(
        (&claims["aal"], &claims["amr"]),
        (&json!(1), &json!(["pwd"]))
    );
    assert_eq!(claims["auth_time"], json!(rig.core.clock.now().timestamp()));
    // For two factors a password is no way.
    let weak = Challenger(Arc::clone(&rig.core)).challenge(&stale).await;
    assert!(weak.expect("a challenge").methods.is_empty());
    db.finish().await;
}
