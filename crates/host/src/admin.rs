//! The admin listener: `/metrics`, `/livez`, `/readyz`, `/startupz`, `/health` (HL-1, OB-1).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use portico_base::{Secret, secret::constant_time_eq};
use portico_telemetry::metrics::{Format, Registry};
use portico_web::Problem;
use serde_json::json;

use crate::health::Health;

/// When the runtime showed its last sign of life, by a clock that nobody can set.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    base: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// A pulse that beats now.
    pub(crate) fn start() -> Self {
        Self {
            base: Instant::now(),
            last_ms: Arc::default(),
        }
    }

    /// A sign of life.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.base.elapsed().saturating_sub(last)
    }
}

/// What the admin listener shows.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) health: Health,
    pub(crate) metrics: Registry,
    pub(crate) metrics_enabled: bool,
    /// Asked for when the listener is not on loopback.
    pub(crate) token: Option<Arc<Secret<String>>>,
    pub(crate) pulse: Pulse,
    pub(crate) version: &'static str,
    pub(crate) replica: Arc<str>,
    pub(crate) roles: Arc<[String]>,
    /// Services of the binary, and whether this process runs them (OP-1).
    pub(crate) services: Arc<[(&'static str, bool)]>,
}

/// The routes of the admin listener.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/health", get(health))
        .fallback(async || Problem::new(404, "system.not_found"))
        .with_state(admin)
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if !admin.metrics_enabled {
        return Problem::new(404, "system.not_found")
            .with_detail("metrics are switched off")
            .into_response();
    }
    if let Err(problem) = admin.check_token(&headers) {
        return problem.into_response();
    }
    let open_metrics = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let format = if open_metrics {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    };
    let body = admin.metrics.render(format);
    (
        [(
            header::CONTENT_TYPE,
            HeaderValue::from_static(format.content_type()),
        )],
        body,
    )
        .into_response()
}

async fn live(State(admin): State<Admin>) -> StatusCode {
    if admin.pulse.age() < Duration::from_secs(10) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn ready(State(admin): State<Admin>) -> StatusCode {
    status(admin.health.ready())
}

async fn started(State(admin): State<Admin>) -> StatusCode {
    status(admin.health.started())
}

async fn health(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if let Err(problem) = admin.check_token(&headers) {
        return problem.into_response();
    }
    let ready = admin.health.ready();
    let checks = admin.health.reports();
    let word = match (ready, checks.iter().all(|check| check.status == "ok")) {
        (false, _) => "unready",
        (true, true) => "ok",
        (true, false) => "degraded",
    };
    let services: Vec<_> = admin
        .services
        .iter()
        .map(|(name, process)| json!({ "name": name, "process": process }))
        .collect();
    let body = json!({
        "status": word,
        "version": admin.version,
        "replica": admin.replica,
        "roles": admin.roles,
        "services": services,
        "draining": admin.health.draining(),
        "checks": checks,
    });
    (status(ready), portico_web::Json(body)).into_response()
}

impl Admin {
    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        if constant_time_eq(given.as_bytes(), token.expose().as_bytes()) {
            Ok(())
        } else {
            Err(Problem::new(401, "identity.token_missing")
                .with_detail("the metrics token is needed"))
        }
    }
}

const fn status(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
