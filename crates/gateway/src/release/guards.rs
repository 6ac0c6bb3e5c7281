//! Guards: whether a candidate does worse than the stable version, and by how much (GW-81).

use serde::Serialize;
use utoipa::ToSchema;

use super::tally::{Totals, rounded};
use crate::objects::doc::{Guard, GuardsDoc, Numbers};

/// What a guard says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GatewayReleaseVerdict)]
pub(super) enum Verdict {
    /// One side has too few requests: nothing is decided.
    TooFewRequests,
    /// The candidate is good enough.
    Holds,
    /// The candidate must be stopped.
    Violated,
}

/// One guard with what it compared.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = GatewayReleaseGuardView)]
pub(super) struct Judged {
    /// Which.
    pub(super) guard: Guard,
    /// What it says.
    pub(super) verdict: Verdict,
    /// What it compared.
    pub(super) numbers: Numbers,
}

/// Asks every guard that is on.
#[must_use]
pub(super) fn judge(guards: &GuardsDoc, candidate: &Totals, stable: &Totals) -> Vec<Judged> {
    let least = u64::from(guards.min_requests);
    let verdict = |counts: [u64; 2], bad: bool| match (counts.iter().all(|n| *n >= least), bad) {
        (false, _) => Verdict::TooFewRequests,
        (true, false) => Verdict::Holds,
        (true, true) => Verdict::Violated,
    };
    let numbers = |measured: f64, limit: f64| Numbers {
        measured: rounded(measured),
        limit: rounded(limit),
        candidate: candidate.figures(),
        stable: stable.figures(),
    };
    let errors = guards.error_points.map(|points| {
        let (measured, limit) = (candidate.error_percent(), stable.error_percent() + points);
        Judged {
            guard: Guard::ErrorRate,
            verdict: verdict([candidate.requests, stable.requests], measured > limit),
            numbers: numbers(measured, limit),
        }
    });
    let times = guards.p95_ratio.map(|ratio| {
        let measured = candidate.p95_ms().unwrap_or_default();
        let base = stable.p95_ms().unwrap_or_default();
        let limit = (base * ratio).max(base + guards.p95_slack_ms);
        Judged {
            guard: Guard::P95,
            verdict: verdict([candidate.timed(), stable.timed()], measured > limit),
            numbers: numbers(measured, limit),
        }
    });
    errors.into_iter().chain(times).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::totals;
    use super::*;

    fn verdicts(candidate: &Totals, stable: &Totals) -> [Verdict; 2] {
        let judged = judge(&GuardsDoc::default(), candidate, stable);
        [judged[0].verdict, judged[1].verdict]
    }

    #[test]
    fn five_percent_of_errors_are_too_many_and_the_numbers_say_so() {
        let (candidate, stable) = (totals(100, 20, 5_000), totals(900, 0, 5_000));
        let judged = judge(&GuardsDoc::default(), &candidate, &stable);
        assert_eq!(judged[0].guard, Guard::ErrorRate);
        assert_eq!(judged[0].verdict, Verdict::Violated);
        let numbers = judged[0].numbers;
        assert_eq!((numbers.measured, numbers.limit), (5.0, 1.0));
        assert_eq!(
            (numbers.candidate.requests, numbers.candidate.errors),
            (100, 5)
        );
        assert_eq!(judged[1].verdict, Verdict::Holds);
    }

    #[test]
    fn errors_that_the_stable_version_has_too_are_forgiven() {
        let stable = totals(1_000, 20, 5_000);
        assert_eq!(
            verdicts(&totals(100, 20, 5_000), &stable)[0],
            Verdict::Holds
        );
        assert_eq!(
            verdicts(&totals(200, 10, 5_000), &stable)[0],
            Verdict::Violated
        );
        // Exactly one point above is still allowed.
        assert_eq!(
            verdicts(&totals(100, 100, 5_000), &totals(100, 0, 5_000))[0],
            Verdict::Holds
        );
    }

    #[test]
    fn a_slow_candidate_is_stopped_and_noise_of_fast_ones_is_not() {
        let stable = totals(500, 0, 20_000);
        assert_eq!(
            verdicts(&totals(100, 0, 40_000), &stable)[1],
            Verdict::Violated
        );
        assert_eq!(
            verdicts(&totals(100, 0, 24_000), &stable)[1],
            Verdict::Holds
        );
        // 0.2 ms against 0.7 ms is 3.5 times as much, and nobody feels it.
        assert_eq!(
            verdicts(&totals(100, 0, 700), &totals(100, 0, 200))[1],
            Verdict::Holds
        );
    }

    #[test]
    fn nothing_is_decided_below_a_hundred_requests_of_either_side() {
        let (bad, good) = (totals(99, 1, 90_000), totals(10_000, 0, 1_000));
        assert_eq!(verdicts(&bad, &good), [Verdict::TooFewRequests; 2]);
        let (bad, few) = (totals(10_000, 1, 90_000), totals(99, 0, 1_000));
        assert_eq!(verdicts(&bad, &few), [Verdict::TooFewRequests; 2]);
        assert_eq!(
            verdicts(&bad, &Totals::default()),
            [Verdict::TooFewRequests; 2],
            "nothing to compare with"
        );
    }

    #[test]
    fn a_guard_that_is_off_says_nothing() {
        let guards = GuardsDoc {
            p95_ratio: None,
            ..GuardsDoc::default()
        };
        let judged = judge(&guards, &totals(100, 1, 1), &totals(100, 0, 1));
        assert_eq!(judged.len(), 1);
        assert_eq!(judged[0].guard, Guard::ErrorRate);
    }
}
