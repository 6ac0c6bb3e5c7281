//! `/requests`: the last 10,000 access records of this replica, masked.

use axum::extract::State;
use portico_base::{Access, Permission};
use portico_telemetry::access::AccessEntry;
use portico_web::{ApiResult, Json, Query, Routes, page, routes};
use serde::{Deserialize, Serialize};

use super::Api;

/// Which records are wanted; all conditions must hold.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Name of the service.
    service: Option<String>,
    /// Status, exactly (`404`) or by class (`5xx`).
    status: Option<String>,
    /// Id of the principal.
    user: Option<String>,
    /// Requests that took at least so many milliseconds.
    min_ms: Option<u32>,
    /// Most records: 1 to 200, default 50.
    limit: Option<u32>,
}

/// Access records, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayRequests)]
struct Requests {
    #[schema(value_type = Vec<Object>)]
    items: Vec<AccessEntry>,
}

/// Adds the routes.
pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    all.add(
        Access::Permission(Permission::new("gateway:log:read")),
        routes!(list),
    )
}

/// List recent requests
///
/// Of this replica, newest first.
#[utoipa::path(get, path = "/requests", tag = "gateway", params(Wanted), responses((status = 200, body = Requests)))]
async fn list(State(api): State<Api>, Query(wanted): Query<Wanted>) -> ApiResult<Json<Requests>> {
    let limit = page::limit(wanted.limit)?;
    let access = api.access.clone();
    // Reading parses up to 10,000 lines: not on a thread of the data plane.
    let read =
        tokio::task::spawn_blocking(move || access.recent(limit, |entry| wanted.takes(entry)));
    let items = read.await.unwrap_or_default();
    Ok(Json(Requests { items }))
}

impl Wanted {
    fn takes(&self, entry: &AccessEntry) -> bool {
        let status = entry.status.to_string();
        let is_status = self.status.as_ref().is_none_or(|wanted| {
            *wanted == status
                || wanted
                    .strip_suffix("xx")
                    .is_some_and(|class| status.starts_with(class))
        });
        is_status
            && self
                .service
                .as_ref()
                .is_none_or(|service| *service == entry.service)
            && self
                .user
                .as_ref()
                .is_none_or(|user| *user == entry.principal_id)
            && self
                .min_ms
                .is_none_or(|ms| entry.duration_us >= u64::from(ms) * 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_together() {
        let entry = AccessEntry {
            status: 503,
            service: "hello".to_owned(),
            duration_us: 5_000,
            ..AccessEntry::default()
        };
        let wanted = |status: &str, min_ms| Wanted {
            status: Some(status.to_owned()),
            min_ms: Some(min_ms),
            ..Wanted::default()
        };
        assert!(wanted("5xx", 5).takes(&entry));
        assert!(wanted("503", 0).takes(&entry));
        assert!(!wanted("4xx", 0).takes(&entry));
        assert!(!wanted("5xx", 6).takes(&entry));
    }
}
