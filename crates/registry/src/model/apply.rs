//! Changing the model: one place where every table in memory follows the rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use portico_base::secret::token_hash;
use portico_contract::directory::{InstanceState, ServiceKey};
use uuid::Uuid;

use super::entry::Live;
use super::health::implied;
use super::view::{self, key_of};
use super::{InstanceEntry, Model, NameKey, Reservation, ServiceEntry};
use crate::domain::check::{Check, CheckKey, Probe, Status};
use crate::domain::instance::{Instance, Source};
use crate::domain::node::{Node, NodeKey};
use crate::domain::service::Service;
use crate::domain::token::Token;

/// One change of the model, written to the database before.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    PutService(Arc<Service>),
    DropService(Uuid),
    PutInstance(Arc<Instance>),
    /// An instance as another replica wrote it: its state tells what its checks said there.
    AdoptInstance(Arc<Instance>),
    DropInstance(Uuid),
    PutNode(Arc<Node>),
    DropNode(NodeKey),
    PutCheck(Arc<Check>),
    DropCheck(CheckKey),
    PutToken(Arc<Token>),
    DropToken(Uuid),
    PutReservation(Arc<Reservation>),
    DropReservation(String),
}

/// Something that somebody may wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// One service by tenant and name, with everything below it.
    Service(Option<Uuid>, Arc<str>),
    /// The list of services, their tags and their indexes.
    Services,
    /// The table of nodes.
    Nodes,
    /// The table of checks.
    Checks,
    /// Anything that watchers of the directory are told.
    Watch,
}

/// What a change touched.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// Services whose view for the gateway is to be built again.
    pub services: HashMap<Uuid, ServiceKey>,
    /// Whom to wake.
    pub topics: HashSet<Topic>,
    /// Instances whose schedule of checks or judgement may have changed.
    pub instances: HashSet<Uuid>,
}

impl Model {
    /// Makes changes that were committed at `index`.
    pub(crate) fn apply(&mut self, mutations: Vec<Mutation>, index: u64, changed: &mut Changed) {
        self.index = self.index.max(index);
        for mutation in mutations {
            match mutation {
                Mutation::PutService(service) => self.put_service(service, index, changed),
                Mutation::DropService(id) => self.drop_service(id, index, changed),
                Mutation::PutInstance(instance) => self.put_instance(&instance, index, changed),
                Mutation::AdoptInstance(instance) => {
                    self.put_instance(&instance, index, changed);
                    self.adopt_health(&instance);
                }
                Mutation::DropInstance(id) => self.drop_instance(id, index, changed),
                Mutation::PutNode(node) => self.put_node(node, index, changed),
                Mutation::DropNode(key) => self.drop_node(&key, index, changed),
                Mutation::PutCheck(check) => self.put_check(check, index, changed),
                Mutation::DropCheck(key) => self.drop_check(&key, index, changed),
                Mutation::PutToken(token) => self.put_token(token),
                Mutation::DropToken(id) => self.drop_token(id),
                Mutation::PutReservation(r) => {
                    self.reservations.insert(r.name.clone(), r);
                }
                Mutation::DropReservation(name) => {
                    self.reservations.remove(&name);
                }
            }
        }
    }

    fn put_service(&mut self, service: Arc<Service>, index: u64, changed: &mut Changed) {
        let id = service.id;
        let name: NameKey = (service.tenant, Arc::clone(&service.name));
        self.by_name.insert(name.clone(), id);
        match self.services.get_mut(&id) {
            Some(entry) => entry.service = service,
            None => {
                let entry = ServiceEntry {
                    service,
                    instances: std::collections::BTreeSet::new(),
                    keys: HashMap::new(),
                    modify_index: index,
                };
                self.services.insert(id, entry);
            }
        }
        self.touch_service(id, index, changed);
        self.touch_list(index, changed);
    }

    fn drop_service(&mut self, id: Uuid, index: u64, changed: &mut Changed) {
        let Some(entry) = self.services.get(&id) else {
            return;
        };
        let instances: Vec<Uuid> = entry.instances.iter().copied().collect();
        for instance in instances {
            self.drop_instance(instance, index, changed);
        }
        self.touch_service(id, index, changed);
        self.touch_list(index, changed);
        if let Some(entry) = self.services.remove(&id) {
            let name: NameKey = (entry.service.tenant, Arc::clone(&entry.service.name));
            if self.by_name.get(&name) == Some(&id) {
                self.by_name.remove(&name);
            }
            // Bounded: forgetting all of them only makes some waiters look once more.
            if self.gone.len() >= 100_000 {
                self.gone.clear();
            }
            self.gone.insert(name, index);
        }
    }

