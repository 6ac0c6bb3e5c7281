//! Second factors: setting one up, logging in with it, losing it, guessing it (ID-75…79).

use std::process::Command;
use std::sync::Arc;

use portico_base::{Permission, Principal, PrincipalKind, Secret, id};
use portico_contract::audit::Outcome;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{OTHER, Rig};
use crate::domain::factor::code_at;
use crate::domain::login::{LoginResult, LoginStatus, Proof, Transport};
use crate::domain::role::{Role, SUPER_ADMIN};
use crate::domain::user::User;
use crate::error::reason;
use crate::ops::factors::{self, Shown, Verdict};
use crate::ops::totp::{self, Factor};
use crate::ops::{api_keys, login, one_time, tickets};
use crate::store;
use crate::unit::Unit;

const DEVICE: &str = "device-of-anna";

/// Somebody at a client.
pub(super) struct Person<'r> {
    rig: &'r Rig,
    pub user: User,
    /// Of the app.
    secret: Vec<u8>,
    recovery: Vec<String>,
}

impl<'r> Person<'r> {
    pub(super) async fn new(rig: &'r Rig, tenant: Uuid, name: &str, roles: &[&str]) -> Self {
        Self {
            rig,
            user: rig.add_user(tenant, name, roles).await,
            secret: Vec::new(),
            recovery: Vec::new(),
        }
    }

    /// The first factor is right.
    pub(super) async fn proved(&self) -> LoginResult {
        let cx = self.rig.cx(&Principal::anonymous());
        let row = self.rig.get_user(self.user.tenant, self.user.id).await;
        let device = json!({"device_id": DEVICE, "platform": "ios", "name": "phone"});
        let proof = Proof {
            user: row,
            method: "password",
            amr: vec!["pwd".to_owned()],
            aal: 1,
            device: serde_json::from_value(device).expect("a device"),
            transport: Transport::Body,
        };
        login::finish(&self.rig.core, &cx, proof)
            .await
            .expect("the login goes on")
    }

    async fn ticket(&self) -> String {
        let result = self.proved().await;
        assert_ne!(result.status, LoginStatus::Ok);
        result.ticket.expect("a ticket").expose().clone()
    }

    /// As the door presents the session that was just begun.
    pub(super) async fn at_session(&self, session: Uuid, aal: u8) -> Principal {
        Principal {
            session: Some(Arc::from(session.to_string())),
            aal,
            ..self.rig.principal(&self.user).await
        }
    }

    /// What the app shows.
    pub(super) fn code(&self) -> String {
        code_at(&self.secret, self.rig.core.clock.now())
    }

    /// Takes what the server showed into the app.
    fn scan(&mut self, enrolment: &Value) {
        let text = enrolment["secret"].as_str().expect("a secret");
        self.secret = unbase32(text);
        let uri = enrolment["uri"].as_str().expect("a uri");
        assert!(uri.starts_with("otpauth://totp/"), "{uri}");
        assert!(uri.contains(&format!("secret={text}&issuer=")), "{uri}");
        let svg = enrolment["qr_svg"].as_str().expect("an image");
        assert!(svg.contains("<svg"), "{svg}");
    }

    fn keep(&mut self, answer: &Value) {
        let codes = answer["recovery_codes"].as_array().expect("codes");
        self.recovery = codes
            .iter()
            .map(|c| c.as_str().expect("a code").to_owned())
            .collect();
        assert_eq!(self.recovery.len(), 10);
    }

    /// Has a factor after this.
    async fn set_up(&mut self, who: &Principal) {
        let (status, begun) = self.rig.post(who, "/me/totp", Value::Null).await;
        assert_eq!(status, 200, "{begun}");
        self.scan(&begun);
        let body = json!({"code": self.code()});
        let (status, done) = self.rig.post(who, "/me/totp/confirm", body).await;
        assert_eq!(status, 200, "{done}");
        self.keep(&done);
        self.rig.advance(30);
    }

    async fn mfa(&self, mut body: Value) -> (u16, Value) {
        body["device_id"] = DEVICE.into();
        self.rig
            .post(&Principal::anonymous(), "/login/mfa", body)
            .await
    }
}

/// A user with a factor, and the session that it was set up in.
pub(super) async fn anna(rig: &Rig) -> (Person<'_>, Principal) {
    let mut anna = Person::new(rig, id::TENANT_DEFAULT, "anna", &["user"]).await;
    let first = anna.proved().await;
    assert_eq!(
        first.status,
        LoginStatus::Ok,
        "nobody asks her for a factor yet"
    );
    let session = first.tokens.expect("tokens").session_id;
    let who = anna.at_session(session, 1).await;
    anna.set_up(&who).await;
    (anna, who)
}

