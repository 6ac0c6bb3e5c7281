//! `/watch` and `/stream`: changes by long poll and as server-sent events (CT-13).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use portico_base::Access;
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::error::Error;
use crate::hub::Core;
use crate::live::Watching;
use crate::ops::scope::Sight;
use crate::ops::watch::{self, News};
use crate::views::Setting;

/// Longest wait of a long poll.
const WAIT_S: u32 = 60;
/// A comment is sent after so long without news, so that nobody takes the stream for dead.
const COMMENT: Duration = Duration::from_secs(15);

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Authenticated, routes!(poll))
        .add(Access::Authenticated, routes!(events))
}

/// From where, and how long.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// Position behind which changes are told; absent: from now on.
    after: Option<u64>,
    /// Longest wait: `0s` to `60s`, default `30s`.
    wait: Option<String>,
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
}

/// From where.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Position behind which changes are told; absent: from now on. `Last-Event-ID` goes before it.
    after: Option<u64>,
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
}

/// Settings that changed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingsNews)]
struct Batch {
    /// Where to go on.
    seq: u64,
    /// As they are now, in the order of their last change; one that changed twice is there once.
    changed: Vec<Setting>,
}

impl From<News> for Batch {
    fn from(news: News) -> Self {
        Self {
            seq: news.seq,
            changed: news.changed,
        }
    }
}

fn seconds(text: Option<&str>) -> Result<Duration, Error> {
    let number = text.unwrap_or("30s");
    let number = number.strip_suffix('s').unwrap_or(number);
    match number.parse::<u32>() {
        Ok(s @ 0..=WAIT_S) => Ok(Duration::from_secs(u64::from(s))),
        _ => Err(Error::field("wait", "range", "must be from 0s to 60s")),
    }
}

/// Wait for changed settings
///
/// One answer `{"seq", "changed"}` as soon as there is news behind a position, or the wait is over. Whoever
/// goes on from `seq` misses nothing.
#[utoipa::path(get, path = "/watch", tag = "settings", params(WatchQuery),
    responses((status = 200, body = Batch)))]
async fn poll(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<WatchQuery>,
) -> ApiResult<Json<Batch>> {
    let wait = seconds(query.wait.as_deref())?;
    let after = query.after.unwrap_or_else(|| core.live.state().seq);
    let news = watch::wait(&core, &cx, query.scope.as_deref(), after, wait).await?;
    Ok(Json(news.into()))
}

struct Stream {
    core: Arc<Core>,
    sight: Sight,
    position: u64,
    watching: Watching,
}

/// Stream changed settings
///
/// Server-sent events `settings.changed` whose `id` is the position; `Last-Event-ID` goes on behind it.
#[utoipa::path(get, path = "/stream", tag = "settings", params(StreamQuery),
    responses((status = 200, description = "events", content_type = "text/event-stream")))]
async fn events(
    State(core): State<Api>,
    Cx(cx): Cx,
    headers: HeaderMap,
    Query(query): Query<StreamQuery>,
) -> ApiResult<Response> {
    let resumed = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse().ok());
    let position = resumed.or(query.after);
    let state = Stream {
        sight: Sight::of(&cx, query.scope.as_deref())?,
        position: position.unwrap_or_else(|| core.live.state().seq),
        watching: core.live.watch()?,
        core,
    };
    let frames = stream::unfold(state, |mut state| async move {
        let frame = frame(&mut state).await;
        Some((Ok::<Bytes, Infallible>(frame), state))
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

async fn frame(state: &mut Stream) -> Bytes {
    loop {
        let after = state.position;
        let news = watch::next(&state.core, &state.sight, &mut state.watching, after);
        state.position = news.seq;
        if !news.changed.is_empty() {
            let data = serde_json::to_string(&Batch::from(news)).unwrap_or_default();
            let id = state.position;
            return format!("id: {id}\nevent: settings.changed\ndata: {data}\n\n").into();
        }
        let waited = tokio::time::timeout(COMMENT, state.watching.news.changed()).await;
        if waited.is_err() {
            return Bytes::from_static(b": still here\n\n");
        }
    }
}
