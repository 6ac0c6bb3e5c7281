//! `/secrets`: which master keys seal what, and sealing everything with the current one.

use axum::extract::State;
use portico_base::Access;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use crate::ops::rotate::{self, Progress, Status};
use crate::permissions::{KEYS_READ, KEYS_ROTATE};

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Permission(KEYS_READ), routes!(status)).add(
        Access::Permission(KEYS_ROTATE).aal2_fresh(),
        routes!(rotate),
    )
}

/// Where a rotation goes on.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MasterKeyRotationWish)]
struct Body {
    /// `next` of the last answer; absent: from the beginning.
    after: Option<String>,
}

/// See which master keys are in use
///
/// Envelopes by the id of their key. A previous key whose count is 0 can be removed from the configuration.
#[utoipa::path(get, path = "/secrets", tag = "settings", responses((status = 200, body = Status)))]
async fn status(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Status>> {
    Ok(Json(rotate::status(&core, &cx).await?))
}

/// Seal secrets with the current master key
///
/// Some thousand rows of all services, while everything runs. Ask again with `next` until there is none; a
/// rotation that was broken off begins anew with what is left.
#[utoipa::path(post, path = "/secrets/rotate", tag = "settings", request_body = Body, responses((status = 200, body = Progress)))]
async fn rotate(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Body>,
) -> ApiResult<Json<Progress>> {
    let progress = rotate::rotate(&core, &cx, body.after.as_deref()).await?;
    Ok(Json(progress))
}
