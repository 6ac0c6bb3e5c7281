//! Codes by SMS through stand-ins of the vendors: logging in, guessing, sending again, falling back.

use std::net::IpAddr;
use std::sync::Arc;

use portico_base::{Context, Principal, id};
use portico_db::testing::{TestDb, each_backend};
use portico_sms::testing::{Behaviour, StandIn, Vendor, account};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{OTHER, Rig, faults};
use crate::domain::otp::Purpose;
use crate::error::Result;
use crate::ops::login::Place;
use crate::ops::sms as ops;
use crate::store;

pub(super) const PHONE: &str = "+8613812345678";

/// Identity with its three vendors.
pub(super) struct House {
    pub rig: Rig,
    pub vendors: [StandIn; 3],
}

impl House {
    pub(super) async fn new(db: &TestDb) -> Self {
        let rig = Rig::new(db).await;
        let clock = || Arc::new(rig.clock.clone());
        let vendors = [
            StandIn::start(Vendor::Aliyun, clock()).await.unwrap(),
            StandIn::start(Vendor::Tencent, clock()).await.unwrap(),
            StandIn::start(Vendor::Twilio, clock()).await.unwrap(),
        ];
        let [aliyun, tencent, twilio] = vendors.each_ref().map(StandIn::url);
        for (key, value) in [
            ("identity.limit.otp_per_address", json!(["10000/min"])),
            ("identity.sms.limit.ip", json!(["10000/h"])),
            ("identity.sms.aliyun.endpoint", json!(aliyun)),
            (
                "identity.sms.aliyun.access_key_id",
                json!(account::ALIYUN_ID),
            ),
            (
                "identity.sms.aliyun.access_key_secret",
                json!(account::ALIYUN_SECRET),
            ),
            ("identity.sms.aliyun.signs", json!({"cn": "门廊"})),
            (
                "identity.sms.aliyun.templates",
                json!({"cn": {"zh-CN": "SMS_1"}}),
            ),
            ("identity.sms.aliyun.cost_micro", json!(45_000)),
            ("identity.sms.tencent.endpoint", json!(tencent)),
            ("identity.sms.tencent.secret_id", json!(account::TENCENT_ID)),
            (
                "identity.sms.tencent.secret_key",
                json!(account::TENCENT_SECRET),
            ),
            (
                "identity.sms.tencent.sdk_app_id",
                json!(account::TENCENT_APP),
            ),
            ("identity.sms.tencent.signs", json!({"cn": "门廊"})),
            (
                "identity.sms.tencent.templates",
                json!({"cn": {"zh-CN": "1110"}}),
            ),
            ("identity.sms.twilio.endpoint", json!(twilio)),
            (
                "identity.sms.twilio.account_sid",
                json!(account::TWILIO_SID),
            ),
            ("identity.sms.twilio.secret", json!(account::TWILIO_TOKEN)),
            ("identity.sms.twilio.from", json!("+15005550006")),
        ] {
            rig.set(key, value);
        }
        Self { rig, vendors }
    }

    /// Asks for a code as a browser would.
    pub(super) async fn ask(&self, phone: &str, device: &str) -> (u16, Value) {
        let wish = json!({"phone": phone, "device_id": device});
        self.rig
            .post(&Principal::anonymous(), "/login/sms/send", wish)
            .await
    }

    /// The same, and the transaction with the code that reached the phone.
    pub(super) async fn get_code(&self, phone: &str, device: &str) -> (String, String) {
        let (status, answer) = self.ask(phone, device).await;
        assert_eq!(status, 202, "{answer}");
        (text(&answer, "transaction_id"), self.code())
    }

    /// The last code that a vendor took.
    pub(super) fn code(&self) -> String {
        let mut all = self.vendors.iter().flat_map(StandIn::seen);
        let last = all.rfind(|seen| seen.delivered);
        last.expect("a message reached a phone").code
    }

