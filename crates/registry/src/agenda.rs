//! What the background work must look at: instances that changed, and those that are under suspicion.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;
use uuid::Uuid;

/// Sets of instances to look at; as large as the number of instances at most.
#[derive(Default)]
pub(crate) struct Agenda {
    judge: Pile,
    check: Pile,
    suspects: Pile,
}

#[derive(Default)]
struct Pile {
    ids: Mutex<HashSet<Uuid>>,
    woken: Notify,
}

impl Pile {
    fn add(&self, ids: impl IntoIterator<Item = Uuid>) {
        let mut pile = self.ids.lock();
        let before = pile.len();
        pile.extend(ids);
        if pile.len() > before {
            self.woken.notify_one();
        }
    }

    fn take(&self) -> HashSet<Uuid> {
        std::mem::take(&mut *self.ids.lock())
    }
}

impl Agenda {
    /// Something about the instances changed: their state and their checks are looked at again.
    pub(crate) fn touch(&self, ids: impl IntoIterator<Item = Uuid> + Clone) {
        self.judge.add(ids.clone());
        self.check.add(ids);
    }

    /// The data plane could not connect: probed at once.
    pub(crate) fn suspect(&self, id: Uuid) {
        self.suspects.add([id]);
    }

    /// Only the state is to be looked at.
    pub(crate) fn judge(&self, ids: impl IntoIterator<Item = Uuid>) {
        self.judge.add(ids);
    }

    /// Instances whose state is to be looked at.
    pub(crate) fn take_judge(&self) -> HashSet<Uuid> {
        self.judge.take()
    }

    /// Waits until there is something to judge.
    pub(crate) async fn judge_woken(&self) {
        self.judge.woken.notified().await;
    }

    /// Instances whose checks are to be looked at.
    pub(crate) fn take_check(&self) -> HashSet<Uuid> {
        self.check.take()
    }

    /// Waits until the schedule of checks is to be looked at.
    pub(crate) async fn check_woken(&self) {
        tokio::select! {
            () = self.check.woken.notified() => {}
            () = self.suspects.woken.notified() => {}
        }
    }

    /// Instances to probe at once.
    pub(crate) fn take_suspects(&self) -> HashSet<Uuid> {
        self.suspects.take()
    }
}
