//! Counters of the database, read by telemetry as `portico_db_*`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{DbError, ERROR_LABELS};

/// Upper bounds of the histogram buckets in seconds: 0.5 ms × 2ⁿ up to 32 s; one more holds the rest.
pub const BUCKETS: usize = 17;

/// What a statement does, as `portico_db_query_seconds{op}` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `SELECT`, `WITH`.
    Select,
    /// `INSERT`.
    Insert,
    /// `UPDATE`.
    Update,
    /// `DELETE`.
    Delete,
    /// `COMMIT`, with its fsync where durability was asked for.
    Commit,
    /// Anything else.
    Other,
}

impl Op {
    /// All operations in the order of their index.
    pub const ALL: [Self; 6] = [
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Commit,
        Self::Other,
    ];

    /// The label's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Commit => "commit",
            Self::Other => "other",
        }
    }

    /// Told by the first letter that SeaQuery writes, which is cheap and right for its output.
    pub(crate) fn of(sql: &str) -> Self {
        match sql.trim_start().as_bytes().first() {
            Some(b'S' | b's' | b'W' | b'w') => Self::Select,
            Some(b'I' | b'i') => Self::Insert,
            Some(b'U' | b'u') => Self::Update,
            Some(b'D' | b'd') => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// A histogram with the house's fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS + 1],
    sum_us: AtomicU64,
}

/// The values of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramSnapshot {
    /// Counts per bucket, not cumulated; the last holds what is above 32 s.
    pub counts: [u64; BUCKETS + 1],
    /// Sum of all values in seconds.
    pub sum_s: f64,
}

impl Histogram {
    /// Counts a value.
    pub fn record(&self, value: Duration) {
        let half_ms = value.as_micros().div_ceil(500).max(1);
        let slot = (u128::BITS - (half_ms - 1).leading_zeros()) as usize;
        self.buckets[slot.min(BUCKETS)].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The present values.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            sum_s: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

/// Upper bound of bucket `i` in seconds.
#[must_use]
pub fn bucket_bound(i: usize) -> f64 {
    0.0005 * f64::powi(2.0, i32::try_from(i).unwrap_or(i32::MAX))
}

/// What a [`DbMetrics::observe`]r is told, each with how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// The wait for a connection.
    Acquire,
    /// A statement or a commit.
    Query(Op),
}

type Observer = dyn Fn(Observed, Duration) + Send + Sync;

/// Counters of one [`crate::Db`].
#[derive(Default)]
pub struct DbMetrics {
    observer: OnceLock<Box<Observer>>,
    acquire: Histogram,
    queries: [Histogram; 6],
    errors: [AtomicU64; ERROR_LABELS.len()],
    busy: AtomicU64,
    retries: AtomicU64,
}

/// Connections of one pool by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConnections {
    /// Open and in use.
    pub used: u32,
    /// Open and free.
    pub idle: u32,
    /// Most that may be open.
    pub max: u32,
}

impl DbMetrics {
    /// Tells `observer` of every wait and statement from now on, for histograms kept elsewhere. There is
    /// one; a second is ignored. It must be quick.
    pub fn observe(&self, observer: impl Fn(Observed, Duration) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    pub(crate) fn acquired(&self, took: Duration) {
        self.acquire.record(took);
        self.tell(Observed::Acquire, took);
    }

    pub(crate) fn query(&self, op: Op, took: Duration) {
        self.queries[op as usize].record(took);
        self.tell(Observed::Query(op), took);
    }

    fn tell(&self, what: Observed, took: Duration) {
        if let Some(observer) = self.observer.get() {
            observer(what, took);
        }
    }

    pub(crate) fn error(&self, error: &DbError) {
        let label = error.label();
        if let Some(i) = ERROR_LABELS.iter().position(|l| *l == label) {
            self.errors[i].fetch_add(1, Ordering::Relaxed);
        }
        if error.is_transient() {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for a connection.
    #[must_use]
    pub fn acquire_seconds(&self) -> HistogramSnapshot {
        self.acquire.snapshot()
    }

    /// Run times of the statements of an operation.
    #[must_use]
    pub fn query_seconds(&self, op: Op) -> HistogramSnapshot {
        self.queries[op as usize].snapshot()
    }

    /// Errors by label since the start.
    #[must_use]
    pub fn errors(&self) -> [(&'static str, u64); ERROR_LABELS.len()] {
        std::array::from_fn(|i| (ERROR_LABELS[i], self.errors[i].load(Ordering::Relaxed)))
    }

    /// Statements and commits refused because of another transaction.
    #[must_use]
    pub fn busy_total(&self) -> u64 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Transactions run again by [`crate::Db::retry`].
    #[must_use]
    pub fn retries_total(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_is_at_most_their_bound() {
        let h = Histogram::default();
        for ms in [0.1, 0.5, 0.6, 1.0, 1.1, 32_768.0, 40_000.0] {
            h.record(Duration::from_secs_f64(ms / 1_000.0));
        }
        let counts = h.snapshot().counts;
        assert_eq!((counts[0], counts[1], counts[2]), (2, 2, 1));
        assert_eq!(counts[16], 1);
        assert_eq!(counts[17], 1);
        assert!((bucket_bound(16) - 32.768).abs() < 1e-9);
    }

    #[test]
    fn operations_are_told_apart() {
        assert_eq!(Op::of("SELECT 1"), Op::Select);
        assert_eq!(Op::of(" insert into t"), Op::Insert);
        assert_eq!(Op::of("PRAGMA x"), Op::Other);
        for (i, op) in Op::ALL.iter().enumerate() {
            assert_eq!(*op as usize, i);
        }
    }
}
