//! Two processes on one database.

use std::sync::Arc;
use std::time::Duration;

use portico_base::id;
use portico_db::testing::{TestDb, postgres};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{House, migrate, operator};
use crate::domain::check::{CheckKey, CheckSpec, Probe, Status};
use crate::domain::node::{NodeDetails, NodeKey};
use crate::{beats, follow, ops, shards};

async fn pair(db: &TestDb) -> (House, House) {
    migrate(db).await;
    let one = House::build(db.db.clone(), db.clock.clone(), "one", Vec::new()).await;
    let two = House::build(db.another().await, db.clock.clone(), "two", Vec::new()).await;
    (one, two)
}

/// What the follower's worker does when it is woken.
async fn follow_up(house: &House) {
    let upto = crate::store::events::position(house.core.db.reader())
        .await
        .unwrap()
        .seq;
    let _guard = house.core.writer.lock().await;
    follow::catch_up(&house.core, house.core.db.reader(), upto)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_one_writes_the_other_routes_to() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let (text, who) = one.token(json!({"name_pattern": "hello"})).await;
    let body = json!({"name": "hello", "port": 9001, "host": "127.0.0.1"});
    let (_, answer) = one.register(&who, body.clone()).await;
    one.call(
        &operator(),
        "POST",
        "/reservations",
        json!({"name": "kept"}),
    )
    .await;
    let id = answer["id"].as_str().unwrap();
    assert!(two.directory().find(id::TENANT_DEFAULT, "hello").is_none());
    follow_up(&two).await;
    let service = two
        .directory()
        .find(id::TENANT_DEFAULT, "hello")
        .cloned()
        .unwrap();
    assert_eq!(
        service.instances[0].secret.as_ref().unwrap().expose(),
        answer["instance_secret"].as_str().unwrap()
    );
    assert!(two.find(&text).is_some(), "tokens are known everywhere");
    assert!(two.core.model.read().reservation("kept").is_some());
    assert_eq!(two.beat(&operator(), id).await.0, 200);
    let (status, again) = two.register(&two.find(&text).unwrap(), body).await;
    assert_eq!((status, &again["id"]), (200, &answer["id"]));
    two.call(
        &operator(),
        "DELETE",
        &format!("/services/{id}?now=true"),
        Value::Null,
    )
    .await;
    follow_up(&one).await;
    assert_eq!(one.state(id), "gone");
    assert_eq!(one.core.model.read().seq, two.core.model.read().seq);
    let news = one.get(&operator(), "/watch?since=0&wait=0").await.1;
    let last = news["events"].as_array().unwrap().last().cloned().unwrap();
    assert_eq!(
        last["kind"], "registry.instance.removed",
        "watchers of one hear what two did"
    );
    db.finish().await;
}

#[tokio::test]
async fn whoever_writes_knows_everything_that_was_committed_before() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let (_, a) = one.token(json!({"name_pattern": "he*"})).await;
    let (_, b) = two.token(json!({"name_pattern": "he*"})).await;
    follow_up(&one).await;
    follow_up(&two).await;
    let at = |port: u16| json!({"name": "hello", "port": port, "host": "127.0.0.1"});
    assert_eq!(one.register(&a, at(9001)).await.0, 201);
    // The other one has not followed yet; the name is taken all the same.
    assert_eq!(two.register(&b, at(9002)).await.0, 409);
    let many = (0..8).map(|i| {
        let (house, port) = if i % 2 == 0 {
            (&one, 9100 + i)
        } else {
            (&two, 9100 + i)
        };
        house.enter("crowd", port)
    });
    let ids = futures_util::future::join_all(many).await;
    follow_up(&one).await;
    follow_up(&two).await;
    for house in [&one, &two] {
        let service = house
            .directory()
            .find(id::TENANT_DEFAULT, "crowd")
            .cloned()
            .unwrap();
        assert_eq!(service.instances.len(), ids.len());
    }
    db.finish().await;
}

