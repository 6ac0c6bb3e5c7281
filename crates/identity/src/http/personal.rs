//! Copies of personal data and the end of an account: `/me/export`, `/me/delete`, `/exports`, `/users/{id}/erase` (ID-150…153).

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::users::user_id;
use crate::domain::personal::{Cause, Export, ExportState, Task, TaskState};
use crate::error::{Error, reason};
use crate::ops::{erasure, export};
use crate::permissions::{USER_READ, USER_WRITE};

/// Why somebody else's data is copied or erased.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PersonalDataWish)]
struct WhyBody {
    /// For the audit record; must be given.
    #[serde(default)]
    reason: Option<String>,
}

/// A copy of a person's data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PersonalExport)]
struct ExportView {
    id: Uuid,
    /// Whose data it is.
    user_id: Uuid,
    state: ExportState,
    /// Why an administrator asked for it.
    reason: Option<String>,
    /// Size of the zip file.
    bytes: Option<i64>,
    /// SHA-256 of the zip file, hexadecimal.
    sha256: Option<String>,
    /// Services that had something about the person.
    parts: Vec<String>,
    /// Where it can be fetched by whoever asked for it; absent until it is ready.
    url: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    ready_at: Option<Timestamp>,
    /// It is gone after that.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl From<Export> for ExportView {
    fn from(e: Export) -> Self {
        let ready = e.state == ExportState::Ready;
        Self {
            url: ready.then(|| format!("/api/identity/exports/{}/file", e.id)),
            id: e.id,
            user_id: e.user,
            state: e.state,
            reason: e.reason,
            bytes: e.bytes,
            sha256: e.sha256,
            parts: e.parts,
            created_at: e.created_at,
            ready_at: e.ready_at,
            expires_at: e.expires_at,
        }
    }
}

/// Copies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PersonalExports)]
struct ExportList {
    items: Vec<ExportView>,
}

/// When an account is erased.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountDeletion)]
struct Deletion {
    /// The account is erased then, unless its owner logs in before; absent: it is kept.
    #[schema(value_type = Option<String>, format = DateTime)]
    delete_at: Option<Timestamp>,
}

/// How far an erasure is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure)]
struct ErasureView {
    user_id: Uuid,
    cause: Cause,
    reason: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Absent until every part is done.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    parts: Vec<PartView>,
}

/// One service's part of an erasure.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErasurePart)]
struct PartView {
    service: String,
    state: TaskState,
    /// Runs so far.
    tries: u32,
    last_error: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Task> for PartView {
    fn from(task: Task) -> Self {
        Self {
            service: task.service,
            state: task.state,
            tries: task.tries,
            last_error: task.last_error,
            updated_at: task.updated_at,
        }
    }
}

impl From<erasure::Report> for ErasureView {
    fn from((erasure, tasks): erasure::Report) -> Self {
        Self {
            user_id: erasure.user,
            cause: erasure.cause,
            reason: erasure.reason,
            started_at: erasure.started_at,
            finished_at: erasure.finished_at,
            parts: tasks.into_iter().map(Into::into).collect(),
        }
    }
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let own = || Access::Authenticated;
    let strong = || Access::Permission(USER_WRITE).aal2_fresh();
    all.add(own(), routes!(export_me))
        .add(own(), routes!(delete_me))
        .add(own(), routes!(restore_me))
        .add(own(), routes!(exports))
        .add(own(), routes!(get_export))
        .add(own(), routes!(fetch_export))
        .add(strong(), routes!(export_user))
        .add(strong(), routes!(erase_user))
        .add(Access::Permission(USER_READ), routes!(show_erasure))
}

fn export_id(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| reason::NOT_FOUND.into())
}

/// Copy the own data
///
/// As a zip file that a job makes and that can be fetched for 24 hours; needs a fresh login.
#[utoipa::path(post, path = "/me/export", tag = "me",
    responses((status = 202, body = ExportView), (status = 401, description = "authenticate again"), (status = 429, description = "too many today")))]
async fn export_me(
    State(api): State<Api>,
    Cx(cx): Cx,
) -> ApiResult<(StatusCode, Json<ExportView>)> {
    let export = export::own(&api, &cx).await?;
    Ok((StatusCode::ACCEPTED, Json(export.into())))
}