fn unbase32(text: &str) -> Vec<u8> {
    let bits: Vec<u8> = text
        .bytes()
        .map(|c| match c {
            b'A'..=b'Z' => c - b'A',
            _ => c - b'2' + 26,
        })
        .flat_map(|value| (0..5).rev().map(move |bit| (value >> bit) & 1))
        .collect();
    bits.chunks_exact(8)
        .map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit))
        .collect()
}

async fn enrolling_and_logging_in(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, who) = anna(&rig).await;
    let session = Uuid::parse_str(who.session.as_deref().expect("a session")).expect("an id");
    let row = store::sessions::get(db.db.reader(), session)
        .await
        .expect("the database answers")
        .expect("the session is there");
    assert_eq!(
        (row.aal, row.amr.as_slice()),
        (2, ["pwd", "otp"].map(str::to_owned).as_slice())
    );
    let (_, status) = rig.get(&who, "/me/totp").await;
    assert_eq!(status["enabled"], true);
    assert_eq!(
        (&status["required"], &status["recovery_codes_left"]),
        (&json!(false), &json!(10))
    );
    assert_eq!(
        rig.post(&who, "/me/totp", Value::Null).await.1["code"],
        "identity.factor_exists"
    );

    let waiting = anna.proved().await;
    assert_eq!(waiting.status, LoginStatus::MfaRequired);
    assert_eq!(waiting.methods, ["totp", "recovery_code"]);
    assert!(waiting.tokens.is_none() && waiting.user.is_none());
    let ticket = waiting.ticket.expect("a ticket").expose().clone();
    let code = anna.code();
    // Another device has no use for the ticket, and a missing or second factor is bad input.
    let body = json!({"ticket": ticket, "code": code, "device_id": "somebody-else"});
    let (status, problem) = rig.post(&Principal::anonymous(), "/login/mfa", body).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.ticket_invalid"))
    );
    assert_eq!(anna.mfa(json!({"ticket": ticket})).await.0, 400);
    let both = json!({"ticket": ticket, "code": code, "recovery_code": anna.recovery[0]});
    assert_eq!(anna.mfa(both).await.0, 400);

    let (status, done) = anna.mfa(json!({"ticket": ticket, "code": code})).await;
    assert_eq!((status, &done["status"]), (200, &json!("ok")), "{done}");
    let claims = claims(&done);
    assert_eq!(
        (&claims["aal"], &claims["amr"]),
        (&json!(2), &json!(["pwd", "otp"]))
    );
    // The ticket is used up, and so is the code.
    let (status, problem) = anna.mfa(json!({"ticket": ticket, "code": code})).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.ticket_invalid"))
    );
    let ticket = anna.ticket().await;
    let (status, problem) = anna.mfa(json!({"ticket": ticket, "code": code})).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.otp_invalid"))
    );
    rig.advance(30);
    let (status, _) = anna
        .mfa(json!({"ticket": ticket, "code": anna.code()}))
        .await;
    assert_eq!(status, 200, "a wrong code left the ticket as it was");
    let kept: String = format!("{:?}", rig.audit.all());
    assert!(!kept.contains(&code) && anna.recovery.iter().all(|c| !kept.contains(c)));
    assert_eq!(rig.audit.count("identity.factor.added"), 1);
    let added = rig.events().await;
    assert!(added.iter().any(|e| e.topic == "identity.factor.added"));
}

#[tokio::test]
async fn a_factor_is_set_up_and_asked_for() {
    each_backend(enrolling_and_logging_in).await;
}

