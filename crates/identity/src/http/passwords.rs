//! `/login/password`, `/me/password`, `/password/reset`: logging in with a password, and new ones (ID-40…45, ID-141).

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use portico_base::{Access, Secret, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::way::Way;
use super::{Api, login};
use crate::domain::login::{DeviceWish, LoginResult, Transport};
use crate::error::{Error, reason};
use crate::ops::passwords::{self, AdminReset};
use crate::permissions::USER_WRITE;

/// Who wants in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordLogin)]
pub(super) struct LoginBody {
    /// User name, e-mail address or phone number.
    identifier: String,
    #[schema(value_type = String)]
    password: Secret<String>,
    /// Slug of the tenant; the host's, else `default` without it.
    #[serde(default)]
    tenant: Option<String>,
    device: DeviceWish,
    #[serde(default)]
    transport: Transport,
}

/// A new password for a login that asked for one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordChangeAtLogin)]
pub(super) struct TicketBody {
    /// As the login gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    /// The client's own name for the device, as the login had it; browsers show it by cookie.
    #[serde(default)]
    device_id: Option<String>,
    #[schema(value_type = String)]
    new_password: Secret<String>,
}

/// A new password of one's own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordChange)]
pub(super) struct OwnBody {
    /// Without it the session must have shown two factors just now.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    old_password: Option<Secret<String>>,
    #[schema(value_type = String)]
    new_password: Secret<String>,
    /// Other sessions go on.
    #[serde(default)]
    keep_sessions: bool,
}

/// Whose password is forgotten.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordReset)]
pub(super) struct ResetBody {
    /// User name or e-mail address. With a phone number ask `/login/sms/send` for a code of purpose `reset`.
    identifier: String,
    /// Slug of the tenant; the host's, else `default` without it.
    #[serde(default)]
    tenant: Option<String>,
}

/// A new password with what was sent: the token of a link, or a transaction with its code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasswordResetConfirmation)]
pub(super) struct ConfirmBody {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    token: Option<Secret<String>>,
    /// Of `/login/sms/send` with purpose `reset`.
    #[serde(default)]
    transaction_id: Option<Uuid>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    /// As it was when the code was asked for.
    #[serde(default)]
    device_id: Option<String>,
    /// As it was when the code was asked for.
    #[serde(default)]
    tenant: Option<String>,
    #[schema(value_type = String)]
    password: Secret<String>,
}

/// How a user gets a new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdminPasswordReset)]
pub(super) struct AdminBody {
    how: How,
}

/// Ways to a new password.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = AdminPasswordResetHow)]
enum How {
    /// A link in this answer, to be handed over; 30 minutes, once.
    Link,
    /// The same by mail to the verified address.
    Mail,
    /// The present password opens nothing but the way to a new one; all sessions end.
    RequireChange,
    /// A password in this answer, which has to be changed at its first login; all sessions end.
    Temporary,
}

/// What the administrator hands over; it is not kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminPasswordResetAnswer)]
pub(super) struct Handed {
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(log_in))
        .add(Access::Public, routes!(change_at_login))
        .add(Access::Authenticated, routes!(change))
        .add(Access::Public, routes!(reset))
        .add(Access::Public, routes!(confirm))
        .add(
            Access::Permission(USER_WRITE).aal2_fresh(),
            routes!(reset_by_admin),
        )
}

/// Log in with a password
///
/// Whatever is wrong, the answer is one and the same 401.
#[utoipa::path(post, path = "/login/password", tag = "identity", request_body = LoginBody,
    responses((status = 200, body = LoginResult), (status = 401), (status = 429), (status = 503)))]
pub(super) async fn log_in(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<LoginBody>,
) -> ApiResult<Response> {
    let wish = passwords::PasswordLogin {
        host: way.host().map(str::to_owned),
        tenant: body.tenant,
        identifier: body.identifier,
        password: body.password,
        device: way.device(body.device),
        transport: way.transport(body.transport)?,
    };
    let result = Box::pin(passwords::login(&core, &cx, wish)).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Change a password at login
///
/// Ends a login that answered `password_change_required`.
#[utoipa::path(post, path = "/login/password-change", tag = "identity", request_body = TicketBody,
    responses((status = 200, body = LoginResult), (status = 400), (status = 401), (status = 429)))]
pub(super) async fn change_at_login(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<TicketBody>,
) -> ApiResult<Response> {
    let device = body.device_id.as_deref().or(way.device_id());
    let change =
        passwords::change_with_ticket(&core, &cx, &body.ticket, device, &body.new_password);
    let result = Box::pin(change).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Change the own password
///
/// Other sessions end, and a notice is sent.
#[utoipa::path(post, path = "/me/password", tag = "identity", request_body = OwnBody,
    responses((status = 204), (status = 400), (status = 401), (status = 429)))]
pub(super) async fn change(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<OwnBody>,
) -> ApiResult<StatusCode> {
    let wish = passwords::Change {
        old: body.old_password,
        new: body.new_password,
        keep_sessions: body.keep_sessions,
    };
    Box::pin(passwords::change_own(&core, &cx, wish)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ask for a new password
///
/// A link is sent when there is such an account; the answer is the same when there is none.
#[utoipa::path(post, path = "/password/reset", tag = "identity", request_body = ResetBody,
    responses((status = 202), (status = 409), (status = 429)))]
pub(super) async fn reset(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<ResetBody>,
) -> ApiResult<StatusCode> {
    let wish = passwords::ResetWish {
        host: way.host().map(str::to_owned),
        tenant: body.tenant,
        identifier: body.identifier,
    };
    passwords::request_reset(&core, &cx, wish).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Set a new password with a link or a code
///
/// All sessions end; a second factor stays and is still asked for.
#[utoipa::path(post, path = "/password/reset/confirm", tag = "identity", request_body = ConfirmBody,
    responses((status = 204), (status = 400), (status = 401), (status = 429)))]
pub(super) async fn confirm(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<ConfirmBody>,
) -> ApiResult<StatusCode> {
    let sent = match (body.token, body.transaction_id, body.code) {
        (Some(token), None, None) => passwords::Sent::Token(token),
        (None, Some(transaction), Some(code)) => passwords::Sent::Code {
            host: way.host().map(str::to_owned),
            tenant: body.tenant,
            transaction,
            code,
            device: body
                .device_id
                .or_else(|| way.device_id().map(str::to_owned)),
        },
        _ => {
            let message = "give either a token, or a transaction and its code";
            return Err(Error::field("token", "either", message).into());
        }
    };
    Box::pin(passwords::confirm_reset(&core, &cx, &sent, &body.password)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reset a user's password
///
/// For users whom the caller may administer. What is handed over is in this answer and nowhere else.
#[utoipa::path(post, path = "/users/{id}/reset-password", tag = "identity", request_body = AdminBody,
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 200, body = Handed), (status = 401), (status = 403), (status = 404), (status = 409)))]
pub(super) async fn reset_by_admin(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<AdminBody>,
) -> ApiResult<Json<Handed>> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::from(reason::USER_NOT_FOUND))?;
    let how = match body.how {
        How::Link => AdminReset::Link,
        How::Mail => AdminReset::Mail,
        How::RequireChange => AdminReset::RequireChange,
        How::Temporary => AdminReset::Temporary,
    };
    let handed = Box::pin(passwords::reset_by_admin(&core, &cx, id, how)).await?;
    Ok(Json(Handed {
        link: handed.link,
        password: handed.password.map(|p| p.expose().clone()),
        expires_at: handed.expires_at,
    }))
}
