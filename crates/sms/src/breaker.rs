//! A circuit breaker for each account at a vendor, and the note that an account is set up wrongly.
//!
//! It lives in the process: each replica finds out for itself, which costs it at most five messages' time,
//! and no flushed store opens a broken way again.

use std::collections::HashMap;

use chrono::TimeDelta;
use parking_lot::Mutex;
use portico_base::Timestamp;

use crate::provider::Provider;
use crate::table::Class;

/// So many failures in a row open it.
const FAILURES: u32 = 5;
/// It stays open so long; then one message tries, and if that fails it stays open as long again.
const OPEN_S: i64 = 30;
/// When somebody looked and could not even reach the vendor, it stays open until they look again.
const UNREACHABLE_S: i64 = 60;
/// Accounts that are remembered at most.
const ACCOUNTS: usize = 1_024;

/// How an account does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProviderState {
    /// Failures in a row.
    pub failures: u32,
    /// No message before this moment.
    pub open_until: Option<Timestamp>,
    /// The vendor refuses our configuration since then.
    pub misconfigured_since: Option<Timestamp>,
}

/// What changed with an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// It opened now.
    pub opened: bool,
    /// It was found to be misconfigured now.
    pub misconfigured: bool,
}

/// All accounts of the process.
#[derive(Debug, Default)]
pub struct Breakers(Mutex<HashMap<(&'static str, String), ProviderState>>);

impl Breakers {
    /// How an account does.
    #[must_use]
    pub fn state(&self, provider: &dyn Provider) -> ProviderState {
        let all = self.0.lock();
        all.get(&key(provider)).copied().unwrap_or_default()
    }

    /// Keeps an open breaker open: the vendor could not be reached just now.
    pub fn hold(&self, provider: &dyn Provider, now: Timestamp) {
        let mut all = self.0.lock();
        if let Some(state) = all.get_mut(&key(provider))
            && let Some(until) = state.open_until
        {
            state.open_until = Some(until.max(now + TimeDelta::seconds(UNREACHABLE_S)));
        }
    }

    /// True when a message may go to the account. When an open breaker's time is over, the first who
    /// asks is the probe, and everybody else waits for its answer or as long again.
    pub(crate) fn admit(&self, provider: &dyn Provider, now: Timestamp) -> bool {
        let mut all = self.0.lock();
        let Some(state) = all.get_mut(&key(provider)) else {
            return true;
        };
        match state.open_until {
            Some(until) if now < until => false,
            Some(_) => {
                state.open_until = Some(now + TimeDelta::seconds(OPEN_S));
                true
            }
            None => true,
        }
    }

    /// Learns from an answer. A refusal of the number says that the vendor works. An answer that never
    /// came counts as a failure: a vendor that hangs is not better than one that says no.
    pub(crate) fn learn(&self, provider: &dyn Provider, class: Class, now: Timestamp) -> Change {
        let mut all = self.0.lock();
        if all.len() >= ACCOUNTS && !all.contains_key(&key(provider)) {
            all.retain(|_, state| state.open_until.is_some());
            if all.len() >= ACCOUNTS {
                all.clear();
            }
        }
        let state = all.entry(key(provider)).or_default();
        match class {
            Class::Sent => {
                *state = ProviderState::default();
                Change::default()
            }
            Class::Stop | Class::StopAlert => {
                state.failures = 0;
                state.open_until = None;
                Change::default()
            }
            Class::Next | Class::NextAlert | Class::Ambiguous => {
                state.failures = state.failures.saturating_add(1);
                let was_open = state.open_until.is_some();
                if state.failures >= FAILURES {
                    state.open_until = Some(now + TimeDelta::seconds(OPEN_S));
                }
                let misconfigured =
                    class == Class::NextAlert && state.misconfigured_since.is_none();
                if misconfigured {
                    state.misconfigured_since = Some(now);
                }
                Change {
                    opened: state.open_until.is_some() && !was_open,
                    misconfigured,
                }
            }
        }
    }
}

fn key(provider: &dyn Provider) -> (&'static str, String) {
    (provider.name(), provider.account().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Console;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn five_failures_open_it_and_one_probe_closes_it() {
        let breakers = Breakers::default();
        let provider = Console;
        for n in 1..=5 {
            assert!(breakers.admit(&provider, at(0)), "{n}");
            let change = breakers.learn(&provider, Class::Next, at(0));
            assert_eq!(change.opened, n == 5);
        }
        assert!(!breakers.admit(&provider, at(29)));
        assert!(breakers.admit(&provider, at(30)), "the probe");
        assert!(!breakers.admit(&provider, at(30)), "only one probe");
        assert!(
            !breakers.learn(&provider, Class::Next, at(31)).opened,
            "still open"
        );
        assert!(!breakers.admit(&provider, at(60)));
        assert!(breakers.admit(&provider, at(61)));
        breakers.learn(&provider, Class::Sent, at(61));
        assert!(breakers.admit(&provider, at(61)) && breakers.admit(&provider, at(61)));
    }

    #[test]
    fn a_probe_that_never_answers_blocks_nothing_for_ever() {
        let breakers = Breakers::default();
        for _ in 0..5 {
            breakers.learn(&Console, Class::Ambiguous, at(0));
        }
        assert!(breakers.admit(&Console, at(30)));
        assert!(breakers.admit(&Console, at(60)), "the next probe");
    }

    #[test]
    fn who_cannot_be_reached_stays_away_until_the_next_look() {
        let breakers = Breakers::default();
        breakers.hold(&Console, at(0));
        assert!(breakers.admit(&Console, at(0)), "a closed one stays closed");
        for _ in 0..5 {
            breakers.learn(&Console, Class::Next, at(0));
        }
        breakers.hold(&Console, at(20));
        assert!(!breakers.admit(&Console, at(79)));
        assert!(breakers.admit(&Console, at(80)));
    }

    #[test]
    fn a_refusal_of_the_number_is_a_sign_of_life() {
        let breakers = Breakers::default();
        for _ in 0..4 {
            breakers.learn(&Console, Class::Next, at(0));
        }
        breakers.learn(&Console, Class::Stop, at(0));
        assert!(!breakers.learn(&Console, Class::Next, at(0)).opened);
        assert_eq!(breakers.state(&Console).failures, 1);
    }

    #[test]
    fn a_wrong_configuration_is_told_once_and_forgotten_with_a_success() {
        let breakers = Breakers::default();
        assert!(
            breakers
                .learn(&Console, Class::NextAlert, at(0))
                .misconfigured
        );
        assert!(
            !breakers
                .learn(&Console, Class::NextAlert, at(1))
                .misconfigured
        );
        assert_eq!(breakers.state(&Console).misconfigured_since, Some(at(0)));
        breakers.learn(&Console, Class::Sent, at(2));
        assert_eq!(breakers.state(&Console), ProviderState::default());
    }
}
