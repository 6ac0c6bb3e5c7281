//! `/mail`: whether mail works, what a notice looks like, and a test (ID-143).

use axum::extract::State;
use portico_base::Access;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::mail::templates::Template;
use crate::ops::mails as ops;
use crate::permissions::MAIL_WRITE;

/// Whether mails are sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MailStatus)]
pub(super) struct Status {
    on: bool,
    /// Settings without which no mail is sent.
    missing: Vec<&'static str>,
    /// Notices whose template can be changed by the setting `mail.templates`.
    notices: Vec<&'static str>,
}

/// A notice to be looked at.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MailPreviewWish)]
pub(super) struct Wish {
    notice: String,
    /// `zh-CN` or `en`.
    locale: String,
    /// One that is not stored yet; without it the present one is shown.
    #[serde(default)]
    template: Option<Template>,
}

/// A mail as it would be sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MailPreview)]
pub(super) struct Preview {
    subject: String,
    text: String,
    html: String,
}

/// Where a test goes.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MailTestWish)]
pub(super) struct Test {
    /// Another address than the caller's own.
    to: Option<String>,
}

/// Where a test went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MailTest)]
pub(super) struct Sent {
    to: String,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let access = || Access::Permission(MAIL_WRITE);
    all.add(access(), routes!(status))
        .add(access(), routes!(preview))
        .add(access(), routes!(test))
}

/// Show whether mail works
///
/// Without a server and a sender no mail is sent, and everything that needs mail is hidden.
#[utoipa::path(get, path = "/mail", tag = "identity", responses((status = 200, body = Status)))]
pub(super) async fn status(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Status>> {
    let status = ops::status(&core, &cx)?;
    Ok(Json(Status {
        on: status.on,
        missing: status.missing,
        notices: status.notices,
    }))
}

/// Preview a mail
///
/// Fills the template of a notice with samples; a template that comes along is checked and not stored.
#[utoipa::path(post, path = "/mail/preview", tag = "identity", request_body = Wish,
    responses((status = 200, body = Preview), (status = 400)))]
pub(super) async fn preview(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<Json<Preview>> {
    let template = wish.template.as_ref();
    let mail = ops::preview(&core, &cx, &wish.notice, &wish.locale, template)?;
    Ok(Json(Preview {
        subject: mail.subject,
        text: mail.text,
        html: mail.html,
    }))
}

/// Send a test mail
///
/// Sent at once and not queued: what the mail server says comes back as `detail`.
#[utoipa::path(post, path = "/mail/test", tag = "identity", request_body = Test,
    responses((status = 200, body = Sent), (status = 400), (status = 409), (status = 503)))]
pub(super) async fn test(
    State(core): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Test>,
) -> ApiResult<Json<Sent>> {
    let to = ops::test(&core, &cx, wish.to.as_deref()).await?;
    Ok(Json(Sent { to }))
}