    fn put_instance(&mut self, instance: &Arc<Instance>, index: u64, changed: &mut Changed) {
        let id = instance.id;
        let before = self.instances.remove(&id);
        if let Some(before) = &before {
            self.unlink(before);
        }
        let checks_differ = before.as_ref().is_none_or(|b| {
            let (x, y) = (&b.instance.definition, &instance.definition);
            (&x.checks, &x.host, x.port, &x.base_path, x.protocol)
                != (&y.checks, &y.host, y.port, &y.base_path, y.protocol)
        });
        let live = match &before {
            Some(before) => Arc::clone(&before.live),
            None => {
                let live = Live::new(instance.last_heartbeat);
                // Nothing else could make an instance without checks wait for its first probe.
                let waits = instance.state == InstanceState::Starting
                    && instance.source == Source::Native
                    && instance.definition.checks.is_empty();
                live.set_probing(waits);
                Arc::new(live)
            }
        };
        live.see(instance.last_heartbeat);
        let entry = InstanceEntry {
            view: view::instance(instance),
            instance: Arc::clone(instance),
            live,
            checks: before.map(|b| b.checks).unwrap_or_default(),
        };
        self.link(&entry);
        self.instances.insert(id, entry);
        if checks_differ {
            self.derive_checks(instance, index, changed);
        }
        if self
            .instances
            .get(&id)
            .is_some_and(InstanceEntry::has_checks)
        {
            // Its state is what its checks say, or the other way round.
            self.checks_index = self.checks_index.max(index);
            changed.topics.insert(Topic::Checks);
        }
        self.touch_service(instance.service, index, changed);
        self.touch_list(index, changed);
        changed.instances.insert(id);
    }

    fn adopt_health(&mut self, instance: &Instance) {
        let said = implied(instance.state);
        let keys: Vec<CheckKey> = self
            .checks_of(instance.id)
            .filter(|c| {
                !c.stored && (c.answered != said.is_some() || said.is_some_and(|s| s != c.status))
            })
            .map(|c| c.key.clone())
            .collect();
        for key in keys {
            if let Some(check) = self.checks.get_mut(&key) {
                let mut adopted = Check::clone(check);
                adopted.status = said.unwrap_or(Status::Critical);
                adopted.answered = said.is_some();
                *check = Arc::new(adopted);
            }
        }
        if let Some(entry) = self.instances.get(&instance.id) {
            let refused = said == Some(Status::Critical) && entry.checks.is_empty();
            entry.live.set_refused(refused);
            entry.live.set_probed(said.is_some());
        }
    }

    fn drop_instance(&mut self, id: Uuid, index: u64, changed: &mut Changed) {
        let Some(entry) = self.instances.get(&id) else {
            return;
        };
        let service = entry.instance.service;
        let checks = entry.checks.clone();
        for key in checks {
            self.drop_check(&key, index, changed);
        }
        self.touch_service(service, index, changed);
        self.touch_list(index, changed);
        if let Some(entry) = self.instances.remove(&id) {
            self.unlink(&entry);
        }
        changed.instances.insert(id);
    }

    fn link(&mut self, entry: &InstanceEntry) {
        let i = &entry.instance;
        *self.owned.entry(i.owner.clone()).or_default() += 1;
        if let Some(service) = self.services.get_mut(&i.service) {
            service.instances.insert(i.id);
            service.keys.insert(Arc::clone(&i.key), i.id);
        }
        let node = self.node_of(i);
        if let Some(consul) = &i.definition.consul {
            self.by_consul
                .insert((node.clone(), consul.id.clone()), i.id);
        }
        if !node.name.is_empty() {
            self.on_node.entry(node).or_default().insert(i.id);
        }
        if let Some(secret) = &i.secret {
            self.secrets
                .insert(token_hash(secret.current.expose()), i.id);
            if let Some(next) = &secret.next {
                self.secrets.insert(token_hash(next.expose()), i.id);
            }
            if let Some((hash, _)) = &secret.previous {
                self.secrets.insert(*hash, i.id);
            }
        }
    }

