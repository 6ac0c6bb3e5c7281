//! A service: a name, who owns it, and what its versions declare.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_base::{Principal, PrincipalKind, Timestamp};
use portico_contract::directory::{DefaultAccess, Endpoint};
use portico_contract::services::PLATFORM;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Whoever registered a name first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Owner {
    /// Kind of principal, as logs write it.
    pub kind: String,
    /// Id of the user, key or token.
    pub id: String,
}

impl Owner {
    pub(crate) fn of(principal: &Principal) -> Self {
        Self {
            kind: principal.kind.as_str().to_owned(),
            id: principal.subject.to_string(),
        }
    }

    pub(crate) fn is(&self, principal: &Principal) -> bool {
        self.kind == principal.kind.as_str() && *self.id == *principal.subject
    }

    /// The registration token, where one registered it.
    pub(crate) fn token(&self) -> Option<Uuid> {
        { self.kind == PrincipalKind::Registrar.as_str() }
            .then(|| Uuid::parse_str(&self.id).ok())
            .flatten()
    }

    /// True when the name was taken without any credential.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.kind == PrincipalKind::AnonymousLocal.as_str()
    }
}

/// What a service says about itself besides its endpoints; kept and returned, mostly unread here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Contributions {
    /// Permissions that it declares (PL-4).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<String>,
    /// Event types that it publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// One version of a service.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// When it registered first.
    pub created_at: Timestamp,
    /// Its declared endpoints, each with this version.
    pub endpoints: Arc<[Endpoint]>,
}

/// A named thing that answers.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub id: Uuid,
    /// Absent: global.
    pub tenant: Option<Uuid>,
    pub name: Arc<str>,
    pub display_name: Arc<str>,
    pub description: Arc<str>,
    pub owner: Owner,
    pub default_access: DefaultAccess,
    pub forward_credentials: bool,
    /// It gets `X-Portico-Identity`.
    pub identity_statement: bool,
    pub openapi_url: Option<Arc<str>>,
    pub settings_schema: Option<Arc<Value>>,
    pub console: Option<Arc<Value>>,
    pub contributions: Arc<Contributions>,
    pub enabled: bool,
    pub disabled_for: Arc<[Uuid]>,
    pub versions: BTreeMap<Arc<str>, Version>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Runs inside this process.
    pub builtin: bool,
    /// Value of the installation's index when it was made.
    pub create_index: u64,
}

impl Service {
    /// The gateway may route to it: its name has the form of RG-9 (Consul allows others).
    pub(crate) fn is_routable(&self) -> bool {
        self.builtin
            || (portico_base::name::is_service_name(&self.name)
                && !portico_base::name::is_reserved(&self.name))
    }

    /// The platform stands on it: it is never switched off.
    pub(crate) fn is_fixed(&self) -> bool {
        self.builtin && PLATFORM.contains(&&*self.name)
    }

    /// What callers see of it, to tell whether anything changed.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.display_name == other.display_name
            && self.description == other.description
            && self.default_access == other.default_access
            && self.forward_credentials == other.forward_credentials
            && self.identity_statement == other.identity_statement
            && self.openapi_url == other.openapi_url
            && self.settings_schema == other.settings_schema
            && self.console == other.console
            && self.contributions == other.contributions
            && self.enabled == other.enabled
            && self.disabled_for == other.disabled_for
            && self.versions.len() == other.versions.len()
            && self
                .versions
                .iter()
                .zip(&other.versions)
                .all(|((a, x), (b, y))| a == b && x.endpoints == y.endpoints)
    }
}

/// A text that sorts versions: semver by precedence, anything else before all of them.
pub(crate) fn semver_key(version: &str) -> String {
    let Ok(parsed) = semver::Version::parse(version.trim_start_matches('v')) else {
        return String::new();
    };
    // `~` sorts behind letters and digits, so that a release follows its pre-releases.
    let pre = if parsed.pre.is_empty() {
        "~".to_owned()
    } else {
        format!("-{}", parsed.pre)
    };
    format!(
        "{:020}.{:020}.{:020}{pre}",
        parsed.major, parsed.minor, parsed.patch
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_precedence() {
        let mut versions = ["1.10.0", "blue", "1.2.0", "1.10.0-rc.1", "v2.0.0"];
        versions.sort_by_key(|v| semver_key(v));
        assert_eq!(
            versions,
            ["blue", "1.2.0", "1.10.0-rc.1", "1.10.0", "v2.0.0"]
        );
    }
}
