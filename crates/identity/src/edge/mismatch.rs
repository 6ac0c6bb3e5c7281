//! Bound tokens that came from another network: noticed on the data plane, recorded behind it (ID-95).

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;
use portico_base::Clock;
use portico_contract::tokens::Stamp;
use tokio::sync::Notify;
use uuid::Uuid;

/// A session is told of once in so many seconds.
const QUIET_S: i64 = 60;
/// Sessions remembered; further ones are refused all the same, but not recorded.
const MOST: usize = 1_024;

/// A token was used from a network that it is not bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub session: Uuid,
    pub user: Uuid,
    pub tenant: Uuid,
    pub address: Option<IpAddr>,
}

/// What was noticed of late.
pub(super) struct Mismatches {
    clock: Arc<dyn Clock>,
    seen: Mutex<HashMap<Uuid, Seen>>,
    woken: Notify,
}

struct Seen {
    mismatch: Mismatch,
    at_s: i64,
    told: bool,
}

impl Mismatches {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            seen: Mutex::default(),
            woken: Notify::new(),
        }
    }

    pub(super) fn tell(&self, stamp: &Stamp, address: Option<IpAddr>) {
        let now_s = self.clock.now().timestamp();
        let mut seen = self.seen.lock();
        if seen
            .get(&stamp.session)
            .is_some_and(|s| now_s < s.at_s + QUIET_S)
        {
            return;
        }
        if seen.len() >= MOST {
            seen.retain(|_, s| !s.told || now_s < s.at_s + QUIET_S);
        }
        if seen.len() >= MOST {
            return;
        }
        let mismatch = Mismatch {
            session: stamp.session,
            user: stamp.user,
            tenant: stamp.tenant,
            address,
        };
        let entry = Seen {
            mismatch,
            at_s: now_s,
            told: false,
        };
        seen.insert(stamp.session, entry);
        self.woken.notify_one();
    }

    /// Waits for what was not told yet.
    pub(super) async fn next(&self) -> Vec<Mismatch> {
        loop {
            let fresh = self.take();
            if !fresh.is_empty() {
                return fresh;
            }
            self.woken.notified().await;
        }
    }

    fn take(&self) -> Vec<Mismatch> {
        let mut seen = self.seen.lock();
        let fresh = seen.values_mut().filter(|s| !s.told);
        fresh
            .map(|s| {
                s.told = true;
                s.mismatch.clone()
            })
            .collect()
    }
}
