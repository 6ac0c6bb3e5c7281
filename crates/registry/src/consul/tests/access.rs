//! RG-46: who may do what here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::future::BoxFuture;
use portico_base::{Permission, Principal, PrincipalKind, id};
use portico_contract::credentials::{Bounds, CredentialSource};
use portico_contract::tenants::{Tenant, TenantStatus};
use serde_json::json;

use super::{Consul, databases, options};
use crate::tests::{House, OTHER};

#[tokio::test]
async fn anonymous_only_near_and_direct() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let request = || http::Request::builder().uri("/v1/catalog/services");
    assert_eq!(c.send(request(), "", "127.0.0.1:1").await.status, 200);
    assert_eq!(c.send(request(), "", "[::1]:1").await.status, 200);
    assert_eq!(
        c.send(request(), "", "[::ffff:127.0.0.1]:1").await.status,
        200
    );
    assert_eq!(c.send(request(), "", "10.0.0.9:1").await.status, 403);
    for (name, value) in [
        ("x-forwarded-for", "1.2.3.4"),
        ("forwarded", "for=1.2.3.4"),
        ("via", "1.1 p"),
        ("x-forwarded-proto", "https"),
    ] {
        let answer = c
            .send(request().header(name, value), "", "127.0.0.1:1")
            .await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (403, "Permission denied"),
            "{name}"
        );
    }
    let closed = Consul::around(
        House::with(&db, vec![("registry.anonymous", json!("off"))]).await,
        options(),
    );
    assert_eq!(closed.get("/v1/catalog/services").await.status, 403);
    let public = super::Options {
        anonymous: false,
        ..options()
    };
    let c = Consul::around(House::new(&db).await, public);
    assert_eq!(c.get("/v1/catalog/services").await.status, 403);
    assert_eq!(
        c.as_token("pop_test", "GET", "/v1/catalog/services", "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn web_pages_are_refused() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let put = || http::Request::builder().method("PUT").uri("/v1/kv/a");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:8500"] {
        assert_eq!(
            c.send(put().header("origin", origin), "x", "127.0.0.1:1")
                .await
                .status,
            403,
            "{origin}"
        );
    }
    for (host, status) in [
        ("evil.example", 403),
        ("127.0.0.1.evil.example:8500", 403),
        ("10.0.0.1", 403),
        ("localhost:8500", 200),
        ("[::1]:8500", 200),
        ("CONSUL.example", 200),
    ] {
        assert_eq!(
            c.send(put().header("host", host), "x", "127.0.0.1:1")
                .await
                .status,
            status,
            "{host}"
        );
    }
}

/// A registration token of the other tenant, with scopes.
async fn shop(c: &Consul) -> String {
    let scopes = json!([
        "registry:kv:read",
        "registry:kv:write",
        "registry:session:write",
        "registry:event:write"
    ]);
    let wish = json!({"name_pattern": "shop-*", "tenant": OTHER.to_string(), "scopes": scopes});
    c.house.token(wish).await.0
}

#[tokio::test]
async fn tokens_are_taken_three_ways() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let token = shop(&c).await;
    let bearer = format!("Bearer {token}");
    let request = http::Request::builder()
        .uri("/v1/catalog/services")
        .header("authorization", bearer);
    assert_eq!(c.send(request, "", "10.0.0.9:1").await.status, 200);
    let by_query = http::Request::builder().uri(format!("/v1/catalog/services?token={token}"));
    assert_eq!(c.send(by_query, "", "10.0.0.9:1").await.status, 200);
    let wrong = c
        .as_token("prt_nonsense", "GET", "/v1/catalog/services", "")
        .await;
    assert_eq!((wrong.status, wrong.text.as_str()), (403, "ACL not found"));
}

#[tokio::test]
async fn everything_belongs_to_the_tokens_tenant() {
    for db in databases().await {
        let c = Consul::new(&db).await;
        let token = shop(&c).await;
        let mine = async |method: &str, path: &str, body: String| {
            c.as_token(&token, method, path, body).await
        };
        let body = json!({"Name": "shop-web", "Port": 80, "Check": {"TTL": "10s"}}).to_string();
        assert_eq!(
            mine("PUT", "/v1/agent/service/register", body).await.status,
            200
        );
        mine("PUT", "/v1/kv/secret", "1".to_owned()).await;
        let session = mine("PUT", "/v1/session/create", String::new())
            .await
            .json();
        let session = session["ID"].as_str().unwrap();
        assert_eq!(
            mine("PUT", "/v1/event/fire/e", "x".to_owned()).await.status,
            200
        );
        let seen = mine("GET", "/v1/catalog/services", String::new())
            .await
            .json();
        assert!(seen.get("shop-web").is_some());
        for path in [
            "/v1/catalog/service/shop-web",
            "/v1/health/service/shop-web",
            "/v1/session/list",
            "/v1/event/list",
        ] {
            assert_eq!(c.get(path).await.text, "[]", "{path}");
        }
        assert_eq!(
            c.get(&format!("/v1/session/info/{session}")).await.text,
            "[]"
        );
        assert_eq!(c.get("/v1/kv/secret").await.status, 404);
        assert_eq!(c.get("/v1/agent/services").await.text, "{}");
        assert_eq!(
            c.put("/v1/agent/check/pass/service:shop-web", "")
                .await
                .status,
            500
        );
        c.put("/v1/agent/service/deregister/shop-web", "").await;
        c.put(&format!("/v1/session/destroy/{session}"), "").await;
        let sessions = mine("GET", "/v1/session/list", String::new()).await.json();
        assert_eq!(sessions.as_array().unwrap().len(), 1);
        let txn = json!([{"KV": {"Verb": "get", "Key": "secret"}}]).to_string();
        assert_eq!(c.put("/v1/txn", txn).await.status, 409);
        let directory = c.house.directory();
        assert!(directory.find(OTHER, "shop-web").is_some());
        assert!(directory.find(id::TENANT_DEFAULT, "shop-web").is_none());
    }
}

