//! API keys: what they may do, how soon they end, and how often the database is asked (ID-130…136).

use std::sync::Arc;

use portico_base::{Permission, Principal, PrincipalKind, id};
use portico_contract::credentials::CredentialSource as _;
use portico_contract::tenants::TenantStatus;
use portico_db::testing::{TestDb, each_backend};
use portico_token::api_key::{Realm, make};
use serde_json::{Value, json};
use uuid::Uuid;

use super::rig::{ADDRESS, OTHER, Rig, faults};
use crate::domain::role::{Role, TENANT_ADMIN};
use crate::domain::user::User;
use crate::keyring::Keyring;
use crate::ops::api_keys;
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// What the door does with a key.
async fn present(ring: &Keyring, key: &str) -> Option<Arc<Principal>> {
    if let Some(found) = ring.find(key) {
        return Some(found);
    }
    ring.load(key)?.await;
    ring.find(key)
}

fn ring(rig: &Rig) -> Arc<Keyring> {
    let clock = Arc::clone(&rig.core.clock);
    let ring = Keyring::new(rig.core.db.clone(), clock, &rig.metrics);
    let hearing = Arc::clone(&ring);
    rig.core.edge.listen(Arc::new(move |r| hearing.hear(r)));
    ring
}

fn text(made: &Value) -> String {
    made["key"].as_str().expect("a key").to_owned()
}

/// A user who may do something, by a role of the tenant.
async fn dj(rig: &Rig, name: &str) -> User {
    let conn = rig.core.db.reader();
    let roles = store::roles::of_tenant(conn, id::TENANT_DEFAULT)
        .await
        .expect("roles");
    if !roles.iter().any(|r| r.name == "dj") {
        let now = rig.core.clock.now();
        let role = Role {
            id: Uuid::from_u128(0xd1),
            tenant: Some(id::TENANT_DEFAULT),
            name: "dj".to_owned(),
            title_zh: String::new(),
            title_en: String::new(),
            permissions: ["music:playlist:*", "music:track:read"]
                .map(Permission::new)
                .to_vec(),
            built_in: false,
            created_at: now,
            updated_at: now,
        };
        let tx = rig.core.db.begin().await.expect("a transaction");
        store::roles::insert(&tx, &role).await.expect("a role");
        tx.commit().await.expect("a commit");
    }
    rig.add_user(id::TENANT_DEFAULT, name, &["user", "dj"])
        .await
}

