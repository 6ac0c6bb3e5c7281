//! `/setup`: the first administrator.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use portico_base::{Access, Secret, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::way::Way;
use super::{Api, login};
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::ops::setup as ops;
use crate::permissions::USER_WRITE;

/// Who the first administrator is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Setup)]
pub(super) struct Body {
    /// From the link.
    #[schema(value_type = String)]
    token: Secret<String>,
    username: String,
    #[schema(value_type = String)]
    password: Secret<String>,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    email: Option<String>,
    /// `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
}

/// Where the first administrator is made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SetupLink)]
pub(super) struct Link {
    /// With a token that is good once.
    url: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(complete))
        .add(Access::Permission(USER_WRITE), routes!(link))
}

/// Make a set-up link
///
/// For the operator, while nobody can administer the installation; good once, for 30 minutes.
#[utoipa::path(post, path = "/setup/link", tag = "identity",
    responses((status = 201, body = Link), (status = 403), (status = 409)))]
pub(super) async fn link(
    State(core): State<Api>,
    Cx(cx): Cx,
) -> ApiResult<(StatusCode, Json<Link>)> {
    let (url, expires_at) = ops::link(&core, &cx).await?;
    Ok((StatusCode::CREATED, Json(Link { url, expires_at })))
}

/// Create the first administrator
///
/// With the token of a set-up link; answers like a login.
#[utoipa::path(post, path = "/setup", tag = "identity", request_body = Body,
    responses((status = 201, body = LoginResult), (status = 400), (status = 401), (status = 409)))]
pub(super) async fn complete(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<Body>,
) -> ApiResult<Response> {
    let wish = ops::Wish {
        token: body.token,
        username: body.username,
        password: body.password,
        display_name: body.display_name,
        email: body.email,
        locale: body.locale,
        device: way.device(body.device),
        transport: way.transport(body.transport)?,
    };
    let result = Box::pin(ops::complete(&core, &cx, wish)).await?;
    Ok(login::answer(&way, StatusCode::CREATED, result))
}
