//! Echo: says what it saw, as a service behind the door sees it.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderValue, StatusCode, header};
use portico_base::FieldFault;
use portico_web::{Problem, Query};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::run::Endpoint;

const MAX_BYTES: u64 = 10_000_000;
const MAX_DELAY_MS: u64 = 30_000;
const MAX_BODY: usize = 64 * 1024;

/// What it declares at registration.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::public_get("/events", "server-sent events, one a second", None),
        Endpoint::public_get("/ws", "WebSocket that sends back what it gets", None),
        Endpoint::public_get("/healthz", "answers while it is well", None),
    ]
}

/// The routes.
pub(super) fn router() -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/events", get(events))
        .route("/ws", get(socket))
        .fallback(any(echo))
}

#[derive(Debug, Default, Deserialize)]
struct Wishes {
    delay_ms: Option<u64>,
    status: Option<u16>,
    bytes: Option<u64>,
}

async fn echo(Query(wishes): Query<Wishes>, request: Request) -> Result<Response, Problem> {
    let status = check(&wishes)?;
    tokio::time::sleep(Duration::from_millis(wishes.delay_ms.unwrap_or(0))).await;
    if let Some(bytes) = wishes.bytes {
        return Ok(filler(status, bytes));
    }
    let (parts, body) = request.into_parts();
    let mut headers = Map::new();
    for name in parts.headers.keys() {
        let values: Vec<Value> = parts
            .headers
            .get_all(name)
            .iter()
            .map(|value| Value::from(String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let shown = if values.len() == 1 {
            values[0].clone()
        } else {
            Value::from(values)
        };
        headers.insert(name.to_string(), shown);
    }
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| {
        Problem::new(413, "echo.body_too_large").with_detail("at most 64 KiB are echoed")
    })?;
    let seen = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "http": format!("{:?}", parts.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let text = serde_json::to_string_pretty(&seen).unwrap_or_default();
    let kind = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    Ok((status, kind, text + "\n").into_response())
}

fn check(wishes: &Wishes) -> Result<StatusCode, Problem> {
    let mut faults = Vec::new();
    let mut most = |field: &str, value: Option<u64>, most: u64| {
        if value.is_some_and(|v| v > most) {
            faults.push(FieldFault::new(
                field,
                "too_large",
                format!("must be at most {most}"),
            ));
        }
    };
    most("delay_ms", wishes.delay_ms, MAX_DELAY_MS);
    most("bytes", wishes.bytes, MAX_BYTES);
    let status = match wishes.status.unwrap_or(200) {
        code @ 200..=599 => StatusCode::from_u16(code).unwrap_or(StatusCode::OK),
        _ => {
            faults.push(FieldFault::new(
                "status",
                "invalid",
                "must be from 200 to 599",
            ));
            StatusCode::OK
        }
    };
    if faults.is_empty() {
        Ok(status)
    } else {
        Err(Problem::invalid("echo.invalid", faults))
    }
}

fn filler(status: StatusCode, bytes: u64) -> Response {
    const CHUNK: usize = 16 * 1024;
    static ZEROS: [u8; CHUNK] = [b'.'; CHUNK];
    let chunks = stream::unfold(bytes, |left| async move {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        (take > 0).then(|| {
            let chunk = bytes::Bytes::from_static(&ZEROS[..take]);
            (Ok::<_, Infallible>(chunk), left - take as u64)
        })
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    (status, kind, Body::from_stream(chunks)).into_response()
}

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = stream::unfold(0_u64, |count| async move {
        if count > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let event = Event::default()
            .id(count.to_string())
            .event("tick")
            .data(count.to_string());
        Some((Ok(event), count + 1))
    });
    Sse::new(ticks).keep_alive(KeepAlive::default())
}

async fn socket(upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .max_message_size(1024 * 1024)
        .on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.next().await {
                let back = match message {
                    Message::Text(_) | Message::Binary(_) => message,
                    Message::Close(_) => return,
                    Message::Ping(_) | Message::Pong(_) => continue,
                };
                if socket.send(back).await.is_err() {
                    return;
                }
            }
        })
}
