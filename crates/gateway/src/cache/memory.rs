//! The tiers in this process's memory: L1 for what is hot and fresh, L3 for what may still help when stale.
//!
//! Both are W-TinyLFU caches of `Arc`s: an object in both lies in memory once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use moka::sync::Cache as Tier;

use super::key::{KeyBuf, RequestView, VaryRule, secondary};
use super::object::{Stored, Use};
use super::purge::Ledger;
use super::stats::Gauges;

/// Sizes and times of the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    pub l1_entries: u64,
    pub l1_bytes: u64,
    /// Longer an object does not stay in L1 without a look at the tiers behind.
    pub l1_ttl_ms: u64,
    /// Larger bodies are not kept in memory.
    pub object_bytes: u64,
    pub l3_bytes: u64,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self {
            l1_entries: 1000,
            l1_bytes: 64 * 1024 * 1024,
            l1_ttl_ms: 300_000,
            object_bytes: 1024 * 1024,
            l3_bytes: 128 * 1024 * 1024,
        }
    }
}

/// What lies under a primary key.
#[derive(Clone)]
enum Slot {
    Object(Arc<Stored>),
    /// The resource varies: the object lies under the secondary key.
    Vary(Arc<VaryRule>),
}

/// What a look into memory found.
#[derive(Default)]
pub(super) struct Found {
    pub object: Option<Arc<Stored>>,
    pub vary: Option<Arc<VaryRule>>,
    /// The key of the variant, when the resource varies.
    pub secondary: Option<KeyBuf>,
}

/// Both tiers.
pub(super) struct Memory {
    /// Replaced as a whole when its bounds change: a tier keeps those that it was made with.
    l1: ArcSwap<Slots>,
    l3: Slots,
    l1_entries: AtomicU64,
    l1_bytes: AtomicU64,
    l1_ttl_ms: AtomicU64,
    object_bytes: u64,
}

type Slots = Tier<KeyBuf, Slot, RandomState>;

