//! C§8.

use proptest::prelude::*;
use serde_json::json;

use super::{Consul, databases};
use crate::tests::House;

#[tokio::test]
async fn a_key_lives_and_dies() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let miss = c.get("/v1/kv/a").await;
        assert_eq!(
            (miss.status, miss.text.as_str(), miss.index()),
            (404, "", 1)
        );
        let put = c.put("/v1/kv/a", "hello").await;
        assert_eq!((put.status, put.text.as_str()), (200, "true"));
        assert_eq!(put.header("content-type"), "application/json");
        let got = c.get("/v1/kv/a").await;
        let index = got.index();
        assert_eq!(
            got.text,
            format!(
                r#"[{{"LockIndex":0,"Key":"a","Flags":0,"Value":"aGVsbG8=","CreateIndex":{index},"ModifyIndex":{index}}}]"#
            )
        );
        assert_eq!(got.header("x-consul-knownleader"), "true");
        assert_eq!(got.header("x-consul-lastcontact"), "0");
        assert!(!got.headers.contains_key("x-consul-effective-consistency"));
        let raw = c.get("/v1/kv/a?raw").await;
        assert_eq!(
            (raw.text.as_str(), raw.header("content-type")),
            ("hello", "text/plain")
        );
        assert_eq!(raw.header("x-content-type-options"), "nosniff");
        assert_eq!(raw.header("content-security-policy"), "sandbox");
        assert!(
            c.get("/v1/kv/a?pretty")
                .await
                .text
                .starts_with("[\n    {\n        \"LockIndex\": 0,")
        );
        c.put("/v1/kv/a", "hello").await;
        assert_eq!(
            c.get("/v1/kv/a").await.index(),
            index,
            "the same value changes nothing"
        );
        c.put("/v1/kv/a?flags=42", "").await;
        let empty = c.get("/v1/kv/a").await.json();
        assert_eq!(
            (&empty[0]["Value"], &empty[0]["Flags"]),
            (&json!(null), &json!(42))
        );
        assert_eq!(c.call("DELETE", "/v1/kv/a", "").await.text, "true");
        assert_eq!(c.call("DELETE", "/v1/kv/a", "").await.text, "true");
        let gone = c.get("/v1/kv/a").await;
        assert!(gone.status == 404 && gone.index() > index);
    }
}

#[tokio::test]
async fn compare_and_set() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    assert_eq!(c.put("/v1/kv/a?cas=50", "x").await.text, "false");
    assert_eq!(c.put("/v1/kv/a?cas=0", "x").await.text, "true");
    assert_eq!(c.put("/v1/kv/a?cas=0", "y").await.text, "false");
    let index = c.get("/v1/kv/a").await.index();
    assert_eq!(
        c.put(&format!("/v1/kv/a?cas={}", index + 1), "y")
            .await
            .text,
        "false"
    );
    assert_eq!(
        c.put(&format!("/v1/kv/a?cas={index}"), "y").await.text,
        "true"
    );
    assert_eq!(
        c.call("DELETE", &format!("/v1/kv/a?cas={index}"), "")
            .await
            .text,
        "false"
    );
    assert_eq!(c.call("DELETE", "/v1/kv/a?cas=0", "").await.text, "false");
    let index = c.get("/v1/kv/a").await.index();
    assert_eq!(
        c.call("DELETE", &format!("/v1/kv/a?cas={index}"), "")
            .await
            .text,
        "true"
    );
}

