//! `/services`, `/catalog`, `/services/{id}/history`, `/sd/prometheus`: reading.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use portico_base::Timestamp;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, page};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use crate::domain::instance::parse_state;
use crate::error::Error;
use crate::ops::query::{self, After, Filter, Found, States, TargetGroup};
use crate::views::{CatalogView, InstanceView, ServiceView};

/// Which instances.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Name of the service.
    name: Option<String>,
    /// A label.
    tag: Option<String>,
    /// Version.
    version: Option<String>,
    /// One state, or `all`; default ready, late and draining.
    state: Option<String>,
    /// Zone.
    zone: Option<String>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, Error> {
        let state = match self.state.as_deref() {
            None => States::Listed,
            Some("all") => States::All,
            Some(text) => States::One(parse_state(text).ok_or_else(|| {
                Error::field(
                    "state",
                    "choice",
                    "must be `all` or a state such as `ready`",
                )
            })?),
        };
        Ok(Filter {
            name: self.name.clone(),
            tag: self.tag.clone(),
            version: self.version.clone(),
            zone: self.zone.clone(),
            state,
        })
    }
}

/// List instances
///
/// In the order of their service's name.
#[utoipa::path(get, path = "/services", tag = "registry", params(ListQuery),
    responses((status = 200, body = Page<InstanceView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wish): Query<ListQuery>,
) -> ApiResult<Json<Page<InstanceView>>> {
    let limit = page::limit(wish.limit)?;
    let after = wish
        .cursor
        .as_deref()
        .map(Cursor::<After>::decode)
        .transpose()?;
    let filter = wish.filter()?;
    let items = query::instances(
        &api.core,
        &cx,
        &filter,
        after.as_ref().map(|c| &c.0),
        limit + 1,
    );
    Ok(Json(Page::cut(items, limit, |i| After {
        name: i.name.clone(),
        tenant: i.tenant_id,
        id: i.id,
    })))
}

/// Show an instance or a service
///
/// An instance by its id; a service with its instances by its name or id.
#[utoipa::path(get, path = "/services/{id}", tag = "registry",
    params(("id" = String, Path, description = "id of an instance, name or id of a service")),
    responses((status = 200, body = ServiceView, description = "a service; an instance has the shape of the list"), (status = 404, description = "unknown")))]
pub(super) async fn get(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Response> {
    Ok(match query::find(&api.core, &cx, &id)? {
        Found::Instance(instance) => Json(instance).into_response(),
        Found::Service(service) => Json(service).into_response(),
    })
}

/// All services with their versions, counts and health.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceCatalog)]
pub(super) struct Catalog {
    items: Vec<CatalogView>,
}

/// List services
///
/// With versions, counts and health.
#[utoipa::path(get, path = "/catalog", tag = "registry", responses((status = 200, body = Catalog)))]
pub(super) async fn catalog(State(api): State<Api>, Cx(cx): Cx) -> Json<Catalog> {
    Json(Catalog {
        items: query::catalog(&api.core, &cx),
    })
}

/// One step of an instance's life.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceStep)]
pub(super) struct Step {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// State before; empty for the registration.
    from: String,
    /// State after; `removed` at the end.
    to: String,
    /// Why.
    reason: String,
}

/// Steps, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceHistory)]
pub(super) struct History {
    items: Vec<Step>,
}

/// Show the history of an instance
///
/// The last 200 changes of its state.
#[utoipa::path(get, path = "/services/{id}/history", tag = "registry",
    params(("id" = String, Path, description = "id of the instance")),
    responses((status = 200, body = History), (status = 404, description = "unknown")))]
pub(super) async fn history(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<History>> {
    let id = id.parse().map_err(|_| Error::UnknownInstance)?;
    let rows = query::history(&api.core, &cx, id).await?;
    let items = rows
        .into_iter()
        .map(|row| Step {
            at: row.at,
            from: row.from,
            to: row.to,
            reason: row.reason,
        })
        .collect();
    Ok(Json(History { items }))
}

/// Which targets.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TargetQuery {
    /// Name of the service.
    service: Option<String>,
    /// A label.
    tag: Option<String>,
}

/// Targets for Prometheus
///
/// For its `http_sd_configs` (with `authorization: {type: Bearer}`), always the complete list.
#[utoipa::path(get, path = "/sd/prometheus", tag = "registry", params(TargetQuery),
    responses((status = 200, body = Vec<TargetGroup>)))]
pub(super) async fn prometheus(
    State(api): State<Api>,
    Cx(cx): Cx,
    Query(wish): Query<TargetQuery>,
) -> ApiResult<Json<Vec<TargetGroup>>> {
    let filter = Filter {
        name: wish.service,
        tag: wish.tag,
        ..Filter::default()
    };
    Ok(Json(query::targets(&api.core, &cx, &filter)?))
}
