//! Registering: idempotence, faults, rights, addresses, tenants.

use portico_base::{Access, Permission, Principal, id};
use portico_contract::address::AddressGuard as _;
use portico_contract::directory::{DefaultAccess, InstanceState};
use portico_db::testing::each_backend;
use serde_json::json;

use super::{House, OTHER, default_user, faults, operator, user};

#[tokio::test]
async fn a_registration_is_routable_before_its_answer_and_idempotent() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let body = json!({
            "name": "hello", "version": "1.0.0", "host": "127.0.0.1", "port": 9001, "base_path": "/v1",
            "tags": ["a"], "metadata": {"k": "v"},
            "endpoints": [{"path": "/notes/{id}", "method": "GET", "is_public": true}],
        });
        let (status, first) = house.register(&operator(), body.clone()).await;
        assert_eq!(status, 201, "{first}");
        assert_eq!(first["state"], "ready");
        let secret = first["instance_secret"].as_str().unwrap();
        assert!(secret.starts_with("pis_"));
        let heard = house.heard.lock().last().cloned().unwrap();
        assert_eq!(heard.seq, first["directory_seq"].as_u64().unwrap());
        let service = heard.find(id::TENANT_DEFAULT, "hello").unwrap();
        assert_eq!(service.instances.len(), 1);
        assert_eq!(service.instances[0].state, InstanceState::Ready);
        assert_eq!(service.instances[0].secret.as_ref().unwrap().expose(), secret);
        assert_eq!(service.endpoints.len(), 1);

        let told = house.heard.lock().len();
        let records = house.audit.0.lock().len();
        let (status, again) = house.register(&operator(), body.clone()).await;
        assert_eq!(status, 200);
        assert_eq!(again["id"], first["id"]);
        assert_eq!(again["directory_seq"], first["directory_seq"]);
        assert_eq!(again["instance_secret"], first["instance_secret"]);
        assert_eq!(house.heard.lock().len(), told, "nobody is woken");
        assert_eq!(house.audit.0.lock().len(), records, "nothing is recorded");

        let mut changed = body;
        changed["weight"] = json!(7);
        let (status, third) = house.register(&operator(), changed).await;
        assert_eq!((status, &third["id"]), (200, &first["id"]));
        let service = house.directory().find(id::TENANT_DEFAULT, "hello").cloned().unwrap();
        assert_eq!(service.instances[0].weight, 7);
        assert!(third["directory_seq"].as_u64() > first["directory_seq"].as_u64());
        assert_eq!(*house.audit.0.lock(), ["registry.instance.registered", "registry.instance.changed"]);
        let who = house.find(secret).unwrap();
        assert_eq!(who.subject.to_string(), first["id"].as_str().unwrap());
    })
    .await;
}

#[tokio::test]
async fn every_fault_is_told_and_the_caller_must_be_known() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let body = json!({"name": "Bad!", "port": 0, "endpoints": [{"path": "x"}], "bogus": 1});
        let (status, problem) = house.register(&operator(), body).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (400, Some("registry.invalid"))
        );
        let fields: Vec<String> = faults(&problem).into_iter().map(|(f, _)| f).collect();
        assert_eq!(fields.len(), 4, "{fields:?}");
        assert_eq!(problem["request_id"], "req-1");
        let good = json!({"name": "hello", "port": 9000});
        assert_eq!(
            house
                .register(&Principal::anonymous(), good.clone())
                .await
                .0,
            401
        );
        assert_eq!(
            house
                .register(&Principal::anonymous_local(), good.clone())
                .await
                .0,
            201
        );
        assert_eq!(house.register(&default_user(), good.clone()).await.0, 403);
        let spoken = portico_web::PluginProtocol(http::HeaderValue::from_static("2"));
        let builder = http::Request::post("/register").extension(spoken);
        let response = house
            .send(&operator(), builder, good.to_string().into())
            .await;
        assert_eq!(response.status(), 400);
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["code"], "registry.protocol_unsupported");
        assert!(problem["detail"].as_str().unwrap().ends_with("only 1 to 1"));
        assert!(house.directory().find(id::TENANT_DEFAULT, "Bad!").is_none());
    })
    .await;
}

