//! A stranger's program behind the door: a small HTTP server on a free port that counts what it gets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use portico_web::serve::{Limits, serve};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running plug-in. It stops when it is dropped.
pub struct TestPlugin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl TestPlugin {
    /// A plug-in that answers everything with what it saw, and its name.
    pub async fn echo(name: &'static str) -> Self {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let router = Router::new().fallback(move |request: Request| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { portico_web::Json(describe(name, &request)) }
        });
        Self::serve(router, seen).await
    }

    /// A plug-in with routes of the test's own.
    pub async fn with(router: Router) -> Self {
        Self::serve(router, Arc::default()).await
    }

    async fn serve(router: Router, seen: Arc<AtomicUsize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let stop = CancellationToken::new();
        tokio::spawn(serve(
            listener,
            router,
            Limits::default(),
            TaskTracker::new(),
            stop.clone(),
        ));
        Self {
            address,
            seen,
            stop,
        }
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// A registration of this plug-in; further fields are put over it.
    #[must_use]
    pub fn registration(&self, name: &str, more: &Value) -> Value {
        let mut body = json!({
            "name": name,
            "version": "1.0.0",
            "host": self.address.ip().to_string(),
            "port": self.address.port(),
            "default_access": "public",
        });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        body
    }
}

impl Drop for TestPlugin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn describe(name: &str, request: &Request) -> Value {
    let headers: Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                Value::from(String::from_utf8_lossy(value.as_bytes())),
            )
        })
        .collect();
    json!({
        "plugin": name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "headers": headers,
    })
}
