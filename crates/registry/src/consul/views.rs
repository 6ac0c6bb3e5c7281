//! The registry's model as a tenant's Consul cluster (RG-43, RG-44).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use portico_contract::directory::InstanceState;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::wire::{
    Address, AgentService, Definition, HealthCheck, Node, NodeService, ServiceHealth, ServiceNode,
    Text, Weights,
};
use crate::domain::check::{Check, Status};
use crate::domain::instance::{Instance, Source};
use crate::domain::life::Order;
use crate::domain::node::NodeKey;
use crate::domain::service::Service;
use crate::model::{InstanceEntry, Model};

/// The check that every node of a cluster has.
pub(crate) const SERF: &str = "serfHealth";
/// The service that the servers themselves are.
pub(crate) const CONSUL: &str = "consul";
/// Reason of a service's maintenance when none was given.
pub(crate) const NO_REASON: &str = "Maintenance mode is enabled for this service, but no reason was provided. This is a default message.";
/// Reason of a node's maintenance when none was given.
pub(crate) const NO_NODE_REASON: &str = "Maintenance mode is enabled for this node, but no reason was provided. This is a default message.";

/// What a tenant sees of the model.
pub(crate) struct View<'a> {
    pub model: &'a Model,
    pub tenant: Uuid,
    /// Name of this machine, the agent's node.
    pub host: &'a Text,
    pub datacenter: &'a Text,
    /// Built-in services are listed too.
    pub builtin: bool,
    /// There are no other replicas.
    pub alone: bool,
}

/// An instance that is seen.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub service: &'a Arc<Service>,
    pub entry: &'a InstanceEntry,
}

impl<'a> View<'a> {
    fn sees(&self, service: &Service) -> bool {
        service.tenant.is_none_or(|t| t == self.tenant)
            && service.enabled
            && !service.disabled_for.contains(&self.tenant)
            && (self.builtin || !service.builtin)
    }

    fn seen(&self, entry: &'a InstanceEntry) -> Option<Seen<'a>> {
        let service = self
            .model
            .service_of(&entry.instance)
            .filter(|s| self.sees(s))?;
        Some(Seen { service, entry })
    }

    /// The scopes that a tenant sees, its own first.
    pub(crate) const fn scopes(&self) -> [Option<Uuid>; 2] {
        [Some(self.tenant), None]
    }

    /// The keys under which a node's things may be.
    pub(crate) fn keys(&self, node: &str) -> [NodeKey; 2] {
        self.scopes().map(|tenant| NodeKey::new(tenant, node))
    }

    /// Names of all nodes, in their order.
    pub(crate) fn node_names(&self) -> BTreeSet<Text> {
        let mine = |key: &&NodeKey| key.tenant.is_none_or(|t| t == self.tenant);
        let mut names: BTreeSet<Text> = self
            .model
            .nodes()
            .map(|n| &n.key)
            .filter(mine)
            .map(|k| Arc::clone(&k.name))
            .collect();
        for key in self.model.inhabited_nodes().filter(mine) {
            if !names.contains(&key.name) && self.on_node(&key.name).next().is_some() {
                names.insert(Arc::clone(&key.name));
            }
        }
        names.insert(Arc::clone(self.host));
        names
    }

    /// Instances on a node, in no order.
    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = Seen<'a>> {
        let found: Vec<Seen<'a>> = self
            .keys(node)
            .iter()
            .flat_map(|key| self.model.instances_of_node(key))
            .filter_map(|e| self.seen(e))
            .collect();
        found.into_iter()
    }