#[tokio::test]
async fn a_comparison_heals_and_counts_differences() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let kept = one.enter("hello", 9001).await;
    let lost = one.enter("hello", 9002).await;
    follow_up(&two).await;
    assert_eq!(follow::resync(&two.core).await.unwrap(), 0);
    // Something went wrong behind our back: a row is gone, another one differs.
    let tx = db.db.begin().await.unwrap();
    crate::store::instances::delete(&tx, lost.parse().unwrap())
        .await
        .unwrap();
    let mut changed = one.instance(&kept);
    changed.weight_override = Some(9);
    changed.modify_index += 100;
    crate::store::instances::put_state(&tx, &changed)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(follow::resync(&two.core).await.unwrap(), 2);
    assert_eq!(two.state(&lost), "gone");
    let service = two
        .directory()
        .find(id::TENANT_DEFAULT, "hello")
        .cloned()
        .unwrap();
    assert_eq!(service.instances[0].weight, 9);
    assert_eq!(follow::resync(&two.core).await.unwrap(), 0);
    db.finish().await;
}

#[tokio::test]
async fn heartbeats_heard_by_one_keep_an_instance_ready_at_the_other() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let id = one.enter("hello", 9001).await;
    follow_up(&two).await;
    one.advance(50);
    two.beat(&operator(), &id).await;
    beats::flush(&two.core).await.unwrap();
    let since = portico_base::Clock::now(&one.clock) - chrono::Duration::seconds(120);
    beats::learn(&one.core, since).await.unwrap();
    one.advance(20);
    one.tick().await;
    assert_eq!(one.state(&id), "ready");
    db.finish().await;
}

#[tokio::test]
async fn nodes_and_checks_travel_too() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let node = NodeKey::new(None, "external");
    let cx = one.core.own_context("test");
    let details = NodeDetails {
        address: "10.0.0.9".to_owned(),
        ..NodeDetails::default()
    };
    assert!(
        ops::nodes::put(&one.core, &cx, &node, details.clone())
            .await
            .unwrap()
    );
    assert!(
        !ops::nodes::put(&one.core, &cx, &node, details)
            .await
            .unwrap(),
        "the same again"
    );
    let key = CheckKey {
        node: node.clone(),
        id: Arc::from("disk"),
    };
    let wanted = ops::checks::Wanted {
        key: key.clone(),
        instance: None,
        name: "disk".to_owned(),
        notes: String::new(),
        spec: CheckSpec {
            probe: Probe::Stated,
            interval_ms: 0,
            timeout_ms: 0,
            fall: 1,
            rise: 1,
            deregister_after_ms: 0,
            foreign: false,
        },
        status: Status::Warning,
        output: "80%".to_owned(),
        states: true,
    };
    assert!(
        ops::checks::put(&one.core, &cx, wanted.clone())
            .await
            .unwrap()
    );
    assert!(!ops::checks::put(&one.core, &cx, wanted).await.unwrap());
    follow_up(&two).await;
    {
        let model = two.core.model.read();
        assert_eq!(model.node(&node).unwrap().details.address, "10.0.0.9");
        assert_eq!(model.check(&key).unwrap().status, Status::Warning);
    }
    assert!(ops::nodes::remove(&one.core, &cx, &node).await.unwrap());
    follow_up(&two).await;
    let left = {
        let model = two.core.model.read();
        model.node(&node).is_some() || model.check(&key).is_some()
    };
    assert!(!left);
    db.finish().await;
}

#[tokio::test]
async fn shards_move_to_who_is_left() {
    let Some(db) = postgres().await else { return };
    let (one, two) = pair(&db).await;
    let mut stops = Vec::new();
    for house in [&one, &two] {
        house.core.shards.let_go();
        let stop = CancellationToken::new();
        tokio::spawn(shards::keep(Arc::clone(&house.core), stop.clone()));
        stops.push(stop);
    }
    let held = |house: &House| house.core.shards.count();
    let until = async |done: &dyn Fn() -> bool| {
        let wait = async {
            while !done() {
                assert!(
                    held(&one) + held(&two) <= 16,
                    "nothing is watched over twice"
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("shards are held");
    };
    until(&|| held(&one) + held(&two) == 16).await;
    stops[0].cancel();
    until(&|| held(&two) == 16).await;
    assert_eq!(held(&one), 0);
    stops[1].cancel();
    db.finish().await;
}
