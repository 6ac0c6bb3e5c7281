//! `/v1/health/*`: services with the checks that speak of them (C§7).

use uuid::Uuid;

use super::access::{READ, need};
use super::blocking::{self, Look, Wait};
use super::catalog::{begin, elsewhere, filter, list_of_service, node_meta};
use super::filter::{self, Filter};
use super::reply::{Answer, Refused, refuse};
use super::request::Request;
use super::state::ConsulState;
use super::views::{CONSUL, View, has_meta};
use super::wire::{HealthCheck, ServiceHealth};
use crate::model::Topic;

/// `health/service/:name`.
pub(super) async fn service(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let tenant = begin(state, r, name, "Missing service name")?;
    let passing = passing(r)?;
    let filter = filter(r, &filter::HEALTH)?;
    list_of_service(state, r, name, || {
        if elsewhere(r) {
            return Vec::new();
        }
        lines(state, r, name, passing, &filter, tenant)
    })
    .await
}

/// `?passing`, `=1` and `=true` in Go's spelling.
fn passing(r: &Request) -> Result<bool, Refused> {
    match r.params.get("passing") {
        None => Ok(false),
        Some("" | "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(_) => refuse(400, "Invalid value for ?passing"),
    }
}

fn lines(
    state: &ConsulState,
    r: &Request,
    name: &str,
    passing: bool,
    filter: &Filter,
    tenant: Uuid,
) -> Vec<ServiceHealth> {
    let model = state.core.model.read();
    let view = state.view(&model, tenant);
    let metas = node_meta(r);
    let mut out = Vec::new();
    if name == CONSUL && !r.params.has("tag") {
        out.extend(servers(state, &view));
    }
    for seen in view.of_service(name) {
        let definition = &seen.entry.instance.definition;
        let tagged = r
            .params
            .all("tag")
            .all(|t| definition.tags.iter().any(|own| own == t));
        if let Some(node) = view.node(&definition.node).filter(|_| tagged) {
            out.push(view.health(node, seen));
        }
    }
    out.retain(|line| {
        has_meta(&line.node, &metas)
            && (!passing || line.checks.iter().all(|c| c.status == "passing"))
            && filter.keeps(line)
    });
    out
}

/// The servers themselves.
fn servers(state: &ConsulState, view: &View<'_>) -> Option<ServiceHealth> {
    let node = view.node(&state.core.host)?;
    let checks = view.checks_of_whole_node(&state.core.host);
    Some(ServiceHealth {
        node,
        service: view.consul_service(),
        checks,
    })
}

/// `health/checks/:name`.
pub(super) async fn checks(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let tenant = begin(state, r, name, "Missing service name")?;
    let filter = filter(r, &filter::CHECKS)?;
    list_of_service(state, r, name, || {
        let model = state.core.model.read();
        let view = state.view(&model, tenant);
        let metas = node_meta(r);
        let fits =
            |node: &str| metas.is_empty() || view.node(node).is_some_and(|n| has_meta(&n, &metas));
        let mut checks: Vec<HealthCheck> = view
            .of_service(name)
            .into_iter()
            .filter(|seen| fits(&seen.entry.instance.definition.node))
            .flat_map(|seen| view.checks_of(seen))
            .collect();
        checks.retain(|check| filter.keeps(check));
        checks
    })
    .await
}

/// `health/node/:node`.
pub(super) async fn node(state: &ConsulState, r: &Request, name: &str) -> Answer {
    let tenant = begin(state, r, name, "Missing node name")?;
    let filter = filter(r, &filter::CHECKS)?;
    let filter = &filter;
    let look = move || async move {
        let model = state.core.model.read();
        let view = state.view(&model, tenant);
        let known = view.node(name).is_some();
        let mut value = if known {
            view.checks_on(name)
        } else {
            Vec::new()
        };
        value.retain(|check| filter.keeps(check));
        Ok(Look::at(all_index(state, &model), value))
    };
    let found = blocking::run(state, r, &all_waits(), look).await?;
    blocking::answer(r, &found, true)
}

/// `health/state/:state`.
pub(super) async fn state_of(state: &ConsulState, r: &Request, wanted: &str) -> Answer {
    let tenant = begin(state, r, wanted, "Missing check state")?;
    let filter = filter(r, &filter::CHECKS)?;
    let filter = &filter;
    let look = move || async move {
        let model = state.core.model.read();
        let view = state.view(&model, tenant);
        let metas = node_meta(r);
        let mut value: Vec<HealthCheck> = match wanted {
            "any" | "passing" | "warning" | "critical" => view
                .node_names()
                .iter()
                .filter(|name| {
                    metas.is_empty() || view.node(name).is_some_and(|n| has_meta(&n, &metas))
                })
                .flat_map(|name| view.checks_on(name))
                .collect(),
            _ => Vec::new(),
        };
        value.retain(|check| (wanted == "any" || check.status == wanted) && filter.keeps(check));
        Ok(Look::at(all_index(state, &model), value))
    };
    let found = blocking::run(state, r, &all_waits(), look).await?;
    blocking::answer(r, &found, true)
}

/// The index of everything that has checks: states without rows follow their instances.
fn all_index(state: &ConsulState, model: &crate::model::Model) -> u64 {
    model
        .index_of_checks()
        .max(model.index_of_nodes())
        .max(model.index_of_services())
        .max(state.floor())
        .max(1)
}

fn all_waits() -> [Wait; 3] {
    [Topic::Checks, Topic::Nodes, Topic::Services].map(Wait::Directory)
}

/// `health/connect/:name`, `health/ingress/:name`, `catalog/connect/:name`: there is no mesh.
pub(super) fn nobody(state: &ConsulState, r: &Request, name: &str) -> Answer {
    need(r, &READ)?;
    if name.is_empty() {
        return refuse(400, "Missing service name");
    }
    r.datacenter(&state.options.datacenter)?;
    let reply = r.json(&[(); 0]);
    let index = state.core.model.read().index.max(1);
    Ok(blocking::with_index(r, reply, index, true))
}
