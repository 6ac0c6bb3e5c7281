//! Invitations: single use, seven days, preset roles, by mail or link.

use portico_base::{Secret, id};
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use crate::domain::user::User;
use crate::error::{Result, reason};
use crate::ops::invitations;
use crate::ops::users::NewUser;
use crate::unit::Unit;

fn token_of(made: &Value) -> Secret<String> {
    let link = made["link"].as_str().expect("a link");
    Secret::from(link.rsplit('#').next().unwrap())
}

async fn accept(rig: &Rig, token: &Secret<String>, name: &str) -> Result<User> {
    let cx = rig.cx(&portico_base::Principal::anonymous());
    let unit = Unit::begin_durable(&rig.core, &cx).await?;
    let new = NewUser {
        username: Some(name.to_owned()),
        ..NewUser::of(id::TENANT_DEFAULT)
    };
    let (user, _) = invitations::accept(&unit, token, new).await?;
    unit.commit().await?;
    Ok(user)
}

#[tokio::test]
async fn a_link_makes_one_account_with_its_roles() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(OTHER).await;
        let role =
            json!({ "name": "clerk", "title_zh": "职员", "title_en": "Clerk", "permissions": [] });
        assert_eq!(rig.post(&admin, "/roles", role).await.0, 201);
        rig.audit.take();
        let wish = json!({ "email": "new@example.com", "roles": ["clerk"], "locale": "en" });
        let (status, made) = rig.post(&admin, "/invitations", wish).await;
        assert_eq!(status, 201, "{made}");
        // Mail is off, so the link is in the answer.
        assert_eq!(
            (&made["mailed"], &made["state"]),
            (&json!(false), &json!("open"))
        );
        assert_eq!(made["email"], "n***@example.com");
        let token = token_of(&made);
        assert_eq!(
            invitations::peek(&rig.core, &token).await.unwrap().tenant,
            OTHER
        );
        let tries = ["first", "second", "third"].map(|name| accept(&rig, &token, name));
        let mut made_users = Vec::new();
        for done in futures_util::future::join_all(tries).await {
            match done {
                Ok(user) => made_users.push(user),
                Err(error) => assert!(
                    error.is(reason::TOKEN_USED) || error.is(reason::EMAIL_TAKEN),
                    "{error:?}"
                ),
            }
        }
        let [user] = &made_users[..] else {
            panic!("{made_users:?}")
        };
        assert_eq!((user.tenant, user.locale.as_str()), (OTHER, "en"));
        // Handed over as a link it proves no address.
        assert_eq!(
            (user.email.as_deref(), user.email_verified_at),
            (Some("new@example.com"), None)
        );
        let (_, shown) = rig.get(&admin, &format!("/users/{}", user.id)).await;
        assert_eq!(shown["roles"], json!(["clerk", "user"]));
        let actions = rig.audit.take();
        assert_eq!(
            actions,
            [
                "identity.invitation.created",
                "identity.user.created",
                "identity.invitation.accepted"
            ]
        );
        let (_, list) = rig.get(&admin, "/invitations").await;
        assert_eq!(list["items"][0]["state"], "used");
        assert_eq!(list["items"][0]["used_by"], json!(user.id));
        assert!(
            !list.to_string().contains(token.expose().as_str()),
            "{list}"
        );
        assert!(invitations::peek(&rig.core, &token).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn an_invitation_by_mail_proves_the_address() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    rig.set("mail.smtp.host", json!("127.0.0.1"));
    rig.set("mail.from", json!("portico@example.com"));
    let admin = rig.tenant_admin(OTHER).await;
    if !rig.core.mail_on(OTHER) {
        panic!("mail is not on");
    }
    let (status, made) = rig
        .post(
            &admin,
            "/invitations",
            json!({ "email": "new@example.com" }),
        )
        .await;
    assert_eq!((status, &made["mailed"]), (201, &json!(true)), "{made}");
    assert!(made.get("link").is_none(), "{made}");
}

#[tokio::test]
async fn an_invitation_ends_by_time_and_by_word() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let made = rig.post(&admin, "/invitations", json!({})).await.1;
        rig.advance(7 * 86_400);
        let late = accept(&rig, &token_of(&made), "late").await.unwrap_err();
        assert!(late.is(reason::TOKEN_USED), "{late:?}");
        let made = rig.post(&admin, "/invitations", json!({})).await.1;
        let path = format!("/invitations/{}", made["id"].as_str().unwrap());
        let foreign = rig.tenant_admin(OTHER).await;
        assert_eq!(
            rig.call(&foreign, "DELETE", &path, Value::Null).await.0,
            404
        );
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        let gone = accept(&rig, &token_of(&made), "gone").await.unwrap_err();
        assert!(gone.is(reason::TOKEN_USED), "{gone:?}");
        assert_eq!(rig.audit.count("identity.invitation.revoked"), 1);
        let (_, list) = rig.get(&admin, "/invitations?limit=1").await;
        assert_eq!(list["items"][0]["state"], "revoked");
        let next = format!(
            "/invitations?limit=1&cursor={}",
            list["next_cursor"].as_str().unwrap()
        );
        let (_, list) = rig.get(&admin, &next).await;
        assert_eq!(
            (&list["items"][0]["state"], &list["next_cursor"]),
            (&json!("expired"), &Value::Null)
        );
    })
    .await;
}

#[tokio::test]
async fn nobody_invites_to_more_than_they_hold() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let mut clerk = rig.tenant_admin(id::TENANT_DEFAULT).await;
    clerk.permissions = [
        crate::permissions::USER_WRITE,
        crate::permissions::ROLE_WRITE,
    ]
    .into();
    let wish = json!({ "roles": ["tenant_admin"] });
    let (status, problem) = rig.post(&clerk, "/invitations", wish).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (403, Some("identity.grant_exceeds_own"))
    );
    assert_eq!(
        rig.post(&clerk, "/invitations", json!({ "roles": ["user"] }))
            .await
            .0,
        201
    );
    let bad = json!({ "email": "x", "locale": "fr" });
    let (status, problem) = rig.post(&clerk, "/invitations", bad).await;
    assert_eq!((status, faults(&problem).len()), (400, 2));
    // Into the system, super administrators invite.
    let root = rig.super_admin().await;
    let wish = json!({ "tenant": "system", "roles": ["super_admin"] });
    assert_eq!(rig.post(&root, "/invitations", wish).await.0, 201);
    assert_eq!(
        rig.post(&root, "/invitations", json!({ "roles": ["super_admin"] }))
            .await
            .0,
        400
    );
}