#[tokio::test]
async fn trees_and_names() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        for key in ["sp%20ace/x", "spa", "d/z/1", "d/z/2", "d/y", "d%2Fu%C3%A9"] {
            assert_eq!(c.put(&format!("/v1/kv/{key}"), "v").await.text, "true");
        }
        let names = |a: &super::Answer| -> Vec<String> {
            a.json()
                .as_array()
                .unwrap()
                .iter()
                .map(|e| e["Key"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(
            names(&c.get("/v1/kv/sp?recurse").await),
            ["sp ace/x", "spa"]
        );
        assert_eq!(
            c.get("/v1/kv/d/?keys&separator=/").await.json(),
            json!(["d/ué", "d/y", "d/z/"])
        );
        assert_eq!(
            c.get("/v1/kv/?keys").await.json().as_array().unwrap().len(),
            6
        );
        assert_eq!(c.get("/v1/kv/nope?recurse").await.status, 404);
        assert_eq!(c.get("/v1/kv/nope?keys").await.status, 404);
        let before = c.get("/v1/kv/d?recurse").await.index();
        c.put("/v1/kv/other", "v").await;
        assert_eq!(
            c.get("/v1/kv/d?recurse").await.index(),
            before,
            "others do not count"
        );
        c.call("DELETE", "/v1/kv/d/z/1", "").await;
        assert!(
            c.get("/v1/kv/d?recurse").await.index() > before,
            "deletions count"
        );
        assert_eq!(c.call("DELETE", "/v1/kv/d?recurse", "").await.text, "true");
        assert_eq!(c.get("/v1/kv/d?recurse").await.status, 404);
        assert_eq!(
            names(&c.get("/v1/kv/?recurse").await),
            ["other", "sp ace/x", "spa"]
        );
    }
}

#[tokio::test]
async fn bad_requests_in_consuls_words() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    for (method, path, status, text) in [
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        (
            "PUT",
            "/v1/kv/a?flags=-1",
            500,
            "strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        (
            "PUT",
            "/v1/kv/a?acquire=x&cas=0",
            400,
            "Conflicting flags: acquire=x&cas=0",
        ),
        (
            "PUT",
            "/v1/kv/a?acquire=nope",
            500,
            "invalid session \"nope\"",
        ),
        ("PUT", "/v1/kv/a?release=nope", 200, "false"),
        ("GET", "/v1/kv/a?wait=10", 400, "Invalid wait time"),
        ("GET", "/v1/kv/a?index=x", 400, "Invalid index"),
        ("GET", "/v1/kv/a?dc=dc2", 500, "No path to datacenter"),
        (
            "GET",
            "/v1/kv/a?stale&consistent",
            400,
            "Cannot specify ?stale with ?consistent, conflicting semantics.",
        ),
        ("GET", "/v1/kv/portico/settings/a", 403, "Permission denied"),
        ("PUT", "/v1/kv/portico/settings/a", 403, "Permission denied"),
        (
            "DELETE",
            "/v1/kv/portico/?recurse",
            403,
            "Permission denied",
        ),
        ("POST", "/v1/kv/a", 405, "method POST not allowed"),
    ] {
        let answer = c.call(method, path, "").await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (status, text),
            "{method} {path}"
        );
    }
    let moved = c.put("/v1/kv//lead", "x").await;
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, "/v1/kv/lead")
    );
    let allowed = c.call("OPTIONS", "/v1/kv/a", "").await;
    assert_eq!(
        (
            allowed.status,
            allowed.header("allow"),
            allowed.text.as_str()
        ),
        (200, "OPTIONS,GET,PUT,DELETE", "")
    );
}

#[tokio::test]
async fn values_and_stores_are_bounded() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    assert_eq!(c.put("/v1/kv/a", vec![b'x'; 524_288]).await.text, "true");
    let request = http::Request::builder()
        .method("PUT")
        .uri("/v1/kv/a")
        .header("content-length", "600000");
    let large = c.send(request, vec![b'x'; 600_000], "127.0.0.1:1").await;
    assert_eq!(large.status, 413);
    assert!(
        large
            .text
            .starts_with("Request body(600000 bytes) too large, max size: 524288 bytes.")
    );
    assert_eq!(large.header("connection"), "close");
    let small = House::with(
        &db,
        vec![("kv.max_keys", json!(2)), ("kv.max_bytes", json!(600_000))],
    )
    .await;
    let c = Consul::around(small, super::options());
    assert_eq!(c.put("/v1/kv/b", "1").await.status, 200);
    let full = c.put("/v1/kv/c", "1").await;
    assert_eq!(
        (full.status, full.text.as_str()),
        (507, "the key-value store is full: 2 keys")
    );
    assert_eq!(
        c.put("/v1/kv/b", vec![b'x'; 100_000]).await.status,
        507,
        "bytes"
    );
    c.call("DELETE", "/v1/kv/?recurse", "").await;
    assert_eq!(
        c.put("/v1/kv/c", vec![b'x'; 500_000]).await.status,
        200,
        "room again"
    );
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_indexes_go_on() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        c.put("/v1/kv/a", "1").await;
        c.put("/v1/kv/gone", "1").await;
        c.call("DELETE", "/v1/kv/gone", "").await;
        let (index, miss) = (
            c.get("/v1/kv/a").await.index(),
            c.get("/v1/kv/gone").await.index(),
        );
        let services = c.get("/v1/catalog/services").await.index();
        drop(c);
        let c = Consul::new(&db).await;
        assert_eq!(c.get("/v1/kv/a?raw").await.text, "1");
        assert_eq!(c.get("/v1/kv/a").await.index(), index);
        assert!(c.get("/v1/kv/gone").await.index() >= miss);
        assert!(c.get("/v1/catalog/services").await.index() >= services);
        c.put("/v1/kv/b", "1").await;
        assert!(c.get("/v1/kv/b").await.index() > miss);
    }
}

