//! C§9.

use serde_json::json;

use super::super::keeper;
use super::{Consul, databases};

async fn session(c: &Consul, body: serde_json::Value) -> String {
    let answer = c.put("/v1/session/create", body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["ID"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn sessions_are_made_seen_and_ended() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        assert_eq!(c.get("/v1/session/list").await.text, "[]");
        let id = session(
            &c,
            json!({"Name": "mine", "TTL": "20s", "LockDelay": "2m", "Behavior": "delete"}),
        )
        .await;
        let info = c.get(&format!("/v1/session/info/{id}")).await;
        let index = info.index();
        assert_eq!(
            info.text,
            format!(
                r#"[{{"ID":"{id}","Name":"mine","Node":"test-host","LockDelay":120000000000,"Behavior":"delete","TTL":"20s","NodeChecks":["serfHealth"],"ServiceChecks":null,"CreateIndex":{index},"ModifyIndex":{index}}}]"#
            )
        );
        assert_eq!(
            c.get("/v1/session/node/test-host")
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(c.get("/v1/session/node/other").await.text, "[]");
        assert_eq!(
            c.put(&format!("/v1/session/renew/{id}"), "").await.json()[0]["ID"],
            id
        );
        assert_eq!(
            c.put(&format!("/v1/session/destroy/{id}"), "").await.text,
            "true"
        );
        assert_eq!(
            c.put(&format!("/v1/session/destroy/{id}"), "").await.text,
            "true"
        );
        assert_eq!(c.get(&format!("/v1/session/info/{id}")).await.text, "[]");
        let plain = session(&c, json!({})).await;
        let seen = c.get(&format!("/v1/session/info/{plain}")).await.json();
        assert_eq!(
            (&seen[0]["LockDelay"], &seen[0]["Behavior"], &seen[0]["TTL"]),
            (&json!(15_000_000_000_i64), &json!("release"), &json!(""))
        );
    }
}

#[tokio::test]
async fn bad_sessions_in_consuls_words() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    for (body, text) in [
        (
            json!({"TTL": "5s"}),
            "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]",
        ),
        (json!({"Behavior": "bad"}), "Invalid Behavior setting 'bad'"),
        (json!({"Node": "nope"}), "Missing node registration"),
        (
            json!({"Checks": ["nope"]}),
            "Missing check 'nope' registration",
        ),
    ] {
        let answer = c.put("/v1/session/create", body.to_string()).await;
        assert_eq!((answer.status, answer.text.as_str()), (500, text), "{body}");
    }
    let short = c.get("/v1/session/info/short").await;
    assert_eq!(
        (short.status, short.text.as_str()),
        (
            500,
            "failed session lookup: index error: UUID must be 36 characters"
        )
    );
    assert_eq!(
        c.get(&format!("/v1/session/info/{}", "1".repeat(36)))
            .await
            .text,
        "[]"
    );
    let unknown = c
        .put(&format!("/v1/session/renew/{}", "1".repeat(36)), "")
        .await;
    assert_eq!(
        (unknown.status, unknown.text),
        (404, format!("Session id '{}' not found", "1".repeat(36)))
    );
    assert_eq!(c.get("/v1/session/info/").await.text, "Missing session");
}

#[tokio::test]
async fn locks_follow_the_seven_rules() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let one = session(&c, json!({"LockDelay": "3s"})).await;
        let two = session(&c, json!({"LockDelay": 0})).await;
        let lock = |s: &str| format!("/v1/kv/lead?acquire={s}");
        assert_eq!(c.put(&lock(&one), "1").await.text, "true");
        let held = c.get("/v1/kv/lead").await.json();
        assert_eq!(
            (&held[0]["LockIndex"], &held[0]["Session"]),
            (&json!(1), &json!(one))
        );
        assert_eq!(c.put(&lock(&two), "2").await.text, "false");
        assert_eq!(c.put(&lock(&one), "again").await.text, "true");
        assert_eq!(c.get("/v1/kv/lead").await.json()[0]["LockIndex"], 1);
        assert_eq!(
            c.put(&format!("/v1/kv/lead?release={two}"), "x").await.text,
            "false"
        );
        assert_eq!(
            c.put(&format!("/v1/kv/lead?release={one}"), "free")
                .await
                .text,
            "true"
        );
        let free = c.get("/v1/kv/lead").await.json();
        assert!(free[0].get("Session").is_none());
        assert_eq!(
            c.put(&lock(&one), "1").await.text,
            "true",
            "a release in order has no delay"
        );
        assert_eq!(c.get("/v1/kv/lead").await.json()[0]["LockIndex"], 2);
        c.put(&format!("/v1/session/destroy/{one}"), "").await;
        assert!(
            c.get("/v1/kv/lead").await.json()[0]
                .get("Session")
                .is_none()
        );
        assert_eq!(
            c.put(&lock(&two), "2").await.text,
            "false",
            "the lock delay runs"
        );
        c.house.advance(4);
        assert_eq!(c.put(&lock(&two), "2").await.text, "true");
        assert_eq!(c.get("/v1/kv/lead").await.json()[0]["LockIndex"], 3);
        assert_eq!(
            c.put("/v1/kv/lead", "plain").await.text,
            "true",
            "locks are advisory"
        );
        assert_eq!(c.get("/v1/kv/lead").await.json()[0]["Session"], two);
    }
}

