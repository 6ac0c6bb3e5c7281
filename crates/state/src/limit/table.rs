//! The bounded table of arrival times: a cache of fixed size in small sets, the oldest entry of a set leaves first.
//!
//! An entry whose arrival time has passed is worth as much as none, and the one with the smallest
//! arrival time is the least limited; so a flood of new addresses cannot wash out whoever is limited most.

use parking_lot::Mutex;

use super::gcra::{Decision, Limit, step};

/// Most keys of a process (GW-63); 16 bytes each.
const CAPACITY: usize = 200_000;
const SHARDS: usize = 64;
const WAYS: usize = 8;

/// GCRA limits of this process: a few tens of nanoseconds a check, 3.2 MB whatever comes.
pub(crate) struct LocalLimiter {
    shards: Box<[Shard]>,
    sets: usize,
}

#[repr(align(64))]
struct Shard(Mutex<Box<[[Slot; WAYS]]>>);

/// Key 0 means empty; a key that is 0 is moved to 1.
#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    tat: u64,
}

impl Default for LocalLimiter {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl std::fmt::Debug for LocalLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLimiter")
            .field("capacity", &(SHARDS * self.sets * WAYS))
            .finish_non_exhaustive()
    }
}

impl LocalLimiter {
    /// A table for about so many keys; its memory is taken at once and never grows.
    #[must_use]
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let sets = keys.div_ceil(SHARDS * WAYS).max(1);
        let shard = |_| {
            Shard(Mutex::new(
                vec![[Slot::default(); WAYS]; sets].into_boxed_slice(),
            ))
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            sets,
        }
    }

    /// Asks for one request of `key`; `now_ns` is any clock that does not go back.
    #[must_use]
    pub(crate) fn check(&self, key: u64, limit: Limit, now_ns: u64) -> Decision {
        let key = key.max(1);
        // A multiplication spreads keys that were not hashed well (Knuth, TAOCP 3, 6.4).
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = (mixed >> 58) as usize;
        let set = (((mixed << 6) as u128 * self.sets as u128) >> 64) as usize;
        let mut sets = self.shards[shard].0.lock();
        let slots = &mut sets[set];
        if let Some(slot) = slots.iter_mut().find(|slot| slot.key == key) {
            let (decision, tat) = step(slot.tat, limit, now_ns);
            slot.tat = tat;
            return decision;
        }
        let (decision, tat) = step(0, limit, now_ns);
        if let Some(slot) = slots.iter_mut().min_by_key(|slot| slot.tat) {
            *slot = Slot { key, tat };
        }
        decision
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        let used = |shard: &Shard| {
            shard
                .0
                .lock()
                .iter()
                .flatten()
                .filter(|s| s.key != 0)
                .count()
        };
        self.shards.iter().map(used).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::{Random as _, SeededRandom};

    const S: u64 = 1_000_000_000;

    #[test]
    fn keys_do_not_disturb_each_other() {
        let limiter = LocalLimiter::default();
        let limit = Limit::new(1.0, 3);
        for key in 0..1_000 {
            for i in 0..5 {
                let decision = limiter.check(key, limit, S);
                // Key 0 and key 1 share a place.
                assert_eq!(decision.allowed, i < 3 && key != 1, "{key} {i}");
            }
        }
    }

    #[test]
    fn a_million_random_keys_stay_within_the_table_and_keep_the_limited() {
        let limiter = LocalLimiter::default();
        let slow = Limit::new(1.0, 100);
        let quick = Limit::new(100.0, 200);
        for _ in 0..100 {
            assert!(limiter.check(42, slow, S).allowed);
        }
        let random = SeededRandom::new(9);
        for i in 0..1_000_000_u64 {
            let _ = limiter.check(random.u64(), quick, S + i * 60_000);
        }
        assert!(limiter.used() <= 201_000, "{}", limiter.used());
        assert_eq!(size_of::<Slot>() * limiter.sets * SHARDS * WAYS, 3_203_072);
        assert!(
            limiter.check(42, slow, S + 60 * S).remaining < 100,
            "not washed out"
        );
    }

    #[test]
    fn threads_never_pass_more_than_the_limit() {
        let limiter = LocalLimiter::with_capacity(1_000);
        let passed: usize = std::thread::scope(|scope| {
            let one = |_| {
                let limiter = &limiter;
                scope.spawn(move || {
                    let limit = Limit::new(1.0, 500);
                    (0..1_000)
                        .filter(|_| limiter.check(7, limit, S).allowed)
                        .count()
                })
            };
            let workers: Vec<_> = (0..4).map(one).collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert_eq!(passed, 500);
    }
}
