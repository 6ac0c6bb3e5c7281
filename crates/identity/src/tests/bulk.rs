//! One thing done with many users, by a job.

use std::sync::Arc;

use portico_base::{Principal, id};
use portico_db::testing::each_backend;
use portico_jobs::Queue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{OTHER, Rig, faults};
use crate::domain::user::UserStatus;
use crate::ops::bulk;

/// Does all queued orders.
async fn work(rig: &Rig) {
    let queue = Queue::new(
        rig.core.db.clone(),
        Arc::clone(&rig.core.clock),
        Arc::clone(&rig.core.random),
        "test",
        [bulk::handler(&rig.core)],
    );
    queue.work_off().await.expect("the queue works");
}

async fn order(rig: &Rig, who: &Principal, body: Value) -> Uuid {
    let (status, made) = rig.post(who, "/users/bulk", body).await;
    assert_eq!(status, 202, "{made}");
    made["batch_id"].as_str().unwrap().parse().unwrap()
}

async fn report(rig: &Rig, who: &Principal, batch: Uuid) -> Value {
    let (status, report) = rig
        .get(who, &format!("/users/bulk/{batch}?limit=200"))
        .await;
    assert_eq!(status, 200, "{report}");
    report
}

#[tokio::test]
async fn each_user_has_a_result_and_a_record() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(rig.user(&format!("person{n}")).await.id);
        }
        let foreign = rig.add_user(OTHER, "foreign", &["user"]).await;
        let mut named = ids.clone();
        named.extend([ids[0], foreign.id, Uuid::max()]);
        let wish = |dry_run: bool| {
            json!({ "order": { "action": "disable", "reason": "spam" }, "ids": named, "dry_run": dry_run })
        };
        let (status, counted) = rig.post(&admin, "/users/bulk", wish(true)).await;
        assert_eq!((status, &counted["count"], &counted["batch_id"]), (200, &json!(8), &Value::Null));
        work(&rig).await;
        assert_eq!(rig.get_user(id::TENANT_DEFAULT, ids[0]).await.status, UserStatus::Active);
        rig.audit.take();
        let batch = order(&rig, &admin, wish(false)).await;
        assert_eq!(report(&rig, &admin, batch).await["finished_at"], Value::Null);
        work(&rig).await;
        let done = report(&rig, &admin, batch).await;
        assert_eq!((&done["done"], &done["failed"]), (&json!(5), &json!(2)), "{done}");
        assert!(done["finished_at"].is_string());
        let failed: Vec<&Value> = done["items"].as_array().unwrap().iter().filter(|r| r["ok"] == false).collect();
        assert!(failed.iter().all(|r| r["code"] == "identity.user_not_found"), "{failed:?}");
        for id in &ids {
            let user = rig.get_user(id::TENANT_DEFAULT, *id).await;
            assert_eq!((user.status, user.disabled_reason.as_deref()), (UserStatus::Disabled, Some("spam")));
        }
        assert_eq!(rig.get_user(OTHER, foreign.id).await, foreign);
        let records = rig.audit.all();
        assert_eq!(records.len(), 6);
        assert!(records.iter().all(|r| r.batch_id == Some(batch)), "{records:?}");
        assert_eq!(rig.audit.count("identity.user.disabled"), 5);
        // It is another tenant's, and those who administer all see it.
        let other = rig.tenant_admin(OTHER).await;
        assert_eq!(rig.get(&other, &format!("/users/bulk/{batch}")).await.0, 404);
        let root = rig.super_admin().await;
        assert_eq!(report(&rig, &root, batch).await["total"], 8);
    })
    .await;
}

#[tokio::test]
async fn a_filter_means_those_who_were_there() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        for n in 0..130 {
            rig.user(&format!("person{n:03}")).await;
        }
        let role = json!({ "name": "writer", "title_zh": "作者", "title_en": "Writer", "permissions": [] });
        assert_eq!(rig.post(&admin, "/roles", role).await.0, 201);
        rig.advance(1);
        let wish = json!({ "order": { "action": "add_role", "role": "writer" }, "filter": { "name": "person" } });
        let batch = order(&rig, &admin, wish).await;
        rig.advance(1);
        let late = rig.user("person999").await;
        work(&rig).await;
        let done = report(&rig, &admin, batch).await;
        assert_eq!((&done["total"], &done["done"]), (&json!(130), &json!(130)), "{done}");
        let (_, page) = rig.get(&admin, "/users?role=writer&limit=200").await;
        assert_eq!(page["items"].as_array().unwrap().len(), 130);
        let (_, shown) = rig.get(&admin, &format!("/users/{}", late.id)).await;
        assert_eq!(shown["roles"], json!(["user"]));
        let wish = json!({ "order": { "action": "remove_role", "role": "writer" }, "filter": { "role": "writer" } });
        order(&rig, &admin, wish).await;
        work(&rig).await;
        let (_, page) = rig.get(&admin, "/users?role=writer").await;
        assert_eq!(page["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn who_lost_a_right_uses_it_no_more() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let second = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let user = rig.user("lilei").await;
    let wish = json!({ "order": { "action": "disable" }, "ids": [user.id] });
    let batch = order(&rig, &second, wish).await;
    let path = format!("/users/{}/disable", second.id.unwrap());
    assert_eq!(rig.post(&admin, &path, json!({})).await.0, 200);
    work(&rig).await;
    let done = report(&rig, &admin, batch).await;
    assert_eq!(
        done["items"][0]["code"], "identity.permission_denied",
        "{done}"
    );
    assert_eq!(rig.get_user(user.tenant, user.id).await, user);
}

#[tokio::test]
async fn an_order_needs_the_right_and_one_kind_of_list() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let some = Uuid::max();
    for bad in [
        json!({ "order": { "action": "enable" } }),
        json!({ "order": { "action": "enable" }, "ids": [some], "filter": {} }),
        json!({ "order": { "action": "enable" }, "ids": vec![some; 1_001] }),
        json!({ "order": { "action": "disable", "until": "2020-01-01T00:00:00Z" }, "ids": [some] }),
        json!({ "order": { "action": "add_role", "role": "nobody" }, "ids": [some] }),
        json!({ "order": { "action": "add_role", "role": "super_admin" }, "ids": [some] }),
        json!({ "order": { "action": "explode" }, "ids": [some] }),
        json!({ "order": { "action": "enable" }, "filter": { "role": "nobody" } }),
    ] {
        let (status, problem) = rig.post(&admin, "/users/bulk", bad.clone()).await;
        assert_eq!(status, 400, "{bad}: {problem}");
        assert!(!faults(&problem).is_empty(), "{problem}");
    }
    let mut clerk = admin.clone();
    clerk.permissions = [crate::permissions::SESSION_WRITE].into();
    let wish = json!({ "order": { "action": "disable" }, "ids": [some] });
    assert_eq!(rig.post(&clerk, "/users/bulk", wish).await.0, 403);
    let user = rig.user("lilei").await;
    clerk.permissions = [
        crate::permissions::SESSION_WRITE,
        crate::permissions::USER_READ,
    ]
    .into();
    let wish = json!({ "order": { "action": "log_out" }, "ids": [user.id] });
    assert_eq!(rig.post(&clerk, "/users/bulk", wish).await.0, 202);
}
