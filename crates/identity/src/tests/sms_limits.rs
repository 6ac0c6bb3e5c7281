//! Limits, budgets and conversion of messages, over replicas; figures and tries of providers.

use chrono::Duration;
use portico_base::{Fault as _, Principal, id};
use portico_db::testing::each_backend;
use portico_sms::testing::Behaviour;
use portico_telemetry::metrics::Format;
use serde_json::{Value, json};

use super::rig::OTHER;
use super::sms::{DEFAULT, House, PHONE, code_of, text};
use crate::domain::otp::Purpose;
use crate::domain::sms::{SendStatus, SmsSend};
use crate::error::{Error, Result, reason};
use crate::ops::sms as ops;
use crate::store;

fn phone(n: u32) -> String {
    format!("+86139{:04}0000", n)
}

/// Seconds until it makes sense again, of a refusal by a limit.
fn limited(result: Result<ops::Sent>) -> u32 {
    let error = result.expect_err("a limit refuses");
    assert!(error.is(reason::SMS_LIMITED), "{error:?}");
    error.retry_after_s().unwrap()
}

/// Dimensions of the refusals that were audited.
fn dimensions(house: &House) -> Vec<String> {
    let records = house.rig.audit.all();
    let limited = records
        .iter()
        .filter(|r| r.action == "identity.sms.limited");
    let of = |r: &portico_contract::audit::Record| {
        let change = r.changes.iter().find(|c| c.path == "dimension");
        change.and_then(|c| c.after.clone())
    };
    limited
        .filter_map(of)
        .map(|v| v.as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_phone_gets_one_a_minute_five_an_hour_ten_a_day() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let mut device = 0;
        // Each from another device and address, so that only the number is the same.
        let mut ask = async || {
            device += 1;
            let (address, name) = (format!("198.51.{device}.1"), format!("device-{device:04}"));
            house.ask_from(&address, PHONE, Some(&name)).await
        };
        ask().await.unwrap();
        house.rig.advance(59);
        assert_eq!(limited(ask().await), 1);
        for _ in 0..4 {
            house.rig.advance(60);
            ask().await.unwrap();
        }
        house.rig.advance(60);
        let wait = limited(ask().await);
        assert_eq!(
            i64::from(wait),
            3_600 - 59 - 5 * 60,
            "until the first is an hour ago"
        );
        for _ in 0..5 {
            house.rig.advance(3_600);
            ask().await.unwrap();
        }
        house.rig.advance(3_600);
        assert!(limited(ask().await) > 3_600, "ten a day");
        assert!(dimensions(&house).iter().all(|d| d == "phone"));
        assert_eq!(house.asked(), [10, 0, 0]);
    })
    .await;
}

#[tokio::test]
async fn devices_addresses_networks_and_prefixes_have_limits() {
    each_backend(async |db| {
        let house = House::new(db).await;
        for n in 0..5 {
            house
                .ask_from("198.51.100.1", &phone(n), Some("device-one"))
                .await
                .unwrap();
        }
        limited(
            house
                .ask_from("198.51.100.2", &phone(5), Some("device-one"))
                .await,
        );
        assert_eq!(dimensions(&house), ["device"]);

        house
            .rig
            .set("identity.sms.limit.ip", json!(["10/h", "30/day"]));
        for n in 10..20 {
            house
                .ask_from("203.0.113.9", &phone(n), None)
                .await
                .unwrap();
        }
        limited(house.ask_from("203.0.113.9", &phone(20), None).await);
        house
            .ask_from("203.0.113.10", &phone(20), None)
            .await
            .unwrap();

        house.rig.set("identity.sms.limit.net", json!(["20/h"]));
        for n in 21..30 {
            house
                .ask_from("203.0.113.11", &phone(n), None)
                .await
                .unwrap();
        }
        limited(house.ask_from("203.0.113.12", &phone(30), None).await);
        house
            .ask_from("203.0.114.12", &phone(30), None)
            .await
            .unwrap();
        for n in 0..3 {
            let address = format!("2001:db8:1:2:{n}::1");
            house
                .ask_from(&address, &phone(40 + n), None)
                .await
                .unwrap();
        }
        house.rig.set("identity.sms.limit.ip", json!(["3/h"]));
        limited(
            house
                .ask_from("2001:db8:1:2:ffff::1", &phone(50), None)
                .await,
        );

        house.rig.set("identity.sms.limit.prefix", json!(["3/h"]));
        for n in 0..3 {
            let (address, number) = (format!("192.0.2.{n}"), format!("+86137000000{n:02}"));
            house.ask_from(&address, &number, None).await.unwrap();
        }
        limited(house.ask_from("192.0.2.99", "+8613700000099", None).await);
        assert_eq!(dimensions(&house)[1..], ["ip", "net", "ip", "prefix"]);
    })
    .await;
}

