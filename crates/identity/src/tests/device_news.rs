//! What a user is told of logins and devices by mail, and the link that undoes a stranger's (ID-102, ID-124, ID-125).

use portico_base::Principal;
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::Queue;
use portico_testkit::SmtpServer;
use serde_json::{Value, json};

use super::logins::{check, nobody, tokens};
use super::rig::Rig;
use crate::domain::user::User;
use crate::mail;
use crate::ops::refresh::{self, Wish};
use crate::store;

/// A user with a verified address, in English, and a server that takes the mails.
async fn reachable(rig: &Rig) -> (User, SmtpServer) {
    let server = SmtpServer::start().await;
    rig.set("mail.smtp.host", json!("127.0.0.1"));
    rig.set("mail.smtp.port", json!(server.port()));
    rig.set("mail.smtp.tls", json!("none"));
    rig.set("mail.from", json!("Portico <id@example.com>"));
    let mut user = rig.user("anna").await;
    user.email = Some("anna@example.com".to_owned());
    user.email_verified_at = Some(rig.core.clock.now());
    user.locale = "en".to_owned();
    let tx = rig.core.db.begin().await.expect("a transaction");
    store::users::put(&tx, &user).await.expect("the user");
    tx.commit().await.expect("a commit");
    (user, server)
}

/// Sends what waits, and gives all texts so far.
async fn texts(rig: &Rig, server: &SmtpServer) -> Vec<String> {
    let (clock, random) = (rig.core.clock.clone(), rig.core.random.clone());
    let handler = mail::handler(&rig.core);
    let queue = Queue::new(rig.core.db.clone(), clock, random, "me", [handler]);
    queue.work_off().await.expect("the queue works");
    server.mails().iter().map(|m| m.text()).collect()
}

#[tokio::test]
async fn a_new_device_is_told_with_a_link_that_undoes_it() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (user, server) = reachable(&rig).await;
        let first = tokens(
            &rig,
            &user,
            json!({"platform": "ios", "device_id": "annas-phone"}),
        )
        .await;
        assert!(
            texts(&rig, &server).await.is_empty(),
            "the first login is no news"
        );
        let secret = first.device_secret.as_ref().unwrap().expose().clone();
        let known = json!({"platform": "ios", "device_id": "annas-phone", "device_secret": secret});
        let mine = tokens(&rig, &user, known).await;
        assert!(
            texts(&rig, &server).await.is_empty(),
            "a known device is no news"
        );
        let theirs = tokens(&rig, &user, json!({"platform": "desktop"})).await;
        let all = texts(&rig, &server).await;
        assert_eq!(all.len(), 1);
        assert!(all[0].contains("203.0.113.7"), "{}", all[0]);
        let (_, token) = all[0].split_once("/auth/stranger#").expect("the link");
        let token = token.split_whitespace().next().unwrap();
        let body: Value = json!({"token": token});
        let (status, _) = rig.post(&Principal::anonymous(), "/stranger", body).await;
        assert_eq!(status, 204);
        assert!(check(&rig, &theirs.access_token).is_err());
        assert_eq!(check(&rig, &mine.access_token), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn a_reused_token_and_a_changed_device_are_told() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (user, server) = reachable(&rig).await;
        let print = |mark: &str| {
            let names = ["model", "browser", "os", "app"];
            let map = names.map(|name| (name.to_owned(), mark.to_owned()));
            std::collections::BTreeMap::from(map)
        };
        let device = json!({"platform": "ios", "fingerprint": print("a")});
        let first = tokens(&rig, &user, device).await;
        let wish = |token: &portico_base::Secret<String>, mark: &str| Wish {
            token: token.clone(),
            device_secret: None,
            fingerprint: print(mark),
            cookie: false,
        };
        let cx = nobody(&rig);
        let next = refresh::refresh(&rig.core, &cx, &wish(&first.refresh_token, "b")).await;
        next.expect("55 of 100 is told, nothing more");
        let all = texts(&rig, &server).await;
        assert_eq!(all.len(), 1);
        assert!(all[0].contains("/auth/stranger#"), "{}", all[0]);
        rig.advance(11);
        let again = refresh::refresh(&rig.core, &cx, &wish(&first.refresh_token, "b")).await;
        assert!(again.is_err());
        assert_eq!(texts(&rig, &server).await.len(), 2);
    })
    .await;
}
