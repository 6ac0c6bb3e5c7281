//! Clock: tells the time; its answers may be cached for a second.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::{HeaderValue, header};
use portico_base::{Clock as _, SystemClock};
use portico_web::Json;
use serde_json::json;

use crate::run::Endpoint;

/// What it declares at registration.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::public_get("/", "the time in UTC", None),
        Endpoint::public_get(
            "/cached",
            "the time, cached for a second",
            Some(json!({ "ttl_s": 1 })),
        ),
        Endpoint::public_get("/healthz", "answers while it is well", None),
    ]
}

/// The routes of one version; version 2 is slower by design.
pub(super) fn router(version: String, delay: Duration) -> Router {
    let now = move || {
        let version = version.clone();
        async move {
            tokio::time::sleep(delay).await;
            let now = SystemClock.now();
            Json(json!({ "now": now, "unix_ms": now.timestamp_millis(), "version": version }))
        }
    };
    let cached = {
        let now = now.clone();
        move || async move {
            (
                [(
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=1"),
                )],
                now().await,
            )
        }
    };
    Router::new()
        .route("/", get(now))
        .route("/cached", get(cached))
        .route("/healthz", get(async || "ok"))
}
