//! What all workers know about one instance: requests under way, latency, failures, its breaker.
//!
//! A [`Load`] outlives snapshots: the same instance keeps it for as long as it is in the directory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

use super::breaker::{Breaker, BreakerSettings, Change, Phase};
use super::ewma::{FailureRate, PeakEwma};
use super::flow::{Ended, Flow};

/// Failures that are kept as the reason of a breaker's change (GW-57).
const REASONS: usize = 10;
/// Share of its weight with which an instance begins.
const RAMP_FROM: f32 = 0.1;

/// How an attempt ended, as far as the instance is concerned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attempted {
    /// Its first byte came after so many microseconds.
    Answered { micros: f32 },
    /// It answered with an error that no breaker counts (500).
    Erred { micros: f32 },
    /// It failed: connect, reset, time-out, 502, 503 without `Retry-After`, 504. Counted as `penalty`
    /// microseconds, so that failing fast never looks fast.
    Failed { penalty: f32, why: &'static str },
    /// It asked to be left alone for a while (503 with `Retry-After`).
    Busy { micros: f32 },
    /// The client went away: says nothing.
    Nothing,
}

/// One failure, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Milliseconds of the gateway's own clock.
    pub at_ms: u64,
    pub why: &'static str,
}

/// Shared knowledge about one instance.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    latency: PeakEwma,
    errors: FailureRate,
    pub breaker: Breaker,
    /// Attempts at it, for operators.
    pub flow: Flow,
    /// When its slow start began; 0 for never.
    ramp_from_ms: AtomicU64,
    /// Failed connects in a row, for the registry.
    refused: AtomicU32,
    reasons: Mutex<VecDeque<Reason>>,
}

impl Load {
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// A request goes to it.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request, stream or tunnel to it has ended.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Peak-EWMA of its latency in microseconds.
    #[must_use]
    pub fn latency(&self, now_ms: u64) -> Option<f32> {
        self.latency.get(now_ms)
    }

    /// Begins with the latency of its peers.
    pub fn seed(&self, now_ms: u64, micros: f32) {
        self.latency.seed(now_ms, micros);
    }

    /// Begins its slow start.
    pub fn ramp(&self, now_ms: u64) {
        self.ramp_from_ms.store(now_ms.max(1), Relaxed);
    }

    /// Share of its weight that counts now: 10 % to 100 % over `slow_start_ms` (GW-47).
    #[must_use]
    pub fn ramped(&self, now_ms: u64, slow_start_ms: u64) -> f32 {
        let from = self.ramp_from_ms.load(Relaxed);
        if from == 0 || slow_start_ms == 0 {
            return 1.0;
        }
        let share = now_ms.saturating_sub(from) as f32 / slow_start_ms as f32;
        (RAMP_FROM + (1.0 - RAMP_FROM) * share).min(1.0)
    }

    /// What one more request would cost (GW-46); `timeout_us` stands for what a failure costs.
    #[must_use]
    pub fn cost(&self, now_ms: u64, weight: f32, unknown: f32, timeout_us: f32) -> f32 {
        let latency = self.latency.get(now_ms).unwrap_or(unknown);
        let latency = latency + self.errors.get(now_ms) * timeout_us;
        latency * (self.in_flight() + 1) as f32 / weight.max(f32::MIN_POSITIVE)
    }

    /// Takes the outcome of an attempt.
    pub fn tell(
        &self,
        now_ms: u64,
        what: Attempted,
        trial: bool,
        set: &BreakerSettings,
        jitter: f64,
    ) -> Option<Change> {
        self.count(what);
        match what {
            Attempted::Answered { micros } => {
                self.latency.sample(now_ms, micros);
                self.errors.sample(now_ms, false);
                let change = self.breaker.success(now_ms, trial, set);
                if change.is_some_and(|c| c.to == Phase::Closed) {
                    self.come_back(now_ms);
                }
                change
            }
            Attempted::Erred { micros } => {
                self.latency.sample(now_ms, micros);
                self.errors.sample(now_ms, true);
                self.breaker.success(now_ms, trial, set)
            }
            Attempted::Busy { micros } => {
                self.latency.sample(now_ms, micros);
                self.breaker.abandon(trial);
                None
            }
            Attempted::Failed { penalty, why } => {
                self.latency.sample(now_ms, penalty);
                self.note(now_ms, why);
                self.breaker.failure(now_ms, trial, set, jitter)
            }
            Attempted::Nothing => {
                self.breaker.abandon(trial);
                None
            }
        }
    }

