//! `/users`: administration of users, and `/me`: the own profile.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cursor, Cx, IfMatch, Json, Page, Query, Routes, etag, page, routes};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::user_view::{Mask, UserView};
use crate::domain::user::UserStatus;
use crate::error::{Error, reason};
use crate::ops::users::{self as ops, Edit, NewUser, SelfEdit, Wanted};
use crate::permissions::{USER_READ, USER_WRITE};
use crate::store::user_list::Key;

/// What is looked for; all of it must fit.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
    id: Option<Uuid>,
    /// Beginning of the user name; of the display name where there is no user name.
    name: Option<String>,
    /// The whole address.
    email: Option<String>,
    /// The whole number.
    phone: Option<String>,
    /// Default: all but deleted ones.
    status: Option<UserStatus>,
    /// Name of a role.
    role: Option<String>,
    /// Created at or after.
    #[param(value_type = Option<String>, format = DateTime)]
    created_from: Option<Timestamp>,
    /// Created before.
    #[param(value_type = Option<String>, format = DateTime)]
    created_to: Option<Timestamp>,
    /// Last login at or after.
    #[param(value_type = Option<String>, format = DateTime)]
    login_from: Option<Timestamp>,
    /// Last login before.
    #[param(value_type = Option<String>, format = DateTime)]
    login_to: Option<Timestamp>,
    /// Method of the last login.
    method: Option<String>,
    /// Shows personal data whole; needs `identity:pii:read` and leaves an audit record.
    #[serde(default)]
    unmasked: bool,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How one user is shown.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// Shows personal data whole; needs `identity:pii:read` and leaves an audit record.
    #[serde(default)]
    unmasked: bool,
}

/// A user to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserWish)]
pub(super) struct CreateBody {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    #[serde(default)]
    tenant: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    email: Option<String>,
    /// E.164, or the national form of the default country.
    #[serde(default)]
    phone: Option<String>,
    #[serde(default)]
    display_name: Option<String>,
    /// `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
    /// Name of a time zone.
    #[serde(default)]
    time_zone: Option<String>,
    /// Names of roles besides `user`.
    #[serde(default)]
    roles: Vec<String>,
}

/// What is changed; `null` empties a field.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserEdit)]
pub(super) struct EditBody {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    username: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    phone: Option<Option<String>>,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    time_zone: Option<String>,
    /// The next login asks for a new password.
    #[serde(default)]
    must_change_password: Option<bool>,
    /// The account can be neither deleted nor erased.
    #[serde(default)]
    legal_hold: Option<bool>,
}

/// What users change of themselves.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnProfileEdit)]
pub(super) struct OwnEditBody {
    #[serde(default)]
    display_name: Option<String>,
    /// `zh-CN` or `en`.
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    time_zone: Option<String>,
}

/// Why, and until when.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserDisableWish)]
pub(super) struct DisableBody {
    #[serde(default)]
    reason: Option<String>,
    /// Enabled again at this moment; absent: when somebody does it.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

/// Why.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// For the audit record.
    reason: Option<String>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = || Access::Permission(USER_READ);
    let write = || Access::Permission(USER_WRITE);
    all.add(read(), routes!(list))
        .add(write(), routes!(create))
        .add(read(), routes!(get))
        .add(write(), routes!(edit))
        .add(write(), routes!(delete))
        .add(write(), routes!(disable))
        .add(write(), routes!(enable))
        .add(Access::Authenticated, routes!(me))
        .add(Access::Authenticated, routes!(edit_me))
}

/// The id in a path: what is none is nobody's.
pub(super) fn user_id(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| reason::USER_NOT_FOUND.into())
}

/// List users
///
/// Newest first; by name when a name is looked for, by last login when that is. Personal data is masked.
#[utoipa::path(get, path = "/users", tag = "users", params(ListQuery), responses((status = 200, body = Page<UserView>)))]
async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<UserView>>> {
    let limit = page::limit(query.limit)?;
    let after = query
        .cursor
        .as_deref()
        .map(Cursor::<Key>::decode)
        .transpose()?;
    let mask = Mask::unless(query.unmasked);
    let wanted = Wanted {
        tenant: query.tenant,
        id: query.id,
        name: query.name,
        email: query.email,
        phone: query.phone,
        status: query.status,
        role: query.role,
        created: (query.created_from, query.created_to),
        login: (query.login_from, query.login_to),
        method: query.method,
    };
    let after = after.map(|c| c.0);
    let found = ops::list(&api, &cx, wanted, after, limit, query.unmasked).await?;
    let page = Page::cut(found, limit, |(_, key)| key.clone());
    Ok(Json(Page {
        items: page
            .items
            .into_iter()
            .map(|(found, _)| UserView::new(found.user, found.roles, mask))
            .collect(),
        next_cursor: page.next_cursor,
    }))
}

