//! C§10.

use serde_json::json;

use super::{Consul, databases};

#[tokio::test]
async fn all_or_nothing_with_every_failure() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let ops = json!([
            {"KV": {"Verb": "set", "Key": "t1", "Value": "MQ=="}},
            {"KV": {"Verb": "set", "Key": "t2", "Value": "Mg==", "Flags": 7}},
            {"KV": {"Verb": "get", "Key": "t1"}},
        ]);
        let done = c.put("/v1/txn", ops.to_string()).await;
        assert_eq!(done.status, 200);
        let answer = done.json();
        assert_eq!(answer["Errors"], json!(null));
        let results = answer["Results"].as_array().unwrap();
        assert_eq!(results[0]["KV"]["Value"], json!(null));
        assert_eq!(results[2]["KV"]["Value"], "MQ==");
        assert_eq!(
            results[0]["KV"]["ModifyIndex"],
            results[1]["KV"]["ModifyIndex"]
        );
        let bad = json!([
            {"KV": {"Verb": "set", "Key": "t3", "Value": "MQ=="}},
            {"KV": {"Verb": "cas", "Key": "t1", "Value": "MQ==", "Index": 1}},
            {"KV": {"Verb": "get", "Key": "nope"}},
            {"KV": {"Verb": "check-not-exists", "Key": "t1"}},
            {"KV": {"Verb": "bogus", "Key": "t1"}},
            {"KV": {"Verb": "check-index", "Key": "nope"}},
            {"KV": {"Verb": "check-session", "Key": "nope"}},
            {"KV": {"Verb": "delete-cas", "Key": "nope", "Index": 5}},
            {"KV": {"Verb": "lock", "Key": "l", "Session": "zz"}},
        ]);
        let failed = c.put("/v1/txn", bad.to_string()).await;
        assert_eq!(failed.status, 409);
        assert_eq!(
            failed.text,
            concat!(
                r#"{"Results":null,"Errors":["#,
                r#"{"OpIndex":1,"What":"failed to set key \"t1\", index is stale"},"#,
                r#"{"OpIndex":2,"What":"key \"nope\" doesn't exist"},"#,
                r#"{"OpIndex":3,"What":"key \"t1\" exists"},"#,
                r#"{"OpIndex":4,"What":"unknown KV verb \"bogus\""},"#,
                r#"{"OpIndex":5,"What":"failed to check index, key \"nope\" doesn't exist"},"#,
                r#"{"OpIndex":6,"What":"failed to check session, key \"nope\" doesn't exist"},"#,
                r#"{"OpIndex":8,"What":"invalid session \"zz\""}]}"#
            )
        );
        assert_eq!(c.get("/v1/kv/t3").await.status, 404, "nothing was applied");
    }
}

#[tokio::test]
async fn reads_tell_their_consistency() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.put("/v1/kv/a", "1").await;
    c.register(json!({"Name": "web", "Port": 80})).await;
    let ops = json!([
        {"KV": {"Verb": "get-tree", "Key": ""}},
        {"Node": {"Verb": "get", "Node": {"Node": "test-host"}}},
        {"Service": {"Verb": "get", "Node": "test-host", "Service": {"ID": "web"}}},
        {"Check": {"Verb": "get", "Check": {"Node": "test-host", "CheckID": "serfHealth"}}},
    ]);
    let read = c.put("/v1/txn", ops.to_string()).await;
    assert_eq!(read.status, 200);
    assert!(read.text.ends_with(
        r#""Errors":null,"Index":0,"LastContact":0,"KnownLeader":true,"ConsistencyLevel":""}"#
    ));
    assert_eq!(read.header("x-consul-knownleader"), "true");
    let results = read.json()["Results"].clone();
    assert_eq!(results[1]["Node"]["Node"], "test-host");
    assert_eq!(results[2]["Service"]["Port"], 80);
    assert_eq!(results[3]["Check"]["Status"], "passing");
    let many: Vec<_> = (0..65)
        .map(|_| json!({"KV": {"Verb": "get", "Key": "a"}}))
        .collect();
    let refused = c.put("/v1/txn", json!(many).to_string()).await;
    assert_eq!(
        (refused.status, refused.text.as_str()),
        (413, "Transaction contains too many operations (65 > 64)")
    );
    assert!(
        c.put("/v1/txn", "{")
            .await
            .text
            .starts_with("Failed to parse body: ")
    );
    let own = json!([{"KV": {"Verb": "set", "Key": "portico/x", "Value": ""}}]);
    assert_eq!(c.put("/v1/txn", own.to_string()).await.status, 403);
}