impl Memory {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self {
            l1: ArcSwap::from_pointee(first_tier(&limits)),
            l3: tier(limits.l3_bytes, 1),
            l1_entries: AtomicU64::new(limits.l1_entries),
            l1_bytes: AtomicU64::new(limits.l1_bytes),
            l1_ttl_ms: AtomicU64::new(limits.l1_ttl_ms),
            object_bytes: limits.object_bytes,
        }
    }

    /// Longer than this an object is not served from L1 without a look at the tiers behind, milliseconds.
    pub(super) fn l1_ttl_ms(&self) -> u64 {
        self.l1_ttl_ms.load(Ordering::Relaxed)
    }

    /// Gives L1 other bounds. What is used most moves over as far as it fits; requests that store at the same
    /// moment may store into the old tier, which costs them a miss later.
    pub(super) fn resize_l1(&self, limits: &MemoryLimits) {
        self.l1_ttl_ms.store(limits.l1_ttl_ms, Ordering::Relaxed);
        let entries = self.l1_entries.swap(limits.l1_entries, Ordering::AcqRel);
        let bytes = self.l1_bytes.swap(limits.l1_bytes, Ordering::AcqRel);
        if (entries, bytes) == (limits.l1_entries, limits.l1_bytes) {
            return;
        }
        let (old, new) = (self.l1.load_full(), first_tier(limits));
        let mut all: Vec<(u32, Arc<KeyBuf>, Slot)> = old
            .iter()
            .map(|(key, slot)| (slot.hits(), key, slot))
            .collect();
        all.sort_unstable_by_key(|(hits, ..)| std::cmp::Reverse(*hits));
        let most = usize::try_from(limits.l1_entries).unwrap_or(usize::MAX);
        for (_, key, slot) in all.into_iter().take(most) {
            new.insert(key.as_ref().clone(), slot);
        }
        self.l1.store(Arc::new(new));
    }

    /// One hash and one look for what is in L1 and does not vary.
    pub(super) fn find(&self, primary: &[u8], view: &RequestView<'_>) -> Found {
        let mut found = Found::default();
        match self.slot(primary) {
            None => {}
            Some(Slot::Object(object)) => found.object = Some(object),
            Some(Slot::Vary(vary)) => {
                let key = secondary(primary, &vary, view);
                if let Some(Slot::Object(object)) = self.slot(&key) {
                    found.object = Some(object);
                }
                found.vary = Some(vary);
                found.secondary = Some(key);
            }
        }
        found
    }

    /// Takes an object in, unless it is too large for memory.
    pub(super) fn insert(&self, object: &Arc<Stored>) {
        if !object.vary.is_empty() {
            self.insert_vary(object.primary(), Arc::new(object.vary.clone()));
        }
        if object.body.len() as u64 > self.object_bytes {
            self.remove(&object.key);
            return;
        }
        self.l1
            .load()
            .insert(object.key.clone(), Slot::Object(Arc::clone(object)));
        if object.useful_ms() > object.terms.fresh_ms {
            self.l3
                .insert(object.key.clone(), Slot::Object(Arc::clone(object)));
        } else {
            self.l3.invalidate(&*object.key);
        }
    }

    /// Notes by which fields a resource varies.
    pub(super) fn insert_vary(&self, primary: &[u8], vary: Arc<VaryRule>) {
        self.l1
            .load()
            .insert(primary.into(), Slot::Vary(Arc::clone(&vary)));
        self.l3.insert(primary.into(), Slot::Vary(vary));
    }

    pub(super) fn remove(&self, key: &[u8]) {
        self.l1.load().invalidate(key);
        self.l3.invalidate(key);
    }

    /// Removes what nobody can use any more; returns how many. Run by the sweep job, not by requests.
    pub(super) fn sweep(&self, ledger: &Ledger, now_ms: u64) -> usize {
        let mut removed = 0;
        for tier in [&**self.l1.load(), &self.l3] {
            for (key, slot) in tier {
                let Slot::Object(object) = slot else { continue };
                let over = super::policy::age_ms(&object.terms, now_ms) > object.useful_ms();
                if over || object.usable(ledger, now_ms) == Use::Gone {
                    tier.invalidate(&*key);
                    removed += 1;
                }
            }
            tier.run_pending_tasks();
        }
        removed
    }

    /// Keys of the most used objects, hottest first.
    pub(super) fn hottest(&self, most: usize) -> Vec<Box<[u8]>> {
        let mut all: Vec<(u32, Box<[u8]>)> = Vec::new();
        for (key, slot) in &**self.l1.load() {
            match slot {
                Slot::Object(object) if object.hits() > 0 => {
                    all.push((object.hits(), key.as_ref().clone()))
                }
                _ => {}
            }
        }
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(most).map(|(_, key)| key).collect()
    }

    /// Sizes of this moment: for a scrape, not for a request.
    pub(super) fn gauges(&self) -> Gauges {
        let l1 = self.l1.load();
        l1.run_pending_tasks();
        self.l3.run_pending_tasks();
        // In L1 an entry counts as its share at least, so that its true size takes a walk; L3 may hold a hundred
        // times as many and weighs them truly.
        let (l1_entries, l1_bytes) = l1.iter().fold((0, 0), |(n, bytes), (key, slot)| {
            (n + 1, bytes + u64::from(slot.weight(&key)))
        });
        Gauges {
            l1_entries,
            l1_bytes,
            l3_entries: self.l3.entry_count(),
            l3_bytes: self.l3.weighted_size(),
            ..Gauges::default()
        }
    }

    fn slot(&self, key: &[u8]) -> Option<Slot> {
        self.l1.load().get(key).or_else(|| self.l3.get(key))
    }
}

/// The tier is bounded by weight alone. That an entry weighs at least its share of the whole bounds the number of
/// entries too.
fn first_tier(limits: &MemoryLimits) -> Slots {
    let share = limits.l1_bytes / limits.l1_entries.max(1);
    let bytes = if limits.l1_entries == 0 {
        0
    } else {
        limits.l1_bytes
    };
    tier(bytes, u32::try_from(share).unwrap_or(u32::MAX).max(1))
}

fn tier(bytes: u64, least: u32) -> Slots {
    Tier::builder()
        .max_capacity(bytes)
        .weigher(move |key: &KeyBuf, slot: &Slot| slot.weight(key).max(least))
        .build_with_hasher(RandomState::default())
}

impl Slot {
    fn hits(&self) -> u32 {
        match self {
            Self::Object(object) => object.hits(),
            // Without its rule no variant is found.
            Self::Vary(_) => u32::MAX,
        }
    }

