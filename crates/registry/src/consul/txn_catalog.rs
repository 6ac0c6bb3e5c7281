//! Nodes, services and checks inside a transaction (C§10), by the same rights and rules as a registration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portico_base::Context;
use serde_json::{Value, json};
use uuid::Uuid;

use super::decode::{self, Fields};
use super::duration::quoted;
use super::input::{CheckInput, ServiceInput};
use super::register;
use super::reply::Refused;
use super::request::Request;
use super::state::ConsulState;
use super::views::{external, record, stored_check};
use crate::domain::check::{Check, CheckKey, cut_output};
use crate::domain::instance::Instance;
use crate::domain::node::{Node, NodeDetails, NodeKey};
use crate::domain::service::Service;
use crate::error::Error;
use crate::ops::register::Prepared;
use crate::ops::{self, audited};
use crate::writer::Writer;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Set,
    Cas(u64),
    Delete,
    DeleteCas(u64),
}

impl Verb {
    fn read(text: &str, index: u64) -> Option<Self> {
        match text {
            "set" => Some(Self::Set),
            "cas" => Some(Self::Cas(index)),
            "delete" => Some(Self::Delete),
            "delete-cas" => Some(Self::DeleteCas(index)),
            _ => None,
        }
    }

    /// The index that must hold, if any.
    const fn wanted(self) -> Option<u64> {
        match self {
            Self::Cas(index) | Self::DeleteCas(index) => Some(index),
            Self::Set | Self::Delete => None,
        }
    }

    const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteCas(_))
    }
}

/// A change of the catalogue.
pub(super) enum Change {
    Node {
        verb: Verb,
        node: String,
        details: Box<NodeDetails>,
    },
    Service {
        verb: Verb,
        node: String,
        service: Box<ServiceInput>,
    },
    Check {
        verb: Verb,
        node: String,
        check: Box<CheckInput>,
    },
}

/// What an operation says.
pub(super) enum Read {
    Get(String, String),
    Change(Change),
    Unknown(String),
}

fn index(value: Option<&Value>) -> Result<u64, decode::Fault> {
    match value.and_then(|v| v.as_object()) {
        None => Ok(0),
        Some(map) => Ok(map.get("ModifyIndex").and_then(Value::as_u64).unwrap_or(0)),
    }
}

/// Reads `{"Verb", "Node": {…}}`.
pub(super) fn node(value: &Value) -> Result<Read, decode::Fault> {
    let mut f = Fields::new(value)?;
    let verb = f.text("Verb")?;
    let inner = f.value("Node");
    let mut n = Fields::new(inner.unwrap_or(&Value::Null))?;
    let name = n.text("Node")?;
    if verb == "get" {
        return Ok(Read::Get(name, String::new()));
    }
    let Some(verb) = Verb::read(&verb, index(inner)?) else {
        return Ok(Read::Unknown(format!(
            "unknown Node verb {}",
            quoted(&verb)
        )));
    };
    let details = NodeDetails {
        id: n.text("ID")?,
        address: n.text("Address")?,
        tagged_addresses: n
            .text_map("TaggedAddresses")?
            .unwrap_or_default()
            .into_iter()
            .collect(),
        meta: n.text_map("Meta")?.unwrap_or_default(),
        maintenance: None,
    };
    Ok(Read::Change(Change::Node {
        verb,
        node: name,
        details: Box::new(details),
    }))
}

/// Reads `{"Verb", "Node", "Service": {…}}`.
pub(super) fn service(value: &Value) -> Result<Read, decode::Fault> {
    let mut f = Fields::new(value)?;
    let (verb, node) = (f.text("Verb")?, f.text("Node")?);
    let inner = f.value("Service");
    let service = ServiceInput::read(inner.unwrap_or(&Value::Null), "Service", false)?;
    if verb == "get" {
        return Ok(Read::Get(node, service.id));
    }
    let Some(verb) = Verb::read(&verb, index(inner)?) else {
        return Ok(Read::Unknown(format!(
            "unknown Service verb {}",
            quoted(&verb)
        )));
    };
    Ok(Read::Change(Change::Service {
        verb,
        node,
        service: Box::new(service),
    }))
}