#[tokio::test]
async fn time_ends_sessions_and_renewal_moves_it() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let dies = session(
            &c,
            json!({"TTL": "10s", "Behavior": "delete", "LockDelay": 0}),
        )
        .await;
        let lives = session(&c, json!({"TTL": "10s", "LockDelay": 0})).await;
        c.put(&format!("/v1/kv/a?acquire={dies}"), "1").await;
        c.put(&format!("/v1/kv/b?acquire={lives}"), "1").await;
        for _ in 0..4 {
            c.house.advance(6);
            assert_eq!(
                c.put(&format!("/v1/session/renew/{lives}"), "")
                    .await
                    .status,
                200
            );
            keeper::expire(&c.state, c.state.core.clock.now())
                .await
                .unwrap();
        }
        assert_eq!(
            c.put(&format!("/v1/session/renew/{dies}"), "").await.status,
            404
        );
        assert_eq!(
            c.get("/v1/kv/a").await.status,
            404,
            "deleted with its session"
        );
        assert_eq!(c.get("/v1/kv/b").await.json()[0]["Session"], lives);
        c.house.advance(30);
        assert_eq!(
            keeper::expire(&c.state, c.state.core.clock.now())
                .await
                .unwrap(),
            1
        );
        assert!(c.get("/v1/kv/b").await.json()[0].get("Session").is_none());
        assert_eq!(c.get("/v1/session/list").await.text, "[]");
    }
}

#[tokio::test]
async fn a_critical_check_ends_its_sessions() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(json!({"Name": "web", "Check": {"TTL": "10s", "Status": "passing"}}))
        .await;
    let id = session(&c, json!({"Checks": ["serfHealth", "service:web"]})).await;
    c.put(&format!("/v1/kv/a?acquire={id}"), "1").await;
    let stop = tokio_util::sync::CancellationToken::new();
    let keeper = keeper::run(c.state.clone(), stop.clone());
    let work = async {
        let before = c.get("/v1/session/list").await.index();
        c.put("/v1/agent/check/fail/service:web", "").await;
        let gone = c
            .get(&format!("/v1/session/list?index={before}&wait=30s"))
            .await;
        assert_eq!(gone.text, "[]");
        stop.cancel();
    };
    tokio::join!(keeper, work);
    assert!(c.get("/v1/kv/a").await.json()[0].get("Session").is_none());
    let refused = c
        .put(
            "/v1/session/create",
            json!({"Checks": ["service:web"]}).to_string(),
        )
        .await;
    assert_eq!(
        (refused.status, refused.text.as_str()),
        (500, "Check 'service:web' is in critical state")
    );
}
