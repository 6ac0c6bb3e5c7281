//! Registering oneself, verifying and changing addresses, forgotten passwords: what mails say and answers do not.

use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::envelope::Place;
use portico_base::{Principal, Secret, id};
use portico_db::metrics::Observed;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::Queue;
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use super::sms::{House, PHONE};
use crate::domain::contact::Identifier;
use crate::mail::Letter;
use crate::store;

pub(super) const GOOD: &str = "quiet-otter-91-lamp";
pub(super) const NEW: &str = "brisk-maple-27-door";

async fn rig(db: &TestDb) -> Rig {
    let rig = Rig::new(db).await;
    rig.set(
        "identity.password.argon2",
        json!({"m_kib": 7168, "t": 1, "p": 1}),
    );
    for limit in ["registration", "username", "password", "reset"] {
        rig.set(
            &format!("identity.limit.{limit}_per_address"),
            json!(["1000/min"]),
        );
    }
    rig.set("mail.smtp.host", json!("localhost"));
    rig.set("mail.from", json!("Portico <auth@example.org>"));
    rig
}

/// All letters that wait in the queue, oldest first.
async fn letters(rig: &Rig) -> Vec<Letter> {
    let mut select = Query::select();
    select
        .column("payload")
        .from("jobs")
        .and_where(Expr::col("kind").eq(crate::mail::KIND))
        .order_by("created_at", Order::Asc)
        .order_by("id", Order::Asc);
    let rows = rig.core.db.reader().query_all(&select).await.unwrap();
    rows.iter()
        .map(|row| {
            let queued: Value = row.try_get("", "payload").unwrap();
            let place = Place {
                table: "jobs",
                row: queued["row"].as_str().unwrap(),
                column: "payload",
            };
            let sealed = queued["sealed"].as_str().unwrap();
            let plain = rig.core.keys.open(place, sealed).unwrap();
            serde_json::from_slice(plain.expose()).unwrap()
        })
        .collect()
}

pub(super) async fn last_letter(rig: &Rig) -> Letter {
    letters(rig).await.pop().expect("a letter waits")
}

pub(super) fn token(letter: &Letter) -> String {
    let (_, token) = letter.values["link"]
        .split_once('#')
        .expect("a link with a token");
    token.to_owned()
}

/// Does what waits for a worker, but sends no mail.
async fn work(rig: &Rig) {
    let queue = Queue::new(
        rig.core.db.clone(),
        rig.core.clock.clone(),
        rig.core.random.clone(),
        "test",
        [crate::ops::passwords::handler(&rig.core)],
    );
    queue.work_off().await.expect("the queue is worked off");
}

/// Each call a second later, so that letters have an order.
pub(super) async fn post(rig: &Rig, path: &str, body: Value) -> (u16, Value) {
    rig.advance(1);
    rig.post(&Principal::anonymous(), path, body).await
}

pub(super) async fn register(
    rig: &Rig,
    method: &str,
    identifier: &str,
    password: &str,
) -> (u16, Value) {
    let body = json!({"method": method, "identifier": identifier, "password": password,
        "locale": "en", "device": {"platform": "web"}});
    post(rig, "/register", body).await
}

pub(super) async fn log_in(rig: &Rig, name: &str, password: &str) -> (u16, Value) {
    let body = json!({"identifier": name, "password": password, "device": {"platform": "web"}});
    post(rig, "/login/password", body).await
}

pub(super) fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_user_name_registers_and_is_logged_in() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let (status, answer) = register(&rig, "username", "Xiao.Ming", GOOD).await;
        assert_eq!(
            (status, answer["status"].as_str()),
            (201, Some("ok")),
            "{answer}"
        );
        assert_eq!(answer["user"]["roles"], json!(["user"]));
        assert_eq!(answer["user"]["tenant_id"], json!(id::TENANT_DEFAULT));
        assert_eq!(log_in(&rig, "xiao.ming", GOOD).await.0, 200);
        let taken = register(&rig, "username", "XIAO.MING", NEW).await;
        assert_eq!(code(&taken), (409, "identity.username_taken"));
        let wrong = register(&rig, "username", "a", "123").await;
        assert_eq!(
            faults(&wrong.1),
            [("identifier".to_owned(), "length".to_owned())]
        );
        let weak = register(&rig, "username", "somebody", "password1").await;
        assert_eq!(
            faults(&weak.1),
            [("password".to_owned(), "password_common".to_owned())]
        );
        let near = register(&rig, "username", "wang.xiaoming", "wangxiaoming1").await;
        assert_eq!(faults(&near.1)[0].1, "password_too_similar");
        let extra = json!({"method": "username", "identifier": "climber", "password": GOOD,
            "roles": ["tenant_admin"], "device": {"platform": "web"}});
        assert_eq!(
            post(&rig, "/register", extra).await.0,
            400,
            "nobody chooses their roles"
        );
        let elsewhere = json!({"method": "username", "identifier": "xiao.ming", "password": GOOD,
            "tenant": "other", "device": {"platform": "web"}});
        let (status, answer) = post(&rig, "/register", elsewhere).await;
        assert_eq!((status, &answer["user"]["tenant_id"]), (201, &json!(OTHER)));
    })
    .await;
}

