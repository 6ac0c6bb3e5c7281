//! Alias checks (C§5): they say what the checks of another service or of a node say.

use std::sync::Arc;
use std::time::Duration;

use portico_base::Context;
use tokio_util::sync::CancellationToken;

use crate::domain::check::{Check, CheckKey, Probe, Status};
use crate::domain::node::NodeKey;
use crate::error::Result;
use crate::hub::Core;
use crate::model::{Model, Topic};
use crate::ops::checks;

/// Changes come in groups; they are looked at together.
const PAUSE: Duration = Duration::from_millis(50);
/// How often everything is looked at without a change.
const AGAIN: Duration = Duration::from_secs(10);

/// Runs until `stop`.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let cx = core.own_context("registry.aliases");
    loop {
        let woken = core.topics.listen(Topic::Checks);
        if let Err(error) = step(&core, &cx).await {
            tracing::debug!(err = %error, "alias checks could not be written");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = woken.woken() => tokio::time::sleep(PAUSE).await,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Writes what has changed.
pub(crate) async fn step(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let due: Vec<(CheckKey, Status, String)> = {
        let model = core.model.read();
        model
            .aliases()
            .filter(|c| core.shards.owns_text(&c.key.id))
            .filter_map(|c| {
                let (status, output) = judge(&model, c)?;
                let same = c.status == status && *c.output == *output && c.answered;
                (!same).then(|| (c.key.clone(), status, output))
            })
            .collect()
    };
    for (key, status, output) in due {
        checks::answer(core, cx, &key, status, &output).await?;
    }
    Ok(())
}

/// What an alias says now, in Consul's words.
fn judge(model: &Model, alias: &Check) -> Option<(Status, String)> {
    let Probe::Alias { service, node } = &alias.spec.probe else {
        return None;
    };
    let key = match node {
        Some(name) => NodeKey::new(alias.key.node.tenant, name),
        None => alias.key.node.clone(),
    };
    let mut others: Vec<&Arc<Check>> = model.node_checks(&key).collect();
    if let Some(id) = service {
        let Some(entry) = model.instance_on(&key, id) else {
            let text = format!("Service {id} could not be found on node {}", key.name);
            return Some((Status::Critical, text));
        };
        others.extend(model.checks_of(entry.instance.id));
    }
    // An alias of an alias would go round in circles.
    others.retain(|c| !matches!(c.spec.probe, Probe::Alias { .. }));
    let worst = others.iter().max_by_key(|c| c.status);
    Some(match worst {
        None => (Status::Passing, "No checks found.".to_owned()),
        Some(c) if c.status == Status::Passing => {
            (Status::Passing, "All checks passing.".to_owned())
        }
        Some(c) => (
            c.status,
            format!("Aliased check \"{}\" failing: {}", c.name, c.output),
        ),
    })
}
