//! Registering through Consul's doors with the registry's own use-cases (RG-43, RG-46).

use std::sync::Arc;

use portico_base::name;
use uuid::Uuid;

use super::input::{CheckInput, ServiceInput};
use super::reply::{Refused, denied, refuse};
use super::request::Request;
use super::state::ConsulState;
use crate::domain::check::{CheckKey, Status};
use crate::domain::instance::Source;
use crate::domain::node::NodeKey;
use crate::domain::rights::Tenants;
use crate::ops;
use crate::ops::register::Request as Registration;

/// Which door a registration came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    Agent { replace_checks: bool },
    Catalog,
}

/// The tenant in which the caller registers.
pub(super) fn home(state: &ConsulState, r: &Request) -> Result<Option<Uuid>, Refused> {
    let rights = ops::rights(&state.core, r.cx.principal())?;
    Ok(match rights.tenants {
        Tenants::Fixed(tenant) => tenant,
        // Whoever may choose works in its own tenant here: this API has no word for another one.
        Tenants::Any(_) => Some(r.cx.tenant()),
    })
}

/// The key of a node of the caller's.
pub(super) fn node_key(state: &ConsulState, r: &Request, node: &str) -> Result<NodeKey, Refused> {
    Ok(NodeKey::new(home(state, r)?, node))
}

/// What speaks of a whole node speaks of every instance on it: those of others are not for the caller to
/// take out.
pub(super) fn whole_node(state: &ConsulState, r: &Request, key: &NodeKey) -> Result<(), Refused> {
    let model = state.core.model.read();
    let all_own = model.instances_of_node(key).all(|entry| {
        let service = model.service_of(&entry.instance);
        service.is_some_and(|s| ops::is_own(&state.core, &r.cx, s, &entry.instance))
    });
    if all_own { Ok(()) } else { denied() }
}

/// Registers a service on a node. `address` is the node's own; absent: wherever the caller is.
pub(super) async fn service(
    state: &ConsulState,
    r: &Request,
    input: &ServiceInput,
    node: &str,
    address: Option<&str>,
    door: Door,
) -> Result<Uuid, Refused> {
    let mut request = request(state, r, input, node, address)?;
    if let Door::Agent { replace_checks } = door {
        request.source = Source::ConsulAgent;
        request.replace_checks = replace_checks;
    }
    if let Some(same) = unchanged(state, r, &request) {
        return Ok(same);
    }
    let registered = ops::register::register(&state.core, &r.cx, request).await?;
    Ok(registered.instance.id)
}

/// A registration through the catalogue as the use-case takes it.
pub(super) fn request(
    state: &ConsulState,
    r: &Request,
    input: &ServiceInput,
    node: &str,
    address: Option<&str>,
) -> Result<Registration, Refused> {
    input.check()?;
    let checks = input.new_checks(state.options.deregister_min_ms)?;
    // Words of the house are nobody's; who may take them anyway is an administrator.
    let rights = ops::rights(&state.core, r.cx.principal())?;
    if (name::is_reserved(&input.name) || input.name == "consul") && !rights.admin {
        return denied();
    }
    let tenant = match rights.tenants {
        Tenants::Any(_) => home(state, r)?.map(|t| t.to_string()),
        Tenants::Fixed(_) => None,
    };
    Ok(Registration {
        registration: input.registration(node, address, tenant)?,
        source: Source::ConsulCatalog,
        checks,
        replace_checks: false,
    })
}

/// A registration with its checks exactly as known changes nothing (C§2): its index does not rise. What
/// has no checks is looked at by the use-case itself.
fn unchanged(state: &ConsulState, r: &Request, request: &Registration) -> Option<Uuid> {
    if request.checks.is_empty() {
        return None;
    }
    let registration = &request.registration;
    let consul = registration.consul.as_ref()?;
    let tenant = home(state, r).ok()?;
    let model = state.core.model.read();
    let entry = model.instance_on(&NodeKey::new(tenant, &registration.node), &consul.id)?;
    let service = model.service_of(&entry.instance)?;
    let i = &entry.instance;
    let d = &i.definition;
    let same = *service.name == *registration.name
        && service.owner.is(r.cx.principal())
        && i.source == request.source
        && i.order.is_none()
        && d.consul.as_deref() == Some(&**consul)
        && *d.tags == *registration.tags
        && *d.metadata == registration.metadata
        && *d.version == *registration.version
        && *d.base_path == *registration.base_path
        && d.protocol == registration.protocol
        && registration.service.is_none()
        && !matches!(&registration.host, crate::domain::registration::Host::Named(host) if *host != *d.host);
    let known: Vec<_> = model.checks_of(i.id).filter(|c| c.stored).collect();
    let checks = request.checks.iter().all(|new| {
        known.iter().any(|c| {
            *c.key.id == *new.id
                && *c.name == *new.name
                && *c.notes == *new.notes
                && c.spec.probe == new.spec.probe
                && c.spec.interval_ms == new.spec.interval_ms
                && c.spec.timeout_ms == new.spec.timeout_ms
                && c.spec.deregister_after_ms == new.spec.deregister_after_ms
                && (c.spec.fall, c.spec.rise) == (new.spec.fall, new.spec.rise)
        })
    });
    let none_to_drop = !request.replace_checks || known.len() == request.checks.len();
    (same && checks && none_to_drop).then_some(i.id)
}

/// Registers a check as the catalogue states it.
pub(super) async fn catalog_check(
    state: &ConsulState,
    r: &Request,
    node: &NodeKey,
    check: CheckInput,
    service_id: &str,
    registered: Option<Uuid>,
) -> Result<(), Refused> {
    let status = check.initial()?;
    let of = if check.service_id.is_empty() {
        service_id
    } else {
        check.service_id.as_str()
    };
    // A check of the registration belongs to its service only when it says so, or says nothing of its own.
    let instance = match (check.service_id.is_empty(), registered) {
        (true, _) => None,
        (false, Some(id)) if of == service_id => Some(id),
        (false, _) => {
            let known = state
                .core
                .model
                .read()
                .instance_on(node, of)
                .map(|e| e.instance.id);
            match known {
                Some(id) => Some(id),
                None => {
                    return refuse(
                        500,
                        format!("failed inserting check: Missing service registration '{of}'"),
                    );
                }
            }
        }
    };
    if instance.is_none() {
        whole_node(state, r, node)?;
    }
    let id = if check.id.is_empty() {
        check.name.clone()
    } else {
        check.id.clone()
    };
    if id.is_empty() {
        return refuse(500, "Must provide check name or id");
    }
    let name = if check.name.is_empty() {
        id.clone()
    } else {
        check.name
    };
    let wanted = ops::checks::Wanted {
        key: CheckKey {
            node: node.clone(),
            id: Arc::from(id),
        },
        instance,
        name,
        notes: check.notes,
        spec: CheckInput::stated(),
        status: if check.status.is_empty() {
            Status::Critical
        } else {
            status
        },
        output: check.output,
        states: true,
    };
    ops::checks::put(&state.core, &r.cx, wanted).await?;
    Ok(())
}
