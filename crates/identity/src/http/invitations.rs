//! `/invitations`: links that make one account each.

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, page, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::contact::masked_email;
use crate::domain::invitation::Invitation;
use crate::error::{Error, reason};
use crate::ops::invitations::{self as ops, NewInvitation};
use crate::permissions::{USER_READ, USER_WRITE};

/// Whose invitations.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// An invitation to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InvitationWish)]
struct CreateBody {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    #[serde(default)]
    tenant: Option<String>,
    /// Where it goes; absent: the link is in the answer.
    #[serde(default)]
    email: Option<String>,
    /// Names of roles besides `user`.
    #[serde(default)]
    roles: Vec<String>,
    /// Language of the mail and the account: `zh-CN` (default) or `en`.
    #[serde(default = "chinese")]
    locale: String,
}

fn chinese() -> String {
    "zh-CN".to_owned()
}

/// An invitation as it is shown: never its link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
struct View {
    id: Uuid,
    tenant_id: Uuid,
    /// Masked.
    email: Option<String>,
    /// Ids of roles besides `user`.
    role_ids: Vec<Uuid>,
    locale: String,
    /// `open`, `used`, `revoked` or `expired`.
    state: &'static str,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<Timestamp>,
    /// The user that it made.
    used_by: Option<Uuid>,
}

impl View {
    fn new(of: Invitation, now: Timestamp) -> Self {
        Self {
            state: of.state(now),
            id: of.id,
            tenant_id: of.tenant,
            email: of.email.as_deref().map(masked_email),
            role_ids: of.roles,
            locale: of.locale,
            created_by: of.created_by,
            created_at: of.created_at,
            expires_at: of.expires_at,
            used_at: of.used_at,
            used_by: of.used_by,
        }
    }
}

/// A new invitation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NewInvitation)]
struct Made {
    /// Shown once, when it did not go by mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    /// It went to the address.
    mailed: bool,
    #[serde(flatten)]
    view: View,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = || Access::Permission(USER_WRITE);
    all.add(Access::Permission(USER_READ), routes!(list))
        .add(write(), routes!(create))
        .add(write(), routes!(revoke))
}

/// List invitations
///
/// Newest first, never their links.
#[utoipa::path(get, path = "/invitations", tag = "invitations", params(ListQuery), responses((status = 200, body = Page<View>)))]
async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<View>>> {
    let limit = page::limit(query.limit)?;
    let after = query.cursor.as_deref();
    let after = after.map(Cursor::<(Timestamp, Uuid)>::decode).transpose()?;
    let after = after.map(|cursor| cursor.0);
    let found = ops::list(&api, &cx, query.tenant.as_deref(), after, limit).await?;
    let now = cx.now();
    let views = found.into_iter().map(|i| View::new(i, now)).collect();
    Ok(Json(Page::cut(views, limit, |v: &View| {
        (v.created_at, v.id)
    })))
}

/// Create an invitation
///
/// Good for one account within seven days, with preset roles.
#[utoipa::path(post, path = "/invitations", tag = "invitations", request_body = CreateBody,
    responses((status = 201, body = Made), (status = 403, description = "more than the caller holds")))]
async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<CreateBody>,
) -> ApiResult<(StatusCode, Json<Made>)> {
    let new = NewInvitation {
        tenant: body.tenant,
        email: body.email,
        roles: body.roles,
        locale: body.locale,
    };
    let (invitation, link) = ops::create(&api, &cx, new).await?;
    let made = Made {
        link: link.map(|link| link.expose().clone()),
        mailed: invitation.mailed,
        view: View::new(invitation, cx.now()),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Revoke an invitation
///
/// Its link is good for nothing any more; an account that it made stays.
#[utoipa::path(delete, path = "/invitations/{id}", tag = "invitations", params(("id" = String, Path, description = "id of the invitation")),
    responses((status = 204), (status = 404, description = "unknown")))]
async fn revoke(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    let id = Uuid::parse_str(&id).map_err(|_| Error::from(reason::NOT_FOUND))?;
    ops::revoke(&api, &cx, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
