//! The API as clients see it, driven in-process on both databases.

mod access;
mod blocking;
mod directory;
mod kv;
mod sessions;
mod txn;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::HeaderMap;
use portico_contract::credentials::{CredentialSource, Credentials};
use portico_db::testing::{TestDb, postgres, sqlite};
use portico_web::serve::Peer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use super::{ConsulState, Options, router};
use crate::tests::House;

/// The API of one process.
pub(super) struct Consul {
    pub(super) house: House,
    pub(super) state: ConsulState,
    router: Router,
    pub(super) stop: CancellationToken,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub(super) fn index(&self) -> u64 {
        self.header("x-consul-index").parse().expect("an index")
    }
}

pub(super) fn options() -> Options {
    Options {
        datacenter: Arc::from("dc1"),
        deregister_min_ms: 60_000,
        list_builtin: false,
        anonymous: true,
        hosts: vec!["consul.example".to_owned()],
    }
}

impl Consul {
    pub(super) async fn new(db: &TestDb) -> Self {
        Self::around(House::new(db).await, options())
    }

    pub(super) fn around(house: House, options: Options) -> Self {
        let credentials = Credentials::default();
        let core = || Arc::clone(&house.core);
        credentials.add(Arc::new(crate::credentials::Registrars(core())));
        credentials.add(Arc::new(crate::credentials::Instances(core())));
        credentials.add(Arc::new(Operator));
        let stop = CancellationToken::new();
        let who = (credentials, Arc::default());
        let state = ConsulState::new(core(), options, who, stop.clone());
        Self {
            router: router(state.clone()),
            house,
            state,
            stop,
        }
    }

    /// Sends a request with headers from a peer.
    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: impl Into<Body>,
        peer: &str,
    ) -> Answer {
        let mut request = request.body(body.into()).expect("a request");
        let remote: SocketAddr = peer.parse().expect("an address");
        let local = SocketAddr::from(([127, 0, 0, 1], 8500));
        request.extensions_mut().insert(Peer { remote, local });
        request
            .headers_mut()
            .entry("host")
            .or_insert_with(|| "127.0.0.1:8500".parse().unwrap());
        let response = self
            .router
            .clone()
            .call(request)
            .await
            .unwrap_or_else(|never| match never {});
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).expect("text"),
        }
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = http::Request::builder().method(method).uri(path);
        self.send(request, body, "127.0.0.1:40000").await
    }

    pub(super) async fn as_token(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("x-consul-token", token);
        self.send(request, body, "127.0.0.1:40000").await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Body::empty()).await
    }

    pub(super) async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.call("PUT", path, body).await
    }

    /// Registers through the agent.
    pub(super) async fn register(&self, body: Value) {
        let answer = self
            .put("/v1/agent/service/register", body.to_string())
            .await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""), "{body}");
    }
}

/// The operator's token of these tests.
struct Operator;

impl CredentialSource for Operator {
    fn prefix(&self) -> &'static str {
        "pop_"
    }

    fn find(&self, token: &str) -> Option<Arc<portico_base::Principal>> {
        (token == "pop_test").then(|| Arc::new(portico_base::Principal::operator()))
    }
}

/// SQLite always, PostgreSQL where it is installed.
pub(super) async fn databases() -> Vec<TestDb> {
    let mut out = vec![sqlite().await];
    out.extend(postgres().await);
    out
}
