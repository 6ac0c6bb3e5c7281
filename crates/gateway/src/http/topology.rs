//! `/topology`: who is there and what flows between them, over a window.

use axum::extract::State;
use portico_base::{Access, Permission};
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::Deserialize;

use super::Api;
use crate::error::Error;
use crate::pipeline::operate::Audience;
use crate::topology::TopologyView;
use crate::topology::ring::SECONDS;

/// Permission to look at the map, whole or live.
pub(super) const READ: Permission = Permission::new("gateway:topology:read");

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Window {
    /// Time back from now, in seconds (`60`, `60s`) or minutes (`15m`): 1 s to 15 min, default 60 s.
    window: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(READ), routes!(topology))
}

/// Show the map
///
/// Nodes (gateway, services, versions, instances with their state) and edges with rate, error rate and
/// latency over the window, summed over replicas.
#[utoipa::path(get, path = "/topology", tag = "gateway", params(Window), responses((status = 200, body = TopologyView)))]
async fn topology(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(asked): Query<Window>,
) -> ApiResult<Json<TopologyView>> {
    let window_s = seconds(asked.window.as_deref())?;
    let audience = Audience::of(cx.principal());
    let topology = api.breakers.topology.clone();
    // Adding up minutes takes milliseconds: not on a thread of the data plane.
    let drawn = tokio::task::spawn_blocking(move || topology.view(window_s, audience));
    let mut view = drawn.await.unwrap_or(Err(Error::NotServing))?;
    api.breakers.topology.complete(&mut view, audience).await?;
    Ok(Json(view))
}

fn seconds(text: Option<&str>) -> Result<u32, Error> {
    let Some(text) = text else { return Ok(60) };
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let most = u32::try_from(SECONDS).unwrap_or(u32::MAX);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let seconds = digits.then(|| number.parse::<u32>().ok()?.checked_mul(unit));
    match seconds.flatten() {
        Some(seconds) if (1..=most).contains(&seconds) => Ok(seconds),
        _ => Err(Error::field(
            "window",
            "invalid",
            "must be from 1s to 900s, or 1m to 15m",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_seconds_or_minutes_within_what_is_kept() {
        for (text, wanted) in [
            (None, Some(60)),
            (Some("1"), Some(1)),
            (Some("300s"), Some(300)),
            (Some("15m"), Some(900)),
            (Some("16m"), None),
            (Some("0"), None),
            (Some("901"), None),
            (Some(""), None),
            (Some("m"), None),
            (Some("-5"), None),
            (Some("+5"), None),
            (Some("5h"), None),
            (Some("99999999999m"), None),
        ] {
            assert_eq!(seconds(text).ok(), wanted, "{text:?}");
        }
    }
}
