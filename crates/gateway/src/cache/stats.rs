//! What the cache counts, without the workers' counters sharing a cache line.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a request met the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    HitL1,
    HitL2,
    /// Waited for another request's answer.
    Collapsed,
    /// The origin said "not modified".
    Revalidated,
    /// Stale within its window, refreshed behind the caller's back.
    Stale,
    /// Stale because the origin failed.
    StaleError,
    Miss,
    /// Marked as not cacheable a moment ago.
    Pass,
    Bypass,
}

const OUTCOMES: usize = 9;
const SHARDS: usize = 16;

impl Outcome {
    pub const ALL: [Self; OUTCOMES] = [
        Self::HitL1,
        Self::HitL2,
        Self::Collapsed,
        Self::Revalidated,
        Self::Stale,
        Self::StaleError,
        Self::Miss,
        Self::Pass,
        Self::Bypass,
    ];

    /// Labels `level` and `result` of `portico_gateway_cache_requests_total`.
    pub fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::HitL1 => ("l1", "hit"),
            Self::HitL2 => ("l2", "hit"),
            Self::Collapsed => ("l1", "collapsed"),
            Self::Revalidated => ("l1", "revalidated"),
            Self::Stale => ("l3", "stale"),
            Self::StaleError => ("l3", "stale_error"),
            Self::Miss => ("none", "miss"),
            Self::Pass => ("none", "pass"),
            Self::Bypass => ("none", "bypass"),
        }
    }
}

/// Counters of one route, or of one shard of all.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally([AtomicU64; OUTCOMES]);

impl Tally {
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

/// The process's counters, one shard a worker thread (as far as there are shards).
#[derive(Debug, Default)]
pub struct Stats {
    shards: [Tally; SHARDS],
    pub stored: AtomicU64,
    pub refused: AtomicU64,
    pub purges: AtomicU64,
    pub shared_errors: AtomicU64,
    pub shared_dropped: AtomicU64,
    /// What the shared tier held when it was counted last, and what was taken out of it for its bound.
    pub l2_entries: AtomicU64,
    pub l2_bytes: AtomicU64,
    pub l2_evicted: AtomicU64,
}

impl Stats {
    pub fn count(&self, outcome: Outcome) {
        self.shards[shard()].count(outcome);
    }

    /// Sum over all shards.
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.shards.iter().map(|shard| shard.get(outcome)).sum()
    }
}

/// Gauges of a moment, for `portico_gateway_cache_{bytes,entries}` and `_singleflight_waiters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    pub l1_entries: u64,
    pub l1_bytes: u64,
    /// As of the last count, for all replicas together.
    pub l2_entries: u64,
    pub l2_bytes: u64,
    pub l3_entries: u64,
    pub l3_bytes: u64,
    pub waiters: u64,
    pub fetches: u64,
}

/// A thread's shard: the address of a thread-local differs between threads and costs nothing to read.
fn shard() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| {
        let address = std::ptr::from_ref(here) as usize;
        (address >> 12 ^ address >> 21) % SHARDS
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_lost_between_threads() {
        let stats = Arc::new(Stats::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let stats = Arc::clone(&stats);
                std::thread::spawn(move || (0..10_000).for_each(|_| stats.count(Outcome::HitL1)))
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().expect("thread"));
        assert_eq!(stats.total(Outcome::HitL1), 40_000);
        assert_eq!(stats.total(Outcome::Miss), 0);
    }

    #[test]
    fn each_outcome_has_its_own_labels() {
        let mut labels: Vec<_> = Outcome::ALL.iter().map(|o| o.labels()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Outcome::ALL.len());
        let tally = Tally::default();
        tally.count(Outcome::Bypass);
        assert_eq!(
            (tally.get(Outcome::Bypass), tally.get(Outcome::Miss)),
            (1, 0)
        );
    }
}