/// Reads `{"Verb", "Check": {…}}`.
pub(super) fn check(value: &Value) -> Result<Read, decode::Fault> {
    let mut f = Fields::new(value)?;
    let verb = f.text("Verb")?;
    let inner = f.value("Check");
    let mut named = Fields::new(inner.unwrap_or(&Value::Null))?;
    let node = named.text("Node")?;
    let check = CheckInput::read(inner.unwrap_or(&Value::Null), false)?;
    let id = if check.id.is_empty() {
        check.name.clone()
    } else {
        check.id.clone()
    };
    if verb == "get" {
        return Ok(Read::Get(node, id));
    }
    let Some(verb) = Verb::read(&verb, index(inner)?) else {
        return Ok(Read::Unknown(format!(
            "unknown Check verb {}",
            quoted(&verb)
        )));
    };
    let check = CheckInput { id, ..check };
    Ok(Read::Change(Change::Check {
        verb,
        node,
        check: Box::new(check),
    }))
}

/// A change that was looked at without any lock.
pub(super) enum Ready {
    Node {
        verb: Verb,
        key: NodeKey,
        details: Box<NodeDetails>,
    },
    Service {
        verb: Verb,
        key: NodeKey,
        id: String,
        name: String,
        prepared: Option<Box<Prepared>>,
    },
    Check {
        verb: Verb,
        key: NodeKey,
        check: Box<CheckInput>,
    },
}

/// The sentence of a refusal.
fn said(Refused(reply): Refused) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap_or_default()
}

/// Looks at a change: form, rights, address. `addresses` are those of nodes that the transaction sets.
pub(super) async fn prepare(
    state: &ConsulState,
    r: &Request,
    change: Change,
    addresses: &mut BTreeMap<String, String>,
) -> Result<Ready, String> {
    let place = |node: &str| {
        if node.is_empty() {
            Err("Must provide node".to_owned())
        } else {
            register::node_key(state, r, node).map_err(said)
        }
    };
    match change {
        Change::Node {
            verb,
            node,
            details,
        } => {
            let key = place(&node)?;
            if *key.name == *state.core.host {
                return Err(format!("node {} is the agent's own", quoted(&node)));
            }
            if !verb.deletes() && details.address.is_empty() {
                return Err("Must provide address".to_owned());
            }
            if let Some(why) = super::input::meta_fault(&details.meta) {
                return Err(format!("Invalid Node Meta: {why}"));
            }
            addresses.insert(node, details.address.clone());
            Ok(Ready::Node { verb, key, details })
        }
        Change::Service {
            verb,
            node,
            service,
        } => {
            let key = place(&node)?;
            let (id, name) = (service.id.clone(), service.name.clone());
            let prepared = if verb.deletes() {
                None
            } else {
                Some(Box::new(
                    registration(state, r, &key, &service, addresses).await?,
                ))
            };
            Ok(Ready::Service {
                verb,
                key,
                id,
                name,
                prepared,
            })
        }
        Change::Check { verb, node, check } => Ok(Ready::Check {
            verb,
            key: place(&node)?,
            check,
        }),
    }
}

async fn registration(
    state: &ConsulState,
    r: &Request,
    key: &NodeKey,
    service: &ServiceInput,
    addresses: &BTreeMap<String, String>,
) -> Result<Prepared, String> {
    let known = state
        .core
        .model
        .read()
        .node(key)
        .map(|n| n.details.address.clone());
    let address = addresses
        .get(&*key.name)
        .cloned()
        .or(known)
        .filter(|a| !a.is_empty());
    let wished =
        register::request(state, r, service, &key.name, address.as_deref()).map_err(said)?;
    ops::register::prepare(&state.core, &r.cx, wished)
        .await
        .map_err(|e| said(e.into()))
}

/// What the transaction has made so far, which the model does not know yet.
#[derive(Default)]
pub(super) struct Made {
    nodes: BTreeSet<NodeKey>,
    instances: BTreeMap<(NodeKey, String), Pair>,
    names: BTreeSet<String>,
    touched: BTreeSet<String>,
    /// Instances whose state is to be looked at afterwards.
    pub settle: BTreeSet<Uuid>,
}

/// Makes one change. The inner result is its item, or the sentence of its failure.
pub(super) async fn apply(
    state: &ConsulState,
    r: &Request,
    w: &mut Writer,
    made: &mut Made,
    ready: Ready,
) -> Result<Result<Option<Value>, String>, Error> {
    let name = match &ready {
        Ready::Node { key, .. } => format!("node {}", quoted(&key.name)),
        Ready::Service { key, id, .. } => {
            format!("service {} on node {}", quoted(id), quoted(&key.name))
        }
        Ready::Check { key, check, .. } => {
            format!("check {} on node {}", quoted(&check.id), quoted(&key.name))
        }
    };
    if !made.touched.insert(name.clone()) {
        return Ok(Err(format!("{name} is changed twice in one transaction")));
    }
    match ready {
        Ready::Node { verb, key, details } => {
            change_node(state, r, w, made, verb, &key, *details).await
        }
        Ready::Service {
            verb,
            key,
            id,
            name,
            prepared,
        } => {
            let held = (verb, key, id, name);
            change_service(state, &r.cx, w, made, held, prepared.as_deref()).await
        }
        Ready::Check { verb, key, check } => {
            change_check(state, r, w, made, verb, &key, *check).await
        }
    }
}

