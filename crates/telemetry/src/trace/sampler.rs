//! Which traces are kept (OB-12): the parent's word from trusted callers, else a ratio; errors and forced ones always.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::context::{TraceContext, TraceId};

/// What the door knows when a request begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct SamplingHints<'a> {
    /// The context that came in, when there was one.
    pub parent: Option<&'a TraceContext>,
    /// True when whoever sent it may decide for us.
    pub trusted: bool,
    /// True for `X-Portico-Trace: 1` of an administrator.
    pub forced: bool,
}

/// What happens to the spans of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Kept; the flag is sent on.
    Keep,
    /// Dropped, unless it ends in an error: then at least our own span is kept.
    KeepErrors,
}

impl Decision {
    /// The flag that is sent on in `traceparent`.
    #[must_use]
    pub const fn sampled(self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// Decides by ratio; the ratio may change at run time.
#[derive(Debug)]
pub struct Sampler {
    threshold: AtomicU64,
}

impl Sampler {
    /// Keeps the given share of traces, 0 to 1.
    #[must_use]
    pub fn new(ratio: f64) -> Self {
        let sampler = Self {
            threshold: AtomicU64::new(0),
        };
        sampler.set_ratio(ratio);
        sampler
    }

    /// Changes the share.
    pub fn set_ratio(&self, ratio: f64) {
        let ratio = if ratio.is_finite() {
            ratio.clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.threshold
            .store((ratio * (1_u64 << 56) as f64) as u64, Relaxed);
    }

    /// Decides for a request. By ratio every replica decides alike: the last 7 bytes of a trace id are
    /// random (W3C Trace Context Level 2 §3.2.2.4), and they are compared with the threshold.
    #[must_use]
    pub fn decide(&self, trace_id: TraceId, hints: SamplingHints<'_>) -> Decision {
        if hints.forced {
            return Decision::Keep;
        }
        let keep = match hints.parent {
            Some(parent) if hints.trusted => parent.sampled,
            _ => self.by_ratio(trace_id),
        };
        if keep {
            Decision::Keep
        } else {
            Decision::KeepErrors
        }
    }

    fn by_ratio(&self, trace_id: TraceId) -> bool {
        let mut low = [0; 8];
        low[1..].copy_from_slice(&trace_id.as_bytes()[9..]);
        u64::from_be_bytes(low) < self.threshold.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::SeededRandom;

    fn share(sampler: &Sampler) -> f64 {
        let random = SeededRandom::new(5);
        let kept = (0..10_000)
            .filter(|_| {
                let id = TraceId::random(&random);
                sampler.decide(id, SamplingHints::default()).sampled()
            })
            .count();
        kept as f64 / 10_000.0
    }

    #[test]
    fn by_ratio() {
        let sampler = Sampler::new(0.1);
        assert!((0.08..0.12).contains(&share(&sampler)));
        sampler.set_ratio(0.0);
        assert!(share(&sampler) == 0.0);
        sampler.set_ratio(1.0);
        assert!((share(&sampler) - 1.0).abs() < f64::EPSILON);
        sampler.set_ratio(f64::NAN);
        assert!(share(&sampler) == 0.0);
    }

    #[test]
    fn only_trusted_parents_decide_and_force_wins() {
        let sampler = Sampler::new(0.0);
        let parent = TraceContext::root(&SeededRandom::new(1), true);
        let hints = |trusted, forced| SamplingHints {
            parent: Some(&parent),
            trusted,
            forced,
        };
        assert_eq!(
            sampler.decide(parent.trace_id, hints(true, false)),
            Decision::Keep
        );
        assert_eq!(
            sampler.decide(parent.trace_id, hints(false, false)),
            Decision::KeepErrors
        );
        assert_eq!(
            sampler.decide(parent.trace_id, hints(false, true)),
            Decision::Keep
        );
        let sampler = Sampler::new(1.0);
        let unsampled = TraceContext {
            sampled: false,
            ..parent.clone()
        };
        let hints = SamplingHints {
            parent: Some(&unsampled),
            trusted: true,
            forced: false,
        };
        assert_eq!(
            sampler.decide(unsampled.trace_id, hints),
            Decision::KeepErrors
        );
    }
}
