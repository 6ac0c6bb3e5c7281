//! What identity is told of services, and what it switches for a tenant (ID-4).

use std::sync::Arc;

use portico_base::{Caller, Context, Permission, Principal, PrincipalKind, SystemRandom, id};
use portico_contract::services::{SwitchError, TenantServices as _};
use portico_db::testing::each_backend;
use serde_json::json;

use super::{House, OTHER, operator};
use crate::tenant_services::Switchboard;

fn context(house: &House, who: Principal) -> Context {
    Context {
        caller: Caller::internal(who, "req-1"),
        clock: Arc::new(house.clock.clone()),
        random: Arc::new(SystemRandom),
    }
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
