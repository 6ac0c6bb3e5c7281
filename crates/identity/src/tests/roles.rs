//! Roles and grants: built-ins, wildcards, what exceeds one's own, the last super administrator.

use portico_base::{Permission, id};
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use crate::domain::role::Known;
use crate::ops::{plugins, seed};
use crate::store;
use crate::store::revocations::Kind;

fn role(name: &str, permissions: &[&str]) -> Value {
    json!({ "name": name, "title_zh": "角色", "title_en": "Role", "permissions": permissions })
}

#[tokio::test]
async fn built_in_roles_cannot_be_changed() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let root = rig.super_admin().await;
        let (_, list) = rig.get(&root, "/roles?tenant=system").await;
        let items = list["items"].as_array().unwrap();
        let names: Vec<&str> = items.iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["auditor", "super_admin", "tenant_admin", "user"]);
        for item in items {
            let path = format!("/roles/{}", item["id"].as_str().unwrap());
            let edit = json!({ "permissions": [] });
            let (status, problem) = rig.call(&root, "PATCH", &path, edit).await;
            assert_eq!(
                (status, problem["code"].as_str()),
                (409, Some("identity.built_in"))
            );
            assert_eq!(rig.call(&root, "DELETE", &path, Value::Null).await.0, 409);
        }
        // A tenant does not see what cannot be held there.
        let admin = rig.tenant_admin(OTHER).await;
        let (_, list) = rig.get(&admin, "/roles").await;
        assert!(!list.to_string().contains("super_admin"), "{list}");
        // A custom role does not take a built-in name.
        let (status, problem) = rig.post(&admin, "/roles", role("user", &[])).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.role_taken"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_custom_role_holds_what_its_maker_holds() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(OTHER).await;
        let (status, made) = rig
            .post(
                &admin,
                "/roles",
                role("clerk", &["identity:user:read", "identity:user:read"]),
            )
            .await;
        assert_eq!(status, 201, "{made}");
        assert_eq!(made["permissions"], json!(["identity:user:read"]));
        assert_eq!(made["tenant_id"], json!(OTHER));
        let bad = role(
            "Bad",
            &[
                "x",
                "identity:*:read",
                "identity:nothing:read",
                "identity:keys:rotate",
                "identity:*",
            ],
        );
        let (status, problem) = rig.post(&admin, "/roles", bad).await;
        assert_eq!(status, 400, "{problem}");
        let codes: Vec<String> = faults(&problem).into_iter().map(|f| f.1).collect();
        assert_eq!(
            codes,
            [
                "form", "form", "wildcard", "unknown", "not_here", "not_here"
            ]
        );
        // Whoever may make roles and holds nothing else cannot make one that allows more.
        let (status, _) = rig
            .post(
                &admin,
                "/roles",
                role("keeper", &["identity:role:*", "identity:user:read"]),
            )
            .await;
        assert_eq!(status, 201);
        let keeper = rig.add_user(OTHER, "keeper", &["keeper"]).await;
        let keeper = rig.principal(&keeper).await;
        let (status, problem) = rig
            .post(&keeper, "/roles", role("boss", &["identity:user:write"]))
            .await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (403, Some("identity.grant_exceeds_own"))
        );
        let user = rig.add_user(OTHER, "someone", &["user"]).await;
        let path = format!("/users/{}/roles", user.id);
        let (status, _) = rig
            .call(&keeper, "PUT", &path, json!({ "roles": ["tenant_admin"] }))
            .await;
        assert_eq!(status, 403);
        let (status, set) = rig
            .call(&keeper, "PUT", &path, json!({ "roles": ["user", "clerk"] }))
            .await;
        assert_eq!(status, 200, "{set}");
        // Nor change or remove one that allows more than they may.
        let boss = rig
            .post(&admin, "/roles", role("boss", &["identity:user:write"]))
            .await
            .1;
        let boss = format!("/roles/{}", boss["id"].as_str().unwrap());
        assert_eq!(
            rig.call(&keeper, "PATCH", &boss, json!({ "permissions": [] }))
                .await
                .0,
            403
        );
        assert_eq!(rig.call(&keeper, "DELETE", &boss, Value::Null).await.0, 403);
        // It is another tenant's.
        let foreign = rig.tenant_admin(id::TENANT_DEFAULT).await;
        assert_eq!(rig.get(&foreign, &boss).await.0, 404);
        assert_eq!(
            rig.call(&foreign, "DELETE", &boss, Value::Null).await.0,
            404
        );
    })
    .await;
}

