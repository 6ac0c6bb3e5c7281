//! Endpoints as they are stored and shown.

use std::sync::Arc;

use portico_base::Permission;
use portico_contract::directory::{CacheHint, Endpoint, RateLimit};
use serde::{Deserialize, Serialize};

/// An endpoint in the API and in the database's JSON columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct EndpointView {
    /// Version that declares it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Upper-case method; absent for every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path below the service.
    pub path: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Anybody may call it.
    #[serde(default)]
    pub is_public: bool,
    /// One of these roles is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_roles: Vec<String>,
    /// All of these permissions are needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_permissions: Vec<String>,
    /// Requests per second and burst, per caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub rate_limit: Option<RateLimit>,
    /// Total time-out in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Caching asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub cache: Option<CacheHint>,
    /// Requests with an `Idempotency-Key` may be repeated.
    #[serde(default)]
    pub idempotency_key: bool,
}

impl From<&Endpoint> for EndpointView {
    fn from(e: &Endpoint) -> Self {
        Self {
            version: e.version.as_deref().map(str::to_owned),
            method: e.method.as_deref().map(str::to_owned),
            path: e.path.to_string(),
            description: e.description.to_string(),
            is_public: e.is_public,
            required_roles: e.required_roles.to_vec(),
            required_permissions: e
                .required_permissions
                .iter()
                .map(ToString::to_string)
                .collect(),
            rate_limit: e.rate_limit,
            timeout_ms: e.timeout_ms,
            cache: e.cache,
            idempotency_key: e.idempotency_key,
        }
    }
}

impl EndpointView {
    /// The contract's form, for one version. Permissions that no longer parse would open the endpoint
    /// if they were dropped, so they become one that nobody holds.
    pub(crate) fn endpoint(&self, version: Option<&str>) -> Endpoint {
        let closed = || Permission::new("registry:endpoint:closed");
        Endpoint {
            version: version.map(Arc::from),
            method: self.method.as_deref().map(Arc::from),
            path: Arc::from(&*self.path),
            description: Arc::from(&*self.description),
            is_public: self.is_public,
            required_roles: self.required_roles.clone().into(),
            required_permissions: self
                .required_permissions
                .iter()
                .map(|p| Permission::parse(p).unwrap_or_else(|_| closed()))
                .collect(),
            rate_limit: self.rate_limit,
            timeout_ms: self.timeout_ms,
            cache: self.cache,
            idempotency_key: self.idempotency_key,
        }
    }
}
