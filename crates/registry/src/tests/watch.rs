//! Watching by long poll and as server-sent events.

use std::time::Duration;

use http_body_util::BodyExt as _;
use portico_base::Principal;
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::{House, OTHER, default_user, operator};

#[tokio::test]
async fn a_long_poll_tells_changes_in_order_without_holes() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, empty) = house.get(&operator(), "/watch?since=0&wait=0").await;
        assert_eq!(empty, json!({"seq": 0, "events": []}));
        let id = house.enter("hello", 9001).await;
        let (_, news) = house.get(&operator(), "/watch?since=0&wait=60").await;
        let kinds: Vec<&str> = news["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|e| e["kind"].as_str())
            .collect();
        assert_eq!(
            kinds,
            [
                "registry.service.registered",
                "registry.instance.registered"
            ]
        );
        assert_eq!(news["events"][1]["instance"]["port"], 9001);
        let since = news["seq"].as_u64().unwrap();
        let waiting = format!("/watch?since={since}&wait=60");
        let leave = async {
            tokio::task::yield_now().await;
            house
                .call(
                    &operator(),
                    "POST",
                    &format!("/deregister/{id}"),
                    Value::Null,
                )
                .await
        };
        let operator = operator();
        let ((status, news), _) = tokio::join!(house.get(&operator, &waiting), leave);
        assert_eq!(status, 200);
        let event = &news["events"][0];
        assert_eq!(
            (event["from"].as_str(), event["to"].as_str()),
            (Some("ready"), Some("draining"))
        );
        assert_eq!(event["seq"], since + 1);
        let (status, problem) = house.get(&operator, "/watch?since=99999&wait=0").await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (410, Some("registry.seq_too_old"))
        );
        assert_eq!(house.get(&operator, "/watch?wait=61").await.0, 400);
        assert_eq!(house.get(&default_user(), "/watch").await.0, 403);
        assert_eq!(house.get(&Principal::anonymous(), "/watch").await.0, 401);
        assert_eq!(house.core.ring.watchers(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_restart_reads_older_changes_from_the_database_until_they_are_trimmed() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.enter("hello", 9001).await;
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        let (_, news) = after.get(&operator(), "/watch?since=0&wait=0").await;
        assert_eq!(news["events"].as_array().unwrap().len(), 2, "{news}");
        after.advance(8 * 86_400);
        crate::jobs::trim(&after.core).await.unwrap();
        assert_eq!(after.get(&operator(), "/watch?since=0&wait=0").await.0, 410);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_watches_its_own_and_the_global_ones() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, a) = house
            .token(json!({"name_pattern": "*", "tenant": "default"}))
            .await;
        let (_, b) = house
            .token(json!({"name_pattern": "*", "tenant": OTHER.to_string()}))
            .await;
        let since = house.core.model.read().seq;
        let at = |name: &str| json!({"name": name, "port": 9001, "host": "127.0.0.1"});
        house.register(&a, at("mine")).await;
        house.register(&b, at("theirs")).await;
        house.register(&operator(), at("everybodys")).await;
        let names = async |who: &Principal| {
            let (_, news) = house
                .get(who, &format!("/watch?since={since}&wait=0"))
                .await;
            let mut names: Vec<String> = news["events"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|e| e["service"].as_str())
                .map(str::to_owned)
                .collect();
            names.dedup();
            names
        };
        assert_eq!(names(&a).await, ["mine", "everybodys"]);
        assert_eq!(names(&b).await, ["theirs", "everybodys"]);
        assert_eq!(names(&operator()).await, ["mine", "theirs", "everybodys"]);
    })
    .await;
}

#[tokio::test]
async fn server_sent_events_carry_the_position_as_id() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let builder = http::Request::get("/watch?since=0").header("accept", "text/event-stream");
        let response = house
            .send(&operator(), builder, axum::body::Body::empty())
            .await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(house.core.ring.watchers(), 1);
        let mut body = response.into_body();
        house.enter("hello", 9001).await;
        let frame = tokio::time::timeout(Duration::from_secs(5), body.frame())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(
            text.starts_with("id: 1\nevent: registry.service.registered\ndata: {"),
            "{text}"
        );
        assert!(text.ends_with("\n\n"));
        drop(body);
        assert_eq!(
            house.core.ring.watchers(),
            0,
            "whoever leaves is not counted"
        );
        let builder = http::Request::get("/watch")
            .header("accept", "text/event-stream")
            .header("last-event-id", "1");
        let response = house
            .send(&operator(), builder, axum::body::Body::empty())
            .await;
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(
            frame.starts_with(b"id: 2\n"),
            "it goes on behind the last id"
        );
    })
    .await;
}

#[tokio::test]
async fn one_change_is_written_once_for_all_watchers() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let id = house.enter("hello", 9001).await;
        let mut bodies = Vec::new();
        for _ in 0..20 {
            let builder = http::Request::get("/watch").header("accept", "text/event-stream");
            let response = house
                .send(&operator(), builder, axum::body::Body::empty())
                .await;
            bodies.push(response.into_body());
        }
        let path = format!("/deregister/{id}");
        house.call(&operator(), "POST", &path, Value::Null).await;
        let mut frames = Vec::new();
        for body in &mut bodies {
            let frame = body.frame().await.unwrap().unwrap();
            frames.push(frame.into_data().unwrap());
        }
        assert!(frames[0].ends_with(b"\n\n"));
        assert!(
            frames.iter().all(|f| f.as_ptr() == frames[0].as_ptr()),
            "every watcher sends the same bytes in memory"
        );
    })
    .await;
}