async fn life_of_a_key(db: &TestDb) {
    let rig = Rig::new(db).await;
    let ring = ring(&rig);
    let anna = dj(&rig, "anna").await;
    let who = rig.principal(&anna).await;
    let wish = json!({
        "name": "build server", "scopes": ["music:*"], "services": ["music"],
        "cidrs": ["203.0.113.0/24"], "per_s": 5.0,
    });
    // All of `music` is more than she may.
    let (status, problem) = rig.post(&who, "/me/api-keys", wish.clone()).await;
    assert_eq!(
        (status, &problem["code"]),
        (403, &json!("identity.grant_exceeds_own"))
    );
    assert_eq!(problem["permissions"], json!(["music:*:*"]));
    let mut wish = wish;
    wish["scopes"] = json!(["music:playlist:read"]);
    let (status, made) = rig.post(&who, "/me/api-keys", wish).await;
    assert_eq!(status, 201, "{made}");
    let key = text(&made);
    assert!(key.starts_with(made["prefix"].as_str().expect("a prefix")));
    let days = chrono::Duration::days(90);
    assert_eq!(made["expires_at"], json!(rig.core.clock.now() + days));
    let (_, list) = rig.get(&who, "/me/api-keys").await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert!(
        !list.to_string().contains(&key[22..]),
        "a secret is shown once"
    );
    assert!(!format!("{:?}", rig.audit.all()).contains(&key[22..]));

    let found = present(&ring, &key).await.expect("the key is good");
    assert_eq!(
        (found.kind, found.aal, found.tenant),
        (PrincipalKind::ApiKey, 1, id::TENANT_DEFAULT)
    );
    assert_eq!((found.owner, found.user()), (Some(anna.id), Some(anna.id)));
    assert_eq!(
        &*found.permissions,
        [Permission::new("music:playlist:read")]
    );
    assert_eq!(
        &*found.roles,
        ["user"],
        "less than the role is not the role"
    );
    let bounds = ring.bounds(&found).expect("limits");
    assert!(bounds.admits(Some(ADDRESS)) && !bounds.admits(Some([198, 51, 100, 1].into())));
    assert!(bounds.reaches("music") && !bounds.reaches("video"));
    assert_eq!(bounds.per_s, Some(5.0));

    ring.used(&found, Some(ADDRESS));
    ring.used(&found, Some([198, 51, 100, 1].into()));
    assert_eq!(ring.flush().await.expect("it is written"), 1);
    rig.advance(30);
    ring.used(&found, None);
    assert_eq!(
        ring.flush().await.expect("it is written"),
        0,
        "at most once a minute"
    );
    let (_, list) = rig.get(&who, "/me/api-keys").await;
    assert_eq!(list["items"][0]["last_used_ip"], ADDRESS.to_string());

    let path = format!("/me/api-keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(rig.call(&who, "DELETE", &path, Value::Null).await.0, 204);
    assert!(
        present(&ring, &key).await.is_none(),
        "it is refused at once"
    );
    assert!(!ring.bounds(&found).expect("closed").admits(Some(ADDRESS)));
    assert_eq!(rig.call(&who, "DELETE", &path, Value::Null).await.0, 404);
    assert_eq!(
        rig.audit.take(),
        ["identity.api_key.created", "identity.api_key.revoked"]
    );
}

#[tokio::test]
async fn a_key_is_made_used_and_revoked() {
    each_backend(life_of_a_key).await;
}

async fn shrinking(db: &TestDb) {
    let rig = Rig::new(db).await;
    let ring = ring(&rig);
    let anna = dj(&rig, "anna").await;
    let who = rig.principal(&anna).await;
    let wish = json!({"name": "k", "scopes": ["music:playlist:*", "music:track:read"]});
    let (_, made) = rig.post(&who, "/me/api-keys", wish).await;
    let key = text(&made);
    let found = present(&ring, &key).await.expect("good");
    assert_eq!(
        (found.permissions.len(), &*found.roles),
        (2, ["dj", "user"].map(str::to_owned).as_slice())
    );
    let cx = rig.core.own_context("test");

    // The role shrinks.
    let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
    let mut role = store::roles::of_user(&unit.tx, anna.id)
        .await
        .expect("roles")
        .into_iter()
        .find(|r| r.name == "dj")
        .expect("the role");
    role.permissions
        .retain(|p| p.as_str() == "music:track:read");
    store::roles::put(&unit.tx, &role).await.expect("written");
    unit.revoke(Kind::Roles, id::TENANT_DEFAULT, "dj", 0, "changed")
        .await
        .expect("told");
    unit.commit().await.expect("a commit");
    let found = present(&ring, &key).await.expect("good");
    assert_eq!(&*found.permissions, [Permission::new("music:track:read")]);

    // The owner loses the role.
    let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
    store::roles::ungrant(&unit.tx, anna.id, role.id)
        .await
        .expect("taken");
    unit.revoke(Kind::User, anna.tenant, &anna.id.to_string(), 2, "claims")
        .await
        .expect("told");
    unit.commit().await.expect("a commit");
    let found = present(&ring, &key).await.expect("good for nothing");
    assert!(found.permissions.is_empty());

    // The tenant is suspended for a while.
    for (status, good) in [
        (TenantStatus::Suspended, false),
        (TenantStatus::Active, true),
    ] {
        let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
        let mut tenant = store::tenants::get(&unit.tx, anna.tenant)
            .await
            .expect("the database answers")
            .expect("the tenant");
        tenant.status = status;
        store::tenants::put(&unit.tx, &tenant)
            .await
            .expect("written");
        let subject = anna.tenant.to_string();
        unit.revoke(Kind::Tenants, anna.tenant, &subject, 0, "status")
            .await
            .expect("told");
        unit.commit().await.expect("a commit");
        rig.advance(10);
        assert_eq!(present(&ring, &key).await.is_some(), good, "{status:?}");
    }

    // The owner is disabled.
    let unit = Unit::begin(&rig.core, &cx).await.expect("a unit");
    let mut row = rig.get_user(anna.tenant, anna.id).await;
    row.status = crate::domain::user::UserStatus::Disabled;
    store::users::put(&unit.tx, &row).await.expect("written");
    unit.revoke(Kind::User, anna.tenant, &anna.id.to_string(), 3, "disabled")
        .await
        .expect("told");
    unit.commit().await.expect("a commit");
    assert!(
        present(&ring, &key).await.is_none(),
        "keys of a disabled owner are dead"
    );
}

#[tokio::test]
async fn a_key_is_never_more_than_its_owner() {
    each_backend(shrinking).await;
}

async fn rotating(db: &TestDb) {
    let rig = Rig::new(db).await;
    let ring = ring(&rig);
    let who = rig.principal(&rig.user("anna").await).await;
    let (_, made) = rig.post(&who, "/me/api-keys", json!({"name": "k"})).await;
    let old = text(&made);
    assert!(present(&ring, &old).await.is_some());
    let path = format!(
        "/me/api-keys/{}/rotate",
        made["id"].as_str().expect("an id")
    );
    let (status, problem) = rig.post(&who, &path, json!({"overlap_s": 604_801})).await;
    assert_eq!((status, faults(&problem)[0].0.as_str()), (400, "overlap_s"));
    let (status, rotated) = rig.post(&who, &path, json!({"overlap_s": 3_600})).await;
    assert_eq!(status, 200, "{rotated}");
    let new = text(&rotated);
    assert_ne!(old, new);
    assert!(present(&ring, &old).await.is_some() && present(&ring, &new).await.is_some());
    rig.advance(3_601);
    assert!(present(&ring, &old).await.is_none() && present(&ring, &new).await.is_some());
    // Without an overlap the old one is dead at once, whatever was remembered.
    let (_, third) = rig.post(&who, &path, json!({})).await;
    assert!(present(&ring, &new).await.is_none() && present(&ring, &text(&third)).await.is_some());
    rig.advance(90 * 86_400);
    assert!(
        present(&ring, &text(&third)).await.is_none(),
        "it has expired"
    );
    let (status, problem) = rig.post(&who, &path, json!({})).await;
    assert_eq!((status, &problem["code"]), (410, &json!("identity.gone")));
}

#[tokio::test]
async fn two_secrets_are_good_while_a_key_is_rotated() {
    each_backend(rotating).await;
}

#[tokio::test]
async fn the_database_is_asked_once_a_minute_and_not_for_nonsense() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let ring = ring(&rig);
    let who = rig.principal(&rig.user("anna").await).await;
    let (_, made) = rig.post(&who, "/me/api-keys", json!({"name": "k"})).await;
    let key = text(&made);
    assert!(present(&ring, &key).await.is_some());
    assert!(
        ring.load(&key).is_none(),
        "what is remembered is not read again"
    );
    // A wrong secret of a known key, and a wrong checksum, cost no read.
    let foreign = make(Realm::Live, &*rig.core.random);
    let mixed = portico_token::api_key::with_id(Realm::Live, &key[9..21], &*rig.core.random);
    assert!(ring.find(mixed.text.expose()).is_none() && ring.load(mixed.text.expose()).is_none());
    let mut mistyped = key.clone();
    mistyped.replace_range(30..31, if &key[30..31] == "a" { "b" } else { "a" });
    assert!(ring.find(&mistyped).is_none() && ring.load(&mistyped).is_none());
    let sandbox = make(Realm::Test, &*rig.core.random);
    assert!(ring.load(sandbox.text.expose()).is_none());
    // An unknown one is remembered for ten seconds.
    assert!(present(&ring, foreign.text.expose()).await.is_none());
    assert!(ring.load(foreign.text.expose()).is_none());
    rig.advance(10);
    assert!(ring.load(foreign.text.expose()).is_some());
    rig.advance(50);
    assert!(ring.find(&key).is_none(), "after a minute it is read again");
    assert!(present(&ring, &key).await.is_some());
    // A flood of unknown keys stays within bounds and drives no known one out.
    for _ in 0..5_000 {
        let flood = make(Realm::Live, &*rig.core.random);
        assert!(present(&ring, flood.text.expose()).await.is_none());
    }
    assert!(ring.find(&key).is_some());
    assert!(ring.absent() <= 4_096);
    // While the database is away, a known key goes on.
    rig.advance(60);
    db.db.close().await;
    assert!(present(&ring, &key).await.is_some());
    rig.advance(600);
    assert!(present(&ring, &key).await.is_none());
}