    pub(super) async fn show(&self, transaction: &str, code: &str, device: &str) -> (u16, Value) {
        let wish = json!({
            "transaction_id": transaction,
            "code": code,
            "device": {"device_id": device, "platform": "ios"},
        });
        self.rig
            .post(&Principal::anonymous(), "/login/sms/verify", wish)
            .await
    }

    /// The context of somebody at an address.
    pub(super) fn from(&self, address: &str) -> Context {
        let mut cx = self.rig.cx(&Principal::anonymous());
        cx.caller.address = Some(address.parse::<IpAddr>().unwrap());
        cx
    }

    /// Asks from an address, past the HTTP interface.
    pub(super) async fn ask_from(
        &self,
        address: &str,
        phone: &str,
        device: Option<&str>,
    ) -> Result<ops::Sent> {
        let wish = ops::Ask {
            phone: phone.to_owned(),
            purpose: Purpose::Login,
            device: device.map(str::to_owned),
            locale: None,
            transaction: None,
        };
        ops::ask(&self.rig.core, &self.from(address), Some(DEFAULT), wish).await
    }

    /// Requests that each vendor had.
    pub(super) fn asked(&self) -> [usize; 3] {
        self.vendors.each_ref().map(|vendor| vendor.seen().len())
    }

    pub(super) fn all_behave(&self, behaviour: &Behaviour) {
        for vendor in &self.vendors {
            vendor.behave(behaviour.clone());
        }
    }
}

pub(super) const DEFAULT: Place = Place {
    tenant: id::TENANT_DEFAULT,
    chosen: true,
};

pub(super) fn text(answer: &Value, key: &str) -> String {
    answer[key].as_str().unwrap_or_default().to_owned()
}

pub(super) fn code_of(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

/// Another code of six digits.
fn wrong(code: &str) -> String {
    let number: u32 = code.parse().unwrap();
    format!("{:06}", (number + 1) % 1_000_000)
}

#[tokio::test]
async fn a_number_logs_in_and_is_a_user_from_the_first_time_on() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code("138 1234 5678", "phone-one").await;
        let (status, first) = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(
            (status, first["status"].as_str()),
            (200, Some("ok")),
            "{first}"
        );
        let user: Uuid = text(&first["user"], "id").parse().unwrap();
        let row = house.rig.get_user(id::TENANT_DEFAULT, user).await;
        assert_eq!(row.phone.as_deref(), Some(PHONE));
        assert!(row.phone_verified_at.is_some());

        house.rig.advance(61);
        let (transaction, code) = house.get_code(PHONE, "phone-two").await;
        let (_, second) = house.show(&transaction, &code, "phone-two").await;
        assert_eq!(second["user"]["id"], first["user"]["id"], "the same user");
        let again = house.show(&transaction, &code, "phone-two").await;
        assert_eq!(code_of(&again), (401, "identity.otp_expired"), "once");

        // What was recorded holds no number and no code.
        let admin = house.rig.super_admin().await;
        let (_, records) = house.rig.get(&admin, "/sms/records").await;
        let items = records["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0]["phone"], "138****5678");
        assert_eq!(items[0]["country"], "+86");
        assert_eq!(
            (&items[0]["provider"], &items[0]["class"]),
            (&json!("aliyun"), &json!("sent"))
        );
        assert_eq!(items[0]["cost_micro"], 45_000);
        assert!(items[0]["verified_at"].is_string(), "{records}");
        let said = format!("{records} {:?}", house.rig.audit.all());
        assert!(
            !said.contains("13812345678") && !said.contains(&code),
            "{said}"
        );
        let events = house.rig.events().await;
        let sent: Vec<_> = events
            .iter()
            .filter(|e| e.topic == "identity.sms.sent")
            .collect();
        assert_eq!(sent.len(), 2);
        assert!(!sent[0].payload.to_string().contains("13812345678"));
    })
    .await;
}

