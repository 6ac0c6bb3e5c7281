//! `/roles`, `/permissions` and `/users/{id}/roles`: what people may do.

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::{Access, Permission, Timestamp};
use portico_web::{ApiResult, Cx, Json, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::users::user_id;
use crate::domain::role::{Known, Role};
use crate::error::{Error, reason};
use crate::ops::grants;
use crate::ops::roles::{self as ops, NewRole, RoleEdit};
use crate::ops::simulate::{self, Answer, Question};
use crate::permissions::{ROLE_READ, ROLE_WRITE, USER_READ};

/// Whose roles.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    tenant: Option<String>,
}

/// A role to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleWish)]
struct CreateBody {
    /// Slug or id of a tenant; default the own one, and `default` for administrators of all.
    #[serde(default)]
    tenant: Option<String>,
    /// 2 to 40 of a-z, 0-9 and `_`, a letter first; it cannot be changed.
    name: String,
    title_zh: String,
    title_en: String,
    /// `music:playlist:write`, `music:playlist:*`, `music:*`.
    permissions: Vec<String>,
}

/// What is changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleEdit)]
struct EditBody {
    #[serde(default)]
    title_zh: Option<String>,
    #[serde(default)]
    title_en: Option<String>,
    /// The whole set.
    #[serde(default)]
    permissions: Option<Vec<String>>,
}

/// The roles that a user has from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserRolesWish)]
struct GrantBody {
    /// Names; the whole set.
    roles: Vec<String>,
}

/// May somebody do something?
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleQuestion)]
struct SimulateBody {
    /// The user.
    user_id: Uuid,
    /// `service:resource:action`.
    permission: String,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Role)]
struct View {
    id: Uuid,
    /// Absent for a built-in role.
    tenant_id: Option<Uuid>,
    name: String,
    title_zh: String,
    title_en: String,
    permissions: Vec<String>,
    /// It can be neither changed nor deleted.
    built_in: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Role> for View {
    fn from(role: Role) -> Self {
        Self {
            id: role.id,
            tenant_id: role.tenant,
            name: role.name,
            title_zh: role.title_zh,
            title_en: role.title_en,
            permissions: role.permissions.iter().map(Permission::to_string).collect(),
            built_in: role.built_in,
            created_at: role.created_at,
            updated_at: role.updated_at,
        }
    }
}

/// Roles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Roles)]
struct List {
    items: Vec<View>,
}

impl From<Vec<Role>> for List {
    fn from(roles: Vec<Role>) -> Self {
        Self {
            items: roles.into_iter().map(View::from).collect(),
        }
    }
}

/// A known permission.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KnownPermission)]
struct PermissionView {
    name: String,
    /// The service that declares it.
    service: String,
    title_zh: String,
    title_en: String,
    /// Whoever holds it is an administrator, who needs a second factor.
    admin: bool,
    /// It reaches beyond one tenant: only roles of the tenant `system` can have it.
    system: bool,
}

impl From<Known> for PermissionView {
    fn from(known: Known) -> Self {
        Self {
            name: known.name.to_string(),
            service: known.service,
            title_zh: known.title_zh,
            title_en: known.title_en,
            admin: known.admin,
            system: known.system,
        }
    }
}

/// Known permissions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KnownPermissions)]
struct Permissions {
    items: Vec<PermissionView>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = || Access::Permission(ROLE_READ);
    let write = || Access::Permission(ROLE_WRITE);
    all.add(read(), routes!(list))
        .add(write(), routes!(create))
        .add(read(), routes!(get))
        .add(write(), routes!(edit))
        .add(write(), routes!(delete))
        .add(read(), routes!(simulate))
        .add(read(), routes!(permissions))
        .add(Access::Permission(USER_READ), routes!(of_user))
        .add(write(), routes!(grant))
}

fn role_id(text: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(text).map_err(|_| reason::ROLE_NOT_FOUND.into())
}

/// List roles
///
/// Those of the tenant and the built-in ones, by name.
#[utoipa::path(get, path = "/roles", tag = "roles", params(ListQuery), responses((status = 200, body = List)))]
async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<List>> {
    let roles = ops::list(&api, &cx, query.tenant.as_deref()).await?;
    Ok(Json(roles.into()))
}

/// Create a role
///
/// Nobody puts in what they do not hold themselves.
#[utoipa::path(post, path = "/roles", tag = "roles", request_body = CreateBody,
    responses((status = 201, body = View), (status = 403, description = "more than the caller holds"), (status = 409, description = "the name is taken, or there are 100")))]