#[tokio::test]
async fn addresses_are_judged() {
    each_backend(async |db| {
        let house = House::new(db).await;
        house.own.add("127.0.0.1:8080".parse().unwrap());
        let refused = ("registry.address_not_allowed", "address_not_allowed");
        for (host, port, (code, field)) in [
            ("169.254.169.254", 80, refused),
            ("fe80::1", 80, refused),
            ("224.0.0.1", 80, refused),
            ("0.0.0.0", 80, refused),
            ("8.8.8.8", 80, refused),
            ("127.0.0.1", 8080, ("registry.loop", "loop")),
            ("name.invalid", 80, ("registry.invalid", "unresolvable")),
        ] {
            let body = json!({"name": "hello", "host": host, "port": port});
            let (status, problem) = house.register(&operator(), body).await;
            assert_eq!(
                (status, problem["code"].as_str()),
                (400, Some(code)),
                "{host}: {problem}"
            );
            assert_eq!(faults(&problem), [("host".to_owned(), field.to_owned())]);
        }
        let (status, _) = house
            .register(
                &operator(),
                json!({"name": "hello", "host": "auto", "port": 9000}),
            )
            .await;
        assert_eq!(status, 201);
        let service = house
            .directory()
            .find(id::TENANT_DEFAULT, "hello")
            .cloned()
            .unwrap();
        assert_eq!(
            &*service.instances[0].host, "127.0.0.1",
            "the caller's address"
        );
        assert!(
            house
                .core
                .addresses
                .check("169.254.0.1:80".parse().unwrap())
                .is_err()
        );
        assert!(
            house
                .core
                .addresses
                .check("10.0.0.1:80".parse().unwrap())
                .is_ok()
        );
        assert!(
            house
                .core
                .addresses
                .check("[::ffff:127.0.0.1]:8080".parse().unwrap())
                .is_err()
        );
    })
    .await;
}

#[tokio::test]
async fn tokens_bind_names_rights_and_numbers() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let wish = json!({"name_pattern": "shop-*", "max_instances": 2});
        let (_, who) = house.token(wish).await;
        let at = |name: &str, port: u16| json!({"name": name, "port": port, "host": "127.0.0.1"});
        assert_eq!(house.register(&who, at("shop-cart", 9001)).await.0, 201);
        let (status, problem) = house.register(&who, at("other", 9002)).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (403, Some("registry.not_allowed"))
        );
        assert_eq!(faults(&problem)[0].0, "name");
        let mut wishes = at("shop-cart", 9003);
        wishes["default_access"] = json!("public");
        wishes["forward_credentials"] = json!(true);
        let (status, problem) = house.register(&who, wishes.clone()).await;
        assert_eq!((status, faults(&problem).len()), (403, 2), "{problem}");
        assert_eq!(house.register(&who, at("shop-cart", 9004)).await.0, 201);
        let (status, problem) = house.register(&who, at("shop-cart", 9005)).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (429, Some("registry.too_many_instances"))
        );

        let wish =
            json!({"name_pattern": "shop-cart", "allow_public": true, "allow_credentials": true});
        let (_, granted) = house.token(wish).await;
        let (status, answer) = house.register(&granted, wishes).await;
        assert_eq!(
            status, 201,
            "an exact token is the administrator's grant: {answer}"
        );
        let service = house
            .directory()
            .find(id::TENANT_DEFAULT, "shop-cart")
            .cloned()
            .unwrap();
        assert_eq!(service.default_access, DefaultAccess::Public);
        assert!(service.forward_credentials);
    })
    .await;
}

