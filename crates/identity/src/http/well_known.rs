//! `/.well-known`: our public keys and what else verifiers of our tokens must know (RFC 7517, RFC 8414).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, header};
use serde_json::json;

use super::Api;
use crate::hub::Core;

/// The root prefix that these documents live under.
pub(crate) const PREFIX: &str = "/.well-known";
/// Half of the time that a key is published before it signs.
const CACHE: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");
/// Keys are public: a page of any origin may verify with them.
const ORIGINS: (HeaderName, &str) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");

pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/.well-known/openid-configuration", get(configuration))
        .with_state(core)
}

async fn jwks(State(core): State<Api>) -> Response {
    let kind = (header::CONTENT_TYPE, "application/jwk-set+json");
    ([kind, CACHE, ORIGINS, NOSNIFF], core.edge.jwks()).into_response()
}

/// Only what is true today: whoever finds an endpoint here can use it.
async fn configuration(State(core): State<Api>) -> Response {
    let Ok(issuer) = core.edge.issuer() else {
        return portico_web::Problem::new(503, "system.unavailable").into_response();
    };
    let document = json!({
        "issuer": &*issuer.issuer,
        "jwks_uri": format!("{}{PREFIX}/jwks.json", core.links.base()),
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "claims_supported": [
            "iss", "aud", "sub", "tid", "sid", "did", "iat", "exp", "jti", "tv", "te", "ge",
            "roles", "scope", "amr", "aal", "auth_time", "ipb",
        ],
    });
    let kind = (header::CONTENT_TYPE, "application/json");
    ([kind, CACHE, ORIGINS, NOSNIFF], document.to_string()).into_response()
}
