//! Sign in with Apple in an app, through a strict stand-in: who comes in, who is made, who is offered to link (ID-65, ID-67, ID-68, ID-31).

use portico_base::{Principal, id};
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::apple_standin::{BUNDLE, Behaviour, KEY_ID, SERVICES, Standin, TEAM};
use super::rig::{OTHER, Rig, faults};
use crate::domain::identity::ExternalIdentity;
use crate::domain::user::User;
use crate::ops;
use crate::store;

/// Where browsers may end.
pub(super) const RETURN: &str = "https://app.example.com/login?via=apple";

/// Identity with its Apple.
pub(super) struct House {
    pub rig: Rig,
    pub apple: Standin,
}

impl House {
    pub(super) async fn new(db: &TestDb) -> Self {
        let apple = Standin::start(&db.clock).await;
        let rig = Rig::with_apple(db, apple.endpoints()).await;
        for (key, value) in [
            ("identity.limit.apple_per_address", json!(["100000/min"])),
            ("identity.apple.team_id", json!(TEAM)),
            ("identity.apple.key_id", json!(KEY_ID)),
            ("identity.apple.private_key", json!(apple.private_key())),
            (
                "identity.apple.client_ids",
                json!([BUNDLE, "com.example.other"]),
            ),
            ("identity.apple.services_id", json!(SERVICES)),
            ("identity.apple.redirect_uris", json!([RETURN])),
        ] {
            rig.set(key, value);
        }
        Self { rig, apple }
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.rig.post(&Principal::anonymous(), path, body).await
    }

    /// A raw nonce.
    pub(super) async fn nonce(&self) -> String {
        let (status, answer) = self.post("/login/apple/nonce", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        let raw = answer["nonce"].as_str().unwrap().to_owned();
        assert_eq!(answer["nonce_sha256"], ops::apple::hashed(&raw));
        assert_eq!(answer["expires_in_s"], 600);
        raw
    }

    /// Claims about somebody with a new nonce, and that nonce.
    pub(super) async fn claims(&self, subject: &str) -> (Value, String) {
        let nonce = self.nonce().await;
        let claims = self
            .apple
            .claims(BUNDLE, subject, &ops::apple::hashed(&nonce));
        (claims, nonce)
    }

    /// Logs in with what an app got, and whatever else the app sends.
    pub(super) async fn show(&self, token: &str, nonce: &str, more: Value) -> (u16, Value) {
        let mut body = json!({
            "id_token": token, "nonce": nonce, "device": {"platform": "ios"},
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.post("/login/apple", body).await
    }

    /// Logs somebody in whose address Apple has verified.
    pub(super) async fn enter(&self, subject: &str, email: Option<&str>) -> (u16, Value) {
        let (mut claims, nonce) = self.claims(subject).await;
        if let Some(email) = email {
            claims["email"] = email.into();
            claims["email_verified"] = true.into();
        }
        let code = self.apple.code(BUNDLE, subject, None);
        let more = json!({ "code": code });
        self.show(&self.apple.sign(&claims), &nonce, more).await
    }

    /// The same, and the user that came in.
    pub(super) async fn user(&self, subject: &str, email: Option<&str>) -> User {
        let (status, answer) = self.enter(subject, email).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        self.rig.get_user(id::TENANT_DEFAULT, id).await
    }

    /// What is linked to a user.
    pub(super) async fn identities(&self, user: &User) -> Vec<ExternalIdentity> {
        store::identities::of_user(self.rig.core.db.reader(), user.tenant, user.id)
            .await
            .unwrap()
    }
}

pub(super) fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_app_logs_in_and_the_first_time_makes_the_user() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let (mut claims, nonce) = house.claims("001.anna").await;
        claims["email"] = "Anna@Example.com".into();
        // Apple writes its flags as texts or as booleans.
        claims["email_verified"] = "true".into();
        claims["is_private_email"] = "false".into();
        let code = house.apple.code(BUNDLE, "001.anna", None);
        let more = json!({"code": code, "name": " Anna\u{202e} Li ", "locale": "en"});
        let (status, answer) = house.show(&house.apple.sign(&claims), &nonce, more).await;
        assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
        let actions = house.rig.audit.take();
        let wanted = [
            "identity.user.created",
            "identity.apple.linked",
            "identity.login.succeeded",
        ];
        assert_eq!(actions, wanted);
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        let user = house.rig.get_user(id::TENANT_DEFAULT, id).await;
        assert_eq!(user.email.as_deref(), Some("Anna@Example.com"));
        assert!(user.email_verified_at.is_some());
        assert_eq!((&*user.display_name, &*user.locale), ("Anna Li", "en"));
        assert_eq!(user.last_login_method.as_deref(), Some("apple"));
        let all = house.identities(&user).await;
        assert_eq!(
            (all.len(), &*all[0].subject, &*all[0].issuer_key),
            (1, "001.anna", TEAM)
        );
        assert!(!all[0].is_private_email && all[0].email_enabled);
        let sealed = all[0].refresh_token.as_deref().unwrap();
        assert!(sealed.starts_with("penc_"), "{sealed}");
        assert_eq!(house.apple.refused(), [""; 0]);

        let again = house.user("001.anna", None).await;
        assert_eq!(
            again.id, user.id,
            "the subject is the key, and the address is not needed"
        );
        let all = house.identities(&user).await;
        assert_eq!(
            all[0].email.as_deref(),
            Some("Anna@Example.com"),
            "what is not said stays"
        );
        assert_ne!(
            all[0].refresh_token.as_deref(),
            Some(sealed),
            "the newest token is kept"
        );
        assert_eq!(house.rig.audit.take(), ["identity.login.succeeded"]);
        assert_eq!(house.apple.keys_asked(), 1, "keys are kept");
    })
    .await;
}