#[tokio::test]
async fn tokens_are_shown_once_deleted_and_expire() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let at = |name: &str, port: u16| json!({"name": name, "port": port, "host": "127.0.0.1"});
        let (text, who) = house.token(json!({"name_pattern": "shop-*"})).await;
        assert_eq!(house.register(&who, at("shop-cart", 9001)).await.0, 201);
        house.token(json!({"name_pattern": "other"})).await;

        let (_, list) = house.get(&operator(), "/tokens").await;
        assert!(
            !list.to_string().contains(&text),
            "a token is never shown again"
        );
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        let shop = items
            .iter()
            .find(|t| t["name_pattern"] == "shop-*")
            .unwrap();
        assert!(shop["used_at"].is_string());
        let id = shop["id"].as_str().unwrap().to_owned();
        assert_eq!(
            house
                .call(&operator(), "DELETE", &format!("/tokens/{id}"), json!(null))
                .await
                .0,
            204
        );
        assert!(house.find(&text).is_none());
        assert_eq!(
            house.register(&who, at("shop-cart", 9001)).await.0,
            401,
            "its principal is worth nothing"
        );
        let expiring = json!({"name_pattern": "hello", "ttl_s": 60});
        let (text, _) = house.token(expiring).await;
        house.advance(61);
        assert!(house.find(&text).is_none());
        let bad =
            json!({"name_pattern": "A", "scopes": ["registry:token:write"], "max_instances": 0});
        let (status, problem) = house.call(&operator(), "POST", "/tokens", bad).await;
        assert_eq!((status, faults(&problem).len()), (400, 3), "{problem}");
    })
    .await;
}

#[tokio::test]
async fn an_administrator_of_one_tenant_touches_nothing_else() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, theirs) = house
            .token(json!({"name_pattern": "*", "tenant": OTHER.to_string()}))
            .await;
        let body = json!({"name": "theirs", "port": 9001, "host": "127.0.0.1"});
        let (_, theirs) = house.register(&theirs, body).await;
        let global = house.enter("global", 9002).await;
        let admin = Principal {
            permissions: [
                Permission::new("registry:*:read"),
                Permission::new("registry:instance:write"),
                Permission::new("registry:token:write"),
            ]
            .into(),
            ..default_user()
        };
        for (id, status) in [(theirs["id"].as_str().unwrap(), 404), (&*global, 403)] {
            let drain = format!("/services/{id}/drain");
            assert_eq!(
                house.call(&admin, "POST", &drain, json!(null)).await.0,
                status,
                "{drain}"
            );
            let leave = format!("/services/{id}?now=true");
            assert_eq!(
                house.call(&admin, "DELETE", &leave, json!(null)).await.0,
                403
            );
            assert_eq!(house.beat(&admin, id).await.0, 403);
        }
        let wish = json!({"name_pattern": "x-*", "scopes": ["registry:*:*"], "tenant": "global"});
        let (status, problem) = house.call(&admin, "POST", "/tokens", wish).await;
        assert_eq!(status, 400, "nobody hands out more than they have");
        let fields: Vec<String> = faults(&problem).into_iter().map(|(f, _)| f).collect();
        assert_eq!(fields, ["scopes[0]", "tenant"]);
    })
    .await;
}

