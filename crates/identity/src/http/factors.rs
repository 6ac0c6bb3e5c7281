//! `/login/mfa`, `/step-up`, `/me/totp`, `/me/recovery-codes`: second factors (ID-75…79).

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
use crate::domain::login::LoginResult;
use crate::error::{Error, reason};
use crate::ops::factors::Shown;
use crate::ops::{recovery, step_up, totp};
use crate::permissions::USER_WRITE;

/// A ticket of a login, and the device that began it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LoginTicket)]
pub(super) struct Ticket {
    /// As the login gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    /// The client's own name for the device, as the login had it; browsers show it by cookie.
    #[serde(default)]
    device_id: Option<String>,
}

/// A ticket with a second factor: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MfaAttempt)]
pub(super) struct Attempt {
    /// As the login gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    /// The client's own name for the device, as the login had it; browsers show it by cookie.
    #[serde(default)]
    device_id: Option<String>,
    /// The present code of the app.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    recovery_code: Option<Secret<String>>,
}

/// A ticket with the first code of a new factor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MfaConfirmation)]
pub(super) struct Confirmation {
    /// As the login gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    /// The client's own name for the device, as the login had it; browsers show it by cookie.
    #[serde(default)]
    device_id: Option<String>,
    /// The present code of the app.
    #[schema(value_type = String)]
    code: Secret<String>,
}

/// Another authentication of a session: exactly one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StepUpAttempt)]
pub(super) struct Again {
    /// As `identity.step_up_required` gave it.
    #[schema(value_type = String)]
    ticket: Secret<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    password: Option<Secret<String>>,
    /// The present code of the app.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code: Option<Secret<String>>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    recovery_code: Option<Secret<String>>,
}

/// The first code of a new factor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TotpCode)]
pub(super) struct Code {
    /// The present code of the app.
    #[schema(value_type = String)]
    code: Secret<String>,
}

/// Why factors are reset.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FactorReset)]
pub(super) struct Why {
    #[serde(default)]
    reason: Option<String>,
}

/// A factor that is being set up. It counts once it is confirmed with a code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TotpEnrolment)]
pub(super) struct Enrolment {
    /// Base32, for people who cannot scan.
    secret: String,
    /// `otpauth://totp/…` for apps.
    uri: String,
    /// The same as an image.
    qr_svg: String,
}

/// The factor as its user sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TotpStatus)]
pub(super) struct Status {
    enabled: bool,
    /// The user may not be without one.
    required: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    confirmed_at: Option<Timestamp>,
    /// Codes are not taken until then: too many were wrong.
    #[schema(value_type = Option<String>, format = DateTime)]
    locked_until: Option<Timestamp>,
    recovery_codes_left: usize,
}

/// Recovery codes, shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecoveryCodes)]
pub(super) struct Codes {
    /// Each is good once.
    recovery_codes: Vec<String>,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let own = Access::Authenticated;
    all.add(Access::Public, routes!(mfa))
        .add(Access::Public, routes!(begin_at_login))
        .add(Access::Public, routes!(confirm_at_login))
        .add(own.clone(), routes!(again))
        .add(own.clone(), routes!(status, begin))
        .add(own.clone(), routes!(confirm))
        .add(own.clone().aal2_fresh(), routes!(remove))
        .add(own.aal2_fresh(), routes!(regenerate))
        .add(Access::Permission(USER_WRITE).aal2_fresh(), routes!(reset))
}

/// Show a second factor
///
/// Ends a login that answered `mfa_required`. A wrong code leaves the ticket as it is; five lock the factor
/// for 15 minutes.
#[utoipa::path(post, path = "/login/mfa", tag = "identity", request_body = Attempt,
    responses((status = 200, body = LoginResult), (status = 401), (status = 429)))]
pub(super) async fn mfa(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<Attempt>,
) -> ApiResult<Response> {
    let shown = one_of(body.code, body.recovery_code)?;
    let device = body.device_id.as_deref().or(way.device_id());
    let result = totp::finish_login(&core, &cx, &body.ticket, device, &shown).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Begin a second factor at login
///
/// For a login that answered `enrol_required`. Doing it again makes another secret.
#[utoipa::path(post, path = "/login/mfa/totp", tag = "identity", request_body = Ticket,
    responses((status = 200, body = Enrolment), (status = 401)))]
pub(super) async fn begin_at_login(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<Ticket>,
) -> ApiResult<Json<Enrolment>> {
    let device = body.device_id.as_deref().or(way.device_id());
    let made = totp::begin_at_login(&core, &cx, &body.ticket, device).await?;
    Ok(Json(Enrolment::of(&made)))
}

