//! What a service says of itself when it registers.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// The registration (`SERVICE_CONFIG`). The registry refuses unknown fields and names every wrong one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceConfig {
    /// Name of the service, `[a-z][a-z0-9-]{1,39}`.
    pub name: String,
    /// Version: semver, or any label.
    pub version: String,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Address under which the gateway reaches this instance; `auto` is the address that it registers from.
    pub host: String,
    /// Port; 0 takes any free one. `PORT` of the environment wins.
    pub port: u16,
    /// Prefix of this service's paths on the instance.
    pub base_path: String,
    /// Methods and paths with their access. What is not declared has `default_access`.
    pub endpoints: Vec<Endpoint>,
    /// Labels.
    pub tags: Vec<String>,
    /// Pairs.
    pub metadata: BTreeMap<String, String>,
    /// Path or URL that answers 200 while the instance is well.
    pub health_check_url: String,
    /// Path or URL of the OpenAPI document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openapi_url: Option<String>,
    /// Slug of the tenant that owns the service; default: the token's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Key of the instance within the service; default: host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_key: Option<String>,
    /// Zone, for traffic that stays near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Share of traffic, 0 to 1000; default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Seconds between heartbeats, 1 to 300.
    pub heartbeat_s: u16,
    /// Access of undeclared paths.
    pub default_access: DefaultAccess,
    /// Asks for the caller's `Authorization`; the registration token must allow it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forward_credentials: bool,
    /// Asks for `X-Portico-Identity`, a statement about the caller that is checked by the JWKS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub identity_statement: bool,
    /// Permissions that the service adds, `service:resource:action`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Other fields of the registration, as they stand in `docs/plugins.md`.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ServiceConfig {
    /// A registration with defaults: on 127.0.0.1, any free port, health at `/healthz`, heartbeats each 30 s.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            display_name: None,
            description: None,
            host: "127.0.0.1".to_owned(),
            port: 0,
            base_path: "/".to_owned(),
            endpoints: Vec::new(),
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            health_check_url: "/healthz".to_owned(),
            openapi_url: None,
            tenant: None,
            instance_key: None,
            zone: None,
            weight: None,
            heartbeat_s: 30,
            default_access: DefaultAccess::Authenticated,
            forward_credentials: false,
            identity_statement: false,
            permissions: Vec::new(),
            more: Map::new(),
        }
    }
}

/// Access of paths that no endpoint declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAccess {
    /// Any known principal.
    #[default]
    Authenticated,
    /// Anybody, if the registration token allows.
    Public,
}

/// A method and path that the service declares.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Endpoint {
    /// Upper-case method; absent for every method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path below the service, with `{name}` for one segment.
    pub path: String,
    /// A sentence for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Anybody may call it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_public: bool,
    /// One of these roles is needed, when not empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_roles: Vec<String>,
    /// All of these permissions are needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub required_permissions: Vec<String>,
    /// Limit for each caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Total time-out in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Caching by the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheHint>,
    /// A request with `Idempotency-Key` may be repeated.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub idempotency_key: bool,
}

impl Endpoint {
    /// An endpoint for known callers.
    #[must_use]
    pub fn new(method: &str, path: &str, description: &str) -> Self {
        Self {
            method: Some(method.to_owned()),
            path: path.to_owned(),
            description: description.to_owned(),
            ..Self::default()
        }
    }

    /// Asks for a permission.
    #[must_use]
    pub fn needs(mut self, permission: &str) -> Self {
        self.required_permissions.push(permission.to_owned());
        self
    }

    /// Opens it to everybody.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.is_public = true;
        self
    }
}

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RateLimit {
    /// Requests per second, above 0.
    pub per_s: f64,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Caching by the gateway when the answer does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CacheHint {
    /// Lifetime in seconds.
    pub ttl_s: u32,
    /// Answers differ by user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub per_user: bool,
}
