//! Times by 64-bit target, bounded: since when a purge target is out, and which addresses were fetched lately.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

const SHARDS: usize = 64;
/// Targets a shard remembers one by one; then its older half widens to "everything before".
const SHARD_MAX: usize = 1024;
/// Slots of each of the two presence tables.
const PRESENCE_SLOTS: usize = 131_072;

/// When targets were purged. Two targets meet only by a collision of 64 bits.
pub(super) struct Marks {
    shards: Box<[RwLock<Shard>]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Unix milliseconds; zero is never.
    pub hard_ms: u64,
    pub soft_ms: u64,
}

#[derive(Default)]
struct Shard {
    marks: HashMap<u64, Mark, foldhash::fast::RandomState>,
    /// What forgotten marks come to: it holds for every target of the shard.
    floor: Mark,
}

/// Which addresses may be stored somewhere or are being fetched: an unsafe request to any other address
/// invalidates nothing, and leaves no mark. Says "maybe" too often, never too rarely.
pub(super) struct Presence {
    first: Box<[AtomicU32]>,
    second: Box<[AtomicU32]>,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Marks {
    /// Marks a target. Returns whether that is news.
    pub(super) fn mark(&self, target: u64, soft: bool, at_ms: u64) -> bool {
        let mut shard = self.shard(target).write();
        if shard.marks.len() >= SHARD_MAX && !shard.marks.contains_key(&target) {
            shard.forget_older_half();
        }
        let mark = shard.marks.entry(target).or_default();
        let time = if soft {
            &mut mark.soft_ms
        } else {
            &mut mark.hard_ms
        };
        let news = at_ms > *time;
        *time = at_ms.max(*time);
        news
    }

    /// The mark of a target, or what forgotten ones come to.
    pub(super) fn get(&self, target: u64) -> Mark {
        let shard = self.shard(target).read();
        let mark = shard.marks.get(&target).copied().unwrap_or_default();
        mark.later(shard.floor)
    }

    fn shard(&self, target: u64) -> &RwLock<Shard> {
        &self.shards[(target >> 48) as usize % SHARDS]
    }
}

impl Mark {
    fn latest(self) -> u64 {
        self.hard_ms.max(self.soft_ms)
    }

    fn later(self, other: Self) -> Self {
        Self {
            hard_ms: self.hard_ms.max(other.hard_ms),
            soft_ms: self.soft_ms.max(other.soft_ms),
        }
    }
}

impl Shard {
    fn forget_older_half(&mut self) {
        let mut times: Vec<u64> = self.marks.values().map(|mark| mark.latest()).collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        let mut floor = self.floor;
        self.marks.retain(|_, mark| {
            let kept = mark.latest() > middle;
            if !kept {
                floor = floor.later(*mark);
            }
            kept
        });
        self.floor = floor;
    }
}

impl Default for Presence {
    fn default() -> Self {
        let table = || (0..PRESENCE_SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self {
            first: table(),
            second: table(),
        }
    }
}

impl Presence {
    /// Notes that an address may be stored until then.
    pub(super) fn note(&self, target: u64, until_ms: u64) {
        let until_s = u32::try_from(until_ms / 1000 + 1).unwrap_or(u32::MAX);
        for slot in self.slots(target) {
            slot.fetch_max(until_s, Ordering::AcqRel);
        }
    }

    pub(super) fn maybe(&self, target: u64, now_ms: u64) -> bool {
        let now_s = u32::try_from(now_ms / 1000).unwrap_or(u32::MAX);
        self.slots(target)
            .iter()
            .all(|slot| slot.load(Ordering::Acquire) > now_s)
    }

    fn slots(&self, target: u64) -> [&AtomicU32; 2] {
        [
            &self.first[target as usize % PRESENCE_SLOTS],
            &self.second[(target >> 32) as usize % PRESENCE_SLOTS],
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::hash;
    use proptest::prelude::*;

    #[test]
    fn marks_keep_the_latest_of_each_kind() {
        let marks = Marks::default();
        assert!(marks.mark(7, true, 100) && marks.mark(7, false, 50));
        assert!(!marks.mark(7, true, 90));
        assert_eq!(
            marks.get(7),
            Mark {
                hard_ms: 50,
                soft_ms: 100
            }
        );
        assert_eq!(marks.get(8), Mark::default());
    }

    #[test]
    fn too_many_marks_widen_and_never_narrow() {
        let marks = Marks::default();
        for n in 0..200_000u64 {
            marks.mark(hash(&n.to_le_bytes()), false, 1000 + n);
        }
        let kept: usize = marks.shards.iter().map(|s| s.read().marks.len()).sum();
        assert!(kept <= SHARDS * SHARD_MAX, "{kept}");
        for n in (0..200_000u64).step_by(997) {
            assert!(marks.get(hash(&n.to_le_bytes())).hard_ms >= 1000 + n);
        }
        let untouched = marks.get(hash(b"other")).hard_ms;
        assert!(
            untouched < 1000 + 190_000,
            "only old times spread: {untouched}"
        );
    }

    #[test]
    fn presence_is_mostly_exact_and_never_forgets() {
        let presence = Presence::default();
        let target = |n: u32| hash(&n.to_le_bytes());
        (0..5000).for_each(|n| presence.note(target(n), 60_000));
        assert!((0..5000).all(|n| presence.maybe(target(n), 60_000)));
        let wrong = (5000..105_000)
            .filter(|n| presence.maybe(target(*n), 60_000))
            .count();
        assert!(wrong < 1000, "{wrong} of 100000");
        assert!(!presence.maybe(target(1), 62_000), "over");
    }

    proptest! {
        #[test]
        fn a_marked_target_is_never_newer_than_its_mark(times in proptest::collection::vec((any::<u64>(), 0u64..1000, any::<bool>()), 0..50)) {
            let marks = Marks::default();
            for (target, at_ms, soft) in &times {
                marks.mark(*target, *soft, *at_ms);
            }
            for (target, at_ms, soft) in &times {
                let got = marks.get(*target);
                let known_ms = if *soft { got.soft_ms } else { got.hard_ms };
                prop_assert!(*at_ms <= known_ms);
            }
        }
    }
}