/// Delete the own account
///
/// Logged out everywhere at once; erased after the days of grace unless its owner logs in. Needs a fresh login
/// with every factor that the account has.
#[utoipa::path(post, path = "/me/delete", tag = "me",
    responses((status = 202, body = Deletion), (status = 401, description = "authenticate again"), (status = 409, description = "the last super administrator, or under legal hold")))]
async fn delete_me(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<(StatusCode, Json<Deletion>)> {
    let at = erasure::delete_own(&api, &cx).await?;
    let told = Deletion {
        delete_at: Some(at),
    };
    Ok((StatusCode::ACCEPTED, Json(told)))
}

/// Keep the own account
///
/// Takes a deletion back, as a login within the days of grace does by itself.
#[utoipa::path(post, path = "/me/restore", tag = "me", responses((status = 202, body = Deletion)))]
async fn restore_me(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<(StatusCode, Json<Deletion>)> {
    erasure::restore_own(&api, &cx).await?;
    Ok((StatusCode::ACCEPTED, Json(Deletion { delete_at: None })))
}

/// List copies of personal data
///
/// Those that the caller asked for and that are not over, newest first.
#[utoipa::path(get, path = "/exports", tag = "personal", responses((status = 200, body = ExportList)))]
async fn exports(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Json<ExportList>> {
    let found = export::asked(&api, &cx).await?;
    let items = found.into_iter().map(Into::into).collect();
    Ok(Json(ExportList { items }))
}

/// Show a copy of personal data
///
/// How far it is; only for whoever asked for it.
#[utoipa::path(get, path = "/exports/{id}", tag = "personal", params(("id" = String, Path, description = "id of the copy")),
    responses((status = 200, body = ExportView), (status = 404, description = "unknown")))]
async fn get_export(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<ExportView>> {
    let export = export::get(&api, &cx, export_id(&id)?).await?;
    Ok(Json(export.into()))
}

/// Fetch a copy of personal data
///
/// The zip file, for whoever asked for it; leaves an audit record.
#[utoipa::path(get, path = "/exports/{id}/file", tag = "personal", params(("id" = String, Path, description = "id of the copy")),
    responses((status = 200, content_type = "application/zip", body = Vec<u8>), (status = 404, description = "unknown"),
        (status = 409, description = "not ready"), (status = 410, description = "its time is over")))]
async fn fetch_export(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Response> {
    let (export, object) = export::fetch(&api, &cx, export_id(&id)?).await?;
    let day = export.created_at.format("%Y-%m-%d");
    let name = format!("attachment; filename=\"personal-data-{day}.zip\"");
    let headers = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_LENGTH, object.meta.size.to_string()),
        (header::CONTENT_DISPOSITION, name),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(object.body)).into_response())
}

/// Copy a user's data
///
/// Unmasked, for the caller alone; needs `identity:pii:read` too, and a reason.
#[utoipa::path(post, path = "/users/{id}/export", tag = "users", request_body = WhyBody,
    params(("id" = String, Path, description = "id of the user")),
    responses((status = 202, body = ExportView), (status = 404, description = "unknown"), (status = 429, description = "too many today")))]
async fn export_user(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<WhyBody>,
) -> ApiResult<(StatusCode, Json<ExportView>)> {
    let export = export::of_user(&api, &cx, user_id(&id)?, body.reason).await?;
    Ok((StatusCode::ACCEPTED, Json(export.into())))
}

/// Erase a user
///
/// Now and for good: every service removes what it keeps about the person; a reason must be given. What
/// fails is tried again by itself; asking once more takes up what was given up.
#[utoipa::path(post, path = "/users/{id}/erase", tag = "users", request_body = WhyBody,
    params(("id" = String, Path, description = "id of the user")),
    responses((status = 202, body = ErasureView), (status = 404, description = "unknown"), (status = 409, description = "the last super administrator, or under legal hold")))]
async fn erase_user(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<WhyBody>,
) -> ApiResult<(StatusCode, Json<ErasureView>)> {
    let report = erasure::erase(&api, &cx, user_id(&id)?, body.reason).await?;
    Ok((StatusCode::ACCEPTED, Json(report.into())))
}

/// Show an erasure
///
/// How far each service is.
#[utoipa::path(get, path = "/users/{id}/erasure", tag = "users", params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = ErasureView), (status = 404, description = "unknown, or not begun")))]
async fn show_erasure(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<ErasureView>> {
    let report = erasure::report(&api, &cx, user_id(&id)?).await?;
    Ok(Json(report.into()))
}