/// Confirm a second factor at login
///
/// Ends the login. The recovery codes are in this answer and nowhere else.
#[utoipa::path(post, path = "/login/mfa/totp/confirm", tag = "identity", request_body = Confirmation,
    responses((status = 200, body = LoginResult), (status = 401), (status = 429)))]
pub(super) async fn confirm_at_login(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<Confirmation>,
) -> ApiResult<Response> {
    let device = body.device_id.as_deref().or(way.device_id());
    let result = totp::confirm_at_login(&core, &cx, &body.ticket, device, &body.code).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Authenticate again
///
/// The same session gets new tokens: fresh ones, and with a second factor stronger ones.
#[utoipa::path(post, path = "/step-up", tag = "identity", request_body = Again,
    responses((status = 200, body = LoginResult), (status = 401), (status = 429)))]
pub(super) async fn again(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    Json(body): Json<Again>,
) -> ApiResult<Response> {
    let proof = match (body.password, body.code, body.recovery_code) {
        (Some(password), None, None) => step_up::Again::Password(password),
        (None, code, recovery) => step_up::Again::Factor(one_of(code, recovery)?),
        _ => return Err(several().into()),
    };
    let result = step_up::again(&core, &cx, &body.ticket, &proof).await?;
    Ok(login::answer(&way, StatusCode::OK, result))
}

/// Read the second factor
///
/// Whether the caller has one, and how many recovery codes are left.
#[utoipa::path(get, path = "/me/totp", tag = "identity", responses((status = 200, body = Status)))]
pub(super) async fn status(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Status>> {
    let status = totp::status(&core, &cx).await?;
    Ok(Json(Status {
        enabled: status.confirmed_at.is_some(),
        required: status.required,
        confirmed_at: status.confirmed_at,
        locked_until: status.locked_until,
        recovery_codes_left: status.recovery_codes_left,
    }))
}

/// Begin a second factor
///
/// Makes a secret that counts once it is confirmed; needs a fresh session.
#[utoipa::path(post, path = "/me/totp", tag = "identity",
    responses((status = 200, body = Enrolment), (status = 401), (status = 409)))]
pub(super) async fn begin(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Enrolment>> {
    let made = totp::begin(&core, &cx).await?;
    Ok(Json(Enrolment::of(&made)))
}

/// Confirm a second factor
///
/// The recovery codes are in this answer and nowhere else.
#[utoipa::path(post, path = "/me/totp/confirm", tag = "identity", request_body = Code,
    responses((status = 200, body = Codes), (status = 401), (status = 409), (status = 429)))]
pub(super) async fn confirm(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<Code>,
) -> ApiResult<Json<Codes>> {
    let codes = totp::confirm(&core, &cx, &body.code).await?;
    Ok(Json(Codes::of(&codes)))
}

/// Remove the second factor
///
/// And its recovery codes; the user is told by a notice.
#[utoipa::path(delete, path = "/me/totp", tag = "identity",
    responses((status = 204), (status = 401), (status = 409)))]
pub(super) async fn remove(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<StatusCode> {
    totp::remove(&core, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replace the recovery codes
///
/// The old ones are good no more; the new ones are in this answer and nowhere else.
#[utoipa::path(post, path = "/me/recovery-codes", tag = "identity",
    responses((status = 200, body = Codes), (status = 401), (status = 409)))]
pub(super) async fn regenerate(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Codes>> {
    let codes = recovery::regenerate(&core, &cx).await?;
    Ok(Json(Codes::of(&codes)))
}

/// Reset a user's factors
///
/// Removes the second factor and the recovery codes of another user, who is logged out everywhere.
#[utoipa::path(post, path = "/users/{id}/reset-factors", tag = "identity", request_body = Why,
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 204), (status = 401), (status = 403), (status = 404)))]
pub(super) async fn reset(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<Why>,
) -> ApiResult<StatusCode> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::from(reason::USER_NOT_FOUND))?;
    totp::reset(&core, &cx, id, body.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Enrolment {
    fn of(made: &totp::Enrolment) -> Self {
        Self {
            secret: made.secret.expose().clone(),
            uri: made.uri.expose().clone(),
            qr_svg: made.qr_svg.expose().clone(),
        }
    }
}

impl Codes {
    fn of(codes: &[Secret<String>]) -> Self {
        Self {
            recovery_codes: codes.iter().map(|c| c.expose().clone()).collect(),
        }
    }
}

fn one_of(code: Option<Secret<String>>, recovery: Option<Secret<String>>) -> Result<Shown, Error> {
    match (code, recovery) {
        (Some(code), None) => Ok(Shown::Code(code)),
        (None, Some(code)) => Ok(Shown::Recovery(code)),
        _ => Err(several()),
    }
}

fn several() -> Error {
    Error::field("code", "required", "show exactly one factor")
}
