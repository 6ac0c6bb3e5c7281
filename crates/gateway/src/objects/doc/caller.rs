//! The document that lets services call another one (GW-100).

use portico_base::Permission;
use serde::{Deserialize, Serialize};

/// Who may call a service, what of it, and with what rights. Without one nobody may.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerDoc {
    /// A sentence for people.
    #[serde(default)]
    pub description: String,
    /// The service that is called.
    pub service: String,
    /// Services that may call: names, or the beginnings of names followed by `*`.
    pub callers: Vec<String>,
    /// What they may call; empty for everything.
    #[serde(default)]
    pub endpoints: Vec<CallerEndpoint>,
    /// Permissions that they hold there; whoever writes this must hold them, too.
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

/// One endpoint, or several by a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallerEndpoint {
    /// Upper-case method; absent for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path below the service, with `{name}` for one segment and a final `*` for the rest.
    pub path: String,
}
