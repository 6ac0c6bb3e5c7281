//! The circuit breaker: closed, open for a while, half-open with one trial at a time (GW-55; Nygard, *Release It!*).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::window::Window;

/// When it opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures: u32,
    /// Share of failures in the window that opens it.
    pub ratio: f64,
    /// Fewest requests in the window for the share to count.
    pub min_requests: u64,
    pub window_ms: u64,
    /// First time that it stays open; doubled on each repeat, at most [`LONGEST_OPEN_MS`].
    pub open_ms: u64,
}

/// Longest time that a breaker stays open.
pub const LONGEST_OPEN_MS: u64 = 300_000;
/// Successful trials that close it.
const TRIALS: u8 = 2;
/// A trial that never reported is given up after this time.
const TRIAL_LOST_MS: u64 = 60_000;

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            ratio: 0.5,
            min_requests: 20,
            window_ms: 10_000,
            open_ms: 30_000,
        }
    }
}

/// What it does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Closed,
    Open,
    HalfOpen,
}

impl Phase {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of phase, for events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub from: Phase,
    pub to: Phase,
}

/// The answer to "may this request go?".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Pass,
    /// It may, and its outcome decides.
    Trial,
    Refuse {
        /// Until when it is worth trying again.
        retry_after_ms: u64,
    },
}

/// What an operator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forced {
    Open,
    Closed,
}

impl Forced {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// One state in one word: two bits of phase, one of trial, two of successes, five of repeats, the rest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    phase: Phase,
    /// Closed: since when. Open: until when. Half-open: when the trial began.
    at_ms: u64,
    repeats: u8,
    trial: bool,
    successes: u8,
}

impl State {
    const CLOSED: Self = Self {
        phase: Phase::Closed,
        at_ms: 0,
        repeats: 0,
        trial: false,
        successes: 0,
    };

    const fn pack(self) -> u64 {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Open => 1,
            Phase::HalfOpen => 2,
        };
        phase
            | (self.trial as u64) << 2
            | (self.successes as u64 & 3) << 3
            | (self.repeats as u64 & 31) << 5
            | self.at_ms << 10
    }

    fn unpack(word: u64) -> Self {
        let small = |shift: u32, mask: u64| u8::try_from(word >> shift & mask).unwrap_or(0);
        Self {
            phase: match word & 3 {
                0 => Phase::Closed,
                1 => Phase::Open,
                _ => Phase::HalfOpen,
            },
            at_ms: word >> 10,
            repeats: small(5, 31),
            trial: word >> 2 & 1 == 1,
            successes: small(3, 3),
        }
    }

    /// Opens it; `jitter` in 0..1 spreads the end by ±10 %.
    fn open(self, now_ms: u64, repeats: u8, set: &BreakerSettings, jitter: f64) -> Self {
        let time = set
            .open_ms
            .saturating_mul(1 << repeats.min(20))
            .min(LONGEST_OPEN_MS);
        let time = (time as f64 * (0.9 + 0.2 * jitter)) as u64;
        Self {
            phase: Phase::Open,
            at_ms: now_ms + time.max(1),
            repeats: repeats.min(31),
            trial: false,
            successes: 0,
        }
    }

    fn admit(self, now_ms: u64) -> (Self, Admission) {
        let trial = Self {
            phase: Phase::HalfOpen,
            at_ms: now_ms,
            trial: true,
            ..self
        };
        match self.phase {
            Phase::Closed => (self, Admission::Pass),
            Phase::Open if now_ms >= self.at_ms => (
                Self {
                    successes: 0,
                    ..trial
                },
                Admission::Trial,
            ),
            Phase::Open => (
                self,
                Admission::Refuse {
                    retry_after_ms: self.at_ms - now_ms,
                },
            ),
            Phase::HalfOpen if !self.trial || now_ms.saturating_sub(self.at_ms) > TRIAL_LOST_MS => {
                (trial, Admission::Trial)
            }
            Phase::HalfOpen => (
                self,
                Admission::Refuse {
                    retry_after_ms: 1_000,
                },
            ),
        }
    }

    fn success(self, now_ms: u64, trial: bool) -> Self {
        if self.phase != Phase::HalfOpen || !trial {
            return self;
        }
        let successes = self.successes + 1;
        if successes >= TRIALS {
            return Self {
                phase: Phase::Closed,
                at_ms: now_ms,
                trial: false,
                successes: 0,
                ..self
            };
        }
        Self {
            trial: false,
            successes,
            ..self
        }
    }

    fn failure(
        self,
        now_ms: u64,
        trial: bool,
        tripped: bool,
        set: &BreakerSettings,
        jitter: f64,
    ) -> Self {
        match self.phase {
            Phase::Closed if tripped => {
                // A breaker that held for as long as the longest punishment begins anew.
                let held = now_ms.saturating_sub(self.at_ms) > LONGEST_OPEN_MS || self.at_ms == 0;
                let repeats = if held { 0 } else { self.repeats + 1 };
                self.open(now_ms, repeats, set, jitter)
            }
            Phase::HalfOpen if trial => self.open(now_ms, self.repeats + 1, set, jitter),
            _ => self,
        }
    }
}