async fn administering(db: &TestDb) {
    let rig = Rig::new(db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let foreign = rig.tenant_admin(OTHER).await;
    let auditor = rig.auditor().await;
    let anna = rig.user("anna").await;
    let wish = |owner: Uuid| json!({"name": "k", "owner_user_id": owner});
    let (status, made) = rig.post(&admin, "/api-keys", wish(anna.id)).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["owner_user_id"], &made["created_by"]),
        (&json!(anna.id), &json!(*admin.subject))
    );
    let path = format!("/api-keys/{}", made["id"].as_str().expect("an id"));
    assert_eq!(rig.get(&admin, &path).await.0, 200);
    assert_eq!(rig.get(&auditor, &path).await.0, 403);
    for (method, path, body) in [
        ("GET", path.clone(), Value::Null),
        ("PATCH", path.clone(), json!({"name": "x"})),
        ("DELETE", path.clone(), Value::Null),
        ("POST", format!("{path}/rotate"), json!({})),
        ("POST", "/api-keys".to_owned(), wish(anna.id)),
        ("GET", format!("/users/{}/api-keys", anna.id), Value::Null),
    ] {
        let (status, answer) = rig.call(&foreign, method, &path, body).await;
        assert_eq!(status, 404, "{method} {path}: {answer}");
    }
    let (_, list) = rig.get(&foreign, "/api-keys").await;
    assert_eq!(list["items"], json!([]));
    let (_, list) = rig
        .get(&admin, &format!("/users/{}/api-keys", anna.id))
        .await;
    assert_eq!(list["items"][0]["id"], made["id"]);
    let ben = rig.user("ben").await;
    let ben = rig.principal(&ben).await;
    let own = format!("/me{path}");
    assert_eq!(
        rig.call(&ben, "DELETE", &own, Value::Null).await.0,
        404,
        "another user's"
    );
}

