//! `/v1/catalog/*`: nodes and services of the tenant, and registration from outside (C§6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::access::{READ, REGISTER, need};
use super::blocking::{self, Look, Wait};
use super::decode::{self, Fields};
use super::filter::{self, Filter, Kind};
use super::input::{CheckInput, ServiceInput, Wrong};
use super::register;
use super::reply::{Answer, Refused, Reply, refuse};
use super::request::Request;
use super::state::ConsulState;
use super::views::{CONSUL, has_meta};
use super::wire::{NodeServiceList, NodeServices, ServiceNode, Text};
use crate::domain::node::NodeDetails;
use crate::model::Topic;
use crate::ops;

/// Longest body of a registration.
pub(super) const BODY: usize = 512 * 1024;

/// Refuses a filter that does not fit.
pub(super) fn filter(r: &Request, kind: &'static Kind) -> Result<Filter, Refused> {
    match Filter::new(r.params.text("filter"), kind) {
        Ok(filter) => Ok(filter),
        Err(why) => refuse(500, why),
    }
}

/// The pairs of `?node-meta=`.
pub(super) fn node_meta(r: &Request) -> Vec<(&str, &str)> {
    r.params
        .all("node-meta")
        .map(|pair| pair.split_once(':').unwrap_or((pair, "")))
        .collect()
}

/// True when the wished peer is not us: there are no peers (RG-50).
pub(super) fn elsewhere(r: &Request) -> bool {
    !r.params.text("peer").is_empty()
}

/// What to wait for with a service of a tenant.
fn service_waits(r: &Request, name: &str) -> Vec<Wait> {
    let name: Text = Arc::from(name);
    [Some(r.cx.tenant()), None]
        .into_iter()
        .map(|tenant| Wait::Directory(Topic::Service(tenant, Arc::clone(&name))))
        .collect()
}

/// The index of a service: its own, or the installation's while nobody knows it.
fn service_index(state: &ConsulState, r: &Request, name: &str) -> (u64, u64) {
    let model = state.core.model.read();
    let own = model
        .index_of_name(Some(r.cx.tenant()), name)
        .max(model.index_of_name(None, name));
    let changed = own.max(state.floor());
    let known = own > 0;
    (
        changed,
        if known {
            changed
        } else {
            changed.max(model.index)
        },
    )
}

/// What every list about one thing begins with: the right to read, a name, and our datacenter.
pub(super) fn begin(
    state: &ConsulState,
    r: &Request,
    name: &str,
    missing: &'static str,
) -> Result<Uuid, Refused> {
    need(r, &READ)?;
    if name.is_empty() {
        return refuse(400, missing);
    }
    r.datacenter(&state.options.datacenter)?;
    Ok(r.cx.tenant())
}

/// A list about the instances of one service, answered when its index has risen.
pub(super) async fn list_of_service<T: Serialize>(
    state: &ConsulState,
    r: &Request,
    name: &str,
    list: impl Fn() -> Vec<T>,
) -> Answer {
    let list = &list;
    let look = move || async move {
        let (changed, told) = service_index(state, r, name);
        Ok(Look {
            changed,
            told,
            value: list(),
        })
    };
    let waits = service_waits(r, name);
    let found = blocking::run(state, r, &waits, look).await?;
    blocking::answer(r, &found, true)
}

/// `catalog/datacenters`.
pub(super) fn datacenters(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    Ok(r.json(&[&state.options.datacenter]))
}

/// `catalog/nodes`.
pub(super) async fn nodes(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    r.datacenter(&state.options.datacenter)?;
    let filter = filter(r, &filter::NODES)?;
    let (filter, tenant) = (&filter, r.cx.tenant());
    let metas = node_meta(r);
    let metas = &metas;
    let look = move || async move {
        let model = state.core.model.read();
        let nodes = state.view(&model, tenant).nodes();
        // A node that only instances speak of changes nothing in the table of nodes.
        let newest = nodes.iter().map(|n| n.modify_index).max().unwrap_or(1);
        let index = model.index_of_nodes().max(newest).max(state.floor());
        let kept: Vec<_> = nodes
            .into_iter()
            .filter(|n| has_meta(n, metas) && filter.keeps(n))
            .collect();
        Ok(Look::at(index, kept))
    };
    let waits = [
        Wait::Directory(Topic::Nodes),
        Wait::Directory(Topic::Services),
    ];
    let found = blocking::run(state, r, &waits, look).await?;
    blocking::answer(r, &found, true)
}