    /// A node by its name.
    pub(crate) fn node(&self, name: &str) -> Option<Node> {
        let row = self
            .keys(name)
            .iter()
            .find_map(|key| self.model.node(key))
            .cloned();
        if *name == **self.host {
            let modify = row.map_or(1, |n| n.modify_index);
            return Some(self.local(modify));
        }
        if let Some(row) = row.filter(|r| !r.details.address.is_empty() || !r.details.id.is_empty())
        {
            return Some(external(&row, self.datacenter));
        }
        let first = self
            .on_node(name)
            .min_by_key(|s| s.entry.instance.create_index)?;
        let definition = &first.entry.instance.definition;
        let index = first.entry.instance.create_index.max(1);
        let host = definition.host.to_string();
        Some(Node {
            id: node_id(name),
            node: Arc::clone(&definition.node),
            tagged_addresses: Some(tagged(&host)),
            address: host,
            datacenter: Arc::clone(self.datacenter),
            meta: Some(IndexMap::new()),
            create_index: index,
            modify_index: index,
        })
    }

    /// The agent's own node.
    fn local(&self, modify_index: u64) -> Node {
        Node {
            id: node_id(self.host),
            node: Arc::clone(self.host),
            address: "127.0.0.1".to_owned(),
            datacenter: Arc::clone(self.datacenter),
            tagged_addresses: Some(tagged("127.0.0.1")),
            meta: Some(IndexMap::from([(
                "consul-network-segment".to_owned(),
                String::new(),
            )])),
            create_index: 1,
            modify_index: modify_index.max(1),
        }
    }