#[tokio::test]
async fn countries_tenants_and_budgets_stop_hard() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let abroad = house.ask_from("198.51.100.1", "+12025550123", None).await;
        limited(abroad);
        house
            .rig
            .set("identity.sms.countries", json!(["+86", "+1202"]));
        house
            .ask_from("198.51.100.1", "+12025550123", None)
            .await
            .unwrap();
        assert_eq!(house.asked(), [0, 0, 1], "only one vendor serves it");
        limited(house.ask_from("198.51.100.1", "+12125550123", None).await);

        let tx = house.rig.core.db.begin().await.unwrap();
        let mut tenant = store::tenants::get(&tx, id::TENANT_DEFAULT)
            .await
            .unwrap()
            .unwrap();
        tenant.quotas.sms_per_day = 2;
        store::tenants::put(&tx, &tenant).await.unwrap();
        tx.commit().await.unwrap();
        house
            .ask_from("198.51.100.1", &phone(1), None)
            .await
            .unwrap();
        assert!(limited(house.ask_from("198.51.100.1", &phone(2), None).await) > 86_000);

        house.rig.set("identity.sms.budget.hour", json!(3));
        let other = |number: String| {
            let wish = ops::Ask {
                phone: number,
                purpose: Purpose::Login,
                device: None,
                locale: None,
                transaction: None,
            };
            let place = crate::ops::login::Place {
                tenant: OTHER,
                ..DEFAULT
            };
            let cx = house.from("198.51.100.1");
            let core = house.rig.core.clone();
            async move { ops::ask(&core, &cx, Some(place), wish).await }
        };
        other(phone(3)).await.unwrap();
        for n in 4..7 {
            assert!(limited(other(phone(n)).await) <= 3_600);
        }
        let events = house.rig.events().await;
        let alerts: Vec<_> = events
            .iter()
            .filter(|e| e.topic == "identity.sms.alerted")
            .collect();
        assert_eq!(alerts.len(), 1, "told once");
        assert_eq!(alerts[0].payload["kind"], "budget_used_up");
        assert_eq!(
            dimensions(&house),
            ["country", "country", "tenant", "budget", "budget", "budget"]
        );
        house.rig.advance(3_601);
        other(phone(8)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_limit_holds_over_replicas_at_the_same_moment() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let second = house.rig.another(db).await;
        let asks = (0..12).map(|n| {
            let core = if n % 2 == 0 {
                &house.rig.core
            } else {
                &second.core
            };
            let cx = house.from(&format!("198.51.{n}.1"));
            let wish = ops::Ask {
                phone: PHONE.to_owned(),
                purpose: Purpose::Login,
                device: Some(format!("device-{n:04}")),
                locale: None,
                transaction: None,
            };
            async move { ops::ask(core, &cx, Some(DEFAULT), wish).await }
        });
        let answers = futures_util::future::join_all(asks).await;
        let sent = answers.iter().filter(|a| a.is_ok()).count();
        assert_eq!(sent, 1, "{answers:?}");
        assert_eq!(
            house.asked(),
            [1, 0, 0],
            "exactly one code reaches the phone"
        );
    })
    .await;
}

