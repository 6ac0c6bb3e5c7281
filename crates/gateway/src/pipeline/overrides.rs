//! What operators decided about breakers, kept beside the table so that it holds for what comes back too.

use std::collections::HashMap;

use parking_lot::Mutex;
use uuid::Uuid;

use super::gate::Gate;
use crate::balance::{Breaker, Forced};
use crate::route::table::Table;

/// Decisions at once; those that end first make room.
const MOST: usize = 10_000;

/// Decisions in force, by the id of the service or instance.
#[derive(Debug, Default)]
pub(super) struct Overrides(Mutex<HashMap<Uuid, Override>>);

#[derive(Debug, Clone, Copy)]
struct Override {
    what: Forced,
    /// By the gate's own clock.
    until_ms: u64,
}

impl Overrides {
    fn set(&self, id: Uuid, what: Option<Forced>, until_ms: u64, now_ms: u64) {
        let mut all = self.0.lock();
        all.retain(|_, o| o.until_ms > now_ms);
        let Some(what) = what else {
            all.remove(&id);
            return;
        };
        if all.len() >= MOST
            && let Some(first) = all
                .iter()
                .min_by_key(|(_, o)| o.until_ms)
                .map(|(id, _)| *id)
        {
            all.remove(&first);
        }
        all.insert(id, Override { what, until_ms });
    }
}

impl Gate {
    /// Forces a breaker open or closed for a time, or gives the decision back (GW-57). It holds for what
    /// has this id now and for what gets it later. The caller checks rights and records it.
    pub fn force_breaker(&self, id: Uuid, what: Option<Forced>, for_ms: u64) {
        let now_ms = self.now_ms();
        let until_ms = now_ms.saturating_add(for_ms);
        self.overrides.set(id, what, until_ms, now_ms);
        each(&self.table(), |its, breaker| {
            if its == id {
                breaker.force(what, until_ms);
            }
        });
    }

    /// Tells the breakers of a new table what was decided.
    pub(super) fn apply_overrides(&self, table: &Table) {
        let all = self.overrides.0.lock();
        if all.is_empty() {
            return;
        }
        each(table, |id, breaker| {
            if let Some(decided) = all.get(&id) {
                breaker.force(Some(decided.what), decided.until_ms);
            }
        });
    }
}

/// Every breaker with the id of its service or instance.
fn each(table: &Table, mut visit: impl FnMut(Uuid, &Breaker)) {
    for node in table.services().flat_map(|(_, named)| named.all()) {
        visit(node.service.id, &node.state.breaker);
        for instance in node.versions.iter().flat_map(|v| v.instances.iter()) {
            visit(instance.instance.id, &instance.load.breaker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_end_are_given_back_and_are_bounded() {
        let overrides = Overrides::default();
        let id = Uuid::from_u128;
        overrides.set(id(1), Some(Forced::Open), 100, 0);
        overrides.set(id(2), Some(Forced::Closed), 300, 0);
        overrides.set(id(3), None, 0, 200);
        let left: Vec<Uuid> = overrides.0.lock().keys().copied().collect();
        assert_eq!(left, [id(2)], "the first has ended");
        overrides.set(id(2), None, 0, 200);
        assert!(overrides.0.lock().is_empty());
        for n in 0..=MOST as u128 {
            let until = 1_000 + u64::try_from(n).unwrap();
            overrides.set(id(n + 10), Some(Forced::Open), until, 0);
        }
        let all = overrides.0.lock();
        assert_eq!(all.len(), MOST);
        assert!(!all.contains_key(&id(10)), "the one that ends first went");
    }
}
