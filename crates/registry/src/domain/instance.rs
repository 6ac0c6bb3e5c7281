//! An instance: one running copy of a service, as it registered and as it lives.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use indexmap::IndexMap;
use portico_base::{Secret, Timestamp};
use portico_contract::directory::{InstanceState, Protocol};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::check::CheckSpec;
use super::life::Order;
use super::service::Owner;

/// Through which door it registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    Native,
    /// Consul's `agent/service/register`.
    ConsulAgent,
    /// Consul's `catalog/register`.
    ConsulCatalog,
    /// Runs inside this process.
    Builtin,
}

impl Source {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::ConsulAgent => "consul-agent",
            Self::ConsulCatalog => "consul-catalog",
            Self::Builtin => "builtin",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [
            Self::Native,
            Self::ConsulAgent,
            Self::ConsulCatalog,
            Self::Builtin,
        ]
        .into_iter()
        .find(|s| s.as_str() == text)
    }
}

/// What only Consul's API knows of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConsulPart {
    /// Service id, unique on its node.
    pub id: String,
    /// The address exactly as written, `""` for the node's.
    #[serde(default)]
    pub address: String,
    /// The port as written (Consul does not validate it).
    #[serde(default)]
    pub port: i64,
    #[serde(default)]
    pub tagged_addresses: BTreeMap<String, (String, i64)>,
    pub weight_passing: u32,
    pub weight_warning: u32,
    #[serde(default)]
    pub enable_tag_override: bool,
    /// `tags` and `meta` were absent: they read back as `null` in some answers.
    #[serde(default)]
    pub meta_absent: bool,
    /// Kind, Proxy and Connect as given.
    #[serde(default)]
    pub mesh: Option<Value>,
}

/// The secret that an instance shares with us.
#[derive(Debug, Clone)]
pub(crate) struct InstanceSecret {
    /// Signs and is accepted.
    pub current: Arc<Secret<String>>,
    pub issued_at: Timestamp,
    /// It came with the registration: the program got it at its start and cannot take a new one.
    pub given: bool,
    /// Handed out with heartbeats, accepted, and current once the instance has it.
    pub next: Option<Arc<Secret<String>>>,
    /// Still accepted as a credential until the time.
    pub previous: Option<([u8; 32], Timestamp)>,
}

/// What a registration says about an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    pub version: Arc<str>,
    pub host: Arc<str>,
    pub port: u16,
    pub base_path: Arc<str>,
    pub protocol: Protocol,
    pub tls_pin: Option<[u8; 32]>,
    /// As registered, 0 to 1000.
    pub weight: u16,
    pub zone: Arc<str>,
    pub node: Arc<str>,
    pub tags: Arc<[String]>,
    pub metadata: Arc<IndexMap<String, String>>,
    /// Seconds between heartbeats; absent: it owes none.
    pub heartbeat_s: Option<u32>,
    /// Declared with the registration; checks of Consul's API stand on their own.
    pub checks: Arc<[CheckSpec]>,
    pub consul: Option<Arc<ConsulPart>>,
}

/// One running copy.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub id: Uuid,
    pub service: Uuid,
    /// Unique within its service.
    pub key: Arc<str>,
    pub source: Source,
    pub owner: Owner,
    pub definition: Definition,
    pub state: InstanceState,
    pub reason: Arc<str>,
    pub since: Timestamp,
    /// Taken out by an order.
    pub order: Option<Order>,
    /// Weight that an operator set; wins over the registered one.
    pub weight_override: Option<u16>,
    /// Weight in thousandths of the registered one (warnings).
    pub warning: bool,
    pub secret: Option<InstanceSecret>,
    /// Last heartbeat as the row knows it; the living value is kept beside.
    pub last_heartbeat: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub create_index: u64,
    pub modify_index: u64,
}

impl Instance {
    /// Weight that the data plane uses: an operator's, else the registered one, scaled down while a
    /// check warns (RG-44).
    pub(crate) fn effective_weight(&self) -> u16 {
        let base = self.weight_override.unwrap_or(self.definition.weight);
        match &self.definition.consul {
            Some(consul) if self.warning => {
                let scaled = u64::from(base) * u64::from(consul.weight_warning)
                    / u64::from(consul.weight_passing.max(1));
                u16::try_from(scaled.min(1000)).unwrap_or(1000)
            }
            _ => base,
        }
    }

    /// Listed by default (RG-2).
    pub(crate) const fn is_listed(&self) -> bool {
        matches!(
            self.state,
            InstanceState::Ready | InstanceState::Late | InstanceState::Draining
        )
    }
}

/// The default key of an instance: where it is.
pub(crate) fn default_key(host: &str, port: u16, base_path: &str) -> String {
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => format!("[{v6}]"),
        _ => host.to_owned(),
    };
    if base_path == "/" {
        format!("{host}:{port}")
    } else {
        format!("{host}:{port}{base_path}")
    }
}

/// Host and port as they stand in a URL.
pub(crate) fn authority(host: &str, port: u16) -> String {
    default_key(host, port, "/")
}

/// Parses a state by its name.
pub(crate) fn parse_state(text: &str) -> Option<InstanceState> {
    STATES.into_iter().find(|s| s.as_str() == text)
}

/// All states, in the order of a life.
pub(crate) const STATES: [InstanceState; 7] = [
    InstanceState::Starting,
    InstanceState::Ready,
    InstanceState::Late,
    InstanceState::Failing,
    InstanceState::Draining,
    InstanceState::Maintenance,
    InstanceState::Inactive,
];
