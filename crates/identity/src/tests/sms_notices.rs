//! News of an account by SMS: to whom, in whose language, within which limits, and never with a secret.

use portico_base::{Secret, id};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::Query;
use portico_db::testing::each_backend;
use portico_jobs::{Queue, Ran};
use portico_sms::testing::{Behaviour, Seen, StandIn};
use serde_json::{Value, json};

use super::sms::{House, PHONE};
use crate::domain::user::User;
use crate::notices::{Notice, Way};
use crate::ops::sms as ops;
use crate::unit::Unit;

const KIND: &str = "identity.sms.notice";

/// The house with approved notices at two vendors.
async fn house(db: &portico_db::testing::TestDb) -> House {
    let house = House::new(db).await;
    let aliyun = json!({"password_changed": {"cn": {"zh-CN": "SMS_901"}}, "any": {"cn": {"zh-CN": "SMS_900"}}});
    house.rig.set("identity.sms.aliyun.notices", aliyun);
    let tencent = json!({"any": {"cn": {"zh-CN": "9000"}}});
    house.rig.set("identity.sms.tencent.notices", tencent);
    house
}

fn queue(house: &House) -> Queue {
    let core = &house.rig.core;
    let (clock, random) = (core.clock.clone(), core.random.clone());
    let handlers = [ops::notice_handler(core)];
    Queue::new(core.db.clone(), clock, random, "me", handlers)
}

/// Somebody with a verified number and nothing else.
async fn anna(house: &House) -> User {
    User {
        phone: Some(PHONE.to_owned()),
        phone_verified_at: Some(house.rig.core.clock.now()),
        ..house.rig.user("anna").await
    }
}

async fn tell(house: &House, user: &User, notice: Notice) -> Way {
    let core = &house.rig.core;
    let unit = Unit::begin(core, &core.own_context("test")).await.unwrap();
    let way = core.notices.send(&unit, user, notice).await.unwrap();
    unit.commit().await.unwrap();
    way
}

fn told(vendor: &StandIn) -> Vec<String> {
    let seen = vendor.seen().into_iter();
    seen.filter(|seen| seen.delivered)
        .filter_map(|seen: Seen| seen.notice)
        .collect()
}

async fn work(house: &House) -> Vec<Ran> {
    let done = queue(house).work_off().await.unwrap();
    done.into_iter().map(|(_, ran)| ran).collect()
}

#[tokio::test]
async fn whoever_has_a_number_and_no_address_is_told_by_sms() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        assert_eq!(tell(&house, &user, Notice::PasswordChanged).await, Way::Sms);
        assert_eq!(work(&house).await, [Ran::Done]);
        assert_eq!(told(&house.vendors[0]), ["SMS_901"]);
        assert_eq!(house.vendors[0].seen()[0].phone, PHONE);
        house.rig.advance(61);
        tell(&house, &user, Notice::FactorsReset).await;
        work(&house).await;
        assert_eq!(
            told(&house.vendors[0])[1],
            "SMS_900",
            "the template for all others"
        );

        // Elsewhere the text is ours, in the user's language.
        house.rig.set("identity.sms.chain", json!(["twilio"]));
        for (locale, part) in [("zh-CN", "密码已修改"), ("en", "was changed")] {
            house.rig.advance(3_601);
            let user = User {
                locale: locale.to_owned(),
                ..user.clone()
            };
            tell(&house, &user, Notice::PasswordChanged).await;
            assert_eq!(work(&house).await, [Ran::Done]);
            let texts = told(&house.vendors[2]);
            assert!(texts.last().unwrap().contains(part), "{texts:?}");
        }

        // A number that was not proved, a switch that is off, a country that gets nothing.
        let unproved = User {
            phone_verified_at: None,
            ..user.clone()
        };
        assert_eq!(
            tell(&house, &unproved, Notice::PasswordChanged).await,
            Way::None
        );
        house.rig.set("identity.sms.countries", json!(["+852"]));
        assert_eq!(
            tell(&house, &user, Notice::PasswordChanged).await,
            Way::None
        );
        house.rig.set("identity.sms.countries", json!(["+86"]));
        house.rig.set("identity.sms.notices", json!(false));
        assert_eq!(
            tell(&house, &user, Notice::PasswordChanged).await,
            Way::None
        );
        assert_eq!(work(&house).await, []);
    })
    .await;
}

#[tokio::test]
async fn what_carries_a_secret_does_not_go_by_sms() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        let token = || Secret::from("s3cr3t-token");
        for notice in [
            Notice::ResetLink { token: token() },
            Notice::VerifyEmail { token: token() },
            Notice::Invitation { token: token() },
            Notice::EmailChanged { undo: token() },
        ] {
            assert_eq!(tell(&house, &user, notice).await, Way::None);
        }
        // The news that a number changed go, without their link.
        let changed = Notice::PhoneChanged { undo: token() };
        assert_eq!(tell(&house, &user, changed).await, Way::Sms);
        let mut select = Query::select();
        select.columns(["payload", "kind"]).from("jobs");
        let rows = db.db.reader().query_all(&select).await.unwrap();
        assert_eq!(rows.len(), 1);
        let kind: String = rows[0].try_get("", "kind").unwrap();
        let payload: Value = rows[0].try_get("", "payload").unwrap();
        let waiting = payload.to_string();
        assert_eq!(kind, KIND);
        assert!(waiting.contains("penc_"), "{waiting}");
        assert!(
            !waiting.contains("s3cr3t") && !waiting.contains("1381234"),
            "{waiting}"
        );
        house.rig.set("identity.sms.chain", json!(["twilio"]));
        assert_eq!(work(&house).await, [Ran::Done]);
        let text = told(&house.vendors[2]).remove(0);
        assert!(!text.contains("s3cr3t") && !text.contains("http"), "{text}");
        assert!(!text.contains(|c: char| c.is_ascii_digit()), "{text}");
    })
    .await;
}

