//! Tenants: two at the start, made, bound to hosts, suspended, resumed, logged out.

use portico_base::id;
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use crate::store;
use crate::store::revocations::Kind;

#[tokio::test]
async fn two_tenants_exist_after_the_first_start_and_the_second() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let again = rig.another(db).await;
        let root = again.super_admin().await;
        let (_, list) = again.get(&root, "/tenants").await;
        let slugs: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["slug"].as_str().unwrap())
            .collect();
        assert_eq!(slugs, ["default", "other", "system"]);
        assert_eq!(
            again.get(&root, "/tenants/default").await.1["id"],
            json!(id::TENANT_DEFAULT)
        );
    })
    .await;
}

#[tokio::test]
async fn a_tenant_is_made_with_hosts_that_nobody_else_has() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let root = rig.super_admin().await;
        rig.audit.take();
        let body =
            json!({ "slug": "acme", "display_name": "Acme", "hosts": ["Login.Acme.example"] });
        let (status, made) = rig.post(&root, "/tenants", body.clone()).await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["hosts"], json!(["login.acme.example"]));
        assert_eq!(
            made["quotas"],
            json!({ "api_keys": 100, "sms_per_day": 1000 })
        );
        assert_eq!(rig.audit.take(), ["identity.tenant.created"]);
        let (status, problem) = rig.post(&root, "/tenants", body).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.slug_taken"))
        );
        let body =
            json!({ "slug": "acme2", "display_name": "Acme", "hosts": ["login.acme.example"] });
        let (status, problem) = rig.post(&root, "/tenants", body).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.host_taken"))
        );
        assert_eq!(rig.get(&root, "/tenants/acme2").await.0, 404);
        let bad = json!({ "slug": "A_", "display_name": " ", "hosts": ["a b", "127.0.0.1"] });
        let (status, problem) = rig.post(&root, "/tenants", bad).await;
        let fields: Vec<String> = faults(&problem).into_iter().map(|f| f.0).collect();
        assert_eq!(
            (status, fields.join(" ").as_str()),
            (400, "slug display_name hosts[0] hosts[1]")
        );
        // A slug cannot be changed, and hosts move.
        let edit = json!({ "slug": "better" });
        assert_eq!(rig.call(&root, "PATCH", "/tenants/acme", edit).await.0, 400);
        let edit = json!({ "hosts": ["id.acme.example"] });
        let (_, shown) = rig.call(&root, "PATCH", "/tenants/acme", edit).await;
        assert_eq!(shown["hosts"], json!(["id.acme.example"]));
        let log = store::revocations::after(db.db.reader(), 0, rig.core.clock.now(), 1_000)
            .await
            .unwrap();
        assert_eq!(log.last().unwrap().kind, Kind::Tenants);
        // Its people are its own.
        let body = json!({ "tenant": "acme", "username": "boss", "roles": ["tenant_admin"] });
        assert_eq!(rig.post(&root, "/users", body).await.0, 201);
        assert_eq!(
            rig.get(&root, "/users?tenant=acme").await.1["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_tenants_administrator_manages_the_own_one_only() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(OTHER).await;
    let (_, list) = rig.get(&admin, "/tenants").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let edit = json!({ "display_name": "Mine" });
    let (status, shown) = rig.call(&admin, "PATCH", "/tenants/other", edit).await;
    assert_eq!(
        (status, shown["display_name"].as_str()),
        (200, Some("Mine"))
    );
    for (method, path, body) in [
        (
            "POST",
            "/tenants",
            json!({ "slug": "mine", "display_name": "Mine" }),
        ),
        ("POST", "/tenants/other/suspend", json!({})),
        ("POST", "/tenants/other/resume", Value::Null),
        (
            "PATCH",
            "/tenants/other",
            json!({ "quotas": { "users": null } }),
        ),
        ("PATCH", "/tenants/other", json!({ "hosts": [] })),
    ] {
        assert_eq!(
            rig.call(&admin, method, path, body).await.0,
            403,
            "{method} {path}"
        );
    }
    let auditor = rig.auditor().await;
    assert_eq!(rig.get(&auditor, "/tenants").await.0, 200);
    assert_eq!(
        rig.call(&auditor, "PATCH", "/tenants/default", json!({}))
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn a_suspended_tenant_is_out_until_it_is_resumed() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let root = rig.super_admin().await;
        rig.audit.take();
        let body = json!({ "reason": "unpaid" });
        let (status, shown) = rig.post(&root, "/tenants/other/suspend", body).await;
        assert_eq!((status, shown["status"].as_str()), (200, Some("suspended")));
        let row = store::tenants::get(db.db.reader(), OTHER)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.te, 2);
        let log = store::revocations::after(db.db.reader(), 0, rig.core.clock.now(), 1_000)
            .await
            .unwrap();
        let mark = log.iter().rfind(|r| r.kind == Kind::Tenant).unwrap();
        assert_eq!(
            (mark.tenant, mark.min, mark.cause.as_str()),
            (OTHER, 2, "suspended")
        );
        let record = rig.audit.all().pop().unwrap();
        assert_eq!(
            (record.action, record.reason.as_deref()),
            ("identity.tenant.suspended", Some("unpaid"))
        );
        // Twice is once.
        assert_eq!(
            rig.post(&root, "/tenants/other/suspend", json!({})).await.0,
            200
        );
        let row = store::tenants::get(db.db.reader(), OTHER)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(row.te, 2);
        let (_, shown) = rig.post(&root, "/tenants/other/resume", Value::Null).await;
        assert_eq!(shown["status"], "active");
        let topics: Vec<String> = rig.events().await.into_iter().map(|e| e.topic).collect();
        assert!(
            topics.ends_with(&[
                "identity.tenant.suspended".to_owned(),
                "identity.tenant.resumed".to_owned()
            ]),
            "{topics:?}"
        );
        // The system itself cannot be suspended.
        let (status, problem) = rig.post(&root, "/tenants/system/suspend", json!({})).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.built_in"))
        );
    })
    .await;
}