#[tokio::test]
async fn tokens_do_no_more_than_their_names_and_scopes() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let body = json!({"Name": "bank", "Port": 80}).to_string();
    let answer = c
        .as_token(&shop(&c).await, "PUT", "/v1/agent/service/register", body)
        .await;
    assert_eq!(answer.status, 403);
    let (plain, _) = c.house.token(json!({"name_pattern": "shop-*"})).await;
    for (method, path) in [
        ("GET", "/v1/kv/secret"),
        ("PUT", "/v1/kv/secret"),
        ("PUT", "/v1/session/create"),
        ("PUT", "/v1/event/fire/x"),
    ] {
        let answer = c.as_token(&plain, method, path, "").await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (403, "Permission denied"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn names_of_others_are_not_for_anonymous_callers() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let body = json!({"name": "hello", "port": 9000, "host": "127.0.0.1", "tenant": "default"});
    let (_, made) = c.house.register(&crate::tests::operator(), body).await;
    let taken = c
        .put(
            "/v1/agent/service/register",
            json!({"Name": "hello", "Port": 80}).to_string(),
        )
        .await;
    assert_eq!(
        (taken.status, taken.text.as_str()),
        (403, "Permission denied")
    );
    let catalog =
        json!({"Node": "n", "Address": "10.0.0.1", "Service": {"Service": "hello"}}).to_string();
    assert_eq!(c.put("/v1/catalog/register", catalog).await.status, 403);
    let id = made["id"].as_str().unwrap();
    let gone = c
        .put(&format!("/v1/agent/service/deregister/{id}"), "")
        .await;
    assert_eq!(gone.status, 403, "{}", gone.text);
    assert_eq!(c.house.state(id), "ready");
}

#[tokio::test]
async fn a_node_with_instances_of_others_is_not_taken_out() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.register(json!({"Name": "mine", "Port": 80})).await;
    let check = json!({"Name": "disk", "TTL": "10s"}).to_string();
    assert_eq!(
        c.put("/v1/agent/check/register", check.clone())
            .await
            .status,
        200
    );
    assert_eq!(c.put("/v1/agent/check/pass/disk", "").await.status, 200);
    let body = json!({"name": "hello", "port": 9000, "host": "127.0.0.1", "tenant": "default"});
    let (_, made) = c.house.register(&crate::tests::operator(), body).await;
    for (path, body) in [
        ("agent/maintenance?enable=true", String::new()),
        ("agent/check/fail/disk", String::new()),
        ("agent/check/deregister/disk", String::new()),
        ("agent/check/register", check),
        (
            "catalog/register",
            json!({"Node": "test-host", "Address": "127.0.0.1", "Check": {"Name": "x"}})
                .to_string(),
        ),
        (
            "catalog/deregister",
            json!({"Node": "test-host", "CheckID": "disk"}).to_string(),
        ),
    ] {
        assert_eq!(
            c.put(&format!("/v1/{path}"), body).await.status,
            403,
            "{path}"
        );
    }
    assert_eq!(c.house.state(made["id"].as_str().unwrap()), "ready");
    assert_eq!(
        c.as_token("pop_test", "PUT", "/v1/agent/maintenance?enable=true", "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_operators_token_is_for_this_machine() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let request = || {
        http::Request::builder()
            .uri("/v1/kv/?keys")
            .header("x-consul-token", "pop_test")
    };
    assert_eq!(c.send(request(), "", "127.0.0.1:1").await.status, 404);
    assert_eq!(c.send(request(), "", "10.0.0.9:1").await.status, 403);
    assert_eq!(
        c.send(
            request().header("x-forwarded-for", "1.1.1.1"),
            "",
            "127.0.0.1:1"
        )
        .await
        .status,
        403
    );
}

/// API keys that are read before they are known: one may read keys and values, one only from afar.
#[derive(Default)]
struct ApiKeys(AtomicBool);

impl CredentialSource for ApiKeys {
    fn prefix(&self) -> &'static str {
        "ptk_"
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        let name = token.strip_prefix("ptk_")?;
        let known = self.0.load(SeqCst) && ["reads", "afar", "else"].contains(&name);
        known.then(|| {
            Arc::new(Principal {
                permissions: Arc::from([Permission::new("registry:kv:read")]),
                ..Principal::new(PrincipalKind::ApiKey, name, id::TENANT_DEFAULT)
            })
        })
    }

    fn load<'a>(&'a self, token: &'a str) -> Option<BoxFuture<'a, ()>> {
        (!token.ends_with('!')).then(|| {
            let load: BoxFuture<'a, ()> = Box::pin(async { self.0.store(true, SeqCst) });
            load
        })
    }

    fn bounds(&self, principal: &Principal) -> Option<Arc<Bounds>> {
        let mut bounds = Bounds::default();
        match &*principal.subject {
            "afar" => bounds.networks = vec!["10.0.0.0/8".parse().unwrap()],
            "else" => bounds.services = vec!["music".to_owned()],
            _ => return None,
        }
        Some(Arc::new(bounds))
    }
}

