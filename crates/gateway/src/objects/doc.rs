//! The documents that operators write: routes, releases, limits, CORS, cache rules, transforms, hosts, blocks, callers.
//!
//! A document says everything about its object but its name, tenant and history. [`Validate::faults`]
//! lists every fault with the path of its field, so that nothing wrong is ever stored.

use std::sync::Arc;

use indexmap::IndexMap;
use ipnet::IpNet;
use portico_base::{FieldFault, Permission, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cache::RulePolicy;

mod caller;
mod release;

pub use caller::{CallerDoc, CallerEndpoint};
pub use release::{
    Candidate, Figures, Guard, GuardsDoc, Matcher, NameValue, Numbers, Phase, PlanDoc, Previous,
    ReleaseDoc, ReleaseState, Sticky, Stopped,
};

/// A document with its name, as the table is compiled from it.
#[derive(Debug, Clone)]
pub struct Object<T> {
    pub name: Arc<str>,
    /// Whose object it is; absent for the installation's own.
    pub tenant: Option<Uuid>,
    /// Older objects win where nothing else decides.
    pub created_at: Timestamp,
    pub doc: Arc<T>,
}

/// Every active object of the gateway.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Rises with each change.
    pub version: u64,
    pub routes: Vec<Object<RouteDoc>>,
    /// By service name.
    pub releases: Vec<Object<ReleaseDoc>>,
    pub limits: Vec<Object<LimitDoc>>,
    pub cors: Vec<Object<CorsDoc>>,
    pub cache_rules: Vec<Object<CacheRuleDoc>>,
    pub transforms: Vec<Object<TransformDoc>>,
    pub hosts: Vec<Object<HostDoc>>,
    pub blocks: Vec<Object<BlockDoc>>,
    pub callers: Vec<Object<CallerDoc>>,
}

/// A document that knows its own faults.
pub trait Validate {
    /// All faults, with the path of each field; empty for a good document.
    fn faults(&self) -> Vec<FieldFault>;
}

fn yes() -> bool {
    true
}

/// A rule that leads requests to a target (GW-14).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDoc {
    #[serde(default)]
    pub description: String,
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Host names, exact or `*.` and a suffix; empty for every host of ours.
    #[serde(default)]
    pub hosts: Vec<String>,
    pub path: PathMatch,
    /// Upper-case methods; empty for all.
    #[serde(default)]
    pub methods: Vec<String>,
    #[serde(default)]
    pub headers: Vec<FieldMatch>,
    #[serde(default)]
    pub query: Vec<FieldMatch>,
    pub target: Target,
    #[serde(default)]
    pub rewrite: Option<Rewrite>,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub retries: Retries,
    #[serde(default)]
    pub access: Option<AccessDoc>,
    /// Longest request body in bytes; 0 for no limit, absent for the setting.
    #[serde(default)]
    pub body_max_bytes: Option<u64>,
    #[serde(default)]
    pub cache: Option<RulePolicy>,
    /// Answers with these statuses count as failures of the instance besides 502, 503 and 504.
    #[serde(default)]
    pub failure_statuses: Vec<u16>,
}

/// Which paths a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathMatch {
    /// Exactly this path.
    Exact(String),
    /// This path and everything below it.
    Prefix(String),
    /// `{name}` stands for one segment, a final `{*name}` for the rest.
    Pattern(String),
}

impl PathMatch {
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Prefix(path) | Self::Pattern(path) => path,
        }
    }
}

/// A condition on a header or a query parameter: exactly one of `is`, `regex`, `present`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMatch {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is: Option<String>,
    /// Must match the whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Service(ServiceTarget),
    /// Up to 10 services that share the traffic by weight.
    Services(Vec<WeightedTarget>),
    /// Files of this machine.
    Directory(DirectoryTarget),
    Redirect(RedirectTarget),
    Fixed(FixedTarget),
}

/// A service and, when not the release decides, its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceTarget {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// One of several services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedTarget {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Share of the traffic, 0 to 1000.
    pub weight: u32,
}

/// A directory below one of `server.file_roots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryTarget {
    /// Absolute path.
    pub path: String,
    /// Files that stand for a directory, first found first.
    #[serde(default = "index_files")]
    pub index: Vec<String>,
    /// File for paths that are not there (single-page applications).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// `Cache-Control: max-age` in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u32>,
}

fn index_files() -> Vec<String> {
    vec!["index.html".to_owned()]
}

/// A redirect; `to` may hold `{path}`, `{query}`, `{host}` and `{route.NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectTarget {
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

fn permanent() -> u16 {
    308
}

/// An answer without a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedTarget {
    pub status: u16,
    #[serde(default)]
    pub content_type: Option<String>,
    /// At most 64 KiB.
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    pub headers: IndexMap<String, String>,
}

/// How the path is changed on its way to the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// Replaces the matched prefix; `/` removes it.
    Prefix(String),
    /// Replaces the whole path; may hold `{name}` of the pattern.
    Path(String),
}

