//! The directory: the registry's current truth about services and their instances, numbered by `seq`.
//!
//! A [`Directory`] is immutable. The registry makes a new one after each committed change and hands it
//! to its listeners *before* it answers the caller, so that a registration that was answered is routable.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use portico_base::{Permission, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Everything known at `seq`.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// Position in the registry's sequence of changes.
    pub seq: u64,
    /// Services by tenant (absent: global) and name.
    pub services: HashMap<ServiceKey, Arc<Service>>,
}

impl Directory {
    /// The service that a caller of `tenant` reaches under `name`: the tenant's own, else the global one.
    #[must_use]
    pub fn find(&self, tenant: Uuid, name: &str) -> Option<&Arc<Service>> {
        let key = ServiceKey {
            tenant: Some(tenant),
            name: Arc::from(name),
        };
        self.services.get(&key).or_else(|| {
            self.services.get(&ServiceKey {
                tenant: None,
                name: key.name,
            })
        })
    }
}

/// Identity of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The tenant that owns it; absent for a global service.
    pub tenant: Option<Uuid>,
    /// Its name (RG-9).
    pub name: Arc<str>,
}

/// A named thing that answers.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its id.
    pub id: Uuid,
    /// Tenant and name.
    pub key: ServiceKey,
    /// Name for people.
    pub display_name: Arc<str>,
    /// A sentence for people.
    pub description: Arc<str>,
    /// True for a service that runs inside this process: requests go to its router, not to an address.
    pub builtin: bool,
    /// Switched off by an operator for everybody.
    pub enabled: bool,
    /// Tenants for which it is switched off (GW-17).
    pub disabled_for: Arc<[Uuid]>,
    /// What holds for paths that no endpoint declares.
    pub default_access: DefaultAccess,
    /// The service gets the caller's `Authorization` (asked for and allowed).
    pub forward_credentials: bool,
    /// The service gets `X-Portico-Identity`, a statement about the caller signed by the installation.
    pub identity_statement: bool,
    /// Declared endpoints of all versions.
    pub endpoints: Arc<[Endpoint]>,
    /// Where its OpenAPI document can be fetched, below an instance.
    pub openapi_url: Option<Arc<str>>,
    /// Its instances in every state, ordered by id.
    pub instances: Arc<[Arc<Instance>]>,
}

/// Access of undeclared paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAccess {
    /// Any known principal.
    #[default]
    Authenticated,
    /// Anybody.
    Public,
}

/// Method and path that a service declares (GW-16).
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Version that declares it; absent for all.
    pub version: Option<Arc<str>>,
    /// Upper-case method, or absent for every method.
    pub method: Option<Arc<str>>,
    /// Path below the service, with `{name}` for one segment and a final `*` for the rest.
    pub path: Arc<str>,
    /// A sentence for people.
    pub description: Arc<str>,
    /// Anybody may call it.
    pub is_public: bool,
    /// One of these roles is needed, when not empty.
    pub required_roles: Arc<[String]>,
    /// All of these permissions are needed.
    pub required_permissions: Arc<[Permission]>,
    /// Requests per second and burst, per caller.
    pub rate_limit: Option<RateLimit>,
    /// Total time-out in milliseconds.
    pub timeout_ms: Option<u32>,
    /// Caching asked for.
    pub cache: Option<CacheHint>,
    /// Requests with an `Idempotency-Key` may be repeated.
    pub idempotency_key: bool,
}

/// A rate limit as endpoints declare it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per second, above 0.
    pub per_s: f64,
    /// Requests at once; default: one second's worth, at least 1.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// Caching as endpoints declare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheHint {
    /// Lifetime in seconds when the answer does not say.
    pub ttl_s: u32,
    /// Answers differ by user.
    #[serde(default)]
    pub per_user: bool,
    /// Seconds after expiry in which a stale answer may be served while it is renewed.
    #[serde(default)]
    pub stale_while_revalidate_s: u32,
}

/// How the gateway talks to an instance (GW-39).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 in clear.
    #[default]
    #[serde(rename = "http/1.1", alias = "http")]
    Http1,
    /// HTTP/2 in clear with prior knowledge (gRPC).
    #[serde(rename = "h2c", alias = "grpc")]
    H2c,
    /// HTTP/1.1 over TLS.
    #[serde(rename = "https")]
    Https,
    /// HTTP/2 over TLS.
    #[serde(rename = "h2")]
    H2,
    /// HTTP/1.1 over a unix socket; `host` is its path.
    #[serde(rename = "unix")]
    Unix,
}

/// Life cycle of an instance (RG-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Registered, not yet probed.
    Starting,
    /// Gets traffic.
    Ready,
    /// Missed two heartbeats: only when nobody is ready.
    Late,
    /// A check fails.
    Failing,
    /// Gets no new requests, finishes those it has.
    Draining,
    /// Taken out by an operator.
    Maintenance,
    /// Five minutes without a heartbeat.
    Inactive,
}

impl InstanceState {
    /// The state's name in API, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Late => "late",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Inactive => "inactive",
        }
    }
}

/// One running copy of a service.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id, which stays the same when it registers again.
    pub id: Uuid,
    /// Version (semver or a label).
    pub version: Arc<str>,
    /// Host name or address; the socket's path for [`Protocol::Unix`].
    pub host: Arc<str>,
    /// Port, 1 to 65535; 0 for [`Protocol::Unix`].
    pub port: u16,
    /// Prefix of its paths, `/` or `/x` without a final slash.
    pub base_path: Arc<str>,
    /// Protocol to it.
    pub protocol: Protocol,
    /// SHA-256 of the public key that its certificate must have, for TLS protocols.
    pub tls_pin: Option<[u8; 32]>,
    /// Its state.
    pub state: InstanceState,
    /// Why it is in that state.
    pub state_reason: Arc<str>,
    /// Since when.
    pub state_since: Timestamp,
    /// Share of traffic, 0 to 1000; already scaled for warnings.
    pub weight: u16,
    /// Zone, empty when unknown.
    pub zone: Arc<str>,
    /// Name of the machine, empty when unknown.
    pub node: Arc<str>,
    /// Labels.
    pub tags: Arc<[String]>,
    /// Pairs.
    pub metadata: Arc<IndexMap<String, String>>,
    /// Key of the headers' signature; absent for instances without one (Consul API).
    pub secret: Option<Arc<Secret<String>>>,
    /// When it registered first.
    pub created_at: Timestamp,
}

/// Called with each new directory, in order, on the thread that made the change; must be quick.
pub type DirectoryListener = Arc<dyn Fn(&Arc<Directory>) + Send + Sync>;

/// What the data plane saw of an instance (RG-22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// A connection was refused or could not be made.
    ConnectFailed,
    /// A connection was made after a failure.
    Connected,
}

/// Where the directory comes from. Provided by the registry.
pub trait DirectorySource: Send + Sync {
    /// The newest directory.
    fn current(&self) -> Arc<Directory>;

    /// Adds a listener; it is called at once with the newest directory.
    fn subscribe(&self, listener: DirectoryListener);

    /// Tells the registry what the data plane saw. Never blocks.
    fn observe(&self, instance: Uuid, what: Observation);
}
