//! The wait after too many wrong passwords (ID-161): soft, growing, and forgotten after a quiet day.

use chrono::Duration;
use portico_base::Timestamp;

use crate::settings::limit::Rate;

/// After so long without a failure the next one is a first one again.
const QUIET: Duration = Duration::days(1);
/// Where no wait is set.
const DEFAULT_WAIT_S: u32 = 60;

/// Wrong tries of one account, or of one known device of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lock {
    pub failures: u32,
    pub first_failure_at: Timestamp,
    pub locked_until: Option<Timestamp>,
}

/// How much is forgiven, and what comes after it.
#[derive(Debug, Clone)]
pub(crate) struct LockRules {
    pub free: Rate,
    pub waits_s: Vec<u32>,
}

impl Lock {
    /// The first failure.
    pub(crate) const fn first(now: Timestamp) -> Self {
        Self {
            failures: 1,
            first_failure_at: now,
            locked_until: None,
        }
    }

    /// Seconds until the next try; nothing when it may be made now.
    pub(crate) fn wait_s(&self, now: Timestamp) -> Option<u32> {
        let left = self.locked_until? - now;
        if left <= Duration::zero() {
            return None;
        }
        // A part of a second counts as one: who comes back then is let in.
        u32::try_from((left.num_milliseconds() + 999) / 1_000).ok()
    }

    /// Tries that are free before the next failure locks.
    pub(crate) fn free(&self, rules: &LockRules, now: Timestamp) -> u32 {
        if self.is_over(rules, now) {
            return rules.free.count;
        }
        rules.free.count.saturating_sub(self.failures).max(1)
    }

    /// The state after a failure that is counted in it already.
    pub(crate) fn counted(self, rules: &LockRules, now: Timestamp) -> Self {
        let lock = if self.is_over(rules, now) {
            Self::first(now)
        } else {
            self
        };
        lock.locked(rules, now)
    }

    fn locked(mut self, rules: &LockRules, now: Timestamp) -> Self {
        if let Some(step) = self.failures.checked_sub(rules.free.count) {
            let step = usize::try_from(step).unwrap_or(usize::MAX);
            let wait = rules.waits_s.get(step).or(rules.waits_s.last());
            let wait = wait.copied().unwrap_or(DEFAULT_WAIT_S).min(86_400);
            self.locked_until = Some(now + Duration::seconds(i64::from(wait)));
        }
        self
    }

    /// Nothing of it counts any more: its window closed before it locked, or a quiet day has passed since.
    fn is_over(&self, rules: &LockRules, now: Timestamp) -> bool {
        match self.locked_until {
            Some(until) => now >= until + QUIET,
            None => {
                now >= self.first_failure_at + Duration::seconds(i64::from(rules.free.window_s))
            }
        }
    }

    /// Rows whose first failure and lock are both before this mean nothing.
    pub(crate) fn forgotten_before(now: Timestamp) -> Timestamp {
        now - QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> LockRules {
        LockRules {
            free: Rate {
                count: 5,
                window_s: 900,
            },
            waits_s: vec![60, 120, 300, 900, 3_600],
        }
    }

    fn fail(lock: Lock, rules: &LockRules, now: Timestamp) -> Lock {
        let failures = lock.failures + 1;
        Lock { failures, ..lock }.counted(rules, now)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default() + Duration::seconds(seconds)
    }

    #[test]
    fn waits_grow_and_stay_at_the_last() {
        let mut lock = Lock::first(at(0));
        for n in 1..4 {
            assert_eq!(lock.free(&rules(), at(n)), 5 - u32::try_from(n).unwrap());
            lock = fail(lock, &rules(), at(n));
            assert_eq!(lock.wait_s(at(n)), None);
        }
        let mut now = 4;
        for wait in [60, 120, 300, 900, 3_600, 3_600] {
            lock = fail(lock, &rules(), at(now));
            assert_eq!(lock.wait_s(at(now)), Some(wait));
            assert_eq!(lock.wait_s(at(now + i64::from(wait) - 1)), Some(1));
            assert_eq!(lock.wait_s(at(now + i64::from(wait))), None);
            assert_eq!(
                lock.free(&rules(), at(now)),
                1,
                "one try at the end of a wait"
            );
            now += i64::from(wait);
        }
        let calm = now + 86_400;
        assert_eq!(lock.free(&rules(), at(calm)), 5);
        assert_eq!(fail(lock, &rules(), at(calm)), Lock::first(at(calm)));
    }

    #[test]
    fn a_window_that_closed_counts_anew() {
        let lock = Lock {
            failures: 4,
            ..Lock::first(at(0))
        };
        assert_eq!(fail(lock, &rules(), at(899)).failures, 5);
        assert_eq!(fail(lock, &rules(), at(900)), Lock::first(at(900)));
    }

    #[test]
    fn odd_settings_still_lock() {
        let strict = LockRules {
            free: Rate {
                count: 1,
                window_s: 60,
            },
            waits_s: Vec::new(),
        };
        let lock = Lock::first(at(0)).counted(&strict, at(1));
        assert_eq!(lock.wait_s(at(1)), Some(60));
    }
}
