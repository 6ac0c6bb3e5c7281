//! `/schema`, `/` and `/{key}`: what is declared, and what is in force.

use axum::extract::{Path, State};
use portico_base::Access;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, routes};
use serde::Deserialize;

use super::Api;
use crate::error::Result;
use crate::ops::read;
use crate::ops::scope::Sight;
use crate::views::{Declaration, Setting};

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    // Plug-ins hold no permission for settings and read their own; the use-cases decide.
    all.add(Access::Authenticated, routes!(schema))
        .add(Access::Authenticated, routes!(list))
        .add(Access::Authenticated, routes!(get))
}

/// Which settings.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Keys that begin with it.
    prefix: Option<String>,
    /// `system`, or a tenant's id; absent: the own.
    scope: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ListQuery {
    fn after(&self) -> ApiResult<Option<String>> {
        let cursor = self.cursor.as_deref();
        Ok(cursor
            .map(Cursor::<String>::decode)
            .transpose()?
            .map(|c| c.0))
    }

    fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or_default()
    }
}

/// Which scope.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScopeQuery {
    /// `system`, or a tenant's id; absent: the own.
    pub scope: Option<String>,
}

/// List declared settings
///
/// Every setting that exists, with its type, default, bounds and what a change asks for.
#[utoipa::path(get, path = "/schema", tag = "settings", params(ListQuery),
    responses((status = 200, body = Page<Declaration>)))]
async fn schema(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Declaration>>> {
    let sight = Sight::of(&cx, query.scope.as_deref())?;
    let (limit, after) = (portico_web::page::limit(query.limit)?, query.after()?);
    let found = read::declarations(&core, &sight, query.prefix(), after.as_deref(), limit);
    let items: Vec<Declaration> = found.iter().map(|d| Declaration::from(&**d)).collect();
    Ok(Json(Page::cut(items, limit, |d| d.key.clone())))
}

/// List settings
///
/// The values in force for a scope, each with where it comes from and its version.
#[utoipa::path(get, path = "/", tag = "settings", params(ListQuery),
    responses((status = 200, body = Page<Setting>)))]
async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Setting>>> {
    let sight = Sight::of(&cx, query.scope.as_deref())?;
    let (limit, after) = (portico_web::page::limit(query.limit)?, query.after()?);
    let items = read::list(&core, &sight, query.prefix(), after.as_deref(), limit);
    Ok(Json(Page::cut(items, limit, |s| s.key.clone())))
}

/// Read a setting
///
/// The value in force for a scope. A secret is never shown, only whether it is set and its fingerprint; a
/// plug-in gets its own.
#[utoipa::path(get, path = "/{key}", tag = "settings", params(ScopeQuery, ("key" = String, Path, description = "the key")),
    responses((status = 200, body = Setting), (status = 404, description = "no service declares it")))]
async fn get(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(key): Path<String>,
    Query(query): Query<ScopeQuery>,
) -> ApiResult<Json<Setting>> {
    let found: Result<Setting> = read::get(&core, &cx, query.scope.as_deref(), &key);
    Ok(Json(found?))
}
