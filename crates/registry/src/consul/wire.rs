//! Consul's JSON types, field by field in their order (C§3 to C§11).

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::domain::check::{CheckSpec, Probe, Status};
use crate::store::kv::Entry;
use crate::store::sessions::{ServiceCheck, Session, UserEvent};

/// Text that is shared or its own.
pub(crate) type Text = Arc<str>;

/// An address with its port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Address {
    pub address: String,
    pub port: i64,
}

/// A node (C§6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    pub node: Text,
    pub address: String,
    pub datacenter: Text,
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub meta: Option<IndexMap<String, String>>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// How much traffic an instance takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub passing: u32,
    pub warning: u32,
}

/// A service inside `health/*` and `catalog/node*` (C§4).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeService {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(rename = "ID")]
    pub id: String,
    pub service: Text,
    pub tags: Arc<[String]>,
    pub address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, Address>,
    pub meta: Option<Arc<IndexMap<String, String>>>,
    pub port: i64,
    pub weights: Weights,
    pub enable_tag_override: bool,
    pub proxy: Value,
    pub connect: Value,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A service of `agent/services` (C§4).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(rename = "ID")]
    pub id: String,
    pub service: Text,
    pub tags: Arc<[String]>,
    pub meta: Arc<IndexMap<String, String>>,
    pub port: i64,
    pub address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, Address>,
    pub weights: Weights,
    pub enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<Value>,
}

/// A flat record of `catalog/service` (C§6).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceNode {
    #[serde(rename = "ID")]
    pub id: String,
    pub node: Text,
    pub address: String,
    pub datacenter: Text,
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub node_meta: Option<IndexMap<String, String>>,
    pub service_kind: String,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub service_name: Text,
    pub service_tags: Arc<[String]>,
    pub service_address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_tagged_addresses: BTreeMap<String, Address>,
    pub service_weights: Weights,
    pub service_meta: Arc<IndexMap<String, String>>,
    pub service_port: i64,
    pub service_enable_tag_override: bool,
    pub service_proxy: Value,
    pub service_connect: Value,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A check (C§5).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthCheck {
    pub node: Text,
    #[serde(rename = "CheckID")]
    pub check_id: Text,
    pub name: Text,
    pub status: &'static str,
    pub notes: Text,
    pub output: Text,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub service_name: Text,
    pub service_tags: Arc<[String]>,
    #[serde(rename = "Type")]
    pub kind: &'static str,
    pub definition: Definition,
    pub create_index: u64,
    pub modify_index: u64,
    /// What is asked; printed by `agent/health/*` alone.
    #[serde(skip)]
    pub spec: Option<Arc<CheckSpec>>,
}

/// A line of `health/service` (C§7).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceHealth {
    pub node: Node,
    pub service: NodeService,
    pub checks: Vec<HealthCheck>,
}

/// A line of `agent/health/service/*` (C§5).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentHealth {
    pub aggregated_status: &'static str,
    pub service: Option<AgentService>,
    pub checks: Option<Vec<HealthCheck>>,
}

/// `catalog/node`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeServices {
    pub node: Node,
    pub services: BTreeMap<String, NodeService>,
}

/// `catalog/node-services`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeServiceList {
    pub node: Node,
    pub services: Vec<NodeService>,
}

/// A key (C§8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KvPair {
    pub lock_index: u64,
    pub key: String,
    pub flags: u64,
    pub value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub create_index: u64,
    pub modify_index: u64,
}

impl KvPair {
    /// A key with its value.
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            value: encode(&entry.value),
            ..Self::without_value(entry)
        }
    }

    /// A key as a transaction's writes answer it.
    pub(crate) fn without_value(entry: &Entry) -> Self {
        Self {
            lock_index: entry.lock_index,
            key: entry.key.clone(),
            flags: entry.flags,
            value: None,
            session: entry.session.map(|s| s.to_string()),
            create_index: entry.create_index,
            modify_index: entry.modify_index,
        }
    }
}

