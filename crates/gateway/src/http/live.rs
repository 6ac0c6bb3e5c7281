//! `/live`: the map as it changes, once a second, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::{HeaderValue, header};
use portico_base::Access;
use portico_web::{ApiResult, Cx, Routes, routes};

use super::Api;
use super::topology::READ;
use crate::live::Watcher;
use crate::pipeline::operate::Audience;

/// A comment is sent after so long without a frame, so that nobody takes the stream for dead.
const COMMENT: Duration = Duration::from_secs(15);

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(READ), routes!(live))
}

/// Watch the map
///
/// The map live: an event `map` with everything, then each second an event `step` with the nodes that
/// changed, the edges on which something happened, and happenings (registrations, breakers). After
/// seconds that were missed comes `map` again; after `end` nothing more.
#[utoipa::path(get, path = "/live", tag = "gateway",
    responses((status = 200, description = "server-sent events", content_type = "text/event-stream"),
        (status = 429, description = "too many watch already")))]
async fn live(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Response> {
    let topology = &api.breakers.topology;
    let audience = Audience::of(cx.principal());
    let watcher = topology.live().watch(topology, audience)?;
    let frames = stream::unfold(Some(watcher), |state| async move {
        let mut watcher = state?;
        match frame(&mut watcher).await {
            Some(text) => Some((Ok::<Bytes, Infallible>(text), Some(watcher))),
            None => Some((Ok(Bytes::from_static(b"event: end\ndata: {}\n\n")), None)),
        }
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

async fn frame(watcher: &mut Watcher) -> Option<Bytes> {
    match tokio::time::timeout(COMMENT, watcher.next()).await {
        Ok(text) => text,
        Err(_) => Some(Bytes::from_static(b": still here\n\n")),
    }
}
