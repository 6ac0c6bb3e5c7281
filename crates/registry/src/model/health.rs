//! The facts of an instance, gathered for the life cycle's judgement.

use chrono::Duration;
use portico_base::Timestamp;
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use super::{InstanceEntry, Model};
use crate::domain::check::Status;
use crate::domain::life::{Facts, Fate, Health, Policy, Verdict, judge};

impl Model {
    /// What holds for an instance now; nothing when there is none.
    pub(crate) fn judge(&self, id: Uuid, now: Timestamp, policy: Policy) -> Option<Verdict> {
        let entry = self.instances.get(&id)?;
        Some(judge(&self.facts(entry), now, policy))
    }

    /// True when the verdict is not what the instance shows.
    pub(crate) fn differs(entry: &InstanceEntry, verdict: &Verdict) -> bool {
        match &verdict.fate {
            Fate::Ends { .. } => true,
            Fate::Lives { state, warning, .. } => {
                entry.instance.state != *state || entry.instance.warning != *warning
            }
        }
    }

    /// Everything on which its state depends.
    pub(crate) fn facts(&self, entry: &InstanceEntry) -> Facts {
        let instance = &entry.instance;
        let node = self.node_of(instance);
        Facts {
            order: instance.order.clone(),
            node_maintenance: self
                .nodes
                .get(&node)
                .is_some_and(|n| n.details.maintenance.is_some()),
            heartbeat: instance
                .definition
                .heartbeat_s
                .map(|s| Duration::seconds(i64::from(s))),
            last_seen: entry.live.seen(),
            restored: entry.live.restored(),
            health: self.health(entry),
            refused: entry.live.is_refused(),
        }
    }

    /// The worst of its checks, its node's checks and what it says itself.
    fn health(&self, entry: &InstanceEntry) -> Health {
        let node = self.node_of(&entry.instance);
        let of_node = self.node_checks(&node);
        let own = self.checks_of(entry.instance.id);
        let mut worst = entry.live.report.lock().status.unwrap_or(Status::Passing);
        let mut silent = false;
        for check in own.chain(of_node) {
            if check.answered {
                worst = worst.max(check.status);
            } else {
                silent = true;
            }
        }
        let unseen = entry
            .live
            .restored()
            .is_some_and(|at| entry.live.seen() < at);
        let unprobed =
            !entry.live.is_probed() && (entry.live.is_probing() || (unseen && !entry.has_checks()));
        if worst != Status::Critical && (silent || unprobed) {
            return Health::Unknown;
        }
        Health::Known(worst)
    }
}

/// What the checks of an instance must have said, judged by the state in its row: for a replica that
/// takes over without having looked itself.
pub(super) const fn implied(state: InstanceState) -> Option<Status> {
    match state {
        InstanceState::Ready
        | InstanceState::Late
        | InstanceState::Inactive
        | InstanceState::Draining
        | InstanceState::Maintenance => Some(Status::Passing),
        InstanceState::Failing => Some(Status::Critical),
        InstanceState::Starting => None,
    }
}
