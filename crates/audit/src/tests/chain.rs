//! Sealing: everything once, in one chain, whoever seals; signed in time; removed in time.

use portico_base::Principal;
use portico_db::testing::each_backend;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::House;
use crate::ops::seal::Sealer;
use crate::ops::{retain, verify};
use crate::store;

#[tokio::test]
async fn everything_is_sealed_once_and_found_in_order() {
    each_backend(async |db| {
        let house = House::with(db, &[("audit.checkpoint_every", json!(10))]).await;
        for n in 0..25 {
            house.disable(n).await;
        }
        house.seal().await;
        house.seal().await;
        house.disable(99).await;
        let report = house.verify().await;
        assert!(report.ok, "{report:?}");
        assert_eq!((report.checked, report.pending), (25, 1));
        assert!(report.checkpoints >= 1, "{report:?}");
        house.seal().await;
        let chain = house.get(&Principal::operator(), "/chain").await;
        assert_eq!(chain["seq"], 26);
        assert_eq!(chain["pending"], 0);
        assert_eq!(chain["verified"]["ok"], true);
        // A part in the middle, which begins at no signed point.
        let part = verify::Part {
            from: Some(7),
            to: Some(12),
        };
        let report = verify::run(&house.core, part).await.unwrap();
        assert_eq!(
            (report.ok, report.checked, report.from_seq, report.to_seq),
            (true, 6, 7, 12)
        );
        // After a restart the same key and the same chain go on.
        let again = House::build(db.db.clone(), db.clock.clone(), &[]).await;
        again.disable(100).await;
        again.seal().await;
        assert!(again.verify().await.ok);
        assert_eq!(again.core.installation, house.core.installation);
    })
    .await;
}

/// A sealer that was paused while another took over does nothing when it wakes.
#[tokio::test]
async fn a_sealer_without_its_lease_is_refused() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.disable(1).await;
        let leases = db.db.leases();
        let lease = leases.acquire("audit.seal", "one").await.unwrap().unwrap();
        leases.take_away("audit.seal").await.unwrap();
        let mut late = Sealer::new(&house.core, Some(lease));
        assert!(late.work().await.is_err());
        assert_eq!(
            store::records::count_waiting(db.db.reader()).await.unwrap(),
            1
        );
        house.seal().await;
        assert!(house.verify().await.ok);
    })
    .await;
}

/// What was recorded while the sealer was dead is sealed by the next one; nothing twice.
#[tokio::test]
async fn writers_and_two_sealers_at_once_make_one_chain() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let other = House::build(db.another().await, db.clock.clone(), &[]).await;
        let write = async {
            for n in 0..40 {
                house.disable(n).await;
            }
        };
        let seal = async |by: &House| {
            for _ in 0..20 {
                // The slower of two that found the same records fails and finds them gone.
                let _ = Sealer::new(&by.core, None).work().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(write, seal(&house), seal(&other));
        Sealer::new(&house.core, None).work().await.unwrap();
        let report = house.verify().await;
        assert!(report.ok, "{report:?}");
        assert_eq!((report.checked, report.pending), (40, 0));
    })
    .await;
}

#[tokio::test]
async fn an_hour_is_signed_even_when_little_happened() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.disable(1).await;
        house.seal().await;
        let count = async || {
            let page = house.get(&Principal::operator(), "/checkpoints").await;
            page["items"].as_array().map_or(0, Vec::len)
        };
        assert_eq!(count().await, 1, "the first one anchors the chain");
        house.disable(2).await;
        house.seal().await;
        assert_eq!(count().await, 1);
        house.clock.advance(chrono::Duration::seconds(3_601));
        house.seal().await;
        assert_eq!(count().await, 2);
        house.clock.advance(chrono::Duration::seconds(3_601));
        house.seal().await;
        assert_eq!(count().await, 2, "nothing is new");
        let (status, made) = house
            .call(&Principal::operator(), "POST", "/checkpoints", json!(null))
            .await;
        assert_eq!((status, &made["seq"]), (201, &json!(2)));
    })
    .await;
}

#[tokio::test]
async fn old_segments_go_with_an_archive_and_the_rest_still_begins_at_a_signature() {
    each_backend(async |db| {
        let settings = [
            ("audit.archive", json!(true)),
            ("audit.retention_days", json!(30)),
        ];
        let house = House::with(db, &settings).await;
        for n in 0..10 {
            house.disable(n).await;
        }
        house.seal().await;
        house.sign().await;
        house.clock.advance(chrono::Duration::days(20));
        for n in 10..14 {
            house.disable(n).await;
        }
        house.seal().await;
        house.sign().await;
        house.clock.advance(chrono::Duration::days(15));
        let stop = CancellationToken::new();
        let cx = house.core.own_context("test");
        assert_eq!(retain::run(&house.core, &cx, &stop).await.unwrap(), 10);
        assert_eq!(
            retain::run(&house.core, &cx, &stop).await.unwrap(),
            0,
            "the rest is young"
        );
        house.seal().await;
        let report = house.verify().await;
        assert!(report.ok, "{report:?}");
        assert_eq!((report.from_seq, report.checked), (11, 5));
        let page = house.objects.list(None, None, 10).await.unwrap();
        assert_eq!(page.items.len(), 1);
        let object = house.objects.get(&page.items[0].key).await.unwrap();
        let bytes = super::export::bytes(object).await;
        let lines = String::from_utf8(bytes).unwrap();
        let report = crate::verify_lines(lines.lines().map(str::to_owned), &[]).unwrap();
        assert!(report.ok, "{report:?}");
        assert_eq!((report.from_seq, report.checked), (1, 10));
        // Without the record that names it the beginning was cut off.
        let tx = db.db.begin().await.unwrap();
        let mut update = portico_db::sea_query::Query::update();
        update
            .table("audit_records")
            .value("target_id", "9")
            .and_where(portico_db::sea_query::ExprTrait::eq(
                portico_db::sea_query::Expr::col("action"),
                retain::ACTION,
            ));
        portico_db::sea_orm::ConnectionTrait::execute(&tx, &update)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let report = house.verify().await;
        assert_eq!(
            report.fault.map(|f| f.kind),
            Some(crate::FaultKind::CutHead)
        );
    })
    .await;
}