/// What an access token says.
pub(super) fn claims(answer: &Value) -> Value {
    use base64::Engine as _;
    let token = answer["tokens"]["access_token"].as_str().expect("a token");
    let part = token.split('.').nth(1).expect("claims");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

async fn guessing(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, _) = anna(&rig).await;
    let ticket = anna.ticket().await;
    rig.audit.take();
    for n in 0..5 {
        let (status, problem) = anna.mfa(json!({"ticket": ticket, "code": "000000"})).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("identity.otp_invalid")),
            "{n}"
        );
    }
    let right = anna.code();
    let cx = rig.cx(&Principal::anonymous());
    let refused = totp::finish_login(
        &rig.core,
        &cx,
        &Secret::from(ticket.as_str()),
        Some(DEVICE),
        &Shown::Code(Secret::from(right.as_str())),
    )
    .await
    .expect_err("the factor is locked");
    assert!(refused.is(reason::FACTOR_LOCKED));
    assert_eq!(portico_base::Fault::retry_after_s(&refused), Some(900));
    let failures = rig.audit.all();
    assert_eq!(failures.len(), 6);
    assert!(
        failures
            .iter()
            .all(|r| r.action == "identity.factor.failed" && r.outcome == Outcome::Failed)
    );
    // The account is not: a recovery code still opens it, and takes the lock away.
    let recovery = anna.recovery[3].to_uppercase();
    let (status, done) = anna
        .mfa(json!({"ticket": ticket, "recovery_code": recovery}))
        .await;
    assert_eq!((status, &done["status"]), (200, &json!("ok")), "{done}");
    let ticket = anna.ticket().await;
    let (status, problem) = anna
        .mfa(json!({"ticket": ticket, "recovery_code": anna.recovery[3]}))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.otp_invalid"))
    );
    let (status, _) = anna.mfa(json!({"ticket": ticket, "code": right})).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn five_wrong_codes_lock_the_factor_and_not_the_account() {
    each_backend(guessing).await;
}

async fn races(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, _) = anna(&rig).await;
    let show = async |shown: Shown| {
        let cx = rig.cx(&Principal::anonymous());
        let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
        let verdict = factors::check(&unit, &anna.user, &shown)
            .await
            .expect("a verdict");
        unit.commit().await.expect("a commit");
        verdict
    };
    let code = anna.code();
    let code = || Shown::Code(Secret::from(code.as_str()));
    let same = futures_util::future::join_all((0..4).map(|_| show(code()))).await;
    assert_eq!(
        same.iter().filter(|v| **v == Verdict::Right).count(),
        1,
        "{same:?}"
    );
    let recovery = || Shown::Recovery(Secret::from(anna.recovery[0].as_str()));
    let same = futures_util::future::join_all((0..4).map(|_| show(recovery()))).await;
    assert_eq!(
        same.iter().filter(|v| **v == Verdict::Right).count(),
        1,
        "{same:?}"
    );
    rig.advance(3_600);
    let wrong = || Shown::Code(Secret::from("000000"));
    let guesses = futures_util::future::join_all((0..12).map(|_| show(wrong()))).await;
    let looked_at = guesses.iter().filter(|v| **v == Verdict::Wrong).count();
    assert_eq!(looked_at, 5, "{guesses:?}");
}

#[tokio::test]
async fn codes_shown_at_once_count_once_and_guesses_at_once_five_times() {
    each_backend(races).await;
}

async fn forced(db: &TestDb) {
    let rig = Rig::new(db).await;
    let mut root = Person::new(&rig, id::TENANT_SYSTEM, "root", &[SUPER_ADMIN]).await;
    let waiting = root.proved().await;
    assert_eq!(waiting.status, LoginStatus::EnrolRequired);
    let ticket = waiting.ticket.expect("a ticket").expose().clone();
    let nobody = Principal::anonymous();
    // The ticket opens nothing else.
    assert_eq!(
        root.mfa(json!({"ticket": ticket, "code": "123456"}))
            .await
            .0,
        401
    );
    let body = json!({"ticket": ticket, "device_id": DEVICE});
    let (status, begun) = rig.post(&nobody, "/login/mfa/totp", body.clone()).await;
    assert_eq!(status, 200, "{begun}");
    let (_, again) = rig.post(&nobody, "/login/mfa/totp", body).await;
    assert_ne!(begun["secret"], again["secret"]);
    root.scan(&again);
    let confirm = |code: String| json!({"ticket": ticket, "device_id": DEVICE, "code": code});
    let path = "/login/mfa/totp/confirm";
    let (status, problem) = rig.post(&nobody, path, confirm("000000".to_owned())).await;
    assert_eq!(
        (status, &problem["code"]),
        (401, &json!("identity.otp_invalid"))
    );
    let (status, done) = rig.post(&nobody, path, confirm(root.code())).await;
    assert_eq!((status, &done["status"]), (200, &json!("ok")), "{done}");
    root.keep(&done);
    assert_eq!(claims(&done)["aal"], 2);
    assert_eq!(root.proved().await.status, LoginStatus::MfaRequired);
}

#[tokio::test]
async fn an_administrator_sets_a_factor_up_at_the_first_login() {
    each_backend(forced).await;
}

