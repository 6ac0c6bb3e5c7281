//! The requests by which a candidate is judged: the newest that are enough, never older than its trial.

use std::collections::VecDeque;

use super::tally::Totals;

/// Marks are so far apart.
const MARK_EVERY_MS: i64 = 60_000;
/// Most marks; with fewer requests than fill half an hour, the whole trial is looked at.
const MARKS: usize = 32;
/// So many times the requests that are needed make a window that noise does not decide.
const PLENTY: u64 = 10;

/// Both sides of a trial, counted from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sides {
    /// The version on trial.
    pub(super) candidate: Totals,
    /// The version that it is compared with.
    pub(super) stable: Totals,
}

/// What was counted, with marks to look back to. A candidate that was good for an hour and fails now is
/// judged by its last minutes, not by the hour.
#[derive(Debug, Default)]
pub(super) struct Window {
    newest: Sides,
    marks: VecDeque<(i64, Sides)>,
}

impl Window {
    /// Takes the newest counts.
    pub(super) fn note(&mut self, now_ms: i64, sides: Sides) {
        let due = self
            .marks
            .back()
            .is_none_or(|(at, _)| now_ms - at >= MARK_EVERY_MS);
        if due && sides != self.newest {
            if self.marks.len() >= MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((now_ms, sides.clone()));
        }
        self.newest = sides;
    }

    /// The whole trial.
    #[must_use]
    pub(super) const fn whole(&self) -> &Sides {
        &self.newest
    }

    /// What to judge by, where `least` requests are enough to decide. Each side looks back for itself: at
    /// 100 % the stable version gets nothing any more, and what it did before is what there is.
    #[must_use]
    pub(super) fn judged(&self, least: u32) -> Sides {
        let plenty = u64::from(least).saturating_mul(PLENTY);
        let recent = |of: fn(&Sides) -> &Totals| {
            let all = of(&self.newest);
            let parts = self.marks.iter().rev().map(|(_, mark)| all.since(of(mark)));
            { parts }
                .find(|part| part.requests >= plenty)
                .unwrap_or_else(|| all.clone())
        };
        Sides {
            candidate: recent(|s| &s.candidate),
            stable: recent(|s| &s.stable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::tests::totals;
    use super::*;

    fn sides(candidate: Totals, stable: Totals) -> Sides {
        Sides { candidate, stable }
    }

    #[test]
    fn few_requests_are_judged_together() {
        let mut window = Window::default();
        for minute in 0..10 {
            let n = 10 * (minute + 1);
            let now = i64::try_from(minute).unwrap() * MARK_EVERY_MS;
            window.note(now, sides(totals(n, 0, 1_000), totals(n, 0, 1_000)));
        }
        assert_eq!(window.judged(100).candidate.requests, 100);
    }

    #[test]
    fn a_candidate_that_turns_bad_is_judged_by_its_last_minutes() {
        let mut window = Window::default();
        let good = totals(100_000, 0, 1_000);
        window.note(0, sides(good.clone(), good.clone()));
        let mut turned = good.clone();
        turned.add(&totals(1_000, 10, 1_000));
        let mut stable = good.clone();
        stable.add(&totals(1_000, 0, 1_000));
        window.note(10_000, sides(turned, stable));
        let judged = window.judged(100);
        assert_eq!(judged.candidate.requests, 1_000);
        assert!((judged.candidate.error_percent() - 10.0).abs() < 0.01);
        assert_eq!(window.whole().candidate.requests, 101_000);
    }

    #[test]
    fn stable_traffic_of_earlier_steps_stays_the_measure() {
        let mut window = Window::default();
        let stable = totals(5_000, 0, 1_000);
        for minute in 0..100_u64 {
            let now = i64::try_from(minute).unwrap() * MARK_EVERY_MS;
            window.note(
                now,
                sides(totals(2_000 * (minute + 1), 0, 1_000), stable.clone()),
            );
        }
        let judged = window.judged(100);
        assert_eq!(judged.stable.requests, 5_000);
        assert_eq!(judged.candidate.requests, 2_000);
        assert!(window.marks.len() <= MARKS);
    }
}
