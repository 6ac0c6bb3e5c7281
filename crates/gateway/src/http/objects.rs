//! `/routes`, `/limits`, `/cache-rules`, `/hosts`, `/cors`, `/transforms`, `/blocks`, `/releases`: objects with history.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use portico_base::{Access, Timestamp};
use portico_web::{
    ApiResult, Cursor, Cx, IfMatch, Json, Page, PageQuery, Problem, Query, Routes, etag, routes,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use crate::objects::{Kind, Saved, Version, Wish};

/// An object with the version in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayObject)]
struct ObjectBody {
    name: String,
    /// Rises by one with each change.
    version: i64,
    /// The document; absent in the history for a deletion.
    #[schema(value_type = Option<Object>)]
    doc: Option<Value>,
    /// Who made this version.
    author: String,
    /// Why.
    message: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Other routes that match the same requests; the older one wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<String>,
}

/// A document to save.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayObjectWish)]
struct WishBody {
    /// Name of the object; needed to create one.
    name: Option<String>,
    /// The document.
    #[schema(value_type = Object)]
    doc: Value,
    /// Why, for the history.
    #[serde(default)]
    message: String,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SaveQuery {
    /// Only check and say what would happen.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayRollback)]
struct RollbackBody {
    /// Version to return to; the one before when absent.
    to: Option<i64>,
    /// Why, for the history.
    message: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    // The use-case asks for the right of the kind; here nobody without any right gets in.
    let read = Access::AnyOf(
        Kind::ALL
            .into_iter()
            .flat_map(|kind| [kind.read(), kind.write()])
            .collect(),
    );
    let write = Access::AnyOf(Kind::ALL.map(Kind::write).to_vec());
    all.add(read.clone(), routes!(list))
        .add(write.clone(), routes!(create))
        .add(read.clone(), routes!(get))
        .add(write.clone(), routes!(put))
        .add(write.clone(), routes!(delete))
        .add(read, routes!(versions))
        .add(write, routes!(rollback))
}

/// List objects
///
/// Of a kind, in the order of their names.
#[utoipa::path(get, path = "/{kind}", tag = "gateway",
    params(("kind" = String, Path, description = "routes, limits, cache-rules, hosts, cors, transforms, blocks, releases"), PageQuery),
    responses((status = 200, body = Page<ObjectBody>)))]
async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(segment): Path<String>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Page<ObjectBody>>> {
    let limit = page.limit()?;
    let after = page
        .cursor
        .as_deref()
        .map(Cursor::<String>::decode)
        .transpose()?;
    let after = after.as_ref().map(|cursor| cursor.0.as_str());
    let versions = api.ops.list(&cx, kind(&segment)?, after, limit + 1).await?;
    let items = versions.into_iter().map(ObjectBody::from).collect();
    Ok(Json(Page::cut(items, limit, |item: &ObjectBody| {
        item.name.clone()
    })))
}

/// Create an object
///
/// 409 when the name is taken.
#[utoipa::path(post, path = "/{kind}", tag = "gateway", request_body = WishBody,
    params(("kind" = String, Path), SaveQuery), responses((status = 201, body = ObjectBody)))]
async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(segment): Path<String>,
    Query(query): Query<SaveQuery>,
    Json(body): Json<WishBody>,
) -> ApiResult<Response> {
    let kind = kind(&segment)?;
    let name = body.name.unwrap_or_default();
    let wish = Wish {
        kind,
        name,
        doc: body.doc,
        message: body.message,
        expected: None,
        create: true,
        dry_run: query.dry_run,
    };
    let saved = api.ops.save(&cx, wish).await?;
    let status = if query.dry_run {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, answer(saved)).into_response())
}

/// Show an object
#[utoipa::path(get, path = "/{kind}/{name}", tag = "gateway",
    params(("kind" = String, Path), ("name" = String, Path)), responses((status = 200, body = ObjectBody)))]
