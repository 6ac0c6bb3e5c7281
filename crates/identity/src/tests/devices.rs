//! Devices and sessions over the API: listing, naming, logging out, and what services ask (ID-110, ID-120, ID-123).

use std::sync::Arc;

use axum::body::Body;
use portico_base::{Principal, PrincipalKind, Secret, id};
use portico_contract::tokens::{Denied, TokenVerifier as _};
use portico_db::testing::{TestDb, each_backend};
use serde_json::{Value, json};
use uuid::Uuid;

use super::logins::{check, nobody, tokens};
use super::rig::{OTHER, Rig, read};
use crate::domain::login::Tokens;
use crate::domain::user::User;
use crate::error::reason;
use crate::ops::introspect::{self, Target};
use crate::ops::refresh::{self, Wish};
use crate::ops::sessions::LogOut;

/// The user with a session, as the door would present them.
async fn with(rig: &Rig, user: &User, tokens: &Tokens) -> Principal {
    Principal {
        session: Some(Arc::from(tokens.session_id.to_string())),
        ..rig.principal(user).await
    }
}

async fn delete(rig: &Rig, who: &Principal, path: &str) -> u16 {
    rig.call(who, "DELETE", path, Value::Null).await.0
}

fn reason_at_the_door(rig: &Rig, token: &Secret<String>) -> Option<String> {
    let now_s = rig.core.clock.now().timestamp();
    let verified = rig
        .core
        .edge
        .verify(token.expose(), now_s)
        .expect("a token of ours");
    rig.core.edge.reason(&verified).map(|r| r.to_string())
}

#[tokio::test]
async fn a_user_lists_names_and_kicks_devices() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let phone = tokens(&rig, &user, json!({"platform": "ios", "name": "iPhone"})).await;
        rig.advance(1);
        let tv = tokens(&rig, &user, json!({"platform": "tv"})).await;
        let otto = rig.user("otto").await;
        let his = tokens(&rig, &otto, json!({"platform": "web"})).await;
        let anna = with(&rig, &user, &phone).await;
        let (status, list) = rig.get(&anna, "/me/devices").await;
        assert_eq!(status, 200);
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        let of = |platform: &str| items.iter().find(|d| d["platform"] == platform).unwrap();
        assert_eq!(
            (&of("ios")["current"], &of("tv")["current"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            of("tv")["last_ip"],
            "203.0.113.7",
            "the own address is not masked"
        );
        let path = format!("/me/devices/{}", of("tv")["id"].as_str().unwrap());
        let (status, named) = rig
            .call(&anna, "PATCH", &path, json!({"name": " Wohnzimmer "}))
            .await;
        assert_eq!((status, &named["name"]), (200, &json!("Wohnzimmer")));
        let bad = rig.call(&anna, "PATCH", &path, json!({"name": ""})).await;
        assert_eq!(bad.0, 400);
        // A login of the same device does not undo the name.
        let wish = json!({"platform": "tv", "name": "TV-1000", "device_id": tv.device_id,
            "device_secret": tv.device_secret.as_ref().unwrap().expose()});
        let tv = tokens(&rig, &user, wish.clone()).await;
        assert_eq!(rig.get(&anna, &path).await.1["name"], "Wohnzimmer");

        let strange = with(&rig, &otto, &his).await;
        assert_eq!(rig.get(&strange, &path).await.0, 404);
        assert_eq!(delete(&rig, &strange, &path).await, 404);
        assert_eq!(check(&rig, &tv.access_token), Ok(()));
        assert_eq!(delete(&rig, &anna, &path).await, 204);
        assert_eq!(check(&rig, &tv.access_token), Err(Denied::SESSION_REVOKED));
        assert_eq!(
            reason_at_the_door(&rig, &tv.access_token).as_deref(),
            Some("kicked")
        );
        assert_eq!(delete(&rig, &anna, &path).await, 404, "gone");
        assert_eq!(rig.get(&anna, &path).await.0, 404);
        let topics: Vec<String> = rig.events().await.into_iter().map(|e| e.topic).collect();
        assert!(topics.iter().any(|t| t == "identity.device.kicked"));
        // The kicked device may come again; its old secret is worth nothing.
        let back = tokens(&rig, &user, wish).await;
        assert!(back.device_secret.is_some());
        assert_eq!(back.device_id, tv.device_id);
        assert_eq!(check(&rig, &phone.access_token), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn logging_out_here_elsewhere_and_everywhere() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mut all = Vec::new();
        for platform in ["ios", "web", "tv"] {
            all.push(tokens(&rig, &user, json!({"platform": platform})).await);
        }
        let otto = rig.user("otto").await;
        let his = tokens(&rig, &otto, json!({"platform": "web"})).await;
        let state = || {
            all.iter()
                .map(|t| check(&rig, &t.access_token).is_ok())
                .collect::<Vec<_>>()
        };
        let who = with(&rig, &user, &all[1]).await;
        let (_, list) = rig.get(&who, "/me/sessions").await;
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 3);
        assert_eq!(items.iter().filter(|s| s["current"] == true).count(), 1);
        let out = async |who: &Principal, body: Value| rig.post(who, "/logout", body).await.0;
        let first = with(&rig, &user, &all[0]).await;
        assert_eq!(out(&first, Value::Null).await, 204);
        assert_eq!(state(), [false, true, true]);
        assert_eq!(
            reason_at_the_door(&rig, &all[0].access_token).as_deref(),
            Some("logout")
        );
        assert_eq!(out(&who, json!({"scope": "others"})).await, 204);
        assert_eq!(state(), [false, true, false]);
        assert_eq!(out(&who, json!({"scope": "all"})).await, 204);
        assert_eq!(state(), [false, false, false]);
        assert_eq!(out(&who, json!({"scope": "some"})).await, 400);
        assert_eq!(check(&rig, &his.access_token), Ok(()));
        let key = Principal::new(PrincipalKind::ApiKey, "k", id::TENANT_DEFAULT);
        assert_eq!(out(&key, Value::Null).await, 403);
        // All of them can log in again at once.
        tokens(&rig, &user, json!({"platform": "ios"})).await;
    })
    .await;
}

