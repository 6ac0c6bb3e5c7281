//! Settings that plug-ins declare, and what plug-ins read (CT-15, CT-16).

use std::sync::Arc;

use portico_base::{Principal, PrincipalKind};
use portico_contract::settings_tree::{PluginSchema, PluginSettings as _};
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::rig::{DEFAULT, OTHER, Rig, SYSTEM};
use crate::plugins::Plugins;

fn instance(service: &str, tenant: uuid::Uuid) -> Principal {
    Principal {
        service: Some(Arc::from(service)),
        ..Principal::new(PrincipalKind::Instance, "i", tenant)
    }
}

fn schema(max: u32) -> Value {
    json!({ "type": "object", "properties": {
        "limit": { "type": "integer", "minimum": 1, "maximum": max, "default": 5 },
        "beta": { "type": "boolean", "default": false },
        "token": { "type": "string", "writeOnly": true },
    } })
}

fn declare(plugins: &Plugins, schemas: &[(&str, Value)]) {
    let all = schemas.iter().map(|(service, schema)| PluginSchema {
        service: Arc::from(*service),
        tenant: None,
        schema: Arc::new(schema.clone()),
    });
    plugins.declared(all.collect());
}

#[tokio::test]
async fn a_plugin_reads_and_watches_its_own_and_what_is_public() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let plugins = Plugins::new(&rig.core);
        declare(&plugins, &[("hello", schema(10)), ("other", schema(10))]);
        let (status, _) = rig.ask("GET", "/plugin.hello.limit", None).await;
        assert_eq!(status, 200);
        rig.set(
            SYSTEM,
            &[
                ("plugin.hello.limit", json!(7)),
                ("plugin.hello.token", json!("t0ps3cret")),
            ],
        )
        .await;
        rig.set(OTHER, &[("plugin.hello.beta", json!(true))]).await;
        let body =
            json!({ "changes": [{ "key": "plugin.hello.limit", "value": 11, "version": 1 }] });
        let (status, problem) = rig.ask("POST", "/changes", Some(body)).await;
        assert_eq!(
            (status, &problem["errors"][0]["message"]),
            (400, &json!("must be at most 10"))
        );

        let hello = instance("hello", DEFAULT);
        let (_, list) = rig.call(&hello, "GET", "/", None).await;
        let told: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["key"].as_str().unwrap())
            .collect();
        assert_eq!(
            told,
            [
                "demo.on",
                "plugin.hello.beta",
                "plugin.hello.limit",
                "plugin.hello.token"
            ]
        );
        let (_, token) = rig.call(&hello, "GET", "/plugin.hello.token", None).await;
        assert_eq!(
            token["value"], "t0ps3cret",
            "its own secret, with its own credential"
        );
        let (_, operator) = rig.ask("GET", "/plugin.hello.token", None).await;
        assert_eq!(operator["value"], Value::Null);
        let other = instance("other", DEFAULT);
        for path in ["/plugin.hello.token", "/plugin.hello.limit", "/demo.low"] {
            assert_eq!(rig.call(&other, "GET", path, None).await.0, 404, "{path}");
        }
        let (_, news) = rig
            .call(&other, "GET", "/watch?after=0&wait=0s", None)
            .await;
        assert_eq!(news["changed"], json!([]));
        let (_, news) = rig
            .call(&hello, "GET", "/watch?after=0&wait=0s", None)
            .await;
        assert_eq!(news["changed"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_plugins_switch_is_on_for_one_tenant_and_it_changes_nothing_itself() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let plugins = Plugins::new(&rig.core);
        declare(&plugins, &[("hello", schema(10))]);
        rig.set(OTHER, &[("plugin.hello.beta", json!(true))]).await;
        let hello = instance("hello", DEFAULT);
        // A feature switch for one tenant.
        let (_, beta) = rig
            .call(&instance("hello", OTHER), "GET", "/plugin.hello.beta", None)
            .await;
        assert_eq!(beta["value"], true);
        for (path, body) in [
            ("/changes", json!({ "changes": [] })),
            ("/import", json!({ "settings": {} })),
            ("/export", json!({})),
        ] {
            assert_eq!(
                rig.call(&hello, "POST", path, Some(body)).await.0,
                403,
                "{path}"
            );
        }
        assert_eq!(
            rig.call(&hello, "GET", "/plugin.hello.limit/history", None)
                .await
                .0,
            403
        );
    })
    .await;
}

#[tokio::test]
async fn a_new_version_with_tighter_bounds_keeps_the_value_out() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let plugins = Plugins::new(&rig.core);
        let stop = CancellationToken::new();
        let follower = tokio::spawn(plugins.clone().follow(stop.clone()));
        declare(&plugins, &[("hello", schema(10))]);
        rig.set(SYSTEM, &[("plugin.hello.limit", json!(9))]).await;
        declare(&plugins, &[("hello", schema(8))]);
        let refused = || async {
            let (_, shown) = rig.ask("GET", "/plugin.hello.limit", None).await;
            shown["refused"].as_str() == Some("must be at most 8")
        };
        while !refused().await {
            tokio::task::yield_now().await;
        }
        declare(&plugins, &[]);
        assert_eq!(
            rig.ask("GET", "/plugin.hello.limit", None).await.0,
            404,
            "the plug-in is gone"
        );
        declare(&plugins, &[("hello", schema(10))]);
        let back = || async {
            let (_, shown) = rig.ask("GET", "/plugin.hello.limit", None).await;
            shown["refused"].is_null() && shown["value"] == 9
        };
        while !back().await {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        follower.await.unwrap();
    })
    .await;
}