    fn unlink(&mut self, entry: &InstanceEntry) {
        let i = &entry.instance;
        if let Some(count) = self.owned.get_mut(&i.owner) {
            *count -= 1;
            if *count == 0 {
                self.owned.remove(&i.owner);
            }
        }
        if let Some(service) = self.services.get_mut(&i.service) {
            service.instances.remove(&i.id);
            if service.keys.get(&i.key) == Some(&i.id) {
                service.keys.remove(&i.key);
            }
        }
        let node = self.node_of(i);
        if let Some(consul) = &i.definition.consul {
            let key = (node.clone(), consul.id.clone());
            if self.by_consul.get(&key) == Some(&i.id) {
                self.by_consul.remove(&key);
            }
        }
        if let Some(on) = self.on_node.get_mut(&node) {
            on.remove(&i.id);
            if on.is_empty() {
                self.on_node.remove(&node);
            }
        }
        if let Some(secret) = &i.secret {
            self.secrets.remove(&token_hash(secret.current.expose()));
            if let Some(next) = &secret.next {
                self.secrets.remove(&token_hash(next.expose()));
            }
            if let Some((hash, _)) = &secret.previous {
                self.secrets.remove(hash);
            }
        }
    }

    /// Makes the checks that an instance declared with its registration. Those of Consul's API have rows
    /// of their own and are put one by one.
    fn derive_checks(&mut self, instance: &Arc<Instance>, index: u64, changed: &mut Changed) {
        let old: Vec<CheckKey> = self
            .checks_of(instance.id)
            .filter(|c| !c.stored)
            .map(|c| c.key.clone())
            .collect();
        for key in old {
            self.drop_check(&key, index, changed);
        }
        let node = self.node_of(instance);
        let name = self
            .service_of(instance)
            .map_or_else(|| Arc::from(""), |s| Arc::clone(&s.name));
        let several = instance.definition.checks.len() > 1;
        let said = implied(instance.state);
        for (i, spec) in instance.definition.checks.iter().enumerate() {
            let id = if several {
                format!("service:{}:{}", instance.id, i + 1)
            } else {
                format!("service:{}", instance.id)
            };
            let check = Check {
                key: CheckKey {
                    node: node.clone(),
                    id: id.into(),
                },
                instance: Some(instance.id),
                name: format!("Service '{name}' check").into(),
                notes: Arc::from(""),
                spec: Arc::new(spec.clone()),
                status: said.unwrap_or(Status::Critical),
                answered: said.is_some(),
                output: Arc::from(""),
                since: instance.since,
                stored: false,
                create_index: index,
                modify_index: index,
            };
            self.put_check(Arc::new(check), index, changed);
        }
    }

    fn put_node(&mut self, node: Arc<Node>, index: u64, changed: &mut Changed) {
        let key = node.key.clone();
        self.nodes.insert(key.clone(), node);
        self.touch_node(&key, index, changed);
    }

    fn drop_node(&mut self, key: &NodeKey, index: u64, changed: &mut Changed) {
        self.touch_node(key, index, changed);
        let checks: Vec<CheckKey> = self.checks_of_node(key).map(|c| c.key.clone()).collect();
        for check in checks {
            self.drop_check(&check, index, changed);
        }
        self.nodes.remove(key);
    }

    fn put_check(&mut self, check: Arc<Check>, index: u64, changed: &mut Changed) {
        match check.instance {
            Some(id) => {
                if let Some(entry) = self.instances.get_mut(&id)
                    && !entry.checks.contains(&check.key)
                {
                    entry.checks.push(check.key.clone());
                }
                self.touch_instance(id, index, changed);
            }
            None => {
                let node = check.key.node.clone();
                self.node_checks
                    .entry(node.clone())
                    .or_default()
                    .insert(check.key.clone());
                self.touch_node_instances(&node, index, changed);
            }
        }
        if matches!(check.spec.probe, Probe::Alias { .. }) {
            self.aliases.insert(check.key.clone());
        } else {
            self.aliases.remove(&check.key);
        }
        self.checks.insert(check.key.clone(), check);
        self.checks_index = self.checks_index.max(index);
        changed.topics.insert(Topic::Checks);
    }

