//! Counters of the database, read by telemetry as `portico_db_*`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{DbError, ERROR_LABELS};

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
        self.tell(Observed::Acquire, took);
    }

    pub(crate) fn query(&self, op: Op, took: Duration) {
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
    fn operations_are_told_apart() {
        assert_eq!(Op::of("SELECT 1"), Op::Select);
        assert_eq!(Op::of(" insert into t"), Op::Insert);
        assert_eq!(Op::of("PRAGMA x"), Op::Other);
        for (i, op) in Op::ALL.iter().enumerate() {
            assert_eq!(*op as usize, i);
        }
    }
}