#[tokio::test]
async fn registration_is_open_by_invitation_or_off() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let closed = (403, "identity.registration_closed");
        for (mode, tenant) in [
            ("off", "default"),
            ("invite", "default"),
            ("open", "system"),
        ] {
            rig.set("identity.registration.mode", json!(mode));
            let body = json!({"method": "username", "identifier": "somebody", "password": GOOD,
                "tenant": tenant, "device": {"platform": "web"}});
            assert_eq!(
                code(&post(&rig, "/register", body).await),
                closed,
                "{mode} {tenant}"
            );
        }
        rig.set("identity.registration.mode", json!("off"));
        rig.settings
            .set(Some(OTHER), "identity.registration.mode", json!("open"));
        let body = json!({"method": "username", "identifier": "somebody", "password": GOOD,
            "tenant": "other", "device": {"platform": "web"}});
        assert_eq!(
            post(&rig, "/register", body).await.0,
            201,
            "each tenant decides"
        );
        let nowhere = json!({"method": "username", "identifier": "somebody", "password": GOOD,
            "tenant": "no-such", "device": {"platform": "web"}});
        assert_eq!(code(&post(&rig, "/register", nowhere).await), closed);
        let (status, offered) = rig
            .get(&Principal::anonymous(), "/login/methods?tenant=other")
            .await;
        assert_eq!(
            (status, offered["registration"].as_str()),
            (200, Some("open"))
        );
        let (_, offered) = rig.get(&Principal::anonymous(), "/login/methods").await;
        assert_eq!(offered["registration"], "off");
        assert_eq!(offered["methods"], json!(["password", "sms"]));
    })
    .await;
}

/// ID-33: new and taken addresses answer alike, hash once, and only the mail tells.
#[tokio::test]
async fn an_address_registers_by_its_link_and_only_the_mail_tells_of_an_account() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let hashes = || rig.core.passwords.done();
        let before = hashes();
        let first = register(&rig, "email", "Anna@Example.com", GOOD).await;
        assert_eq!(first, (202, json!({"status": "verification_required"})));
        assert_eq!(hashes() - before, 1);
        let letter = last_letter(&rig).await;
        assert_eq!(
            (letter.template.as_str(), letter.to.as_str()),
            ("verify_email", "Anna@Example.com")
        );
        assert_eq!(letter.locale, "en");
        assert_eq!(
            log_in(&rig, "anna@example.com", GOOD).await.0,
            401,
            "not before the link"
        );
        // Whoever registers the address of somebody else has a link of their own, which they cannot read.
        assert_eq!(
            register(&rig, "email", "anna@example.com", NEW).await.0,
            202
        );
        let verify = async |token: &str| post(&rig, "/email/verify", json!({"token": token})).await;
        assert_eq!(verify(&token(&letter)).await.0, 204);
        assert_eq!(
            code(&verify(&token(&letter)).await),
            (401, "identity.one_time_token_invalid")
        );
        let other_link = token(&last_letter(&rig).await);
        assert_eq!(
            code(&verify(&other_link).await),
            (409, "identity.email_taken")
        );
        assert_eq!(log_in(&rig, "anna@example.com", NEW).await.0, 401);
        assert_eq!(log_in(&rig, "ANNA@example.com", GOOD).await.0, 200);

        let seen: Arc<Mutex<Vec<Observed>>> = Arc::default();
        let sink = Arc::clone(&seen);
        rig.core.db.metrics().observe(move |what, _| {
            if matches!(what, Observed::Query(_)) {
                sink.lock().push(what);
            }
        });
        let before = hashes();
        register(&rig, "email", "berta@example.com", NEW).await;
        let statements = std::mem::take(&mut *seen.lock());
        let taken = register(&rig, "email", "anna@example.com", NEW).await;
        assert_eq!(taken, first, "the same answer");
        assert_eq!(*seen.lock(), statements, "the same statements");
        assert_eq!(hashes() - before, 2, "the same work");
        let letter = last_letter(&rig).await;
        assert_eq!(letter.template, "already_registered");
        assert!(!letter.values.contains_key("link"));

        register(&rig, "email", "late@example.com", GOOD).await;
        let late = token(&last_letter(&rig).await);
        rig.advance(86_401);
        assert_eq!(verify(&late).await.0, 401);
        rig.set(
            "identity.registration.email_domains",
            json!(["example.org"]),
        );
        let foreign = register(&rig, "email", "new@example.com", GOOD).await;
        assert_eq!(
            faults(&foreign.1),
            [("identifier".to_owned(), "domain_not_allowed".to_owned())]
        );
        assert_eq!(
            register(&rig, "email", "new@Example.ORG", GOOD).await.0,
            202
        );
        rig.set("mail.smtp.host", json!(""));
        let off = register(&rig, "email", "new@example.org", GOOD).await;
        assert_eq!(code(&off), (409, "identity.mail_off"));
    })
    .await;
}

