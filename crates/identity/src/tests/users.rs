//! Users: unique names, quota, life, search, masking.

use portico_base::{Principal, PrincipalKind, Timestamp, id};
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::rig::{OTHER, Rig, faults};
use crate::domain::user::{User, UserStatus};
use crate::store;
use crate::store::revocations::Kind;
use crate::store::user_list::{self, Key, Search};

async fn made(rig: &Rig, who: &Principal, body: Value) -> Value {
    let (status, user) = rig.post(who, "/users", body).await;
    assert_eq!(status, 201, "{user}");
    user
}

fn id_of(user: &Value) -> uuid::Uuid {
    user["id"].as_str().unwrap().parse().unwrap()
}

fn names(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|u| u["username"].as_str().unwrap_or("-"))
        .collect()
}

#[tokio::test]
async fn a_user_is_made_with_the_role_of_everybody() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        rig.audit.take();
        let body = json!({
            "username": "Li.Lei", "email": "Li@Example.com", "phone": "138 1234 5678",
            "display_name": " 李雷 ", "locale": "en", "time_zone": "Europe/Paris"
        });
        let user = made(&rig, &admin, body).await;
        assert_eq!(user["roles"], json!(["user"]));
        assert_eq!(user["display_name"], "李雷");
        assert_eq!(user["status"], "active");
        // Masked even for whoever made it.
        assert_eq!(user["phone"], "138****5678");
        assert_eq!(user["email"], "L***@Example.com");
        assert_eq!(rig.audit.take(), ["identity.user.created"]);
        let events = rig.events().await;
        let last = events.last().unwrap();
        assert_eq!(last.topic, "identity.user.created");
        assert_eq!(last.payload["user_id"], user["id"]);
        assert!(
            !last.payload.to_string().contains("138"),
            "{}",
            last.payload
        );
        let row = rig.get_user(id::TENANT_DEFAULT, id_of(&user)).await;
        assert_eq!(row.phone.as_deref(), Some("+8613812345678"));
        assert_eq!(row.email.as_deref(), Some("Li@Example.com"));
    })
    .await;
}

#[tokio::test]
async fn all_faults_of_a_new_user_are_told() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let body = json!({
        "username": "-", "email": "nonsense", "phone": "12", "locale": "fr",
        "time_zone": "../etc", "display_name": "a\nb"
    });
    let (status, problem) = rig.post(&admin, "/users", body).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (400, Some("identity.invalid"))
    );
    let mut fields: Vec<String> = faults(&problem).into_iter().map(|f| f.0).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "display_name",
            "email",
            "locale",
            "phone",
            "time_zone",
            "username"
        ]
    );
    let (status, problem) = rig.post(&admin, "/users", json!({})).await;
    assert_eq!((status, faults(&problem)[0].1.as_str()), (400, "required"));
    let body = json!({ "username": "abc", "roles": ["nobody", "super_admin"] });
    let (status, problem) = rig.post(&admin, "/users", body).await;
    let codes: Vec<String> = faults(&problem).into_iter().map(|f| f.1).collect();
    assert_eq!(
        (status, codes.join(" ").as_str()),
        (400, "unknown not_here")
    );
    // Mass assignment: what is no field of the wish is refused.
    let body = json!({ "username": "abc", "tv": 9 });
    assert_eq!(rig.post(&admin, "/users", body).await.0, 400);
}

