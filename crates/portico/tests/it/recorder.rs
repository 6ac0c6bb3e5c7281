//! An instance that keeps what it gets and answers with it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, Method, request};
use portico_testkit::TestPlugin;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// The only value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map_or("", |value| value.to_str().unwrap());
        assert!(
            values.next().is_none(),
            "{name} is there twice: {:?}",
            self.headers
        );
        value
    }
}

/// The instance. It answers with its name and the target, and with headers of the test's.
pub(crate) struct Recorder {
    plugin: TestPlugin,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::answering(name, &[]).await
    }

    pub(crate) async fn answering(name: &'static str, headers: &'static [(&str, &str)]) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let list = Arc::clone(&seen);
        let router = Router::new().fallback(move |parts: request::Parts, body: Bytes| {
            let target = parts
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            let text = format!("{name} {target}");
            list.lock().unwrap().push(Seen {
                method: parts.method,
                target,
                headers: parts.headers,
                body,
            });
            async move {
                let mut response = Response::builder();
                for (name, value) in headers {
                    response = response.header(*name, *value);
                }
                response.body(Body::from(text)).unwrap()
            }
        });
        Self {
            plugin: TestPlugin::with(router).await,
            seen,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.plugin.address.port()
    }

    /// The newest request.
    pub(crate) fn last(&self) -> Seen {
        self.seen
            .lock()
            .unwrap()
            .last()
            .expect("a request arrived")
            .clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}