/// Base64, `null` for nothing.
pub(crate) fn encode(bytes: &[u8]) -> Option<String> {
    use base64::Engine as _;
    (!bytes.is_empty()).then(|| base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// A session (C§9).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SessionView {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub node: String,
    pub lock_delay: i64,
    pub behavior: &'static str,
    #[serde(rename = "TTL")]
    pub ttl: String,
    pub node_checks: Vec<String>,
    pub service_checks: Option<Vec<ServiceCheck>>,
    pub create_index: u64,
    pub modify_index: u64,
}

impl From<Session> for SessionView {
    fn from(s: Session) -> Self {
        Self {
            id: s.id.to_string(),
            name: s.name,
            node: s.node,
            lock_delay: s.lock_delay_ns,
            behavior: if s.deletes { "delete" } else { "release" },
            ttl: s.ttl,
            node_checks: s.checks.node,
            service_checks: s.checks.service,
            create_index: s.create_index,
            modify_index: s.modify_index,
        }
    }
}

/// An event (C§11).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EventView {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub payload: Option<String>,
    pub node_filter: String,
    pub service_filter: String,
    pub tag_filter: String,
    pub version: u8,
    #[serde(rename = "LTime")]
    pub ltime: u64,
}

impl From<&UserEvent> for EventView {
    fn from(e: &UserEvent) -> Self {
        Self {
            id: e.id.to_string(),
            name: e.name.clone(),
            payload: e.payload.as_deref().and_then(encode),
            node_filter: e.filters.node.clone(),
            service_filter: e.filters.service.clone(),
            tag_filter: e.filters.tag.clone(),
            version: 1,
            ltime: e.ltime,
        }
    }
}

/// A check's definition: empty but in `agent/health/*`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Definition {
    Empty {},
    Full(Box<FullDefinition>),
}

/// A check's definition as `agent/health/*` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct FullDefinition {
    pub interval: String,
    pub timeout: String,
    pub deregister_critical_service_after: String,
    #[serde(rename = "HTTP")]
    pub http: String,
    pub header: Option<IndexMap<String, Vec<String>>>,
    pub method: String,
    pub body: String,
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    #[serde(rename = "TCP")]
    pub tcp: String,
}

impl Definition {
    /// The whole definition of a check.
    pub(crate) fn full(spec: Option<&CheckSpec>) -> Self {
        let text = |ms: u64| {
            super::duration::format(i64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000))
        };
        let active = spec.filter(|s| s.probe.is_active());
        let mut full = FullDefinition {
            interval: text(active.map_or(0, |s| s.interval_ms)),
            timeout: text(active.map_or(0, |s| s.timeout_ms)),
            deregister_critical_service_after: text(spec.map_or(0, |s| s.deregister_after_ms)),
            http: String::new(),
            header: None,
            method: String::new(),
            body: String::new(),
            tls_skip_verify: false,
            tcp: String::new(),
        };
        match spec.map(|s| &s.probe) {
            Some(Probe::Http {
                target,
                method,
                headers,
                body,
                tls_skip_verify,
                ..
            }) => {
                full.http.clone_from(target);
                full.header = (!headers.is_empty()).then(|| headers.clone());
                full.method.clone_from(method);
                full.body.clone_from(body);
                full.tls_skip_verify = *tls_skip_verify;
            }
            Some(Probe::Tcp { target }) => full.tcp = target.clone().unwrap_or_default(),
            _ => {}
        }
        Self::Full(Box::new(full))
    }
}

/// The states of an instance together, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Aggregated {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Aggregated {
    /// The worst of some checks (C§5).
    pub(crate) fn of<'a>(checks: impl IntoIterator<Item = &'a HealthCheck>) -> Self {
        checks
            .into_iter()
            .map(|check| {
                let maintenance = &*check.check_id == "_node_maintenance"
                    || check.check_id.starts_with("_service_maintenance:");
                match Status::parse(check.status) {
                    _ if maintenance => Self::Maintenance,
                    Some(Status::Passing) => Self::Passing,
                    Some(Status::Warning) => Self::Warning,
                    Some(Status::Critical) | None => Self::Critical,
                }
            })
            .max()
            .unwrap_or(Self::Passing)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }

    /// The status of `agent/health/*`.
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::Passing => 200,
            Self::Warning => 429,
            Self::Critical | Self::Maintenance => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_in_consuls_order() {
        let entry = Entry {
            key: "a".into(),
            value: b"hello".to_vec(),
            flags: 0,
            create_index: 34,
            modify_index: 34,
            lock_index: 0,
            session: None,
            locked_until: None,
        };
        assert_eq!(
            serde_json::to_string(&KvPair::of(&entry)).unwrap(),
            r#"{"LockIndex":0,"Key":"a","Flags":0,"Value":"aGVsbG8=","CreateIndex":34,"ModifyIndex":34}"#
        );
        let empty = Entry {
            value: Vec::new(),
            ..entry
        };
        assert!(
            serde_json::to_string(&KvPair::of(&empty))
                .unwrap()
                .contains(r#""Value":null"#)
        );
    }
}