#[tokio::test]
async fn names_are_unique_within_a_tenant_until_their_user_is_deleted() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let body = json!({ "username": "Straße", "email": "a@b.cn", "phone": "13812345678" });
        let first = made(&rig, &admin, body).await;
        for (field, value) in [
            ("username", "STRASSE"),
            ("email", "A@B.CN"),
            ("phone", "+86 138 1234 5678"),
        ] {
            let (status, problem) = rig.post(&admin, "/users", json!({ field: value })).await;
            assert_eq!(status, 409, "{problem}");
            assert_eq!(problem["code"], format!("identity.{field}_taken"));
            assert_eq!(problem["field"], field);
        }
        // Another tenant has its own names.
        let other = rig.tenant_admin(OTHER).await;
        made(
            &rig,
            &other,
            json!({ "username": "strasse", "email": "a@b.cn" }),
        )
        .await;
        let path = format!("/users/{}?reason=left", first["id"].as_str().unwrap());
        assert_eq!(rig.call(&admin, "DELETE", &path, Value::Null).await.0, 204);
        made(
            &rig,
            &admin,
            json!({ "username": "strasse", "phone": "13812345678" }),
        )
        .await;
        let path = format!("/users/{}", first["id"].as_str().unwrap());
        assert_eq!(rig.get(&admin, &path).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn of_several_who_want_a_name_one_gets_it() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let tries = (0..10).map(|_| rig.post(&admin, "/users", json!({ "phone": "13912345678" })));
        let answers = futures_util::future::join_all(tries).await;
        let made = answers.iter().filter(|(status, _)| *status == 201).count();
        let refused = answers
            .iter()
            .filter(|(s, p)| *s == 409 && p["code"] == "identity.phone_taken")
            .count();
        assert_eq!((made, refused), (1, 9), "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn the_quota_of_users_holds_when_several_come_at_once() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let root = rig.super_admin().await;
        let quotas = json!({ "quotas": { "users": 5 } });
        assert_eq!(
            rig.call(&root, "PATCH", "/tenants/other", quotas).await.0,
            200
        );
        let admin = rig.tenant_admin(OTHER).await;
        let tries = (0..10).map(|n| {
            let body = json!({ "username": format!("person{n}") });
            let (rig, admin) = (&rig, &admin);
            async move { rig.post(admin, "/users", body).await }
        });
        let answers = futures_util::future::join_all(tries).await;
        // The administrator is one of the five.
        assert_eq!(
            answers.iter().filter(|a| a.0 == 201).count(),
            4,
            "{answers:?}"
        );
        let (_, problem) = answers.into_iter().find(|a| a.0 == 409).unwrap();
        assert_eq!(problem["code"], "identity.quota_exceeded");
        assert_eq!(
            (&problem["quota"], &problem["limit"]),
            (&json!("users"), &json!(5))
        );
    })
    .await;
}

#[tokio::test]
async fn a_disabled_user_is_out_and_comes_back_when_the_time_is_over() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let user = rig.user("lilei").await;
        rig.audit.take();
        let until = (rig.core.clock.now() + chrono::Duration::hours(1)).to_rfc3339();
        let path = format!("/users/{}", user.id);
        let body = json!({ "reason": "holiday", "until": until });
        let (status, shown) = rig.post(&admin, &format!("{path}/disable"), body).await;
        assert_eq!((status, shown["status"].as_str()), (200, Some("disabled")));
        assert_eq!(shown["disabled_reason"], "holiday");
        let row = rig.get_user(user.tenant, user.id).await;
        assert_eq!(row.tv, user.tv + 1);
        let log = store::revocations::after(db.db.reader(), 0, rig.core.clock.now(), 1_000)
            .await
            .unwrap();
        let last = log.iter().rfind(|r| r.kind == Kind::User).unwrap();
        assert_eq!(
            (last.subject.as_str(), last.min, last.cause.as_str()),
            (user.id.to_string().as_str(), row.tv, "disabled")
        );
        assert_eq!(rig.audit.take(), ["identity.user.disabled"]);
        assert_eq!(crate::ops::users::enable_due(&rig.core).await.unwrap(), 0);
        rig.advance(3_601);
        assert_eq!(crate::ops::users::enable_due(&rig.core).await.unwrap(), 1);
        let row = rig.get_user(user.tenant, user.id).await;
        assert_eq!((row.status, row.disabled_until), (UserStatus::Active, None));
        assert_eq!(row.tv, user.tv + 1);
        assert_eq!(rig.audit.take(), ["identity.user.enabled"]);
        assert_eq!(crate::ops::users::enable_due(&rig.core).await.unwrap(), 0);
        // By hand, without an end; a past end is refused.
        let past = json!({ "until": "2020-01-01T00:00:00Z" });
        let (status, problem) = rig.post(&admin, &format!("{path}/disable"), past).await;
        assert_eq!((status, faults(&problem)[0].0.as_str()), (400, "until"));
        assert_eq!(
            rig.post(&admin, &format!("{path}/disable"), json!({}))
                .await
                .0,
            200
        );
        rig.advance(86_400 * 365);
        assert_eq!(crate::ops::users::enable_due(&rig.core).await.unwrap(), 0);
        let (status, shown) = rig
            .post(&admin, &format!("{path}/enable"), Value::Null)
            .await;
        assert_eq!((status, shown["status"].as_str()), (200, Some("active")));
    })
    .await;
}