#[tokio::test]
async fn five_wrong_tries_kill_a_code() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        for _ in 0..4 {
            let refused = house.show(&transaction, &wrong(&code), "phone-one").await;
            assert_eq!(code_of(&refused), (401, "identity.otp_invalid"));
        }
        let fifth = house.show(&transaction, &wrong(&code), "phone-one").await;
        assert_eq!(code_of(&fifth), (401, "identity.otp_exhausted"));
        let right = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(code_of(&right), (401, "identity.otp_exhausted"), "too late");
        assert_eq!(house.rig.audit.count("identity.sms.code_refused"), 5);
    })
    .await;
}

#[tokio::test]
async fn guesses_at_the_same_moment_are_no_more_than_five() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let guesses = (0..40).map(|n| {
            let guess = format!("{:06}", (code.parse::<u32>().unwrap() + 1 + n) % 1_000_000);
            let (house, transaction) = (&house, transaction.clone());
            async move { house.show(&transaction, &guess, "phone-one").await }
        });
        let answers = futures_util::future::join_all(guesses).await;
        let count = |code: &str| answers.iter().filter(|a| code_of(a).1 == code).count();
        assert_eq!(count("identity.otp_invalid"), 4);
        assert_eq!(count("identity.otp_exhausted"), 36);
        let right = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(code_of(&right), (401, "identity.otp_exhausted"));
        assert_eq!(house.rig.audit.count("identity.sms.code_refused"), 5);
    })
    .await;
}

#[tokio::test]
async fn a_right_code_shown_many_times_at_once_opens_one_session() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let shows = (0..5).map(|_| house.show(&transaction, &code, "phone-one"));
        let answers = futures_util::future::join_all(shows).await;
        let ok = answers.iter().filter(|a| a.0 == 200).count();
        assert_eq!(ok, 1, "{answers:?}");
        let users = house.rig.audit.count("identity.user.created");
        assert_eq!(users, 1);
    })
    .await;
}

#[tokio::test]
async fn a_code_is_bound_to_device_tenant_purpose_and_time() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let expired = (401, "identity.otp_expired");
        let stranger = house.show(&transaction, &code, "phone-two").await;
        assert_eq!(code_of(&stranger), expired);
        let elsewhere = json!({
            "transaction_id": transaction, "code": code, "tenant": "other",
            "device": {"device_id": "phone-one", "platform": "ios"},
        });
        let anyone = Principal::anonymous();
        let elsewhere = house
            .rig
            .post(&anyone, "/login/sms/verify", elsewhere)
            .await;
        assert_eq!(code_of(&elsewhere), expired);
        let nowhere = json!({
            "transaction_id": transaction, "code": code, "tenant": "no-such-tenant",
            "device": {"device_id": "phone-one", "platform": "ios"},
        });
        let nowhere = house.rig.post(&anyone, "/login/sms/verify", nowhere).await;
        assert_eq!(code_of(&nowhere), expired);
        let missing = house
            .show(&Uuid::from_u128(7).to_string(), &code, "phone-one")
            .await;
        assert_eq!(code_of(&missing), expired);
        // None of these took a try away, and the code is still good until its time is over.
        house.rig.advance(299);
        let form = house.show(&transaction, "12345", "phone-one").await;
        assert_eq!(faults(&form.1), [("code".to_owned(), "form".to_owned())]);
        assert_eq!(house.show(&transaction, &code, "phone-one").await.0, 200);

        house.rig.advance(61);
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        house.rig.advance(301);
        let late = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(code_of(&late), expired);

        // A code for a new password logs nobody in.
        let wish = json!({"phone": PHONE, "device_id": "phone-one", "purpose": "reset"});
        let (status, sent) = house.rig.post(&anyone, "/login/sms/send", wish).await;
        assert_eq!(status, 202, "{sent}");
        house.vendors[0].wait_for(3).await;
        let reset = house
            .show(&text(&sent, "transaction_id"), &house.code(), "phone-one")
            .await;
        assert_eq!(code_of(&reset), expired);
    })
    .await;
}

