//! Settings as the API shows them. A secret is never more than set or not, and its fingerprint (CT-9).

use std::sync::Arc;

use portico_base::Timestamp;
use portico_base::id::TENANT_SYSTEM;
use portico_contract::settings::Origin;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::declared::{Declared, scope_word};
use crate::domain::secret::fingerprint;
use crate::domain::state::{Author, State};
use crate::hub::Core;
use crate::ops::scope::{Sight, word};
use crate::store::history::Version;

/// A declared setting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingDeclaration)]
pub(crate) struct Declaration {
    pub key: String,
    /// Who declares it.
    pub service: String,
    /// `bool`, `integer`, `decimal`, `string`, `enum`, `duration`, `bytes`, `list` or `object`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The values that it takes, as JSON Schema.
    pub schema: Value,
    /// What holds when nothing is set; null for a secret.
    pub default: Value,
    pub unit: String,
    /// `system`, `tenant` or `both`.
    pub scope: &'static str,
    pub secret: bool,
    /// What a change asks for: `none`, `confirm` or `aal2`.
    pub danger: &'static str,
    pub title: String,
    pub title_zh: String,
    pub help: String,
    pub help_zh: String,
    /// Plug-ins may read it.
    pub public: bool,
}

impl From<&Declared> for Declaration {
    fn from(d: &Declared) -> Self {
        Self {
            key: d.key.to_string(),
            service: d.service.to_string(),
            kind: d.type_name(),
            schema: d.schema(),
            default: if d.secret {
                Value::Null
            } else {
                (*d.default).clone()
            },
            unit: d.unit.to_string(),
            scope: scope_word(d.scope),
            secret: d.secret,
            danger: d.danger.as_str(),
            title: d.title.to_string(),
            title_zh: d.title_zh.to_string(),
            help: d.help.to_string(),
            help_zh: d.help_zh.to_string(),
            public: d.public,
        }
    }
}

/// Where the value in force comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SettingSource)]
pub(crate) struct Source {
    /// `stored`, `file` or `default`.
    pub layer: &'static str,
    /// `system`, or the tenant's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Version of that value, where it is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SettingSecret)]
pub(crate) struct Secret {
    pub set: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<Author>,
}

/// The value in force for a scope.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Setting)]
pub(crate) struct Setting {
    pub key: String,
    /// The value; absent for a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    pub source: Source,
    /// What a change in this scope is based on; 0 when it was never set here.
    pub version: u64,
    /// Position of the last change in this scope or in the installation's.
    pub seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<Author>,
    /// This process does not take the stored value over; the sentence says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The value of a setting as a reader sees it.
pub(crate) fn setting(core: &Core, state: &State, sight: &Sight, d: &Declared) -> Setting {
    let scope = sight.scope();
    let (value, origin) = match state.effective(&*core.file, scope, &d.key) {
        Some(found) => found,
        None => (Arc::clone(&d.default), Origin::Default),
    };
    let at = match origin {
        Origin::Stored(at) => state.get(at, &d.key),
        _ => None,
    };
    let own = state.get(scope, &d.key);
    let opens = sight.opens(d);
    let secret = d.secret.then(|| {
        let set = !matches!(origin, Origin::Default);
        Secret {
            set,
            fingerprint: set.then(|| fingerprint(&value)),
            changed_at: at.map(|taken| taken.stored.at),
            changed_by: at.map(|taken| taken.stored.by.clone()),
        }
    });
    Setting {
        key: d.key.to_string(),
        value: (!d.secret || opens).then(|| (*value).clone()),
        secret,
        source: source(origin, at.map(|taken| taken.stored.version)),
        version: state.version(scope, &d.key),
        seq: position(state, scope, &d.key),
        changed_at: at.map(|taken| taken.stored.at),
        changed_by: at.map(|taken| taken.stored.by.clone()),
        refused: own
            .or(at)
            .and_then(|taken| taken.refused.as_ref())
            .map(|refused| refused.reason.clone()),
    }
}

/// Position of the last change that a scope feels of a key.
pub(crate) fn position(state: &State, scope: Uuid, key: &str) -> u64 {
    let seq = |scope| state.get(scope, key).map_or(0, |taken| taken.stored.seq);
    seq(scope).max(seq(TENANT_SYSTEM))
}

fn source(origin: Origin, version: Option<u64>) -> Source {
    let (layer, scope) = match origin {
        Origin::Stored(scope) => ("stored", Some(word(scope))),
        Origin::File(scope) => ("file", Some(word(scope))),
        Origin::Default => ("default", None),
    };
    Source {
        layer,
        scope,
        version,
    }
}

/// One version of a setting.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SettingVersion)]
pub(crate) struct HistoryEntry {
    pub key: String,
    pub version: u64,
    pub seq: u64,
    /// True when a value was set, false when it was reset.
    pub set: bool,
    /// The value; absent for a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Of a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The value before; absent for a secret, and when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    pub change: Uuid,
    pub actor: Author,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    pub request_id: String,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The version whose value came back; 0 when it came back to unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_from: Option<u64>,
}

impl HistoryEntry {
    /// A version, with the one before it.
    pub(crate) fn of(version: &Version, before: Option<&Version>) -> Self {
        let open = |v: &Version| v.value.as_deref().filter(|_| !v.secret).cloned();
        Self {
            key: version.key.clone(),
            version: version.version,
            seq: version.seq,
            set: version.is_set(),
            value: open(version),
            fingerprint: version.fingerprint.clone(),
            before: before.and_then(open),
            change: version.change_set,
            actor: version.actor.clone(),
            ip: version.ip.clone(),
            comment: version.comment.clone(),
            request_id: version.request_id.clone(),
            at: version.at,
            rolled_back_from: version.rolled_back_from,
        }
    }
}