/// Three sessions of a user, a second apart.
async fn three(rig: &Rig, user: &User) -> Vec<Tokens> {
    let mut all = Vec::new();
    for n in 0..3 {
        rig.advance(1);
        let device = json!({"platform": "ios", "name": format!("{n}")});
        all.push(tokens(rig, user, device).await);
    }
    all
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items").iter();
    items
        .map(|s| s["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[tokio::test]
async fn administrators_see_sessions_of_their_tenant() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let all = three(&rig, &user).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let foreign = rig.tenant_admin(OTHER).await;
        let root = rig.super_admin().await;
        let (status, page) = rig.get(&admin, "/sessions?limit=2").await;
        assert_eq!(status, 200);
        let mut seen = ids(&page);
        let cursor = page["next_cursor"].as_str().unwrap();
        let (_, rest) = rig
            .get(&admin, &format!("/sessions?limit=2&cursor={cursor}"))
            .await;
        seen.extend(ids(&rest));
        let newest_first: Vec<String> =
            all.iter().rev().map(|t| t.session_id.to_string()).collect();
        assert_eq!(seen, newest_first);
        assert_eq!(ids(&rig.get(&foreign, "/sessions").await.1), [""; 0]);
        assert_eq!(rig.get(&foreign, "/sessions?tenant=default").await.0, 404);
        assert_eq!(
            ids(&rig.get(&root, "/sessions?tenant=default").await.1).len(),
            3
        );
        assert_eq!(
            rig.get(&rig.principal(&user).await, "/sessions").await.0,
            403
        );
        assert_eq!(rig.get(&admin, "/sessions?limit=0").await.0, 400);
        let of_user = format!("/users/{}/sessions", user.id);
        assert_eq!(ids(&rig.get(&admin, &of_user).await.1).len(), 3);
        assert_eq!(rig.get(&foreign, &of_user).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn administrators_end_sessions_of_their_tenant() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let all = three(&rig, &user).await;
        let admin = rig.tenant_admin(id::TENANT_DEFAULT).await;
        let foreign = rig.tenant_admin(OTHER).await;
        let root = rig.super_admin().await;
        let devices = format!("/users/{}/devices", user.id);
        let (_, shown) = rig.get(&admin, &devices).await;
        let oldest = shown["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|d| d["name"] == "0")
            .unwrap();
        let device = format!("{devices}/{}", oldest["id"].as_str().unwrap());
        assert_eq!(rig.get(&foreign, &devices).await.0, 404);
        assert_eq!(delete(&rig, &foreign, &device).await, 404);
        assert_eq!(check(&rig, &all[0].access_token), Ok(()));
        assert_eq!(delete(&rig, &admin, &device).await, 204);
        assert_eq!(
            check(&rig, &all[0].access_token),
            Err(Denied::SESSION_REVOKED)
        );

        let session = format!("/sessions/{}", all[1].session_id);
        assert_eq!(delete(&rig, &foreign, &session).await, 404);
        assert_eq!(delete(&rig, &admin, &session).await, 204);
        assert_eq!(
            reason_at_the_door(&rig, &all[1].access_token).as_deref(),
            Some("admin")
        );
        assert_eq!(delete(&rig, &admin, &session).await, 404);
        let log_out = format!("/users/{}/logout", user.id);
        assert_eq!(rig.post(&foreign, &log_out, Value::Null).await.0, 404);
        let (status, done) = rig.post(&root, &log_out, Value::Null).await;
        assert_eq!((status, &done["sessions"]), (200, &json!(1)));
        assert_eq!(
            check(&rig, &all[2].access_token),
            Err(Denied::SESSION_REVOKED)
        );
        // Nobody logs out somebody who may do more.
        let boss = rig
            .add_user(id::TENANT_SYSTEM, "root2", &["super_admin"])
            .await;
        rig.set("identity.mfa.admin", json!("optional"));
        let strong = tokens(&rig, &boss, json!({"platform": "web"})).await;
        let session = format!("/sessions/{}", strong.session_id);
        assert_eq!(delete(&rig, &admin, &session).await, 404);
        assert_eq!(check(&rig, &strong.access_token), Ok(()));
    })
    .await;
}

#[tokio::test]
async fn addresses_are_masked_for_those_who_need_not_see_them() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        tokens(&rig, &user, json!({"platform": "ios"})).await;
        let reader = Principal {
            permissions: Arc::from([crate::permissions::SESSION_READ]),
            ..rig.principal(&rig.user("reader").await).await
        };
        let events = format!("/users/{}/events", user.id);
        let (_, told) = rig.get(&reader, &events).await;
        assert_eq!(told["items"][0]["kind"], "login", "{told}");
        let foreign = rig.tenant_admin(OTHER).await;
        assert_eq!(rig.get(&foreign, &events).await.0, 404);
        for path in [
            events,
            "/sessions".to_owned(),
            format!("/users/{}/sessions", user.id),
            format!("/users/{}/devices", user.id),
        ] {
            let (status, list) = rig.get(&reader, &path).await;
            assert_eq!(status, 200, "{path}: {list}");
            assert!(list.to_string().contains("203.0.*.*"), "{list}");
            assert!(!list.to_string().contains("203.0.113.7"), "{list}");
        }
    })
    .await;
}

