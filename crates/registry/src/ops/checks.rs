//! Checks: their answers, and those that are registered on their own (Consul's API).

use std::sync::Arc;

use portico_base::{Context, Permission};
use uuid::Uuid;

use super::{acts_for_all, audited, is_own, need, settle};
use crate::domain::check::{Check, CheckKey, CheckSpec, Status, cut_output};
use crate::domain::node::NodeKey;
use crate::domain::rights::FOREIGN;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::writer::Writer;

/// Checks of an instance, or of a node as a whole.
const MOST: usize = 64;

/// A check to register on its own.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub key: CheckKey,
    /// Absent: the whole node.
    pub instance: Option<Uuid>,
    pub name: String,
    pub notes: String,
    pub spec: CheckSpec,
    pub status: Status,
    pub output: String,
    /// The status holds even when the check is known (`catalog/register` states it).
    pub states: bool,
}

/// Registers a check or changes it; one of the same kind keeps its status. Answers whether anything changed.
pub(crate) async fn put(core: &Arc<Core>, cx: &Context, wanted: Wanted) -> Result<bool> {
    authorised(core, cx, wanted.instance, &wanted.key.node)?;
    let mut w = Writer::begin(core, cx).await?;
    let (check, known) = {
        let model = core.model.read();
        if let Some(id) = wanted.instance {
            model.instance(id).ok_or(Error::UnknownInstance)?;
        }
        let known = model.check(&wanted.key).map(Arc::clone);
        let crowd = match wanted.instance {
            Some(id) => model.checks_of(id).count(),
            None => model.node_checks(&wanted.key.node).count(),
        };
        if known.is_none() && crowd >= MOST {
            return Err(Error::Conflict("there are as many checks as there may be"));
        }
        (next(&w, cx, wanted, known.as_deref()), known)
    };
    if known.as_deref().is_some_and(|k| same(k, &check)) {
        return Ok(false);
    }
    let instance = check.instance;
    let key = check.key.clone();
    w.put_check(check).await?;
    let target = format!("{}/{}", key.node.name, key.id);
    w.audit(audited(
        "registry.check.registered",
        "check",
        target,
        key.node.tenant,
    ))
    .await?;
    w.commit().await?;
    resettle(core, cx, instance, &key.node).await?;
    Ok(true)
}

fn next(w: &Writer, cx: &Context, wanted: Wanted, known: Option<&Check>) -> Check {
    let kept = known.filter(|k| !wanted.states && k.spec.probe.kind() == wanted.spec.probe.kind());
    let status = kept.map_or(wanted.status, |k| k.status);
    let output = kept.map_or_else(
        || Arc::from(cut_output(&wanted.output)),
        |k| Arc::clone(&k.output),
    );
    let since = known
        .filter(|k| k.status == status)
        .map_or(w.now(), |k| k.since);
    let foreign = cx.principal().may(&FOREIGN);
    Check {
        instance: wanted.instance,
        name: Arc::from(&*wanted.name),
        notes: Arc::from(&*wanted.notes),
        spec: Arc::new(CheckSpec {
            foreign,
            ..wanted.spec
        }),
        status,
        answered: true,
        output,
        since,
        stored: true,
        create_index: known.map_or(w.index(), |k| k.create_index),
        modify_index: w.index(),
        key: wanted.key,
    }
}

fn same(a: &Check, b: &Check) -> bool {
    a.instance == b.instance
        && a.name == b.name
        && a.notes == b.notes
        && a.spec == b.spec
        && a.status == b.status
        && a.output == b.output
}

/// Removes a check that was registered on its own. An unknown one is no error (C§5).
pub(crate) async fn remove(core: &Arc<Core>, cx: &Context, key: &CheckKey) -> Result<bool> {
    let Some(check) = core.model.read().check(key).map(Arc::clone) else {
        return Ok(false);
    };
    authorised(core, cx, check.instance, &key.node)?;
    if !check.stored {
        return Err(Error::Conflict("the check belongs to a registration"));
    }
    let mut w = Writer::begin(core, cx).await?;
    if core.model.read().check(key).is_none() {
        return Ok(false);
    }
    w.drop_check(key).await?;
    let target = format!("{}/{}", key.node.name, key.id);
    w.audit(audited(
        "registry.check.removed",
        "check",
        target,
        key.node.tenant,
    ))
    .await?;
    w.commit().await?;
    resettle(core, cx, check.instance, &key.node).await?;
    Ok(true)
}