/// A condition on the index does not hold.
fn stale(verb: Verb, known: Option<u64>, what: &str) -> Option<String> {
    let wanted = verb.wanted()?;
    let holds = match known {
        Some(index) => index == wanted,
        // What is absent is at index 0; deleting it is no failure.
        None => wanted == 0 || verb.deletes(),
    };
    let how = if verb.deletes() { "delete" } else { "set" };
    (!holds).then(|| format!("failed to {how} {what}, index is stale"))
}

async fn change_node(
    state: &ConsulState,
    r: &Request,
    w: &mut Writer,
    made: &mut Made,
    verb: Verb,
    key: &NodeKey,
    details: NodeDetails,
) -> Result<Result<Option<Value>, String>, Error> {
    let known = state.core.model.read().node(key).map(Arc::clone);
    if let Some(why) = stale(
        verb,
        known.as_ref().map(|n| n.modify_index),
        &format!("node {}", quoted(&key.name)),
    ) {
        return Ok(Err(why));
    }
    if !verb.deletes() {
        let maintenance = known.as_ref().and_then(|k| k.details.maintenance.clone());
        let mut node = Node {
            key: key.clone(),
            details: NodeDetails {
                maintenance,
                ..details
            },
            create_index: known.as_ref().map_or(w.index(), |k| k.create_index),
            modify_index: w.index(),
        };
        w.put_node(node.clone()).await?;
        node.modify_index = w.index();
        made.nodes.insert(key.clone());
        w.audit(audited(
            "registry.node.registered",
            "node",
            &*key.name,
            key.tenant,
        ))
        .await?;
        return Ok(Ok(Some(
            json!({"Node": external(&node, &state.options.datacenter)}),
        )));
    }
    if let Err(refused) = register::whole_node(state, r, key) {
        return Ok(Err(said(refused)));
    }
    for (service, instance) in on_node(state, key) {
        ops::settle::remove(w, &state.core, &service, &instance, "its node was removed").await?;
    }
    if known.is_some() {
        w.drop_node(key).await?;
        w.audit(audited(
            "registry.node.removed",
            "node",
            &*key.name,
            key.tenant,
        ))
        .await?;
    }
    Ok(Ok(None))
}

fn on_node(state: &ConsulState, key: &NodeKey) -> Vec<Pair> {
    let model = state.core.model.read();
    model
        .instances_of_node(key)
        .filter_map(|e| {
            model
                .service_of(&e.instance)
                .map(|s| (Arc::clone(s), Arc::clone(&e.instance)))
        })
        .collect()
}

/// An instance by its node and id as it stands before the transaction.
fn known_instance(state: &ConsulState, key: &NodeKey, id: &str) -> Option<Pair> {
    let model = state.core.model.read();
    let entry = model.instance_on(key, id)?;
    let service = model.service_of(&entry.instance)?;
    Some((Arc::clone(service), Arc::clone(&entry.instance)))
}

async fn change_service(
    state: &ConsulState,
    cx: &Context,
    w: &mut Writer,
    made: &mut Made,
    (verb, key, id, name): (Verb, NodeKey, String, String),
    prepared: Option<&Prepared>,
) -> Result<Result<Option<Value>, String>, Error> {
    let known = known_instance(state, &key, &id);
    let what = format!("service {} on node {}", quoted(&id), quoted(&key.name));
    if let Some(why) = stale(verb, known.as_ref().map(|(_, i)| i.modify_index), &what) {
        return Ok(Err(why));
    }
    let Some(prepared) = prepared else {
        if let Some((service, instance)) = known {
            if !ops::is_own(&state.core, cx, &service, &instance) {
                return Ok(Err("Permission denied".to_owned()));
            }
            ops::settle::remove(w, &state.core, &service, &instance, "deregistered").await?;
            w.audit(audited(
                "registry.instance.removed",
                "instance",
                instance.id.to_string(),
                service.tenant,
            ))
            .await?;
        }
        return Ok(Ok(None));
    };
    let there = {
        let model = state.core.model.read();
        *key.name == *state.core.host || model.node(&key).is_some() || made.nodes.contains(&key)
    };
    if !there {
        return Ok(Err("Missing node registration".to_owned()));
    }
    let is_new = state
        .core
        .model
        .read()
        .service_named(key.tenant, &name)
        .is_none();
    if is_new && !made.names.insert(name.clone()) {
        return Ok(Err(format!(
            "service {} is new and named twice in one transaction",
            quoted(&name)
        )));
    }
    match ops::register::carry_out(&state.core, cx, w, prepared).await {
        Ok(registered) => {
            let item = json!({"Service": record(&registered.service, &registered.instance)});
            made.instances
                .insert((key, id), (registered.service, registered.instance));
            Ok(Ok(Some(item)))
        }
        Err(error @ (Error::Db(_) | Error::Internal(_) | Error::Audit(_))) => Err(error),
        Err(error) => Ok(Err(said(error.into()))),
    }
}