#[tokio::test]
async fn another_code_waits_longer_each_time_and_replaces_the_one_before() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (status, first) = house.ask(PHONE, "phone-one").await;
        assert_eq!((status, &first["resend_after_s"]), (202, &json!(60)));
        assert_eq!(first["expires_in_s"], 300);
        let old = house.code();
        house.rig.advance(59);
        let (status, early) = house.ask(PHONE, "phone-one").await;
        assert_eq!(
            (status, early["code"].as_str()),
            (429, Some("identity.sms_limited"))
        );
        assert!(early.get("dimension").is_none(), "{early}");
        house.rig.advance(1);
        let (_, second) = house.ask(PHONE, "phone-one").await;
        assert_eq!(second["transaction_id"], first["transaction_id"]);
        assert_eq!(second["resend_after_s"], 120);
        let new = house.code();
        assert_ne!(old, new);
        house.rig.advance(119);
        assert_eq!(house.ask(PHONE, "phone-one").await.0, 429);
        house.rig.advance(1);
        let transaction = text(&first, "transaction_id");
        let (_, third) = house.ask(PHONE, "phone-one").await;
        assert_eq!(third["resend_after_s"], 300);
        let newest = house.code();
        let replaced = house.show(&transaction, &new, "phone-one").await;
        assert_eq!(
            code_of(&replaced),
            (401, "identity.otp_expired"),
            "it was right before"
        );
        let oldest = house.show(&transaction, &old, "phone-one").await;
        assert_eq!(code_of(&oldest), (401, "identity.otp_invalid"));
        assert_eq!(house.show(&transaction, &newest, "phone-one").await.0, 200);
        let used = json!({"phone": PHONE, "device_id": "phone-one", "transaction_id": transaction});
        house.rig.advance(300);
        let used = house
            .rig
            .post(&Principal::anonymous(), "/login/sms/send", used)
            .await;
        assert_eq!(
            faults(&used.1),
            [("transaction_id".to_owned(), "unknown".to_owned())]
        );
    })
    .await;
}

#[tokio::test]
async fn a_fallback_carries_the_same_code_and_each_attempt_has_its_row() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.vendors[0].behave(Behaviour::Code("isv.SMS_TEMPLATE_ILLEGAL".to_owned()));
        house.vendors[1].behave(Behaviour::ResetAfter);
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        assert_eq!(house.asked(), [1, 1, 1]);
        for vendor in &house.vendors {
            assert_eq!(vendor.seen()[0].code, code);
        }
        assert_eq!(house.show(&transaction, &code, "phone-one").await.0, 200);
        let admin = house.rig.super_admin().await;
        let path = format!("/sms/records?transaction_id={transaction}");
        let (_, records) = house.rig.get(&admin, &path).await;
        let mut rows: Vec<_> = records["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                (
                    r["attempt_no"].as_u64(),
                    text(r, "provider"),
                    text(r, "class"),
                )
            })
            .collect();
        rows.sort();
        let row = |n, provider: &str, class: &str| (Some(n), provider.to_owned(), class.to_owned());
        assert_eq!(
            rows,
            [
                row(1, "aliyun", "next_alert"),
                row(2, "tencent", "ambiguous"),
                row(3, "twilio", "sent")
            ]
        );
        house.rig.advance(61);
        house.get_code("+8613812340000", "phone-two").await;
        let events = house.rig.events().await;
        let alerts = events.iter().filter(|e| e.topic == "identity.sms.alerted");
        let kinds: Vec<_> = alerts.map(|e| text(&e.payload, "kind")).collect();
        assert_eq!(kinds, ["provider_misconfigured"], "told once");
    })
    .await;
}

