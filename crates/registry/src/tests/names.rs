//! Who owns a name, and who keeps it.

use portico_base::{Principal, PrincipalKind, id};
use portico_db::testing::each_backend;
use serde_json::{Value, json};

use super::{House, default_user, operator};

#[tokio::test]
async fn the_first_owner_keeps_a_name() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, a) = house.token(json!({"name_pattern": "he*"})).await;
        let (_, b) = house.token(json!({"name_pattern": "hel*"})).await;
        let at = |port: u16| json!({"name": "hello", "port": port, "host": "127.0.0.1"});
        assert_eq!(house.register(&a, at(9001)).await.0, 201);
        let (status, problem) = house.register(&b, at(9002)).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("registry.name_owned"))
        );
        assert_eq!(
            house.register(&b, at(9001)).await.0,
            409,
            "not even with the same content"
        );
        assert_eq!(house.register(&a, at(9002)).await.0, 201);
        let local = Principal::anonymous_local();
        let (status, _) = house
            .register(
                &local,
                json!({"name": "mine", "port": 1, "host": "127.0.0.1"}),
            )
            .await;
        assert_eq!(status, 201);
        assert_eq!(house.register(&local, at(9003)).await.0, 409);
    })
    .await;
}

#[tokio::test]
async fn names_are_reserved_and_released() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let post = async |body: Value| house.call(&operator(), "POST", "/reservations", body).await;
        assert_eq!(
            post(json!({"name": "payments", "note": "for the shop"}))
                .await
                .0,
            201
        );
        assert_eq!(post(json!({"name": "payments"})).await.0, 200);
        assert_eq!(post(json!({"name": "Bad"})).await.0, 400);
        assert_eq!(post(json!({"name": "gateway"})).await.0, 409);
        let other = house
            .call(&operator(), "POST", "/reservations/orders", Value::Null)
            .await;
        assert_eq!(other.0, 201);
        assert_eq!(
            house
                .call(&default_user(), "GET", "/reservations", Value::Null)
                .await
                .0,
            403
        );
        let (_, prefix) = house.token(json!({"name_pattern": "pay*"})).await;
        let (_, exact) = house.token(json!({"name_pattern": "payments"})).await;
        let at = |port: u16| json!({"name": "payments", "port": port, "host": "127.0.0.1"});
        assert_eq!(house.register(&prefix, at(9001)).await.0, 409);
        let (status, answer) = house.register(&exact, at(9001)).await;
        assert_eq!(status, 201);
        let release = async || {
            house
                .call(&operator(), "DELETE", "/reservations/payments", Value::Null)
                .await
        };
        assert_eq!(release().await.0, 409, "it has an instance");
        let path = format!("/services/{}?now=true", answer["id"].as_str().unwrap());
        assert_eq!(
            house.call(&exact, "DELETE", &path, Value::Null).await.0,
            200
        );
        let after = House::build(db.db.clone(), db.clock.clone(), "two", Vec::new()).await;
        assert_eq!(
            after.get(&operator(), "/reservations").await.1["items"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(release().await.0, 204);
        assert_eq!(release().await.0, 404);
        assert!(
            house
                .directory()
                .find(id::TENANT_DEFAULT, "payments")
                .is_none()
        );
        assert_eq!(
            house.register(&prefix, at(9001)).await.0,
            201,
            "the name is free again"
        );
        assert_eq!(
            *house.audit.0.lock(),
            [
                "registry.name.reserved",
                "registry.name.reserved",
                "registry.token.created",
                "registry.token.created",
                "registry.instance.registered",
                "registry.instance.removed",
                "registry.name.released",
                "registry.instance.registered",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn the_name_of_an_anonymous_owner_is_free_when_its_last_instance_goes() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let local = Principal::anonymous_local();
        let body = json!({"name": "mine", "port": 9001, "host": "127.0.0.1"});
        let (_, answer) = house.register(&local, body.clone()).await;
        let id = answer["id"].as_str().unwrap().parse().unwrap();
        let cx = portico_base::Context {
            caller: portico_base::Caller::internal(local, "t"),
            clock: std::sync::Arc::new(house.clock.clone()),
            random: std::sync::Arc::new(portico_base::SystemRandom),
        };
        let left = crate::ops::deregister::deregister(&house.core, &cx, id, true, "")
            .await
            .unwrap();
        assert_eq!(left, crate::ops::deregister::Left::Removed);
        assert!(house.directory().find(id::TENANT_DEFAULT, "mine").is_none());
        let key = Principal::new(PrincipalKind::ApiKey, "k", id::TENANT_DEFAULT);
        let key = Principal {
            permissions: [portico_base::Permission::new("registry:instance:register")].into(),
            ..key
        };
        assert_eq!(house.register(&key, body).await.0, 201);
    })
    .await;
}