#[tokio::test]
async fn what_is_another_tenants_is_not_there() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let foreign = rig.tenant_admin(OTHER).await;
        let user = rig.user("lilei").await;
        let path = format!("/users/{}", user.id);
        for (method, path, body) in [
            ("GET", path.clone(), Value::Null),
            ("PATCH", path.clone(), json!({ "display_name": "x" })),
            ("DELETE", path.clone(), Value::Null),
            ("POST", format!("{path}/disable"), json!({})),
            ("POST", format!("{path}/enable"), Value::Null),
            ("GET", format!("{path}/roles"), Value::Null),
            ("PUT", format!("{path}/roles"), json!({ "roles": [] })),
            ("GET", "/users?tenant=default".to_owned(), Value::Null),
            ("GET", "/roles?tenant=default".to_owned(), Value::Null),
            ("GET", "/tenants/default".to_owned(), Value::Null),
            (
                "PATCH",
                "/tenants/default".to_owned(),
                json!({ "display_name": "x" }),
            ),
            (
                "POST",
                "/tenants/default/logout-all".to_owned(),
                Value::Null,
            ),
            (
                "POST",
                "/users".to_owned(),
                json!({ "tenant": "default", "username": "abc" }),
            ),
            ("GET", "/users/nonsense".to_owned(), Value::Null),
        ] {
            let (status, problem) = rig.call(&foreign, method, &path, body).await;
            assert_eq!(status, 404, "{method} {path}: {problem}");
        }
        assert_eq!(rig.get_user(user.tenant, user.id).await, user);
        let (_, page) = rig.get(&foreign, &format!("/users?id={}", user.id)).await;
        assert_eq!(page["items"], json!([]));
        // Those who administer all reach it, by its id alone.
        let root = rig.super_admin().await;
        assert_eq!(rig.get(&root, &path).await.0, 200);
        assert_eq!(names(&rig.get(&root, "/users").await.1), ["lilei"]);
        assert_eq!(
            rig.get(&root, "/users?tenant=system").await.1["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        assert_eq!(rig.get(&root, "/users?tenant=nowhere").await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn nobody_administers_somebody_who_may_do_more() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let role = json!({ "name": "helpdesk", "title_zh": "服务台", "title_en": "Help desk",
        "permissions": ["identity:user:*"] });
    let (status, answer) = rig.post(&admin, "/roles", role).await;
    assert_eq!(status, 201, "{answer}");
    let helper = rig
        .add_user(id::TENANT_DEFAULT, "helper", &["helpdesk"])
        .await;
    let helper = rig.principal(&helper).await;
    let boss = format!("/users/{}", admin.id.unwrap());
    let (status, problem) = rig
        .post(&helper, &format!("{boss}/disable"), json!({}))
        .await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (403, Some("identity.grant_exceeds_own"))
    );
    let edit = json!({ "email": "mine@example.com" });
    assert_eq!(rig.call(&helper, "PATCH", &boss, edit).await.0, 403);
    let user = rig.user("lilei").await;
    let path = format!("/users/{}/disable", user.id);
    assert_eq!(rig.post(&helper, &path, json!({})).await.0, 200);
}

#[tokio::test]
async fn changes_name_what_changed_and_meet_versions() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let user = made(
            &rig,
            &admin,
            json!({ "username": "lilei", "email": "a@b.cn" }),
        )
        .await;
        let path = format!("/users/{}", user["id"].as_str().unwrap());
        rig.audit.take();
        let get = http::Request::builder().uri(&path);
        let answer = rig.send(&admin, get, axum::body::Body::empty()).await;
        let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
        rig.advance(1);
        let patch = async |tag: &str, body: Value| {
            let request = http::Request::builder()
                .method("PATCH")
                .uri(&path)
                .header("if-match", tag)
                .header("content-type", "application/json");
            super::rig::read(rig.send(&admin, request, body.to_string().into()).await).await
        };
        let (status, shown) = patch(&tag, json!({ "email": null, "display_name": "Li" })).await;
        assert_eq!((status, &shown["email"]), (200, &Value::Null));
        let record = rig.audit.all().pop().unwrap();
        let paths: Vec<&str> = record.changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["email", "display_name"]);
        assert_eq!(record.changes[0].before, Some(json!("a***@b.cn")));
        let (status, problem) = patch(&tag, json!({ "display_name": "Lei" })).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (412, Some("system.version_mismatch"))
        );
        // The last name cannot go.
        let (status, problem) = patch("*", json!({ "username": null })).await;
        assert_eq!((status, faults(&problem)[0].1.as_str()), (400, "required"));
        let hold = patch("*", json!({ "legal_hold": true })).await;
        assert_eq!(hold.1["legal_hold"], true);
        let (status, problem) = rig.call(&admin, "DELETE", &path, Value::Null).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("identity.legal_hold"))
        );
    })
    .await;
}