#[tokio::test]
async fn everybody_of_a_tenant_is_logged_out_by_its_administrator() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(OTHER).await;
    rig.audit.take();
    assert_eq!(
        rig.post(&admin, "/tenants/other/logout-all", Value::Null)
            .await
            .0,
        204
    );
    let row = store::tenants::get(db.db.reader(), OTHER)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.te, 2);
    assert_eq!(rig.audit.take(), ["identity.tenant.logged_out"]);
    let other = store::tenants::get(db.db.reader(), id::TENANT_DEFAULT)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(other.te, 1);
}

#[tokio::test]
async fn services_are_switched_for_one_tenant() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(OTHER).await;
    let path = "/tenants/other/services";
    let off = json!({ "services": [{ "name": "notes", "enabled": false }] });
    let (status, list) = rig.call(&admin, "PUT", path, off.clone()).await;
    assert_eq!(
        (status, &list["items"][0]["enabled"]),
        (200, &json!(false)),
        "{list}"
    );
    let root = rig.super_admin().await;
    let (_, list) = rig.get(&root, "/tenants/default/services").await;
    assert_eq!(list["items"][0]["enabled"], true);
    // Nothing is switched when one of them cannot be.
    let bad = json!({ "services": [
        { "name": "notes", "enabled": true },
        { "name": "registry", "enabled": false },
        { "name": "nothing", "enabled": false }
    ] });
    let (status, problem) = rig.call(&admin, "PUT", path, bad).await;
    let codes: Vec<String> = faults(&problem).into_iter().map(|f| f.1).collect();
    assert_eq!((status, codes.join(" ").as_str()), (400, "fixed unknown"));
    assert_eq!(rig.get(&admin, path).await.1["items"][0]["enabled"], false);
    assert_eq!(
        rig.call(&admin, "PUT", "/tenants/default/services", off)
            .await
            .0,
        404
    );
}
