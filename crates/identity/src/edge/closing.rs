//! Streams that are to be closed, a moment after their owner was revoked: whoever logs out still gets the answer.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use portico_contract::streams::StreamOwner;
use portico_contract::tokens::RevocationListener;
use tokio::time::Instant;

/// Requests that are being answered have so long to end, the one that revoked among them. With a lost wake-up
/// before it, this is still within a second.
const GRACE: Duration = Duration::from_millis(300);
/// Owners that wait; further ones are told at once.
const MOST: usize = 10_000;

/// Who is told, and of whom soon.
#[derive(Default)]
pub(super) struct Closing {
    listeners: RwLock<Vec<RevocationListener>>,
    waiting: Mutex<VecDeque<(Instant, StreamOwner)>>,
}

impl Closing {
    pub(super) fn subscribe(&self, listener: RevocationListener) {
        self.listeners.write().push(listener);
    }

    /// Tells of an owner when the moment of grace is over.
    pub(super) fn soon(&self, owner: StreamOwner, now: Instant) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MOST {
            waiting.push_back((now + GRACE, owner));
        } else {
            drop(waiting);
            self.tell(&owner);
        }
    }

    /// Tells of everybody whose moment has come; gives when the next one's does.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        loop {
            let owner = {
                let mut waiting = self.waiting.lock();
                let (at, _) = waiting.front()?;
                if *at > now {
                    return Some(*at);
                }
                waiting.pop_front()?.1
            };
            self.tell(&owner);
        }
    }

    fn tell(&self, owner: &StreamOwner) {
        for listener in &*self.listeners.read() {
            listener(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn owners_are_told_after_the_grace_and_in_order() {
        let closing = Closing::default();
        let told: Arc<Mutex<Vec<StreamOwner>>> = Arc::default();
        let sink = Arc::clone(&told);
        closing.subscribe(Arc::new(move |owner| sink.lock().push(owner.clone())));
        let owner = |n: usize| StreamOwner::Subject(n.to_string());
        let now = Instant::now();
        closing.soon(owner(1), now);
        closing.soon(owner(2), now);
        assert_eq!(closing.due(now), Some(now + GRACE));
        assert!(told.lock().is_empty());
        assert_eq!(closing.due(now + GRACE), None);
        assert_eq!(*told.lock(), [owner(1), owner(2)]);
        // A flood is not kept.
        told.lock().clear();
        (0..MOST + 5).for_each(|n| closing.soon(owner(n), now));
        assert_eq!(told.lock().len(), 5);
    }
}