/// An instance and its service.
type Pair = (Arc<Service>, Arc<Instance>);

/// The instance that a check speaks of, which must be the caller's own; nothing for a whole node.
fn of_whom(
    state: &ConsulState,
    r: &Request,
    made: &Made,
    node: &NodeKey,
    service_id: &str,
) -> Result<Option<Pair>, String> {
    if service_id.is_empty() {
        return register::whole_node(state, r, node)
            .map(|()| None)
            .map_err(said);
    }
    let pair = (node.clone(), service_id.to_owned());
    let found = made.instances.get(&pair).cloned();
    match found.or_else(|| known_instance(state, node, service_id)) {
        Some((s, i)) if ops::is_own(&state.core, &r.cx, &s, &i) => Ok(Some((s, i))),
        Some(_) => Err("Permission denied".to_owned()),
        None => Err(format!("Missing service registration '{service_id}'")),
    }
}

async fn change_check(
    state: &ConsulState,
    r: &Request,
    w: &mut Writer,
    made: &mut Made,
    verb: Verb,
    node: &NodeKey,
    check: CheckInput,
) -> Result<Result<Option<Value>, String>, Error> {
    let key = CheckKey {
        node: node.clone(),
        id: Arc::from(check.id.as_str()),
    };
    let known = state.core.model.read().check(&key).map(Arc::clone);
    let what = format!("check {} on node {}", quoted(&check.id), quoted(&node.name));
    if let Some(why) = stale(verb, known.as_ref().map(|c| c.modify_index), &what) {
        return Ok(Err(why));
    }
    let of = match of_whom(state, r, made, node, &check.service_id) {
        Ok(of) => of,
        Err(why) => return Ok(Err(why)),
    };
    let before = known.as_ref().and_then(|c| c.instance);
    match before {
        Some(id) => drop(made.settle.insert(id)),
        None => made
            .settle
            .extend(on_node(state, node).into_iter().map(|(_, i)| i.id)),
    }
    if verb.deletes() {
        if known.is_some_and(|k| k.stored) {
            w.drop_check(&key).await?;
        }
        return Ok(Ok(None));
    }
    if check.id.is_empty() {
        return Ok(Err("Must provide check name or id".to_owned()));
    }
    let status = match check.initial() {
        Ok(status) => status,
        Err(wrong) => return Ok(Err(wrong.1)),
    };
    made.settle.extend(of.as_ref().map(|(_, i)| i.id));
    let next = Check {
        instance: of.as_ref().map(|(_, i)| i.id),
        name: Arc::from(if check.name.is_empty() {
            check.id.as_str()
        } else {
            check.name.as_str()
        }),
        notes: Arc::from(check.notes.as_str()),
        spec: Arc::new(CheckInput::stated()),
        status,
        answered: true,
        output: Arc::from(cut_output(&check.output)),
        since: known
            .as_ref()
            .filter(|k| k.status == status)
            .map_or(w.now(), |k| k.since),
        stored: true,
        create_index: known.as_ref().map_or(w.index(), |k| k.create_index),
        modify_index: w.index(),
        key,
    };
    let item = stored_check(&next, of.as_ref().map(|(s, i)| (&**s, &**i)));
    let target = format!("{}/{}", next.key.node.name, next.key.id);
    w.audit(audited(
        "registry.check.registered",
        "check",
        target,
        next.key.node.tenant,
    ))
    .await?;
    w.put_check(next).await?;
    Ok(Ok(Some(json!({"Check": item}))))
}
