//! `/breakers`: which are open and why, and the operator's word about them.

use axum::extract::{Path, State};
use portico_base::{Access, Timestamp};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};

use super::Api;
use crate::breakers::{READ, WRITE, Wish};
use crate::pipeline::operate::BreakerView;

/// All breakers of the replica that answers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayBreakers)]
struct List {
    /// Name of the replica: each judges by what it saw itself.
    replica: String,
    /// Services with their instances.
    items: Vec<BreakerView>,
}

/// For how long, and why.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GatewayBreakerWish)]
struct WishBody {
    /// Seconds for which it holds: 1 to 86400.
    #[serde(default = "an_hour")]
    for_s: u32,
    /// Why, for the audit record.
    reason: Option<String>,
}

const fn an_hour() -> u32 {
    3_600
}

impl Default for WishBody {
    fn default() -> Self {
        Self {
            for_s: an_hour(),
            reason: None,
        }
    }
}

/// A decision that is in force: on this replica at once, on the others within a second. It outlives
/// restarts until its end.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayBreakerDecided)]
struct Decided {
    breaker: BreakerView,
    /// When the breaker decides by itself again; absent when it does already.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Where it holds: always `all_replicas`.
    scope: &'static str,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = Access::Permission(WRITE);
    all.add(Access::AnyOf(vec![READ, WRITE]), routes!(list))
        .add(write.clone(), routes!(open))
        .add(write.clone(), routes!(close))
        .add(write, routes!(auto))
}

/// List breakers
///
/// All breakers with their state, the last failures as reasons, and operators' decisions.
#[utoipa::path(get, path = "/breakers", tag = "gateway", responses((status = 200, body = List)))]
async fn list(State(api): State<Api>, Cx(cx): Cx) -> ApiResult<Json<List>> {
    let breakers = api.breakers.clone();
    // Some thousands of instances take milliseconds.
    let items = tokio::task::spawn_blocking(move || breakers.list(&cx)).await;
    Ok(Json(List {
        replica: api.breakers.topology.replica().to_owned(),
        items: items.unwrap_or(Err(crate::error::Error::NotServing))?,
    }))
}

/// Force a breaker open
///
/// Keeps requests away from a service or instance for a time.
#[utoipa::path(post, path = "/breakers/{id}/open", tag = "gateway", request_body = Option<WishBody>,
    params(("id" = String, Path, description = "id of a service or instance, or name of a service")),
    responses((status = 200, body = Decided)))]
async fn open(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> ApiResult<Json<Decided>> {
    let wish = wish(&body)?;
    decide(&api, &cx, &id, Wish::Open, wish).await
}

/// Force a breaker closed
///
/// Lets requests to a service or instance for a time, whatever its failures.
#[utoipa::path(post, path = "/breakers/{id}/close", tag = "gateway", request_body = Option<WishBody>,
    params(("id" = String, Path, description = "id of a service or instance, or name of a service")),
    responses((status = 200, body = Decided)))]
async fn close(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> ApiResult<Json<Decided>> {
    let wish = wish(&body)?;
    decide(&api, &cx, &id, Wish::Closed, wish).await
}

/// Give a breaker back
///
/// Lets the breaker decide again.
#[utoipa::path(post, path = "/breakers/{id}/auto", tag = "gateway",
    params(("id" = String, Path, description = "id of a service or instance, or name of a service")),
    responses((status = 200, body = Decided)))]
async fn auto(
    State(api): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Decided>> {
    decide(&api, &cx, &id, Wish::Auto, WishBody::default()).await
}

/// Without a body the defaults hold.
fn wish(body: &[u8]) -> Result<WishBody, portico_web::Problem> {
    if body.is_empty() {
        return Ok(WishBody::default());
    }
    portico_web::extract::parse(body)
}

async fn decide(
    api: &Api,
    cx: &portico_base::Context,
    id: &str,
    wish: Wish,
    body: WishBody,
) -> ApiResult<Json<Decided>> {
    let decided = api
        .breakers
        .decide(cx, id, wish, body.for_s, body.reason)
        .await?;
    let (breaker, until) = decided;
    Ok(Json(Decided {
        until: breaker.forced.map(|_| until),
        breaker,
        scope: "all_replicas",
    }))
}
