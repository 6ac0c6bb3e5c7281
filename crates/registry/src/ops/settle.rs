//! Giving instances the state that their facts ask for: late, inactive, failing, ready again, gone.

use std::sync::Arc;

use portico_base::Context;
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use crate::domain::event::EventKind;
use crate::domain::instance::Instance;
use crate::domain::life::Fate;
use crate::domain::service::Service;
use crate::error::Result;
use crate::hub::Core;
use crate::model::Model;
use crate::writer::Writer;

/// Instances of one transaction.
const BATCH: usize = 200;

/// Writes the states of those instances whose facts ask for another one. Answers how many there were.
pub(crate) async fn settle(core: &Arc<Core>, cx: &Context, ids: &[Uuid]) -> Result<usize> {
    let mut changed = 0;
    for chunk in ids.chunks(BATCH) {
        if due(core, cx, chunk).is_empty() {
            continue;
        }
        let mut w = Writer::begin(core, cx).await?;
        // Looked at again: another replica may have written in between.
        let due = due(core, cx, chunk);
        if due.is_empty() {
            continue;
        }
        changed += due.len();
        for (service, instance, fate) in due {
            match fate {
                Fate::Lives {
                    state,
                    reason,
                    warning,
                } => {
                    move_to(&mut w, &service, &instance, state, reason, warning).await?;
                }
                Fate::Ends { reason } => remove(&mut w, core, &service, &instance, reason).await?,
            }
        }
        w.commit().await?;
    }
    Ok(changed)
}

type Due = (Arc<Service>, Arc<Instance>, Fate);

fn due(core: &Core, cx: &Context, ids: &[Uuid]) -> Vec<Due> {
    let policy = core.tunables.get().policy;
    let model = core.model.read();
    ids.iter()
        .filter_map(|id| {
            let entry = model.instance(*id)?;
            let verdict = model.judge(*id, cx.now(), policy)?;
            if !Model::differs(entry, &verdict) {
                return None;
            }
            let service = model.service_of(&entry.instance)?;
            let mut instance = Instance::clone(&entry.instance);
            instance.last_heartbeat = entry.live.seen();
            Some((Arc::clone(service), Arc::new(instance), verdict.fate))
        })
        .collect()
}

async fn move_to(
    w: &mut Writer,
    service: &Service,
    before: &Instance,
    state: InstanceState,
    reason: &str,
    warning: bool,
) -> Result<()> {
    let mut next = before.clone();
    if next.state != state {
        next.since = w.now();
    }
    next.state = state;
    next.reason = Arc::from(reason);
    next.warning = warning;
    let next = w.put_state(next).await?;
    if before.state == state {
        w.instance_event(EventKind::InstanceChanged, service, &next);
    } else {
        w.state_event(service, &next, before.state);
    }
    Ok(())
}

/// Removes an instance, and the service of an anonymous owner with its last one: its name is free again.
pub(crate) async fn remove(
    w: &mut Writer,
    core: &Core,
    service: &Arc<Service>,
    instance: &Instance,
    reason: &str,
) -> Result<()> {
    w.drop_instance(instance).await?;
    let mut last = instance.clone();
    last.reason = Arc::from(reason);
    w.instance_event(EventKind::InstanceRemoved, service, &last);
    w.remember(instance, instance.state.as_str(), "removed", reason);
    if instance.state == InstanceState::Draining {
        core.drained.remember(instance.id, w.now());
    }
    let alone = service.owner.is_anonymous()
        && core
            .model
            .read()
            .service(service.id)
            .is_some_and(|e| e.instances.len() == 1 && e.instances.contains(&instance.id));
    if alone {
        w.drop_service(service).await?;
        w.service_event(EventKind::ServiceRemoved, service);
    }
    Ok(())
}
