//! The registry's truth in memory: loaded at start, changed after each commit, followed from the database.

mod apply;
mod entry;
mod health;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::domain::check::{Check, CheckKey};
use crate::domain::instance::Instance;
use crate::domain::node::{Node, NodeKey};
use crate::domain::service::{Owner, Service};
use crate::domain::token::Token;

pub(crate) use apply::{Changed, Mutation, Topic};
pub(crate) use entry::{InstanceEntry, Report, ServiceEntry, shifted};

/// A name that nobody may take without a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub name: String,
    pub note: String,
    pub created_by: String,
    pub created_at: portico_base::Timestamp,
}

/// Identity of a service by name.
pub(crate) type NameKey = (Option<Uuid>, Arc<str>);

/// Everything known at `seq`.
#[derive(Default)]
pub(crate) struct Model {
    /// Position in the sequence of changes.
    pub seq: u64,
    /// Highest value of the installation's index that was seen (RG-42).
    pub index: u64,
    services: HashMap<Uuid, ServiceEntry>,
    by_name: HashMap<NameKey, Uuid>,
    instances: HashMap<Uuid, InstanceEntry>,
    /// Instances by node and Consul id.
    by_consul: HashMap<(NodeKey, String), Uuid>,
    nodes: BTreeMap<NodeKey, Arc<Node>>,
    /// Instances by the node that they name.
    on_node: HashMap<NodeKey, BTreeSet<Uuid>>,
    checks: BTreeMap<CheckKey, Arc<Check>>,
    /// Checks of nodes as a whole, beside those of the instances on them.
    node_checks: HashMap<NodeKey, BTreeSet<CheckKey>>,
    /// Checks that say what others say.
    aliases: BTreeSet<CheckKey>,
    tokens: HashMap<Uuid, Arc<Token>>,
    by_hash: HashMap<[u8; 32], Uuid>,
    secrets: HashMap<[u8; 32], Uuid>,
    reservations: BTreeMap<String, Arc<Reservation>>,
    /// How many instances each owner has.
    owned: HashMap<Owner, usize>,
    /// Indexes at which names last lost everything, so that an index never falls (RG-42).
    gone: HashMap<NameKey, u64>,
    nodes_index: u64,
    services_index: u64,
    checks_index: u64,
}

impl Model {
    pub(crate) fn service(&self, id: Uuid) -> Option<&ServiceEntry> {
        self.services.get(&id)
    }

    /// The service of exactly this tenant (absent: global).
    pub(crate) fn service_named(&self, tenant: Option<Uuid>, name: &str) -> Option<&ServiceEntry> {
        let id = self.by_name.get(&(tenant, Arc::from(name)))?;
        self.services.get(id)
    }

    /// The service that a tenant reaches under a name: its own, else the global one.
    pub(crate) fn service_for(&self, tenant: Uuid, name: &str) -> Option<&ServiceEntry> {
        self.service_named(Some(tenant), name)
            .or_else(|| self.service_named(None, name))
    }

    /// Anybody who has the name, in whatever tenant.
    pub(crate) fn anybody_named(&self, name: &str) -> bool {
        self.services.values().any(|e| *e.service.name == *name)
    }

