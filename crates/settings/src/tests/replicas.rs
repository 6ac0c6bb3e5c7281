//! Several processes on one database: followed by position, refused values kept out, outages outlived
//! (CT-6, CT-10, CT-12).

use portico_contract::settings::{Declaration, Kind, Scope, SettingFault, Settings};
use portico_db::testing::{TestDb, each_backend};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::rig::{Rig, SYSTEM, With};
use crate::live;

/// An older version of the service, with narrower bounds.
const OLDER: &[Declaration] = &[
    Declaration::new(
        "demo.low",
        Kind::Integer { min: 0, max: 5 },
        "1",
        "a number",
        "数",
    )
    .scope(Scope::Both),
    Declaration::new("demo.on", Kind::Bool, "false", "a switch", "开关"),
];

fn never_on(settings: &Settings, tenant: Uuid) -> Vec<SettingFault> {
    use portico_contract::settings::Key;
    const ON: Key<bool> = Key::new(OLDER[1]);
    let fault = SettingFault {
        key: "demo.on",
        message: "there is no hardware for it here".to_owned(),
    };
    settings
        .get(tenant, &ON)
        .then_some(fault)
        .into_iter()
        .collect()
}

#[tokio::test]
async fn another_process_follows_without_being_asked() {
    each_backend(async |db: &TestDb| {
        let one = Rig::new(db).await;
        let two = Rig::another(
            db,
            With {
                replica: "two",
                ..With::default()
            },
        )
        .await;
        let stop = CancellationToken::new();
        let mut watching = two.core.live.watch().unwrap();
        let follower = tokio::spawn(live::follow(two.core.clone(), stop.clone()));
        one.set(SYSTEM, &[("demo.low", json!(4))]).await;
        // Nothing wakes it but its own look.
        watching.news.changed().await.unwrap();
        assert_eq!(two.number(SYSTEM, "demo.low"), 4);
        let said = || async {
            let all = crate::store::applied::list(one.core.db.reader())
                .await
                .unwrap();
            all.into_iter().find(|a| a.replica == "two" && a.seq == 1)
        };
        while said().await.is_none() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        follower.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_value_that_a_replica_refuses_stays_out_there_and_is_told() {
    each_backend(async |db: &TestDb| {
        let one = Rig::new(db).await;
        let with = With {
            replica: "two",
            declarations: OLDER,
            checks: vec![never_on],
            ..With::default()
        };
        let two = Rig::another(db, with).await;
        one.set(SYSTEM, &[("demo.low", json!(4))]).await;
        live::catch_up(&two.core).await.unwrap();
        one.set(SYSTEM, &[("demo.low", json!(9)), ("demo.on", json!(true))])
            .await;
        live::catch_up(&two.core).await.unwrap();
        assert_eq!(
            (
                one.number(SYSTEM, "demo.low"),
                two.number(SYSTEM, "demo.low")
            ),
            (9, 4)
        );
        let (_, overview) = two.ask("GET", "/applied", None).await;
        let own = overview["replicas"]
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["replica"] == "two")
            .unwrap();
        let told: Vec<(&str, &str)> = own["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r["key"].as_str().unwrap(), r["reason"].as_str().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("demo.low", "must be a whole number from 0 to 5"),
                ("demo.on", "there is no hardware for it here"),
            ]
        );
        assert_eq!(own["seq"], 2, "it has looked at everything");
        let (_, shown) = two.ask("GET", "/demo.low", None).await;
        assert_eq!(
            (&shown["value"], &shown["refused"]),
            (&json!(4), &json!("must be a whole number from 0 to 5"))
        );
        one.set(SYSTEM, &[("demo.low", json!(3)), ("demo.on", json!(false))])
            .await;
        live::catch_up(&two.core).await.unwrap();
        assert_eq!(two.number(SYSTEM, "demo.low"), 3);
        let (_, overview) = two.ask("GET", "/applied", None).await;
        assert!(!overview.to_string().contains("hardware"), "{overview}");
    })
    .await;
}

#[tokio::test]
async fn without_the_database_the_last_values_hold() {
    each_backend(async |db: &TestDb| {
        let one = Rig::new(db).await;
        one.set(SYSTEM, &[("demo.low", json!(4))]).await;
        let two = Rig::another(db, With::default()).await;
        two.core.db.close().await;
        assert!(live::catch_up(&two.core).await.is_err());
        two.clock.advance(chrono::Duration::seconds(90));
        assert_eq!(two.number(SYSTEM, "demo.low"), 4);
        let (status, shown) = two.ask("GET", "/demo.low", None).await;
        assert_eq!((status, &shown["value"]), (200, &json!(4)));
        let (status, overview) = two.ask("GET", "/applied", None).await;
        assert_eq!(
            (status, &overview["replicas"][0]["age_s"]),
            (200, &json!(90)),
            "{overview}"
        );
        assert_eq!(two.ask("GET", "/watch?after=0&wait=0s", None).await.0, 200);
        let body = json!({ "changes": [{ "key": "demo.low", "value": 5, "version": 1 }] });
        assert_eq!(two.ask("POST", "/changes", Some(body)).await.0, 503);
    })
    .await;
}
