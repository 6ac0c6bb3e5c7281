//! Changing settings: all or nothing, every fault at once, nothing lost (CT-1…CT-6).

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::rig::{DEFAULT, Rig, SYSTEM, With, person};

#[tokio::test]
async fn a_change_is_in_force_at_once_and_told_with_source_and_version() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (status, before) = rig.ask("GET", "/demo.low", None).await;
        assert_eq!((status, &before["value"]), (200, &json!(1)));
        assert_eq!(before["source"], json!({ "layer": "default" }));
        assert_eq!(before["version"], 0);

        let body = json!({ "changes": [{ "key": "demo.low", "value": 5, "version": 0 }], "comment": "why" });
        let (status, done) = rig.ask("POST", "/changes", Some(body)).await;
        assert_eq!(status, 200, "{done}");
        assert_eq!(done["changed"][0], json!({ "key": "demo.low", "version": 1, "before": null, "after": 5 }));
        assert_eq!(rig.number(DEFAULT, "demo.low"), 5, "without a restart, for every reader");

        let (_, after) = rig.ask("GET", "/demo.low", None).await;
        assert_eq!(after["source"], json!({ "layer": "stored", "scope": "system", "version": 1 }));
        assert_eq!(after["changed_by"]["kind"], "operator");
        let records = rig.audit.records.lock();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].action, &*records[0].changes[0].path), ("settings.value.changed", "demo.low"));
        assert_eq!(records[0].reason.as_deref(), Some("why"));
    })
    .await;
}

#[tokio::test]
async fn all_faults_come_back_at_once_and_nothing_is_written() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let body = json!({ "changes": [
            { "key": "demo.low", "value": 2_000, "version": 0 },
            { "key": "demo.on", "value": "yes" },
            { "key": "demo.asked", "value": 1, "version": 0 },
            { "key": "demo.word", "value": "a", "version": 0 },
            { "key": "demo.text", "value": "a\u{0}b", "version": 0 },
            { "key": "demo.data", "value": { "x": "y".repeat(70_000) }, "version": 0 },
            { "key": "demo.wait_s", "value": 3, "version": 0 },
            { "key": "demo.wait_s", "value": 4, "version": 0 },
        ] });
        let (status, problem) = rig.ask("POST", "/changes", Some(body)).await;
        assert_eq!((status, &problem["code"]), (400, &json!("settings.invalid")));
        let told: Vec<(&str, &str)> = problem["errors"].as_array().unwrap().iter()
            .map(|e| (e["field"].as_str().unwrap(), e["code"].as_str().unwrap()))
            .collect();
        assert_eq!(told, [
            ("demo.low", "invalid"),
            ("demo.on", "version_missing"),
            ("demo.on", "invalid"),
            ("demo.asked", "confirm"),
            ("demo.word", "scope"),
            ("demo.text", "control"),
            ("demo.data", "too_large"),
            ("demo.wait_s", "twice"),
        ]);
        assert_eq!(rig.core.live.state().seq, 0);

        let unknown = json!({ "changes": [{ "key": "demo.lwo", "value": 1, "version": 0 }, { "key": "demo.on", "value": 1, "version": 0 }] });
        let (status, problem) = rig.ask("POST", "/changes", Some(unknown)).await;
        assert_eq!((status, &problem["code"]), (404, &json!("settings.unknown_key")));
        assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
        let infrastructure = json!({ "changes": [{ "key": "database.url", "value": "x", "version": 0 }] });
        let (status, problem) = rig.ask("POST", "/changes", Some(infrastructure)).await;
        assert_eq!((status, &problem["code"]), (403, &json!("settings.configuration")));
        let both = json!({ "changes": [{ "key": "demo.on", "value": true, "reset": true, "version": 0 }, { "key": "demo.low", "version": 0 }] });
        let (status, problem) = rig.ask("POST", "/changes", Some(both)).await;
        assert_eq!((status, problem["errors"].as_array().unwrap().len()), (400, 2));
        let (status, _) = rig.ask("POST", "/changes", Some(json!({ "changes": [] }))).await;
        assert_eq!(status, 400);
    })
    .await;
}

