//! The generic cell rate algorithm (ITU-T I.371, "virtual scheduling"): one number a key, the theoretical arrival time.

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Requests a second in the long run; 0 or less lets nothing through, infinity everything.
    pub rate_per_s: f64,
    /// Requests at once after a pause; at least 1.
    pub burst: u32,
}

impl Limit {
    /// A limit.
    #[must_use]
    pub const fn new(rate_per_s: f64, burst: u32) -> Self {
        Self { rate_per_s, burst }
    }

    /// What one of `replicas` may give out alone.
    #[must_use]
    pub fn part(self, replicas: u32) -> Self {
        if replicas <= 1 {
            return self;
        }
        Self {
            rate_per_s: self.rate_per_s / f64::from(replicas),
            burst: (self.burst / replicas).max(1),
        }
    }

    /// Nanoseconds between two requests at the full rate; `None` when there is no limit.
    pub(super) fn interval_ns(self) -> Option<u64> {
        if self.rate_per_s.is_nan() || self.rate_per_s <= 0.0 {
            return Some(u64::MAX);
        }
        let interval = 1e9 / self.rate_per_s;
        (interval >= 1.0).then_some(interval.min(1e18) as u64)
    }

    pub(super) fn burst(self) -> u64 {
        u64::from(self.burst.max(1))
    }
}

/// The answer to one request. Times are in nanoseconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// True when it may pass.
    pub allowed: bool,
    /// Requests that may pass at once after this one.
    pub remaining: u32,
    /// Until the full burst is there again.
    pub reset_after_ns: u64,
    /// Until the next request may pass; 0 when this one did.
    pub retry_after_ns: u64,
}

impl Decision {
    pub(super) const UNLIMITED: Self = Self {
        allowed: true,
        remaining: u32::MAX,
        reset_after_ns: 0,
        retry_after_ns: 0,
    };

    /// `Retry-After` in whole seconds, at least 1; `None` when the request passed.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u32> {
        let seconds = self.retry_after_ns.div_ceil(1_000_000_000).max(1);
        (!self.allowed).then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

/// One request at `now` under a theoretical arrival time `tat` (0 for a new key). Gives the decision and
/// the new arrival time.
pub(super) fn step(tat: u64, limit: Limit, now: u64) -> (Decision, u64) {
    let Some(interval) = limit.interval_ns() else {
        return (Decision::UNLIMITED, tat);
    };
    if interval == u64::MAX {
        let refused = Decision {
            allowed: false,
            remaining: 0,
            reset_after_ns: 0,
            retry_after_ns: 3_600_000_000_000,
        };
        return (refused, tat);
    }
    let tolerance = interval.saturating_mul(limit.burst());
    let begin = tat.max(now);
    let next = begin.saturating_add(interval);
    let ahead = next - now;
    if ahead > tolerance {
        let refused = Decision {
            allowed: false,
            remaining: 0,
            reset_after_ns: begin - now,
            retry_after_ns: ahead - tolerance,
        };
        return (refused, tat);
    }
    let allowed = Decision {
        allowed: true,
        remaining: u32::try_from((tolerance - ahead) / interval).unwrap_or(u32::MAX),
        reset_after_ns: ahead,
        retry_after_ns: 0,
    };
    (allowed, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let limit = Limit::new(10.0, 5);
        let mut tat = 0;
        let mut at = |now: u64| {
            let (decision, next) = step(tat, limit, now);
            tat = next;
            decision
        };
        for left in (0..5).rev() {
            let decision = at(S);
            assert!(decision.allowed);
            assert_eq!(decision.remaining, left);
        }
        let refused = at(S);
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after_ns, S / 10);
        assert_eq!(refused.reset_after_ns, S / 2);
        assert_eq!(refused.retry_after_s(), Some(1));
        assert!(!at(S + S / 10 - 1).allowed);
        assert!(at(S + S / 10).allowed);
        assert!(!at(S + S / 10).allowed);
    }

    #[test]
    fn odd_limits() {
        assert!(step(0, Limit::new(f64::INFINITY, 1), 5).0.allowed);
        for rate in [0.0, -1.0, f64::NAN] {
            assert!(!step(0, Limit::new(rate, 100), 5).0.allowed, "{rate}");
        }
        assert!(
            step(0, Limit::new(1e-12, 0), 5).0.allowed,
            "the first of a burst of one"
        );
        assert_eq!(Limit::new(9.0, 2).part(3), Limit::new(3.0, 1));
        assert_eq!(Limit::new(9.0, 2).part(0), Limit::new(9.0, 2));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            rate in 1.0_f64..1000.0,
            burst in 1_u32..200,
            steps in proptest::collection::vec(0_u64..20_000_000, 1..400),
        ) {
            let limit = Limit::new(rate, burst);
            let (mut tat, mut now, mut passed) = (0, S, 0_u64);
            for pause in steps {
                now += pause;
                let (decision, next) = step(tat, limit, now);
                tat = next;
                passed += u64::from(decision.allowed);
                let most = f64::from(burst) + rate * ((now - S) as f64 / 1e9) + 1.0;
                prop_assert!((passed as f64) <= most);
                if !decision.allowed {
                    let (later, _) = step(tat, limit, now + decision.retry_after_ns);
                    prop_assert!(later.allowed, "retry_after is honest");
                }
            }
        }
    }
}
