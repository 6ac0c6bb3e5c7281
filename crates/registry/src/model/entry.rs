//! What the model keeps of a service and of an instance, beside their rows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_base::clock::from_unix_us;
use portico_contract::directory;
use uuid::Uuid;

use crate::domain::check::{CheckKey, Status};
use crate::domain::instance::Instance;
use crate::domain::service::Service;

/// A service and its instances.
pub(crate) struct ServiceEntry {
    pub service: Arc<Service>,
    pub instances: BTreeSet<Uuid>,
    pub(super) keys: HashMap<Arc<str>, Uuid>,
    /// Index of the last change of anything below it.
    pub modify_index: u64,
}

/// An instance, what the gateway sees of it, and its living facts.
pub(crate) struct InstanceEntry {
    pub instance: Arc<Instance>,
    pub view: Arc<directory::Instance>,
    pub live: Arc<Live>,
    pub(super) checks: Vec<CheckKey>,
}

impl InstanceEntry {
    /// True when it has checks of its own.
    pub(crate) fn has_checks(&self) -> bool {
        !self.checks.is_empty()
    }
}

/// What an instance told with its last heartbeat.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub status: Option<Status>,
    pub load: Option<f64>,
    pub numbers: Vec<(String, f64)>,
}

/// Facts that change without a database write. Shared by all snapshots of the instance.
#[derive(Debug, Default)]
pub(crate) struct Live {
    seen_us: AtomicI64,
    restored_us: AtomicI64,
    refusals: AtomicU8,
    recoveries: AtomicU8,
    refused: AtomicBool,
    /// A probe of a restored or starting instance without checks succeeded.
    probed: AtomicBool,
    probing: AtomicBool,
    handed_out: AtomicU8,
    pub(crate) report: Mutex<Report>,
}

impl Live {
    pub(crate) fn new(seen: Timestamp) -> Self {
        Self {
            seen_us: AtomicI64::new(seen.timestamp_micros()),
            ..Self::default()
        }
    }

    /// Last sign of life.
    pub(crate) fn seen(&self) -> Timestamp {
        from_unix_us(self.seen_us.load(Ordering::Relaxed))
    }

    /// A heartbeat or registration at a moment; never goes back.
    pub(crate) fn see(&self, at: Timestamp) {
        self.seen_us
            .fetch_max(at.timestamp_micros(), Ordering::Relaxed);
    }

    /// Another replica's clock may be ahead of ours: nobody was seen later than now.
    pub(crate) fn not_after(&self, now: Timestamp) {
        self.seen_us
            .fetch_min(now.timestamp_micros(), Ordering::Relaxed);
    }

    /// The clock jumped: the last sign of life is as long ago as it was before.
    pub(crate) fn shift(&self, by: chrono::Duration, now: Timestamp) {
        let moved = |us: i64| {
            let moved = shifted(from_unix_us(us), by, now).timestamp_micros();
            (us != 0 && moved != us).then_some(moved)
        };
        // Nothing to move is no failure.
        let _ = self
            .seen_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
        let _ = self
            .restored_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
    }

    /// When it was restored from the database, if it has not registered since.
    pub(crate) fn restored(&self) -> Option<Timestamp> {
        match self.restored_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(from_unix_us(us)),
        }
    }

    pub(crate) fn restore(&self, at: Timestamp) {
        self.restored_us
            .store(at.timestamp_micros(), Ordering::Relaxed);
    }

    /// It registered anew: what was known of its past health does not count any more.
    pub(crate) fn renew(&self) {
        self.restored_us.store(0, Ordering::Relaxed);
        self.refusals.store(0, Ordering::Relaxed);
        self.recoveries.store(0, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
        self.probed.store(false, Ordering::Relaxed);
        self.report.lock().status = None;
    }

    /// A connection failed; true when this was the one that makes it refused.
    pub(crate) fn connect_failed(&self) -> bool {
        self.recoveries.store(0, Ordering::Relaxed);
        let before = self.refusals.fetch_add(1, Ordering::Relaxed);
        if before >= 100 {
            self.refusals.store(100, Ordering::Relaxed);
        }
        before + 1 >= 2 && !self.refused.swap(true, Ordering::Relaxed)
    }

    /// A connection was made; true when it had been refused and has been reached often enough since.
    pub(crate) fn connected(&self, rise: u8) -> bool {
        self.refusals.store(0, Ordering::Relaxed);
        if !self.refused.load(Ordering::Relaxed) {
            return false;
        }
        let good = self.recoveries.fetch_add(1, Ordering::Relaxed) + 1;
        if good >= rise {
            self.recoveries.store(0, Ordering::Relaxed);
            self.refused.store(false, Ordering::Relaxed);
            return true;
        }
        false
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes over from another replica that it is refused.
    pub(crate) fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Relaxed);
    }

    pub(crate) fn is_probed(&self) -> bool {
        self.probed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_probed(&self, probed: bool) {
        self.probed.store(probed, Ordering::Relaxed);
    }

    /// It starts only after a first successful connection, although it has no check.
    pub(crate) fn is_probing(&self) -> bool {
        self.probing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_probing(&self, probing: bool) {
        self.probing.store(probing, Ordering::Relaxed);
    }

    /// The next secret is handed out with a heartbeat; answers how often it had been before.
    pub(crate) fn hand_out(&self) -> u8 {
        self.handed_out.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn forget_handed_out(&self) {
        self.handed_out.store(0, Ordering::Relaxed);
    }
}

/// A moment of before a jump of the clock, by the clock of after it. What was noted after the jump
/// already stays as it is: it is never behind `now`, and after a jump back only what came before it lies
/// in the future.
pub(crate) fn shifted(at: Timestamp, by: chrono::Duration, now: Timestamp) -> Timestamp {
    if by < chrono::Duration::zero() && at <= now {
        return at;
    }
    at.checked_add_signed(by).unwrap_or(now).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_refusals_in_a_row_and_two_recoveries() {
        let live = Live::new(from_unix_us(1));
        assert!(!live.connect_failed());
        live.connected(2);
        assert!(!live.connect_failed());
        assert!(live.connect_failed());
        assert!(!live.connect_failed(), "told once");
        assert!(live.is_refused());
        assert!(!live.connected(2));
        assert!(live.connected(2));
        assert!(!live.is_refused());
    }

    #[test]
    fn a_jump_of_the_clock_is_no_silence() {
        let live = Live::new(from_unix_us(1_000));
        live.shift(chrono::Duration::microseconds(500), from_unix_us(1_600));
        assert_eq!(live.seen(), from_unix_us(1_500));
        live.shift(chrono::Duration::microseconds(500), from_unix_us(1_700));
        assert_eq!(live.seen(), from_unix_us(1_700), "never in the future");
        live.shift(chrono::Duration::microseconds(-900), from_unix_us(850));
        assert_eq!((live.seen(), live.restored()), (from_unix_us(800), None));
        live.shift(chrono::Duration::microseconds(-900), from_unix_us(850));
        assert_eq!(live.seen(), from_unix_us(800), "noted after the jump");
    }

    #[test]
    fn signs_of_life_never_go_back() {
        let live = Live::new(from_unix_us(10));
        live.see(from_unix_us(30));
        live.see(from_unix_us(5));
        assert_eq!(live.seen(), from_unix_us(30));
    }
}
