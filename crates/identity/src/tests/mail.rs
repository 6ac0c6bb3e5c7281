//! Mail: queued with its cause, sent to a real server, tried again, given up; previews and tests (ID-143).

use portico_base::{Secret, id};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::Query;
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::{Queue, Ran};
use portico_testkit::SmtpServer;
use serde_json::{Value, json};

use super::rig::{Rig, faults};
use crate::domain::user::User;
use crate::mail;
use crate::notices::{Notice, Recipient, Way};
use crate::unit::Unit;

fn queue(rig: &Rig) -> Queue {
    let (clock, random) = (rig.core.clock.clone(), rig.core.random.clone());
    let handler = mail::handler(&rig.core);
    Queue::new(rig.core.db.clone(), clock, random, "me", [handler])
}

/// Settings of a server on this machine.
fn switch_on(rig: &Rig, server: &SmtpServer) {
    rig.set("mail.smtp.host", json!("127.0.0.1"));
    rig.set("mail.smtp.port", json!(server.port()));
    rig.set("mail.smtp.tls", json!("none"));
    rig.set("mail.from", json!("Portico <id@example.com>"));
}

async fn anna(rig: &Rig, verified: bool) -> User {
    let mut user = rig.user("anna").await;
    user.email = Some("anna@example.com".to_owned());
    user.display_name = "Anna <b>https://evil.example</b>".to_owned();
    user.email_verified_at = verified.then(|| rig.core.clock.now());
    user
}

async fn tell(rig: &Rig, user: &User, notice: Notice, keep: bool) -> Way {
    let cx = rig.core.own_context("test");
    let unit = Unit::begin(&rig.core, &cx).await.unwrap();
    let way = rig.core.notices.send(&unit, user, notice).await.unwrap();
    if keep {
        unit.commit().await.unwrap();
    }
    way
}

fn reset() -> Notice {
    Notice::ResetLink {
        token: Secret::from("s3cr3t-token"),
    }
}

#[tokio::test]
async fn a_notice_goes_with_its_cause_and_to_a_verified_address_only() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        let (user, queue) = (anna(&rig, true).await, queue(&rig));
        assert!(!rig.core.mail_on(user.tenant));
        assert_eq!(tell(&rig, &user, reset(), true).await, Way::None);
        switch_on(&rig, &server);
        assert!(rig.core.mail_on(user.tenant));
        let unverified = anna_like(&user);
        assert_eq!(tell(&rig, &unverified, reset(), true).await, Way::None);
        // Undone with its cause.
        assert_eq!(tell(&rig, &user, reset(), false).await, Way::Mail);
        assert_eq!(queue.work_off().await.unwrap(), []);
        assert_eq!(tell(&rig, &user, reset(), true).await, Way::Mail);
        assert_eq!(queue.work_off().await.unwrap(), [(mail::KIND, Ran::Done)]);
        let mails = server.mails();
        assert_eq!(mails.len(), 1);
        let mail = &mails[0];
        assert_eq!(
            (&*mail.from, &*mail.to),
            ("id@example.com", "anna@example.com")
        );
        assert_eq!(
            mail.header("auto-submitted").as_deref(),
            Some("auto-generated")
        );
        assert!(
            mail.header("message-id")
                .unwrap()
                .ends_with("@example.com>")
        );
        let parts = mail.parts();
        let link = "https://id.example.com/auth/reset#s3cr3t-token";
        assert_eq!(parts.len(), 2);
        for (kind, text) in &parts {
            assert!(text.contains(link), "{kind}: {text}");
            assert!(
                !text.contains("evil.example") && !text.contains("<b>"),
                "{text}"
            );
        }
        assert!(
            mail.text().contains("张") || mail.text().contains("您好"),
            "the user's language"
        );
    })
    .await;
}

fn anna_like(user: &User) -> User {
    User {
        email_verified_at: None,
        ..user.clone()
    }
}