#[tokio::test]
async fn people_change_their_own_profile_and_nothing_else() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let user = rig.user("lilei").await;
    let who = rig.principal(&user).await;
    let (status, me) = rig.get(&who, "/me").await;
    assert_eq!((status, me["username"].as_str()), (200, Some("lilei")));
    assert_eq!(me["masked"], false);
    let body = json!({ "display_name": "李雷", "time_zone": "UTC" });
    let (status, me) = rig.call(&who, "PATCH", "/me", body).await;
    assert_eq!((status, me["display_name"].as_str()), (200, Some("李雷")));
    for forbidden in [
        json!({ "roles": ["tenant_admin"] }),
        json!({ "username": "root" }),
        json!({ "status": "active" }),
    ] {
        assert_eq!(rig.call(&who, "PATCH", "/me", forbidden).await.0, 400);
    }
    let key = Principal::new(PrincipalKind::ApiKey, user.id.to_string(), user.tenant);
    assert_eq!(rig.get(&key, "/me").await.0, 403);
    assert_eq!(rig.get(&Principal::anonymous(), "/me").await.0, 401);
}

#[tokio::test]
async fn personal_data_is_masked_and_reading_it_whole_is_audited() {
    let db = portico_db::testing::sqlite().await;
    let rig = Rig::new(&db).await;
    let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
    let mut user = rig.user("lilei").await;
    user.phone = Some("+8613812345678".to_owned());
    user.email = Some("user@example.com".to_owned());
    user.last_login_ip = Some("203.0.113.7".to_owned());
    let tx = db.db.begin().await.unwrap();
    store::users::put(&tx, &user).await.unwrap();
    tx.commit().await.unwrap();
    rig.audit.take();
    let path = format!("/users/{}", user.id);
    for path in ["/users?name=lilei", &path] {
        let (_, answer) = rig.get(&admin, path).await;
        let text = answer.to_string();
        assert!(
            text.contains("138****5678") && text.contains("u***@example.com"),
            "{text}"
        );
        assert!(
            text.contains("203.0.*.*") && !text.contains("13812345678"),
            "{text}"
        );
    }
    assert!(rig.audit.all().is_empty());
    let (_, page) = rig.get(&admin, "/users?name=lilei&unmasked=true").await;
    assert_eq!(page["items"][0]["phone"], "+8613812345678");
    assert_eq!(rig.audit.take(), ["identity.pii.listed"]);
    let (_, shown) = rig.get(&admin, &format!("{path}?unmasked=true")).await;
    assert_eq!(shown["email"], "user@example.com");
    assert_eq!(rig.audit.take(), ["identity.pii.read"]);
    let mut clerk = admin.clone();
    clerk.permissions = [crate::permissions::USER_READ].into();
    let (status, problem) = rig.get(&clerk, "/users?unmasked=true").await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (403, Some("identity.permission_denied"))
    );
    assert_eq!(rig.get(&clerk, "/users").await.0, 200);
}

#[tokio::test]
async fn users_are_found_by_every_filter_page_by_page() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        rig.advance(60);
        let from = rig.core.clock.now().to_rfc3339().replace('+', "%2B");
        for n in 0..25 {
            rig.advance(1);
            let name = format!("person{n:02}");
            let mut user = rig.user(&name).await;
            user.last_login_at = (n % 2 == 0).then(|| rig.core.clock.now());
            user.last_login_method = Some(if n % 3 == 0 { "sms" } else { "password" }.to_owned());
            user.email = Some(format!("{name}@example.com"));
            let tx = db.db.begin().await.unwrap();
            store::users::put(&tx, &user).await.unwrap();
            tx.commit().await.unwrap();
        }
        let all = async |query: &str| {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            for _ in 0..20 {
                let path = format!("/users?limit=4&{query}{cursor}");
                let (status, page) = rig.get(&admin, &path).await;
                assert_eq!(status, 200, "{page}");
                found.extend(names(&page).into_iter().map(str::to_owned));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return found,
                }
            }
            panic!("the list has no end")
        };
        let newest: Vec<String> = (0..25).rev().map(|n| format!("person{n:02}")).collect();
        assert_eq!(all(&format!("created_from={from}")).await, newest);
        assert_eq!(all("role=user").await, newest);
        let by_name: Vec<String> = (10..20).map(|n| format!("person{n:02}")).collect();
        assert_eq!(all("name=Person1").await, by_name);
        assert_eq!(all("name=Person1&role=user&status=active").await, by_name);
        let logins: Vec<String> = (0..25)
            .rev()
            .filter(|n| n % 2 == 0)
            .map(|n| format!("person{n:02}"))
            .collect();
        assert_eq!(all("login_from=2020-01-01T00:00:00Z").await, logins);
        assert_eq!(all("email=PERSON07@example.com").await, ["person07"]);
        assert_eq!(all("method=sms&role=user").await.len(), 9);
        assert_eq!(all("status=disabled").await.len(), 0);
        assert_eq!(all("role=tenant_admin").await.len(), 1);
        for bad in [
            "role=nobody",
            "email=x",
            "phone=1",
            "status=odd",
            "limit=0",
            "odd=1",
            "cursor=%%",
            "name=",
        ] {
            assert_eq!(
                rig.get(&admin, &format!("/users?{bad}")).await.0,
                400,
                "{bad}"
            );
        }
        // A cursor of another order is none of this list.
        let (_, page) = rig.get(&admin, "/users?limit=1").await;
        let foreign = format!(
            "/users?name=p&cursor={}",
            page["next_cursor"].as_str().unwrap()
        );
        assert_eq!(rig.get(&admin, &foreign).await.0, 400);
    })
    .await;
}

