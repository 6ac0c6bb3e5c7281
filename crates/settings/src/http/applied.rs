//! `/applied` and `/configuration`: who runs which version, and what no API changes.

use axum::extract::State;
use portico_base::Access;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use crate::ops::applied::{self, Overview};
use crate::permissions::VALUE_READ;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(VALUE_READ), routes!(overview))
        .add(Access::Permission(VALUE_READ), routes!(configuration))
}

/// See which replica runs which version
///
/// Every replica with the position that it took over, what it refused and why, and whether it lags.
#[utoipa::path(get, path = "/applied", tag = "settings", responses((status = 200, body = Overview)))]
async fn overview(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Overview>> {
    Ok(Json(applied::overview(&core, &cx).await?))
}

/// The configuration of the asked process.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Configuration)]
struct Configuration {
    items: Vec<Line>,
}

/// One key of the configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConfigurationLine)]
struct Line {
    key: String,
    /// On one line, secrets masked.
    value: String,
    /// `default`, `file`, `environment` or `flag`.
    layer: &'static str,
    /// The file with its line, the variable, the flag.
    origin: String,
}

/// Read the configuration
///
/// What the asked process was started with, and from where; it can be changed by no API.
#[utoipa::path(get, path = "/configuration", tag = "settings", responses((status = 200, body = Configuration)))]
async fn configuration(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Configuration>> {
    let rows = applied::configuration(&core, &cx)?;
    let items = rows.iter().map(|row| Line {
        key: row.key.clone(),
        value: row.value.clone(),
        layer: row.layer,
        origin: row.origin.to_string(),
    });
    Ok(Json(Configuration {
        items: items.collect(),
    }))
}