#[tokio::test]
async fn what_waits_in_the_queue_tells_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        let user = anna(&rig, true).await;
        tell(&rig, &user, reset(), true).await;
        let mut select = Query::select();
        select.columns(["payload", "kind"]).from("jobs");
        let row = db.db.reader().query_one(&select).await.unwrap().unwrap();
        let payload: Value = row.try_get("", "payload").unwrap();
        let text = payload.to_string();
        assert!(text.contains("penc_"), "{text}");
        assert!(!text.contains("s3cr3t") && !text.contains("anna"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_refused_mail_is_tried_again_and_a_hopeless_one_is_not() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        let (user, queue) = (anna(&rig, true).await, queue(&rig));
        server.refuse(&["451 try later", "451 try later"]);
        tell(&rig, &user, reset(), true).await;
        let mut ran = Vec::new();
        for _ in 0..200 {
            ran.extend(
                queue
                    .work_off()
                    .await
                    .unwrap()
                    .into_iter()
                    .map(|(_, ran)| ran),
            );
            rig.advance(1);
        }
        assert_eq!(ran, [Ran::Retried, Ran::Retried, Ran::Done]);
        assert_eq!(server.mails().len(), 1);
        server.refuse(&["550 no such mailbox"]);
        tell(&rig, &user, reset(), true).await;
        assert_eq!(queue.work_off().await.unwrap(), [(mail::KIND, Ran::Dead)]);
        // A server that is away, and settings that were taken away, are waited for.
        rig.set("mail.smtp.port", json!(1));
        tell(&rig, &user, reset(), true).await;
        assert_eq!(
            queue.work_off().await.unwrap(),
            [(mail::KIND, Ran::Retried)]
        );
        rig.set("mail.smtp.host", json!(""));
        rig.advance(7_200);
        assert_eq!(
            queue.work_off().await.unwrap(),
            [(mail::KIND, Ran::Retried)]
        );
        switch_on(&rig, &server);
        rig.advance(7_200);
        assert_eq!(queue.work_off().await.unwrap(), [(mail::KIND, Ran::Done)]);
        assert_eq!(server.mails().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn passwords_leave_this_machine_encrypted_only() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        rig.set("mail.smtp.host", json!("mail.example.com"));
        let (user, queue) = (anna(&rig, true).await, queue(&rig));
        tell(&rig, &user, reset(), true).await;
        assert_eq!(
            queue.work_off().await.unwrap(),
            [(mail::KIND, Ran::Retried)]
        );
        // A server that does not speak TLS gets nothing when TLS is asked for.
        rig.set("mail.smtp.host", json!("127.0.0.1"));
        rig.set("mail.smtp.tls", json!("starttls"));
        rig.advance(7_200);
        assert_eq!(
            queue.work_off().await.unwrap(),
            [(mail::KIND, Ran::Retried)]
        );
        assert_eq!((server.connections(), server.mails().len()), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn templates_can_be_changed_by_tenant_and_previewed() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        let root = rig.super_admin().await;
        let (status, seen) = rig.get(&root, "/mail").await;
        assert_eq!(
            (status, &seen["on"], &seen["missing"]),
            (200, &json!(true), &json!([]))
        );
        assert_eq!(seen["notices"].as_array().unwrap().len(), 20);
        let wish = json!({"notice": "reset_link", "locale": "en"});
        let (status, shown) = rig.post(&root, "/mail/preview", wish).await;
        assert_eq!(status, 200);
        assert!(shown["text"].as_str().unwrap().starts_with("Hello Anna,"));
        let changed = json!({"subject": "Neues Passwort", "text": "{{name}}: {{link}} {{key}}"});
        let wish = json!({"notice": "reset_link", "locale": "en", "template": changed});
        let (status, problem) = rig.post(&root, "/mail/preview", wish).await;
        assert_eq!(status, 400);
        assert_eq!(
            faults(&problem),
            [("text".to_owned(), "unknown_value".to_owned())]
        );
        let wish = json!({"notice": "nothing", "locale": "de"});
        let (status, problem) = rig.post(&root, "/mail/preview", wish).await;
        assert_eq!((status, faults(&problem).len()), (400, 2));
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        assert_eq!(rig.get(&admin, "/mail").await.0, 403);
        // One tenant has its own; the other keeps ours.
        let own = json!({"reset_link": {"zh-CN": {"subject": "重设", "text": "链接 {{link}}"}}});
        rig.settings
            .set(Some(id::TENANT_DEFAULT), "mail.templates", own);
        let (user, queue) = (anna(&rig, true).await, queue(&rig));
        tell(&rig, &user, reset(), true).await;
        queue.work_off().await.unwrap();
        let other = User {
            tenant: super::rig::OTHER,
            ..user
        };
        tell(&rig, &other, reset(), true).await;
        queue.work_off().await.unwrap();
        let mails = server.mails();
        assert!(mails[0].text().starts_with("链接 https://id.example.com/"));
        assert!(mails[1].text().contains("30 分钟"));
    })
    .await;
}

#[tokio::test]
async fn a_test_mail_says_what_the_server_says() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let root = rig.super_admin().await;
        let to = json!({"to": "ops@example.com"});
        let (status, problem) = rig.post(&root, "/mail/test", to.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("identity.mail_off"))
        );
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        let (status, problem) = rig.post(&root, "/mail/test", json!({})).await;
        assert_eq!(
            (status, faults(&problem)),
            (400, vec![("to".to_owned(), "missing".to_owned())])
        );
        let bad = json!({"to": "ops@example.com\r\nBcc: all@example.com"});
        assert_eq!(rig.post(&root, "/mail/test", bad).await.0, 400);
        server.refuse(&["550 we do not know you"]);
        let (status, problem) = rig.post(&root, "/mail/test", to.clone()).await;
        assert_eq!(
            (status, &problem["code"]),
            (503, &json!("identity.mail_failed"))
        );
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("we do not know you")
        );
        assert_eq!(rig.audit.count("identity.mail.tested"), 0);
        let (status, sent) = rig.post(&root, "/mail/test", to).await;
        assert_eq!((status, &sent["to"]), (200, &json!("ops@example.com")));
        assert_eq!(server.mails()[0].to, "ops@example.com");
        assert_eq!(rig.audit.count("identity.mail.tested"), 1);
        let record = rig.audit.all().pop().unwrap();
        assert!(!format!("{record:?}").contains("ops@example.com"));
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_not_one_is_given_up() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let server = SmtpServer::start().await;
        switch_on(&rig, &server);
        let (user, queue) = (anna(&rig, true).await, queue(&rig));
        let cx = rig.core.own_context("test");
        let unit = Unit::begin(&rig.core, &cx).await.unwrap();
        let to = Recipient::of(&user, "not an address");
        rig.core
            .notices
            .send_to(&unit, &to, Notice::Test)
            .await
            .unwrap();
        unit.commit().await.unwrap();
        assert_eq!(queue.work_off().await.unwrap(), [(mail::KIND, Ran::Dead)]);
        assert_eq!(server.connections(), 0);
    })
    .await;
}