    /// All nodes in the order of their names.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        self.node_names()
            .iter()
            .filter_map(|name| self.node(name))
            .collect()
    }

    /// True when a node was registered from outside: nobody gossips with it.
    fn is_external(&self, node: &str) -> bool {
        *node != **self.host
            && self
                .keys(node)
                .iter()
                .filter_map(|k| self.model.node(k))
                .any(|n| !n.details.address.is_empty())
    }

    /// Names of all services with their tags.
    pub(crate) fn services(
        &self,
        keeps: impl Fn(&ServiceNode) -> bool,
        every: bool,
        metas: &[(&str, &str)],
    ) -> BTreeMap<Text, BTreeSet<String>> {
        let mut out: BTreeMap<Text, BTreeSet<String>> = BTreeMap::new();
        for entry in self.model.services().filter(|e| self.sees(&e.service)) {
            for seen in entry
                .instances
                .iter()
                .filter_map(|id| self.model.instance(*id))
                .filter_map(|e| self.seen(e))
            {
                let wanted = every || {
                    let node = self.node(&seen.entry.instance.definition.node);
                    node.is_some_and(|n| has_meta(&n, metas) && keeps(&self.service_node(&n, seen)))
                };
                if wanted {
                    let tags = seen.entry.instance.definition.tags.iter().cloned();
                    out.entry(Arc::clone(&entry.service.name))
                        .or_default()
                        .extend(tags);
                }
            }
        }
        if every || (metas.is_empty() && keeps(&self.consul_node())) {
            out.entry(Arc::from(CONSUL)).or_default();
        }
        out
    }

    /// Instances of a service in the order of node and id.
    pub(crate) fn of_service(&self, name: &str) -> Vec<Seen<'a>> {
        let mut out: Vec<Seen<'a>> = self
            .scopes()
            .iter()
            .filter_map(|tenant| self.model.service_named(*tenant, name))
            .flat_map(|e| &e.instances)
            .filter_map(|id| self.model.instance(*id))
            .filter_map(|e| self.seen(e))
            .collect();
        out.sort_by_cached_key(|s| {
            (
                Arc::clone(&s.entry.instance.definition.node),
                service_id(&s.entry.instance),
            )
        });
        out
    }

    /// Instances that the agent answers for, in the order of their ids: those that registered through it,
    /// and native ones of this machine.
    pub(crate) fn of_agent(&self) -> Vec<Seen<'a>> {
        let mut out: Vec<Seen<'a>> = self
            .model
            .instances()
            .filter(|e| match e.instance.source {
                Source::ConsulAgent => true,
                Source::ConsulCatalog => false,
                Source::Native | Source::Builtin => e.instance.definition.node == *self.host,
            })
            .filter_map(|e| self.seen(e))
            .collect();
        out.sort_by_cached_key(|s| service_id(&s.entry.instance));
        out
    }

    /// An instance of the agent by its id. Without other replicas everything of the agent is on this node.
    pub(crate) fn agent_instance(&self, id: &str) -> Option<Seen<'a>> {
        let keys = self.keys(self.host);
        let near = keys.iter().find_map(|key| self.model.instance_on(key, id));
        let mine = |e: &&InstanceEntry| e.instance.source == Source::ConsulAgent;
        if let Some(seen) = near.filter(mine).and_then(|e| self.seen(e)) {
            return Some(seen);
        }
        let native = Uuid::parse_str(id)
            .ok()
            .and_then(|id| self.model.instance(id));
        let here = |e: &&InstanceEntry| {
            e.instance.definition.consul.is_none() && e.instance.definition.node == *self.host
        };
        if let Some(seen) = native.filter(here).and_then(|e| self.seen(e)) {
            return Some(seen);
        }
        if self.alone {
            return None;
        }
        let named = |e: &&InstanceEntry| {
            mine(e)
                && e.instance
                    .definition
                    .consul
                    .as_ref()
                    .is_some_and(|c| c.id == id)
        };
        self.model
            .instances()
            .filter(named)
            .find_map(|e| self.seen(e))
    }

    /// The record of the servers themselves.
    pub(crate) fn consul_service(&self) -> NodeService {
        NodeService {
            kind: String::new(),
            id: CONSUL.to_owned(),
            service: Arc::from(CONSUL),
            tags: Arc::from([]),
            address: String::new(),
            tagged_addresses: BTreeMap::new(),
            meta: Some(Arc::default()),
            port: 8300,
            weights: Weights {
                passing: 1,
                warning: 1,
            },
            enable_tag_override: false,
            proxy: proxy(None),
            connect: json!({}),
            create_index: 1,
            modify_index: 1,
        }
    }

    /// The flat record of the servers themselves.
    pub(crate) fn consul_node(&self) -> ServiceNode {
        flat(&self.local(1), self.consul_service())
    }

    /// The flat record of an instance.
    pub(crate) fn service_node(&self, node: &Node, seen: Seen<'_>) -> ServiceNode {
        flat(node, node_service(seen))
    }

    /// A line of `health/service`.
    pub(crate) fn health(&self, node: Node, seen: Seen<'_>) -> ServiceHealth {
        let mut checks = self.checks_of_whole_node(&node.node);
        checks.extend(self.checks_of(seen));
        ServiceHealth {
            service: node_service(seen),
            node,
            checks,
        }
    }

    /// Checks of a node as a whole, in the order of their ids.
    pub(crate) fn checks_of_whole_node(&self, node: &str) -> Vec<HealthCheck> {
        let mut out = Vec::new();
        let name: Text = Arc::from(node);
        if !self.is_external(node) {
            let mut serf = virtual_check(&name, SERF, "Serf Health Status", Status::Passing, 1);
            serf.output = Arc::from("Agent alive and reachable");
            out.push(serf);
        }
        for key in self.keys(node) {
            if let Some(row) = self.model.node(&key)
                && let Some(reason) = &row.details.maintenance
                && out.iter().all(|c| &*c.check_id != "_node_maintenance")
            {
                let mut check = virtual_check(
                    &name,
                    "_node_maintenance",
                    "Node Maintenance Mode",
                    Status::Critical,
                    row.modify_index,
                );
                check.notes = Arc::from(&**reason);
                check.kind = "maintenance";
                out.push(check);
            }
            out.extend(self.model.node_checks(&key).map(|c| stored_check(c, None)));
        }
        out.sort_by(|a, b| a.check_id.cmp(&b.check_id));
        out
    }

    /// Checks of an instance, in the order of their ids.
    pub(crate) fn checks_of(&self, seen: Seen<'_>) -> Vec<HealthCheck> {
        let instance = &seen.entry.instance;
        let mut out: Vec<HealthCheck> = self
            .model
            .checks_of(instance.id)
            .map(|c| stored_check(c, Some((seen.service, &seen.entry.instance))))
            .collect();
        out.extend(state_check(seen));
        out.extend(maintenance_check(seen));
        out.sort_by(|a, b| a.check_id.cmp(&b.check_id));
        out
    }

    /// All checks of a node: its own, then those of the instances on it.
    pub(crate) fn checks_on(&self, node: &str) -> Vec<HealthCheck> {
        let mut out = self.checks_of_whole_node(node);
        let mut on: Vec<Seen<'_>> = self.on_node(node).collect();
        on.sort_by_cached_key(|s| service_id(&s.entry.instance));
        out.extend(on.into_iter().flat_map(|seen| self.checks_of(seen)));
        out.sort_by(|a, b| a.check_id.cmp(&b.check_id));
        out
    }
}

