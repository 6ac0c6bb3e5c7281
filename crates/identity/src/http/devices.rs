//! `/me/devices` and `/users/{id}/devices`: devices of users, their names, and logging them out (ID-120).

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Page, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::contact::masked_address;
use crate::domain::device::Platform;
use crate::ops::devices::{self as ops, Shown};
use crate::ops::sessions::session_of;
use crate::permissions::{PII_READ, SESSION_READ, SESSION_WRITE};

/// A name for a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeviceName)]
pub(super) struct Name {
    /// 1 to 64 characters.
    name: String,
}

/// A device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub(super) struct View {
    id: Uuid,
    platform: Platform,
    name: String,
    model: String,
    app_version: String,
    os_version: String,
    /// Masked for callers without `identity:pii:read`, unless it is their own.
    last_ip: Option<String>,
    last_place: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    first_seen_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_active_at: Timestamp,
    /// It is logged in with this session.
    session_id: Option<Uuid>,
    /// It is the one that asks.
    current: bool,
}

impl View {
    fn of(shown: Shown, current: Option<Uuid>, masked: bool) -> Self {
        let Shown { device, session } = shown;
        let mask = |ip: String| if masked { masked_address(&ip) } else { ip };
        let session_id = session.as_ref().map(|s| s.id);
        let active = session.map_or(device.last_active_at, |s| s.last_active_at);
        Self {
            id: device.id,
            platform: device.platform,
            name: device.name,
            model: device.model,
            app_version: device.app_version,
            os_version: device.os_version,
            last_ip: device.last_ip.map(mask),
            last_place: device.last_place,
            first_seen_at: device.first_seen_at,
            last_active_at: active.max(device.last_active_at),
            session_id,
            current: session_id.is_some() && session_id == current,
        }
    }
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let own = Access::Authenticated;
    all.add(own.clone(), routes!(list))
        .add(own, routes!(get, rename, kick))
        .add(Access::Permission(SESSION_READ), routes!(of_user))
        .add(Access::Permission(SESSION_WRITE), routes!(kick_of_user))
}

/// List own devices
///
/// Last active first.
#[utoipa::path(get, path = "/me/devices", tag = "me", responses((status = 200, body = Page<View>)))]
pub(super) async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Page<View>>> {
    let current = session_of(cx.principal());
    let devices = ops::own(&core, &cx).await?;
    Ok(Json(whole(devices, current, false)))
}

/// Read an own device
///
/// By its `id`.
#[utoipa::path(get, path = "/me/devices/{id}", tag = "me",
    params(("id" = Uuid, Path, description = "id of the device")),
    responses((status = 200, body = View), (status = 404)))]
pub(super) async fn get(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<View>> {
    let shown = ops::own_one(&core, &cx, id).await?;
    Ok(Json(View::of(shown, session_of(cx.principal()), false)))
}

/// Name an own device
///
/// The name stays until it is changed, whatever the device calls itself.
#[utoipa::path(patch, path = "/me/devices/{id}", tag = "me", request_body = Name,
    params(("id" = Uuid, Path, description = "id of the device")),
    responses((status = 200, body = View), (status = 404)))]
pub(super) async fn rename(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
    Json(name): Json<Name>,
) -> ApiResult<Json<View>> {
    let shown = ops::rename(&core, &cx, id, &name.name).await?;
    Ok(Json(View::of(shown, session_of(cx.principal()), false)))
}

/// Log out an own device
///
/// Its session ends and its secret is worth nothing any more.
#[utoipa::path(delete, path = "/me/devices/{id}", tag = "me",
    params(("id" = Uuid, Path, description = "id of the device")),
    responses((status = 204), (status = 404)))]
pub(super) async fn kick(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    ops::kick_own(&core, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a user's devices
///
/// Last active first.
#[utoipa::path(get, path = "/users/{id}/devices", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 200, body = Page<View>), (status = 404)))]
pub(super) async fn of_user(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<Page<View>>> {
    let masked = !cx.principal().may(&PII_READ);
    let current = session_of(cx.principal());
    let devices = ops::of_user(&core, &cx, id).await?;
    Ok(Json(whole(devices, current, masked)))
}

/// Log out a user's device
///
/// Its session ends and its secret is worth nothing any more.
#[utoipa::path(delete, path = "/users/{id}/devices/{did}", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the user"),
        ("did" = Uuid, Path, description = "id of the device")),
    responses((status = 204), (status = 404)))]
pub(super) async fn kick_of_user(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path((user, device)): Path<(Uuid, Uuid)>,
) -> ApiResult<StatusCode> {
    ops::kick_by_admin(&core, &cx, user, device).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn whole(devices: Vec<Shown>, current: Option<Uuid>, masked: bool) -> Page<View> {
    Page {
        items: devices
            .into_iter()
            .map(|shown| View::of(shown, current, masked))
            .collect(),
        next_cursor: None,
    }
}
