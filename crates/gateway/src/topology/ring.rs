//! The last fifteen minutes in seconds: what flowed to whom, kept sparsely and within a bound of memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::balance::flow::{BUCKETS, Sum, bounds};
use crate::pipeline::metrics::Passage;

/// Seconds that are kept, memory permitting.
pub(crate) const SECONDS: usize = 900;

/// Whom figures are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    /// What clients asked of a service by a route.
    Passage(Passage),
    /// Attempts at an instance.
    Instance(Uuid),
}

/// What was counted of one in one second.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) requests: u32,
    pub(crate) refused: u32,
    pub(crate) failed: u32,
    /// Under way at the end of the second.
    pub(crate) in_flight: u32,
    /// Buckets of latency that are not empty.
    pub(crate) times: Box<[(u8, u32)]>,
}

impl Entry {
    /// What happened between two sums; nothing when nothing did.
    pub(crate) fn between(key: &Key, before: &Sum, now: &Sum, in_flight: u32) -> Option<Self> {
        let times: Vec<(u8, u32)> = (0_u8..)
            .zip(before.times.iter().zip(&now.times))
            .map(|(bucket, (before, now))| (bucket, now.wrapping_sub(*before)))
            .filter(|(_, n)| *n > 0)
            .collect();
        let requests = now.requests.wrapping_sub(before.requests);
        if requests == 0 && times.is_empty() && in_flight == 0 {
            return None;
        }
        Some(Self {
            key: key.clone(),
            requests,
            refused: now.refused.wrapping_sub(before.refused),
            failed: now.failed.wrapping_sub(before.failed),
            in_flight,
            times: times.into(),
        })
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.times.len() * size_of::<(u8, u32)>()
    }
}

/// A process in one second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    /// Connections of clients that speak HTTP.
    pub(crate) connections: u64,
    /// Connections that were switched to another protocol.
    pub(crate) tunnels: u64,
    /// Connections to instances.
    pub(crate) upstream_connections: u64,
    /// Share of the second in which each worker was busy.
    pub(crate) busy: Vec<f32>,
}

/// One second of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Second {
    /// Its end, in milliseconds since our start.
    pub(crate) at_ms: i64,
    /// How long it was, in milliseconds.
    pub(crate) lasted_ms: u32,
    pub(crate) process: Process,
    pub(crate) entries: Box<[Entry]>,
}

impl Second {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.entries.iter().map(Entry::bytes).sum::<usize>()
    }
}

/// The seconds of one process, newest last.
#[derive(Debug)]
pub(crate) struct Ring {
    seconds: VecDeque<(Arc<Second>, usize)>,
    bytes: usize,
    most: usize,
}

impl Ring {
    /// Keeps at most `most` bytes; what does not fit goes, oldest first.
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            seconds: VecDeque::new(),
            bytes: 0,
            most,
        }
    }

    pub(crate) fn push(&mut self, second: Arc<Second>) {
        let bytes = second.bytes();
        self.bytes += bytes;
        self.seconds.push_back((second, bytes));
        while self.seconds.len() > SECONDS || (self.bytes > self.most && self.seconds.len() > 1) {
            if let Some((_, gone)) = self.seconds.pop_front() {
                self.bytes -= gone;
            }
        }
    }

    pub(crate) fn last(&self) -> Option<&Arc<Second>> {
        self.seconds.back().map(|(second, _)| second)
    }

    /// The seconds that ended after a moment, newest first.
    pub(crate) fn since(&self, after_ms: i64) -> Vec<Arc<Second>> {
        self.seconds
            .iter()
            .rev()
            .map(|(second, _)| second)
            .take_while(|second| second.at_ms > after_ms)
            .cloned()
            .collect()
    }
}

/// Counts over several seconds, places or processes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Total {
    pub(crate) requests: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) times: Box<[u64; BUCKETS]>,
}

impl Default for Total {
    fn default() -> Self {
        Self {
            requests: 0,
            refused: 0,
            failed: 0,
            times: Box::new([0; BUCKETS]),
        }
    }
}

impl Total {
    pub(crate) fn add(&mut self, entry: &Entry) {
        self.requests += u64::from(entry.requests);
        self.refused += u64::from(entry.refused);
        self.failed += u64::from(entry.failed);
        for (bucket, n) in &entry.times {
            if let Some(total) = self.times.get_mut(usize::from(*bucket)) {
                *total += u64::from(*n);
            }
        }
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.failed += other.failed;
        for (total, n) in self.times.iter_mut().zip(other.times.iter()) {
            *total += n;
        }
    }