/// ID-32: a lost answer is asked for again and brings the same user.
#[tokio::test]
async fn a_repeated_registration_is_the_same_one() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let send = async |key: &str, name: &str, password: &str| {
            let body = json!({"method": "username", "identifier": name, "password": password,
                "device": {"platform": "web"}});
            let request = ::http::Request::post("/register")
                .header("content-type", "application/json")
                .header("idempotency-key", key);
            let body = axum::body::Body::from(body.to_string());
            super::rig::read(rig.send(&Principal::anonymous(), request, body).await).await
        };
        let first = send("key-1", "anna", GOOD).await;
        assert_eq!(first.0, 201, "{}", first.1);
        let again = send("key-1", "anna", GOOD).await;
        assert_eq!(again.0, 201);
        assert_eq!(again.1["user"]["id"], first.1["user"]["id"]);
        assert_eq!(
            code(&send("key-1", "anna", NEW).await),
            (401, "identity.invalid_credentials")
        );
        let other = send("key-1", "berta", GOOD).await;
        assert_eq!(code(&other), (409, "identity.idempotency_key_reused"));
        assert_eq!(
            code(&send("key-2", "anna", GOOD).await),
            (409, "identity.username_taken")
        );
        assert_eq!(send("", "carla", GOOD).await.0, 400);
        let both =
            futures_util::future::join(send("key-3", "dora", GOOD), send("key-3", "dora", GOOD))
                .await;
        assert_eq!((both.0.0, both.1.0), (201, 201), "{both:?}");
        assert_eq!(both.0.1["user"]["id"], both.1.1["user"]["id"]);
        rig.advance(86_401);
        assert_eq!(
            code(&send("key-1", "anna", GOOD).await),
            (409, "identity.username_taken")
        );
        assert_eq!(
            send("key-1", "berta", GOOD).await.0,
            201,
            "an old key is free again"
        );
    })
    .await;
}

#[tokio::test]
async fn two_registrations_of_one_name_make_one_user() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let tries = (0..8).map(|_| register(&rig, "username", "wanted", GOOD));
        let answers = futures_util::future::join_all(tries).await;
        assert_eq!(answers.iter().filter(|a| a.0 == 201).count(), 1);
        assert_eq!(answers.iter().filter(|a| a.0 == 409).count(), 7);
    })
    .await;
}

#[tokio::test]
async fn an_address_registers_so_many_and_asks_for_so_many_names() {
    each_backend(async |db| {
        let rig = rig(db).await;
        rig.set("identity.limit.registration_per_address", json!(["5/h"]));
        for n in 0..5 {
            assert_eq!(
                register(&rig, "username", &format!("user-{n}"), GOOD)
                    .await
                    .0,
                201
            );
        }
        let sixth = register(&rig, "username", "user-6", GOOD).await;
        assert_eq!(code(&sixth), (429, "identity.rate_limited"));
        rig.set(
            "identity.limit.registration_per_address",
            json!(["1000/min"]),
        );
        rig.set("identity.limit.username_per_address", json!(["10/min"]));
        let asked = async || register(&rig, "username", "user-1", GOOD).await.0;
        let mut told = 0;
        let end = loop {
            match asked().await {
                409 => told += 1,
                other => break other,
            }
            // Ten, and what flows back while they are asked for.
            assert!(told <= 12, "{told} names were told of");
        };
        assert_eq!(end, 429);
    })
    .await;
}

