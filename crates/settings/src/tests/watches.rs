//! Watching: long poll and events, by position, missing nothing (CT-13).

use std::sync::Arc;

use futures_util::StreamExt as _;
use portico_base::Principal;
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};

use super::rig::{Rig, SYSTEM};

#[tokio::test]
async fn a_long_poll_is_answered_by_the_change() {
    each_backend(async |db: &TestDb| {
        let rig = Arc::new(Rig::new(db).await);
        let waiting = {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.ask("GET", "/watch?wait=60s", None).await })
        };
        while rig.core.live.watchers() == 0 {
            tokio::task::yield_now().await;
        }
        rig.set(SYSTEM, &[("demo.low", json!(4))]).await;
        let (status, news) = waiting.await.unwrap();
        assert_eq!((status, &news["changed"][0]["value"]), (200, &json!(4)));
        let seq = news["seq"].as_u64().unwrap();
        rig.set(SYSTEM, &[("demo.low", json!(5))]).await;
        rig.set(
            SYSTEM,
            &[("demo.low", json!(null)), ("demo.on", json!(true))],
        )
        .await;
        let (_, news) = rig
            .ask("GET", &format!("/watch?after={seq}&wait=0s"), None)
            .await;
        let changed = news["changed"].as_array().unwrap();
        assert_eq!(
            changed.len(),
            2,
            "a reset is news, and each key is told once"
        );
        assert_eq!(changed[0]["source"]["layer"], "default");
        let (_, silence) = rig
            .ask(
                "GET",
                &format!("/watch?after={}&wait=0s", news["seq"]),
                None,
            )
            .await;
        assert_eq!(silence, json!({ "seq": news["seq"], "changed": [] }));
        assert_eq!(
            rig.core.live.watchers(),
            0,
            "a watch that ended is not counted"
        );
        for wrong in ["/watch?wait=61s", "/watch?wait=x", "/watch?scope=nobody"] {
            assert_eq!(rig.ask("GET", wrong, None).await.0, 400, "{wrong}");
        }
    })
    .await;
}

/// The next event of a stream, as position and data.
async fn event(stream: &mut axum::body::BodyDataStream) -> (u64, Value) {
    let bytes = stream.next().await.unwrap().unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let field = |name: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .to_owned()
    };
    (
        field("id: ").parse().unwrap(),
        serde_json::from_str(&field("data: ")).unwrap(),
    )
}

#[tokio::test]
async fn a_stream_goes_on_behind_its_last_event() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let operator = Principal::operator();
        let response = rig.send(&operator, "GET", "/stream", None).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = response.into_body().into_data_stream();
        rig.set(SYSTEM, &[("demo.low", json!(4))]).await;
        let (first, data) = event(&mut stream).await;
        assert_eq!(data["changed"][0]["value"], 4);
        drop(stream);
        rig.set(SYSTEM, &[("demo.low", json!(5))]).await;
        let again = rig
            .send(&operator, "GET", &format!("/stream?after={first}"), None)
            .await;
        let (second, data) = event(&mut again.into_body().into_data_stream()).await;
        assert!(second > first);
        assert_eq!(data["changed"][0]["value"], 5);
    })
    .await;
}
