//! `/backups`: make, list, verify, fetch, restore and remove.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use portico_base::{Access, Timestamp};
use portico_web::page::limit;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ops::{self, Wish};
use super::store::Row;
use crate::error::{Error, Result, reason};
use crate::http::Api;
use crate::permissions::{BACKUP_READ, BACKUP_RESTORE, BACKUP_WRITE};

/// Adds the routes.
pub(crate) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = Access::Permission(BACKUP_READ).aal2();
    let write = Access::Permission(BACKUP_WRITE).aal2();
    let restoring = Access::Permission(BACKUP_RESTORE).aal2_fresh();
    all.add(read.clone(), routes!(list))
        .add(read, routes!(show))
        .add(write.clone(), routes!(create))
        .add(write.clone(), routes!(verify))
        .add(write.clone(), routes!(remove))
        .add(write, routes!(fetch))
        .add(restoring, routes!(restore))
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A backup as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backup)]
struct Shown {
    id: Uuid,
    /// manual, scheduled, safety (made before a restore) or found (a file that was there).
    kind: String,
    /// waiting, running, done, verifying, restoring, failed or missing.
    state: String,
    /// Its name where backups are kept.
    location: String,
    /// The machine beside which it lies, where there may be several.
    node: Option<String>,
    /// What it holds of the objects: none, names or whole.
    objects: String,
    bytes: Option<i64>,
    rows: Option<i64>,
    /// SHA-256 of the file.
    sha256: Option<String>,
    /// Master key or recipient that it was encrypted with.
    key_id: Option<String>,
    /// Release that made it.
    db_version: Option<String>,
    /// When a restore into a scratch database found it good; absent: never verified.
    #[schema(value_type = Option<String>, format = DateTime)]
    verified_at: Option<Timestamp>,
    /// When this installation was restored from it.
    #[schema(value_type = Option<String>, format = DateTime)]
    restored_at: Option<Timestamp>,
    /// What the last verification or restore found, with `good`.
    report: Option<Value>,
    error: Option<String>,
    asked_by: String,
    /// The moment that it holds.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
}

/// What a backup is to hold.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = NewBackup)]
struct New {
    /// The objects of this machine too; those of a bucket are only named.
    include_objects: bool,
}

/// How a backup is restored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RestoreBackup)]
struct Order {
    /// The backup's `location`, typed by whoever means it.
    confirm: String,
    /// Whoever was logged in when the backup was made stays so.
    #[serde(default)]
    keep_sessions: bool,
    /// Put back the objects that it holds.
    #[serde(default)]
    include_objects: bool,
}

/// List backups
///
/// Newest first, each with its size and when it was verified.
#[utoipa::path(get, path = "/backups", tag = "backups", params(Which),
    responses((status = 200, body = Page<Shown>)))]
async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(which): Query<Which>,
) -> ApiResult<Json<Page<Shown>>> {
    let most = limit(which.limit)?;
    let after = which.cursor.as_deref().map(Cursor::<Uuid>::decode);
    let after = after.transpose()?.map(|cursor| cursor.0);
    let rows = ops::list(&core, &cx, after, most as u64 + 1).await?;
    let shown = rows.into_iter().map(Shown::from).collect();
    Ok(Json(Page::cut(shown, most, |one: &Shown| one.id)))
}

/// Show a backup
///
/// With what its last verification or restore found.
#[utoipa::path(get, path = "/backups/{id}", tag = "backups",
    params(("id" = String, Path, description = "id of the backup")),
    responses((status = 200, body = Shown), (status = 404, description = "unknown")))]
async fn show(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    Ok(Json(ops::show(&core, &cx, backup(&id)?).await?.into()))
}

/// Make a backup
///
/// One encrypted file of now, made by a job; the answer is its row.
#[utoipa::path(post, path = "/backups", tag = "backups", request_body = New,
    responses((status = 200, body = Shown)))]
async fn create(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(new): Json<New>,
) -> ApiResult<Json<Shown>> {
    let row = ops::create(&core, &cx, new.include_objects).await?;
    Ok(Json(row.into()))
}

/// Verify a backup
///
/// A job restores it into a scratch database, runs the migrations, counts, and lets every service look.
#[utoipa::path(post, path = "/backups/{id}/verify", tag = "backups",
    params(("id" = String, Path, description = "id of the backup")),
    responses((status = 200, body = Shown), (status = 404, description = "unknown"),
        (status = 409, description = "not in a state to be verified")))]
async fn verify(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    Ok(Json(ops::verify(&core, &cx, backup(&id)?).await?.into()))
}

/// Restore a backup
///
/// A job reads it whole and makes a backup of now; then the process starts anew with the restored database.
/// Every access token of before is dead. On PostgreSQL the command line restores, into an empty database.
#[utoipa::path(post, path = "/backups/{id}/restore", tag = "backups", request_body = Order,
    params(("id" = String, Path, description = "id of the backup")),
    responses((status = 200, body = Shown), (status = 400, description = "not confirmed"),
        (status = 404, description = "unknown"), (status = 409, description = "not possible now")))]
async fn restore(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(order): Json<Order>,
) -> ApiResult<Json<Shown>> {
    let wish = Wish {
        confirm: order.confirm,
        keep_sessions: order.keep_sessions,
        include_objects: order.include_objects,
    };
    let row = ops::restore(&core, &cx, backup(&id)?, wish).await?;
    Ok(Json(row.into()))
}

/// Fetch a backup's file
///
/// Encrypted as it lies; leaves an audit record.
#[utoipa::path(get, path = "/backups/{id}/file", tag = "backups",
    params(("id" = String, Path, description = "id of the backup")),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 404, description = "unknown"), (status = 409, description = "beside another replica")))]
async fn fetch(State(core): State<Api>, Cx(cx): Cx, Path(id): Path<String>) -> ApiResult<Response> {
    let (row, object) = ops::file(&core, &cx, backup(&id)?).await?;
    let headers = [
        ("content-type", "application/octet-stream".to_owned()),
        ("content-length", object.meta.size.to_string()),
        (
            "content-disposition",
            format!("attachment; filename=\"{}\"", row.location),
        ),
        ("cache-control", "no-store".to_owned()),
    ];
    Ok((headers, Body::from_stream(object.body)).into_response())
}

/// Remove a backup
///
/// The file and its row.
#[utoipa::path(delete, path = "/backups/{id}", tag = "backups",
    params(("id" = String, Path, description = "id of the backup")),
    responses((status = 204, description = "removed"), (status = 404, description = "unknown"),
        (status = 409, description = "in use")))]
async fn remove(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<axum::http::StatusCode> {
    ops::remove(&core, &cx, backup(&id)?).await?;
    Ok(axum::http::StatusCode::NO_CONTENT)
}

fn backup(text: &str) -> Result<Uuid> {
    Uuid::parse_str(text).map_err(|_| Error::from(reason::BACKUP_NOT_FOUND))
}

impl From<Row> for Shown {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            state: row.state,
            location: row.location,
            node: row.node,
            objects: row.objects,
            bytes: row.bytes,
            rows: row.rows,
            sha256: row.sha256,
            key_id: row.key_id,
            db_version: row.db_version,
            verified_at: row.verified_at,
            restored_at: row.restored_at,
            report: row.report,
            error: row.error,
            asked_by: row.asked_by,
            at: row.at,
            ended_at: row.ended_at,
        }
    }
}