/// ID-141: 202 for everybody; the link works once, ends all sessions and forgets waits.
#[tokio::test]
async fn a_forgotten_password_is_replaced_by_a_link() {
    each_backend(async |db| {
        let rig = rig(db).await;
        register(&rig, "email", "anna@example.com", GOOD).await;
        let verify = json!({"token": token(&last_letter(&rig).await)});
        assert_eq!(post(&rig, "/email/verify", verify).await.0, 204);
        let (_, session) = log_in(&rig, "anna@example.com", GOOD).await;
        let ask =
            async |name: &str| post(&rig, "/password/reset", json!({"identifier": name})).await;
        let sent = letters(&rig).await.len();
        let known = ask("anna@example.com").await;
        let unknown = ask("nobody@example.com").await;
        assert_eq!((known.0, &known), (202, &unknown), "{known:?}");
        assert_eq!(
            letters(&rig).await.len(),
            sent,
            "nothing is looked up before the answer"
        );
        work(&rig).await;
        let mails = letters(&rig).await;
        assert_eq!(mails.len(), sent + 1);
        let letter = &mails[sent];
        assert_eq!(letter.template, "reset_link");
        for _ in 0..5 {
            log_in(&rig, "anna@example.com", "wrong").await;
        }
        assert_eq!(log_in(&rig, "anna@example.com", GOOD).await.0, 429);
        let confirm = async |password: &str| {
            let body = json!({"token": token(letter), "password": password});
            post(&rig, "/password/reset/confirm", body).await
        };
        assert_eq!(
            confirm("short").await.0,
            400,
            "the link is not used up by a weak password"
        );
        assert_eq!(confirm(NEW).await.0, 204);
        assert_eq!(confirm(GOOD).await.0, 401);
        assert_eq!(last_letter(&rig).await.template, "password_changed");
        assert_eq!(
            log_in(&rig, "anna@example.com", NEW).await.0,
            200,
            "waits are forgotten"
        );
        let refresh = json!({"refresh_token": session["tokens"]["refresh_token"]});
        assert_eq!(post(&rig, "/token/refresh", refresh).await.0, 401);
        let both = json!({"token": "x", "code": "123456", "password": NEW});
        assert_eq!(post(&rig, "/password/reset/confirm", both).await.0, 400);
    })
    .await;
}

#[tokio::test]
async fn resets_are_limited_by_account_and_alike_for_nobody() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let ask = async |name: &str| {
            post(&rig, "/password/reset", json!({"identifier": name}))
                .await
                .0
        };
        for name in ["anna@example.com", "nobody"] {
            let answers = [
                ask(name).await,
                ask(name).await,
                ask(name).await,
                ask(name).await,
            ];
            assert_eq!(answers, [202, 202, 202, 429], "{name}");
        }
        rig.set("mail.smtp.host", json!(""));
        assert_eq!(ask("anna@example.com").await, 409);
    })
    .await;
}