/// A token in a form, as RFC 7662 and RFC 7009 send it.
async fn form(rig: &Rig, who: &Principal, path: &str, token: &str) -> (u16, Value) {
    let request =
        http::Request::post(path).header("content-type", "application/x-www-form-urlencoded");
    let body = Body::from(format!("token={token}&token_type_hint=access_token"));
    read(rig.send(who, request, body).await).await
}

fn plugin() -> Principal {
    Principal::new(PrincipalKind::Instance, "i1", id::TENANT_DEFAULT)
}

/// A service that may revoke, of a tenant.
fn revoker(tenant: Uuid) -> Principal {
    Principal {
        permissions: Arc::from([crate::permissions::TOKEN_REVOKE]),
        ..Principal::new(PrincipalKind::ApiKey, "k1", tenant)
    }
}

#[tokio::test]
async fn services_ask_about_tokens() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mine = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let path = "/token/introspect";
        let ask = async |token: &str| form(&rig, &plugin(), path, token).await.1;
        let told = ask(mine.access_token.expose()).await;
        assert_eq!(told["active"], true);
        assert_eq!(told["sub"], user.id.to_string());
        assert_eq!(told["sid"], mine.session_id.to_string());
        assert_eq!(told["roles"], json!(["user"]));
        assert_eq!(told["token_type"], "Bearer");
        let told = ask(mine.refresh_token.expose()).await;
        assert_eq!(told["active"], true);
        assert_eq!(told["token_type"], "refresh_token");
        for bad in ["", "a.b.c", "ptr_x"] {
            assert_eq!(ask(bad).await, json!({"active": false}), "{bad}");
        }
        let anna = rig.principal(&user).await;
        let (status, problem) = form(&rig, &anna, path, "x").await;
        assert_eq!(status, 403);
        assert_eq!(problem["code"], "identity.permission_denied");
        assert_eq!(form(&rig, &Principal::anonymous(), path, "x").await.0, 401);
    })
    .await;
}

