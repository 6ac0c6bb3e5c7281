//! Searching: every filter, pages without gaps, tenants apart, plans that use indexes.

use std::sync::Arc;

use portico_base::{Principal, PrincipalKind, id};
use portico_contract::audit::{Filter, Outcome, Record};
use portico_db::testing::{TestDb, each_backend};
use serde_json::Value;
use uuid::Uuid;

use super::{House, OTHER, admin, failed, other_admin};
use crate::domain::record::Entry;
use crate::store;

async fn some(house: &House) {
    for n in 0..30 {
        house.disable(n).await;
    }
    let mut cx = house.cx(Principal::new(
        PrincipalKind::User,
        Uuid::from_u128(3).to_string(),
        OTHER,
    ));
    cx.caller.request_id = Arc::from("r-other");
    cx.caller.address = Some([198, 51, 100, 9].into());
    let record = Record::done("identity.role.created", "role", "r", OTHER).change(
        "name",
        None,
        Some("boss".into()),
    );
    house.record(&cx, record).await;
    house
        .record(
            &cx,
            failed("identity.login.failed", "identity.login_failed"),
        )
        .await;
}

async fn ids(house: &House, who: &Principal, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    for _ in 0..200 {
        let page = house
            .get(who, &format!("/records?limit=7{query}{cursor}"))
            .await;
        found.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["id"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
    panic!("{query} never ends");
}

#[tokio::test]
async fn every_filter_finds_what_it_names_and_pages_have_no_gap() {
    each_backend(async |db| {
        let house = House::new(db).await;
        some(&house).await;
        house.seal().await;
        let op = Principal::operator();
        let all = ids(&house, &op, "").await;
        assert_eq!(all.len(), 32);
        let mut sorted = all.clone();
        sorted.sort_by(|a, b| b.as_str().cmp(&a.as_str()));
        assert_eq!(all, sorted, "newest first");
        let admin = admin().subject;
        let user = Uuid::from_u128(4);
        for (query, count) in [
            (format!("&actor={admin}"), 30),
            ("&action=identity.user.disabled".to_owned(), 30),
            ("&action=identity.*".to_owned(), 32),
            ("&action=identity.role*".to_owned(), 1),
            ("&action=nothing*".to_owned(), 0),
            (format!("&target_type=user&target_id={user}"), 1),
            (format!("&tenant={OTHER}"), 1),
            ("&tenant=default".to_owned(), 31),
            ("&outcome=failed".to_owned(), 1),
            ("&outcome=success&action=identity.*".to_owned(), 31),
            ("&ip=198.51.100.9".to_owned(), 2),
            ("&request_id=r-other".to_owned(), 2),
            ("&path=name".to_owned(), 1),
            ("&path=status".to_owned(), 30),
            ("&path=stat%25".to_owned(), 0),
            (
                "&from=2026-01-01T00:00:00.1Z&to=2026-01-01T00:00:00.2Z".to_owned(),
                10,
            ),
        ] {
            assert_eq!(ids(&house, &op, &query).await.len(), count, "{query}");
        }
    })
    .await;
}

#[tokio::test]
async fn actions_are_listed_and_counted_by_time_and_bad_questions_are_told_of() {
    each_backend(async |db| {
        let house = House::new(db).await;
        some(&house).await;
        house.seal().await;
        let op = Principal::operator();
        let actions = house.get(&op, "/actions?prefix=identity.").await;
        assert_eq!(
            actions["items"].as_array().map(Vec::len),
            Some(3),
            "{actions}"
        );
        let bars = house
            .get(
                &op,
                "/histogram?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00.3Z&spans=3",
            )
            .await;
        let counts: Vec<u64> = bars["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|b| b["count"].as_u64())
            .collect();
        assert_eq!(counts, [10, 10, 10]);
        for bad in [
            "/records?outcome=maybe&ip=x&tenant=y",
            "/records?limit=0",
            "/records?colour=red",
            "/histogram?spans=500",
            "/histogram?path=x",
            "/records?cursor=%25",
        ] {
            let (status, problem) = house.call(&op, "GET", bad, Value::Null).await;
            assert_eq!(status, 400, "{bad}: {problem}");
        }
        let (_, problem) = house
            .call(
                &op,
                "GET",
                "/records?outcome=maybe&ip=x&tenant=y",
                Value::Null,
            )
            .await;
        assert_eq!(
            problem["errors"].as_array().map(Vec::len),
            Some(3),
            "all faults: {problem}"
        );
    })
    .await;
}

#[tokio::test]
async fn administrators_of_a_tenant_see_their_own_records_only() {
    each_backend(async |db| {
        let house = House::new(db).await;
        some(&house).await;
        house.seal().await;
        assert_eq!(ids(&house, &admin(), "").await.len(), 31);
        assert_eq!(ids(&house, &other_admin(), "").await.len(), 1);
        // What somebody of this tenant did elsewhere is the other tenant's.
        assert_eq!(
            ids(&house, &other_admin(), "&request_id=r-other")
                .await
                .len(),
            1
        );
        for query in ["&action=identity.*", "&ip=198.51.100.9", "&outcome=failed"] {
            let mine = ids(&house, &other_admin(), query).await.len();
            assert!(mine <= 1, "{query}: {mine}");
        }
        let actions = house.get(&other_admin(), "/actions").await;
        assert_eq!(
            actions["items"],
            serde_json::json!(["identity.role.created"])
        );
        let bars = house
            .get(
                &other_admin(),
                "/histogram?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&spans=1",
            )
            .await;
        assert_eq!(bars["items"][0]["count"], 1);
        let (status, _) = house
            .call(
                &other_admin(),
                "GET",
                "/records?tenant=default",
                Value::Null,
            )
            .await;
        assert_eq!(status, 400);
        for path in ["/chain", "/checkpoints", "/links"] {
            let (status, _) = house.call(&other_admin(), "GET", path, Value::Null).await;
            assert_eq!(status, 403, "{path}");
        }
        let nobody = Principal {
            permissions: Arc::from([]),
            ..admin()
        };
        let (status, _) = house.call(&nobody, "GET", "/records", Value::Null).await;
        assert_eq!(status, 403);
    })
    .await;
}

/// Rows without the cost of one transaction each.
async fn many(house: &House, count: u128) {
    let cx = house.cx(admin());
    for chunk in 0..count / 500 {
        let tx = house.core.db.begin().await.unwrap();
        for n in 0..500 {
            let n = chunk * 500 + n;
            let action = if n % 1_000 == 7 {
                "rare.thing.done"
            } else {
                "t.thing.changed"
            };
            let record = Record::done(
                action,
                "thing",
                Uuid::from_u128(n).to_string(),
                id::TENANT_DEFAULT,
            )
            .change(if n == 3 { "needle" } else { "hay" }, None, Some(1.into()));
            house.clock.advance(chrono::Duration::milliseconds(1));
            let stored = Entry {
                at: house.core.clock.now(),
                ..Entry::new(&cx, record)
            }
            .store(&house.core.masker);
            store::records::insert(&tx, &stored).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

async fn plan(db: &TestDb, filter: &Filter) -> String {
    let after = Some((db.clock_now(), Uuid::from_u128(1)));
    let page = db
        .db
        .explain(&store::search::page(filter, after, None, 51))
        .await
        .unwrap();
    let stretch = db
        .db
        .explain(&store::search::stretch(filter, after, 5_000))
        .await
        .unwrap();
    format!("{page}\n{stretch}")
}

trait Now {
    fn clock_now(&self) -> portico_base::Timestamp;
}

impl Now for TestDb {
    fn clock_now(&self) -> portico_base::Timestamp {
        use portico_base::Clock as _;
        self.clock.now()
    }
}

/// Each kind of question, with the index that must answer it.
fn indexed() -> Vec<(&'static str, Filter)> {
    let text = |text: &str| Some(text.to_owned());
    vec![
        ("ix_audit_at", Filter::default()),
        (
            "ix_audit_tenant",
            Filter {
                tenant: Some(id::TENANT_DEFAULT),
                ..Filter::default()
            },
        ),
        (
            "ix_audit_actor",
            Filter {
                actor: text("a"),
                ..Filter::default()
            },
        ),
        (
            "ix_audit_target",
            Filter {
                target_type: text("t"),
                target_id: text("x"),
                ..Filter::default()
            },
        ),
        (
            "ix_audit_action",
            Filter {
                action: text("rare.thing.done"),
                ..Filter::default()
            },
        ),
        (
            "ix_audit_request",
            Filter {
                request_id: text("r"),
                ..Filter::default()
            },
        ),
        (
            "ix_audit_at",
            Filter {
                outcome: Some(Outcome::Denied),
                ..Filter::default()
            },
        ),
    ]
}

#[tokio::test]
async fn plans_use_the_indexes_and_rare_things_are_found_far_back() {
    each_backend(async |db| {
        let house = House::new(db).await;
        many(&house, 10_000).await;
        house.seal().await;
        for (index, filter) in indexed() {
            let plan = plan(db, &filter).await;
            assert!(plan.contains(index), "{index}: {plan}");
            let whole = plan
                .lines()
                .any(|line| line.contains("SCAN audit_records") && !line.contains("INDEX"));
            assert!(
                !whole && !plan.contains("Seq Scan on audit_records"),
                "{plan}"
            );
        }
        assert_eq!(
            ids(&house, &Principal::operator(), "&action=rare*")
                .await
                .len(),
            10
        );
        // Two stretches back: the first page looks at most of it and says where to go on.
        assert_eq!(
            ids(&house, &Principal::operator(), "&path=needle")
                .await
                .len(),
            1
        );
        let walk = db
            .db
            .explain(&store::search::stretch(&Filter::default(), None, 5_000))
            .await
            .unwrap();
        assert!(walk.contains("ix_audit_at"), "{walk}");
    })
    .await;
}
