//! Instances that were drained a short while ago: told so instead of "unknown", lest they register again.

use std::collections::HashMap;

use chrono::Duration;
use parking_lot::Mutex;
use portico_base::Timestamp;
use uuid::Uuid;

const MOST: usize = 10_000;
const KEPT: Duration = Duration::minutes(10);

/// Ids with the moment of their removal.
#[derive(Default)]
pub(crate) struct Drained(Mutex<HashMap<Uuid, Timestamp>>);

impl Drained {
    pub(crate) fn remember(&self, id: Uuid, at: Timestamp) {
        let mut map = self.0.lock();
        if map.len() >= MOST {
            map.retain(|_, then| at - *then < KEPT);
        }
        if map.len() < MOST {
            map.insert(id, at);
        }
    }

    pub(crate) fn knows(&self, id: Uuid, now: Timestamp) -> bool {
        self.0.lock().get(&id).is_some_and(|at| now - *at < KEPT)
    }
}
