//! `/v1/agent/*`: services and checks of this machine, their registration and maintenance (C§3 to C§5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::access::{READ, REGISTER, need};
use super::catalog::{BODY, filter};
use super::decode::{self, Fields};
use super::filter;
use super::input::{CheckInput, ServiceInput, Wrong};
use super::register::{self, Door};
use super::reply::{Answer, Refused, Reply, refuse};
use super::request::{Blocking, Request};
use super::state::ConsulState;
use super::views::{NO_NODE_REASON, NO_REASON, agent_service, content_hash};
use super::wire::{AgentHealth, AgentService, Aggregated, Definition, HealthCheck, Text};
use crate::domain::check::{CheckKey, Probe, Status};
use crate::domain::node::NodeKey;
use crate::model::Topic;
use crate::ops;
use crate::ops::operate::Command;

/// `agent/services`.
pub(super) fn services(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let filter = filter(r, &filter::AGENT_SERVICES)?;
    let model = state.core.model.read();
    let services: BTreeMap<String, AgentService> = state
        .view(&model, r.cx.tenant())
        .of_agent()
        .into_iter()
        .map(agent_service)
        .filter(|s| filter.keeps(s))
        .map(|s| (s.id.clone(), s))
        .collect();
    drop(model);
    Ok(r.json(&services))
}

/// `agent/service/:id`, with the hash-based form of waiting.
pub(super) async fn service(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &READ)?;
    if id.is_empty() {
        return refuse(400, "Missing service ID");
    }
    let Blocking { wait, .. } = r.blocking()?;
    let hash = r.params.text("hash");
    let deadline = tokio::time::Instant::now()
        + if hash.is_empty() {
            Duration::ZERO
        } else {
            wait
        };
    let mut guard = None;
    loop {
        let listener = state.core.topics.listen(Topic::Services);
        let found = {
            let model = state.core.model.read();
            state
                .view(&model, r.cx.tenant())
                .agent_instance(id)
                .map(agent_service)
        };
        let Some(mut found) = found else {
            return refuse(404, format!("unknown service ID: {id}"));
        };
        let present = content_hash(&found);
        if *present != *hash || tokio::time::Instant::now() >= deadline || state.stop.is_cancelled()
        {
            found.content_hash = Some(present.clone());
            return Ok(r.json(&found).named("x-consul-contenthash", &present));
        }
        if guard.is_none() {
            guard = Some(state.block(r.cx.principal())?);
        }
        tokio::select! {
            () = listener.woken() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = state.stop.cancelled() => {}
        }
    }
}

/// `agent/checks`.
pub(super) fn checks(state: &ConsulState, r: &Request) -> Answer {
    need(r, &READ)?;
    let filter = filter(r, &filter::CHECKS)?;
    let model = state.core.model.read();
    let view = state.view(&model, r.cx.tenant());
    // The gossip's own check belongs to the cluster, not to the agent.
    let of_node = view.checks_of_whole_node(&state.core.host);
    let of_services = view
        .of_agent()
        .into_iter()
        .flat_map(|seen| view.checks_of(seen));
    let checks: BTreeMap<Text, HealthCheck> = of_node
        .into_iter()
        .filter(|c| &*c.check_id != super::views::SERF)
        .chain(of_services)
        .filter(|c| filter.keeps(c))
        .map(|c| (Arc::clone(&c.check_id), c))
        .collect();
    Ok(r.json(&checks))
}

/// `agent/service/register`.
pub(super) async fn register_service(state: &ConsulState, r: &mut Request) -> Answer {
    need(r, &REGISTER)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let read = || ServiceInput::read(&decode::parse(&body)?, "Name", true);
    let input = read().map_err(Wrong::from)?;
    if input.id.is_empty() {
        return refuse(400, "Missing service name");
    }
    let replace_checks = flag(r, "replace-existing-checks");
    let node = agent_node(state, r, &input.id);
    register::service(
        state,
        r,
        &input,
        &node,
        None,
        Door::Agent { replace_checks },
    )
    .await?;
    Ok(Reply::empty())
}

fn flag(r: &Request, name: &str) -> bool {
    r.params
        .get(name)
        .is_some_and(|v| matches!(v, "" | "1" | "t" | "true" | "TRUE" | "True"))
}

/// The node of an agent's service: where it is known already, else here. So an instance keeps its place
/// when its client comes back through another replica.
fn agent_node(state: &ConsulState, r: &Request, id: &str) -> Text {
    let model = state.core.model.read();
    let known = state.view(&model, r.cx.tenant()).agent_instance(id);
    known.map_or_else(
        || Arc::clone(&state.core.host),
        |s| Arc::clone(&s.entry.instance.definition.node),
    )
}

/// An instance of the agent by Consul's id.
fn find(state: &ConsulState, r: &Request, id: &str) -> Option<(Uuid, Text)> {
    let model = state.core.model.read();
    let seen = state.view(&model, r.cx.tenant()).agent_instance(id)?;
    Some((
        seen.entry.instance.id,
        Arc::clone(&seen.entry.instance.definition.node),
    ))
}

