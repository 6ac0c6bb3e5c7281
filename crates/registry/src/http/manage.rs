//! `/services/{id}/drain`, `/maintenance`, `/resume`, `/weight`, `/enabled`: what operators do.

use axum::body::Bytes;
use axum::extract::{Path, State};
use portico_base::Context;
use portico_web::{ApiResult, Cx, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::error::Error;
use crate::ops::operate::{self, Command};
use crate::ops::{query, register};

/// Why, for the history. The body may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InstanceOrderReason)]
pub(super) struct Why {
    #[serde(default)]
    reason: Option<String>,
}

/// The state that holds now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceStateNow)]
pub(super) struct Now {
    /// State of the instance.
    state: &'static str,
}

/// A reason within its bounds.
pub(super) fn reason(text: Option<String>) -> Result<String, Error> {
    let text = text.unwrap_or_default();
    if text.len() > 256 || text.chars().any(char::is_control) {
        return Err(Error::field(
            "reason",
            "form",
            "must be at most 256 bytes without control characters",
        ));
    }
    Ok(text)
}

fn why(body: &Bytes) -> ApiResult<String> {
    let why: Why = if body.iter().all(u8::is_ascii_whitespace) {
        Why::default()
    } else {
        portico_web::extract::parse(body)?
    };
    Ok(reason(why.reason)?)
}

async fn carry_out(api: &Api, cx: &Context, id: &str, command: Command) -> ApiResult<Json<Now>> {
    let id = Uuid::parse_str(id).map_err(|_| Error::UnknownInstance)?;
    let state = operate::command(&api.core, cx, id, command).await?;
    Ok(Json(Now {
        state: state.as_str(),
    }))
}

/// Drain an instance
///
/// It gets no new requests, existing ones may finish, then it is removed.
#[utoipa::path(post, path = "/services/{id}/drain", tag = "registry", request_body(content = Option<Why>),
    params(("id" = String, Path, description = "id of the instance")), responses((status = 200, body = Now)))]
pub(super) async fn drain(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult<Json<Now>> {
    let reason = why(&body)?;
    carry_out(&api, &cx, &id, Command::Drain { reason }).await
}

/// Put an instance into maintenance
///
/// It is out of service until it is resumed.
#[utoipa::path(post, path = "/services/{id}/maintenance", tag = "registry", request_body(content = Option<Why>),
    params(("id" = String, Path, description = "id of the instance")), responses((status = 200, body = Now)))]
pub(super) async fn maintenance(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    body: Bytes,
) -> ApiResult<Json<Now>> {
    let reason = why(&body)?;
    carry_out(&api, &cx, &id, Command::Maintenance { reason }).await
}

/// Resume an instance
///
/// Ends a drain or a maintenance.
#[utoipa::path(post, path = "/services/{id}/resume", tag = "registry",
    params(("id" = String, Path, description = "id of the instance")), responses((status = 200, body = Now)))]
pub(super) async fn resume(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Now>> {
    carry_out(&api, &cx, &id, Command::Resume).await
}

/// A weight.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InstanceWeight)]
pub(super) struct Weight {
    /// 0 to 1000; null for the registered one.
    weight: Option<u16>,
}

/// Weigh an instance
///
/// Changes its share of traffic.
#[utoipa::path(post, path = "/services/{id}/weight", tag = "registry", request_body = Weight,
    params(("id" = String, Path, description = "id of the instance")), responses((status = 200, body = Now)))]
pub(super) async fn weight(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<Weight>,
) -> ApiResult<Json<Now>> {
    if body.weight.is_some_and(|w| w > 1000) {
        return Err(Error::field("weight", "range", "must be from 0 to 1000").into());
    }
    carry_out(&api, &cx, &id, Command::Weight(body.weight)).await
}

/// On or off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ServiceSwitch)]
pub(super) struct Switch {
    /// On.
    enabled: bool,
    /// Only for this tenant; absent: for everybody.
    #[serde(default)]
    tenant: Option<String>,
}

/// What holds now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceSwitched)]
pub(super) struct Switched {
    /// On for everybody.
    enabled: bool,
    /// Tenants for which it is off.
    disabled_for: Vec<Uuid>,
}

/// Switch a service on or off
///
/// For everybody, or for one tenant.
#[utoipa::path(post, path = "/services/{id}/enabled", tag = "registry", request_body = Switch,
    params(("id" = String, Path, description = "name or id of the service")),
    responses((status = 200, body = Switched), (status = 409)))]
pub(super) async fn enabled(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(body): Json<Switch>,
) -> ApiResult<Json<Switched>> {
    let service = query::service_id(&api.core, &cx, &id)?;
    let rights = crate::domain::rights::Rights::of_principal(cx.principal());
    let tenant = match body.tenant.as_deref() {
        None | Some("global") => None,
        Some(text) => register::tenant(&rights, Some(text)).map_err(|fault| Error::Invalid {
            code: "registry.invalid",
            faults: vec![fault],
        })?,
    };
    let after = operate::switch(&api.core, &cx, service, tenant, body.enabled).await?;
    Ok(Json(Switched {
        enabled: after.enabled,
        disabled_for: after.disabled_for.to_vec(),
    }))
}