/// `catalog/services`.
pub(super) async fn services(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    r.datacenter(&state.options.datacenter)?;
    let filter = filter(r, &filter::SERVICE_NODES)?;
    let (filter, tenant) = (&filter, r.cx.tenant());
    let metas = node_meta(r);
    let metas = &metas;
    let look = move || async move {
        let model = state.core.model.read();
        let view = state.view(&model, tenant);
        let every = filter.is_empty() && metas.is_empty();
        let services: BTreeMap<Text, BTreeSet<String>> =
            view.services(|s| filter.keeps(s), every, metas);
        let index = model.index_of_services().max(state.floor());
        Ok(Look::at(index.max(1), services))
    };
    let found = blocking::run(state, r, &[Wait::Directory(Topic::Services)], look).await?;
    blocking::answer(r, &found, true)
}

/// `catalog/service/:name`.
pub(super) async fn service(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let tenant = begin(state, r, name, "Missing service name")?;
    let filter = filter(r, &filter::SERVICE_NODES)?;
    list_of_service(state, r, name, || {
        if elsewhere(r) {
            return Vec::new();
        }
        records(state, r, name, &filter, tenant)
    })
    .await
}

fn records(
    state: &ConsulState,
    r: &Request,
    name: &str,
    filter: &Filter,
    tenant: Uuid,
) -> Vec<ServiceNode> {
    let model = state.core.model.read();
    let view = state.view(&model, tenant);
    let metas = node_meta(r);
    let mut out = Vec::new();
    if name == CONSUL && metas.is_empty() && !r.params.has("tag") {
        out.push(view.consul_node());
    }
    for seen in view.of_service(name) {
        let definition = &seen.entry.instance.definition;
        let tagged = r
            .params
            .all("tag")
            .all(|t| definition.tags.iter().any(|own| own == t));
        if let Some(node) = view
            .node(&definition.node)
            .filter(|n| tagged && has_meta(n, &metas))
        {
            out.push(view.service_node(&node, seen));
        }
    }
    out.retain(|record| filter.keeps(record));
    out
}

/// `catalog/node/:node`.
pub(super) async fn node(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let found = node_look(state, r, name).await?;
    let value = found.value.map(|list| NodeServices {
        services: list
            .services
            .into_iter()
            .map(|s| (s.id.clone(), s))
            .collect(),
        node: list.node,
    });
    blocking::answer(
        r,
        &Look {
            changed: found.changed,
            told: found.told,
            value,
        },
        true,
    )
}

/// `catalog/node-services/:node`.
pub(super) async fn node_services(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let found = node_look(state, r, name).await?;
    blocking::answer(r, &found, true)
}

async fn node_look(
    state: &ConsulState,
    r: &Request,
    name: &str,
) -> Result<Look<Option<NodeServiceList>>, Refused> {
    let tenant = begin(state, r, name, "Missing node name")?;
    let filter = filter(r, &filter::NODE_SERVICES)?;
    let filter = &filter;
    let look = move || async move {
        let model = state.core.model.read();
        let view = state.view(&model, tenant);
        let index = model
            .index_of_nodes()
            .max(model.index_of_services())
            .max(state.floor());
        let value = view.node(name).map(|node| {
            let mut services: Vec<_> = view.on_node(name).map(super::views::node_service).collect();
            if *name == *state.core.host {
                services.push(view.consul_service());
            }
            services.sort_by(|a, b| a.id.cmp(&b.id));
            services.retain(|s| filter.keeps(s));
            NodeServiceList { node, services }
        });
        Ok(Look::at(index, value))
    };
    let waits = [
        Wait::Directory(Topic::Nodes),
        Wait::Directory(Topic::Services),
    ];
    blocking::run(state, r, &waits, look).await
}

/// `catalog/register`.
pub(super) async fn register(state: &ConsulState, r: &mut Request) -> Answer {
    need(r, &REGISTER)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let wanted = match Wanted::read(&body) {
        Ok(wanted) => wanted,
        Err(why) => return refuse(400, format!("Request decode failed: {why}")),
    };
    own_datacenter(state, r, &wanted.datacenter)?;
    if wanted.node.is_empty() {
        return refuse(500, "Must provide node");
    }
    if wanted.details.address.is_empty() && !wanted.skip_node_update {
        return refuse(500, "Must provide address if SkipNodeUpdate is not set");
    }
    if wanted.node.len() > 512 || wanted.details.address.len() > 512 {
        return refuse(
            400,
            "Invalid node: names and addresses are at most 512 bytes",
        );
    }
    if let Some(why) = super::input::meta_fault(&wanted.details.meta) {
        return refuse(400, format!("Invalid Node Meta: {why}"));
    }
    apply(state, r, wanted).await?;
    Ok(r.json(&true))
}

