//! `/watch`: changes of the directory by long poll or as server-sent events (RG-30).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use portico_web::{ApiResult, Cx, Query};
use serde::Deserialize;
use uuid::Uuid;

use super::Api;
use crate::error::Error;
use crate::hub::Core;
use crate::model::Topic;
use crate::ops::acts_for_all;
use crate::watch::{News, Watching, news};

/// Longest wait of a long poll.
const WAIT_S: u32 = 60;
/// A comment is sent after so long without news, so that nobody takes the stream for dead.
const COMMENT: Duration = Duration::from_secs(15);

/// From where, and how long.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchQuery {
    /// Position behind which changes are told; absent: from now on.
    since: Option<u64>,
    /// Seconds that a long poll waits for news: 0 to 60, default 30.
    wait: Option<u32>,
}

/// Watch the directory
///
/// Changes behind a position: server-sent events when asked for with `Accept: text/event-stream`
/// (`id` is the position), else one answer `{"seq", "events"}` as soon as there is news or the wait is
/// over.
#[utoipa::path(get, path = "/watch", tag = "registry", params(WatchQuery),
    responses((status = 200, description = "changes in their order"), (status = 410, description = "the position is too old: read the whole list again")))]
pub(super) async fn watch(
    State(api): State<Api>,
    Cx(cx): Cx,
    headers: HeaderMap,
    Query(wish): Query<WatchQuery>,
) -> ApiResult<Response> {
    let tenant = (!acts_for_all(cx.principal())).then(|| cx.tenant());
    let resumed = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse().ok());
    let since = resumed
        .or(wish.since)
        .unwrap_or_else(|| api.core.model.read().seq);
    let events = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.contains("text/event-stream"));
    let watching = api.core.ring.watcher()?;
    if events {
        return sse(&api.core, since, tenant, watching).await;
    }
    let wait = match wish.wait.unwrap_or(30) {
        s @ 0..=WAIT_S => Duration::from_secs(u64::from(s)),
        _ => return Err(Error::field("wait", "range", "must be from 0 to 60").into()),
    };
    poll(&api.core, since, tenant, wait).await
}

async fn poll(
    core: &Core,
    mut since: u64,
    tenant: Option<Uuid>,
    wait: Duration,
) -> ApiResult<Response> {
    let until = tokio::time::Instant::now() + wait;
    loop {
        let woken = core.topics.listen(Topic::Watch);
        let found = news(core, since, tenant).await?;
        since = found.upto;
        let over = tokio::time::Instant::now() >= until;
        if !found.events.is_empty() || over {
            return Ok(batch(&found));
        }
        // A time-out is an answer without changes, not an error.
        let _ = tokio::time::timeout_at(until, woken.woken()).await;
    }
}

/// `{"seq":…,"events":[…]}` from the texts that every watcher shares.
fn batch(found: &News) -> Response {
    let size: usize = found.events.iter().map(|e| e.data.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 40);
    out.put_slice(format!("{{\"seq\":{},\"events\":[", found.upto).as_bytes());
    for (i, event) in found.events.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&event.data);
    }
    out.put_slice(b"]}");
    let json = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    (json, out.freeze()).into_response()
}

struct Stream {
    core: Arc<Core>,
    since: u64,
    tenant: Option<Uuid>,
    /// Counted as long as the stream lives.
    _watching: Watching,
    ended: bool,
}

async fn sse(
    core: &Arc<Core>,
    since: u64,
    tenant: Option<Uuid>,
    watching: Watching,
) -> ApiResult<Response> {
    // Looked at once before the answer begins, so that a position that is too old is a status.
    news(core, since, tenant).await?;
    let state = Stream {
        core: Arc::clone(core),
        since,
        tenant,
        _watching: watching,
        ended: false,
    };
    let frames = stream::unfold(state, |mut state| async move {
        if state.ended {
            return None;
        }
        let frame = next_frame(&mut state).await;
        Some((Ok::<Bytes, std::convert::Infallible>(frame), state))
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

async fn next_frame(state: &mut Stream) -> Bytes {
    loop {
        let woken = state.core.topics.listen(Topic::Watch);
        match news(&state.core, state.since, state.tenant).await {
            Ok(found) => {
                state.since = found.upto;
                if !found.events.is_empty() {
                    return frames(&found);
                }
            }
            Err(error) => {
                // The client comes back with its last id and gets the status then.
                tracing::debug!(err = %error, "a watch ended");
                state.ended = true;
                return Bytes::from_static(b"event: end\ndata: {}\n\n");
            }
        }
        if tokio::time::timeout(COMMENT, woken.woken()).await.is_err() {
            return Bytes::from_static(b": still here\n\n");
        }
    }
}

/// One change, the usual news, is sent as it is; several are put together.
fn frames(found: &News) -> Bytes {
    if let [event] = found.events.as_slice() {
        return event.frame();
    }
    let mut out = BytesMut::new();
    for event in &found.events {
        out.put_slice(&event.frame());
    }
    out.freeze()
}