/// Each kind of search with the key of a page and the index that it is paged over.
fn searches(at: Timestamp, role: uuid::Uuid) -> Vec<(Search, Key, &'static str)> {
    let nobody = uuid::Uuid::max();
    vec![
        (
            Search::default(),
            Key::Created(at, nobody),
            "ix_users_created",
        ),
        (
            Search {
                status: Some(UserStatus::Disabled),
                ..Search::default()
            },
            Key::Created(at, nobody),
            "ix_users_status",
        ),
        (
            Search {
                method: Some("apple".to_owned()),
                ..Search::default()
            },
            Key::Created(at, nobody),
            "ix_users_method",
        ),
        (
            Search {
                name: Some("person1".to_owned()),
                ..Search::default()
            },
            Key::Name("person1".to_owned(), nobody),
            "ix_users_search",
        ),
        (
            Search {
                login: (Some(at), None),
                ..Search::default()
            },
            Key::Login(at, nobody),
            "ix_users_last_login",
        ),
        (
            Search {
                role: Some(role),
                ..Search::default()
            },
            Key::Holder(nobody),
            "ix_user_roles_role",
        ),
        (
            Search {
                email: Some("a@b.cn".to_owned()),
                ..Search::default()
            },
            Key::Created(at, nobody),
            "ux_users_email",
        ),
        (
            Search {
                phone: Some("+8613812345678".to_owned()),
                ..Search::default()
            },
            Key::Created(at, nobody),
            "ux_users_phone",
        ),
    ]
}

#[tokio::test]
async fn every_search_is_paged_over_an_index() {
    each_backend(async |db| {
        let rig = Rig::new(db).await;
        let at = rig.core.clock.now();
        let role = crate::domain::role::built_in_id("user").unwrap();
        // A planner that counted when there was nobody reads whole tables until it counts again.
        db.db.optimize().await.unwrap();
        let tx = db.db.begin().await.unwrap();
        for n in 0..10_000_u32 {
            let tenant = if n % 2 == 0 {
                id::TENANT_DEFAULT
            } else {
                OTHER
            };
            let id = id::new_id(&*rig.core.clock, &*rig.core.random);
            let mut user = User::new(id, tenant, at + chrono::Duration::seconds(i64::from(n)));
            user.username = Some(format!("person{n:05}"));
            user.email = Some(format!("person{n:05}@example.com"));
            user.phone = Some(format!("+86138{n:08}"));
            user.last_login_at = Some(user.created_at);
            user.last_login_method =
                Some(["password", "sms"][usize::from(n % 100 == 0)].to_owned());
            store::users::insert(&tx, &user).await.unwrap();
            store::roles::grant(&tx, tenant, id, role, "test", at)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        db.db.optimize().await.unwrap();
        let searches = searches(at, role);
        for (search, key, index) in searches {
            for after in [None, Some(&key)] {
                let statement = user_list::statement(id::TENANT_DEFAULT, &search, after, 51);
                let plan = db.db.explain(&statement).await.unwrap();
                assert!(plan.contains(index), "{search:?}:\n{plan}");
                assert!(!plan.contains("SCAN users"), "{search:?}:\n{plan}");
                let exact = search.email.is_some() || search.phone.is_some();
                let sorted = plan.contains("TEMP B-TREE") || plan.contains("Sort ");
                assert!(exact || !sorted, "{search:?}:\n{plan}");
            }
        }
    })
    .await;
}
