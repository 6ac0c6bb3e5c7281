//! `/tokens`: registration tokens.

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::Timestamp;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, PageQuery, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::token::Token;
use crate::error::Error;
use crate::ops::tokens as ops;

/// A wish for a token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegistrationTokenWish)]
pub(super) struct Wish {
    /// A service name, or the beginning of one followed by `*`.
    name_pattern: String,
    /// Scopes beyond registering: `registry:check:foreign`, `registry:kv:read`, `registry:kv:write`, `registry:session:write`, `registry:event:write`, `registry:*:*`.
    #[serde(default)]
    scopes: Vec<String>,
    /// Instances that may live under it at once; default 100.
    #[serde(default)]
    max_instances: Option<u32>,
    /// It may ask for `default_access: public`.
    #[serde(default)]
    allow_public: bool,
    /// It may ask for the callers' credentials.
    #[serde(default)]
    allow_credentials: bool,
    /// `global`, `default`, or a tenant's id; default the caller's own (the operator's: global).
    #[serde(default)]
    tenant: Option<String>,
    /// When it ends.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Seconds until it ends, instead of `expires_at`.
    #[serde(default)]
    ttl_s: Option<u32>,
    /// What it is for.
    #[serde(default)]
    note: Option<String>,
}

/// A token as it is shown: never its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RegistrationToken)]
pub(super) struct Shown {
    id: Uuid,
    name_pattern: String,
    scopes: Vec<String>,
    max_instances: u32,
    allow_public: bool,
    allow_credentials: bool,
    /// Absent: global services.
    tenant_id: Option<Uuid>,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Last registration with it, to the minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<Timestamp>,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    note: String,
}

impl From<&Token> for Shown {
    fn from(t: &Token) -> Self {
        Self {
            id: t.id,
            name_pattern: t.pattern.text(),
            scopes: t.scopes.clone(),
            max_instances: t.max_instances,
            allow_public: t.allow_public,
            allow_credentials: t.allow_credentials,
            tenant_id: t.tenant,
            expires_at: t.expires_at,
            used_at: t.used_at,
            created_by: t.created_by.clone(),
            created_at: t.created_at,
            note: t.note.clone(),
        }
    }
}

/// A new token, shown once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewRegistrationToken)]
pub(super) struct Made {
    /// The token itself; it is not kept and cannot be shown again.
    token: String,
    #[serde(flatten)]
    shown: Shown,
}

/// List registration tokens
///
/// Newest first, never their text.
#[utoipa::path(get, path = "/tokens", tag = "registry", params(PageQuery),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(page): Query<PageQuery>,
) -> ApiResult<Json<Page<Shown>>> {
    let limit = page.limit()?;
    let after = page
        .cursor
        .as_deref()
        .map(Cursor::<(Timestamp, Uuid)>::decode)
        .transpose()?;
    let tokens = ops::list(&api.core, &cx)?;
    let items: Vec<Shown> = tokens
        .iter()
        .filter(|t| after.as_ref().is_none_or(|a| (t.created_at, t.id) < a.0))
        .take(limit + 1)
        .map(|t| Shown::from(&**t))
        .collect();
    Ok(Json(Page::cut(items, limit, |t| (t.created_at, t.id))))
}

/// Make a registration token
///
/// Its text is in this answer and nowhere else.
#[utoipa::path(post, path = "/tokens", tag = "registry", request_body = Wish,
    responses((status = 201, body = Made)))]
pub(super) async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(wish): Json<Wish>,
) -> ApiResult<(StatusCode, Json<Made>)> {
    if wish.ttl_s.is_some() && wish.expires_at.is_some() {
        return Err(
            Error::field("ttl_s", "conflict", "is given together with `expires_at`").into(),
        );
    }
    let after = wish
        .ttl_s
        .map(|s| cx.now() + chrono::Duration::seconds(i64::from(s)));
    let new = ops::NewToken {
        name_pattern: wish.name_pattern,
        scopes: wish.scopes,
        max_instances: wish.max_instances.unwrap_or(100),
        allow_public: wish.allow_public,
        allow_credentials: wish.allow_credentials,
        tenant: wish.tenant,
        expires_at: wish.expires_at.or(after),
        note: wish.note.unwrap_or_default(),
    };
    let (token, text) = ops::create(&api.core, &cx, new).await?;
    let made = Made {
        token: text.expose().clone(),
        shown: Shown::from(&token),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Remove a registration token
///
/// Instances that registered with it live on.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "registry",
    params(("id" = String, Path, description = "id of the token")),
    responses((status = 204), (status = 404, description = "unknown")))]
pub(super) async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::UnknownToken)?;
    ops::delete(&api.core, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