#[tokio::test]
async fn when_nobody_takes_it_the_transaction_can_be_used_at_once_again() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.all_behave(&Behaviour::Status(503));
        let (status, down) = house.ask(PHONE, "phone-one").await;
        assert_eq!(
            (status, down["code"].as_str()),
            (503, Some("identity.sms_unavailable"))
        );
        let transaction = text(&down, "transaction_id");
        house.all_behave(&Behaviour::Take);
        let (status, sent) = house.ask(PHONE, "phone-one").await;
        assert_eq!(status, 202, "nobody was bothered, so nobody waits: {sent}");
        assert_eq!(text(&sent, "transaction_id"), transaction);
        let (_, seen) = house.show(&transaction, &house.code(), "phone-one").await;
        assert_eq!(seen["status"], "ok", "{seen}");
    })
    .await;
}

#[tokio::test]
async fn a_refused_number_is_told_and_tried_nowhere_else() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.vendors[0].behave(Behaviour::Code("isv.BUSINESS_LIMIT_CONTROL".to_owned()));
        let refused = house.ask(PHONE, "phone-one").await;
        assert_eq!(code_of(&refused), (400, "identity.sms_refused"));
        assert_eq!(house.asked(), [1, 0, 0]);
        let events = house.rig.events().await;
        assert_eq!(
            events
                .iter()
                .filter(|e| e.topic == "identity.sms.failed")
                .count(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn registration_is_closed_only_for_whom_has_the_number() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.rig.set("identity.registration.mode", json!("invite"));
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let guess = house.show(&transaction, &wrong(&code), "phone-one").await;
        assert_eq!(
            code_of(&guess),
            (401, "identity.otp_invalid"),
            "nothing is told before"
        );
        let closed = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(code_of(&closed), (403, "identity.registration_closed"));
        assert_eq!(house.rig.audit.count("identity.user.created"), 0);
        house.rig.set("identity.login.methods", json!(["password"]));
        house.rig.advance(61);
        let off = house.ask(PHONE, "phone-one").await;
        assert_eq!(code_of(&off), (403, "identity.method_off"));
    })
    .await;
}

#[tokio::test]
async fn a_message_is_no_second_factor_of_an_administrator() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let admin = house
            .rig
            .add_user(id::TENANT_DEFAULT, "boss", &["tenant_admin"])
            .await;
        let tx = house.rig.core.db.begin().await.unwrap();
        let with_phone = crate::domain::user::User {
            phone: Some(PHONE.to_owned()),
            phone_verified_at: Some(house.rig.core.clock.now()),
            ..admin
        };
        store::users::put(&tx, &with_phone).await.unwrap();
        tx.commit().await.unwrap();
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let (status, answer) = house.show(&transaction, &code, "phone-one").await;
        assert_eq!(
            (status, answer["status"].as_str()),
            (200, Some("enrol_required")),
            "{answer}"
        );
        assert!(answer["tokens"].is_null() && answer["ticket"].is_string());
    })
    .await;
}

