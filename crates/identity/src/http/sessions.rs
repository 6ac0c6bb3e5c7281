//! `/logout`, `/me/sessions`, `/sessions`: who is logged in, and logging them out (ID-110).

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, PageQuery, Query, Routes, page, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::way::Way;
use crate::domain::contact::masked_address;
use crate::domain::session::Session;
use crate::ops::sessions::{self as ops, LogOut};
use crate::permissions::{PII_READ, SESSION_READ, SESSION_WRITE};
use crate::store::sessions::Filter;

/// Which sessions end.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LogOutWish)]
pub(super) struct Wish {
    #[serde(default)]
    scope: LogOut,
}

/// Which sessions are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
    user: Option<Uuid>,
    /// `password`, `sms`, `apple`, …
    method: Option<String>,
    /// Those that have ended, too (kept for 90 days).
    #[serde(default)]
    ended: bool,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Something that happened at a login or a refresh.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoginEvent)]
pub(super) struct Event {
    id: Uuid,
    /// `login`, `refresh_retried`, `refresh_reused`, `fingerprint`.
    kind: String,
    method: String,
    /// Masked for callers without `identity:pii:read`.
    ip: Option<String>,
    user_agent: Option<String>,
    device_id: Option<Uuid>,
    session_id: Option<Uuid>,
    /// What belongs to its kind: `score`, `new_device`, …
    #[schema(value_type = Object)]
    detail: serde_json::Value,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// How many sessions ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoggedOut)]
pub(super) struct LoggedOut {
    sessions: usize,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct View {
    id: Uuid,
    user_id: Uuid,
    /// The device that it is on.
    device_id: Uuid,
    /// It is the one that asks.
    current: bool,
    method: String,
    /// RFC 8176 values.
    amr: Vec<String>,
    aal: u8,
    /// Last authentication.
    #[schema(value_type = String, format = DateTime)]
    auth_time: Timestamp,
    /// Masked for callers without `identity:pii:read`, unless it is their own.
    ip: Option<String>,
    user_agent: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Login or last refresh.
    #[schema(value_type = String, format = DateTime)]
    last_active_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// `logout`, `kicked`, `evicted`, `replaced`, …
    end_reason: Option<String>,
}

impl View {
    fn of(session: Session, current: Option<Uuid>, masked: bool) -> Self {
        let mask = |ip: String| if masked { masked_address(&ip) } else { ip };
        Self {
            id: session.id,
            user_id: session.user,
            device_id: session.device,
            current: current == Some(session.id),
            method: session.method,
            amr: session.amr,
            aal: session.aal,
            auth_time: session.auth_time,
            ip: session.ip.map(mask),
            user_agent: session.user_agent,
            created_at: session.created_at,
            last_active_at: session.last_active_at,
            expires_at: session.idle_expires_at.min(session.abs_expires_at),
            ended_at: session.revoked_at,
            end_reason: session.revoke_reason,
        }
    }
}

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = Access::Permission(SESSION_READ);
    let write = Access::Permission(SESSION_WRITE);
    all.add(Access::Authenticated, routes!(log_out))
        .add(Access::Authenticated, routes!(own))
        .add(read.clone(), routes!(list))
        .add(write.clone(), routes!(end))
        .add(read.clone(), routes!(of_user))
        .add(read, routes!(events))
        .add(write, routes!(log_user_out))
}

/// Log out
///
/// This session, the others, or all of them. An empty body means this one.
#[utoipa::path(post, path = "/logout", tag = "me", request_body = Wish, responses((status = 204)))]
pub(super) async fn log_out(
    State(core): State<Api>,
    Cx(cx): Cx,
    way: Way,
    body: Bytes,
) -> ApiResult<Response> {
    let wish: Wish = if body.is_empty() {
        Wish::default()
    } else {
        portico_web::extract::parse(&body)?
    };
    ops::log_out(&core, &cx, wish.scope).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    if wish.scope != LogOut::Others {
        way.clear_cookies(response.headers_mut());
    }
    Ok(response)
}

/// List own sessions
///
/// Those that have not ended, newest first.
#[utoipa::path(get, path = "/me/sessions", tag = "me", responses((status = 200, body = Page<View>)))]
pub(super) async fn own(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Page<View>>> {
    let current = ops::session_of(cx.principal());
    let sessions = ops::own(&core, &cx).await?;
    Ok(Json(whole(sessions, |s| View::of(s, current, false))))
}

/// List sessions
///
/// Newest first, of one tenant.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(ListQuery),
    responses((status = 200, body = Page<View>)))]
