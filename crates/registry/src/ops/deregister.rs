//! Leaving (RG-8): drain first, then gone; or at once.

use std::sync::Arc;

use portico_base::Context;
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use super::{audited, is_own, settle};
use crate::domain::event::EventKind;
use crate::domain::instance::Instance;
use crate::domain::life::Order;
use crate::domain::service::Service;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::writer::Writer;

/// What became of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Draining,
    Removed,
}

/// Deregisters an instance of the caller's: drains it, or removes it when it serves nobody or `now` is set.
pub(crate) async fn deregister(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    now: bool,
    reason: &str,
) -> Result<Left> {
    let (service, instance) = own(core, cx, id)?;
    let serves = matches!(
        instance.state,
        InstanceState::Ready | InstanceState::Late | InstanceState::Draining
    );
    let reason = if reason.is_empty() {
        "deregistered"
    } else {
        reason
    };
    if now || !serves || core.tunables.get().drain.is_zero() {
        remove(core, cx, &service, id, reason).await?;
        return Ok(Left::Removed);
    }
    drain(core, cx, id, reason).await?;
    Ok(Left::Draining)
}

/// An instance that the caller may end.
pub(crate) fn own(core: &Core, cx: &Context, id: Uuid) -> Result<(Arc<Service>, Arc<Instance>)> {
    let model = core.model.read();
    let entry = model.instance(id).ok_or(Error::UnknownInstance)?;
    let service = model
        .service_of(&entry.instance)
        .ok_or(Error::UnknownInstance)?;
    if service.builtin {
        return Err(Error::Conflict("a built-in service ends with its process"));
    }
    if !is_own(core, cx, service, &entry.instance) {
        cx.authorise(&portico_base::Access::Authenticated)?;
        return Err(Error::NotAllowed {
            reason: "this is another principal's instance".to_owned(),
            faults: Vec::new(),
        });
    }
    Ok((Arc::clone(service), Arc::clone(&entry.instance)))
}

/// Begins to drain; an instance that drains already keeps its deadline.
pub(crate) async fn drain(core: &Arc<Core>, cx: &Context, id: Uuid, reason: &str) -> Result<()> {
    let mut w = Writer::begin(core, cx).await?;
    let Some((service, mut next, before)) = present(core, id) else {
        return Err(Error::UnknownInstance);
    };
    if matches!(before.order, Some(Order::Drain { .. })) {
        return Ok(());
    }
    let until = w.now() + core.tunables.get().drain;
    next.order = Some(Order::Drain {
        until,
        reason: reason.to_owned(),
    });
    next.state = InstanceState::Draining;
    next.reason = Arc::from(reason);
    next.since = w.now();
    next.warning = false;
    let next = w.put_state(next).await?;
    w.state_event(&service, &next, before.state);
    let record = audited(
        "registry.instance.drained",
        "instance",
        id.to_string(),
        service.tenant,
    )
    .change(
        "state",
        Some(before.state.as_str().into()),
        Some("draining".into()),
    )
    .change("reason", None, Some(reason.into()));
    w.audit(record).await?;
    w.commit().await?;
    Ok(())
}

/// Removes an instance at once.
pub(crate) async fn remove(
    core: &Arc<Core>,
    cx: &Context,
    service: &Service,
    id: Uuid,
    reason: &str,
) -> Result<()> {
    let mut w = Writer::begin(core, cx).await?;
    let Some((service_now, instance, _)) = present(core, id) else {
        return Err(Error::UnknownInstance);
    };
    settle::remove(&mut w, core, &service_now, &instance, reason).await?;
    let record = audited(
        "registry.instance.removed",
        "instance",
        id.to_string(),
        service.tenant,
    )
    .change("service", Some(service.name.to_string().into()), None)
    .change("reason", None, Some(reason.into()));
    w.audit(record).await?;
    w.commit().await?;
    Ok(())
}

/// An instance as it stands, to be changed, and as it stood.
pub(crate) fn present(core: &Core, id: Uuid) -> Option<(Arc<Service>, Instance, Arc<Instance>)> {
    let model = core.model.read();
    let entry = model.instance(id)?;
    let service = model.service_of(&entry.instance)?;
    let mut next = Instance::clone(&entry.instance);
    next.last_heartbeat = entry.live.seen();
    Some((Arc::clone(service), next, Arc::clone(&entry.instance)))
}

/// Tells of a change that is no change of state.
pub(crate) fn changed(w: &mut Writer, service: &Service, next: &Instance, before: &Instance) {
    if next.state == before.state {
        w.instance_event(EventKind::InstanceChanged, service, next);
    } else {
        w.state_event(service, next, before.state);
    }
}
