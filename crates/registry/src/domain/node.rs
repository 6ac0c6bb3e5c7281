//! A machine that was registered from outside (Consul's catalogue), or that carries node-wide checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identity of a node: names are unique within a tenant (absent: the installation's own).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeKey {
    pub tenant: Option<Uuid>,
    pub name: Arc<str>,
}

impl NodeKey {
    pub(crate) fn new(tenant: Option<Uuid>, name: &str) -> Self {
        Self {
            tenant,
            name: Arc::from(name),
        }
    }
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct NodeDetails {
    /// Consul's node id, empty for nodes registered from outside without one.
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub address: String,
    #[serde(default)]
    pub tagged_addresses: BTreeMap<String, String>,
    #[serde(default)]
    pub meta: IndexMap<String, String>,
    /// Reason of its maintenance; every instance on it is in maintenance then.
    #[serde(default)]
    pub maintenance: Option<String>,
}

/// A node with its place in the index.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub key: NodeKey,
    pub details: NodeDetails,
    pub create_index: u64,
    pub modify_index: u64,
}
