//! A changed number: told by mail with a link that takes the change back for three days (ID-142).

use portico_base::id;
use portico_db::testing::each_backend;
use serde_json::json;

use super::register::{GOOD, NEW, code, last_letter, log_in, post, register, token};
use super::sms::{House, PHONE};
use crate::domain::contact::Identifier;
use crate::store;

/// ID-142: the link of a changed number goes by mail, holds for three days, and brings the old number back.
#[tokio::test]
async fn a_number_is_changed_and_changed_back() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let rig = &house.rig;
        for (key, value) in [
            (
                "identity.password.argon2",
                json!({"m_kib": 7168, "t": 1, "p": 1}),
            ),
            ("mail.smtp.host", json!("localhost")),
            ("mail.from", json!("Portico <auth@example.org>")),
            ("identity.limit.password_per_address", json!(["1000/min"])),
        ] {
            rig.set(key, value);
        }
        register(rig, "email", "anna@example.com", GOOD).await;
        let link = token(&last_letter(rig).await);
        assert_eq!(
            post(rig, "/email/verify", json!({"token": link})).await.0,
            204
        );
        let find = async |identifier: Identifier| {
            let reader = rig.core.db.reader();
            store::users::find(reader, id::TENANT_DEFAULT, &identifier)
                .await
                .unwrap()
        };
        let by_phone = |phone: &str| find(Identifier::Phone(phone.to_owned()));
        let anna = find(Identifier::Email("anna@example.com".to_owned()));
        let anna = anna.await.unwrap();
        let who = rig.principal(&anna).await;
        let bind = async |phone: &str| {
            rig.advance(61);
            let (status, sent) = rig.post(&who, "/me/phone", json!({"phone": phone})).await;
            assert_eq!(status, 202, "{sent}");
            let body = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
            assert_eq!(rig.post(&who, "/me/phone/confirm", body).await.0, 204);
        };
        let new = "+8613900000000";
        bind(PHONE).await;
        assert_eq!(
            last_letter(rig).await.template,
            "verify_email",
            "there was none before"
        );
        bind(new).await;
        let told = last_letter(rig).await;
        assert_eq!(
            (told.template.as_str(), told.to.as_str()),
            ("phone_changed", "anna@example.com")
        );
        assert_eq!(by_phone(new).await.map(|u| u.id), Some(anna.id));
        let (_, session) = log_in(rig, new, GOOD).await;
        assert_eq!(session["status"], "ok", "{session}");

        rig.advance(71 * 3_600);
        let undo = async |token: String| post(rig, "/undo", json!({"token": token})).await.0;
        assert_eq!(undo(token(&told)).await, 204);
        assert_eq!(undo(token(&told)).await, 401, "once");
        let back = by_phone(PHONE).await.unwrap();
        assert_eq!(back.id, anna.id);
        assert!(back.phone_verified_at.is_some() && by_phone(new).await.is_none());
        let refresh = json!({"refresh_token": session["tokens"]["refresh_token"]});
        assert_eq!(post(rig, "/token/refresh", refresh).await.0, 401);
        let closed = log_in(rig, PHONE, GOOD).await;
        assert_eq!(closed.0, 401, "the password is void");
        let way_in = last_letter(rig).await;
        assert_eq!(way_in.template, "reset_link");
        let body = json!({"token": token(&way_in), "password": NEW});
        assert_eq!(post(rig, "/password/reset/confirm", body).await.0, 204);
        assert_eq!(log_in(rig, PHONE, NEW).await.0, 200);
        let said = format!("{:?}", rig.audit.all());
        assert!(said.contains("identity.user.change_undone"));
        assert!(
            !said.contains("13812345678") && !said.contains("13900000000"),
            "{said}"
        );
    })
    .await;
}

/// A link that came too late, and one whose number somebody else has by now, change nothing.
#[tokio::test]
async fn a_number_that_somebody_else_has_by_now_does_not_come_back() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let rig = &house.rig;
        rig.set("mail.smtp.host", json!("localhost"));
        rig.set("mail.from", json!("Portico <auth@example.org>"));
        let mut anna = rig.user("anna").await;
        anna.email = Some("anna@example.com".to_owned());
        anna.email_verified_at = Some(rig.core.clock.now());
        anna.phone = Some(PHONE.to_owned());
        anna.phone_verified_at = anna.email_verified_at;
        let tx = rig.core.db.begin().await.unwrap();
        store::users::put(&tx, &anna).await.unwrap();
        tx.commit().await.unwrap();
        let change = async |phone: &str| {
            rig.advance(61);
            let who = rig.principal(&anna).await;
            let (_, sent) = rig.post(&who, "/me/phone", json!({"phone": phone})).await;
            let body = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
            assert_eq!(rig.post(&who, "/me/phone/confirm", body).await.0, 204);
            token(&last_letter(rig).await)
        };
        let first = change("+8613900000000").await;
        let mut berta = rig.user("berta").await;
        berta.phone = Some(PHONE.to_owned());
        let tx = rig.core.db.begin().await.unwrap();
        store::users::put(&tx, &berta).await.unwrap();
        tx.commit().await.unwrap();
        let taken = post(rig, "/undo", json!({"token": first})).await;
        assert_eq!(code(&taken), (409, "identity.phone_taken"));
        let second = change("+8613900000001").await;
        rig.advance(72 * 3_600);
        for late in [first, second] {
            let answer = post(rig, "/undo", json!({"token": late})).await;
            assert_eq!(code(&answer), (401, "identity.one_time_token_invalid"));
        }
        let now = rig.get_user(id::TENANT_DEFAULT, anna.id).await;
        assert_eq!(now.phone.as_deref(), Some("+8613900000001"));
    })
    .await;
}