#[tokio::test]
async fn who_needs_a_factor_is_a_setting() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let conn = db.db.reader();
    let user = rig.user("ben").await;
    let role = |name: &str, permission: &'static str| Role {
        id: Uuid::nil(),
        tenant: Some(id::TENANT_DEFAULT),
        name: name.to_owned(),
        title_zh: String::new(),
        title_en: String::new(),
        permissions: vec![Permission::new(permission)],
        built_in: false,
        created_at: user.created_at,
        updated_at: user.created_at,
    };
    let required = async |roles: &[Role]| {
        totp::required(&rig.core, conn, &user, roles)
            .await
            .expect("an answer")
    };
    let plain = [role("listener", "music:playlist:read")];
    let strong = [role("helpdesk", "identity:user:write")];
    // Built-in names mean nothing on a tenant's own role.
    let named = [role(SUPER_ADMIN, "music:playlist:read")];
    assert_eq!(required(&[]).await, Factor::None);
    assert_eq!(required(&plain).await, Factor::None);
    assert_eq!(required(&named).await, Factor::None);
    assert_eq!(required(&strong).await, Factor::Enrol);
    assert_eq!(required(&[role("all", "*:*:*")]).await, Factor::Enrol);
    rig.set("identity.mfa.admin", json!("optional"));
    assert_eq!(required(&strong).await, Factor::None);
    rig.set("identity.mfa.users", json!("required"));
    assert_eq!(required(&plain).await, Factor::Enrol);
    db.finish().await;
}

async fn losing(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, who) = anna(&rig).await;
    // New recovery codes and removing want two factors, just shown.
    let strong = Principal {
        aal: 2,
        fresh_until_s: i64::MAX,
        ..who.clone()
    };
    for (method, path) in [("POST", "/me/recovery-codes"), ("DELETE", "/me/totp")] {
        for weak in [
            Principal {
                aal: 1,
                ..strong.clone()
            },
            Principal {
                fresh_until_s: 0,
                ..strong.clone()
            },
        ] {
            let (status, problem) = rig.call(&weak, method, path, Value::Null).await;
            assert_eq!(
                (status, &problem["code"]),
                (401, &json!("identity.step_up_required"))
            );
        }
    }
    let (status, new) = rig.post(&strong, "/me/recovery-codes", Value::Null).await;
    assert_eq!(status, 200, "{new}");
    let ticket = anna.ticket().await;
    let body = json!({"ticket": ticket, "recovery_code": anna.recovery[0]});
    assert_eq!(
        anna.mfa(body).await.0,
        401,
        "the old codes are good no more"
    );
    let body = json!({"ticket": ticket, "recovery_code": new["recovery_codes"][0]});
    assert_eq!(anna.mfa(body).await.0, 200);

    rig.audit.take();
    assert_eq!(
        rig.call(&strong, "DELETE", "/me/totp", Value::Null).await.0,
        204
    );
    assert_eq!(rig.audit.take(), ["identity.factor.removed"]);
    let (status, problem) = rig.call(&strong, "DELETE", "/me/totp", Value::Null).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("identity.factor_missing"))
    );
    assert_eq!(
        rig.post(&strong, "/me/recovery-codes", Value::Null).await.0,
        409
    );
    assert_eq!(anna.proved().await.status, LoginStatus::Ok);
    let codes = store::factors::codes(db.db.reader(), anna.user.id)
        .await
        .expect("codes");
    assert!(codes.is_empty());
}

#[tokio::test]
async fn removing_a_factor_wants_it_shown_first() {
    each_backend(losing).await;
}

