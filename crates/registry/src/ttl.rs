//! When TTL checks were reported last: memory only, like heartbeats.

use std::collections::HashMap;

use parking_lot::Mutex;
use portico_base::Timestamp;

use crate::domain::check::CheckKey;
use crate::model::shifted;

/// Last reports by check; as large as the number of TTL checks at most.
#[derive(Default)]
pub(crate) struct Ttl(Mutex<HashMap<CheckKey, Timestamp>>);

impl Ttl {
    pub(crate) fn note(&self, key: &CheckKey, at: Timestamp) {
        self.0.lock().insert(key.clone(), at);
    }

    /// The last report; the first look at a check counts as one, so that a restart is no expiry.
    pub(crate) fn seen(&self, key: &CheckKey, now: Timestamp) -> Timestamp {
        *self.0.lock().entry(key.clone()).or_insert(now)
    }

    /// The clock jumped: the last reports are as long ago as they were before.
    pub(crate) fn shift(&self, by: chrono::Duration, now: Timestamp) {
        for at in self.0.lock().values_mut() {
            *at = shifted(*at, by, now);
        }
    }

    pub(crate) fn forget(&self, mut gone: impl FnMut(&CheckKey) -> bool) {
        self.0.lock().retain(|key, _| !gone(key));
    }
}