async fn changing(db: &TestDb) {
    let rig = Rig::new(db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let anna = rig.user("anna").await;
    let wish = |owner: Uuid| json!({"name": "k", "owner_user_id": owner});
    let (_, made) = rig.post(&admin, "/api-keys", wish(anna.id)).await;
    let path = format!("/api-keys/{}", made["id"].as_str().expect("an id"));
    // All faults of a change are told, and what is absent stays.
    let bad =
        json!({"name": "", "scopes": ["x"], "cidrs": ["y"], "expires_at": "2100-01-01T00:00:00Z"});
    let (status, problem) = rig.call(&admin, "PATCH", &path, bad).await;
    assert_eq!(status, 400);
    let fields: Vec<String> = faults(&problem)
        .into_iter()
        .map(|(field, _)| field)
        .collect();
    assert_eq!(fields, ["name", "expires_at", "scopes[0]", "cidrs[0]"]);
    let change = json!({"cidrs": ["203.0.113.9"], "per_s": 2.5});
    let (status, changed) = rig.call(&admin, "PATCH", &path, change).await;
    assert_eq!(
        (status, &changed["cidrs"], &changed["per_s"]),
        (200, &json!(["203.0.113.9/32"]), &json!(2.5))
    );
    let (_, changed) = rig
        .call(&admin, "PATCH", &path, json!({"per_s": null}))
        .await;
    assert_eq!(
        (&changed["cidrs"], &changed["per_s"]),
        (&json!(["203.0.113.9/32"]), &Value::Null)
    );

    // A key manages no keys, whatever its scopes say.
    let key = Principal {
        kind: PrincipalKind::ApiKey,
        aal: 1,
        ..admin.clone()
    };
    for (method, path, body) in [
        ("POST", "/api-keys".to_owned(), wish(anna.id)),
        ("PATCH", path.clone(), json!({"name": "x"})),
        ("DELETE", path.clone(), Value::Null),
        ("POST", format!("{path}/rotate"), json!({})),
        ("GET", "/me/api-keys".to_owned(), Value::Null),
        ("POST", "/me/api-keys".to_owned(), json!({"name": "k"})),
    ] {
        let (status, problem) = rig.call(&key, method, &path, body).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("identity.not_for_keys")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn a_key_is_changed_by_people_only() {
    each_backend(changing).await;
}

#[tokio::test]
async fn administrators_manage_the_keys_of_their_tenant_only() {
    each_backend(administering).await;
}

#[tokio::test]
async fn nobody_hands_out_more_than_they_have() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    // Somebody who manages keys and nothing else must not get at an administrator's by rotating it.
    let boss = rig
        .add_user(id::TENANT_DEFAULT, "boss", &[TENANT_ADMIN])
        .await;
    let strong = rig.principal(&boss).await;
    let wish = json!({"name": "k", "scopes": ["identity:user:read"]});
    let (status, made) = rig.post(&strong, "/me/api-keys", wish).await;
    assert_eq!(status, 201, "{made}");
    let path = format!("/api-keys/{}", made["id"].as_str().expect("an id"));
    let helper = rig.user("helper").await;
    let helper = Principal {
        permissions: Arc::from([
            Permission::new("identity:api_key:read"),
            Permission::new("identity:api_key:write"),
        ]),
        ..rig.principal(&helper).await
    };
    for (method, path, body) in [
        ("POST", format!("{path}/rotate"), json!({})),
        ("PATCH", path.clone(), json!({"cidrs": []})),
        (
            "POST",
            "/api-keys".to_owned(),
            json!({"name": "k", "owner_user_id": boss.id, "scopes": ["identity:user:read"]}),
        ),
    ] {
        let (status, problem) = rig.call(&helper, method, &path, body).await;
        assert_eq!(
            (status, &problem["code"]),
            (403, &json!("identity.grant_exceeds_own")),
            "{method} {path}"
        );
    }
    // Ending it is always allowed.
    assert_eq!(rig.call(&helper, "DELETE", &path, Value::Null).await.0, 204);
    db.finish().await;
}

async fn quotas(db: &TestDb) {
    let rig = Rig::new(db).await;
    let mut tenant = store::tenants::get(db.db.reader(), id::TENANT_DEFAULT)
        .await
        .expect("the database answers")
        .expect("the tenant");
    tenant.quotas.api_keys = 3;
    let tx = db.db.begin().await.expect("a transaction");
    store::tenants::put(&tx, &tenant).await.expect("written");
    tx.commit().await.expect("a commit");
    let who = rig.principal(&rig.user("anna").await).await;
    let one = || rig.post(&who, "/me/api-keys", json!({"name": "k"}));
    let made = futures_util::future::join_all((0..6).map(|_| one())).await;
    let good = made.iter().filter(|(status, _)| *status == 201).count();
    assert_eq!(good, 3, "{made:?}");
    let (status, full) = made
        .iter()
        .find(|(status, _)| *status != 201)
        .expect("a refusal");
    assert_eq!(
        (*status, &full["code"]),
        (409, &json!("identity.quota_exceeded"))
    );
    assert_eq!(
        (&full["quota"], &full["limit"]),
        (&json!("api_keys"), &json!(3))
    );
    // A revoked one makes room.
    let id = made
        .iter()
        .find_map(|(_, body)| body["id"].as_str())
        .expect("an id");
    assert_eq!(
        rig.call(&who, "DELETE", &format!("/me/api-keys/{id}"), Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(one().await.0, 201);
    // One user alone does not use up what all share.
    tenant.quotas.api_keys = 100;
    let tx = db.db.begin().await.expect("a transaction");
    store::tenants::put(&tx, &tenant).await.expect("written");
    tx.commit().await.expect("a commit");
    for _ in 3..20 {
        assert_eq!(one().await.0, 201);
    }
    assert_eq!(one().await.1["quota"], "own_api_keys");
}

#[tokio::test]
async fn a_tenant_has_so_many_keys_and_no_more() {
    each_backend(quotas).await;
}

async fn notices(db: &TestDb) {
    let rig = Rig::new(db).await;
    let who = rig.principal(&rig.user("anna").await).await;
    let (_, made) = rig.post(&who, "/me/api-keys", json!({"name": "k"})).await;
    let told = async || api_keys::notice(&rig.core).await.expect("they are told");
    assert_eq!(told().await, 0);
    rig.advance(83 * 86_400 + 1);
    assert_eq!((told().await, told().await), (1, 0), "once a key");
    let events = rig.events().await;
    let event = events
        .iter()
        .find(|e| e.topic == "identity.api_key.expiring")
        .expect("an event");
    assert_eq!(event.key, made["id"].as_str().expect("an id"));
}

#[tokio::test]
async fn keys_that_end_soon_are_told_of_once() {
    each_backend(notices).await;
}

#[tokio::test]
async fn pages_of_keys_follow_each_other() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let who = rig.principal(&rig.user("anna").await).await;
    for n in 0..5 {
        rig.advance(1);
        let (status, _) = rig
            .post(&who, "/me/api-keys", json!({"name": format!("k{n}")}))
            .await;
        assert_eq!(status, 201);
    }
    let mut names = Vec::new();
    let mut path = "/me/api-keys?limit=2".to_owned();
    loop {
        let (_, page) = rig.get(&who, &path).await;
        let items = page["items"].as_array().expect("items");
        names.extend(
            items
                .iter()
                .map(|k| k["name"].as_str().expect("a name").to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/me/api-keys?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["k4", "k3", "k2", "k1", "k0"]);
    db.finish().await;
}