#[tokio::test]
async fn the_services_own_check_sees_the_whole_resulting_state() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let low = |value: i64| json!({ "changes": [{ "key": "demo.low", "value": value }], "base_seq": 1_000 });
        let (status, problem) = rig.ask("POST", "/changes", Some(low(20))).await;
        assert_eq!(status, 400, "{problem}");
        assert_eq!(problem["errors"][0]["code"], "together");
        // Together they are right.
        rig.set(SYSTEM, &[("demo.low", json!(20)), ("demo.high", json!(30))]).await;
        assert_eq!(rig.number(SYSTEM, "demo.low"), 20);
        // A tenant's own value is part of what results from a change for everybody.
        rig.set(DEFAULT, &[("demo.high", json!(25))]).await;
        let (status, problem) = rig.ask("POST", "/changes", Some(low(28))).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("demo.low")));
        let dry = json!({ "changes": [{ "key": "demo.low", "value": 24, "version": 1 }], "dry_run": true });
        let (status, done) = rig.ask("POST", "/changes", Some(dry)).await;
        assert_eq!((status, &done["dry_run"], &done["id"]), (200, &json!(true), &Value::Null));
        assert_eq!(done["changed"][0]["after"], 24);
        assert_eq!(rig.number(SYSTEM, "demo.low"), 20, "a dry run writes nothing");
    })
    .await;
}