/// Other datacenters are not known, wherever they are named.
fn own_datacenter(state: &ConsulState, r: &Request, named: &str) -> Result<(), Refused> {
    r.datacenter(&state.options.datacenter)?;
    if named.is_empty() || *named == *state.options.datacenter {
        return Ok(());
    }
    refuse(500, "No path to datacenter")
}

async fn apply(state: &ConsulState, r: &Request, wanted: Wanted) -> Result<(), Refused> {
    let core = &state.core;
    let key = register::node_key(state, r, &wanted.node)?;
    let known = core.model.read().node(&key).map(|n| n.details.clone());
    // The agent's own node is not for others to describe.
    let local = *wanted.node == *core.host;
    let address = match &known {
        Some(known) if wanted.skip_node_update => known.address.clone(),
        _ => wanted.details.address.clone(),
    };
    let kept = wanted.skip_node_update && known.is_some();
    if !local && !kept {
        let maintenance = known.and_then(|k| k.maintenance);
        let details = NodeDetails {
            maintenance,
            ..wanted.details
        };
        ops::nodes::put(core, &r.cx, &key, details).await?;
    }
    let mut instance = None;
    let mut service_id = String::new();
    if let Some(service) = wanted.service {
        service_id.clone_from(&service.id);
        let address = if local { None } else { Some(address.as_str()) };
        instance = Some(
            register::service(
                state,
                r,
                &service,
                &wanted.node,
                address,
                register::Door::Catalog,
            )
            .await?,
        );
    }
    for check in wanted.checks {
        register::catalog_check(state, r, &key, check, &service_id, instance).await?;
    }
    Ok(())
}

/// The body of `catalog/register`.
pub(super) struct Wanted {
    pub node: String,
    pub datacenter: String,
    pub details: NodeDetails,
    pub skip_node_update: bool,
    pub service: Option<ServiceInput>,
    pub checks: Vec<CheckInput>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, decode::Fault> {
        let value = decode::parse(body)?;
        let mut f = Fields::new(&value)?;
        let mut checks = Vec::new();
        if let Some(check) = f.value("Check") {
            checks.push(CheckInput::read(check, false)?);
        }
        for check in f.list("Checks")? {
            checks.push(CheckInput::read(check, false)?);
        }
        let tagged = f.text_map("TaggedAddresses")?.unwrap_or_default();
        Ok(Self {
            node: f.text("Node")?,
            datacenter: f.text("Datacenter")?,
            details: NodeDetails {
                id: f.text("ID")?,
                address: f.text("Address")?,
                tagged_addresses: tagged.into_iter().collect(),
                meta: f.text_map("NodeMeta")?.unwrap_or_else(IndexMap::new),
                maintenance: None,
            },
            skip_node_update: f.flag("SkipNodeUpdate")?,
            service: f
                .value("Service")
                .map(|s| ServiceInput::read(s, "Service", false))
                .transpose()?,
            checks,
        })
    }
}

/// `catalog/deregister`.
pub(super) async fn deregister(state: &ConsulState, r: &mut Request) -> Answer {
    need(r, &REGISTER)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let read = || -> Result<[String; 4], decode::Fault> {
        let value: Value = decode::parse(&body)?;
        let mut f = Fields::new(&value)?;
        Ok([
            f.text("Node")?,
            f.text("ServiceID")?,
            f.text("CheckID")?,
            f.text("Datacenter")?,
        ])
    };
    let [node, service, check, datacenter] = match read() {
        Ok(read) => read,
        Err(why) => return refuse(400, format!("Request decode failed: {why}")),
    };
    own_datacenter(state, r, &datacenter)?;
    if node.is_empty() {
        return refuse(500, "Must provide node");
    }
    let key = register::node_key(state, r, &node)?;
    if !service.is_empty() {
        let found = state
            .core
            .model
            .read()
            .instance_on(&key, &service)
            .map(|e| e.instance.id);
        if let Some(id) = found {
            ops::deregister::deregister(&state.core, &r.cx, id, true, "deregistered").await?;
        }
    } else if !check.is_empty() {
        let key = crate::domain::check::CheckKey {
            node: key,
            id: Arc::from(check.as_str()),
        };
        let of_node = state
            .core
            .model
            .read()
            .check(&key)
            .is_some_and(|c| c.instance.is_none());
        if of_node {
            register::whole_node(state, r, &key.node)?;
        }
        ops::checks::remove(&state.core, &r.cx, &key).await?;
    } else if *node != *state.core.host {
        ops::nodes::remove(&state.core, &r.cx, &key).await?;
    }
    Ok(r.json(&true))
}

impl From<Wrong> for Refused {
    fn from(Wrong(status, text): Wrong) -> Self {
        Self(Box::new(Reply::text(status, text)))
    }
}
