//! A registry that records what a plug-in says to it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Said {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Answers that are due: for which kind of request, the status, the document.
type Script = Arc<Mutex<VecDeque<(&'static str, u16, Value)>>>;

/// Answers of the script come first, each once; then what a registry usually says.
pub(crate) struct FakeGateway {
    pub(crate) url: String,
    said: mpsc::UnboundedReceiver<Said>,
    script: Script,
}

#[derive(Clone)]
struct Shared {
    said: mpsc::UnboundedSender<Said>,
    script: Script,
}

impl FakeGateway {
    pub(crate) async fn start(
        script: impl IntoIterator<Item = (&'static str, u16, Value)>,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, said) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let shared = Shared {
            said: sender,
            script: Arc::clone(&script),
        };
        let app = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, said, script }
    }

    /// Adds an answer to the script.
    pub(crate) fn then(&self, verb: &'static str, status: u16, document: Value) {
        self.script
            .lock()
            .unwrap()
            .push_back((verb, status, document));
    }

    /// The next request, which must be of this kind.
    pub(crate) async fn next(&mut self, verb: &str) -> Said {
        let said = tokio::time::timeout(PATIENCE, self.said.recv())
            .await
            .expect("nothing came")
            .unwrap();
        assert_eq!(kind(&said.path), verb, "{said:?}");
        said
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.said.try_recv().is_err()
    }
}

/// What a registry says to a registration.
pub(crate) fn registered(secret: Option<&str>, heartbeat_s: f64) -> Value {
    let mut document = json!({
        "id": "i-1", "service": "notes", "version": "1.0.0", "state": "ready", "heartbeat_s": heartbeat_s, "directory_seq": 7,
        "identity": {"jwks_url": "http://127.0.0.1:9/jwks.json", "issuer": "urn:portico:test"},
    });
    if let Some(secret) = secret {
        document["instance_secret"] = secret.into();
    }
    document
}

fn kind(path: &str) -> &str {
    path.strip_prefix("/api/registry/")
        .map_or("other", |rest| rest.split('/').next().unwrap_or_default())
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.to_string();
    let verb = kind(&path).to_owned();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let scripted = {
        let mut script = shared.script.lock().unwrap();
        let at = script.iter().position(|(of, ..)| *of == verb);
        at.and_then(|i| script.remove(i))
            .map(|(_, status, document)| (status, document))
    };
    let (status, document) = scripted.unwrap_or_else(|| match verb.as_str() {
        "register" => (201, registered(Some("pis_first"), 30.0)),
        "heartbeat" => (
            200,
            json!({"next_s": 30, "drain": false, "directory_seq": 7}),
        ),
        "deregister" => (200, json!({"state": "draining"})),
        _ => (
            404,
            json!({"status": 404, "code": "gateway.service_not_found"}),
        ),
    });
    shared
        .said
        .send(Said {
            path,
            headers: head.headers,
            body,
        })
        .ok();
    let location = document
        .get("location")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let mut response =
        (StatusCode::from_u16(status).unwrap(), axum::Json(document)).into_response();
    if let Some(location) = location {
        response
            .headers_mut()
            .insert("location", location.parse().unwrap());
    }
    response
}