/// A node as it was registered from outside.
pub(crate) fn external(row: &crate::domain::node::Node, datacenter: &Text) -> Node {
    let d = &row.details;
    Node {
        id: d.id.clone(),
        node: Arc::clone(&row.key.name),
        address: d.address.clone(),
        datacenter: Arc::clone(datacenter),
        tagged_addresses: (!d.tagged_addresses.is_empty()).then(|| d.tagged_addresses.clone()),
        meta: (!d.meta.is_empty()).then(|| d.meta.clone()),
        create_index: row.create_index,
        modify_index: row.modify_index,
    }
}

/// A node carries all the pairs.
pub(crate) fn has_meta(node: &Node, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| {
        node.meta
            .as_ref()
            .and_then(|m| m.get(*key))
            .is_some_and(|v| v == value)
    })
}

/// The id of an instance in Consul's words.
pub(crate) fn service_id(instance: &Instance) -> String {
    instance
        .definition
        .consul
        .as_ref()
        .map_or_else(|| instance.id.to_string(), |c| c.id.clone())
}

/// A service record of an instance that is seen.
pub(crate) fn node_service(seen: Seen<'_>) -> NodeService {
    record(seen.service, &seen.entry.instance)
}

/// A service record of an instance.
pub(crate) fn record(service: &Service, i: &Instance) -> NodeService {
    let d = &i.definition;
    let mut out = NodeService {
        kind: String::new(),
        id: service_id(i),
        service: Arc::clone(&service.name),
        tags: Arc::clone(&d.tags),
        address: d.host.to_string(),
        tagged_addresses: BTreeMap::new(),
        meta: Some(Arc::clone(&d.metadata)),
        port: i64::from(d.port),
        weights: Weights {
            passing: u32::from(d.weight.max(1)),
            warning: u32::from(d.weight.max(1)),
        },
        enable_tag_override: false,
        proxy: proxy(None),
        connect: json!({}),
        create_index: i.create_index.max(1),
        modify_index: i.modify_index.max(1),
    };
    match &d.consul {
        Some(consul) => {
            out.address.clone_from(&consul.address);
            out.port = consul.port;
            out.tagged_addresses =
                tagged_service(&consul.address, consul.port, &consul.tagged_addresses);
            out.weights = Weights {
                passing: consul.weight_passing,
                warning: consul.weight_warning,
            };
            out.enable_tag_override = consul.enable_tag_override;
            if consul.meta_absent {
                out.meta = None;
            }
            if let Some(mesh) = &consul.mesh {
                out.kind = mesh
                    .get("Kind")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                out.proxy = proxy(mesh.get("Proxy"));
                out.connect = mesh.get("Connect").cloned().unwrap_or_else(|| json!({}));
            }
        }
        None => {
            // What the registration says beside its metadata; a pair of its own name wins.
            let mut meta = IndexMap::from([
                ("version".to_owned(), d.version.to_string()),
                ("base_path".to_owned(), d.base_path.to_string()),
                ("protocol".to_owned(), protocol_name(d.protocol)),
            ]);
            meta.extend(d.metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
            out.meta = Some(Arc::new(meta));
            out.tagged_addresses = tagged_service(&d.host, i64::from(d.port), &BTreeMap::new());
        }
    }
    out
}

/// The name of a protocol as registrations write it.
fn protocol_name(protocol: portico_contract::directory::Protocol) -> String {
    serde_json::to_value(protocol)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The same as `agent/services` writes it.
pub(crate) fn agent_service(seen: Seen<'_>) -> AgentService {
    let s = node_service(seen);
    let mesh = seen
        .entry
        .instance
        .definition
        .consul
        .as_ref()
        .and_then(|c| c.mesh.as_ref());
    AgentService {
        proxy: mesh.and_then(|m| m.get("Proxy")).cloned(),
        connect: mesh.and_then(|m| m.get("Connect")).cloned(),
        kind: s.kind,
        id: s.id,
        service: s.service,
        tags: s.tags,
        meta: s.meta.unwrap_or_default(),
        port: s.port,
        address: s.address,
        tagged_addresses: s.tagged_addresses,
        weights: s.weights,
        enable_tag_override: s.enable_tag_override,
        content_hash: None,
    }
}

/// 16 hex digits that change with the definition.
pub(crate) fn content_hash(service: &AgentService) -> String {
    let text = serde_json::to_vec(service).unwrap_or_default();
    hex::encode(&Sha256::digest(text)[..8])
}

fn flat(node: &Node, s: NodeService) -> ServiceNode {
    ServiceNode {
        id: node.id.clone(),
        node: Arc::clone(&node.node),
        address: node.address.clone(),
        datacenter: Arc::clone(&node.datacenter),
        tagged_addresses: node.tagged_addresses.clone(),
        node_meta: node.meta.clone(),
        service_kind: s.kind,
        service_id: s.id,
        service_name: s.service,
        service_tags: s.tags,
        service_address: s.address,
        service_tagged_addresses: s.tagged_addresses,
        service_weights: s.weights,
        service_meta: s.meta.unwrap_or_default(),
        service_port: s.port,
        service_enable_tag_override: s.enable_tag_override,
        service_proxy: s.proxy,
        service_connect: s.connect,
        create_index: s.create_index,
        modify_index: s.modify_index,
    }
}

/// Readers expect both parts even where nothing was said.
fn proxy(given: Option<&Value>) -> Value {
    let mut out = given
        .cloned()
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({}));
    for part in ["MeshGateway", "Expose"] {
        if out.get(part).is_none() {
            out[part] = json!({});
        }
    }
    out
}

fn tagged(host: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        ("lan".to_owned(), host.to_owned()),
        ("wan".to_owned(), host.to_owned()),
    ]);
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        out.insert("lan_ipv4".to_owned(), host.to_owned());
        out.insert("wan_ipv4".to_owned(), host.to_owned());
    }
    out
}