#[tokio::test]
async fn who_was_overtaken_gets_both_sides() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.data", json!({ "a": 1, "b": 1, "c": 1 }))])
            .await;
        rig.set(SYSTEM, &[("demo.data", json!({ "a": 2, "b": 1, "c": 1 }))])
            .await;
        let mine = json!({ "a": 3, "b": 2, "c": 1 });
        for body in [
            json!({ "changes": [{ "key": "demo.data", "value": mine, "version": 1 }] }),
            json!({ "changes": [{ "key": "demo.data", "value": mine }], "base_seq": 1 }),
        ] {
            let (status, problem) = rig.ask("POST", "/changes", Some(body)).await;
            assert_eq!(
                (status, &problem["code"]),
                (409, &json!("settings.conflict"))
            );
            let one = &problem["conflicts"][0];
            assert_eq!(
                (&one["version"], &one["current"]["a"]),
                (&json!(2), &json!(2))
            );
            assert_eq!(one["changed_by"]["kind"], "operator");
            assert_eq!(one["diff"]["clashes"], json!(["a"]));
            assert_eq!(
                one["diff"]["theirs"],
                json!([{ "path": "a", "before": 1, "after": 2 }])
            );
            assert_eq!(one["diff"]["yours"].as_array().unwrap().len(), 2);
        }
        let right = json!({ "changes": [{ "key": "demo.data", "value": mine, "version": 2 }] });
        assert_eq!(rig.ask("POST", "/changes", Some(right)).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn a_set_whose_audit_record_fails_leaves_nothing() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.audit.broken.store(true, Relaxed);
        let body = json!({ "changes": [{ "key": "demo.low", "value": 5, "version": 0 }, { "key": "demo.on", "value": true, "version": 0 }] });
        let (status, _) = rig.ask("POST", "/changes", Some(body.clone())).await;
        assert_eq!(status, 500);
        rig.audit.broken.store(false, Relaxed);
        let fresh = Rig::another(db, With::default()).await;
        assert_eq!(fresh.core.live.state().rows().count(), 0);
        let (_, history) = fresh.ask("GET", "/demo.low/history", None).await;
        assert_eq!(history["items"], json!([]));
        assert_eq!(rig.ask("POST", "/changes", Some(body)).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn sixteen_writers_on_one_key_never_lose_an_update() {
    each_backend(async |db: &TestDb| {
        let one = Arc::new(Rig::new(db).await);
        let two = Arc::new(Rig::another(db, With::default()).await);
        let mut writers = tokio::task::JoinSet::new();
        for i in 0..16 {
            let rig = Arc::clone(if i % 2 == 0 { &one } else { &two });
            writers.spawn(async move {
                let mut tries = 0;
                loop {
                    tries += 1;
                    assert!(tries < 1_000, "a writer starves");
                    let (_, seen) = rig.ask("GET", "/demo.wait_s", None).await;
                    let next = seen["value"].as_i64().unwrap() + 1;
                    let body = json!({ "changes": [{ "key": "demo.wait_s", "value": next, "version": seen["version"] }] });
                    match rig.ask("POST", "/changes", Some(body)).await {
                        (200, _) => return,
                        (409, _) => crate::live::catch_up(&rig.core).await.unwrap(),
                        // The only connection for writing may be taken for long.
                        (503, _) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        crate::live::catch_up(&one.core).await.unwrap();
        assert_eq!(one.number(SYSTEM, "demo.wait_s"), 30 + 16);
        assert_eq!(one.core.live.state().version(SYSTEM, "demo.wait_s"), 16);
    })
    .await;
}

#[tokio::test]
async fn what_is_dangerous_asks_for_more_than_the_permission() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let all = ["settings:value:read", "settings:value:write", "settings:system:write"];
        let weak = person(SYSTEM, &all, 1);
        let grave = json!({ "changes": [{ "key": "demo.grave", "value": 1, "version": 0 }] });
        let (status, problem) = rig.call(&weak, "POST", "/changes", Some(grave.clone())).await;
        assert_eq!((status, &problem["code"]), (401, &json!("identity.step_up_required")));
        let plain = json!({ "changes": [{ "key": "demo.low", "value": 2, "version": 0 }] });
        assert_eq!(rig.call(&weak, "POST", "/changes", Some(plain.clone())).await.0, 200);
        let strong = person(SYSTEM, &all, 2);
        assert_eq!(rig.call(&strong, "POST", "/changes", Some(grave)).await.0, 200);
        let secret = json!({ "changes": [{ "key": "demo.secret", "value": "x", "version": 0 }] });
        let (status, problem) = rig.call(&strong, "POST", "/changes", Some(secret)).await;
        assert_eq!((status, &problem["code"]), (403, &json!("identity.permission_denied")));
        let asked = json!({ "changes": [{ "key": "demo.asked", "value": 1, "version": 0 }], "confirm": true });
        assert_eq!(rig.call(&weak, "POST", "/changes", Some(asked)).await.0, 200);
        let reader = person(SYSTEM, &["settings:value:read"], 2);
        assert_eq!(rig.call(&reader, "POST", "/changes", Some(plain)).await.0, 403);
    })
    .await;
}

#[tokio::test]
async fn what_is_declared_is_listed_with_its_bounds() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let (_, page) = rig.ask("GET", "/schema?prefix=demo.&limit=4", None).await;
        let keys: Vec<&str> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["key"].as_str().unwrap())
            .collect();
        assert_eq!(keys, ["demo.asked", "demo.data", "demo.grave", "demo.high"]);
        let next = format!(
            "/schema?prefix=demo.&limit=200&cursor={}",
            page["next_cursor"].as_str().unwrap()
        );
        let (_, rest) = rig.ask("GET", &next, None).await;
        let rest = rest["items"].as_array().unwrap();
        assert_eq!(rest.len(), 6);
        let wait = rest.iter().find(|d| d["key"] == "demo.wait_s").unwrap();
        assert_eq!(
            (&wait["type"], &wait["schema"]["maximum"]),
            (&json!("duration"), &json!(1_000))
        );
        let secret = rest.iter().find(|d| d["key"] == "demo.secret").unwrap();
        assert_eq!(
            (&secret["secret"], &secret["default"]),
            (&json!(true), &Value::Null)
        );
        assert_eq!(rig.ask("GET", "/demo.nothing", None).await.0, 404);
        assert_eq!(rig.ask("GET", "/listen.http", None).await.0, 403);
        assert_eq!(rig.ask("GET", "/?nonsense=1", None).await.0, 400);
        let (_, list) = rig.ask("GET", "/?prefix=demo.l", None).await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
    })
    .await;
}