    /// A quantile of latency in milliseconds, spread evenly within its bucket; nothing without samples.
    pub(crate) fn quantile_ms(&self, q: f64) -> Option<f64> {
        let all: u64 = self.times.iter().sum();
        if all == 0 {
            return None;
        }
        let rank = all as f64 * q;
        let mut seen = 0.0;
        for (bucket, n) in self.times.iter().enumerate().filter(|(_, n)| **n > 0) {
            let n = *n as f64;
            if seen + n >= rank {
                let (low, high) = bounds(bucket);
                let micros = low + (high - low) * ((rank - seen) / n).clamp(0.0, 1.0);
                return Some(micros.round() / 1_000.0);
            }
            seen += n;
        }
        None
    }
}

/// Totals by whom they are about.
pub(crate) type Totals = HashMap<Key, Total>;

/// Adds seconds to totals.
pub(crate) fn add_up(totals: &mut Totals, seconds: &[Arc<Second>]) {
    for entry in seconds.iter().flat_map(|second| second.entries.iter()) {
        match totals.get_mut(&entry.key) {
            Some(total) => total.add(entry),
            None => totals.entry(entry.key.clone()).or_default().add(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Flow;
    use crate::balance::flow::Ended;

    fn second(at_ms: i64, requests: u32) -> Arc<Second> {
        let entry = Entry {
            key: Key::Instance(Uuid::from_u128(1)),
            requests,
            refused: 0,
            failed: 1,
            in_flight: 0,
            times: Box::new([(9, requests)]),
        };
        Arc::new(Second {
            at_ms,
            lasted_ms: 1_000,
            entries: Box::new([entry]),
            ..Second::default()
        })
    }

    #[test]
    fn a_window_sums_what_lies_in_it() {
        let mut ring = Ring::new(1 << 20);
        for at in 1..=1_000_i64 {
            ring.push(second(at * 1_000, 2));
        }
        assert_eq!(ring.since(0).len(), SECONDS, "older ones are gone");
        let mut totals = Totals::new();
        add_up(&mut totals, &ring.since(940_000));
        let total = &totals[&Key::Instance(Uuid::from_u128(1))];
        assert_eq!((total.requests, total.failed), (120, 60));
        assert_eq!(ring.last().map(|s| s.at_ms), Some(1_000_000));
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stays() {
        let one = second(0, 1).bytes();
        let mut ring = Ring::new(one * 5);
        for at in 1..100_i64 {
            ring.push(second(at, 1));
        }
        assert_eq!(ring.since(0).len(), 5);
        let mut tiny = Ring::new(1);
        tiny.push(second(1, 1));
        tiny.push(second(2, 1));
        assert_eq!(tiny.last().map(|s| s.at_ms), Some(2));
    }

    #[test]
    fn differences_survive_the_wrap_and_quiet_places_say_nothing() {
        let (key, flow) = (Key::Instance(Uuid::nil()), Flow::default());
        let before = flow.sum();
        assert_eq!(Entry::between(&key, &before, &before, 0), None);
        flow.count(Ended::Failed);
        flow.time(700);
        let entry = Entry::between(&key, &before, &flow.sum(), 3).unwrap();
        assert_eq!((entry.requests, entry.failed, entry.in_flight), (1, 1, 3));
        assert_eq!(entry.times.len(), 1);
        let late = Sum {
            requests: u32::MAX,
            ..Sum::default()
        };
        let wrapped = Sum {
            requests: 4,
            ..Sum::default()
        };
        let entry = Entry::between(&key, &late, &wrapped, 0).unwrap();
        assert_eq!(entry.requests, 5);
    }

    #[test]
    fn quantiles_lie_where_the_samples_are() {
        let flow = Flow::default();
        for _ in 0..95 {
            flow.time(1_000);
        }
        for _ in 0..5 {
            flow.time(80_000);
        }
        let mut total = Total::default();
        assert_eq!(total.quantile_ms(0.5), None);
        let entry = Entry::between(&Key::Instance(Uuid::nil()), &Sum::default(), &flow.sum(), 0);
        total.add(&entry.unwrap());
        let at = |q| total.quantile_ms(q).unwrap();
        assert!((0.9..1.2).contains(&at(0.5)), "{}", at(0.5));
        assert!((70.0..100.0).contains(&at(0.99)), "{}", at(0.99));
    }
}
