//! What identity is told of services, and what it switches for a tenant (ID-4).

use std::sync::Arc;

use portico_base::{Caller, Context, Permission, Principal, PrincipalKind, SystemRandom, id};
use portico_contract::services::{PLATFORM, SwitchError, TenantServices as _};
use portico_db::testing::each_backend;
use serde_json::json;

use super::{House, OTHER, operator};
use crate::ops::builtin;
use crate::tenant_services::Switchboard;
use crate::{follow, store};

fn context(house: &House, who: Principal) -> Context {
    Context {
        caller: Caller::internal(who, "req-1"),
        clock: Arc::new(house.clock.clone()),
        random: Arc::new(SystemRandom),
    }
}

/// What the platform stands on is switched for nobody, and an application not for everybody.
async fn refuses_the_platform(house: &House, board: &Switchboard, cx: &Context) {
    for name in PLATFORM {
        let refused = board.switch(cx, OTHER, name, false).await;
        assert!(
            matches!(refused, Err(SwitchError::Fixed)),
            "{name}: {refused:?}"
        );
    }
    let path = |id: &str| format!("/services/{id}/enabled");
    let wish = json!({"enabled": false, "tenant": "default"});
    let platform = house
        .call(&operator(), "POST", &path("identity"), wish)
        .await;
    assert_eq!(
        (platform.0, platform.1["code"].as_str()),
        (409, Some("registry.conflict"))
    );
    let whole = house
        .call(
            &operator(),
            "POST",
            &path("music"),
            json!({"enabled": false}),
        )
        .await;
    assert_eq!(whole.0, 409, "for everybody the roles decide: {}", whole.1);
}

/// ID-4: an application of the house is switched for a tenant, over restarts and on every replica; what the
/// platform stands on is not.
#[tokio::test]
async fn applications_of_the_house_are_switched_for_a_tenant() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let start = async |house: &House| {
            let off = store::services::builtin_off(house.core.db.reader())
                .await
                .unwrap();
            let cx = house.core.own_context("test");
            let names = [
                "registry", "identity", "settings", "audit", "control", "gateway", "music",
            ];
            builtin::announce(
                &house.core,
                &cx,
                &names,
                &["registry", "music"],
                "0.1.0",
                &off,
            );
        };
        let other = House::build(db.another().await, db.clock.clone(), "two", Vec::new()).await;
        start(&house).await;
        start(&other).await;
        let admin = Principal {
            permissions: Arc::from([Permission::new("registry:service:write")]),
            ..Principal::new(PrincipalKind::User, "a1", OTHER)
        };
        let cx = context(&house, admin);
        let board = Switchboard(Arc::clone(&house.core));
        refuses_the_platform(&house, &board, &cx).await;
        let before = house.directory().seq;
        board
            .switch(&cx, OTHER, "music", false)
            .await
            .expect("it is switched");
        let off = |house: &House| {
            let directory = house.directory();
            let music = directory.find(OTHER, "music").expect("it is known");
            (music.disabled_for.to_vec(), music.instances.len())
        };
        assert!(house.directory().seq > before);
        assert_eq!(off(&house), (vec![OTHER], 1));
        let listed = board.list(OTHER);
        let music = listed.iter().find(|s| &*s.name == "music").unwrap();
        assert_eq!(
            (music.builtin, music.fixed, music.enabled),
            (true, false, false)
        );
        assert!(
            board.list(id::TENANT_DEFAULT).iter().all(|s| s.enabled),
            "for itself alone"
        );
        // Another replica hears of it and keeps its own instance; a new process finds it in the table.
        follow::step(&other.core).await.unwrap();
        assert_eq!(off(&other), (vec![OTHER], 1));
        assert_eq!(follow::resync(&other.core).await.unwrap(), 0);
        let third = House::build(db.another().await, db.clock.clone(), "three", Vec::new()).await;
        start(&third).await;
        assert_eq!(off(&third), (vec![OTHER], 1));
        let third_board = Switchboard(Arc::clone(&third.core));
        third_board
            .switch(&cx, OTHER, "music", true)
            .await
            .expect("it is switched back");
        follow::step(&house.core).await.unwrap();
        assert_eq!(off(&house), (vec![], 1));
        assert_eq!(
            house
                .audit
                .0
                .lock()
                .iter()
                .filter(|a| **a == "registry.service.switched")
                .count(),
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_tenant_switches_what_it_reaches_for_itself_alone() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.enter("hello", 9001).await;
        let own = json!({"name": "shop", "port": 9002, "host": "127.0.0.1", "tenant": OTHER.to_string(),
            "permissions": ["shop:order:read"],
            "endpoints": [{"path": "/x", "required_permissions": ["shop:order:write", "shop:order:read"]}]});
        assert_eq!(house.register(&operator(), own).await.0, 201);
        let board = Switchboard(Arc::clone(&house.core));
        let names = |tenant| -> Vec<(String, bool)> {
            let all = board.list(tenant).into_iter().filter(|s| !s.builtin);
            all.map(|s| (s.name.to_string(), s.enabled)).collect()
        };
        let on = |name: &str, on| (name.to_owned(), on);
        assert_eq!(names(id::TENANT_DEFAULT), [on("hello", true)]);
        assert_eq!(names(OTHER), [on("hello", true), on("shop", true)]);
        let admin = Principal {
            permissions: Arc::from([Permission::new("registry:service:write")]),
            ..Principal::new(PrincipalKind::User, "a1", OTHER)
        };
        let cx = context(&house, admin);
        board.switch(&cx, OTHER, "hello", false).await.expect("it is switched");
        assert_eq!(names(OTHER), [on("hello", false), on("shop", true)]);
        assert_eq!(names(id::TENANT_DEFAULT), [on("hello", true)], "for itself alone");
        let told = house.directory();
        let hello = told.find(OTHER, "hello").expect("it is known");
        assert_eq!(&*hello.disabled_for, [OTHER], "and the door has heard of it");
        let foreign = board.switch(&cx, id::TENANT_DEFAULT, "hello", false).await;
        assert!(matches!(foreign, Err(SwitchError::Refused(_))), "{foreign:?}");
        let unknown = board.switch(&cx, OTHER, "nothing", false).await;
        assert!(matches!(unknown, Err(SwitchError::Unknown)), "{unknown:?}");
        let plain = context(&house, Principal::new(PrincipalKind::User, "u1", OTHER));
        let refused = board.switch(&plain, OTHER, "hello", true).await;
        assert!(matches!(refused, Err(SwitchError::Refused(_))), "{refused:?}");
        let permissions = board.permissions().into_iter();
        let declared: Vec<String> = permissions
            .map(|(service, permission)| format!("{service} {permission}"))
            .collect();
        assert_eq!(declared, ["shop shop:order:read", "shop shop:order:write"]);
    })
    .await;
}