/// A breaker that all workers share.
#[derive(Debug)]
pub struct Breaker {
    state: AtomicU64,
    consecutive: AtomicU32,
    window: Window,
    /// 0, or the end of the operator's word times 4 plus 1 (open) or 2 (closed).
    forced: AtomicU64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(State::CLOSED.pack()),
            consecutive: AtomicU32::new(0),
            window: Window::default(),
            forced: AtomicU64::new(0),
        }
    }
}

impl Breaker {
    /// Asks for a request; after [`Admission::Trial`] its outcome must be told, or [`Breaker::abandon`] called.
    pub fn admit(&self, now_ms: u64) -> (Admission, Option<Change>) {
        match self.forced(now_ms) {
            Some(Forced::Closed) => return (Admission::Pass, None),
            Some(Forced::Open) => {
                return (
                    Admission::Refuse {
                        retry_after_ms: 1_000,
                    },
                    None,
                );
            }
            None => {}
        }
        let word = self.state.load(Relaxed);
        if State::unpack(word).phase == Phase::Closed {
            return (Admission::Pass, None);
        }
        let mut admission = Admission::Pass;
        let change = self.update(|state| {
            let (next, answer) = state.admit(now_ms);
            admission = answer;
            next
        });
        (admission, change)
    }

    /// True while requests are refused; changes nothing.
    #[must_use]
    pub fn is_open(&self, now_ms: u64) -> bool {
        match self.forced(now_ms) {
            Some(forced) => forced == Forced::Open,
            None => {
                let state = State::unpack(self.state.load(Relaxed));
                state.phase != Phase::Closed
                    && matches!(state.admit(now_ms).1, Admission::Refuse { .. })
            }
        }
    }

