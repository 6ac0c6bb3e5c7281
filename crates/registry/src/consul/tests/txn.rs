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

#[tokio::test]
async fn nodes_services_checks_and_keys_together() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let ops = json!([
            {"Node": {"Verb": "set", "Node": {"Node": "n1", "Address": "10.1.0.1", "Meta": {"a": "b"}}}},
            {"Service": {"Verb": "set", "Node": "n1", "Service": {"ID": "web1", "Service": "web", "Port": 80}}},
            {"Check": {"Verb": "set", "Check": {"Node": "n1", "CheckID": "c1", "Name": "one", "ServiceID": "web1", "Status": "passing"}}},
            {"KV": {"Verb": "set", "Key": "web/port", "Value": "ODA="}},
        ]);
        let done = c.put("/v1/txn", ops.to_string()).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let results = done.json()["Results"].clone();
        let index = results[0]["Node"]["ModifyIndex"].clone();
        assert_eq!(
            (
                &results[1]["Service"]["ModifyIndex"],
                &results[3]["KV"]["ModifyIndex"]
            ),
            (&index, &index)
        );
        assert_eq!(results[2]["Check"]["ServiceName"], "web");
        let line = c.get("/v1/health/service/web?passing").await.json();
        assert_eq!(
            (
                &line[0]["Node"]["Address"],
                &line[0]["Checks"][0]["CheckID"]
            ),
            (&json!("10.1.0.1"), &json!("c1"))
        );
        assert_eq!(c.get("/v1/kv/web/port?raw").await.text, "80");
        let directory = c.house.directory();
        let service = directory
            .find(portico_base::id::TENANT_DEFAULT, "web")
            .unwrap();
        assert_eq!(
            (
                &*service.instances[0].host,
                service.instances[0].state.as_str()
            ),
            ("10.1.0.1", "ready")
        );
        let fail = json!([{"Check": {"Verb": "set", "Check": {"Node": "n1", "CheckID": "c1", "Name": "one", "ServiceID": "web1", "Status": "critical"}}}]);
        assert_eq!(c.put("/v1/txn", fail.to_string()).await.status, 200);
        let state = c
            .house
            .directory()
            .find(portico_base::id::TENANT_DEFAULT, "web")
            .unwrap()
            .instances[0]
            .state;
        assert_eq!(state.as_str(), "failing", "the door hears of it");
        let gone = json!([
            {"Service": {"Verb": "delete", "Node": "n1", "Service": {"ID": "web1"}}},
            {"KV": {"Verb": "delete", "Key": "web/port"}},
        ]);
        assert_eq!(c.put("/v1/txn", gone.to_string()).await.status, 200);
        assert_eq!(c.get("/v1/catalog/service/web").await.text, "[]");
        assert_eq!(
            c.put(
                "/v1/txn",
                json!([{"Node": {"Verb": "delete", "Node": {"Node": "n1"}}}]).to_string()
            )
            .await
            .status,
            200
        );
        assert_eq!(c.get("/v1/catalog/node/n1").await.text, "null");
    }
}

#[tokio::test]
async fn the_catalogue_in_a_transaction_meets_the_same_checks() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let body = json!({"name": "hello", "port": 9000, "host": "127.0.0.1", "tenant": "default"});
        c.house.register(&crate::tests::operator(), body).await;
        let ops = json!([
            {"KV": {"Verb": "set", "Key": "half", "Value": "MQ=="}},
            {"Node": {"Verb": "set", "Node": {"Node": "n1", "Address": "10.1.0.1"}}},
            {"Service": {"Verb": "set", "Node": "n1", "Service": {"Service": "hello", "Port": 80}}},
            {"Service": {"Verb": "set", "Node": "n1", "Service": {"Service": "gateway", "Port": 80}}},
            {"Service": {"Verb": "set", "Node": "n1", "Service": {"Service": "spy", "Address": "169.254.169.254", "Port": 80}}},
            {"Service": {"Verb": "set", "Node": "nope", "Service": {"Service": "web", "Port": 80}}},
            {"Check": {"Verb": "set", "Check": {"Node": "test-host", "CheckID": "x", "Name": "x"}}},
            {"Node": {"Verb": "cas", "Node": {"Node": "n2", "Address": "10.1.0.2", "ModifyIndex": 5}}},
            {"Node": {"Verb": "bogus", "Node": {"Node": "n3"}}},
        ]);
        let failed = c.put("/v1/txn", ops.to_string()).await;
        assert_eq!(failed.status, 409, "{}", failed.text);
        let errors = failed.json()["Errors"].clone();
        let told: Vec<u64> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["OpIndex"].as_u64().unwrap())
            .collect();
        assert_eq!(told, [2, 3, 4, 5, 6, 7, 8], "{errors}");
        assert_eq!(errors[0]["What"], "Permission denied");
        assert_eq!(errors[3]["What"], "Missing node registration");
        assert_eq!(
            errors[5]["What"],
            "failed to set node \"n2\", index is stale"
        );
        assert_eq!(errors[6]["What"], "unknown Node verb \"bogus\"");
        assert_eq!(
            c.get("/v1/kv/half").await.status,
            404,
            "nothing was applied"
        );
        assert_eq!(c.get("/v1/catalog/node/n1").await.text, "null");
    }
}
