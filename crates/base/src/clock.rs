//! Time as a parameter: services ask a [`Clock`], never the system, so that tests are deterministic.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Duration, Utc};

/// A moment in UTC with microsecond precision (what both databases keep).
pub type Timestamp = DateTime<Utc>;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present moment in UTC, cut to microseconds.
    fn now(&self) -> Timestamp;

    /// The present moment as Unix milliseconds.
    fn unix_ms(&self) -> i64 {
        self.now().timestamp_millis()
    }
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = Utc::now();
        from_unix_us(now.timestamp_micros())
    }
}

/// A clock that only moves when told; shared by cloning.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.timestamp_micros())))
    }

    /// Moves the clock by `step`, which may be negative (a clock that jumps).
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(
            step.num_microseconds().unwrap_or(i64::MAX),
            Ordering::SeqCst,
        );
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        from_unix_us(self.0.load(Ordering::SeqCst))
    }
}

/// The moment `us` microseconds after the Unix epoch; out of range values become the epoch.
#[must_use]
pub fn from_unix_us(us: i64) -> Timestamp {
    DateTime::from_timestamp_micros(us).unwrap_or_default()
}

/// The moment `ms` milliseconds after the Unix epoch; out of range values become the epoch.
#[must_use]
pub fn from_unix_ms(ms: i64) -> Timestamp {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(from_unix_ms(1_000));
        assert_eq!(clock.unix_ms(), 1_000);
        clock.advance(Duration::seconds(-1));
        assert_eq!(clock.unix_ms(), 0);
    }

    #[test]
    fn system_clock_has_microseconds() {
        assert_eq!(SystemClock.now().timestamp_subsec_nanos() % 1_000, 0);
    }
}
