//! What an operator does to instances and services: drain, maintenance, resume, weight, on and off.

use std::sync::Arc;

use portico_base::{Context, Permission};
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use super::{acts_for_all, audited, deregister, is_own, need, sees};
use crate::domain::event::EventKind;
use crate::domain::instance::Instance;
use crate::domain::life::{Fate, Order, judge};
use crate::domain::rights::{ANY_TENANT, WRITE_INSTANCES};
use crate::domain::service::Service;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::store;
use crate::writer::Writer;

/// An order to an instance.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Drain {
        reason: String,
    },
    Maintenance {
        reason: String,
    },
    Resume,
    /// Absent: the registered one again.
    Weight(Option<u16>),
}

/// Carries out an order. The caller is an administrator, or it is its own instance (Consul's agent).
pub(crate) async fn command(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    command: Command,
) -> Result<InstanceState> {
    authorised(core, cx, id)?;
    if let Command::Drain { reason } = &command {
        let reason = if reason.is_empty() {
            "drained by an operator"
        } else {
            reason
        };
        deregister::drain(core, cx, id, reason).await?;
        return Ok(InstanceState::Draining);
    }
    let mut w = Writer::begin(core, cx).await?;
    let Some((service, mut next, before)) = deregister::present(core, id) else {
        return Err(Error::UnknownInstance);
    };
    let action = match command {
        Command::Maintenance { reason } => {
            let reason = if reason.is_empty() {
                "maintenance".to_owned()
            } else {
                reason
            };
            next.order = Some(Order::Maintenance { reason });
            "registry.instance.maintained"
        }
        Command::Resume => {
            next.order = None;
            "registry.instance.resumed"
        }
        Command::Weight(weight) => {
            next.weight_override = weight;
            "registry.instance.weighed"
        }
        Command::Drain { .. } => return Err(Error::Internal("a drain was not handled".to_owned())),
    };
    if next.order == before.order && next.weight_override == before.weight_override {
        return Ok(before.state);
    }
    restate(core, &w, &mut next);
    let next = w.put_state(next).await?;
    deregister::changed(&mut w, &service, &next, &before);
    let record = audited(action, "instance", id.to_string(), service.tenant)
        .change(
            "state",
            Some(before.state.as_str().into()),
            Some(next.state.as_str().into()),
        )
        .change(
            "weight",
            Some(before.effective_weight().into()),
            Some(next.effective_weight().into()),
        );
    w.audit(record).await?;
    w.commit().await?;
    Ok(next.state)
}

fn authorised(core: &Core, cx: &Context, id: Uuid) -> Result<()> {
    let model = core.model.read();
    let entry = model.instance(id).ok_or(Error::UnknownInstance)?;
    let service = model
        .service_of(&entry.instance)
        .ok_or(Error::UnknownInstance)?;
    if service.builtin {
        return Err(Error::Conflict("a built-in service lives with its process"));
    }
    if is_own(core, cx, service, &entry.instance) {
        return Ok(());
    }
    if !sees(cx.principal(), service) {
        return Err(Error::UnknownInstance);
    }
    need(cx, WRITE_INSTANCES)?;
    // An administrator of one tenant does not touch what belongs to all of them.
    need(cx, ANY_TENANT)
}

/// The state that holds under the changed orders.
fn restate(core: &Core, w: &Writer, next: &mut Instance) {
    let model = core.model.read();
    let Some(entry) = model.instance(next.id) else {
        return;
    };
    let mut facts = model.facts(entry);
    facts.order.clone_from(&next.order);
    if let Fate::Lives {
        state,
        reason,
        warning,
    } = judge(&facts, w.now(), core.tunables.get().policy).fate
    {
        if next.state != state {
            next.since = w.now();
        }
        next.state = state;
        next.reason = match &next.order {
            Some(Order::Maintenance { reason } | Order::Drain { reason, .. }) => {
                Arc::from(&**reason)
            }
            None => Arc::from(reason),
        };
        next.warning = warning;
    }
}

/// Switches a service on or off: for everybody, or for one tenant (GW-17).
pub(crate) async fn switch(
    core: &Arc<Core>,
    cx: &Context,
    service: Uuid,
    tenant: Option<Uuid>,
    enabled: bool,
) -> Result<Arc<Service>> {
    need(cx, Permission::new("registry:service:write"))?;
    let mut w = Writer::begin(core, cx).await?;
    let known = {
        let model = core.model.read();
        let entry = model.service(service).ok_or(Error::UnknownService)?;
        if !sees(cx.principal(), &entry.service) {
            return Err(Error::UnknownService);
        }
        Arc::clone(&entry.service)
    };
    if known.is_fixed() {
        return Err(Error::Conflict(
            "the platform stands on this service; it cannot be switched",
        ));
    }
    if known.builtin && tenant.is_none() {
        return Err(Error::Conflict(
            "for everybody a built-in service is switched by the process's roles",
        ));
    }
    let whole = tenant.is_none() || known.tenant.is_none() && tenant != Some(cx.tenant());
    if whole && !acts_for_all(cx.principal()) && known.tenant != Some(cx.tenant()) {
        return Err(Error::Missing(ANY_TENANT));
    }
    let mut next = Service::clone(&known);
    match tenant {
        None => next.enabled = enabled,
        Some(tenant) => {
            let mut off: Vec<Uuid> = known
                .disabled_for
                .iter()
                .copied()
                .filter(|t| *t != tenant)
                .collect();
            if !enabled {
                off.push(tenant);
            }
            off.sort();
            next.disabled_for = off.into();
            if !known.builtin {
                store::services::put_tenant(w.tx(), tenant, service, enabled).await?;
            }
        }
    }
    if next.same_content(&known) {
        return Ok(known);
    }
    next.updated_at = w.now();
    let next = Arc::new(next);
    match (next.builtin, tenant) {
        (true, Some(tenant)) => w.put_builtin(&next, tenant, enabled).await?,
        _ => w.put_service(&next, &[]).await?,
    }
    w.service_event(EventKind::ServiceChanged, &next);
    let record = audited(
        "registry.service.switched",
        "service",
        service.to_string(),
        next.tenant,
    )
    .change("enabled", None, Some(enabled.into()))
    .change("tenant", None, tenant.map(|t| t.to_string().into()));
    w.audit(record).await?;
    w.commit().await?;
    Ok(next)
}
