//! Erasing a person takes out what is private; the chain stays whole and says how much and why.

use portico_base::{Principal, PrincipalKind, Timestamp, id};
use portico_contract::audit::Record;
use portico_contract::personal::PersonalData as _;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::{TestDb, each_backend};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

use super::House;
use crate::FaultKind;
use crate::personal::Personal;

#[tokio::test]
async fn a_person_is_erased_from_records_and_the_chain_stays_valid() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let ada = Uuid::from_u128(0xada);
        let user = Principal::new(PrincipalKind::User, ada.to_string(), id::TENANT_DEFAULT);
        let change = || {
            Record::done(
                "identity.user.changed",
                "user",
                ada.to_string(),
                id::TENANT_DEFAULT,
            )
            .change("display_name", None, Some("Ada Lovelace".into()))
        };
        // Ids of one millisecond have no order.
        let next = || house.clock.advance(chrono::Duration::milliseconds(1));
        house.record(&house.cx(user.clone()), change()).await;
        next();
        house.record(&house.cx(super::admin()), change()).await;
        next();
        house.disable(5).await;
        house.seal().await;
        // One that waits to be sealed is taken out as well.
        house.record(&house.cx(user), change()).await;
        let part = Personal(Arc::clone(&house.core));
        let cx = house.core.own_context("erase");
        let given = part
            .export(&cx, id::TENANT_DEFAULT, ada)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            given["records"].as_array().map(Vec::len),
            Some(2),
            "{given}"
        );
        assert_eq!(given["records"][0]["ip"], "203.0.113.7");
        part.erase(&cx, id::TENANT_DEFAULT, ada).await.unwrap();
        part.erase(&cx, id::TENANT_DEFAULT, ada).await.unwrap();
        house.seal().await;
        let all = house.get(&Principal::operator(), "/records").await;
        assert!(!all.to_string().contains("Lovelace"), "{all}");
        let of = |action: &str| -> Vec<Value> {
            let items = all["items"].as_array().unwrap().iter();
            items.filter(|r| r["action"] == action).cloned().collect()
        };
        assert_eq!(of("identity.user.changed").len(), 3);
        assert!(
            of("identity.user.changed")
                .iter()
                .all(|r| r["ip"] == Value::Null && r["redacted_at"].is_string())
        );
        assert_eq!(
            of("identity.user.disabled")[0]["ip"],
            "203.0.113.7",
            "others stay"
        );
        let told: u64 = of("audit.person.redacted")
            .iter()
            .filter_map(|r| r["changes"][0]["after"].as_u64())
            .sum();
        assert_eq!(told, 3);
        let report = house.verify().await;
        assert!(report.ok, "{report:?}");
        assert_eq!(report.redacted, 3);
        // Whoever takes a private part out by hand has no record that names it, at whatever moment.
        let moment = of("identity.user.changed")[0]["redacted_at"].clone();
        let moment: Timestamp = serde_json::from_value(moment).unwrap();
        for at in [moment, cx.now()] {
            take_out_by_hand(db, at).await;
            let fault = house.verify().await.fault.unwrap();
            assert_eq!(
                (fault.seq, fault.kind),
                (3, FaultKind::RecordAltered),
                "{fault:?}"
            );
            assert!(fault.detail.contains("no record says"), "{fault:?}");
        }
    })
    .await;
}

async fn take_out_by_hand(db: &TestDb, at: Timestamp) {
    let tx = db.db.begin().await.unwrap();
    let mut update = Query::update();
    update
        .table("audit_records")
        .value("private", None::<String>)
        .value("salt", None::<String>)
        .value("ip", None::<String>)
        .value("paths", "")
        .value("redacted_at", at)
        .and_where(Expr::col("action").eq("identity.user.disabled"));
    tx.execute(&update).await.unwrap();
    tx.commit().await.unwrap();
}