#[tokio::test]
async fn tenants_never_mix() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, a) = house
            .token(json!({"name_pattern": "*", "tenant": "default"}))
            .await;
        let (_, b) = house
            .token(json!({"name_pattern": "*", "tenant": OTHER.to_string()}))
            .await;
        let at = |port: u16| json!({"name": "hello", "port": port, "host": "127.0.0.1"});
        assert_eq!(house.register(&a, at(9001)).await.0, 201);
        assert_eq!(
            house.register(&b, at(9002)).await.0,
            201,
            "another tenant has a name of its own"
        );
        let directory = house.directory();
        let port = |tenant| directory.find(tenant, "hello").map(|s| s.instances[0].port);
        assert_eq!(
            (port(id::TENANT_DEFAULT), port(OTHER)),
            (Some(9001), Some(9002))
        );
        for (who, own) in [(&*a, 9001), (&*b, 9002)] {
            let (_, list) = house.get(who, "/services").await;
            let items = list["items"].as_array().unwrap();
            assert_eq!((items.len(), items[0]["port"].as_u64()), (1, Some(own)));
        }
        let (_, list) = house.get(&user(OTHER), "/services").await;
        let item = &list["items"][0];
        assert!(
            item.get("host").is_none() && item.get("port").is_none(),
            "{item}"
        );
        let theirs = {
            let (_, all) = house.get(&a, "/services").await;
            all["items"][0]["id"].as_str().unwrap().to_owned()
        };
        assert_eq!(house.get(&b, &format!("/services/{theirs}")).await.0, 404);
        assert_eq!(house.beat(&b, &theirs).await.0, 403);
        let body = json!({"name": "hello", "port": 1, "host": "127.0.0.1", "tenant": "default"});
        let (status, problem) = house.register(&b, body).await;
        assert_eq!((status, faults(&problem)[0].0.as_str()), (400, "tenant"));
        let (status, problem) = house.register(&operator(), at(9003)).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (409, Some("registry.name_owned")),
            "a global name is unique over all"
        );
        house.enter("shared", 9004).await;
        assert_eq!(
            house
                .register(
                    &b,
                    json!({"name": "shared", "port": 1, "host": "127.0.0.1"})
                )
                .await
                .0,
            409
        );
        assert_eq!(house.get(&user(OTHER), "/services/shared").await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn an_instance_registers_itself_only_under_its_own_name() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let (_, answer) = house
            .register(
                &operator(),
                json!({"name": "hello", "port": 9001, "host": "127.0.0.1"}),
            )
            .await;
        let me = house
            .find(answer["instance_secret"].as_str().unwrap())
            .unwrap();
        assert!(me.may(&Permission::new("registry:instance:heartbeat")));
        let again = json!({"name": "hello", "port": 9001, "host": "127.0.0.1", "tags": ["x"]});
        let (status, known) = house.register(&me, again).await;
        assert_eq!((status, &known["id"]), (200, &answer["id"]));
        let other = json!({"name": "other", "port": 9001, "host": "127.0.0.1"});
        assert_eq!(house.register(&me, other).await.0, 409);
        assert!(portico_base::authorise(&me, &Access::Authenticated, 0).is_ok());
    })
    .await;
}

#[tokio::test]
async fn an_instance_has_the_scopes_of_its_token_and_sees_its_own_service() {
    each_backend(async |db| {
        let house = House::new(db).await;
        let wish = json!({"name_pattern": "hello", "scopes": ["registry:kv:read"]});
        let (_, registrar) = house.token(wish).await;
        let place =
            |name: &str, port: u16| json!({"name": name, "port": port, "host": "127.0.0.1"});
        let (_, answer) = house.register(&registrar, place("hello", 9001)).await;
        house.register(&operator(), place("other", 9002)).await;
        let secret = answer["instance_secret"].as_str().unwrap();
        let kv = |who: &Principal| {
            let may = |name| who.may(&Permission::new(name));
            (may("registry:kv:read"), may("registry:kv:write"))
        };
        let me = house.find(secret).unwrap();
        assert_eq!(
            (me.service.as_deref(), kv(&me)),
            (Some("hello"), (true, false))
        );
        let host = async |name: &str| {
            let path = format!("/services?name={name}");
            let (_, list) = house.call(&me, "GET", &path, json!(null)).await;
            list["items"][0]["host"].clone()
        };
        assert_eq!(host("hello").await, "127.0.0.1");
        assert_eq!(
            host("other").await,
            json!(null),
            "where others are is not its business"
        );
        let path = format!("/tokens/{}", registrar.subject);
        house.call(&operator(), "DELETE", &path, json!(null)).await;
        let me = house.find(secret).expect("it lives on with its own secret");
        assert_eq!(
            kv(&me),
            (false, false),
            "what the token granted has gone with it"
        );
    })
    .await;
}