pub(super) async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<View>>> {
    let limit = page::limit(query.limit)?;
    let after = query
        .cursor
        .as_deref()
        .map(Cursor::<(Timestamp, Uuid)>::decode)
        .transpose()?;
    let filter = Filter {
        user: query.user,
        method: query.method,
        ended: query.ended,
        after: after.map(|cursor| cursor.0),
    };
    let tenant = query.tenant.as_deref();
    let sessions = ops::list(&core, &cx, tenant, &filter, limit + 1).await?;
    let masked = !cx.principal().may(&PII_READ);
    let current = ops::session_of(cx.principal());
    let views = sessions
        .into_iter()
        .map(|s| View::of(s, current, masked))
        .collect();
    Ok(Json(Page::cut(views, limit, |v| (v.created_at, v.id))))
}

/// End a session
///
/// Its tokens are refused within a second, everywhere.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the session")),
    responses((status = 204), (status = 404)))]
pub(super) async fn end(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<StatusCode> {
    ops::end_by_admin(&core, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a user's sessions
///
/// Those that have not ended, newest first.
#[utoipa::path(get, path = "/users/{id}/sessions", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 200, body = Page<View>), (status = 404)))]
pub(super) async fn of_user(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<Page<View>>> {
    let masked = !cx.principal().may(&PII_READ);
    let current = ops::session_of(cx.principal());
    let sessions = ops::of_user(&core, &cx, id).await?;
    Ok(Json(whole(sessions, |s| View::of(s, current, masked))))
}

/// List a user's logins
///
/// Logins and what was odd about refreshes, newest first, kept for 180 days.
#[utoipa::path(get, path = "/users/{id}/events", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the user"), PageQuery),
    responses((status = 200, body = Page<Event>), (status = 404)))]
pub(super) async fn events(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
    Query(query): Query<PageQuery>,
) -> ApiResult<Json<Page<Event>>> {
    let limit = query.limit()?;
    let after = query.cursor.as_deref().map(Cursor::decode).transpose()?;
    let after = after.map(|cursor| cursor.0);
    let masked = !cx.principal().may(&PII_READ);
    let mask = |ip: String| if masked { masked_address(&ip) } else { ip };
    let events = ops::events(&core, &cx, id, after, limit + 1).await?;
    let events = events.into_iter().map(|event| Event {
        id: event.id,
        kind: event.kind,
        method: event.method,
        ip: event.ip.map(mask),
        user_agent: event.user_agent,
        device_id: event.device,
        session_id: event.session,
        detail: event.detail,
        at: event.at,
    });
    Ok(Json(Page::cut(events.collect(), limit, |e| (e.at, e.id))))
}

/// Log a user out
///
/// Ends all sessions of the user; logging in again stays possible.
#[utoipa::path(post, path = "/users/{id}/logout", tag = "sessions",
    params(("id" = Uuid, Path, description = "id of the user")),
    responses((status = 200, body = LoggedOut), (status = 404)))]
pub(super) async fn log_user_out(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<LoggedOut>> {
    let sessions = ops::log_user_out(&core, &cx, id).await?;
    Ok(Json(LoggedOut { sessions }))
}

/// A list that fits on one page.
fn whole(sessions: Vec<Session>, view: impl Fn(Session) -> View) -> Page<View> {
    Page {
        items: sessions.into_iter().map(view).collect(),
        next_cursor: None,
    }
}
