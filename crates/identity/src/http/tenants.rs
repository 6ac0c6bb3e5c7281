//! `/tenants`: made, changed, suspended; each administered by its own people and by those who administer all.

use axum::extract::{Path, State};
use http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_contract::services::TenantService;
use portico_contract::tenants::TenantStatus;
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::domain::tenant::{Quotas, status_text};
use crate::ops::tenants::{self as ops, NewTenant, Shown, TenantEdit};
use crate::permissions::{TENANT_MANAGE, TENANT_READ, TENANT_WRITE};

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantWish)]
struct CreateBody {
    /// 2 to 40 of a-z, 0-9 and `-`; it cannot be changed.
    slug: String,
    display_name: String,
    #[serde(default)]
    quotas: Option<Quotas>,
    /// Host names whose unauthenticated requests belong to the tenant.
    #[serde(default)]
    hosts: Vec<String>,
}

/// What is changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantEdit)]
struct EditBody {
    #[serde(default)]
    display_name: Option<String>,
    /// Only for administrators of all tenants.
    #[serde(default)]
    quotas: Option<Quotas>,
    /// The whole list; only for administrators of all tenants.
    #[serde(default)]
    hosts: Option<Vec<String>>,
}

/// Why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantSuspendWish)]
struct SuspendBody {
    #[serde(default)]
    reason: Option<String>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
struct View {
    id: Uuid,
    slug: String,
    display_name: String,
    /// `active`, `suspended` or `deleting`.
    status: &'static str,
    quotas: Quotas,
    hosts: Vec<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    delete_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Shown> for View {
    fn from(shown: Shown) -> Self {
        let tenant = shown.tenant;
        let status: TenantStatus = tenant.status;
        Self {
            id: tenant.id,
            slug: tenant.slug,
            display_name: tenant.display_name,
            status: status_text(status),
            quotas: tenant.quotas,
            hosts: shown.hosts,
            delete_at: tenant.delete_at,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}

/// Tenants.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenants)]
struct List {
    items: Vec<View>,
}

/// A service of a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantService)]
struct ServiceView {
    name: String,
    display_name: String,
    /// It runs inside the process.
    builtin: bool,
    /// False for what the platform stands on: it cannot be switched off.
    switchable: bool,
    enabled: bool,
}

/// The services of a tenant, by name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantServices)]
struct Services {
    items: Vec<ServiceView>,
}

impl From<Vec<TenantService>> for Services {
    fn from(services: Vec<TenantService>) -> Self {
        let view = |s: TenantService| ServiceView {
            name: s.name.to_string(),
            display_name: s.display_name.to_string(),
            builtin: s.builtin,
            switchable: !s.fixed,
            enabled: s.enabled,
        };
        Self {
            items: services.into_iter().map(view).collect(),
        }
    }
}

/// Services that are switched; others stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantServicesWish)]
struct ServicesBody {
    services: Vec<ServiceWish>,
}

/// One service on or off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TenantServiceWish)]
struct ServiceWish {
    name: String,
    enabled: bool,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let read = || Access::Permission(TENANT_READ);
    let write = || Access::Permission(TENANT_WRITE);
    let manage = || Access::Permission(TENANT_MANAGE);
    all.add(read(), routes!(list))
        .add(manage(), routes!(create))
        .add(read(), routes!(get))
        .add(write(), routes!(edit))
        .add(manage(), routes!(suspend))
        .add(manage(), routes!(resume))
        .add(write(), routes!(log_out_all))
        .add(read(), routes!(services))
        .add(write(), routes!(switch))
}

/// List tenants
///
/// All for those who administer all, else the own one; by slug.
#[utoipa::path(get, path = "/tenants", tag = "tenants", responses((status = 200, body = List)))]
async fn list(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Json<List>> {
    let tenants = ops::list(&api, &cx).await?;
    let items = tenants.into_iter().map(View::from).collect();
    Ok(Json(List { items }))
}

/// Create a tenant
///
/// Empty: its first administrator is made or invited next.
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = CreateBody,
    responses((status = 201, body = View), (status = 409, description = "slug or host is taken")))]
async fn create(
    State(api): State<Api>,
    Cx(cx): Cx,
    Json(body): Json<CreateBody>,
) -> ApiResult<(StatusCode, Json<View>)> {
    let new = NewTenant {
        slug: body.slug,
        display_name: body.display_name,
        quotas: body.quotas,
        hosts: body.hosts,
    };
    let made = ops::create(&api, &cx, new).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Show a tenant
///
/// By id or slug.
#[utoipa::path(get, path = "/tenants/{id}", tag = "tenants", params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = View), (status = 404, description = "unknown, or another's")))]
async fn get(State(api): State<Api>, Cx(cx): Cx, Path(id): Path<String>) -> ApiResult<Json<View>> {
    Ok(Json(ops::get(&api, &cx, &id).await?.into()))
}

/// Change a tenant
///
/// Name, and for administrators of all quotas and hosts.
#[utoipa::path(patch, path = "/tenants/{id}", tag = "tenants", request_body = EditBody,
    params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = View), (status = 404, description = "unknown, or another's"), (status = 409, description = "a host is taken")))]
async fn edit(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<EditBody>,
) -> ApiResult<Json<View>> {
    let wish = TenantEdit {
        display_name: body.display_name,
        quotas: body.quotas,
        hosts: body.hosts,
    };
    Ok(Json(ops::update(&api, &cx, &id, wish).await?.into()))
}

/// Suspend a tenant
///
/// Every token, key and connection of it is refused within a second; nothing is lost.
#[utoipa::path(post, path = "/tenants/{id}/suspend", tag = "tenants", request_body = SuspendBody,
    params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = View), (status = 404, description = "unknown"), (status = 409, description = "the tenant `system`")))]
async fn suspend(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<SuspendBody>,
) -> ApiResult<Json<View>> {
    Ok(Json(
        ops::suspend(&api, &cx, &id, body.reason).await?.into(),
    ))
}

/// Resume a tenant
///
/// Its people can log in again.
#[utoipa::path(post, path = "/tenants/{id}/resume", tag = "tenants", params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = View), (status = 404, description = "unknown")))]
async fn resume(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<View>> {
    Ok(Json(ops::resume(&api, &cx, &id).await?.into()))
}

/// Log everybody of a tenant out
///
/// Every token and session of it ends within a second.
#[utoipa::path(post, path = "/tenants/{id}/logout-all", tag = "tenants", params(("id" = String, Path, description = "id or slug")),
    responses((status = 204), (status = 404, description = "unknown, or another's")))]
async fn log_out_all(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<StatusCode> {
    ops::log_out_all(&api, &cx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the services of a tenant
///
/// Which are on for it.
#[utoipa::path(get, path = "/tenants/{id}/services", tag = "tenants", params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = Services), (status = 404, description = "unknown, or another's")))]
async fn services(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Services>> {
    Ok(Json(ops::services(&api, &cx, &id).await?.into()))
}

/// Switch services of a tenant
///
/// A switched-off service answers 403 to the tenant's callers within a second.
#[utoipa::path(put, path = "/tenants/{id}/services", tag = "tenants", request_body = ServicesBody,
    params(("id" = String, Path, description = "id or slug")),
    responses((status = 200, body = Services), (status = 404, description = "unknown, or another's")))]
async fn switch(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<ServicesBody>,
) -> ApiResult<Json<Services>> {
    let wish: Vec<(String, bool)> = body
        .services
        .into_iter()
        .map(|service| (service.name, service.enabled))
        .collect();
    let services = ops::switch_services(&api, &cx, &id, &wish).await?;
    Ok(Json(services.into()))
}
