//! Alias checks: they say what the checks of another service, or of a node, say together (C§5).

use std::sync::Arc;

use portico_base::{Context, id};

use super::state::ConsulState;
use super::views::{View, service_id};
use super::wire::HealthCheck;
use crate::domain::check::{Check, CheckKey, Probe, Status};
use crate::error::Result;
use crate::ops;

/// Gives every alias check that this process watches over the status of what it stands for.
pub(super) async fn follow(state: &ConsulState, cx: &Context) -> Result<usize> {
    let mut changes: Vec<(CheckKey, Status, String)> = Vec::new();
    {
        let model = state.core.model.read();
        let mine = |check: &&Arc<Check>| match check.instance {
            Some(id) => state.core.owns(id),
            None => state.core.shards.owns_text(&check.key.id),
        };
        for check in model.checks().filter(mine) {
            let Probe::Alias { service, node } = &check.spec.probe else {
                continue;
            };
            let tenant = check.key.node.tenant.unwrap_or(id::TENANT_DEFAULT);
            let view = state.view(&model, tenant);
            let node = node.as_deref().unwrap_or(&check.key.node.name);
            let (status, output) = stands_for(&view, service.as_deref(), node);
            if check.status != status || *check.output != *output {
                changes.push((check.key.clone(), status, output));
            }
        }
    }
    let count = changes.len();
    for (key, status, output) in changes {
        ops::checks::answer(&state.core, cx, &key, status, &output).await?;
    }
    Ok(count)
}

/// The worst of what is aliased. Other alias checks do not count, so that two cannot hold each other down.
fn stands_for(view: &View<'_>, service: Option<&str>, node: &str) -> (Status, String) {
    let mut checks: Vec<HealthCheck> = match service {
        Some(wanted) => {
            let found = view
                .on_node(node)
                .find(|s| service_id(&s.entry.instance) == wanted);
            match found {
                Some(seen) => view.checks_of(seen),
                None => {
                    let text = format!("Service {wanted} could not be found on node {node}");
                    return (Status::Critical, text);
                }
            }
        }
        None if view.node(node).is_none() => {
            return (Status::Critical, format!("Node {node} could not be found"));
        }
        None => Vec::new(),
    };
    checks.extend(view.checks_of_whole_node(node));
    checks.retain(|c| {
        c.spec
            .as_ref()
            .is_none_or(|s| !matches!(s.probe, Probe::Alias { .. }))
    });
    let worst = checks.iter().max_by_key(|c| Status::parse(c.status));
    match worst.and_then(|c| Status::parse(c.status).map(|status| (status, c))) {
        Some((status @ (Status::Warning | Status::Critical), check)) => (
            status,
            format!("Aliased check {:?} failing: {}", &*check.name, check.output),
        ),
        _ => (Status::Passing, "All checks passing.".to_owned()),
    }
}
