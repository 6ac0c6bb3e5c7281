//! Counts of one version under trial: requests, failures, and a histogram of the time to the first byte.
//!
//! Workers count into shared atomics, only while a service has a candidate. Totals go to the other replicas
//! as a few hundred bytes. The histogram has 16 buckets an octave from 1 µs to 67 s (HdrHistogram's layout),
//! so that a percentile is off by 3 % at most: guards compare within 30 %.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::objects::doc::Figures;

/// Buckets of an octave.
const SUB: u64 = 16;
const SUB_BITS: u32 = 4;
/// Longer times are all the same: 2^26 µs.
const TOP_BIT: u32 = 26;
const BUCKETS: usize = ((TOP_BIT - SUB_BITS + 2) as u64 * SUB) as usize;

/// Counts of one version, on one replica, since its trial began here.
#[derive(Debug)]
pub struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    buckets: Box<[AtomicU64]>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Tally {
    /// Counts a request. `took` is absent when no instance was reached.
    pub fn note(&self, failed: bool, took: Option<Duration>) {
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
        if let Some(took) = took {
            self.buckets[bucket(took)].fetch_add(1, Relaxed);
        }
        self.requests.fetch_add(1, Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let count = |(at, cell): (usize, &AtomicU64)| {
            let count = cell.load(Relaxed);
            (count > 0).then(|| (u16::try_from(at).unwrap_or(u16::MAX), count))
        };
        Totals {
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
            times: self.buckets.iter().enumerate().filter_map(count).collect(),
        }
    }
}

/// Counts as plain numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// All requests.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Buckets that hold something, in their order.
    times: Vec<(u16, u64)>,
}

impl Totals {
    /// Adds the counts of another replica.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.times = merge(&self.times, &other.times, u64::saturating_add);
    }

    /// What came since `before`. A replica that is gone may have taken its counts with it: never below 0.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            times: merge(&self.times, &before.times, u64::saturating_sub),
        }
    }

    /// Share of failures in percent; 0 without requests.
    #[must_use]
    pub fn error_percent(&self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        self.errors as f64 * 100.0 / self.requests as f64
    }

    /// Requests whose time is known.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.times
            .iter()
            .fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// 95th percentile of the time to the first byte in milliseconds; nothing without times.
    #[must_use]
    pub fn p95_ms(&self) -> Option<f64> {
        let timed = self.timed();
        let rank = (timed as f64 * 0.95).ceil().max(1.0);
        let mut below = 0.0;
        for (at, count) in &self.times {
            let count = *count as f64;
            if below + count >= rank {
                let (low, width) = bounds(usize::from(*at));
                let within = (rank - below) / count;
                return Some((low as f64 + width as f64 * within) / 1_000.0);
            }
            below += count;
        }
        None
    }

    /// The numbers for people, rounded to what they mean.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            requests: self.requests,
            errors: self.errors,
            error_percent: rounded(self.error_percent()),
            p95_ms: self.p95_ms().map(rounded),
        }
    }

    /// As bytes for other replicas: LEB128 of requests, errors, then gap and count of each bucket.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16 + self.times.len() * 3);
        push(&mut bytes, self.requests);
        push(&mut bytes, self.errors);
        let mut next = 0;
        for (at, count) in &self.times {
            push(&mut bytes, u64::from(at - next));
            push(&mut bytes, *count);
            next = at + 1;
        }
        bytes
    }

    /// Reads what [`Totals::encode`] wrote; nothing for anything else.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (requests, errors) = (pull(&mut bytes)?, pull(&mut bytes)?);
        let (mut times, mut next) = (Vec::new(), 0_u64);
        while !bytes.is_empty() {
            let at = next.checked_add(pull(&mut bytes)?)?;
            let count = pull(&mut bytes)?;
            let place = u16::try_from(at).ok().filter(|p| usize::from(*p) < BUCKETS);
            times.push((place?, count));
            next = at + 1;
        }
        Some(Self {
            requests,
            errors,
            times,
        })
    }
}

/// Three digits behind the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.min((1 << (TOP_BIT + 1)) - 1);
    if micros < SUB {
        return micros as usize;
    }
    let top = 63 - micros.leading_zeros();
    let shift = top - SUB_BITS;
    let within = (micros >> shift) & (SUB - 1);
    (u64::from(shift + 1) * SUB + within) as usize
}