/// ID-142: the new address first, the old one is told and can take it back.
#[tokio::test]
async fn an_address_is_changed_and_changed_back() {
    each_backend(async |db| {
        let rig = rig(db).await;
        let verify =
            async |token: String| post(&rig, "/email/verify", json!({"token": token})).await.0;
        for name in ["anna", "berta"] {
            register(&rig, "email", &format!("{name}@example.com"), GOOD).await;
            assert_eq!(verify(token(&last_letter(&rig).await)).await, 204);
        }
        let find = async |address: &str| {
            let name = Identifier::Email(address.to_owned());
            let reader = rig.core.db.reader();
            store::users::find(reader, id::TENANT_DEFAULT, &name)
                .await
                .unwrap()
        };
        let anna = find("anna@example.com").await.unwrap();
        let mut who = rig.principal(&anna).await;
        let change = async |who: &Principal, email: &str| {
            rig.advance(1);
            rig.post(who, "/me/email", json!({"email": email})).await
        };
        assert_eq!(faults(&change(&who, "nonsense").await.1)[0].0, "email");
        assert_eq!(
            faults(&change(&who, "ANNA@example.com").await.1)[0].1,
            "unchanged"
        );
        let taken = change(&who, "berta@example.com").await;
        assert_eq!(last_letter(&rig).await.template, "already_registered");
        let free = change(&who, "anna@new.example").await;
        assert_eq!(taken, free, "only the owner is told");
        assert_eq!(free.0, 202);
        let link = token(&last_letter(&rig).await);
        assert!(
            find("anna@new.example").await.is_none(),
            "not before the link"
        );
        let stranger = rig
            .principal(&find("berta@example.com").await.unwrap())
            .await;
        let body = json!({"token": link});
        let theirs = rig.post(&stranger, "/me/email/confirm", body.clone()).await;
        assert_eq!(theirs.0, 401);
        rig.advance(1);
        assert_eq!(rig.post(&who, "/me/email/confirm", body).await.0, 204);
        assert_eq!(find("anna@new.example").await.map(|u| u.id), Some(anna.id));
        let told = last_letter(&rig).await;
        assert_eq!(
            (told.template.as_str(), told.to.as_str()),
            ("email_changed", "anna@example.com")
        );

        let (_, session) = log_in(&rig, "anna@new.example", GOOD).await;
        rig.advance(71 * 3_600);
        let undo = async |token: String| post(&rig, "/undo", json!({"token": token})).await.0;
        assert_eq!(undo(token(&told)).await, 204);
        assert_eq!(undo(token(&told)).await, 401);
        assert_eq!(find("anna@example.com").await.map(|u| u.id), Some(anna.id));
        assert!(find("anna@new.example").await.is_none());
        let refresh = json!({"refresh_token": session["tokens"]["refresh_token"]});
        assert_eq!(post(&rig, "/token/refresh", refresh).await.0, 401);
        assert_eq!(
            log_in(&rig, "anna@example.com", GOOD).await.0,
            401,
            "the password is void"
        );
        let way_in = last_letter(&rig).await;
        assert_eq!(
            (way_in.template.as_str(), way_in.to.as_str()),
            ("reset_link", "anna@example.com")
        );
        let body = json!({"token": token(&way_in), "password": NEW});
        assert_eq!(post(&rig, "/password/reset/confirm", body).await.0, 204);
        assert_eq!(log_in(&rig, "anna@example.com", NEW).await.0, 200);

        who.fresh_until_s = 0;
        let stale = change(&who, "anna@third.example").await;
        assert_eq!(code(&stale), (401, "identity.step_up_required"));
    })
    .await;
}

/// §11: nothing that was typed as a secret is in an audit record.
#[tokio::test]
async fn records_hold_no_secret() {
    each_backend(async |db| {
        let rig = rig(db).await;
        register(&rig, "email", "anna@example.com", GOOD).await;
        let link = token(&last_letter(&rig).await);
        post(&rig, "/email/verify", json!({"token": link})).await;
        log_in(&rig, "anna@example.com", "a wrong one 4711").await;
        log_in(&rig, "anna@example.com", GOOD).await;
        let records = format!("{:?}", rig.audit.all());
        let events = format!("{:?}", rig.events().await);
        for secret in [GOOD, "a wrong one 4711", &link, "anna@example.com"] {
            assert!(!records.contains(secret), "{secret} in a record");
            assert!(!events.contains(secret), "{secret} in an event");
        }
        let phc = Secret::from("$argon2id$");
        assert!(!records.contains(phc.expose().as_str()));
    })
    .await;
}