/// `agent/service/deregister/:id`.
pub(super) async fn deregister_service(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &REGISTER)?;
    if id.is_empty() {
        return refuse(400, "Missing service ID");
    }
    if let Some((instance, _)) = find(state, r, id) {
        match ops::deregister::deregister(&state.core, &r.cx, instance, true, "deregistered").await
        {
            // Somebody else was faster: gone is gone.
            Ok(_) | Err(crate::error::Error::UnknownInstance) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Reply::empty())
}

/// `agent/service/maintenance/:id`.
pub(super) async fn service_maintenance(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &REGISTER)?;
    if id.is_empty() {
        return refuse(400, "Missing service ID");
    }
    let enable = enable(r)?;
    let Some((instance, _)) = find(state, r, id) else {
        return refuse(
            404,
            format!(
                "No service registered with ID {}",
                super::duration::quoted(id)
            ),
        );
    };
    let command = if enable {
        let reason = r.params.text("reason");
        let reason = if reason.is_empty() { NO_REASON } else { reason };
        Command::Maintenance {
            reason: reason.to_owned(),
        }
    } else {
        Command::Resume
    };
    ops::operate::command(&state.core, &r.cx, instance, command).await?;
    Ok(Reply::empty())
}

fn enable(r: &Request) -> Result<bool, Refused> {
    match r.params.get("enable") {
        None | Some("") => refuse(400, "Missing value for enable"),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => refuse(
            400,
            format!(
                "Invalid value for enable: {}",
                super::duration::quoted(other)
            ),
        ),
    }
}

/// `agent/maintenance`.
pub(super) async fn node_maintenance(state: &ConsulState, r: &Request) -> Answer {
    need(r, &REGISTER)?;
    let key = register::node_key(state, r, &state.core.host)?;
    let enabled = enable(r)?;
    register::whole_node(state, r, &key)?;
    let reason = enabled.then(|| match r.params.text("reason") {
        "" => NO_NODE_REASON,
        reason => reason,
    });
    ops::nodes::maintain(&state.core, &r.cx, &key, reason).await?;
    Ok(Reply::empty())
}

/// `agent/check/register`.
pub(super) async fn register_check(state: &ConsulState, r: &mut Request) -> Answer {
    need(r, &REGISTER)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let read = || CheckInput::read(&decode::parse(&body)?, true);
    let input = read().map_err(Wrong::from)?;
    if input.name.is_empty() {
        return refuse(400, "Missing check name");
    }
    let status = input.initial()?;
    let spec = input.spec(state.options.deregister_min_ms)?;
    let (instance, node) = if input.service_id.is_empty() {
        (None, Arc::clone(&state.core.host))
    } else {
        match find(state, r, &input.service_id) {
            Some((id, node)) => (Some(id), node),
            None => {
                let id = super::duration::quoted(&input.service_id);
                return refuse(500, format!("ServiceID {id} does not exist"));
            }
        }
    };
    let key = node_of(state, r, instance, &node)?;
    if instance.is_none() {
        register::whole_node(state, r, &key)?;
    }
    let id = if input.id.is_empty() {
        &input.name
    } else {
        &input.id
    };
    if id.len() > 512 || input.name.len() > 512 || input.notes.len() > 4_096 {
        return refuse(
            400,
            "Invalid check: names are at most 512 bytes, notes 4096",
        );
    }
    let wanted = ops::checks::Wanted {
        key: CheckKey {
            node: key,
            id: Arc::from(id.as_str()),
        },
        instance,
        name: input.name.clone(),
        notes: input.notes.clone(),
        spec,
        status,
        output: String::new(),
        states: false,
    };
    ops::checks::put(&state.core, &r.cx, wanted).await?;
    Ok(Reply::empty())
}

/// The key of a check's node: that of its instance, else the caller's own.
fn node_of(
    state: &ConsulState,
    r: &Request,
    instance: Option<Uuid>,
    node: &str,
) -> Result<NodeKey, Refused> {
    let of_instance = instance.and_then(|id| {
        let model = state.core.model.read();
        model.instance(id).map(|e| model.node_of(&e.instance))
    });
    match of_instance {
        Some(key) => Ok(key),
        None => register::node_key(state, r, node),
    }
}

/// A check of the agent by its id.
fn find_check(state: &ConsulState, r: &Request, id: &str) -> Option<CheckKey> {
    let model = state.core.model.read();
    let view = state.view(&model, r.cx.tenant());
    let id: Text = Arc::from(id);
    let near = view
        .keys(&state.core.host)
        .into_iter()
        .map(|node| CheckKey {
            node,
            id: Arc::clone(&id),
        });
    let found = near.into_iter().find(|key| model.check(key).is_some());
    if found.is_some() || view.alone {
        return found;
    }
    view.of_agent()
        .into_iter()
        .flat_map(|seen| model.checks_of(seen.entry.instance.id))
        .find(|check| check.key.id == id)
        .map(|check| check.key.clone())
}

