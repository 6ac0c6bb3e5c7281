//! History, differences and rolling back (CT-7, CT-8).

use portico_contract::settings::{Declaration, Kind};
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::rig::{DEFAULT, Rig, SYSTEM, With};

/// `demo.text` alone, with tighter bounds; the rest is gone.
const TIGHTER: &[Declaration] = &[Declaration::new(
    "demo.text",
    Kind::Text { max: 3 },
    "\"\"",
    "text",
    "文本",
)];

#[tokio::test]
async fn history_tells_who_when_from_where_and_why() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        for (value, comment) in [("a\nb\n", "first"), ("a\nc\n", "second")] {
            let version = rig.core.live.state().version(SYSTEM, "demo.text");
            let body = json!({ "changes": [{ "key": "demo.text", "value": value, "version": version }], "comment": comment });
            assert_eq!(rig.ask("POST", "/changes", Some(body)).await.0, 200);
        }
        let (_, page) = rig.ask("GET", "/demo.text/history", None).await;
        let newest = &page["items"][0];
        assert_eq!((&newest["version"], &newest["value"], &newest["before"]), (&json!(2), &json!("a\nc\n"), &json!("a\nb\n")));
        assert_eq!((&newest["comment"], &newest["ip"], &newest["request_id"]), (&json!("second"), &json!("203.0.113.7"), &json!("req-1")));
        assert_eq!(newest["actor"]["kind"], "operator");
        let (_, first) = rig.ask("GET", "/demo.text/history?limit=1", None).await;
        let next = format!("/demo.text/history?limit=1&cursor={}", first["next_cursor"].as_str().unwrap());
        let (_, second) = rig.ask("GET", &next, None).await;
        assert_eq!((&second["items"][0]["version"], &second["next_cursor"]), (&json!(1), &Value::Null));

        let (_, diff) = rig.ask("GET", "/diff?key=demo.text&from=1&to=2", None).await;
        let ops: Vec<&str> = diff["diff"]["lines"].as_array().unwrap().iter().map(|l| l["op"].as_str().unwrap()).collect();
        assert_eq!(ops, ["same", "removed", "added"]);
        assert_eq!(rig.ask("GET", "/diff?key=demo.text&from=1&to=9", None).await.0, 404);

        let (_, sets) = rig.ask("GET", "/changes", None).await;
        assert_eq!(sets["items"].as_array().unwrap().len(), 2);
        let id = sets["items"][0]["id"].as_str().unwrap();
        let (_, set) = rig.ask("GET", &format!("/changes/{id}"), None).await;
        assert_eq!(set["entries"][0]["key"], "demo.text");
    })
    .await;
}

#[tokio::test]
async fn a_key_a_set_and_a_moment_come_back_as_new_versions() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.low", json!(2)), ("demo.on", json!(true))]).await;
        let two = rig.set(SYSTEM, &[("demo.low", json!(3)), ("demo.high", json!(50))]).await;
        rig.clock.advance(chrono::Duration::seconds(10));
        let later = rig.clock.clone();

        let (status, done) = rig.ask("POST", "/demo.low/rollback", Some(json!({ "version": 1, "comment": "back" }))).await;
        assert_eq!((status, &done["changed"][0]["version"]), (200, &json!(3)), "{done}");
        assert_eq!(rig.number(SYSTEM, "demo.low"), 2);
        let (_, page) = rig.ask("GET", "/demo.low/history", None).await;
        assert_eq!(page["items"][0]["rolled_back_from"], 1);

        // `demo.low` was changed since, so that taking the second set back would lose that.
        let path = format!("/changes/{}/rollback", two.id.unwrap());
        let (status, problem) = rig.ask("POST", &path, Some(json!({}))).await;
        assert_eq!((status, &problem["conflicts"][0]["key"]), (409, &json!("demo.low")));
        let seq = rig.core.live.state().seq;
        let (status, done) = rig.ask("POST", &path, Some(json!({ "base_seq": seq }))).await;
        assert_eq!(status, 200, "{done}");
        assert_eq!((rig.number(SYSTEM, "demo.low"), rig.number(SYSTEM, "demo.high")), (2, 10));
        let (_, sets) = rig.ask("GET", "/changes?limit=1", None).await;
        assert_eq!(sets["items"][0]["reverts"], json!(two.id));

        let before = rig.core.live.state().seq;
        rig.set(SYSTEM, &[("demo.low", json!(7)), ("demo.wait_s", json!(1))]).await;
        let moment = json!({ "seq": before });
        let (status, done) = rig.ask("POST", "/rollback", Some(moment)).await;
        assert_eq!((status, done["changed"].as_array().unwrap().len()), (200, 2), "{done}");
        assert_eq!((rig.number(SYSTEM, "demo.low"), rig.number(SYSTEM, "demo.wait_s")), (2, 30));
        let at = json!({ "at": (portico_base::Clock::now(&later) - chrono::Duration::seconds(5)).to_rfc3339() });
        let (status, done) = rig.ask("POST", "/rollback", Some(at)).await;
        assert_eq!(status, 200, "{done}");
        assert_eq!((rig.number(SYSTEM, "demo.low"), rig.number(SYSTEM, "demo.high")), (3, 50));
        assert_eq!(rig.ask("POST", "/rollback", Some(json!({}))).await.0, 400);
        assert!(rig.audit.records.lock().iter().any(|r| r.action == "settings.value.rolled_back"));
    })
    .await;
}

#[tokio::test]
async fn a_version_that_todays_rules_refuse_does_not_come_back() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(
            SYSTEM,
            &[("demo.text", json!("too long")), ("demo.low", json!(2))],
        )
        .await;
        rig.set(
            SYSTEM,
            &[("demo.text", json!("ok")), ("demo.low", json!(3))],
        )
        .await;
        let strict = Rig::another(
            db,
            With {
                declarations: TIGHTER,
                checks: Vec::new(),
                ..With::default()
            },
        )
        .await;
        let (status, problem) = strict
            .ask("POST", "/demo.text/rollback", Some(json!({ "version": 1 })))
            .await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("settings.not_possible"))
        );
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .starts_with("not possible: must be text of at most 3 bytes"),
            "{problem}"
        );
        let (status, problem) = strict
            .ask("POST", "/demo.low/rollback", Some(json!({ "version": 1 })))
            .await;
        assert_eq!(status, 409);
        assert_eq!(problem["detail"], "not possible: the key no longer exists");
        let (status, _) = rig
            .ask("POST", "/demo.text/rollback", Some(json!({ "version": 8 })))
            .await;
        assert_eq!(status, 404);
        // Of another scope there is no such version.
        let body = json!({ "version": 1, "scope": DEFAULT });
        assert_eq!(
            rig.ask("POST", "/demo.text/rollback", Some(body)).await.0,
            404
        );
    })
    .await;
}