#[tokio::test]
async fn private_addresses_are_marked_and_unverified_ones_are_nobodys() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let relay = "x1y2@privaterelay.appleid.com";
        let hidden = house.user("001.hidden", Some(relay)).await;
        let all = house.identities(&hidden).await;
        assert!(all[0].is_private_email, "known by its domain");
        let (mut claims, nonce) = house.claims("001.loose").await;
        claims["email"] = "loose@example.com".into();
        claims["email_verified"] = json!(false);
        claims["is_private_email"] = json!(true);
        let (status, answer) = house
            .show(&house.apple.sign(&claims), &nonce, json!({}))
            .await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        let loose = house.rig.get_user(id::TENANT_DEFAULT, id).await;
        assert_eq!(loose.email, None, "it may be anybody's");
        let all = house.identities(&loose).await;
        assert!(all[0].is_private_email && !all[0].email_verified);
        assert_eq!(all[0].refresh_token, None, "no code came with it");

        let admin = house.rig.tenant_admin(id::TENANT_DEFAULT).await;
        let path = format!("/users/{}/identities", hidden.id);
        let (status, seen) = house.rig.get(&admin, &path).await;
        assert_eq!(status, 200, "{seen}");
        assert_eq!(seen["items"][0]["private_email"], true);
        assert!(!seen.to_string().contains("penc_") && !seen.to_string().contains("001.hidden"));
        let auditor = house.rig.auditor().await;
        let (status, seen) = house.rig.get(&auditor, &path).await;
        assert!(status == 403 || !seen.to_string().contains(relay), "{seen}");
    })
    .await;
}

#[tokio::test]
async fn registration_by_apple_is_open_by_invitation_or_closed() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let known = house.user("001.known", None).await;
        house.rig.set("identity.registration.mode", json!("off"));
        let closed = (403, "identity.registration_closed");
        assert_eq!(code(&house.enter("001.new", None).await), closed);
        assert_eq!(
            house.user("001.known", None).await.id,
            known.id,
            "users come in"
        );
        // Only who has proved something is told.
        let (claims, _) = house.claims("001.new").await;
        let wrong = house
            .show(&house.apple.sign(&claims), "wrong", json!({}))
            .await;
        assert_eq!(code(&wrong), (401, "identity.apple_token_invalid"));

        house.rig.set("identity.registration.mode", json!("invite"));
        assert_eq!(code(&house.enter("001.new", None).await), closed);
        let admin = house.rig.tenant_admin(id::TENANT_DEFAULT).await;
        let invite = json!({"roles": ["auditor"], "locale": "en"});
        let (status, made) = house.rig.post(&admin, "/invitations", invite).await;
        assert_eq!(status, 201, "{made}");
        let link = made["link"].as_str().unwrap();
        let invitation = link.rsplit_once('#').unwrap().1;
        let (claims, nonce) = house.claims("001.new").await;
        let more = json!({"invitation": invitation});
        let (status, answer) = house.show(&house.apple.sign(&claims), &nonce, more).await;
        // The role makes an administrator, who needs a second factor first.
        assert_eq!(
            (status, &answer["status"]),
            (200, &json!("enrol_required")),
            "{answer}"
        );
        let (claims, nonce) = house.claims("001.other").await;
        let more = json!({"invitation": invitation});
        let used = house.show(&house.apple.sign(&claims), &nonce, more).await;
        assert_eq!(used.0, 401, "an invitation is good once: {}", used.1);

        house.rig.set("identity.registration.mode", json!("open"));
        house.rig.set(
            "identity.registration.email_domains",
            json!(["example.org"]),
        );
        for address in [None, Some("a@example.com")] {
            let (status, answer) = house.enter("001.third", address).await;
            assert_eq!(status, 400);
            let wanted = ("email".to_owned(), "domain_not_allowed".to_owned());
            assert_eq!(faults(&answer), [wanted], "{address:?}");
        }
        house.user("001.third", Some("a@example.org")).await;
    })
    .await;
}