    /// All services, in no order.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceEntry> {
        self.services.values()
    }

    pub(crate) fn instance(&self, id: Uuid) -> Option<&InstanceEntry> {
        self.instances.get(&id)
    }

    /// All instances, in no order.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &InstanceEntry> {
        self.instances.values()
    }

    /// An instance by its key within a service.
    pub(crate) fn instance_keyed(&self, service: Uuid, key: &str) -> Option<&InstanceEntry> {
        let id = self.services.get(&service)?.keys.get(key)?;
        self.instances.get(id)
    }

    /// An instance by its Consul id on a node.
    pub(crate) fn instance_on(&self, node: &NodeKey, consul_id: &str) -> Option<&InstanceEntry> {
        let id = self.by_consul.get(&(node.clone(), consul_id.to_owned()))?;
        self.instances.get(id)
    }

    /// Instances that name a node.
    pub(crate) fn instances_of_node<'a>(
        &'a self,
        node: &NodeKey,
    ) -> impl Iterator<Item = &'a InstanceEntry> {
        self.on_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id| self.instances.get(id))
    }

    /// Nodes on which instances live, whether or not they were registered themselves.
    pub(crate) fn inhabited_nodes(&self) -> impl Iterator<Item = &NodeKey> {
        self.on_node.keys()
    }

    pub(crate) fn node(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        self.nodes.get(key)
    }

    /// All registered nodes in the order of tenant and name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub(crate) fn check(&self, key: &CheckKey) -> Option<&Arc<Check>> {
        self.checks.get(key)
    }

    /// All checks in the order of node and id.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.values()
    }

    /// Checks of a node as a whole and of the instances on it.
    pub(crate) fn checks_of_node(&self, node: &NodeKey) -> impl Iterator<Item = &Arc<Check>> {
        let first = CheckKey {
            node: node.clone(),
            id: Arc::from(""),
        };
        let node = node.clone();
        self.checks
            .range(first..)
            .map(|(_, c)| c)
            .take_while(move |c| c.key.node == node)
    }

    /// Checks of a node as a whole.
    pub(crate) fn node_checks<'a>(
        &'a self,
        node: &NodeKey,
    ) -> impl Iterator<Item = &'a Arc<Check>> {
        self.node_checks
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|key| self.checks.get(key))
    }

    /// Checks that say what others say.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.aliases.iter().filter_map(|key| self.checks.get(key))
    }

    /// Checks of all nodes as a whole.
    pub(crate) fn all_node_checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.node_checks
            .values()
            .flatten()
            .filter_map(|key| self.checks.get(key))
    }

    /// Checks of an instance, without those of its node.
    pub(crate) fn checks_of(&self, instance: Uuid) -> impl Iterator<Item = &Arc<Check>> {
        self.instances
            .get(&instance)
            .into_iter()
            .flat_map(|e| &e.checks)
            .filter_map(|key| self.checks.get(key))
    }

    pub(crate) fn token(&self, id: Uuid) -> Option<&Arc<Token>> {
        self.tokens.get(&id)
    }

    /// A token by the hash of its text.
    pub(crate) fn token_by_hash(&self, hash: &[u8; 32]) -> Option<&Arc<Token>> {
        self.tokens.get(self.by_hash.get(hash)?)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.values()
    }

    /// The instance that holds a secret.
    pub(crate) fn instance_by_secret(&self, hash: &[u8; 32]) -> Option<&InstanceEntry> {
        self.instances.get(self.secrets.get(hash)?)
    }

    pub(crate) fn reservation(&self, name: &str) -> Option<&Arc<Reservation>> {
        self.reservations.get(name)
    }

    pub(crate) fn reservations(&self) -> impl Iterator<Item = &Arc<Reservation>> {
        self.reservations.values()
    }

    /// Instances that live under a token.
    pub(crate) fn instances_of_owner(&self, owner: &Owner) -> usize {
        self.owned.get(owner).copied().unwrap_or(0)
    }

    /// Index of a service name, also of one that is gone (0: never seen).
    pub(crate) fn index_of_name(&self, tenant: Option<Uuid>, name: &str) -> u64 {
        let gone = self
            .gone
            .get(&(tenant, Arc::from(name)))
            .copied()
            .unwrap_or(0);
        self.service_named(tenant, name)
            .map_or(gone, |e| e.modify_index.max(gone))
    }

    /// Index of the table of nodes.
    pub(crate) const fn index_of_nodes(&self) -> u64 {
        self.nodes_index
    }

    /// Index of the list of services.
    pub(crate) const fn index_of_services(&self) -> u64 {
        self.services_index
    }

    /// Index of the table of checks.
    pub(crate) const fn index_of_checks(&self) -> u64 {
        self.checks_index
    }

    /// The node of an instance as a key: its service's tenant and its node's name.
    pub(crate) fn node_of(&self, instance: &Instance) -> NodeKey {
        let tenant = self
            .services
            .get(&instance.service)
            .and_then(|e| e.service.tenant);
        NodeKey {
            tenant,
            name: Arc::clone(&instance.definition.node),
        }
    }

    /// The service of an instance.
    pub(crate) fn service_of(&self, instance: &Instance) -> Option<&Arc<Service>> {
        self.services.get(&instance.service).map(|e| &e.service)
    }
}