    /// True when the next request would be a trial.
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        let state = State::unpack(self.state.load(Relaxed));
        state.phase != Phase::Closed
            && self.forced(now_ms).is_none()
            && state.admit(now_ms).1 == Admission::Trial
    }

    /// Tells of a success.
    pub fn success(&self, now_ms: u64, trial: bool, set: &BreakerSettings) -> Option<Change> {
        if self.consecutive.load(Relaxed) != 0 {
            self.consecutive.store(0, Relaxed);
        }
        self.window.count(now_ms, set.window_ms, false);
        if !trial {
            return None;
        }
        let change = self.update(|state| state.success(now_ms, trial));
        if change.is_some_and(|c| c.to == Phase::Closed) {
            self.window.clear();
        }
        change
    }

    /// Tells of a failure; `jitter` is a random number in 0..1.
    pub fn failure(
        &self,
        now_ms: u64,
        trial: bool,
        set: &BreakerSettings,
        jitter: f64,
    ) -> Option<Change> {
        let row = self.consecutive.fetch_add(1, Relaxed) + 1;
        self.window.count(now_ms, set.window_ms, true);
        let sums = self.window.sums(now_ms, set.window_ms);
        let share =
            sums.all >= set.min_requests && sums.marked as f64 >= set.ratio * sums.all as f64;
        let tripped = row >= set.failures || share;
        let change = self.update(|state| state.failure(now_ms, trial, tripped, set, jitter));
        if change.is_some() {
            self.consecutive.store(0, Relaxed);
        }
        change
    }

    /// Gives up a trial whose outcome says nothing: the client went away.
    pub fn abandon(&self, trial: bool) {
        if trial {
            self.update(|state| {
                if state.phase == Phase::HalfOpen {
                    State {
                        trial: false,
                        ..state
                    }
                } else {
                    state
                }
            });
        }
    }

    /// Lets an operator decide until `until_ms`; nothing gives the decision back.
    pub fn force(&self, what: Option<Forced>, until_ms: u64) {
        let word = match what {
            None => 0,
            Some(Forced::Open) => until_ms << 2 | 1,
            Some(Forced::Closed) => until_ms << 2 | 2,
        };
        self.forced.store(word, Relaxed);
    }

    /// The operator's word, while it holds.
    #[must_use]
    pub fn forced(&self, now_ms: u64) -> Option<Forced> {
        self.forced_until(now_ms).map(|(what, _)| what)
    }

    /// The operator's word and its end, while it holds.
    #[must_use]
    pub fn forced_until(&self, now_ms: u64) -> Option<(Forced, u64)> {
        let word = self.forced.load(Relaxed);
        let until_ms = word >> 2;
        if word == 0 || now_ms >= until_ms {
            return None;
        }
        let what = if word & 3 == 1 {
            Forced::Open
        } else {
            Forced::Closed
        };
        Some((what, until_ms))
    }

    /// What it does with requests now: the operator's word, else its own.
    #[must_use]
    pub fn seen(&self, now_ms: u64) -> Phase {
        match self.forced(now_ms) {
            Some(Forced::Open) => Phase::Open,
            Some(Forced::Closed) => Phase::Closed,
            None => self.phase().0,
        }
    }

    /// True while an operator keeps requests away.
    #[must_use]
    pub fn is_forced_open(&self, now_ms: u64) -> bool {
        self.forced(now_ms) == Some(Forced::Open)
    }

    /// Phase and, while open, the time at which it ends.
    #[must_use]
    pub fn phase(&self) -> (Phase, Option<u64>) {
        let state = State::unpack(self.state.load(Relaxed));
        (
            state.phase,
            (state.phase == Phase::Open).then_some(state.at_ms),
        )
    }

    fn update(&self, mut step: impl FnMut(State) -> State) -> Option<Change> {
        let before = self.state.fetch_update(Relaxed, Relaxed, |word| {
            let next = step(State::unpack(word)).pack();
            (next != word).then_some(next)
        });
        let from = State::unpack(before.ok()?).phase;
        let to = State::unpack(self.state.load(Relaxed)).phase;
        (from != to).then_some(Change { from, to })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SET: BreakerSettings = BreakerSettings {
        failures: 5,
        ratio: 0.5,
        min_requests: 20,
        window_ms: 10_000,
        open_ms: 30_000,
    };

    #[test]
    fn five_failures_open_it_and_two_trials_close_it() {
        let breaker = Breaker::default();
        for _ in 0..4 {
            assert_eq!(breaker.failure(1_000, false, &SET, 0.5), None);
        }
        breaker.success(1_000, false, &SET);
        for _ in 0..4 {
            assert_eq!(breaker.failure(1_000, false, &SET, 0.5), None);
        }
        assert_eq!(
            breaker.failure(1_000, false, &SET, 0.5),
            Some(Change {
                from: Phase::Closed,
                to: Phase::Open
            })
        );
        assert_eq!(
            breaker.admit(2_000).0,
            Admission::Refuse {
                retry_after_ms: 29_000
            }
        );
        assert!(breaker.is_open(30_999) && !breaker.is_open(31_000) && breaker.is_due(31_000));
        assert_eq!(breaker.admit(31_000).0, Admission::Trial);
        assert!(
            matches!(breaker.admit(31_000).0, Admission::Refuse { .. }),
            "one trial at a time"
        );
        assert_eq!(breaker.success(31_010, true, &SET), None);
        assert_eq!(breaker.admit(31_020).0, Admission::Trial);
        assert_eq!(
            breaker.success(31_030, true, &SET),
            Some(Change {
                from: Phase::HalfOpen,
                to: Phase::Closed
            })
        );
        assert_eq!(breaker.admit(31_040).0, Admission::Pass);
    }

    #[test]
    fn half_of_twenty_open_it_and_a_few_do_not() {
        let breaker = Breaker::default();
        for i in 0..19 {
            let done = if i % 2 == 0 {
                breaker.failure(i, false, &SET, 0.5)
            } else {
                breaker.success(i, false, &SET)
            };
            assert_eq!(done, None);
        }
        breaker.success(19, false, &SET);
        assert!(breaker.failure(20, false, &SET, 0.5).is_some());
    }

    #[test]
    fn a_repeat_doubles_the_time_up_to_five_minutes() {
        let breaker = Breaker::default();
        let mut now = 1_000;
        for _ in 0..5 {
            breaker.failure(now, false, &SET, 0.5);
        }
        let mut times = Vec::new();
        for _ in 0..6 {
            let (Phase::Open, Some(end)) = breaker.phase() else {
                panic!("it is open")
            };
            times.push(end - now);
            now = end;
            assert_eq!(breaker.admit(now).0, Admission::Trial);
            breaker.failure(now, true, &SET, 0.5);
        }
        assert_eq!(times, [30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
    }

    #[test]
    fn an_abandoned_or_lost_trial_makes_room_for_the_next() {
        let breaker = Breaker::default();
        for _ in 0..5 {
            breaker.failure(1, false, &SET, 0.5);
        }
        assert_eq!(breaker.admit(40_000).0, Admission::Trial);
        breaker.abandon(true);
        assert_eq!(breaker.admit(40_001).0, Admission::Trial);
        assert!(matches!(breaker.admit(50_000).0, Admission::Refuse { .. }));
        assert_eq!(breaker.admit(100_002).0, Admission::Trial);
        assert_eq!(
            breaker.failure(100_003, false, &SET, 0.5),
            None,
            "answers to older requests do not decide"
        );
    }

    #[test]
    fn an_operator_decides_for_a_time() {
        let breaker = Breaker::default();
        breaker.force(Some(Forced::Open), 5_000);
        assert!(breaker.is_open(4_999) && !breaker.is_open(5_000));
        breaker.force(Some(Forced::Closed), 9_000);
        for _ in 0..9 {
            breaker.failure(6_000, false, &SET, 0.5);
        }
        assert_eq!(breaker.admit(6_000).0, Admission::Pass);
        breaker.force(None, 0);
        assert!(breaker.is_open(6_001));
    }

    proptest! {
        /// However events come, a breaker refuses only within its time, never has two trials, and closes only by trials.
        #[test]
        fn the_machine_keeps_its_promises(events in proptest::collection::vec((0_u8..5, 0_u64..20_000, 0.0_f64..1.0), 1..200)) {
            let breaker = Breaker::default();
            let (mut now, mut trials) = (1_u64, 0_u32);
            let mut began = 0_u64;
            for (event, step, jitter) in events {
                now += step;
                let (before, _) = breaker.phase();
                match event {
                    0 => { breaker.success(now, false, &SET); prop_assert_eq!(breaker.phase().0, before); }
                    1 => { breaker.failure(now, false, &SET, jitter); prop_assert!(breaker.phase().0 == before || before == Phase::Closed); }
                    2 => match breaker.admit(now).0 {
                        Admission::Trial => {
                            prop_assert!(trials == 0 || now - began > TRIAL_LOST_MS);
                            (trials, began) = (1, now);
                        }
                        Admission::Pass => prop_assert_eq!(before, Phase::Closed),
                        Admission::Refuse { retry_after_ms } => prop_assert!(retry_after_ms <= LONGEST_OPEN_MS * 11 / 10),
                    },
                    3 if trials == 1 => { trials = 0; breaker.success(now, true, &SET); prop_assert!(breaker.phase().0 != Phase::Open); }
                    4 if trials == 1 => { trials = 0; breaker.failure(now, true, &SET, jitter); prop_assert_eq!(breaker.phase().0, Phase::Open); }
                    _ => {}
                }
            }
        }

        #[test]
        fn states_survive_packing(phase in 0_u8..3, at in 0_u64..1 << 50, repeats in 0_u8..32, trial: bool, successes in 0_u8..4) {
            let phase = [Phase::Closed, Phase::Open, Phase::HalfOpen][usize::from(phase)];
            let state = State { phase, at_ms: at, repeats, trial, successes };
            prop_assert_eq!(State::unpack(state.pack()), state);
        }
    }
}
