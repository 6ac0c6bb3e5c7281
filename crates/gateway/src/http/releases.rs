//! `/releases/{service}`: how traffic is divided among versions, and the verbs that bring a new one in (GW-80…83).
//!
//! A release is a versioned object like the others (author, message, history, `If-Match`, one audit record
//! a change). Every answer here is [`ReleaseBody`]: the document in force, with the live state under
//! `status`. Every verb takes an optional body [`ReleaseOrder`] and an optional `If-Match`; 412 says that
//! the version given there is not the present one, 409 that the verb does not fit what goes on now or that
//! somebody else changed the release at the same moment.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use portico_base::{Access, Context, Timestamp};
use portico_web::{ApiResult, Cx, IfMatch, Json, Query, Routes, etag, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Api;
use crate::objects::doc::ReleaseDoc;
use crate::objects::{Kind, Version, Wish};
use crate::release::{Command, Status};

/// A release with its live state.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayRelease)]
struct ReleaseBody {
    /// Name of the service.
    name: String,
    /// Rises by one with each change; the `ETag`.
    version: i64,
    /// The document, with what Portico keeps of it under `state`.
    #[schema(value_type = ReleaseDoc)]
    doc: Value,
    /// Who made this version; the principal `system` for what the plan or a guard did.
    author: String,
    /// Why.
    message: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// What goes on now, as this replica sees it.
    status: Status,
}

/// A document to save.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayReleaseWish)]
struct ReleaseWish {
    /// Name of the service; only allowed to be the one of the path.
    name: Option<String>,
    /// The document; its `state` is ignored.
    #[schema(value_type = ReleaseDoc)]
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

/// Why, for the history. The body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayReleaseOrder)]
struct ReleaseOrder {
    /// A sentence for people.
    #[serde(default)]
    message: Option<String>,
}

/// What to return to. The body may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayReleaseRollback)]
struct ReleaseRollback {
    /// Version of the document to return to, whatever the window says; absent to undo the last switch: a
    /// candidate that gets traffic goes to 0, else the version before becomes the stable one again.
    #[serde(default)]
    to: Option<i64>,
    /// A sentence for people.
    #[serde(default)]
    message: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let (read, write) = (Kind::Release.read(), Kind::Release.write());
    let readers = Access::AnyOf(vec![read, write.clone()]);
    let writers = Access::Permission(write);
    all.add(readers, routes!(get))
        .add(writers.clone(), routes!(put))
        .add(writers.clone(), routes!(delete))
        .add(writers.clone(), routes!(step))
        .add(writers.clone(), routes!(pause))
        .add(writers.clone(), routes!(resume))
        .add(writers.clone(), routes!(promote))
        .add(writers.clone(), routes!(abort))
        .add(writers, routes!(rollback))
}

/// Show a release
///
/// The release of a service, with what goes on now.
#[utoipa::path(get, path = "/releases/{service}", tag = "gateway",
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404)))]
async fn get(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
) -> ApiResult<Response> {
    let version = api.ops.get(&cx, Kind::Release, &service).await?;
    Ok(answer(&api, &cx, version))
}

/// Save a release
///
/// Creates or replaces the release of a service; `If-Match` guards against a lost update. A candidate that is
/// new begins at the first step of the plan; another `stable` moves everything at once and opens the window
/// for `rollback`.
#[utoipa::path(put, path = "/releases/{service}", tag = "gateway", request_body = ReleaseWish,
    params(("service" = String, Path, description = "name of the service"), SaveQuery),
    responses((status = 200, body = ReleaseBody), (status = 400), (status = 412)))]
async fn put(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    IfMatch(expected): IfMatch,
    Query(query): Query<SaveQuery>,
    Json(body): Json<ReleaseWish>,
) -> ApiResult<Response> {
    if body.name.as_ref().is_some_and(|other| *other != service) {
        return Err(
            crate::error::Error::field("name", "invalid", "is not the name in the path").into(),
        );
    }
    let wish = Wish {
        kind: Kind::Release,
        name: service,
        doc: body.doc,
        message: body.message,
        expected,
        create: false,
        dry_run: query.dry_run,
    };
    let saved = api.ops.save(&cx, wish).await?;
    Ok(answer(&api, &cx, saved.version))
}