/// Somebody reports the status of a TTL check.
pub(crate) async fn report(
    core: &Arc<Core>,
    cx: &Context,
    key: &CheckKey,
    status: Status,
    output: &str,
) -> Result<()> {
    let check = core
        .model
        .read()
        .check(key)
        .map(Arc::clone)
        .ok_or(Error::UnknownCheck)?;
    authorised(core, cx, check.instance, &key.node)?;
    core.ttl.note(key, cx.now());
    answer(core, cx, key, status, output).await
}

/// Takes a check's answer. A changed status is a change of the directory; a changed output alone wakes
/// nobody (C§2).
pub(crate) async fn answer(
    core: &Arc<Core>,
    cx: &Context,
    key: &CheckKey,
    status: Status,
    output: &str,
) -> Result<()> {
    let output = cut_output(output);
    {
        let model = core.model.read();
        let Some(known) = model.check(key) else {
            return Ok(());
        };
        let quiet = known.status == status && known.answered;
        if quiet && *known.output == *output {
            return Ok(());
        }
        if quiet {
            let next = Arc::new(Check {
                output: Arc::from(output),
                ..Check::clone(known)
            });
            drop(model);
            core.model.write().replace_quietly(next);
            return Ok(());
        }
    }
    if let Some((instance, node)) = answer_unstored(core, cx, key, status, output) {
        return resettle(core, cx, instance, &node).await;
    }
    let mut w = Writer::begin(core, cx).await?;
    let Some(known) = core.model.read().check(key).map(Arc::clone) else {
        return Ok(());
    };
    let next = Check {
        status,
        answered: true,
        output: Arc::from(output),
        since: if known.status == status {
            known.since
        } else {
            w.now()
        },
        ..Check::clone(&known)
    };
    w.put_check(next).await?;
    w.commit().await?;
    resettle(core, cx, known.instance, &key.node).await
}

/// A check that came with a registration has no row: its answer is memory, and what it means for the
/// instance's state is written by whoever settles that.
fn answer_unstored(
    core: &Core,
    cx: &Context,
    key: &CheckKey,
    status: Status,
    output: &str,
) -> Option<(Option<Uuid>, NodeKey)> {
    let mut model = core.model.write();
    let known = model.check(key).filter(|c| !c.stored).map(Arc::clone)?;
    let next = Check {
        status,
        answered: true,
        output: Arc::from(output),
        since: if known.status == status {
            known.since
        } else {
            cx.now()
        },
        ..Check::clone(&known)
    };
    model.replace_quietly(Arc::new(next));
    Some((known.instance, key.node.clone()))
}

/// Gives those whom a check speaks of the state that it asks for.
async fn resettle(
    core: &Arc<Core>,
    cx: &Context,
    instance: Option<Uuid>,
    node: &NodeKey,
) -> Result<()> {
    let ids: Vec<Uuid> = match instance {
        Some(id) => vec![id],
        None => core
            .model
            .read()
            .instances_of_node(node)
            .map(|e| e.instance.id)
            .collect(),
    };
    settle::settle(core, cx, &ids).await?;
    Ok(())
}

/// A check of an instance is for whoever may end the instance; one of a node for whoever may register in
/// its tenant.
fn authorised(core: &Core, cx: &Context, instance: Option<Uuid>, node: &NodeKey) -> Result<()> {
    need(cx, Permission::new("registry:instance:register"))?;
    let refused = || Error::NotAllowed {
        reason: "this belongs to another principal".to_owned(),
        faults: Vec::new(),
    };
    match instance {
        Some(id) => {
            let model = core.model.read();
            let entry = model.instance(id).ok_or(Error::UnknownInstance)?;
            let service = model
                .service_of(&entry.instance)
                .ok_or(Error::UnknownInstance)?;
            if is_own(core, cx, service, &entry.instance) {
                Ok(())
            } else {
                Err(refused())
            }
        }
        None if node.tenant == Some(cx.tenant()) || acts_for_all(cx.principal()) => Ok(()),
        None => Err(refused()),
    }
}