/// Create a user
///
/// Without a credential: a reset link or an invitation lets the person set one.
#[utoipa::path(post, path = "/users", tag = "users", request_body = CreateBody,
    responses((status = 201, body = UserView), (status = 409, description = "a name is taken, or the quota is used up")))]
async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<CreateBody>,
) -> ApiResult<(StatusCode, Json<UserView>)> {
    let new = NewUser {
        username: body.username,
        email: body.email,
        phone: body.phone,
        display_name: body.display_name.unwrap_or_default(),
        locale: body.locale,
        time_zone: body.time_zone,
        ..NewUser::of(cx.tenant())
    };
    let made = ops::create_by_admin(&api, &cx, body.tenant.as_deref(), new, &body.roles).await?;
    let roles = made.1.into_iter().map(|role| role.name).collect();
    let view = UserView::new(made.0, roles, Mask::All);
    Ok((StatusCode::CREATED, Json(view)))
}

/// Show a user
///
/// With an entity tag for changes.
#[utoipa::path(get, path = "/users/{id}", tag = "users", params(("id" = String, Path, description = "id of the user"), GetQuery),
    responses((status = 200, body = UserView), (status = 404, description = "unknown")))]
async fn get(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(query): Query<GetQuery>,
) -> ApiResult<Response> {
    let found = ops::get(&api, &cx, user_id(&id)?, query.unmasked).await?;
    Ok(tagged(found, Mask::unless(query.unmasked)))
}

/// Change a user
///
/// A changed address or number counts as not verified.
#[utoipa::path(patch, path = "/users/{id}", tag = "users", request_body = EditBody,
    params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = UserView), (status = 404, description = "unknown"), (status = 412, description = "changed in between")))]
async fn edit(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    IfMatch(expected): IfMatch,
    Json(body): Json<EditBody>,
) -> ApiResult<Response> {
    let id = user_id(&id)?;
    let wish = Edit {
        username: body.username,
        email: body.email,
        phone: body.phone,
        must_change_password: body.must_change_password,
        legal_hold: body.legal_hold,
        profile: SelfEdit {
            display_name: body.display_name,
            locale: body.locale,
            time_zone: body.time_zone,
        },
    };
    let found = ops::edit(&api, &cx, id, expected, wish).await?;
    Ok(tagged(found, Mask::All))
}

/// Delete a user
///
/// At once out everywhere; the names are free again.
#[utoipa::path(delete, path = "/users/{id}", tag = "users", params(("id" = String, Path, description = "id of the user"), DeleteQuery),
    responses((status = 204), (status = 404, description = "unknown"), (status = 409, description = "the last super administrator, or under legal hold")))]
async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> ApiResult<StatusCode> {
    ops::delete(&api, &cx, user_id(&id)?, query.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disable a user
///
/// Every token, session and API key is refused within a second.
#[utoipa::path(post, path = "/users/{id}/disable", tag = "users", request_body = DisableBody,
    params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = UserView), (status = 404, description = "unknown"), (status = 409, description = "the last super administrator")))]
async fn disable(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<DisableBody>,
) -> ApiResult<Response> {
    let found = ops::disable(&api, &cx, user_id(&id)?, body.reason, body.until).await?;
    Ok(tagged(found, Mask::All))
}

/// Enable a user
///
/// The person can log in again; what was ended stays ended.
#[utoipa::path(post, path = "/users/{id}/enable", tag = "users", params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = UserView), (status = 404, description = "unknown")))]
async fn enable(State(api): State<Api>, Cx(cx): Cx, Path(id): Path<String>) -> ApiResult<Response> {
    let found = ops::enable(&api, &cx, user_id(&id)?).await?;
    Ok(tagged(found, Mask::All))
}

/// Show the own profile
///
/// Unmasked, with the last login.
#[utoipa::path(get, path = "/me", tag = "me", responses((status = 200, body = UserView)))]
async fn me(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Response> {
    Ok(tagged(ops::own(&api, &cx).await?, Mask::Nothing))
}

/// Change the own profile
///
/// Name for people, language and time zone.
#[utoipa::path(patch, path = "/me", tag = "me", request_body = OwnEditBody,
    responses((status = 200, body = UserView), (status = 412, description = "changed in between")))]
async fn edit_me(
    State(api): State<Api>,
    Cx(cx): Cx,
    IfMatch(expected): IfMatch,
    Json(body): Json<OwnEditBody>,
) -> ApiResult<Response> {
    let wish = SelfEdit {
        display_name: body.display_name,
        locale: body.locale,
        time_zone: body.time_zone,
    };
    Ok(tagged(
        ops::edit_self(&api, &cx, expected, wish).await?,
        Mask::Nothing,
    ))
}

fn tagged(found: ops::Found, mask: Mask) -> Response {
    let tag = etag(ops::version(&found.user));
    let view = UserView::new(found.user, found.roles, mask);
    ([(header::ETAG, tag)], Json(view)).into_response()
}

/// A field that is there: its value, or `null`.
fn given<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(field).map(Some)
}