async fn get(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path((segment, name)): Path<(String, String)>,
) -> ApiResult<Response> {
    let version = api.ops.get(&cx, kind(&segment)?, &name).await?;
    Ok(answer(Saved {
        version,
        conflicts: Vec::new(),
    }))
}

/// Save an object
///
/// Creates or replaces it; `If-Match` guards against a lost update.
#[utoipa::path(put, path = "/{kind}/{name}", tag = "gateway", request_body = WishBody,
    params(("kind" = String, Path), ("name" = String, Path), SaveQuery), responses((status = 200, body = ObjectBody)))]
async fn put(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path((segment, name)): Path<(String, String)>,
    IfMatch(expected): IfMatch,
    Query(query): Query<SaveQuery>,
    Json(body): Json<WishBody>,
) -> ApiResult<Response> {
    let kind = kind(&segment)?;
    if body.name.as_ref().is_some_and(|other| *other != name) {
        return Err(
            crate::error::Error::field("name", "invalid", "is not the name in the path").into(),
        );
    }
    let wish = Wish {
        kind,
        name,
        doc: body.doc,
        message: body.message,
        expected,
        create: false,
        dry_run: query.dry_run,
    };
    Ok(answer(api.ops.save(&cx, wish).await?))
}

/// Delete an object
///
/// Its history stays.
#[utoipa::path(delete, path = "/{kind}/{name}", tag = "gateway",
    params(("kind" = String, Path), ("name" = String, Path)), responses((status = 204)))]
async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path((segment, name)): Path<(String, String)>,
    IfMatch(expected): IfMatch,
) -> ApiResult<StatusCode> {
    api.ops
        .delete(&cx, kind(&segment)?, &name, expected)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show the history of an object
///
/// Newest first.
#[utoipa::path(get, path = "/{kind}/{name}/versions", tag = "gateway",
    params(("kind" = String, Path), ("name" = String, Path), PageQuery), responses((status = 200, body = Page<ObjectBody>)))]
async fn versions(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path((segment, name)): Path<(String, String)>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Page<ObjectBody>>> {
    let limit = page.limit()?;
    let before = page
        .cursor
        .as_deref()
        .map(Cursor::<i64>::decode)
        .transpose()?
        .map(|cursor| cursor.0);
    let versions = api
        .ops
        .versions(&cx, kind(&segment)?, &name, before, limit + 1)
        .await?;
    let items = versions.into_iter().map(ObjectBody::from).collect();
    Ok(Json(Page::cut(items, limit, |item: &ObjectBody| {
        item.version
    })))
}

/// Roll an object back
///
/// Makes an earlier version the newest again.
#[utoipa::path(post, path = "/{kind}/{name}/rollback", tag = "gateway", request_body = RollbackBody,
    params(("kind" = String, Path), ("name" = String, Path)), responses((status = 200, body = ObjectBody)))]
async fn rollback(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path((segment, name)): Path<(String, String)>,
    IfMatch(expected): IfMatch,
    Json(body): Json<RollbackBody>,
) -> ApiResult<Response> {
    let version = api
        .ops
        .rollback(&cx, kind(&segment)?, &name, body.to, expected, body.message)
        .await?;
    Ok(answer(Saved {
        version,
        conflicts: Vec::new(),
    }))
}

fn kind(segment: &str) -> Result<Kind, Problem> {
    Kind::of_segment(segment).ok_or_else(|| {
        Problem::new(404, "system.not_found").with_detail("there is nothing at this path")
    })
}

fn answer(saved: Saved) -> Response {
    let tag = etag(saved.version.version);
    let body = ObjectBody {
        conflicts: saved.conflicts,
        ..ObjectBody::from(saved.version)
    };
    ([(header::ETAG, tag)], Json(body)).into_response()
}

impl From<Version> for ObjectBody {
    fn from(version: Version) -> Self {
        Self {
            name: version.name,
            version: version.version,
            doc: version.doc,
            author: version.author,
            message: version.message,
            created_at: version.created_at,
            conflicts: Vec::new(),
        }
    }
}