/// A check of a whole node is for whoever owns everything on it; one of an instance is looked at by the
/// use-case.
fn own_check(state: &ConsulState, r: &Request, key: &CheckKey) -> Result<(), Refused> {
    let of_node = state
        .core
        .model
        .read()
        .check(key)
        .is_some_and(|c| c.instance.is_none());
    if of_node {
        register::whole_node(state, r, &key.node)
    } else {
        Ok(())
    }
}

/// `agent/check/deregister/:id`.
pub(super) async fn deregister_check(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &REGISTER)?;
    if id.is_empty() {
        return refuse(400, "Missing check ID");
    }
    if let Some(key) = find_check(state, r, id) {
        own_check(state, r, &key)?;
        ops::checks::remove(&state.core, &r.cx, &key).await?;
    }
    Ok(Reply::empty())
}

/// `agent/check/{pass,warn,fail}/:id`.
pub(super) async fn report(state: &ConsulState, r: &Request, id: &str, status: Status) -> Answer {
    let note = r.params.text("note").to_owned();
    update(state, r, id, status, &note).await
}

/// `agent/check/update/:id`.
pub(super) async fn update_check(state: &ConsulState, r: &mut Request, id: &str) -> Answer {
    need(r, &REGISTER)?;
    let Some(body) = r.body(BODY).await? else {
        return refuse(413, "Request body too large");
    };
    let read = || -> Result<(String, String), decode::Fault> {
        let value = decode::parse(&body)?;
        let mut f = Fields::new(&value)?;
        let read = (f.text("Status")?, f.text("Output")?);
        Ok(read)
    };
    let (status, output) = read().map_err(Wrong::from)?;
    let Some(status) = Status::parse(&status) else {
        return refuse(400, format!("Invalid check status: '{status}'"));
    };
    update(state, r, id, status, &output).await
}

async fn update(
    state: &ConsulState,
    r: &Request,
    id: &str,
    status: Status,
    output: &str,
) -> Answer {
    need(r, &REGISTER)?;
    if id.is_empty() {
        return refuse(400, "Missing check ID");
    }
    let ttl = find_check(state, r, id).filter(|key| {
        let model = state.core.model.read();
        model
            .check(key)
            .is_some_and(|c| matches!(c.spec.probe, Probe::Ttl { .. }))
    });
    let Some(key) = ttl else {
        let id = super::duration::quoted(id);
        return refuse(500, format!("CheckID {id} does not have associated TTL"));
    };
    own_check(state, r, &key)?;
    ops::checks::report(&state.core, &r.cx, &key, status, output).await?;
    Ok(Reply::empty())
}

/// `agent/health/service/id/:id`.
pub(super) fn health_by_id(state: &ConsulState, r: &Request, id: &str) -> Answer {
    need(r, &READ)?;
    if id.is_empty() {
        return refuse(400, "Missing serviceID");
    }
    let found = {
        let model = state.core.model.read();
        let view = state.view(&model, r.cx.tenant());
        view.agent_instance(id).map(|seen| health_of(&view, seen))
    };
    let (status, health) = match found {
        Some((worst, health)) => (worst.status(), health),
        None => (
            404,
            AgentHealth {
                aggregated_status: "critical",
                service: None,
                checks: None,
            },
        ),
    };
    if r.params.text("format") == "text" {
        return Ok(Reply::text(status, health.aggregated_status));
    }
    Ok(reasoned(
        r.json(&health).status(status),
        health.aggregated_status,
    ))
}

/// `agent/health/service/name/:name`.
pub(super) fn health_by_name(state: &ConsulState, r: &Request, name: &str) -> Answer {
    need(r, &READ)?;
    if name.is_empty() {
        return refuse(400, "Missing service Name");
    }
    let found: Vec<(Aggregated, AgentHealth)> = {
        let model = state.core.model.read();
        let view = state.view(&model, r.cx.tenant());
        let mine = view
            .of_agent()
            .into_iter()
            .filter(|s| *s.service.name == *name);
        mine.map(|seen| health_of(&view, seen)).collect()
    };
    let worst = found.iter().map(|(worst, _)| *worst).max();
    let (status, word) = worst.map_or((404, "critical"), |w| (w.status(), w.as_str()));
    if r.params.text("format") == "text" {
        return Ok(Reply::text(status, word));
    }
    let list: Vec<AgentHealth> = found.into_iter().map(|(_, health)| health).collect();
    Ok(reasoned(r.json(&list).status(status), word))
}

fn reasoned(reply: Reply, word: &str) -> Reply {
    reply.named("x-consul-reason", word)
}

fn health_of(
    view: &super::views::View<'_>,
    seen: super::views::Seen<'_>,
) -> (Aggregated, AgentHealth) {
    let mut all = view.checks_of_whole_node(&seen.entry.instance.definition.node);
    all.retain(|c| &*c.check_id != super::views::SERF);
    all.extend(view.checks_of(seen));
    let worst = Aggregated::of(&all);
    for check in &mut all {
        check.definition = Definition::full(check.spec.as_deref());
    }
    let health = AgentHealth {
        aggregated_status: worst.as_str(),
        service: Some(agent_service(seen)),
        checks: Some(all),
    };
    (worst, health)
}
