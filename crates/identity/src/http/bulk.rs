//! `/users/bulk`: one thing done with many users.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, PageQuery, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::batch::{Action, Filter, Wanted};
use crate::error::{Error, reason};
use crate::ops::bulk::{self as ops, Order};
use crate::permissions::USER_READ;

/// What is done, and with whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserBulkWish)]
struct Body {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    #[serde(default)]
    tenant: Option<String>,
    /// What is done with each.
    order: Action,
    /// At most 1000; or a filter.
    #[serde(default)]
    ids: Vec<Uuid>,
    #[serde(default)]
    filter: Option<Filter>,
    /// Only counts.
    #[serde(default)]
    dry_run: bool,
}

/// What came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserBulkOrdered)]
struct Made {
    /// Absent for a dry run.
    batch_id: Option<Uuid>,
    /// Users that fit.
    count: u64,
}

/// How one user fared.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserBulkResult)]
struct RowView {
    user_id: Uuid,
    ok: bool,
    /// Why it was not done.
    code: Option<String>,
}

/// An order and how its users fared, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserBulkReport)]
struct Report {
    batch_id: Uuid,
    order: Action,
    /// Users that fitted when it was ordered.
    total: u64,
    done: u64,
    failed: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Absent while it is under way.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    items: Vec<RowView>,
    next_cursor: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(ops::access(), routes!(order))
        .add(Access::Permission(USER_READ), routes!(report))
}

/// Change many users
///
/// Done by a job; each user has a result and an audit record of their own.
#[utoipa::path(post, path = "/users/bulk", tag = "users", request_body = Body,
    responses((status = 202, body = Made), (status = 200, body = Made, description = "dry run")))]
async fn order(State(api): State<Api>, Cx(cx): Cx, Json(body): Json<Body>) -> ApiResult<Response> {
    let order = Order {
        tenant: body.tenant,
        wanted: Wanted {
            action: body.order,
            ids: body.ids,
            filter: body.filter,
        },
        dry_run: body.dry_run,
    };
    let made = ops::order(&api, &cx, order).await?;
    let status = if made.batch.is_some() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let made = Made {
        batch_id: made.batch,
        count: made.count,
    };
    Ok((status, Json(made)).into_response())
}

/// Show a change of many users
///
/// How far it is, and the result of each user so far.
#[utoipa::path(get, path = "/users/bulk/{id}", tag = "users", params(("id" = String, Path, description = "id of the batch"), PageQuery),
    responses((status = 200, body = Report), (status = 404, description = "unknown")))]
async fn report(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Report>> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::from(reason::NOT_FOUND))?;
    let limit = page.limit()?;
    let after = page.cursor.as_deref().map(Cursor::<Uuid>::decode);
    let after = after.transpose()?.map(|cursor| cursor.0);
    let (batch, rows) = ops::report(&api, &cx, id, after, limit).await?;
    let rows = Page::cut(rows, limit, |row| row.user);
    let view = |row: crate::store::batches::Row| RowView {
        user_id: row.user,
        ok: row.code.is_none(),
        code: row.code,
    };
    Ok(Json(Report {
        batch_id: batch.id,
        order: batch.wanted.action,
        total: batch.total,
        done: batch.done,
        failed: batch.failed,
        created_at: batch.created_at,
        finished_at: batch.finished_at,
        items: rows.items.into_iter().map(view).collect(),
        next_cursor: rows.next_cursor,
    }))
}