    /// Counts an attempt. A failure has no latency: how long nothing came says nothing of the instance.
    fn count(&self, what: Attempted) {
        let (ended, took) = match what {
            Attempted::Answered { micros } => (Ended::Well, Some(micros)),
            Attempted::Erred { micros } | Attempted::Busy { micros } => {
                (Ended::Failed, Some(micros))
            }
            Attempted::Failed { .. } => (Ended::Failed, None),
            Attempted::Nothing => return,
        };
        self.flow.count(ended);
        if let Some(micros) = took {
            self.flow.time(micros as u64);
        }
    }

    /// After its breaker closed: what it was like before says nothing, and it begins slowly.
    fn come_back(&self, now_ms: u64) {
        self.latency.reset();
        self.errors.reset();
        self.ramp(now_ms);
    }

    /// Counts a failed connect; true for the ones that the registry must hear of.
    pub fn connect_failed(&self) -> bool {
        self.refused.fetch_add(1, Relaxed);
        true
    }

    /// A connect worked; true when the one before had failed.
    pub fn connected(&self) -> bool {
        self.refused.load(Relaxed) != 0 && self.refused.swap(0, Relaxed) != 0
    }

    /// The last failures, newest last.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        self.reasons.lock().iter().cloned().collect()
    }

    /// Notes a failure, unless somebody else is just doing so: a request never waits for a note.
    fn note(&self, at_ms: u64, why: &'static str) {
        if let Some(mut reasons) = self.reasons.try_lock() {
            if reasons.len() == REASONS {
                reasons.pop_front();
            }
            reasons.push_back(Reason { at_ms, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: BreakerSettings = BreakerSettings {
        failures: 5,
        ratio: 0.5,
        min_requests: 20,
        window_ms: 10_000,
        open_ms: 30_000,
    };

    #[test]
    fn slow_start_goes_from_a_tenth_to_all() {
        let load = Load::default();
        assert_eq!(load.ramped(5, 15_000), 1.0);
        load.ramp(1_000);
        assert!((load.ramped(1_000, 15_000) - 0.1).abs() < 0.001);
        assert!((load.ramped(8_500, 15_000) - 0.55).abs() < 0.001);
        assert_eq!(load.ramped(16_000, 15_000), 1.0);
    }

    #[test]
    fn failures_are_remembered_with_their_reasons() {
        let load = Load::default();
        for i in 0..12 {
            load.tell(
                i,
                Attempted::Failed {
                    penalty: 1.0,
                    why: "reset",
                },
                false,
                &SET,
                0.5,
            );
        }
        assert_eq!((load.reasons().len(), load.reasons()[0].at_ms), (10, 2));
        assert!(load.breaker.is_open(100));
        assert!(load.connect_failed() && load.connected() && !load.connected());
    }

    #[test]
    fn attempts_are_counted_with_their_ends_and_only_answers_have_a_latency() {
        let load = Load::default();
        let failed = Attempted::Failed {
            penalty: 30e6,
            why: "connect",
        };
        for what in [
            Attempted::Answered { micros: 900.0 },
            Attempted::Erred { micros: 900.0 },
            Attempted::Busy { micros: 900.0 },
            failed,
            Attempted::Nothing,
        ] {
            load.tell(1, what, false, &SET, 0.5);
        }
        let sum = load.flow.sum();
        assert_eq!((sum.requests, sum.failed, sum.refused), (4, 3, 0));
        assert_eq!(sum.times.iter().sum::<u32>(), 3);
    }

    #[test]
    fn a_client_that_leaves_says_nothing_about_the_instance() {
        let load = Load::default();
        for i in 0..50 {
            load.tell(i, Attempted::Nothing, false, &SET, 0.5);
            load.tell(i, Attempted::Busy { micros: 100.0 }, false, &SET, 0.5);
        }
        assert!(!load.breaker.is_open(51));
    }
}
