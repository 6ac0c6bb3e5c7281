//! Refusals and failures: recorded in their own transactions, once for each request, folded when many.

use std::sync::Arc;

use portico_base::{Principal, id};
use portico_contract::audit::Record;
use portico_db::testing::each_backend;
use portico_web::{Failed, Failures as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{House, admin, failed};
use crate::ops::notes::{self, Notes};

fn refused(house: &House, request: &str, denied: bool) -> Failed {
    let mut context = house.cx(admin());
    context.caller.request_id = Arc::from(request);
    Failed {
        context,
        denied,
        route: "POST /api/identity/users/{id}/disable".to_owned(),
        path: "/api/identity/users/7/disable".to_owned(),
        code: "identity.permission_denied".to_owned(),
    }
}

/// Writes what was noted, as at a stop of the process.
async fn written(house: &House) {
    let stop = CancellationToken::new();
    stop.cancel();
    let (_, empty) = tokio::sync::mpsc::channel(1);
    let notes = std::mem::replace(&mut *house.notes.lock().await, empty);
    notes::run(Arc::clone(&house.core), notes, stop).await;
}

#[tokio::test]
async fn refusals_are_recorded_once_and_many_equal_ones_are_counted() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let notes = Notes(Arc::clone(&house.core));
        for n in 0..75 {
            notes.note(refused(&house, &format!("r-{n}"), true));
        }
        notes.note(refused(&house, "r-failed", false));
        written(&house).await;
        let all = house
            .get(&Principal::operator(), "/records?outcome=denied&limit=200")
            .await;
        let all = all["items"].as_array().unwrap();
        assert_eq!(all.len(), 21, "twenty, and one for the rest");
        let count = |r: &Value| {
            r["changes"]
                .as_array()
                .and_then(|c| c.iter().find(|c| c["path"] == "count"))
                .map(|c| c["after"].clone())
        };
        let counting: Vec<Value> = all.iter().filter_map(count).collect();
        assert_eq!(counting, [json!(55)]);
        let one = all.iter().find(|r| count(r).is_none()).unwrap();
        assert_eq!(one["action"], "system.access.denied");
        assert_eq!(one["error_code"], "identity.permission_denied");
        assert_eq!(one["target"]["id"], "POST /api/identity/users/{id}/disable");
        assert_eq!(one["changes"][0]["after"], "/api/identity/users/7/disable");
        let failed = house
            .get(
                &Principal::operator(),
                "/records?action=system.operation.failed",
            )
            .await;
        assert_eq!(failed["items"][0]["request_id"], "r-failed");
        assert_eq!(failed["items"][0]["outcome"], "failed");
    })
    .await;
}

#[tokio::test]
async fn a_failure_that_its_use_case_recorded_is_not_recorded_twice() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let mut cx = house.cx(admin());
        cx.caller.request_id = Arc::from("r-1");
        house
            .record(
                &cx,
                failed("identity.step_up.failed", "identity.code_wrong"),
            )
            .await;
        house.clock.advance(chrono::Duration::milliseconds(1));
        let notes = Notes(Arc::clone(&house.core));
        notes.note(refused(&house, "r-1", true));
        notes.note(refused(&house, "r-2", true));
        written(&house).await;
        let all = house.get(&Principal::operator(), "/records").await;
        let ids: Vec<&str> = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|r| r["request_id"].as_str())
            .collect();
        assert_eq!(ids, ["r-2", "r-1"]);
    })
    .await;
}

/// A failed change is gone and its record is there.
#[tokio::test]
async fn the_record_of_a_failure_survives_the_rollback_of_the_change() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let tx = house.core.db.begin().await.unwrap();
        let done = Record::done("identity.user.disabled", "user", "u", id::TENANT_DEFAULT);
        let sink = crate::ops::write::Sink(Arc::clone(&house.core));
        portico_contract::audit::AuditSink::record(&sink, &tx, &house.cx(admin()), done)
            .await
            .unwrap();
        drop(tx);
        Notes(Arc::clone(&house.core)).note(refused(&house, "r-9", false));
        written(&house).await;
        let all = house.get(&Principal::operator(), "/records").await;
        let all: Vec<&Value> = all["items"].as_array().unwrap().iter().collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["outcome"], "failed");
    })
    .await;
}

/// More than the writer's queue holds is counted, not lost.
#[tokio::test]
async fn a_flood_is_bounded_and_counted() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let notes = Notes(Arc::clone(&house.core));
        for n in 0..3_000_u32 {
            let mut one = refused(&house, &format!("r-{n}"), true);
            one.code = format!("code.{n}");
            notes.note(one);
        }
        written(&house).await;
        let filter = portico_contract::audit::Filter {
            action: Some("system.access.denied".to_owned()),
            ..portico_contract::audit::Filter::default()
        };
        let (mut told, mut records, mut after) = (0, 0, None);
        loop {
            let part = crate::ops::search::find(&house.core, &filter, after, 500)
                .await
                .unwrap();
            for entry in &part.items {
                records += 1;
                let count = entry.changes.iter().find(|c| c.path == "count");
                told += count.and_then(|c| c.after.as_ref()?.as_u64()).unwrap_or(1);
            }
            match part.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(told, 3_000);
        assert_eq!(
            records, 3_000,
            "each is of its own kind, so each has a record of its own"
        );
    })
    .await;
}
