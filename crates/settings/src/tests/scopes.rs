//! Tenants: their own values, and nobody else's (CT-2).

use portico_db::testing::{TestDb, each_backend};
use serde_json::json;

use super::rig::{DEFAULT, OTHER, Rig, SYSTEM, person, tenant_admin};

#[tokio::test]
async fn a_tenants_value_goes_before_the_installations() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.low", json!(2))]).await;
        rig.set(OTHER, &[("demo.low", json!(3)), ("demo.on", json!(true))])
            .await;
        assert_eq!(
            (
                rig.number(OTHER, "demo.low"),
                rig.number(DEFAULT, "demo.low")
            ),
            (3, 2)
        );
        let admin = tenant_admin(OTHER);
        let (_, own) = rig.call(&admin, "GET", "/demo.low", None).await;
        assert_eq!(
            own["source"],
            json!({ "layer": "stored", "scope": OTHER, "version": 1 })
        );
        let (_, theirs) = rig
            .call(&tenant_admin(DEFAULT), "GET", "/demo.low", None)
            .await;
        assert_eq!(
            (&theirs["source"]["scope"], &theirs["version"]),
            (&json!("system"), &json!(0))
        );
        rig.set(OTHER, &[("demo.low", json!(null))]).await;
        assert_eq!(rig.number(OTHER, "demo.low"), 2, "reset");
        let (_, own) = rig.call(&admin, "GET", "/demo.low", None).await;
        assert_eq!(
            (&own["version"], &own["source"]["scope"]),
            (&json!(2), &json!("system"))
        );
    })
    .await;
}

#[tokio::test]
async fn an_administrator_of_a_tenant_reaches_the_tenant_only() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let set = rig.set(SYSTEM, &[("demo.low", json!(2)), ("demo.wait_s", json!(9))]).await;
        rig.set(DEFAULT, &[("demo.text", json!("of default"))]).await;
        let admin = tenant_admin(OTHER);
        let body = json!({ "changes": [{ "key": "demo.low", "value": 4, "version": 0 }] });
        assert_eq!(rig.call(&admin, "POST", "/changes", Some(body)).await.0, 200);
        assert_eq!((rig.number(OTHER, "demo.low"), rig.number(SYSTEM, "demo.low")), (4, 2));

        let only_system = json!({ "changes": [{ "key": "demo.wait_s", "value": 4, "version": 0 }] });
        let (status, problem) = rig.call(&admin, "POST", "/changes", Some(only_system)).await;
        assert_eq!((status, &problem["errors"][0]["code"]), (400, &json!("scope")));
        for scope in ["system".to_owned(), DEFAULT.to_string()] {
            let body = json!({ "scope": scope, "changes": [{ "key": "demo.low", "value": 4, "version": 0 }] });
            assert_eq!(rig.call(&admin, "POST", "/changes", Some(body)).await.0, 403);
            for path in ["/demo.low", "/demo.low/history", "/changes", "/watch"] {
                let (status, _) = rig.call(&admin, "GET", &format!("{path}?scope={scope}"), None).await;
                assert_eq!(status, 403, "{path}");
            }
        }
        assert_eq!(rig.call(&admin, "GET", "/demo.wait_s", None).await.0, 404, "not for tenants");
        let path = format!("/changes/{}", set.id.unwrap());
        assert_eq!(rig.call(&admin, "GET", &path, None).await.0, 404, "somebody else's set");
        assert_eq!(rig.call(&admin, "POST", &format!("{path}/rollback"), Some(json!({}))).await.0, 404);
        let (_, list) = rig.call(&admin, "GET", "/?prefix=demo", None).await;
        assert!(!list.to_string().contains("of default") && !list.to_string().contains("demo.wait_s"));
        let (_, news) = rig.call(&admin, "GET", "/watch?after=0&wait=0s", None).await;
        assert!(!news.to_string().contains("of default"), "{news}");
        for path in ["/applied", "/configuration", "/secrets"] {
            assert_eq!(rig.call(&admin, "GET", path, None).await.0, 403, "{path}");
        }
        let auditor = person(SYSTEM, &["settings:value:read"], 1);
        for path in ["/applied", "/configuration", "/demo.wait_s"] {
            assert_eq!(rig.call(&auditor, "GET", path, None).await.0, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_exported_comes_back_and_pruning_removes_the_rest() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        rig.set(SYSTEM, &[("demo.low", json!(2)), ("demo.text", json!("x")), ("demo.secret", json!("s"))]).await;
        let (_, export) = rig.ask("POST", "/export", Some(json!({}))).await;
        assert_eq!(export["settings"], json!({ "demo.low": 2, "demo.text": "x" }));
        rig.set(SYSTEM, &[("demo.low", json!(3)), ("demo.on", json!(true))]).await;
        let wish = |dry_run| json!({ "settings": export["settings"], "prune": true, "dry_run": dry_run, "confirm": true });
        let (status, shown) = rig.ask("POST", "/import", Some(wish(true))).await;
        assert_eq!((status, shown["changed"].as_array().unwrap().len()), (200, 2), "{shown}");
        assert_eq!(rig.number(SYSTEM, "demo.low"), 3);
        let (status, _) = rig.ask("POST", "/import", Some(wish(false))).await;
        assert_eq!(status, 200);
        let (_, after) = rig.ask("POST", "/export", Some(json!({}))).await;
        assert_eq!(after["settings"], export["settings"]);
        assert_eq!(after["secrets"], json!(["demo.secret"]), "secrets are never pruned");
        let (_, nothing) = rig.ask("POST", "/import", Some(wish(false))).await;
        assert_eq!((&nothing["changed"], &nothing["id"]), (&json!([]), &json!(null)));
        let wrong = json!({ "settings": { "demo.low": "x", "demo.nothing": 1 } });
        let (status, problem) = rig.ask("POST", "/import", Some(wrong)).await;
        assert_eq!((status, problem["errors"].as_array().unwrap().len()), (404, 2));
    })
    .await;
}