#[tokio::test]
async fn whether_a_number_is_known_shows_in_nothing() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        assert_eq!(house.show(&transaction, &code, "phone-one").await.0, 200);
        house.rig.advance(61);
        let anyone = Principal::anonymous();
        let reset = async |phone: &str| {
            let wish = json!({"phone": phone, "device_id": "phone-one", "purpose": "reset"});
            let (status, mut answer) = house.rig.post(&anyone, "/login/sms/send", wish).await;
            if let Some(object) = answer.as_object_mut() {
                object.remove("transaction_id");
            }
            (status, answer)
        };
        let (known, unknown) = (PHONE, "+8613900000000");
        assert_eq!(reset(known).await, reset(unknown).await);
        house.vendors[0].wait_for(2).await;
        // The second wish meets the same limits, whether anything was sent or not, taken or not.
        let (a, b) = (reset(known).await, reset(unknown).await);
        assert_eq!((a.0, &a.1["code"]), (b.0, &b.1["code"]));
        assert_eq!(a.0, 429);
        house.rig.advance(61);
        house.all_behave(&Behaviour::Status(503));
        assert_eq!(
            reset(known).await,
            reset(unknown).await,
            "also when no vendor works"
        );
        house.vendors[2].wait_for(1).await;
        assert_eq!(reset(known).await.0, reset(unknown).await.0);
        // A login gives everybody a code.
        house.all_behave(&Behaviour::Take);
        house.rig.advance(400);
        let shape = async |phone: &str| {
            let (status, answer) = house.ask(phone, "phone-one").await;
            (
                status,
                answer["resend_after_s"].clone(),
                answer["expires_in_s"].clone(),
            )
        };
        assert_eq!(shape(known).await, shape("+8613900000001").await);
        let elsewhere = json!({"phone": PHONE, "tenant": "no-such-tenant"});
        let (status, answer) = house.rig.post(&anyone, "/login/sms/send", elsewhere).await;
        assert_eq!((status, &answer["resend_after_s"]), (202, &json!(60)));
    })
    .await;
}

#[tokio::test]
async fn test_numbers_get_no_message_and_are_warned_of() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let until = house.rig.core.clock.now() + chrono::Duration::hours(1);
        let tests = json!([{"phone": PHONE, "code": "000042", "until": until}]);
        house.rig.set("identity.sms.test_numbers", tests);
        let (status, sent) = house.ask(PHONE, "phone-one").await;
        assert_eq!(status, 202, "{sent}");
        assert_eq!(house.asked(), [0, 0, 0]);
        let admin = house.rig.super_admin().await;
        let (_, chain) = house.rig.get(&admin, "/sms/providers").await;
        assert_eq!(chain["test_numbers"][0]["phone"], "138****5678");
        assert!(
            chain["warnings"][0]
                .as_str()
                .unwrap()
                .contains("test numbers"),
            "{chain}"
        );
        assert!(!chain.to_string().contains("000042"));
        let (status, _) = house
            .show(&text(&sent, "transaction_id"), "000042", "phone-one")
            .await;
        assert_eq!(status, 200);
        house.rig.advance(3_601);
        house.get_code(PHONE, "phone-one").await;
        assert_eq!(house.asked(), [1, 0, 0], "its time is over");
    })
    .await;
}

#[tokio::test]
async fn two_people_with_one_new_number_become_one_user() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house
            .rig
            .set("identity.sms.limit.phone", json!(["1000/min"]));
        let one = house.get_code(PHONE, "phone-one").await;
        let two = house.get_code(PHONE, "phone-two").await;
        let (a, b) = tokio::join!(
            house.show(&one.0, &one.1, "phone-one"),
            house.show(&two.0, &two.1, "phone-two")
        );
        assert_eq!((a.0, b.0), (200, 200), "{a:?} {b:?}");
        assert_eq!(a.1["user"]["id"], b.1["user"]["id"]);
    })
    .await;
}