async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<CreateBody>,
) -> ApiResult<(StatusCode, Json<View>)> {
    let new = NewRole {
        name: body.name,
        title_zh: body.title_zh,
        title_en: body.title_en,
        permissions: body.permissions,
    };
    let role = ops::create(&api, &cx, body.tenant.as_deref(), new).await?;
    Ok((StatusCode::CREATED, Json(role.into())))
}

/// Show a role
///
/// With its permissions.
#[utoipa::path(get, path = "/roles/{id}", tag = "roles", params(("id" = String, Path, description = "id of the role")),
    responses((status = 200, body = View), (status = 404, description = "unknown")))]
async fn get(State(api): State<Api>, Cx(cx): Cx, Path(id): Path<String>) -> ApiResult<Json<View>> {
    Ok(Json(ops::get(&api, &cx, role_id(&id)?).await?.into()))
}

/// Change a role
///
/// Every door follows within a second; tokens stay good.
#[utoipa::path(patch, path = "/roles/{id}", tag = "roles", request_body = EditBody,
    params(("id" = String, Path, description = "id of the role")),
    responses((status = 200, body = View), (status = 403, description = "more than the caller holds"), (status = 404, description = "unknown"), (status = 409, description = "built in")))]
async fn edit(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<EditBody>,
) -> ApiResult<Json<View>> {
    let wish = RoleEdit {
        title_zh: body.title_zh,
        title_en: body.title_en,
        permissions: body.permissions,
    };
    let role = ops::update(&api, &cx, role_id(&id)?, wish).await?;
    Ok(Json(role.into()))
}

/// Delete a role
///
/// It is taken from everybody who has it.
#[utoipa::path(delete, path = "/roles/{id}", tag = "roles", params(("id" = String, Path, description = "id of the role")),
    responses((status = 204), (status = 404, description = "unknown"), (status = 409, description = "built in, or too many have it")))]
async fn delete(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::delete(&api, &cx, role_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Simulate a permission check
///
/// Says whether a user may do something, and through which role.
#[utoipa::path(post, path = "/roles/simulate", tag = "roles", request_body = SimulateBody,
    responses((status = 200, body = Answer), (status = 404, description = "unknown user")))]
async fn simulate(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<SimulateBody>,
) -> ApiResult<Json<Answer>> {
    let question = Question {
        user: body.user_id,
        permission: body.permission,
    };
    Ok(Json(simulate::ask(&api, &cx, &question).await?))
}

/// List known permissions
///
/// Of all services, with titles; only these can be granted.
#[utoipa::path(get, path = "/permissions", tag = "roles", responses((status = 200, body = Permissions)))]
async fn permissions(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Permissions>> {
    let known = ops::permissions(&api, &cx).await?;
    let items = known.into_iter().map(PermissionView::from).collect();
    Ok(Json(Permissions { items }))
}

/// List the roles of a user
///
/// With their permissions.
#[utoipa::path(get, path = "/users/{id}/roles", tag = "users", params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = List), (status = 404, description = "unknown")))]
async fn of_user(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<List>> {
    Ok(Json(grants::list(&api, &cx, user_id(&id)?).await?.into()))
}

/// Set the roles of a user
///
/// The user's tokens are refused once, and a refresh brings new ones.
#[utoipa::path(put, path = "/users/{id}/roles", tag = "users", request_body = GrantBody,
    params(("id" = String, Path, description = "id of the user")),
    responses((status = 200, body = List), (status = 403, description = "more than the caller holds"), (status = 404, description = "unknown"), (status = 409, description = "the last super administrator")))]
async fn grant(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<GrantBody>,
) -> ApiResult<Json<List>> {
    let roles = grants::set(&api, &cx, user_id(&id)?, &body.roles).await?;
    Ok(Json(roles.into()))
}