async fn resetting(db: &TestDb) {
    let rig = Rig::new(db).await;
    let (anna, who) = anna(&rig).await;
    let path = format!("/users/{}/reset-factors", anna.user.id);
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let foreign = rig.tenant_admin(OTHER).await;
    let body = || json!({"reason": "lost her phone"});
    assert_eq!(rig.post(&foreign, &path, body()).await.0, 404);
    assert_eq!(rig.post(&who, &path, body()).await.0, 403);
    let stale = Principal {
        fresh_until_s: 0,
        ..admin.clone()
    };
    assert_eq!(rig.post(&stale, &path, body()).await.0, 401);
    // Not even a key that somehow were strong.
    let key = Principal {
        kind: PrincipalKind::ApiKey,
        ..admin.clone()
    };
    let (status, problem) = rig.post(&key, &path, body()).await;
    assert_eq!(
        (status, &problem["code"]),
        (403, &json!("identity.not_for_keys"))
    );
    rig.audit.take();

    assert_eq!(rig.post(&admin, &path, body()).await.0, 204);
    let records = rig.audit.all();
    let reset = records
        .iter()
        .find(|r| r.action == "identity.factor.reset")
        .expect("a record");
    assert_eq!(reset.reason.as_deref(), Some("lost her phone"));
    assert!(
        store::sessions::live(db.db.reader(), anna.user.id)
            .await
            .expect("sessions")
            .is_empty()
    );
    let row = rig.get_user(id::TENANT_DEFAULT, anna.user.id).await;
    assert!(row.tv > anna.user.tv);
    let events = rig.events().await;
    let told = events
        .iter()
        .rfind(|e| e.topic == "identity.factor.removed")
        .expect("an event");
    let payload: Value = serde_json::from_str(&told.payload.to_string()).expect("JSON");
    assert_eq!(
        (&payload["by"], &payload["severity"]),
        (&json!("reset"), &json!("high"))
    );
    assert_eq!(anna.proved().await.status, LoginStatus::Ok);
}

#[tokio::test]
async fn an_administrator_resets_a_factor_and_ends_the_sessions() {
    each_backend(resetting).await;
}

#[tokio::test]
async fn the_app_of_somebody_else_makes_the_same_codes() {
    let Ok(found) = Command::new("oathtool").arg("--version").output() else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "oathtool is not installed, and CI must not skip its test"
        );
        return;
    };
    assert!(found.status.success());
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let mut anna = Person::new(&rig, id::TENANT_DEFAULT, "anna", &["user"]).await;
    let session = anna.proved().await.tokens.expect("tokens").session_id;
    let who = anna.at_session(session, 1).await;
    let (_, begun) = rig.post(&who, "/me/totp", Value::Null).await;
    anna.scan(&begun);
    let foreign = || {
        let now = rig.core.clock.now().format("%Y-%m-%d %H:%M:%S UTC");
        let output = Command::new("oathtool")
            .args(["--totp", "--base32", "--now", &now.to_string()])
            .arg(begun["secret"].as_str().expect("a secret"))
            .output()
            .expect("oathtool runs");
        String::from_utf8(output.stdout)
            .expect("digits")
            .trim()
            .to_owned()
    };
    let (status, done) = rig
        .post(&who, "/me/totp/confirm", json!({"code": foreign()}))
        .await;
    assert_eq!(status, 200, "{done}");
    for _ in 0..5 {
        rig.advance(3_457);
        assert_eq!(foreign(), anna.code());
        let ticket = anna.ticket().await;
        assert_eq!(
            anna.mfa(json!({"ticket": ticket, "code": foreign()}))
                .await
                .0,
            200
        );
    }
    db.finish().await;
}

#[tokio::test]
async fn a_ticket_is_of_its_time_and_its_user() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let (anna, who) = anna(&rig).await;
    let late = anna.ticket().await;
    rig.advance(301);
    let body = json!({"ticket": late, "code": anna.code()});
    assert_eq!(anna.mfa(body).await.1["code"], "identity.ticket_invalid");
    // One of another kind opens nothing here.
    let waiting = anna.ticket().await;
    let cx = rig.cx(&who);
    let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
    let proof = {
        let ticket = Secret::from(waiting.as_str());
        tickets::peek(
            &rig.core,
            &cx,
            &unit.tx,
            tickets::MFA,
            &ticket,
            Some(DEVICE),
        )
        .await
        .expect("a proof")
    };
    let kind = tickets::DEVICE;
    let (other, _) = tickets::issue(&rig.core, &cx, &unit.tx, kind, &proof, one_time::TICKET)
        .await
        .expect("a ticket");
    unit.commit().await.expect("a commit");
    let body = json!({"ticket": other.expose(), "code": anna.code()});
    assert_eq!(anna.mfa(body).await.1["code"], "identity.ticket_invalid");
    // A person's own matters are not a key's.
    let key = Principal {
        kind: PrincipalKind::ApiKey,
        ..who
    };
    let refused = api_keys::list(
        &rig.core,
        &rig.cx(&key),
        api_keys::Whose::Own,
        &api_keys::Wanted::default(),
        1,
    )
    .await;
    assert!(
        refused
            .expect_err("a key is no person")
            .is(reason::NOT_FOR_KEYS)
    );
    assert_eq!(rig.get(&key, "/me/totp").await.0, 403);
    db.finish().await;
}