/// Delete a release
///
/// Deletes the release of a service; the highest version gets everything, the history stays.
#[utoipa::path(delete, path = "/releases/{service}", tag = "gateway",
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 204), (status = 404), (status = 412)))]
async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    IfMatch(expected): IfMatch,
) -> ApiResult<StatusCode> {
    api.ops
        .delete(&cx, Kind::Release, &service, expected)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Step a release
///
/// Raises the candidate to the next step now. An aborted trial begins anew at the first step; while paused
/// the weight moves and the pause stays. Without a plan the steps are 1, 5, 10, 25, 50, 100 %.
#[utoipa::path(post, path = "/releases/{service}/step", tag = "gateway", request_body(content = Option<ReleaseOrder>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn step(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    expected: IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    order(&api, &cx, &service, Command::Step, expected, &body).await
}

/// Pause a release
///
/// Stops the plan at its present weight; guards go on watching.
#[utoipa::path(post, path = "/releases/{service}/pause", tag = "gateway", request_body(content = Option<ReleaseOrder>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn pause(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    expected: IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    order(&api, &cx, &service, Command::Pause, expected, &body).await
}

/// Resume a release
///
/// Goes on with a paused plan; what was left of the hold is left still.
#[utoipa::path(post, path = "/releases/{service}/resume", tag = "gateway", request_body(content = Option<ReleaseOrder>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn resume(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    expected: IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    order(&api, &cx, &service, Command::Resume, expected, &body).await
}

/// Promote a candidate
///
/// Makes the candidate the stable version for everybody, in one change; `rollback` returns within the window.
#[utoipa::path(post, path = "/releases/{service}/promote", tag = "gateway", request_body(content = Option<ReleaseOrder>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn promote(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    expected: IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    order(&api, &cx, &service, Command::Promote, expected, &body).await
}

/// Abort a candidate
///
/// Takes the candidate to 0, whatever its matchers say.
#[utoipa::path(post, path = "/releases/{service}/abort", tag = "gateway", request_body(content = Option<ReleaseOrder>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn abort(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    expected: IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    order(&api, &cx, &service, Command::Abort, expected, &body).await
}

/// Roll a release back
///
/// Undoes the last switch: a candidate that gets traffic goes to 0, else the version before becomes the
/// stable one again, as long as its window is open (409 `gateway.rollback_window_over` afterwards).
#[utoipa::path(post, path = "/releases/{service}/rollback", tag = "gateway", request_body(content = Option<ReleaseRollback>),
    params(("service" = String, Path, description = "name of the service")),
    responses((status = 200, body = ReleaseBody), (status = 404), (status = 409), (status = 412)))]
async fn rollback(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(service): Path<String>,
    IfMatch(expected): IfMatch,
    body: Bytes,
) -> ApiResult<Response> {
    let wanted: ReleaseRollback = optional(&body)?;
    let command = wanted
        .to
        .map_or(Command::Rollback, |version| Command::Restore { version });
    let version = api
        .releases
        .command(&cx, &service, command, expected, wanted.message)
        .await?;
    Ok(answer(&api, &cx, version))
}

async fn order(
    api: &Api,
    cx: &Context,
    service: &str,
    command: Command,
    IfMatch(expected): IfMatch,
    body: &Bytes,
) -> ApiResult<Response> {
    let why: ReleaseOrder = optional(body)?;
    let version = api
        .releases
        .command(cx, service, command, expected, why.message)
        .await?;
    Ok(answer(api, cx, version))
}

/// A body that may be left out.
fn optional<T: Default + serde::de::DeserializeOwned>(body: &Bytes) -> ApiResult<T> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    portico_web::extract::parse(body)
}

fn answer(api: &Api, cx: &Context, version: Version) -> Response {
    let tag = etag(version.version);
    let doc = version.doc.unwrap_or_default();
    let body = ReleaseBody {
        status: api.releases.status(&version.name, &doc, cx.now()),
        name: version.name,
        version: version.version,
        doc,
        author: version.author,
        message: version.message,
        created_at: version.created_at,
    };
    ([(header::ETAG, tag)], Json(body)).into_response()
}