#[tokio::test]
async fn an_api_key_is_a_token_here_within_its_scopes_and_bounds() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    let keys = Arc::new(ApiKeys::default());
    c.state.credentials.add(keys.clone());
    assert_eq!(c.put("/v1/kv/a", "x").await.text, "true");
    let as_key = async |key: &str, method: &str| {
        let answer = c.as_token(key, method, "/v1/kv/a?raw", "y").await;
        (answer.status, answer.text)
    };
    assert_eq!(as_key("ptk_bad!", "GET").await.0, 403);
    assert!(!keys.0.load(SeqCst), "what cannot exist is not read");
    assert_eq!(as_key("ptk_reads", "GET").await, (200, "x".to_owned()));
    assert_eq!(as_key("ptk_reads", "PUT").await.0, 403);
    assert_eq!(
        as_key("ptk_unknown", "GET").await,
        (403, "ACL not found".to_owned())
    );
    assert_eq!(as_key("ptk_afar", "GET").await.0, 403, "not from here");
    assert_eq!(
        as_key("ptk_else", "GET").await.0,
        403,
        "not for this service"
    );
    let by_query = http::Request::builder().uri("/v1/kv/a?raw&token=ptk_reads");
    assert_eq!(c.send(by_query, "", "10.0.0.9:1").await.text, "x");
    let afar = http::Request::builder()
        .uri("/v1/kv/a?raw")
        .header("x-consul-token", "ptk_afar");
    assert_eq!(c.send(afar, "", "10.0.0.9:1").await.text, "x");
}

struct Suspended(parking_lot::Mutex<bool>);

impl portico_contract::tenants::Tenants for Suspended {
    fn by_id(&self, id: uuid::Uuid) -> Option<Arc<Tenant>> {
        let status = if *self.0.lock() {
            TenantStatus::Suspended
        } else {
            TenantStatus::Active
        };
        Some(Arc::new(Tenant {
            id,
            slug: Arc::from("default"),
            display_name: Arc::from("default"),
            status,
        }))
    }

    fn by_slug(&self, _slug: &str) -> Option<Arc<Tenant>> {
        None
    }

    fn by_host(&self, _host: &str) -> Option<Arc<Tenant>> {
        None
    }
}

/// ID-5: a registration token or key of a suspended tenant opens nothing here either, and what waits ends.
#[tokio::test]
async fn a_suspended_tenant_is_out_here_too() {
    let db = databases().await.remove(0);
    let c = Consul::new(&db).await;
    c.state.credentials.add(Arc::new(ApiKeys::default()));
    let tenants = Arc::new(Suspended(parking_lot::Mutex::new(false)));
    c.state.tenants.set(tenants.clone());
    let token = shop(&c).await;
    let as_token = async |token: &str| {
        let answer = c.as_token(token, "GET", "/v1/catalog/services", "").await;
        (answer.status, answer.text)
    };
    assert_eq!(as_token(&token).await.0, 200);
    assert_eq!(c.put("/v1/kv/a", "x").await.text, "true");
    let index = c.get("/v1/kv/a").await.index();
    let path = format!("/v1/kv/a?index={index}&wait=60s");
    // Read once, so that the query below waits for the key and not for its token.
    assert_eq!(
        c.as_token("ptk_reads", "GET", "/v1/kv/a", "").await.status,
        200
    );
    let mut waiting = std::pin::pin!(c.as_token("ptk_reads", "GET", &path, ""));
    while c.state.topics.len() == 0 {
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    *tenants.0.lock() = true;
    let operator = c.as_token("pop_test", "PUT", "/v1/kv/a", "y");
    let (ended, written) = tokio::join!(waiting, operator);
    assert_eq!(written.text, "true", "the operator repairs every tenant");
    let out = (403, "the tenant is suspended".to_owned());
    assert_eq!((ended.status, ended.text), out);
    assert_eq!(as_token(&token).await, out);
    assert_eq!(as_token("ptk_reads").await, out);
    assert_eq!(
        c.get("/v1/catalog/services").await.status,
        403,
        "nor without a token"
    );
    *tenants.0.lock() = false;
    assert_eq!(as_token(&token).await.0, 200, "nothing is lost");
}