async fn put_sends(house: &House, count: u32, verified: u32) {
    let tx = house.rig.core.db.begin().await.unwrap();
    let now = house.rig.core.clock.now();
    for n in 0..count {
        let cx = house.from("198.51.100.1");
        let send = SmsSend {
            id: cx.new_id(),
            tenant: id::TENANT_DEFAULT,
            transaction: cx.new_id(),
            phone_hash: [u8::try_from(n).unwrap(); 32],
            prefix_hash: [u8::try_from(n).unwrap(); 32],
            country: "+86".to_owned(),
            device_hash: None,
            ip: None,
            net: None,
            status: SendStatus::Sent,
            at: now,
        };
        store::sms::insert(&tx, &send).await.unwrap();
        if n < verified {
            store::sms::verified(&tx, send.tenant, send.id, now)
                .await
                .unwrap();
        }
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_country_whose_codes_do_not_come_back_is_blocked_for_an_hour() {
    each_backend(async |db| {
        let house = House::new(db).await;
        put_sends(&house, 30, 4).await;
        house.rig.advance(60);
        ops::watch(&house.rig.core).await.unwrap();
        house
            .ask_from("198.51.100.1", &phone(1), None)
            .await
            .unwrap();
        // Now the codes of the first thirty are no longer on the way.
        house.rig.advance(61);
        ops::watch(&house.rig.core).await.unwrap();
        let wait = limited(house.ask_from("198.51.100.1", &phone(2), None).await);
        assert_eq!(wait, 3_600);
        assert_eq!(dimensions(&house), ["conversion"]);
        ops::watch(&house.rig.core).await.unwrap();
        let events = house.rig.events().await;
        let alerts: Vec<_> = events
            .iter()
            .filter(|e| e.topic == "identity.sms.alerted")
            .collect();
        assert_eq!(alerts.len(), 1, "told once");
        assert_eq!(alerts[0].payload["subject"], "country:+86");
        let admin = house.rig.super_admin().await;
        let (_, chain) = house.rig.get(&admin, "/sms/providers").await;
        assert_eq!(chain["blocks"][0]["subject"], "country:+86");
        assert_eq!(chain["blocks"][0]["sent"], 30);
        house.rig.advance(3_601);
        house
            .ask_from("198.51.100.1", &phone(3), None)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_send_that_finds_a_bad_conversion_blocks_by_itself() {
    each_backend(async |db| {
        let house = House::new(db).await;
        put_sends(&house, 40, 5).await;
        house.rig.advance(121);
        limited(house.ask_from("198.51.100.1", &phone(1), None).await);
        let blocks = store::sms::blocks(house.rig.core.db.reader(), house.rig.core.clock.now(), 9)
            .await
            .unwrap();
        assert_eq!((blocks.len(), blocks[0].verified), (1, 5));
        assert_eq!(house.asked(), [0, 0, 0]);
        house
            .rig
            .set("identity.sms.min_conversion_percent", json!(0));
        house.rig.advance(3_601);
        put_sends(&house, 40, 0).await;
        house.rig.advance(121);
        house
            .ask_from("198.51.100.1", &phone(1), None)
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn figures_by_provider_and_day() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.vendors[0].once(Behaviour::Code("isp.SYSTEM_ERROR".to_owned()));
        let (transaction, code) = house.get_code(PHONE, "phone-one").await;
        assert_eq!(house.show(&transaction, &code, "phone-one").await.0, 200);
        house.get_code(&phone(1), "phone-two").await;
        let admin = house.rig.super_admin().await;
        let (status, stats) = house.rig.get(&admin, "/sms/stats?days=2").await;
        assert_eq!(status, 200, "{stats}");
        let of = |provider: &str| {
            let items = stats["items"].as_array().unwrap();
            items
                .iter()
                .find(|d| d["provider"] == provider)
                .cloned()
                .unwrap()
        };
        let (aliyun, tencent) = (of("aliyun"), of("tencent"));
        assert_eq!((&aliyun["sent"], &aliyun["failed"]), (&json!(1), &json!(1)));
        assert_eq!(
            (&aliyun["verified"], &aliyun["conversion_percent"]),
            (&json!(0), &json!(0.0))
        );
        assert_eq!(
            (&tencent["sent"], &tencent["verified"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(tencent["conversion_percent"], json!(100.0));
        assert_eq!(house.rig.get(&admin, "/sms/stats?days=32").await.0, 400);
        let scraped = house.rig.metrics.render(Format::Prometheus);
        for line in [
            r#"portico_identity_otp_sent_total{provider="tencent",country="+86"} 1"#,
            r#"portico_identity_otp_verified_total{provider="tencent",country="+86"} 1"#,
            r#"portico_identity_sms_attempt_seconds_count{provider="aliyun",class="next"} 1"#,
            r#"portico_identity_sms_cost_micro_total{provider="aliyun"} 45000"#,
            r#"portico_identity_sms_provider_state{provider="twilio"} 0"#,
        ] {
            assert!(scraped.contains(line), "{line}\n{scraped}");
        }

        // Another tenant's administrator sees their own, which is nothing.
        let other = house.rig.tenant_admin(OTHER).await;
        let (_, stats) = house.rig.get(&other, "/sms/stats").await;
        assert_eq!(stats["items"], json!([]));
        let (_, records) = house.rig.get(&other, "/sms/records").await;
        assert_eq!(records["items"], json!([]));
        let foreign = house.rig.get(&other, "/sms/records?tenant=default").await;
        assert_eq!(code_of(&foreign), (404, "identity.tenant_not_found"));

        let page = async |path: &str| house.rig.get(&admin, path).await.1;
        let first = page("/sms/records?limit=2").await;
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        let next = format!(
            "/sms/records?limit=2&cursor={}",
            text(&first, "next_cursor")
        );
        let second = page(&next).await;
        assert_eq!(second["items"].as_array().unwrap().len(), 1);
        assert_eq!(second["next_cursor"], Value::Null);
        let failed = page("/sms/records?status=failed").await;
        assert_eq!(failed["items"][0]["provider_code"], "isp.SYSTEM_ERROR");
        let of_phone = page("/sms/records?phone=13812345678").await;
        assert_eq!(of_phone["items"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_administrator_tries_a_provider_on_the_own_number() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let boss = house
            .rig
            .add_user(id::TENANT_DEFAULT, "boss", &["tenant_admin"])
            .await;
        let who = house.rig.principal(&boss).await;
        let test = async |who: &Principal, name: &str| {
            let path = format!("/sms/providers/{name}/test");
            house.rig.post(who, &path, Value::Null).await
        };
        assert_eq!(
            code_of(&test(&who, "tencent").await),
            (409, "identity.phone_missing")
        );
        let tx = house.rig.core.db.begin().await.unwrap();
        let with_phone = crate::domain::user::User {
            phone: Some(PHONE.to_owned()),
            phone_verified_at: Some(house.rig.core.clock.now()),
            ..boss
        };
        store::users::put(&tx, &with_phone).await.unwrap();
        tx.commit().await.unwrap();
        let (status, tested) = test(&who, "tencent").await;
        assert_eq!(
            (status, tested["class"].as_str()),
            (200, Some("sent")),
            "{tested}"
        );
        assert_eq!(house.asked(), [0, 1, 0]);
        house.rig.advance(61);
        house.vendors[2].behave(Behaviour::Code("20003".to_owned()));
        let (_, tested) = test(&who, "twilio").await;
        assert_eq!(tested["class"], "next_alert");
        assert_eq!(tested["provider_code"], "20003");
        assert_eq!(
            code_of(&test(&who, "console").await),
            (404, "identity.not_found")
        );
        house
            .rig
            .set("identity.sms.chain", json!(["console", "aliyun"]));
        assert_eq!(
            code_of(&test(&who, "console").await),
            (409, "identity.sms_provider_not_set"),
            "not in production"
        );
        let user = house.rig.principal(&house.rig.user("anna").await).await;
        assert_eq!(test(&user, "aliyun").await.0, 403);
        let tx = house.rig.core.db.begin().await.unwrap();
        let mut tenant = store::tenants::get(&tx, id::TENANT_DEFAULT)
            .await
            .unwrap()
            .unwrap();
        tenant.quotas.sms_per_day = 2;
        store::tenants::put(&tx, &tenant).await.unwrap();
        tx.commit().await.unwrap();
        let (status, full) = test(&who, "aliyun").await;
        assert_eq!(
            (status, &full["quota"], &full["limit"]),
            (409, &json!("sms_per_day"), &json!(2))
        );
        let (_, records) = house.rig.get(&who, "/sms/records").await;
        assert_eq!(records["items"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn old_rows_go() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.get_code(PHONE, "phone-one").await;
        house.rig.advance(2 * 86_400 + 1);
        ops::trim(&house.rig.core).await.unwrap();
        let (conn, now) = (house.rig.core.db.reader(), house.rig.core.clock.now());
        let all = store::sms::Dimension::All;
        let left = store::sms::nth_newest(conn, &all, now - Duration::days(9), 1)
            .await
            .unwrap();
        assert_eq!(left, None);
        let admin = house.rig.super_admin().await;
        let (_, records) = house.rig.get(&admin, "/sms/records").await;
        assert_eq!(
            records["items"].as_array().unwrap().len(),
            1,
            "records stay longer"
        );
        house.rig.advance(180 * 86_400);
        ops::trim(&house.rig.core).await.unwrap();
        let (_, records) = house.rig.get(&admin, "/sms/records").await;
        assert_eq!(records["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn refusals_do_not_fill_the_audit() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.ask_from("198.51.100.1", PHONE, None).await.unwrap();
        for _ in 0..50 {
            let refused: Result<_> = house.ask_from("198.51.100.1", PHONE, None).await;
            assert!(matches!(refused, Err(Error::Later(..))));
        }
        assert_eq!(
            house.rig.audit.count("identity.sms.limited"),
            20,
            "a second has so many"
        );
        house.rig.advance(1);
        limited(house.ask_from("198.51.100.1", PHONE, None).await);
        assert_eq!(house.rig.audit.count("identity.sms.limited"), 21);
    })
    .await;
}
