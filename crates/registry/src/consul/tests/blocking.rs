//! C§2, RG-42: who waits for what, and what wakes them.

use std::pin::pin;
use std::time::Duration;

use serde_json::json;

use super::{Consul, databases};

#[tokio::test]
async fn keys_prefixes_and_services_wake_for_themselves_only() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        c.put("/v1/kv/a", "1").await;
        c.put("/v1/kv/p/x", "1").await;
        c.register(json!({"Name": "web", "Port": 80})).await;
        for path in [
            "/v1/kv/a",
            "/v1/kv/none",
            "/v1/kv/p/?recurse",
            "/v1/kv/q/?keys",
            "/v1/health/service/web",
            "/v1/catalog/service/unknown",
        ] {
            let index = c.get(path).await.index();
            let join = if path.contains('?') { '&' } else { '?' };
            let waiting = format!("{path}{join}index={index}&wait=60s");
            let mut query = pin!(c.get(&waiting));
            assert!(futures_util::poll!(query.as_mut()).is_pending(), "{path}");
            // Something else changes.
            let others = async {
                c.put("/v1/kv/zz", index.to_string()).await;
                c.register(json!({"Name": "other", "Port": index})).await;
            };
            let early = tokio::select! {
                answer = query.as_mut() => Some(answer),
                () = others => None,
            };
            assert!(early.is_none(), "{path} was woken by others");
            let own = async {
                c.put("/v1/kv/a", index.to_string()).await;
                c.put("/v1/kv/none", index.to_string()).await;
                c.put("/v1/kv/p/y", index.to_string()).await;
                c.put("/v1/kv/q/z", index.to_string()).await;
                c.register(json!({"Name": "web", "Port": index})).await;
                c.register(json!({"Name": "unknown", "Port": index})).await;
            };
            let (answer, ()) = tokio::join!(query, own);
            assert_eq!(answer.status, 200, "{path}");
            assert!(answer.index() > index, "{path}");
            for key in ["none", "q/z"] {
                c.call("DELETE", &format!("/v1/kv/{key}"), "").await;
            }
            c.put("/v1/agent/service/deregister/unknown", "").await;
        }
        assert_eq!(c.state.topics.len(), 0, "nobody is left waiting");
    }
}

#[tokio::test]
async fn deletions_wake_a_prefix() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.put("/v1/kv/p/x", "1").await;
    c.put("/v1/kv/p/y", "1").await;
    let index = c.get("/v1/kv/p/?recurse").await.index();
    let waiting = format!("/v1/kv/p/?recurse&index={index}&wait=60s");
    let (answer, _) = tokio::join!(c.get(&waiting), c.call("DELETE", "/v1/kv/p/x", ""));
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
    let index = answer.index();
    let waiting = format!("/v1/kv/p/?recurse&index={index}&wait=60s");
    let (answer, _) = tokio::join!(c.get(&waiting), c.call("DELETE", "/v1/kv/?recurse", ""));
    assert_eq!(answer.status, 404);
    assert!(answer.index() > index);
}

#[tokio::test]
async fn a_wait_ends_with_the_same_index() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.put("/v1/kv/a", "1").await;
    let index = c.get("/v1/kv/a").await.index();
    for wanted in [index, index + 1_000] {
        let answer = c.get(&format!("/v1/kv/a?index={wanted}&wait=20ms")).await;
        assert_eq!((answer.status, answer.index()), (200, index));
    }
    let miss = c.get("/v1/kv/none?index=1000&wait=20ms").await;
    assert_eq!((miss.status, miss.index()), (404, index));
    let events = c.get("/v1/event/list").await;
    let told = events.index();
    let same = c
        .get(&format!("/v1/event/list?index={told}&wait=20ms"))
        .await;
    assert_eq!(same.text, "[]");
    let waiting = format!("/v1/event/list?index={told}&wait=60s");
    let (answer, fired) = tokio::join!(
        c.get(&waiting),
        c.put("/v1/event/fire/deploy?service=web", "v2")
    );
    let (list, event) = (answer.json(), fired.json());
    assert_eq!(
        (&list[0]["ID"], &event["LTime"], &event["Version"]),
        (&event["ID"], &json!(0), &json!(1))
    );
    assert_eq!(
        (&list[0]["Payload"], &list[0]["ServiceFilter"]),
        (&json!("djI="), &json!("web"))
    );
    assert!(list[0]["LTime"].as_u64().unwrap() > 0);
    assert_eq!(c.get("/v1/event/list?name=other").await.text, "[]");
}

#[tokio::test]
async fn the_hash_form_waits_for_a_definition() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(json!({"Name": "web", "Port": 80})).await;
    let first = c.get("/v1/agent/service/web").await;
    let hash = first.header("x-consul-contenthash").to_owned();
    assert_eq!(
        (hash.len(), &first.json()["ContentHash"]),
        (16, &json!(hash))
    );
    let waiting = format!("/v1/agent/service/web?hash={hash}&wait=60s");
    let (answer, ()) = tokio::join!(
        c.get(&waiting),
        c.register(json!({"Name": "web", "Port": 81}))
    );
    assert_eq!(answer.json()["Port"], 81);
    assert_ne!(answer.header("x-consul-contenthash"), hash);
}

#[tokio::test]
async fn a_drain_answers_whoever_waits() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let mut query = pin!(c.get("/v1/catalog/services?index=1000&wait=10m"));
    assert!(futures_util::poll!(query.as_mut()).is_pending());
    c.stop.cancel();
    assert_eq!(query.await.status, 200);
}

#[tokio::test]
async fn callers_wait_in_bounded_numbers() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let mut waiting: Vec<_> = (0..1_000)
        .map(|_| Box::pin(c.get("/v1/catalog/services?index=1000&wait=10m")))
        .collect();
    for query in &mut waiting {
        assert!(futures_util::poll!(query.as_mut()).is_pending());
    }
    let refused = c.get("/v1/catalog/services?index=1000&wait=10m").await;
    assert_eq!(refused.status, 429);
    assert_eq!(
        c.as_token(
            "pop_test",
            "GET",
            "/v1/catalog/services?index=1000&wait=1ms",
            ""
        )
        .await
        .status,
        200
    );
    drop(waiting);
    assert_eq!(
        c.get("/v1/catalog/services?index=1000&wait=1ms")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn changes_of_another_process_wake_here() {
    let Some(db) = portico_db::testing::postgres().await else {
        return;
    };
    let one = Consul::new(&db).await;
    let clock = db.clock.clone();
    let house = crate::tests::House::build(db.another().await, clock, "two", Vec::new()).await;
    let two = Consul::around(house, super::options());
    let stop = tokio_util::sync::CancellationToken::new();
    let follower = super::super::keeper::follow(two.state.clone(), stop.clone());
    let work = async {
        one.put("/v1/kv/a", "1").await;
        let index = two.get("/v1/kv/a").await.index();
        let waiting = format!("/v1/kv/a?index={index}&wait=60s");
        let (answer, _) = tokio::join!(two.get(&waiting), async {
            while two.state.topics.len() == 0 {
                tokio::task::yield_now().await;
            }
            one.put("/v1/kv/a", "2").await
        });
        assert_eq!(answer.json()[0]["Value"], "Mg==");
        let sessions = two.get("/v1/session/list").await.index();
        let waiting = format!("/v1/session/list?index={sessions}&wait=60s");
        let (answer, _) = tokio::join!(two.get(&waiting), one.put("/v1/session/create", ""));
        assert_eq!(answer.json().as_array().unwrap().len(), 1);
        stop.cancel();
    };
    let both = async { tokio::join!(follower, work) };
    tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .expect("changes arrive");
}