/// ID-30: who was invited registers where others cannot, once, with the roles of the invitation.
#[tokio::test]
async fn an_invitation_opens_what_is_closed_to_others() {
    each_backend(async |db| {
        let rig = rig(db).await;
        rig.set("identity.registration.mode", json!("invite"));
        rig.set(
            "identity.registration.email_domains",
            json!(["example.org"]),
        );
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let invite = async |body: Value| {
            rig.advance(1);
            let (status, made) = rig.post(&admin, "/invitations", body).await;
            assert_eq!(status, 201, "{made}");
            made
        };
        let join = async |token: &str, method: &str, identifier: &str| {
            let body = json!({"method": method, "identifier": identifier, "password": GOOD,
                "invitation": token, "device": {"platform": "web"}});
            post(&rig, "/register", body).await
        };
        let made = invite(json!({"roles": ["tenant_admin"], "locale": "en"})).await;
        let (_, link) = made["link"].as_str().unwrap().split_once('#').unwrap();
        assert_eq!(register(&rig, "username", "nobody", GOOD).await.0, 403);
        let (status, answer) = join(link, "username", "helper").await;
        assert_eq!(status, 201, "{answer}");
        let name = Identifier::Username("helper".to_owned());
        let reader = rig.core.db.reader();
        let found = store::users::find(reader, id::TENANT_DEFAULT, &name)
            .await
            .unwrap()
            .unwrap();
        let roles = store::roles::of_user(reader, found.id).await.unwrap();
        assert!(roles.iter().any(|r| r.name == "tenant_admin"), "{answer}");
        let again = join(link, "username", "helper-2").await;
        assert_eq!(code(&again), (401, "identity.one_time_token_invalid"));

        invite(json!({"email": "carla@example.com", "locale": "en"})).await;
        let mailed = token(&last_letter(&rig).await);
        let other = join(&mailed, "email", "other@example.com").await;
        assert_eq!(
            faults(&other.1),
            [("identifier".to_owned(), "not_invited".to_owned())]
        );
        let (status, answer) = join(&mailed, "email", "Carla@example.com").await;
        assert_eq!(status, 201, "the invitation came to the address: {answer}");
        assert_eq!(log_in(&rig, "carla@example.com", GOOD).await.0, 200);

        let made = invite(json!({"locale": "en"})).await;
        let (_, link) = made["link"].as_str().unwrap().split_once('#').unwrap();
        assert_eq!(
            join(link, "email", "dora@example.org").await.0,
            202,
            "proved first"
        );
        let verify = json!({"token": token(&last_letter(&rig).await)});
        assert_eq!(post(&rig, "/email/verify", verify).await.0, 204);
        assert_eq!(log_in(&rig, "dora@example.org", GOOD).await.0, 200);
        assert_eq!(
            join(link, "username", "late-one").await.0,
            401,
            "used with the account"
        );
        rig.set("identity.registration.mode", json!("off"));
        let made = invite(json!({"locale": "en"})).await;
        let (_, link) = made["link"].as_str().unwrap().split_once('#').unwrap();
        assert_eq!(join(link, "username", "nobody").await.0, 403);
    })
    .await;
}

/// ID-30, ID-141: a number proves itself by a code, for a new account and for a new password.
#[tokio::test]
async fn a_code_by_sms_registers_and_sets_a_new_password() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let rig = &house.rig;
        rig.set(
            "identity.password.argon2",
            json!({"m_kib": 7168, "t": 1, "p": 1}),
        );
        let device = json!({"device_id": "phone-one", "platform": "ios"});
        let (transaction, shown) = house.get_code(PHONE, "phone-one").await;
        let join = async |password: Value| {
            let body = json!({"method": "phone", "transaction_id": transaction, "code": shown,
                "password": password, "device": device});
            post(rig, "/register", body).await
        };
        let weak = join(json!("password1")).await;
        assert_eq!(
            faults(&weak.1)[0].1,
            "password_common",
            "before the code is used up"
        );
        let (status, answer) = join(json!(GOOD)).await;
        assert_eq!(status, 201, "{answer}");
        assert_eq!(
            code(&join(json!(GOOD)).await),
            (401, "identity.otp_expired")
        );
        let number = PHONE.trim_start_matches("+86");
        assert_eq!(log_in(rig, number, GOOD).await.0, 200);
        let mixed = json!({"method": "username", "identifier": "x-y-z", "password": GOOD,
            "transaction_id": transaction, "device": device});
        assert_eq!(post(rig, "/register", mixed).await.0, 400);

        rig.advance(61);
        let ask = json!({"phone": PHONE, "device_id": "phone-one", "purpose": "reset"});
        let (status, sent) = post(rig, "/login/sms/send", ask).await;
        assert_eq!(status, 202, "{sent}");
        house.vendors[0].wait_for(2).await;
        let shown = house.code();
        let confirm = async |code: &str, password: &str| {
            let body = json!({"transaction_id": sent["transaction_id"], "code": code,
                "device_id": "phone-one", "password": password});
            post(rig, "/password/reset/confirm", body).await
        };
        assert_eq!(confirm(&shown, "12345678").await.0, 400);
        let wrong = if shown == "000000" {
            "000001"
        } else {
            "000000"
        };
        assert_eq!(
            code(&confirm(wrong, NEW).await),
            (401, "identity.otp_invalid")
        );
        assert_eq!(confirm(&shown, NEW).await.0, 204);
        assert_eq!(confirm(&shown, GOOD).await.0, 401);
        assert_eq!(log_in(rig, number, GOOD).await.0, 401);
        assert_eq!(log_in(rig, number, NEW).await.0, 200);

        rig.set("identity.registration.mode", json!("invite"));
        let (transaction, shown) = house.get_code("+8613812340000", "phone-one").await;
        let body = json!({"method": "phone", "transaction_id": transaction, "code": shown,
            "device": device});
        let closed = post(rig, "/register", body).await;
        assert_eq!(code(&closed), (403, "identity.registration_closed"));
    })
    .await;
}
