//! `/{key}/history` and `/diff`.

use axum::extract::{Path, State};
use portico_base::Access;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, routes};
use serde::Deserialize;

use super::Api;
use crate::ops::history::{self, Difference};
use crate::permissions::VALUE_READ;
use crate::views::HistoryEntry;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(VALUE_READ), routes!(list))
        .add(Access::Permission(VALUE_READ), routes!(diff))
}

/// Which page.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which versions.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DiffQuery {
    key: String,
    /// The older version; 0: nothing set.
    from: u64,
    /// The newer version.
    to: u64,
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
}

/// List versions of a setting
///
/// Newest first: value, who, when, from where, comment, change set. Kept for ever.
#[utoipa::path(get, path = "/{key}/history", tag = "settings", params(HistoryQuery, ("key" = String, Path, description = "the key")),
    responses((status = 200, body = Page<HistoryEntry>), (status = 404, description = "unknown")))]
async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(key): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> ApiResult<Json<Page<HistoryEntry>>> {
    let limit = portico_web::page::limit(query.limit)?;
    let below = query
        .cursor
        .as_deref()
        .map(Cursor::<u64>::decode)
        .transpose()?;
    let scope = query.scope.as_deref();
    let items = history::page(&core, &cx, scope, &key, below.map(|c| c.0), limit).await?;
    Ok(Json(Page::cut(items, limit, |entry| entry.version)))
}

/// Compare two versions of a setting
///
/// Line by line for text with lines, path by path for everything else.
#[utoipa::path(get, path = "/diff", tag = "settings", params(DiffQuery),
    responses((status = 200, body = Difference), (status = 404, description = "unknown")))]
async fn diff(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(q): Query<DiffQuery>,
) -> ApiResult<Json<Difference>> {
    let scope = q.scope.as_deref();
    let found = history::difference(&core, &cx, scope, &q.key, q.from, q.to).await?;
    Ok(Json(found))
}