#[tokio::test]
async fn an_equal_address_is_offered_for_linking_and_never_linked_by_itself() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let mut anna = house.rig.user("anna").await;
        anna.email = Some("anna@example.com".to_owned());
        anna.email_verified_at = Some(house.rig.core.clock.now());
        let tx = house.rig.core.db.begin().await.unwrap();
        store::users::put(&tx, &anna).await.unwrap();
        tx.commit().await.unwrap();
        let (status, answer) = house.enter("001.anna", Some("ANNA@example.com")).await;
        assert_eq!(
            (status, &answer["status"]),
            (200, &json!("link_offered")),
            "{answer}"
        );
        assert!(
            answer["tokens"].is_null() && answer["user"].is_null(),
            "{answer}"
        );
        assert!(
            house.identities(&anna).await.is_empty(),
            "nothing is linked by itself"
        );
        let ticket = answer["ticket"].as_str().unwrap();
        let link = json!({"provider": "apple", "ticket": ticket});

        let bert = house.rig.user("bert").await;
        let bert = house.rig.principal(&bert).await;
        let stolen = house.rig.post(&bert, "/me/identities", link.clone()).await;
        assert_eq!(
            code(&stolen),
            (401, "identity.ticket_invalid"),
            "it is hers alone"
        );
        let mut who = house.rig.principal(&anna).await;
        who.fresh_until_s = 0;
        let stale = house.rig.post(&who, "/me/identities", link.clone()).await;
        assert_eq!(code(&stale), (401, "identity.step_up_required"));
        let who = house.rig.principal(&anna).await;
        house.rig.audit.take();
        let (status, linked) = house.rig.post(&who, "/me/identities", link.clone()).await;
        assert_eq!(
            (status, &linked["provider"]),
            (201, &json!("apple")),
            "{linked}"
        );
        assert_eq!(house.rig.audit.take(), ["identity.apple.linked"]);
        let again = house.rig.post(&who, "/me/identities", link).await;
        assert_eq!(code(&again), (401, "identity.ticket_invalid"), "once");
        let all = house.identities(&anna).await;
        assert!(all[0].refresh_token.is_some(), "it came with the ticket");
        assert_eq!(
            house.user("001.anna", Some("anna@example.com")).await.id,
            anna.id
        );
    })
    .await;
}

#[tokio::test]
async fn two_logins_at_once_make_one_user() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let mut tries = Vec::new();
        for _ in 0..6 {
            let (mut claims, nonce) = house.claims("001.twin").await;
            claims["email"] = "twin@example.com".into();
            claims["email_verified"] = true.into();
            tries.push((house.apple.sign(&claims), nonce));
        }
        let all = tries
            .iter()
            .map(|(token, nonce)| house.show(token, nonce, json!({})));
        let mut users: Vec<String> = Vec::new();
        for (status, answer) in futures_util::future::join_all(all).await {
            assert_eq!((status, &answer["status"]), (200, &json!("ok")), "{answer}");
            users.push(answer["user"]["id"].as_str().unwrap().to_owned());
        }
        users.dedup();
        assert_eq!(users.len(), 1, "{users:?}");
        assert_eq!(house.rig.audit.count("identity.user.created"), 1);
    })
    .await;
}