#[tokio::test]
async fn swept_tombstones_leave_their_index() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        c.put("/v1/kv/p/a", "1").await;
        c.put("/v1/kv/p/b", "1").await;
        c.call("DELETE", "/v1/kv/p/b", "").await;
        let before = c.get("/v1/kv/p?recurse").await.index();
        c.house.advance(3_601);
        super::super::keeper::sweep(&c.state, c.state.core.clock.now())
            .await
            .unwrap();
        let tombs = crate::store::kv::buried_below(
            c.state.core.db.reader(),
            portico_base::id::TENANT_DEFAULT,
            "p",
        )
        .await
        .unwrap();
        assert_eq!(tombs, 0);
        assert_eq!(c.get("/v1/kv/p?recurse").await.index(), before);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, Vec<u8>, Option<bool>),
    Delete(String),
    Tree(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || "[ab]{1,2}(/[ab]{1,2})?";
    let value = proptest::collection::vec(any::<u8>(), 0..4);
    let step = prop_oneof![
        4 => (key(), value, proptest::option::of(any::<bool>())).prop_map(|(k, v, cas)| Step::Put(k, v, cas)),
        1 => key().prop_map(Step::Delete),
        1 => "[ab]{0,1}".prop_map(Step::Tree),
    ];
    proptest::collection::vec(step, 1..25)
}

/// Plays steps against a map that does the same, and compares after each.
async fn play(steps: Vec<Step>) {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let mut model: std::collections::BTreeMap<String, (Vec<u8>, u64)> =
        std::collections::BTreeMap::new();
    let mut highest = 1;
    for step in steps {
        match step {
            Step::Put(key, value, cas) => {
                let present = model.get(&key).map_or(0, |(_, index)| *index);
                let wanted = cas.map(|right| if right { present } else { present + 1_000 });
                let query = wanted.map(|w| format!("?cas={w}")).unwrap_or_default();
                let done = c
                    .put(&format!("/v1/kv/{key}{query}"), value.clone())
                    .await
                    .text;
                assert_eq!(done, if cas == Some(false) { "false" } else { "true" });
                if done == "true" {
                    let index = c.get(&format!("/v1/kv/{key}")).await.index();
                    model.insert(key, (value, index));
                }
            }
            Step::Delete(key) => {
                c.call("DELETE", &format!("/v1/kv/{key}"), "").await;
                model.remove(&key);
            }
            Step::Tree(prefix) => {
                c.call("DELETE", &format!("/v1/kv/{prefix}?recurse"), "")
                    .await;
                model.retain(|key, _| !key.starts_with(&prefix));
            }
        }
        let all = c.get("/v1/kv/?recurse").await;
        assert!(all.index() >= highest, "the index never falls");
        highest = all.index();
        let seen: Vec<(String, u64)> = match all.status {
            404 => Vec::new(),
            _ => all
                .json()
                .as_array()
                .unwrap()
                .iter()
                .map(|e| {
                    (
                        e["Key"].as_str().unwrap().to_owned(),
                        e["ModifyIndex"].as_u64().unwrap(),
                    )
                })
                .collect(),
        };
        let wanted: Vec<(String, u64)> = model.iter().map(|(k, (_, i))| (k.clone(), *i)).collect();
        assert_eq!(seen, wanted);
    }
    let usage = crate::store::kv::usage(c.state.core.db.reader(), portico_base::id::TENANT_DEFAULT)
        .await
        .unwrap();
    let bytes: usize = model.iter().map(|(k, (v, _))| k.len() + v.len()).sum();
    assert_eq!(
        (usage.keys, usage.bytes),
        (model.len() as i64, bytes as i64)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_store_does_what_a_map_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