    fn weight(&self, key: &[u8]) -> u32 {
        let bytes = match self {
            Self::Object(object) => key.len() + object.heap_bytes(),
            Self::Vary(vary) => key.len() + 128 + vary.names().len() * 64,
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::tests::{primary, view};
    use crate::cache::object::tests::{minute, object, variant};
    use crate::cache::rule::RulePolicy;
    use http::{HeaderMap, HeaderName, HeaderValue};

    fn entries(memory: &Memory) -> u64 {
        let l1 = memory.l1.load();
        l1.run_pending_tasks();
        l1.entry_count()
    }

    #[test]
    fn both_bounds_hold() {
        let limits = MemoryLimits {
            l1_entries: 10,
            l1_bytes: 10 * 4096,
            ..MemoryLimits::default()
        };
        let memory = Memory::new(limits);
        for n in 0..100u32 {
            let key = n.to_le_bytes();
            memory.insert(&Arc::new(object(&key, minute(), b"small")));
        }
        assert!(entries(&memory) <= 10, "{}", entries(&memory));
        for n in 0..100u32 {
            let key = n.to_le_bytes();
            memory.insert(&Arc::new(object(&key, minute(), &[0; 30_000])));
        }
        assert!(entries(&memory) <= 10);
        assert!(memory.gauges().l1_bytes <= 10 * 4096);
    }

    #[test]
    fn other_bounds_hold_at_once_and_keep_what_is_used() {
        let memory = Memory::new(MemoryLimits::default());
        for n in 0..50u32 {
            let stored = Arc::new(object(&n.to_le_bytes(), minute(), b"x"));
            (0..n).for_each(|_| stored.touch());
            memory.insert(&stored);
        }
        let fewer = MemoryLimits {
            l1_entries: 5,
            l1_ttl_ms: 7,
            ..MemoryLimits::default()
        };
        memory.resize_l1(&fewer);
        assert_eq!((entries(&memory), memory.l1_ttl_ms()), (5, 7));
        let hottest = memory.hottest(5);
        assert_eq!(*hottest[0], 49u32.to_le_bytes());
        assert_eq!(*hottest[4], 45u32.to_le_bytes());
        let none = HeaderMap::new();
        assert!(
            memory.find(&[0; 4], &view(&none)).object.is_some(),
            "still in L3"
        );
        let off = MemoryLimits {
            l1_entries: 0,
            ..fewer
        };
        memory.resize_l1(&off);
        memory.insert(&Arc::new(object(b"k", minute(), b"x")));
        assert_eq!(entries(&memory), 0);
    }

    #[test]
    fn large_bodies_stay_out() {
        let memory = Memory::new(MemoryLimits {
            object_bytes: 4,
            ..MemoryLimits::default()
        });
        memory.insert(&Arc::new(object(b"k", minute(), b"12345")));
        let none = HeaderMap::new();
        assert!(memory.find(b"k", &view(&none)).object.is_none());
    }

    #[test]
    fn evicted_from_l1_is_still_in_l3() {
        let memory = Memory::new(MemoryLimits {
            l1_entries: 1,
            ..MemoryLimits::default()
        });
        for key in [b"a", b"b", b"c"] {
            memory.insert(&Arc::new(object(key, minute(), b"x")));
        }
        assert!(entries(&memory) <= 1);
        let none = HeaderMap::new();
        for key in [b"a", b"b", b"c"] {
            assert!(memory.find(key, &view(&none)).object.is_some());
        }
    }

    #[test]
    fn variants_lie_under_their_own_keys() {
        let memory = Memory::new(MemoryLimits::default());
        let vary = VaryRule::from_names(vec![HeaderName::from_static("foo")]).expect("rule");
        let asks = |value: &'static str| {
            let mut map = HeaderMap::new();
            map.insert("foo", HeaderValue::from_static(value));
            map
        };
        let (one, two) = (asks("1"), asks("2"));
        let base = primary(&view(&one), &RulePolicy::default()).expect("short");
        let stored = variant(
            &base,
            &secondary(&base, &vary, &view(&one)),
            vary.clone(),
            b"one",
        );
        memory.insert(&Arc::new(stored));
        assert!(
            memory
                .find(&base, &view(&one))
                .object
                .is_some_and(|o| o.body == "one")
        );
        let other = memory.find(&base, &view(&two));
        assert!(other.object.is_none() && other.vary.is_some());
        assert_ne!(other.secondary, Some(base));
    }

    #[test]
    fn the_sweep_removes_what_is_over() {
        let memory = Memory::new(MemoryLimits::default());
        let ledger = Ledger::default();
        memory.insert(&Arc::new(object(b"k", minute(), b"x")));
        assert_eq!(memory.sweep(&ledger, 1_100_000), 0);
        assert_eq!(memory.sweep(&ledger, 10_000_000), 2, "from both tiers");
        assert_eq!(memory.gauges().l3_entries, 0);
    }

    #[test]
    fn hot_keys_come_first() {
        let memory = Memory::new(MemoryLimits::default());
        for (key, hits) in [(b"a", 1), (b"b", 0), (b"c", 5)] {
            let stored = Arc::new(object(key, minute(), b"x"));
            (0..hits).for_each(|_| stored.touch());
            memory.insert(&stored);
        }
        let hottest = memory.hottest(5);
        assert_eq!(
            hottest,
            vec![Box::<[u8]>::from(*b"c"), Box::<[u8]>::from(*b"a")]
        );
        assert_eq!(memory.hottest(1).len(), 1);
    }
}