#[tokio::test]
async fn apple_may_be_away() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        house.apple.behave(Behaviour::Broken);
        let (claims, nonce) = house.claims("001.anna").await;
        let token = house.apple.sign(&claims);
        let away = house.show(&token, &nonce, json!({})).await;
        assert_eq!(code(&away), (503, "identity.apple_unavailable"));
        house.apple.behave(Behaviour::Well);
        let early = house.show(&token, &nonce, json!({})).await;
        assert_eq!(early.0, 503, "asked once a minute at most");
        assert_eq!(house.apple.keys_asked(), 1);
        house.rig.advance(60);
        let (status, answer) = house.show(&token, &nonce, json!({})).await;
        assert_eq!(status, 200, "the nonce was not used up: {answer}");

        // Keys that are known are good while Apple is away, and a login needs no token of Apple's.
        for behaviour in [Behaviour::Broken, Behaviour::Huge] {
            house.apple.behave(behaviour);
            house.rig.advance(7 * 3_600);
            let user = house.user("001.anna", None).await;
            assert_eq!(house.identities(&user).await[0].refresh_token, None);
        }
        house.apple.behave(Behaviour::Well);
        let user = house.user("001.anna", None).await;
        assert!(house.identities(&user).await[0].refresh_token.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_code_of_somebody_else_gives_nothing() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let theirs = house.apple.code(BUNDLE, "001.victim", None);
        let (claims, nonce) = house.claims("001.mallory").await;
        let more = json!({ "code": theirs });
        let (status, answer) = house.show(&house.apple.sign(&claims), &nonce, more).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        let user = house.rig.get_user(id::TENANT_DEFAULT, id).await;
        assert_eq!(house.identities(&user).await[0].refresh_token, None);
    })
    .await;
}

#[tokio::test]
async fn it_is_offered_where_it_is_set_up_and_faults_are_named() {
    each_backend(async |db: &TestDb| {
        let house = House::new(db).await;
        let anonymous = Principal::anonymous();
        let offered = async |tenant: &str| {
            let path = format!("/login/methods?tenant={tenant}");
            let (_, answer) = house.rig.get(&anonymous, &path).await;
            let methods = answer["methods"].as_array().unwrap();
            (
                methods.contains(&json!("apple")),
                answer["apple_web"] == true,
            )
        };
        assert_eq!(offered("default").await, (true, true));
        let set = |key: &str, value: Value| house.rig.settings.set(Some(OTHER), key, value);
        set("identity.apple.team_id", json!("short"));
        set(
            "identity.apple.private_key",
            json!("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
        );
        set("identity.apple.client_ids", json!(["com.ok", "not an id"]));
        set(
            "identity.apple.redirect_uris",
            json!(["http://x.example/", "https://x.example/#a"]),
        );
        assert_eq!(offered("other").await, (false, false));
        let off = (403, "identity.method_off");
        let wish = json!({"tenant": "other"});
        assert_eq!(code(&house.post("/login/apple/nonce", wish).await), off);
        let admin = house.rig.tenant_admin(OTHER).await;
        let (status, told) = house.rig.get(&admin, "/apple").await;
        assert_eq!(status, 200, "{told}");
        let named: Vec<&str> = told["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["setting"].as_str().unwrap())
            .collect();
        assert_eq!(
            named,
            [
                "identity.apple.team_id",
                "identity.apple.private_key",
                "identity.apple.client_ids[1]",
                "identity.apple.redirect_uris[0]",
                "identity.apple.redirect_uris[1]",
            ]
        );
        assert_eq!(
            told["callback_url"],
            "https://id.example.com/api/identity/login/apple/callback"
        );
        assert_eq!(
            told["notices_url"],
            "https://id.example.com/api/identity/webhooks/apple"
        );
        let secret = house.apple.private_key();
        assert!(!told.to_string().contains(&secret[30..60]));
        let user = house.rig.user("anna").await;
        let user = house.rig.principal(&user).await;
        assert_eq!(house.rig.get(&user, "/apple").await.0, 403);

        house.rig.set("identity.apple.enabled", json!(false));
        assert_eq!(offered("default").await, (false, false));
        house.rig.set("identity.apple.enabled", json!(true));
        house.rig.set("identity.login.methods", json!(["password"]));
        assert_eq!(
            code(&house.post("/login/apple/nonce", json!({})).await),
            off
        );
        let (claims, nonce) = (json!({}), "n");
        let shown = house
            .show(&house.apple.sign(&claims), nonce, json!({}))
            .await;
        assert_eq!(code(&shown), off);
    })
    .await;
}
