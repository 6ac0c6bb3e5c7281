//! `/cache`: purge what is stored, look at how much there is.

use axum::extract::State;
use portico_base::{Access, Permission};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::cache::By;

/// What to purge.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayPurge)]
struct PurgeBody {
    /// `url`, `prefix`, `tag`, `service` or `tenant`.
    #[schema(value_type = String)]
    by: By,
    /// The address, prefix, tag, service or tenant.
    value: String,
    /// Stale from now on (the default) instead of gone.
    #[serde(default = "yes")]
    soft: bool,
}

const fn yes() -> bool {
    true
}

/// A purge that is in force on this replica, and on the others within a second.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayPurged)]
struct Purged {
    /// When it took force, in Unix milliseconds.
    at_ms: u64,
}

/// What the cache of this replica holds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheStats)]
struct Stats {
    /// Answers in memory that are fresh.
    l1_entries: u64,
    /// Their size in bytes.
    l1_bytes: u64,
    /// Answers kept for when their origin fails.
    l3_entries: u64,
    /// Their size in bytes.
    l3_bytes: u64,
    /// Requests that wait for somebody else's fetch.
    waiters: u64,
    /// Fetches under way.
    fetches: u64,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = Permission::new("gateway:cache:write");
    all.add(Access::Permission(write.clone()), routes!(purge))
        .add(
            Access::AnyOf(vec![Permission::new("gateway:cache:read"), write]),
            routes!(stats),
        )
}

/// Purges what is stored by URL, prefix, tag, service or tenant.
#[utoipa::path(post, path = "/cache/purge", tag = "gateway", request_body = PurgeBody,
    responses((status = 200, body = Purged)))]
async fn purge(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<PurgeBody>,
) -> ApiResult<Json<Purged>> {
    let at_ms = api
        .purges
        .order(&cx, body.by, body.value, body.soft)
        .await?;
    Ok(Json(Purged { at_ms }))
}

/// What the cache of this replica holds.
#[utoipa::path(get, path = "/cache/stats", tag = "gateway", responses((status = 200, body = Stats)))]
async fn stats(State(api): State<Api>) -> Json<Stats> {
    let gauges = api.purges.cache().gauges();
    Json(Stats {
        l1_entries: gauges.l1_entries,
        l1_bytes: gauges.l1_bytes,
        l3_entries: gauges.l3_entries,
        l3_bytes: gauges.l3_bytes,
        waiters: gauges.waiters,
        fetches: gauges.fetches,
    })
}