/// Time limits; what is absent follows the settings (GW-27).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    pub connect_ms: Option<u32>,
    pub first_byte_ms: Option<u32>,
    pub between_bytes_ms: Option<u32>,
    /// Until the answer's head; none by default.
    pub total_ms: Option<u32>,
    /// WebSocket and event streams without a byte.
    pub idle_stream_s: Option<u32>,
}

/// Retries on another instance (GW-37).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Attempts in total, 1 to 3.
    pub attempts: Option<u8>,
    /// Statuses that are tried again; 502, 503 and 504 by default.
    pub statuses: Option<Vec<u16>>,
}

/// Who may use a route; checked besides what the endpoint declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessDoc {
    /// Replaces the endpoints' and the service's own rule by: anybody.
    pub public: bool,
    /// One of these.
    pub roles: Vec<String>,
    /// All of these.
    pub permissions: Vec<Permission>,
    /// When not empty, only clients of these networks.
    pub allow: Vec<IpNet>,
    /// Never clients of these networks.
    pub deny: Vec<IpNet>,
}

/// What an object is about; empty lists say nothing, so that an empty scope is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    pub services: Vec<String>,
    pub routes: Vec<String>,
    /// Prefix of the path as the client sent it.
    pub path_prefix: Option<String>,
    pub methods: Vec<String>,
}

/// A limit (GW-60, GW-64): a rate, a number of requests at once, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitDoc {
    #[serde(default)]
    pub scope: Scope,
    pub by: Dimension,
    /// Requests per second, above 0.
    #[serde(default)]
    pub per_s: Option<f64>,
    /// Requests at once; default: one second's worth, at least 1.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Requests under way at the same time.
    #[serde(default)]
    pub concurrent: Option<u32>,
    /// Counted in this process, or among all replicas.
    #[serde(default)]
    pub shared: bool,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The client's address; IPv6 by /64.
    Address,
    User,
    ApiKey,
    Tenant,
    Service,
    Route,
    Endpoint,
    /// The value of a request header.
    Header(String),
    /// The value of a claim of the token.
    Claim(String),
}

impl Dimension {
    /// The word in metrics and policies.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::User => "user",
            Self::ApiKey => "api_key",
            Self::Tenant => "tenant",
            Self::Service => "service",
            Self::Route => "route",
            Self::Endpoint => "endpoint",
            Self::Header(_) => "header",
            Self::Claim(_) => "claim",
        }
    }
}

/// Cross-origin rules of a group of routes (GW-24).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsDoc {
    #[serde(default)]
    pub scope: Scope,
    /// `https://app.example.com`, or `*` for everybody.
    pub origins: Vec<String>,
    #[serde(default = "simple_methods")]
    pub methods: Vec<String>,
    /// Request headers beyond the safe ones.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Answer headers that scripts may read.
    #[serde(default)]
    pub expose: Vec<String>,
    #[serde(default)]
    pub credentials: bool,
    #[serde(default = "ten_minutes")]
    pub max_age_s: u32,
}

fn simple_methods() -> Vec<String> {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
        .map(str::to_owned)
        .to_vec()
}

fn ten_minutes() -> u32 {
    600
}

/// A caching rule with what it is about (GW-70).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheRuleDoc {
    pub scope: Scope,
    pub policy: RulePolicy,
}

/// Changes of headers, query and status (GW-26).
///
/// Values may hold `{principal.user}`, `{principal.tenant}`, `{request.id}` and `{route.NAME}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformDoc {
    pub scope: Scope,
    pub request_headers: HeaderOps,
    pub response_headers: HeaderOps,
    pub query: QueryOps,
    /// Statuses of the service that the client gets as another.
    pub status: IndexMap<u16, u16>,
    /// Our security headers replace the service's own.
    pub force_security_headers: bool,
    /// Pages of the same origin may show this in a frame.
    pub frame_same_origin: bool,
}

/// Changes of headers, in this order: rename, remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderOps {
    pub rename: IndexMap<String, String>,
    pub remove: Vec<String>,
    pub set: IndexMap<String, String>,
    pub add: IndexMap<String, String>,
}

impl HeaderOps {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rename.is_empty()
            && self.remove.is_empty()
            && self.set.is_empty()
            && self.add.is_empty()
    }
}

/// Changes of the query, in this order: rename, remove, set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryOps {
    pub rename: IndexMap<String, String>,
    pub remove: Vec<String>,
    pub set: IndexMap<String, String>,
}

/// How instances are chosen (GW-45).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceDoc {
    pub policy: PolicyName,
    /// For `hash`: by what; the user by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<HashBy>,
}

/// The policies by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    #[default]
    Adaptive,
    RoundRobin,
    Weighted,
    LeastInFlight,
    Random2,
    Hash,
    First,
}

/// What `hash` looks at; a request without it is hashed by address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashBy {
    #[default]
    User,
    Session,
    Address,
    Header(String),
    Cookie(String),
}

/// Host names that are answered besides the configuration's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostDoc {
    /// Exact, or `*.` and a suffix.
    pub hosts: Vec<String>,
}

/// Clients that get no answer but 403.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockDoc {
    pub networks: Vec<IpNet>,
    /// A sentence for people.
    pub reason: String,
    /// Ends by itself.
    pub until: Option<Timestamp>,
}