#[tokio::test]
async fn services_revoke_tokens() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mine = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let revoke =
            async |who: &Principal, token: &str| form(&rig, who, "/token/revoke", token).await.0;
        let access = mine.access_token.expose();
        // A plug-in asks about everybody, but ends only what it was given the right to.
        assert_eq!(revoke(&plugin(), access).await, 403);
        assert_eq!(revoke(&revoker(OTHER), access).await, 403);
        assert_eq!(check(&rig, &mine.access_token), Ok(()));
        let own = revoker(id::TENANT_DEFAULT);
        for _ in 0..2 {
            assert_eq!(revoke(&own, mine.refresh_token.expose()).await, 200);
        }
        assert_eq!(revoke(&own, "nonsense").await, 200);
        let over = Err(Denied::SESSION_REVOKED);
        assert_eq!(check(&rig, &mine.access_token), over);
        let told = form(&rig, &plugin(), "/token/introspect", access).await.1;
        assert_eq!(told, json!({"active": false}));
        assert_eq!(rig.audit.count("identity.token.revoked"), 1);
    })
    .await;
}

#[tokio::test]
async fn services_revoke_sessions_and_devices() {
    each_backend(async |db: &TestDb| {
        let rig = Rig::new(db).await;
        let user = rig.user("anna").await;
        let mine = tokens(&rig, &user, json!({"platform": "ios"})).await;
        let more = tokens(&rig, &user, json!({"platform": "web"})).await;
        let cx = rig.cx(&revoker(id::TENANT_DEFAULT));
        let foreign = rig.cx(&revoker(OTHER));
        let target = Target::Session(mine.session_id);
        introspect::revoke(&rig.core, &cx, &target, LogOut::Others)
            .await
            .unwrap();
        let over = Err(Denied::SESSION_REVOKED);
        assert_eq!(check(&rig, &more.access_token), over);
        assert_eq!(check(&rig, &mine.access_token), Ok(()));
        let session = crate::store::sessions::get(rig.core.db.reader(), mine.session_id).await;
        let device = session.unwrap().unwrap().device;
        let strange = introspect::revoke_device(&rig.core, &foreign, user.id, device).await;
        assert!(strange.unwrap_err().is(reason::OTHER_TENANT));
        let end = async || {
            introspect::revoke_device(&rig.core, &cx, user.id, device)
                .await
                .unwrap()
        };
        assert_eq!(end().await, [mine.session_id]);
        assert!(end().await.is_empty(), "it is gone already");
        let wish = Wish {
            token: mine.refresh_token,
            device_secret: None,
            fingerprint: std::collections::BTreeMap::new(),
            cookie: false,
        };
        let refused = refresh::refresh(&rig.core, &nobody(&rig), &wish).await;
        assert!(refused.unwrap_err().is(reason::REFRESH_INVALID));
    })
    .await;
}