fn tagged_service(
    address: &str,
    port: i64,
    given: &BTreeMap<String, (String, i64)>,
) -> BTreeMap<String, Address> {
    let mut out: BTreeMap<String, Address> = given
        .iter()
        .map(|(name, (address, port))| {
            (
                name.clone(),
                Address {
                    address: address.clone(),
                    port: *port,
                },
            )
        })
        .collect();
    let family = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => "ipv4",
        Ok(std::net::IpAddr::V6(_)) => "ipv6",
        Err(_) => return out,
    };
    for place in ["lan", "wan"] {
        out.entry(format!("{place}_{family}"))
            .or_insert_with(|| Address {
                address: address.to_owned(),
                port,
            });
    }
    out
}

/// A UUID that follows from a node's name.
pub(crate) fn node_id(name: &str) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
    uuid::Builder::from_custom_bytes(bytes)
        .into_uuid()
        .to_string()
}

fn virtual_check(node: &Text, id: &str, name: &str, status: Status, index: u64) -> HealthCheck {
    HealthCheck {
        node: Arc::clone(node),
        check_id: Arc::from(id),
        name: Arc::from(name),
        status: status.as_str(),
        notes: Arc::from(""),
        output: Arc::from(""),
        service_id: String::new(),
        service_name: Arc::from(""),
        service_tags: Arc::from([]),
        kind: "",
        definition: Definition::Empty {},
        create_index: index.max(1),
        modify_index: index.max(1),
        spec: None,
    }
}