#[tokio::test]
async fn an_own_number_is_bound_by_its_code_and_given_up_when_another_way_is_left() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let anna = house.rig.user("anna").await;
        let who = house.rig.principal(&anna).await;
        let begin = async |phone: &str| {
            let wish = json!({"phone": phone});
            house.rig.post(&who, "/me/phone", wish).await
        };
        let confirm = async |sent: &Value| {
            let wish = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
            house.rig.post(&who, "/me/phone/confirm", wish).await
        };
        let (status, sent) = begin(PHONE).await;
        assert_eq!(status, 202, "{sent}");
        // Neither a login nor another user can use the code.
        let login = house
            .show(&text(&sent, "transaction_id"), &house.code(), "phone-one")
            .await;
        assert_eq!(code_of(&login), (401, "identity.otp_expired"));
        let bob = house.rig.user("bob").await;
        let bob = house.rig.principal(&bob).await;
        let wish = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
        let stolen = house.rig.post(&bob, "/me/phone/confirm", wish).await;
        assert_eq!(code_of(&stolen), (401, "identity.otp_expired"));
        assert_eq!(confirm(&sent).await.0, 204);
        let row = house.rig.get_user(id::TENANT_DEFAULT, anna.id).await;
        assert_eq!(row.phone.as_deref(), Some(PHONE));

        // Whose number it is already is told to whoever has it, and only then.
        house.rig.advance(61);
        let fresh = house.rig.principal(&house.rig.user("carol").await).await;
        let wish = json!({"phone": PHONE});
        let (status, sent) = house.rig.post(&fresh, "/me/phone", wish).await;
        assert_eq!(status, 202, "{sent}");
        let wish = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
        let taken = house.rig.post(&fresh, "/me/phone/confirm", wish).await;
        assert_eq!(code_of(&taken), (409, "identity.phone_taken"));

        let last = house
            .rig
            .call(&who, "DELETE", "/me/phone", Value::Null)
            .await;
        assert_eq!(code_of(&last), (409, "identity.last_method"));
        let tx = house.rig.core.db.begin().await.unwrap();
        let secrets = store::secrets::Secrets {
            password: Some(portico_base::Secret::from("$argon2id$")),
            ..store::secrets::Secrets::none(anna.id)
        };
        store::secrets::put(&tx, &secrets).await.unwrap();
        tx.commit().await.unwrap();
        let gone = house
            .rig
            .call(&who, "DELETE", "/me/phone", Value::Null)
            .await;
        assert_eq!(gone.0, 204, "{gone:?}");
        let row = house.rig.get_user(id::TENANT_DEFAULT, anna.id).await;
        assert_eq!((row.phone, row.phone_verified_at), (None, None));
        let again = house
            .rig
            .call(&who, "DELETE", "/me/phone", Value::Null)
            .await;
        assert_eq!(again.0, 404);
        let old = Principal {
            fresh_until_s: 0,
            ..who.clone()
        };
        let stale = house
            .rig
            .post(&old, "/me/phone", json!({"phone": PHONE}))
            .await;
        assert_eq!(code_of(&stale), (401, "identity.step_up_required"));
    })
    .await;
}

#[tokio::test]
async fn the_code_at_rest_is_a_keyed_hash_and_the_number_an_envelope() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        let owner = store::otp::Owner {
            tenant: id::TENANT_DEFAULT,
            purpose: Purpose::Login,
            device: "phone-one",
            user: None,
        };
        let row = store::otp::get(
            house.rig.core.db.reader(),
            owner,
            transaction.parse().unwrap(),
        )
        .await
        .unwrap()
        .unwrap();
        assert!(row.phone.starts_with("penc_"));
        let shown = format!("{row:?}");
        assert!(!shown.contains("13812345678") && !shown.contains(&code));
        let elsewhere = store::otp::Owner {
            tenant: OTHER,
            ..owner
        };
        let other = store::otp::get(house.rig.core.db.reader(), elsewhere, row.id)
            .await
            .unwrap();
        assert_eq!(other, None, "another tenant's query finds nothing");
    })
    .await;
}

#[tokio::test]
async fn bad_wishes_name_all_faults() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let wish = json!({"phone": "12", "device_id": "x", "locale": "fr"});
        let (status, problem) = house
            .rig
            .post(&Principal::anonymous(), "/login/sms/send", wish)
            .await;
        assert_eq!(status, 400);
        let fields: Vec<String> = faults(&problem)
            .into_iter()
            .map(|(field, _)| field)
            .collect();
        assert_eq!(fields, ["locale", "device_id", "phone"]);
        let bind = json!({"phone": PHONE, "purpose": "bind"});
        let (status, _) = house
            .rig
            .post(&Principal::anonymous(), "/login/sms/send", bind)
            .await;
        assert_eq!(status, 401, "binding needs somebody to bind to");
    })
    .await;
}
