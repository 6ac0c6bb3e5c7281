//! Heartbeats (RG-3, RG-4): memory only, unless they change a state.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Context, Secret, Timestamp};
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use super::{deregister, is_own, rotate, settle};
use crate::domain::check::Status;
use crate::domain::life::Order;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::model::{Model, Report};

/// What an instance says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Healthy(Status),
    /// It wants to leave.
    Draining,
}

/// A heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub status: Option<Word>,
    pub load: Option<f64>,
    pub numbers: Vec<(String, f64)>,
}

/// A secret on its way to the instance.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub secret: Arc<Secret<String>>,
    /// The one before is accepted until then.
    pub previous_until: Timestamp,
}

/// The answer.
#[derive(Debug, Clone)]
pub(crate) struct Beaten {
    pub next_s: u32,
    pub drain: bool,
    pub state: InstanceState,
    pub directory_seq: u64,
    pub rotation: Option<Rotation>,
}

/// Takes a heartbeat.
pub(crate) async fn heartbeat(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    beat: Beat,
) -> Result<Beaten> {
    let now = cx.now();
    let leaves = beat.status == Some(Word::Draining);
    let changes = {
        let model = core.model.read();
        let Some(entry) = model.instance(id) else {
            return Err(if core.drained.knows(id, now) {
                Error::Drained
            } else {
                Error::UnknownInstance
            });
        };
        let service = model
            .service_of(&entry.instance)
            .ok_or(Error::UnknownInstance)?;
        if !is_own(core, cx, service, &entry.instance) {
            return Err(Error::NotAllowed {
                reason: "this is another principal's instance".to_owned(),
                faults: Vec::new(),
            });
        }
        let age = now - entry.live.seen();
        core.metrics
            .heartbeat_age
            .observe(age.to_std().unwrap_or(Duration::ZERO));
        core.metrics.heartbeats.inc();
        entry.live.see(now);
        *entry.live.report.lock() = Report {
            status: match beat.status {
                Some(Word::Healthy(status)) => Some(status),
                _ => None,
            },
            load: beat.load,
            numbers: beat.numbers,
        };
        core.beats.note(id, now);
        core.share(id, now);
        let verdict = model
            .judge(id, now, core.tunables.get().policy)
            .ok_or(Error::UnknownInstance)?;
        Model::differs(entry, &verdict)
    };
    if leaves && !is_draining(core, id) {
        deregister::drain(core, cx, id, "the instance asked for it").await?;
    } else if changes {
        settle::settle(core, cx, &[id]).await?;
    }
    answer(core, cx, id).await
}

fn is_draining(core: &Core, id: Uuid) -> bool {
    let model = core.model.read();
    model
        .instance(id)
        .is_some_and(|e| matches!(e.instance.order, Some(Order::Drain { .. })))
}

async fn answer(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<Beaten> {
    let rotation = rotate::hand_out(core, cx, id).await?;
    let model = core.model.read();
    let entry = model.instance(id).ok_or(Error::UnknownInstance)?;
    let instance = &entry.instance;
    Ok(Beaten {
        next_s: instance
            .definition
            .heartbeat_s
            .unwrap_or(core.tunables.get().defaults.heartbeat_s),
        drain: matches!(instance.order, Some(Order::Drain { .. })),
        state: instance.state,
        directory_seq: model.seq,
        rotation,
    })
}
