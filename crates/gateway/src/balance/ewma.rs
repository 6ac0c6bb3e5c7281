//! Peak-EWMA of latency: a spike counts at once, recovery is gradual (Finagle's aperture; GW-46).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time in which an old value loses all but 1/e of its weight.
const DECAY_MS: f32 = 10_000.0;

/// A latency in microseconds and the time of its last sample, in one word; 0 is "no sample yet".
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes a sample.
    pub fn sample(&self, now_ms: u64, micros: f32) {
        let micros = micros.max(1.0);
        // A lost race loses one sample of two that came together.
        let word = self.0.load(Relaxed);
        let next = match unpack(word, now_ms) {
            Some((value, age)) if micros < value => {
                let keep = (-age / DECAY_MS).exp();
                value * keep + micros * (1.0 - keep)
            }
            _ => micros,
        };
        self.0.store(pack(now_ms, next), Relaxed);
    }

    /// The present value: it fades while no sample comes, so that whoever was slow is tried again.
    #[must_use]
    pub fn get(&self, now_ms: u64) -> Option<f32> {
        unpack(self.0.load(Relaxed), now_ms)
            .map(|(value, age)| (value * (-age / DECAY_MS).exp()).max(1.0))
    }

    /// Begins at a given value: the median of the peers for a new instance.
    pub fn seed(&self, now_ms: u64, micros: f32) {
        self.0.store(pack(now_ms, micros.max(1.0)), Relaxed);
    }

    /// Forgets everything.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

fn pack(now_ms: u64, micros: f32) -> u64 {
    (now_ms & u64::from(u32::MAX)) << 32 | u64::from(micros.to_bits())
}

/// The value and its age; the clock's low 32 bits wrap after 49 days.
fn unpack(word: u64, now_ms: u64) -> Option<(f32, f32)> {
    let value = f32::from_bits(u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0));
    if value == 0.0 {
        return None;
    }
    let age = (now_ms & u64::from(u32::MAX)).wrapping_sub(word >> 32) & u64::from(u32::MAX);
    // A worker whose clock was read a moment earlier must not see an age of 49 days.
    let age = if age > u64::from(u32::MAX / 2) {
        0.0
    } else {
        age as f32
    };
    Some((value, age))
}

/// The share of failures among the last answers, for those that no breaker counts (500).
#[derive(Debug, Default)]
pub struct FailureRate(PeakFree);

#[derive(Debug, Default)]
struct PeakFree(AtomicU64);

impl FailureRate {
    const STEP: f32 = 0.05;
    /// Shares below this say nothing about the instance: two in a row happen to anyone.
    const NOISE: f32 = 0.1;

    pub fn sample(&self, now_ms: u64, failed: bool) {
        let before = self.raw(now_ms);
        if before == 0.0 && !failed {
            return;
        }
        let next = before + Self::STEP * (f32::from(u8::from(failed)) - before);
        self.0
            .0
            .store(pack(now_ms, next.max(f32::MIN_POSITIVE)), Relaxed);
    }

    /// 0 for a healthy instance, towards 1 for one that always fails.
    #[must_use]
    pub fn get(&self, now_ms: u64) -> f32 {
        ((self.raw(now_ms) - Self::NOISE) / (1.0 - Self::NOISE)).max(0.0)
    }

    pub fn reset(&self) {
        self.0.0.store(0, Relaxed);
    }

    fn raw(&self, now_ms: u64) -> f32 {
        unpack(self.0.0.load(Relaxed), now_ms)
            .map_or(0.0, |(value, age)| value * (-age / DECAY_MS).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spike_counts_at_once_and_recovery_is_gradual() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.get(0), None);
        ewma.sample(1_000, 1_000.0);
        ewma.sample(1_001, 50_000.0);
        assert!(ewma.get(1_001).unwrap() > 49_000.0);
        ewma.sample(2_001, 1_000.0);
        let after = ewma.get(2_001).unwrap();
        assert!((45_000.0..46_000.0).contains(&after), "{after}");
        for ms in (3_001..43_001).step_by(1_000) {
            ewma.sample(ms, 1_000.0);
        }
        assert!(ewma.get(43_000).unwrap() < 2_500.0);
    }

    #[test]
    fn an_untried_value_fades_and_the_clock_may_wrap() {
        let ewma = PeakEwma::default();
        ewma.sample(u64::from(u32::MAX), 10_000.0);
        let later = ewma.get(u64::from(u32::MAX) + 10_000).unwrap();
        assert!((3_600.0..3_700.0).contains(&later), "{later}");
        assert!(
            ewma.get(u64::from(u32::MAX) - 5).unwrap() > 9_999.0,
            "a clock slightly behind"
        );
    }

    #[test]
    fn single_failures_are_noise_and_many_are_not() {
        let rate = FailureRate::default();
        rate.sample(0, true);
        rate.sample(1, true);
        assert_eq!(rate.get(2), 0.0);
        for ms in 2..60 {
            rate.sample(ms, true);
        }
        assert!(rate.get(60) > 0.9);
        for ms in 60..200 {
            rate.sample(ms, false);
        }
        assert_eq!(rate.get(200), 0.0);
    }
}