    fn drop_check(&mut self, key: &CheckKey, index: u64, changed: &mut Changed) {
        let Some(check) = self.checks.remove(key) else {
            return;
        };
        self.aliases.remove(key);
        match check.instance {
            Some(id) => {
                if let Some(entry) = self.instances.get_mut(&id) {
                    entry.checks.retain(|k| k != key);
                }
                self.touch_instance(id, index, changed);
            }
            None => {
                if let Some(of_node) = self.node_checks.get_mut(&key.node) {
                    of_node.remove(key);
                    if of_node.is_empty() {
                        self.node_checks.remove(&key.node);
                    }
                }
                self.touch_node_instances(&key.node, index, changed);
            }
        }
        self.checks_index = self.checks_index.max(index);
        changed.topics.insert(Topic::Checks);
    }

    /// Replaces a check's answer where nothing but its output changed: nobody is woken (C§2).
    pub(crate) fn replace_quietly(&mut self, check: Arc<Check>) {
        self.checks.insert(check.key.clone(), check);
    }

    fn put_token(&mut self, token: Arc<Token>) {
        if let Some(before) = self.tokens.get(&token.id) {
            self.by_hash.remove(&before.hash);
        }
        self.by_hash.insert(token.hash, token.id);
        self.tokens.insert(token.id, token);
    }

    fn drop_token(&mut self, id: Uuid) {
        if let Some(token) = self.tokens.remove(&id) {
            self.by_hash.remove(&token.hash);
        }
    }

    fn touch_service(&mut self, id: Uuid, index: u64, changed: &mut Changed) {
        if let Some(entry) = self.services.get_mut(&id) {
            entry.modify_index = entry.modify_index.max(index);
            let key = key_of(entry);
            changed
                .topics
                .insert(Topic::Service(key.tenant, Arc::clone(&key.name)));
            changed.services.insert(id, key);
        }
    }

    fn touch_instance(&mut self, id: Uuid, index: u64, changed: &mut Changed) {
        changed.instances.insert(id);
        if let Some(service) = self.instances.get(&id).map(|e| e.instance.service) {
            self.touch_service(service, index, changed);
        }
    }

    fn touch_node(&mut self, key: &NodeKey, index: u64, changed: &mut Changed) {
        self.nodes_index = self.nodes_index.max(index);
        changed.topics.insert(Topic::Nodes);
        self.touch_node_instances(key, index, changed);
    }

    fn touch_node_instances(&mut self, key: &NodeKey, index: u64, changed: &mut Changed) {
        let ids: Vec<Uuid> = self
            .on_node
            .get(key)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in ids {
            self.touch_instance(id, index, changed);
        }
    }

    fn touch_list(&mut self, index: u64, changed: &mut Changed) {
        self.services_index = self.services_index.max(index);
        changed.topics.insert(Topic::Services);
    }

    /// Marks everything that needs it as restored at `now` (RG-7): nobody watched over it meanwhile.
    pub(crate) fn restore(&mut self, now: portico_base::Timestamp) {
        use InstanceState::{Draining, Failing, Inactive, Late, Maintenance, Ready, Starting};
        let mut late = Vec::new();
        for (id, entry) in &mut self.instances {
            if entry.instance.source == Source::Builtin {
                continue;
            }
            match entry.instance.state {
                Starting | Draining | Maintenance => {}
                Ready | Late | Failing | Inactive => {
                    entry.live.restore(now);
                    // What its row implied of its health was true before the restart.
                    entry.live.set_probed(false);
                    entry.live.set_refused(false);
                    let mut instance = Instance::clone(&entry.instance);
                    instance.state = Late;
                    instance.reason = Arc::from("restored after a restart");
                    instance.since = now;
                    entry.view = view::instance(&instance);
                    entry.instance = Arc::new(instance);
                    late.push(*id);
                }
            }
        }
        let late: HashSet<Uuid> = late.into_iter().collect();
        for check in self.checks.values_mut() {
            let stated = matches!(check.spec.probe, Probe::Stated);
            if !stated && check.instance.is_some_and(|id| late.contains(&id)) {
                let mut unanswered = Check::clone(check);
                unanswered.answered = false;
                *check = Arc::new(unanswered);
            }
        }
    }
}
