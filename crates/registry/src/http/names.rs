//! `/reservations`: names that are kept for somebody.

use axum::body::Bytes;
use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::Timestamp;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, PageQuery, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::model::Reservation;
use crate::ops::names as ops;

/// A name to reserve.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NameReservationWish)]
pub(super) struct Wish {
    name: String,
    /// What it is for.
    #[serde(default)]
    note: Option<String>,
}

/// What it is for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NameReservationNote)]
pub(super) struct Note {
    #[serde(default)]
    note: Option<String>,
}

/// A reserved name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NameReservation)]
pub(super) struct Shown {
    name: String,
    note: String,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<&Reservation> for Shown {
    fn from(r: &Reservation) -> Self {
        Self {
            name: r.name.clone(),
            note: r.note.clone(),
            created_by: r.created_by.clone(),
            created_at: r.created_at,
        }
    }
}

/// List reserved names
#[utoipa::path(get, path = "/reservations", tag = "registry", params(PageQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let limit = page.limit()?;
    let after = page
        .cursor
        .as_deref()
        .map(Cursor::<String>::decode)
        .transpose()?;
    let items: Vec<Shown> = ops::list(&api.core, &cx)?
        .iter()
        .filter(|r| after.as_ref().is_none_or(|a| r.name > a.0))
        .take(limit + 1)
        .map(|r| Shown::from(&**r))
        .collect();
    Ok(Json(Page::cut(items, limit, |r| r.name.clone())))
}

/// Reserve a name
///
/// Only tokens for exactly this name, and administrators, may register it.
#[utoipa::path(post, path = "/reservations", tag = "registry", request_body = Wish,
    responses((status = 201, body = Shown, description = "new"), (status = 200, body = Shown, description = "reserved already")))]
pub(super) async fn reserve(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<(StatusCode, Json<Shown>)> {
    answer(&api, &cx, &wish.name, wish.note).await
}

/// Reserve the name in the path
#[utoipa::path(post, path = "/reservations/{name}", tag = "registry", request_body(content = Option<Note>),
    params(("name" = String, Path, description = "the name")),
    responses((status = 201, body = Shown, description = "new"), (status = 200, body = Shown, description = "reserved already")))]
pub(super) async fn reserve_named(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
    body: Bytes,
) -> ApiResult<(StatusCode, Json<Shown>)> {
    let note: Note = if body.iter().all(u8::is_ascii_whitespace) {
        Note::default()
    } else {
        portico_web::extract::parse(&body)?
    };
    answer(&api, &cx, &name, note.note).await
}

async fn answer(
    api: &Api,
    cx: &portico_base::Context,
    name: &str,
    note: Option<String>,
) -> ApiResult<(StatusCode, Json<Shown>)> {
    let (made, new) =
        ops::reserve(&api.core, cx, name, note.as_deref().unwrap_or_default()).await?;
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(Shown::from(&*made))))
}

/// Release a name
///
/// Its reservation, and its services when they have no instance any more.
#[utoipa::path(delete, path = "/reservations/{name}", tag = "registry",
    params(("name" = String, Path, description = "the name")),
    responses((status = 204), (status = 404, description = "unknown"), (status = 409, description = "it has instances")))]
pub(super) async fn release(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
) -> ApiResult<StatusCode> {
    ops::release(&api.core, &cx, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
