//! Nodes that are registered from outside, and the maintenance of nodes (Consul's API).

use std::sync::Arc;

use portico_base::{Context, Permission};
use uuid::Uuid;

use super::{acts_for_all, audited, deregister, need, settle};
use crate::domain::node::{Node, NodeDetails, NodeKey};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::writer::Writer;

/// Nodes of an installation.
const MOST: usize = 50_000;

/// Registers a node or changes what it says. Answers whether anything changed.
pub(crate) async fn put(
    core: &Arc<Core>,
    cx: &Context,
    key: &NodeKey,
    details: NodeDetails,
) -> Result<bool> {
    authorised(cx, key)?;
    let mut w = Writer::begin(core, cx).await?;
    let known = core.model.read().node(key).map(Arc::clone);
    if known.as_ref().is_some_and(|k| k.details == details) {
        return Ok(false);
    }
    if known.is_none() && core.model.read().nodes().count() >= MOST {
        return Err(Error::Conflict("there are as many nodes as there may be"));
    }
    let node = Node {
        key: key.clone(),
        details,
        create_index: known.as_ref().map_or(w.index(), |k| k.create_index),
        modify_index: w.index(),
    };
    w.put_node(node).await?;
    w.audit(audited(
        "registry.node.registered",
        "node",
        &*key.name,
        key.tenant,
    ))
    .await?;
    w.commit().await?;
    let ids: Vec<Uuid> = core
        .model
        .read()
        .instances_of_node(key)
        .map(|e| e.instance.id)
        .collect();
    settle::settle(core, cx, &ids).await?;
    Ok(true)
}

/// Puts a node into maintenance, or takes it out again.
pub(crate) async fn maintain(
    core: &Arc<Core>,
    cx: &Context,
    key: &NodeKey,
    reason: Option<&str>,
) -> Result<bool> {
    let known = core
        .model
        .read()
        .node(key)
        .map(|n| n.details.clone())
        .unwrap_or_default();
    let details = NodeDetails {
        maintenance: reason.map(str::to_owned),
        ..known
    };
    put(core, cx, key, details).await
}

/// Removes a node with its instances and checks. An unknown one is no error (C§6).
pub(crate) async fn remove(core: &Arc<Core>, cx: &Context, key: &NodeKey) -> Result<bool> {
    authorised(cx, key)?;
    let ids: Vec<Uuid> = core
        .model
        .read()
        .instances_of_node(key)
        .map(|e| e.instance.id)
        .collect();
    let mut any = false;
    for id in ids {
        // Rights over each instance are its own: a node does not open those of others.
        let (service, _) = deregister::own(core, cx, id)?;
        deregister::remove(core, cx, &service, id, "its node was removed").await?;
        any = true;
    }
    let mut w = Writer::begin(core, cx).await?;
    let there = {
        let model = core.model.read();
        model.node(key).is_some() || model.checks_of_node(key).any(|c| c.stored)
    };
    if !there {
        return Ok(any);
    }
    w.drop_node(key).await?;
    w.audit(audited(
        "registry.node.removed",
        "node",
        &*key.name,
        key.tenant,
    ))
    .await?;
    w.commit().await?;
    Ok(true)
}

fn authorised(cx: &Context, key: &NodeKey) -> Result<()> {
    need(cx, Permission::new("registry:instance:register"))?;
    let mine = key.tenant == Some(cx.tenant()) && key.tenant.is_some();
    if mine || acts_for_all(cx.principal()) {
        return Ok(());
    }
    Err(Error::NotAllowed {
        reason: "the node belongs to another tenant".to_owned(),
        faults: Vec::new(),
    })
}