#[tokio::test]
async fn super_administrators_are_of_the_system_only() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let root = rig.super_admin().await;
    let user = rig.user("lilei").await;
    let path = format!("/users/{}/roles", user.id);
    let (status, problem) = rig
        .call(&root, "PUT", &path, json!({ "roles": ["super_admin"] }))
        .await;
    assert_eq!((status, faults(&problem)[0].1.as_str()), (400, "not_here"));
    let body = json!({ "tenant": "system", "username": "second", "roles": ["super_admin"] });
    let (status, made) = rig.post(&root, "/users", body).await;
    assert_eq!(
        (status, &made["roles"]),
        (201, &json!(["super_admin", "user"]))
    );
}

#[tokio::test]
async fn a_changed_role_tells_edges_and_changed_grants_make_tokens_stale() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let (_, made) = rig
            .post(&admin, "/roles", role("clerk", &["identity:user:read"]))
            .await;
        let path = format!("/roles/{}", made["id"].as_str().unwrap());
        let user = rig.user("lilei").await;
        let grants = format!("/users/{}/roles", user.id);
        rig.audit.take();
        let both = json!({ "roles": ["user", "clerk"] });
        assert_eq!(rig.call(&admin, "PUT", &grants, both.clone()).await.0, 200);
        let row = rig.get_user(user.tenant, user.id).await;
        assert_eq!(row.tv, user.tv + 1);
        // The same again changes nothing.
        assert_eq!(rig.call(&admin, "PUT", &grants, both).await.0, 200);
        assert_eq!(rig.get_user(user.tenant, user.id).await.tv, row.tv);
        let edit = json!({ "permissions": ["identity:session:*"] });
        assert_eq!(rig.call(&admin, "PATCH", &path, edit).await.0, 200);
        assert_eq!(rig.get_user(user.tenant, user.id).await.tv, row.tv);
        assert_eq!(
            rig.audit.take(),
            ["identity.user.roles_changed", "identity.role.changed"]
        );
        let log = store::revocations::after(db.db.reader(), 0, rig.core.clock.now(), 1_000)
            .await
            .unwrap();
        let last: Vec<(Kind, &str)> = log
            .iter()
            .rev()
            .take(2)
            .map(|r| (r.kind, r.cause.as_str()))
            .collect();
        assert_eq!(last, [(Kind::Roles, "changed"), (Kind::User, "claims")]);
        // Deleting it takes it away from everybody.
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        let (_, left) = rig.get(&admin, &grants).await;
        assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
        assert_eq!(rig.get_user(user.tenant, user.id).await.tv, row.tv + 1);
        assert_eq!(rig.get(&admin, &path).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_makes_at_most_a_hundred_roles() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(OTHER).await;
    for n in 0..100 {
        let (status, _) = rig
            .post(&admin, "/roles", role(&format!("role{n}"), &[]))
            .await;
        assert_eq!(status, 201);
    }
    let (status, problem) = rig.post(&admin, "/roles", role("more", &[])).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (409, Some("identity.quota_exceeded"))
    );
    assert_eq!(
        (&problem["quota"], &problem["limit"]),
        (&json!("roles"), &json!(100))
    );
}