#[tokio::test]
async fn news_keep_the_limits_and_hold_no_login_up() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        for _ in 0..2 {
            tell(&house, &user, Notice::PasswordChanged).await;
        }
        // One a minute to a number; the other waits its turn, and is not lost.
        let mut ran = work(&house).await;
        ran.sort_by_key(|ran| format!("{ran:?}"));
        assert_eq!(ran, [Ran::Done, Ran::Retried], "{ran:?}");
        assert_eq!(house.rig.audit.count("identity.sms.limited"), 1);
        // A login needs its code now, and does not wait for news.
        let (status, answer) = house.ask(PHONE, "phone-one").await;
        assert_eq!(status, 202, "{answer}");
        house.rig.advance(61);
        assert_eq!(work(&house).await, [Ran::Done]);
        assert_eq!(told(&house.vendors[0]).len(), 2);
        // Codes count for news: two messages in the same minute are too many.
        house.rig.advance(121);
        assert_eq!(house.ask(PHONE, "phone-one").await.0, 202);
        tell(&house, &user, Notice::PasswordChanged).await;
        assert_eq!(work(&house).await, [Ran::Retried]);
        // Four messages so far: the next two fill the hour, and the rest of the news is let go of.
        house.rig.set("identity.sms.limit.phone", json!(["4/day"]));
        house.rig.advance(61);
        assert_eq!(work(&house).await, [Ran::Done], "dropped, with its record");
        assert_eq!(told(&house.vendors[0]).len(), 2);
        assert_eq!(house.rig.audit.count("identity.sms.limited"), 3);
        // The budget of the installation holds for news.
        house
            .rig
            .set("identity.sms.limit.phone", json!(["1000/day"]));
        house.rig.set("identity.sms.budget.hour", json!(1));
        tell(&house, &user, Notice::PasswordChanged).await;
        work(&house).await;
        assert_eq!(told(&house.vendors[0]).len(), 2);
        let alerts = house.rig.events().await;
        let spent = alerts
            .iter()
            .filter(|e| e.topic == "identity.sms.alerted" && e.payload["kind"] == "budget_used_up");
        assert_eq!(spent.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn news_that_nobody_takes_are_tried_again_and_recorded() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        house.all_behave(&Behaviour::Status(503));
        tell(&house, &user, Notice::PasswordChanged).await;
        assert_eq!(work(&house).await, [Ran::Retried]);
        assert_eq!(house.asked(), [1, 1, 1]);
        house.all_behave(&Behaviour::Take);
        house.rig.advance(61);
        assert_eq!(work(&house).await, [Ran::Done]);
        house.rig.advance(4_000);
        assert_eq!(work(&house).await, [], "once");
        let admin = house.rig.super_admin().await;
        let (_, records) = house.rig.get(&admin, "/sms/records").await;
        let rows = records["items"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row["notice"] == true), "{records}");
        let (_, stats) = house.rig.get(&admin, "/sms/stats").await;
        let days = stats["items"].as_array().unwrap();
        let sent: u64 = days.iter().filter_map(|d| d["sent"].as_u64()).sum();
        assert_eq!(sent, 1, "{stats}");
        assert!(
            days.iter().all(|d| d["conversion_percent"].is_null()),
            "{stats}"
        );
        let said = format!("{records} {:?}", house.rig.audit.all());
        assert!(!said.contains("13812345678"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn news_of_thirty_people_block_no_country() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        for n in 0..31 {
            let one = User {
                phone: Some(format!("+86138{n:04}0000")),
                ..user.clone()
            };
            assert_eq!(tell(&house, &one, Notice::PasswordChanged).await, Way::Sms);
        }
        assert_eq!(work(&house).await.len(), 31);
        assert_eq!(told(&house.vendors[0]).len(), 31);
        house.rig.advance(130);
        ops::watch(&house.rig.core).await.unwrap();
        let (status, answer) = house.ask(PHONE, "phone-one").await;
        assert_eq!(
            status, 202,
            "no code of theirs comes back, and none should: {answer}"
        );
    })
    .await;
}

/// ID-142: the old number is told; with an address the link that takes the change back goes there.
#[tokio::test]
async fn the_old_number_is_told_of_the_new_one() {
    each_backend(async |db| {
        let house = house(db).await;
        let user = anna(&house).await;
        let tx = house.rig.core.db.begin().await.unwrap();
        crate::store::users::put(&tx, &user).await.unwrap();
        tx.commit().await.unwrap();
        let who = house.rig.principal(&user).await;
        let wish = json!({"phone": "+8613900000000"});
        let (status, sent) = house.rig.post(&who, "/me/phone", wish).await;
        assert_eq!(status, 202, "{sent}");
        let wish = json!({"transaction_id": sent["transaction_id"], "code": house.code()});
        let (status, answer) = house.rig.post(&who, "/me/phone/confirm", wish).await;
        assert_eq!(status, 204, "{answer}");
        assert_eq!(work(&house).await, [Ran::Done]);
        let seen = house.vendors[0].seen().pop().unwrap();
        assert_eq!(
            (&*seen.phone, seen.notice.as_deref()),
            (PHONE, Some("SMS_900"))
        );
        let now = house.rig.get_user(id::TENANT_DEFAULT, user.id).await;
        assert_eq!(now.phone.as_deref(), Some("+8613900000000"));
    })
    .await;
}