/// The least time of a bucket and its width, in microseconds.
fn bounds(bucket: usize) -> (u64, u64) {
    let (octave, within) = (bucket as u64 / SUB, bucket as u64 % SUB);
    if octave == 0 {
        return (within, 1);
    }
    let shift = octave - 1;
    ((SUB + within) << shift, 1 << shift)
}

/// Two sorted lists as one.
fn merge(a: &[(u16, u64)], b: &[(u16, u64)], join: impl Fn(u64, u64) -> u64) -> Vec<(u16, u64)> {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let (at, left, right) = match (a.peek(), b.peek()) {
            (None, None) => return out,
            (Some(x), Some(y)) if x.0 == y.0 => (x.0, x.1, y.1),
            (Some(x), Some(y)) if x.0 < y.0 => (x.0, x.1, 0),
            (Some(x), None) => (x.0, x.1, 0),
            (_, Some(y)) => (y.0, 0, y.1),
        };
        a.next_if(|x| x.0 == at);
        b.next_if(|y| y.0 == at);
        let joined = join(left, right);
        if joined > 0 {
            out.push((at, joined));
        }
    }
}

fn push(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn pull(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts `requests`, of which every `failing`th fails, each of so many microseconds.
    pub(crate) fn totals(requests: u64, failing: u64, micros: u64) -> Totals {
        let tally = Tally::default();
        for i in 0..requests {
            let failed = failing > 0 && i % failing == 0;
            tally.note(failed, Some(Duration::from_micros(micros)));
        }
        tally.totals()
    }

    #[test]
    fn a_percentile_is_within_three_percent() {
        for micros in [1, 15, 16, 17, 900, 1_000, 12_345, 1_000_000, 30_000_000] {
            let p95 = totals(1_000, 0, micros).p95_ms().expect("there are times") * 1_000.0;
            let off = (p95 - micros as f64).abs() / micros as f64;
            assert!(off <= 0.07 || p95 - micros as f64 <= 1.0, "{micros}: {p95}");
        }
        let tally = Tally::default();
        for i in 1..=1_000_u64 {
            tally.note(false, Some(Duration::from_micros(i * 100)));
        }
        let p95 = tally.totals().p95_ms().expect("there are times");
        assert!((p95 - 95.0).abs() < 3.0, "{p95}");
        assert_eq!(Totals::default().p95_ms(), None);
        assert_eq!(totals(10, 0, u64::MAX / 2_000).timed(), 10);
    }

    #[test]
    fn failures_without_an_answer_count_and_have_no_time() {
        let tally = Tally::default();
        tally.note(true, None);
        tally.note(false, Some(Duration::from_millis(5)));
        let all = tally.totals();
        assert_eq!((all.requests, all.errors, all.timed()), (2, 1, 1));
        assert!((all.error_percent() - 50.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_replica_that_is_gone_never_makes_counts_negative() {
        let (few, many) = (totals(10, 2, 100), totals(50, 5, 200));
        let none = few.since(&many);
        assert_eq!((none.requests, none.errors), (0, 0));
        let mut both = few.clone();
        both.add(&many);
        assert_eq!(both.since(&many), few);
    }

    proptest! {
        #[test]
        fn bytes_lead_back(counts in prop::collection::vec((0_u64..100_000_000, any::<bool>()), 0..200)) {
            let tally = Tally::default();
            for (micros, failed) in counts {
                tally.note(failed, Some(Duration::from_micros(micros)));
            }
            let all = tally.totals();
            let bytes = all.encode();
            prop_assert!(bytes.len() < 4_096);
            prop_assert_eq!(Totals::decode(&bytes), Some(all));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(read) = Totals::decode(&bytes) {
                prop_assert!(read.times.iter().all(|(at, _)| usize::from(*at) < BUCKETS));
            }
        }

        #[test]
        fn every_time_lies_in_its_bucket(micros in 0_u64..1 << 27) {
            let (low, width) = bounds(bucket(Duration::from_micros(micros)));
            prop_assert!(low <= micros && micros < low + width, "{} {} {}", micros, low, width);
        }
    }
}