#[tokio::test]
async fn the_last_super_administrator_stays() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let first = rig.super_admin().await;
        let second = rig.super_admin().await;
        // A plain user of the system counts for nothing.
        rig.add_user(id::TENANT_SYSTEM, "bystander", &["user"])
            .await;
        let tries = (0..20).map(|n| {
            let (actor, target) = if n % 2 == 0 {
                (&first, &second)
            } else {
                (&second, &first)
            };
            let path = format!("/users/{}", target.id.unwrap());
            let rig = &rig;
            async move {
                match n % 3 {
                    0 => rig.post(actor, &format!("{path}/disable"), json!({})).await,
                    1 => rig.call(actor, "DELETE", &path, Value::Null).await,
                    _ => {
                        let body = json!({ "roles": ["user"] });
                        rig.call(actor, "PUT", &format!("{path}/roles"), body).await
                    }
                }
            }
        });
        let answers = futures_util::future::join_all(tries).await;
        let role = crate::domain::role::built_in_id("super_admin").unwrap();
        let left = store::roles::count_holders(db.db.reader(), id::TENANT_SYSTEM, role, "active")
            .await
            .unwrap();
        assert_eq!(left, 1, "{answers:?}");
        let refused = answers
            .iter()
            .filter(|(_, p)| p["code"] == "identity.last_admin")
            .count();
        assert!(refused > 0, "{answers:?}");
        assert!(answers.iter().all(|(s, _)| *s < 500), "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn permissions_of_plug_ins_can_be_granted_once_they_are_declared() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(OTHER).await;
        let wish = role("writer", &["notes:note:write"]);
        assert_eq!(rig.post(&admin, "/roles", wish.clone()).await.0, 400);
        let declared = ["notes:note:write", "gateway:route:write"];
        let known: Vec<Known> = declared
            .iter()
            .filter_map(|name| Known::plugin("notes", &Permission::parse(name).unwrap()))
            .collect();
        seed::plugins(&rig.core, known.clone()).await.unwrap();
        // The administrator of the tenant holds it now; nothing else has grown.
        let admin = rig.tenant_admin(OTHER).await;
        assert!(admin.may(&Permission::new("notes:note:write")));
        assert!(!admin.may(&Permission::new("gateway:route:write")));
        assert!(!admin.may(&crate::permissions::KEYS_ROTATE));
        assert_eq!(rig.post(&admin, "/roles", wish).await.0, 201);
        let (_, list) = rig.get(&admin, "/permissions").await;
        assert!(list.to_string().contains("notes:note:write"), "{list}");
        assert!(!list.to_string().contains("identity:keys:rotate"), "{list}");
        let root = rig.super_admin().await;
        assert!(
            rig.get(&root, "/permissions")
                .await
                .1
                .to_string()
                .contains("identity:keys:rotate")
        );
        // The same again writes nothing, and a restart does not forget it.
        let seq = db
            .db
            .current_seq(store::revocations::COUNTER)
            .await
            .unwrap();
        seed::plugins(&rig.core, known).await.unwrap();
        let again = rig.another(db).await;
        assert_eq!(
            db.db
                .current_seq(store::revocations::COUNTER)
                .await
                .unwrap(),
            seq
        );
        assert!(
            again
                .tenant_admin(OTHER)
                .await
                .may(&Permission::new("notes:note:write"))
        );
    })
    .await;
}

#[tokio::test]
async fn plug_ins_tell_what_is_theirs_through_the_registry() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    rig.services.declared.lock().extend([
        Permission::new("notes:note:read"),
        Permission::new("identity:keys:rotate"),
        Permission::new("notes:*:write"),
    ]);
    let names: Vec<String> = plugins::declared(&rig.core)
        .into_iter()
        .map(|known| known.name.to_string())
        .collect();
    assert_eq!(names, ["notes:note:read"]);
}

#[tokio::test]
async fn a_simulated_check_says_through_which_role() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let boss = rig
        .add_user(id::TENANT_DEFAULT, "boss", &["tenant_admin", "user"])
        .await;
    let ask = async |permission: &str| {
        let body = json!({ "user_id": boss.id, "permission": permission });
        rig.post(&admin, "/roles/simulate", body).await
    };
    let (status, answer) = ask("identity:user:write").await;
    assert_eq!((status, &answer["allowed"]), (200, &json!(true)));
    assert_eq!(answer["through"][0]["role"], "tenant_admin");
    assert_eq!(
        ask("identity:keys:rotate").await.1["refused"],
        "identity.permission_denied"
    );
    assert_eq!(ask("nonsense").await.0, 400);
    let path = format!("/users/{}/disable", boss.id);
    rig.post(&admin, &path, json!({})).await;
    assert_eq!(
        ask("identity:user:write").await.1["refused"],
        "identity.account_disabled"
    );
}