/// A check that stands on its own, with the instance that it speaks of.
pub(crate) fn stored_check(check: &Check, of: Option<(&Service, &Instance)>) -> HealthCheck {
    let kind = match check.spec.probe.kind() {
        "alias" => "",
        kind => kind,
    };
    HealthCheck {
        node: Arc::clone(&check.key.node.name),
        check_id: Arc::clone(&check.key.id),
        name: Arc::clone(&check.name),
        status: check.status.as_str(),
        notes: Arc::clone(&check.notes),
        output: Arc::clone(&check.output),
        service_id: of.map(|(_, i)| service_id(i)).unwrap_or_default(),
        service_name: of.map_or_else(|| Arc::from(""), |(s, _)| Arc::clone(&s.name)),
        service_tags: of.map_or_else(|| Arc::from([]), |(_, i)| Arc::clone(&i.definition.tags)),
        kind,
        definition: Definition::Empty {},
        create_index: check.create_index.max(1),
        modify_index: check.modify_index.max(1),
        spec: Some(Arc::clone(&check.spec)),
    }
}

/// What an instance's state says beyond its checks: always for native ones, and for others when the data
/// plane is refused, which no check of theirs may know.
fn state_check(seen: Seen<'_>) -> Option<HealthCheck> {
    let i = &seen.entry.instance;
    let native = i.definition.consul.is_none();
    let refused = i.state == InstanceState::Failing && seen.entry.live.is_refused();
    if !native && !refused {
        return None;
    }
    let status = match i.state {
        InstanceState::Ready | InstanceState::Draining | InstanceState::Maintenance
            if i.warning =>
        {
            Status::Warning
        }
        InstanceState::Ready | InstanceState::Draining | InstanceState::Maintenance => {
            Status::Passing
        }
        InstanceState::Late => Status::Warning,
        InstanceState::Starting | InstanceState::Failing | InstanceState::Inactive => {
            Status::Critical
        }
    };
    let name = format!("Service '{}' state", seen.service.name);
    let mut check = virtual_check(
        &i.definition.node,
        &format!("portico:{}", service_id(i)),
        &name,
        status,
        i.modify_index,
    );
    check.output = Arc::clone(&i.reason);
    Some(of_service(check, seen))
}

/// The check of an instance that was taken out, or that leaves.
fn maintenance_check(seen: Seen<'_>) -> Option<HealthCheck> {
    let i = &seen.entry.instance;
    let reason = match &i.order {
        Some(Order::Maintenance { reason }) if reason == "maintenance" => NO_REASON.to_owned(),
        Some(Order::Maintenance { reason } | Order::Drain { reason, .. }) => reason.clone(),
        None => return None,
    };
    let id = format!("_service_maintenance:{}", service_id(i));
    let mut check = virtual_check(
        &i.definition.node,
        &id,
        "Service Maintenance Mode",
        Status::Critical,
        i.modify_index,
    );
    check.notes = reason.into();
    check.kind = "maintenance";
    Some(of_service(check, seen))
}

fn of_service(mut check: HealthCheck, seen: Seen<'_>) -> HealthCheck {
    check.service_id = service_id(&seen.entry.instance);
    check.service_name = Arc::clone(&seen.service.name);
    check.service_tags = Arc::clone(&seen.entry.instance.definition.tags);
    check
}
