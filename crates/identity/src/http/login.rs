//! What every login answers, and its last steps: choosing a device, redeeming a code (ID-60, ID-66, ID-121).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use portico_base::{Access, Secret};
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::way::Way;
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::ops::apple::{self, Redeem};
use crate::ops::methods::{self, Registration};
use crate::ops::{login as ops, stranger};

/// Ways in, in the order in which they are shown.
const KNOWN: [&str; 3] = ["password", "sms", "apple"];

/// Which device makes room.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeviceChoice)]
pub(super) struct Choice {
    /// As the login gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    /// The client's own name for the device, as the login had it; browsers show it by cookie.
    #[serde(default)]
    device_id: Option<String>,
    /// `id` of the listed device that is logged out.
    log_out: Uuid,
}

/// The code that a redirect brought.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LoginExchange)]
pub(super) struct Exchange {
    /// Single use, one minute.
    #[schema(value_type = String)]
    code: Secret<String>,
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
    /// Token of an invitation, where only those who are invited can register.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    invitation: Option<Secret<String>>,
    /// Of a user that is made: `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
}

/// The token of a notice's link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StrangerReport)]
pub(super) struct Stranger {
    #[schema(value_type = String)]
    token: Secret<String>,
}

/// Whose ways in are asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Slug of a tenant; the host's own comes first, `default` last.
    tenant: Option<String>,
}

/// What a tenant offers to whoever is not logged in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoginMethods)]
pub(super) struct Methods {
    /// `password`, `sms`, `apple`.
    methods: Vec<String>,
    /// With Apple, browsers can log in as well as apps (`GET /login/apple/start`).
    apple_web: bool,
    registration: Registration,
    /// Forgotten passwords can be reset by mail.
    mail: bool,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(offered))
        .add(Access::Public, routes!(choose))
        .add(Access::Public, routes!(exchange))
        .add(Access::Public, routes!(disown))
}

/// The answer to a login: tokens in the body or in cookies, never in a cache.
pub(super) fn answer(way: &Way, status: StatusCode, result: LoginResult) -> Response {
    let cookies = result.cookies.clone();
    let mut response = (status, Json(result)).into_response();
    if let Some(tokens) = &cookies {
        way.set_cookies(response.headers_mut(), tokens);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// List ways to log in
///
/// What the tenant of this host, or the named one, offers. A tenant that does not exist answers like
/// `default`.
#[utoipa::path(get, path = "/login/methods", tag = "identity", params(Of),
    responses((status = 200, body = Methods)))]
pub(super) async fn offered(
    State(core): State<Api>,
    way: Way,
    Query(of): Query<Of>,
) -> Json<Methods> {
    let place = ops::tenant_of(&core, way.host(), of.tenant.as_deref());
    let tenant = place.map_or(portico_base::id::TENANT_DEFAULT, |p| p.tenant);
    Json(Methods {
        apple_web: apple::is_web(&core, tenant),
        methods: KNOWN
            .into_iter()
            .filter(|method| methods::offers(&core, tenant, method))
            .map(str::to_owned)
            .collect(),
        registration: methods::registration(&core, tenant),
        mail: core.mail_on(tenant),
    })
}

/// Choose a device to log out
///
/// Ends a login that answered `device_limit`: the chosen device is logged out, this one takes its place.
#[utoipa::path(post, path = "/login/device-choice", tag = "identity", request_body = Choice,
    responses((status = 200, body = LoginResult), (status = 401)))]
pub(super) async fn choose(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(choice): Json<Choice>,
) -> ApiResult<Response> {
    let device_id = choice.device_id.as_deref().or(way.device_id());
    let result = ops::choose(&core, &cx, &choice.ticket, device_id, choice.log_out).await?;
    Ok(answer(&way, StatusCode::OK, result))
}

/// Redeem a login code
///
/// Ends a login that came back by redirect. The code is in the address of the page, the tokens never are.
#[utoipa::path(post, path = "/login/exchange", tag = "identity", request_body = Exchange,
    responses((status = 200, body = LoginResult), (status = 401)))]
pub(super) async fn exchange(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(wish): Json<Exchange>,
) -> ApiResult<Response> {
    let transport = way.transport(wish.transport)?;
    let device = way.device(wish.device);
    let wish = Redeem {
        code: &wish.code,
        invitation: wish.invitation.as_ref(),
        locale: wish.locale,
        device,
        transport,
    };
    let result = ops::redeem(&core, &cx, wish).await?;
    Ok(answer(&way, StatusCode::OK, result))
}

/// Disown a login
///
/// The link of a notice about a new device: that session ends, and the password is worthless until it is
/// reset.
#[utoipa::path(post, path = "/stranger", tag = "identity", request_body = Stranger,
    responses((status = 204), (status = 401)))]
pub(super) async fn disown(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(report): Json<Stranger>,
) -> ApiResult<StatusCode> {
    stranger::report(&core, &cx, &report.token).await?;
    Ok(StatusCode::NO_CONTENT)
}
