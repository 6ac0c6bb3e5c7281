//! `/token`: refreshing, and what services ask about tokens (ID-100, RFC 7662, RFC 7009).

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use portico_base::{Access, FieldFault, Secret};
use portico_web::{ApiResult, Cx, Json, Problem, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::way::Way;
use crate::domain::login::{LoginResult, Tokens, Transport};
use crate::error::{Error, reason};
use crate::ops::introspect::{self, Good, Target};
use crate::ops::refresh;
use crate::ops::sessions::LogOut;

/// A refresh token; a browser whose tokens are cookies sends an empty object, or nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenRefresh)]
pub(super) struct Refresh {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    refresh_token: Option<Secret<String>>,
    /// Lets a client whose answer was lost ask again, later than ten seconds.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    device_secret: Option<Secret<String>>,
    /// Components as at login.
    #[serde(default)]
    fingerprint: BTreeMap<String, String>,
}

/// A token that is asked about (RFC 7662 §2.1, RFC 7009 §2.1).
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TokenQuestion)]
pub(super) struct Question {
    /// An access or a refresh token.
    #[schema(value_type = String)]
    token: Secret<String>,
    /// Not needed: our tokens tell what they are.
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "clients may send it, RFC 7662 lets servers ignore it"
    )]
    token_type_hint: Option<String>,
}

/// What is behind a token (RFC 7662 §2.2).
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = TokenIntrospection)]
pub(super) struct Introspection {
    active: bool,
    /// `Bearer` or `refresh_token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<Uuid>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aal: Option<u8>,
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(Access::Public, routes!(renew))
        .add(Access::Authenticated, routes!(ask))
        .add(Access::Authenticated, routes!(revoke))
}

/// Refresh tokens
///
/// Rotates the refresh token. Asking twice at once gives the same token twice; an old one ends the session.
#[utoipa::path(post, path = "/token/refresh", tag = "identity", request_body = Refresh,
    responses((status = 200, body = Tokens), (status = 401), (status = 429)))]
pub(super) async fn renew(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    body: Bytes,
) -> ApiResult<Response> {
    let asked: Refresh = if body.is_empty() {
        Refresh::default()
    } else {
        portico_web::extract::parse(&body)?
    };
    let (token, cookie) = match asked.refresh_token {
        Some(token) => (Some(token), false),
        None => (way.refresh_cookie()?.cloned(), true),
    };
    let wish = refresh::Wish {
        token: token.ok_or(Error::from(reason::REFRESH_INVALID))?,
        device_secret: asked.device_secret.or_else(|| way.device_secret().cloned()),
        fingerprint: asked.fingerprint,
        cookie,
    };
    let answered = refresh::refresh(&core, &cx, &wish).await;
    Ok(match answered {
        Ok(tokens) if wish.cookie => {
            let result = LoginResult::done(tokens, None, Transport::Cookie);
            super::login::answer(&way, StatusCode::OK, result)
        }
        Ok(tokens) => no_store(Json(tokens).into_response()),
        Err(error) => {
            let over = error.is(reason::REFRESH_INVALID) || error.is(reason::SESSION_REVOKED);
            let mut response = Problem::from(error).into_response();
            if wish.cookie && over {
                way.clear_cookies(response.headers_mut());
            }
            response
        }
    })
}

/// Introspect a token
///
/// RFC 7662: a token that is not good is `{"active": false}`. For services.
#[utoipa::path(post, path = "/token/introspect", tag = "identity",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Introspection), (status = 403)))]
pub(super) async fn ask(State(core): State<Api>, Cx(cx): Cx, body: Bytes) -> ApiResult<Response> {
    let question = form(&body)?;
    let found = introspect::introspect(&core, &cx, &question.token).await?;
    let issuer = core.edge.issuer()?.issuer.to_string();
    let told = match found {
        None => Introspection::default(),
        Some(Good::Access(token)) => {
            let who = &token.principal;
            Introspection {
                active: true,
                token_type: Some("Bearer"),
                exp: Some(token.expires_s),
                iss: Some(issuer),
                sub: Some(who.subject.to_string()),
                tid: Some(who.tenant),
                sid: who.session.as_deref().map(str::to_owned),
                scope: (!who.scopes.is_empty()).then(|| who.scopes.join(" ")),
                roles: Some(who.roles.to_vec()),
                aal: Some(who.aal),
            }
        }
        Some(Good::Refresh(session)) => Introspection {
            active: true,
            token_type: Some("refresh_token"),
            exp: Some(session.idle_expires_at.timestamp()),
            iss: Some(issuer),
            sub: Some(session.user.to_string()),
            tid: Some(session.tenant),
            sid: Some(session.id.to_string()),
            ..Introspection::default()
        },
    };
    Ok(no_store(Json(told).into_response()))
}

/// Revoke a token
///
/// RFC 7009: ends the session behind an access or refresh token. A token that means nothing is revoked
/// already. For services.
#[utoipa::path(post, path = "/token/revoke", tag = "identity",
    request_body(content = Question, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200), (status = 403)))]
pub(super) async fn revoke(
    State(core): State<Api>,
    Cx(cx): Cx,
    body: Bytes,
) -> ApiResult<StatusCode> {
    let question = form(&body)?;
    introspect::revoke(&core, &cx, &Target::Token(question.token), LogOut::This).await?;
    Ok(StatusCode::OK)
}

fn form(body: &[u8]) -> ApiResult<Question> {
    serde_urlencoded::from_bytes(body).map_err(|error| {
        let fault = FieldFault::new("token", "invalid", error.to_string());
        Problem::invalid("identity.invalid", vec![fault])
    })
}

fn no_store(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
