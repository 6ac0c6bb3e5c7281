//! `/register`, `/email/verify`, `/me/email`, `/undo`: accounts of one's own (ID-30…33, ID-140…142).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use portico_base::{Access, Secret};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::way::Way;
use super::{Api, login};
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::error::Error;
use crate::ops::register::{self as ops, By, Registered};
use crate::ops::{emails, need_user};

/// Who wants an account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Registration)]
pub(super) struct Body {
    method: Method,
    /// The user name or the e-mail address.
    #[serde(default)]
    identifier: String,
    /// With a number it may be absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<Secret<String>>,
    /// With a number: of `/login/sms/send`.
    #[serde(default)]
    transaction_id: Option<Uuid>,
    /// With a number: what was sent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    #[serde(default)]
    display_name: String,
    /// `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
    /// Slug of the tenant; the host's, else `default` without it.
    #[serde(default)]
    tenant: Option<String>,
    /// Token of an invitation's link; tenant, roles and perhaps the address are the invitation's.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    invitation: Option<Secret<String>>,
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
}

/// By what somebody registers.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RegistrationMethod)]
enum Method {
    Username,
    /// A link is sent first; its use makes the account.
    Email,
    /// A code proves the number.
    Phone,
}

/// A registration that goes on elsewhere.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegistrationWaiting)]
pub(super) struct Waiting {
    /// Always `verification_required`.
    status: &'static str,
}

/// The token of a link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LinkToken)]
pub(super) struct Link {
    #[schema(value_type = String)]
    token: Secret<String>,
}

/// A new address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmailChange)]
pub(super) struct NewEmail {
    email: String,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(register))
        .add(Access::Public, routes!(verify))
        .add(Access::Public, routes!(undo))
        .add(Access::Authenticated, routes!(change_email))
        .add(Access::Authenticated, routes!(confirm_email))
}

/// Register
///
/// With a user name the account is there at once (201); with an e-mail address a link is sent first (202),
/// whether the address is new or not. With an `Idempotency-Key` a lost answer can be asked for again for 24
/// hours.
#[utoipa::path(post, path = "/register", tag = "identity", request_body = Body,
    params(("Idempotency-Key" = Option<String>, Header, description = "names the request")),
    responses((status = 201, body = LoginResult), (status = 202, body = Waiting), (status = 400),
        (status = 403), (status = 409), (status = 429)))]
pub(super) async fn register(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    headers: HeaderMap,
    Json(body): Json<Body>,
) -> ApiResult<Response> {
    let wish = wish(body, &way, idempotency_key(&headers)?)?;
    match Box::pin(ops::register(&core, &cx, wish)).await? {
        Registered::Now(result) => Ok(login::answer(&way, StatusCode::CREATED, *result)),
        Registered::Waiting => {
            let waiting = Waiting {
                status: "verification_required",
            };
            Ok((StatusCode::ACCEPTED, Json(waiting)).into_response())
        }
    }
}

/// Confirm an e-mail address
///
/// With the token of a link: makes the account that was registered, or takes the new address into use.
#[utoipa::path(post, path = "/email/verify", tag = "identity", request_body = Link,
    responses((status = 204), (status = 401), (status = 409)))]
pub(super) async fn verify(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Link>,
) -> ApiResult<StatusCode> {
    emails::verify(&core, &cx, &body.token, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Undo a change of address
///
/// With the token of the link that the old address got: the old address or number holds again, all sessions
/// end, and the password is void.
#[utoipa::path(post, path = "/undo", tag = "identity", request_body = Link,
    responses((status = 204), (status = 401), (status = 409)))]
pub(super) async fn undo(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Link>,
) -> ApiResult<StatusCode> {
    emails::undo(&core, &cx, &body.token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the own e-mail address
///
/// The new address gets a link that takes it into use; needs a fresh session.
#[utoipa::path(post, path = "/me/email", tag = "identity", request_body = NewEmail,
    responses((status = 202), (status = 400), (status = 401), (status = 409), (status = 429)))]
pub(super) async fn change_email(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<NewEmail>,
) -> ApiResult<StatusCode> {
    emails::change(&core, &cx, &body.email).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Confirm the own new e-mail address
///
/// The same as `/email/verify`, for a client that shows its user's link itself.
#[utoipa::path(post, path = "/me/email/confirm", tag = "identity", request_body = Link,
    responses((status = 204), (status = 401), (status = 409)))]
pub(super) async fn confirm_email(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Link>,
) -> ApiResult<StatusCode> {
    let own = need_user(&cx)?;
    emails::verify(&core, &cx, &body.token, Some(own)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wish(body: Body, way: &Way, key: Option<String>) -> Result<ops::Wish, Error> {
    let by = match (body.method, body.transaction_id, body.code) {
        (Method::Username, None, None) => By::Username(body.identifier),
        (Method::Email, None, None) => By::Email(body.identifier),
        (Method::Phone, Some(transaction), Some(code)) => By::Phone { transaction, code },
        _ => {
            let message = "a number needs a transaction and its code, and nothing else does";
            return Err(Error::field("transaction_id", "method", message));
        }
    };
    Ok(ops::Wish {
        host: way.host().map(str::to_owned),
        tenant: body.tenant,
        by,
        password: body.password,
        display_name: body.display_name,
        locale: body.locale,
        device: way.device(body.device),
        transport: way.transport(body.transport)?,
        invitation: body.invitation,
        key,
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    headers
        .get("idempotency-key")
        .map(|value| {
            let text = value.to_str().map(str::to_owned);
            text.map_err(|_| Error::field("Idempotency-Key", "form", "must be plain text"))
        })
        .transpose()
}
