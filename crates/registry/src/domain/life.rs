//! The life cycle of an instance (RG-2, RG-7, RG-8) as a pure function of facts and time.
//!
//! `starting → ready → late → inactive → removed`, and beside it `failing`, `draining`, `maintenance`.
//! [`judge`] answers the state that holds now and the next moment at which time alone may change it.

use chrono::Duration;
use portico_base::Timestamp;
use portico_contract::directory::InstanceState;
use serde::{Deserialize, Serialize};

use super::check::Status;

/// Time that a restored instance has to show itself (RG-7).
pub(crate) const GRACE: Duration = Duration::seconds(60);

/// What somebody ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    /// No new requests, then gone at the deadline.
    Drain { until: Timestamp, reason: String },
    /// Taken out until somebody resumes it.
    Maintenance { reason: String },
}

/// What its checks say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It has checks and none has answered yet.
    Unknown,
    /// The worst answer; `Passing` without any check.
    Known(Status),
}

/// Everything on which the state depends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub order: Option<Order>,
    /// Its node is in maintenance.
    pub node_maintenance: bool,
    /// Interval of the heartbeats that it owes; absent: it owes none.
    pub heartbeat: Option<Duration>,
    /// Last sign of life of its own: registration or heartbeat.
    pub last_seen: Timestamp,
    /// Restored from the database at this moment, without a sign of life since.
    pub restored: Option<Timestamp>,
    pub health: Health,
    /// The data plane was refused twice in a row.
    pub refused: bool,
}

/// Durations that come from settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Without a heartbeat for so long it is inactive.
    pub inactive: Duration,
    /// Inactive for so long it is removed.
    pub remove: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            inactive: Duration::seconds(300),
            remove: Duration::seconds(86_400),
        }
    }
}

/// What holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives {
        state: InstanceState,
        reason: &'static str,
        warning: bool,
    },
    /// Its time is over.
    Ends { reason: &'static str },
}

/// What holds, and until when at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub fate: Fate,
    /// Time alone changes nothing before this moment.
    pub next: Option<Timestamp>,
}

/// Decides. Orders come first, then silence, then checks.
pub(crate) fn judge(facts: &Facts, now: Timestamp, policy: Policy) -> Verdict {
    match &facts.order {
        Some(Order::Drain { until, .. }) if now >= *until => return ends("drained"),
        Some(Order::Drain { until, .. }) => {
            return lives(InstanceState::Draining, "draining", Some(*until));
        }
        Some(Order::Maintenance { .. }) => {
            return lives(InstanceState::Maintenance, "maintenance", None);
        }
        None if facts.node_maintenance => {
            return lives(
                InstanceState::Maintenance,
                "its node is in maintenance",
                None,
            );
        }
        None => {}
    }
    let silence = silence(facts, policy);
    if let Some(silence) = &silence {
        if now >= silence.removed {
            return ends("no heartbeat for too long");
        }
        if now >= silence.inactive {
            return lives(
                InstanceState::Inactive,
                "no heartbeat",
                Some(silence.removed),
            );
        }
    }
    // While nothing worse holds, the next thing that time brings is `late`, then `inactive`.
    let by_silence = |late: bool| {
        silence
            .as_ref()
            .map(|s| if late { s.inactive } else { s.late.max(now) })
    };
    let is_late = silence.as_ref().is_some_and(|s| now >= s.late);
    if facts.refused {
        return lives(
            InstanceState::Failing,
            "connections are refused",
            by_silence(is_late),
        );
    }
    if facts.health == Health::Known(Status::Critical) {
        return lives(InstanceState::Failing, "a check fails", by_silence(is_late));
    }
    if facts.restored.is_some() && facts.health == Health::Unknown {
        let next = silence.as_ref().map(|s| s.inactive);
        return lives(InstanceState::Late, "restored after a restart", next);
    }
    if facts.health == Health::Unknown {
        return lives(
            InstanceState::Starting,
            "waiting for its first check",
            by_silence(is_late),
        );
    }
    if is_late {
        return lives(
            InstanceState::Late,
            "heartbeats are missing",
            by_silence(true),
        );
    }
    let warning = facts.health == Health::Known(Status::Warning);
    Verdict {
        fate: Fate::Lives {
            state: InstanceState::Ready,
            reason: if warning { "a check warns" } else { "" },
            warning,
        },
        next: by_silence(false),
    }
}

/// When silence makes it late, inactive, removed.
struct Silence {
    late: Timestamp,
    inactive: Timestamp,
    removed: Timestamp,
}

fn silence(facts: &Facts, policy: Policy) -> Option<Silence> {
    let interval = facts.heartbeat?;
    let mut late = facts.last_seen + interval * 2;
    let mut inactive = facts.last_seen + policy.inactive.max(interval * 2);
    if let Some(restored) = facts.restored {
        late = late.max(restored + GRACE);
        inactive = inactive.max(restored + GRACE);
    }
    Some(Silence {
        late,
        inactive,
        removed: inactive + policy.remove,
    })
}

const fn lives(state: InstanceState, reason: &'static str, next: Option<Timestamp>) -> Verdict {
    Verdict {
        fate: Fate::Lives {
            state,
            reason,
            warning: false,
        },
        next,
    }
}

const fn ends(reason: &'static str) -> Verdict {
    Verdict {
        fate: Fate::Ends { reason },
        next: None,
    }
}

#[cfg(test)]
mod tests {
    use portico_base::clock::from_unix_ms;
    use proptest::prelude::*;

    use super::*;

    fn at(s: i64) -> Timestamp {
        from_unix_ms(1_000_000_000_000 + s * 1_000)
    }

    fn facts() -> Facts {
        Facts {
            order: None,
            node_maintenance: false,
            heartbeat: Some(Duration::seconds(30)),
            last_seen: at(0),
            restored: None,
            health: Health::Known(Status::Passing),
            refused: false,
        }
    }

    fn state(facts: &Facts, s: i64) -> Option<InstanceState> {
        match judge(facts, at(s), Policy::default()).fate {
            Fate::Lives { state, .. } => Some(state),
            Fate::Ends { .. } => None,
        }
    }

    #[test]
    fn silence_goes_through_late_and_inactive_to_the_end() {
        use InstanceState::{Inactive, Late, Ready};
        let f = facts();
        for (s, want) in [
            (0, Some(Ready)),
            (59, Some(Ready)),
            (60, Some(Late)),
            (299, Some(Late)),
            (300, Some(Inactive)),
            (300 + 86_399, Some(Inactive)),
            (300 + 86_400, None),
        ] {
            assert_eq!(state(&f, s), want, "after {s} s");
        }
        let slow = Facts {
            heartbeat: Some(Duration::seconds(300)),
            ..facts()
        };
        assert_eq!(
            state(&slow, 599),
            Some(Ready),
            "two intervals are more than five minutes"
        );
        let silent = Facts {
            heartbeat: None,
            ..facts()
        };
        assert_eq!(
            state(&silent, 10_000_000),
            Some(Ready),
            "it owes no heartbeat"
        );
    }

    #[test]
    fn starting_until_the_first_success_and_failing_by_checks_and_refusals() {
        use InstanceState::{Failing, Ready, Starting};
        let with = |health| Facts { health, ..facts() };
        assert_eq!(state(&with(Health::Unknown), 1), Some(Starting));
        assert_eq!(state(&with(Health::Known(Status::Passing)), 1), Some(Ready));
        assert_eq!(state(&with(Health::Known(Status::Warning)), 1), Some(Ready));
        assert_eq!(
            state(&with(Health::Known(Status::Critical)), 1),
            Some(Failing)
        );
        assert_eq!(
            state(
                &Facts {
                    refused: true,
                    ..facts()
                },
                1
            ),
            Some(Failing)
        );
    }

    #[test]
    fn restored_is_late_until_a_probe_or_the_end_of_grace() {
        use InstanceState::{Failing, Inactive, Late, Ready};
        let restored = |health| Facts {
            last_seen: at(-3_600),
            restored: Some(at(0)),
            health,
            ..facts()
        };
        assert_eq!(state(&restored(Health::Unknown), 1), Some(Late));
        assert_eq!(
            state(&restored(Health::Unknown), 61),
            Some(Inactive),
            "an hour of silence"
        );
        assert_eq!(
            state(&restored(Health::Known(Status::Passing)), 1),
            Some(Ready)
        );
        assert_eq!(
            state(&restored(Health::Known(Status::Critical)), 1),
            Some(Failing)
        );
        let recent = Facts {
            last_seen: at(-10),
            ..restored(Health::Known(Status::Passing))
        };
        assert_eq!(state(&recent, 59), Some(Ready));
        assert_eq!(state(&recent, 61), Some(Late));
    }

    #[test]
    fn orders_come_first() {
        use InstanceState::{Draining, Maintenance};
        let drain = Order::Drain {
            until: at(30),
            reason: String::new(),
        };
        let f = Facts {
            order: Some(drain),
            refused: true,
            ..facts()
        };
        assert_eq!(state(&f, 29), Some(Draining));
        assert_eq!(state(&f, 30), None);
        let order = Order::Maintenance {
            reason: String::new(),
        };
        let f = Facts {
            order: Some(order),
            last_seen: at(-100_000),
            ..facts()
        };
        assert_eq!(state(&f, 0), Some(Maintenance), "maintenance does not age");
        assert_eq!(
            state(
                &Facts {
                    node_maintenance: true,
                    ..facts()
                },
                0
            ),
            Some(Maintenance)
        );
    }

    fn any_facts() -> impl Strategy<Value = Facts> {
        let order = prop_oneof![
            3 => Just(None),
            1 => (0..500i64).prop_map(|s| Some(Order::Drain { until: at(s), reason: String::new() })),
            1 => Just(Some(Order::Maintenance { reason: String::new() })),
        ];
        let health = prop_oneof![
            Just(Health::Unknown),
            Just(Health::Known(Status::Passing)),
            Just(Health::Known(Status::Warning)),
            Just(Health::Known(Status::Critical)),
        ];
        (
            order,
            any::<bool>(),
            proptest::option::of(1..=300i64),
            -1_000..500i64,
            proptest::option::of(-100..500i64),
            health,
            any::<bool>(),
        )
            .prop_map(
                |(order, node, heartbeat, seen, restored, health, refused)| Facts {
                    order,
                    node_maintenance: node,
                    heartbeat: heartbeat.map(Duration::seconds),
                    last_seen: at(seen),
                    restored: restored.map(at),
                    health,
                    refused,
                },
            )
    }

    proptest! {
        #[test]
        fn nothing_changes_before_the_announced_moment(facts in any_facts(), s in -500..2_000i64, ahead in 0..200_000i64) {
            let now = at(s);
            let verdict = judge(&facts, now, Policy::default());
            if let Some(next) = verdict.next {
                prop_assert!(next > now, "the next moment {next} is not behind {now}");
            }
            let later = now + Duration::seconds(ahead);
            if verdict.next.is_none_or(|next| later < next) {
                prop_assert_eq!(judge(&facts, later, Policy::default()).fate, verdict.fate);
            }
        }

        #[test]
        fn silence_never_makes_ready(facts in any_facts(), s in -500..2_000i64, ahead in 1..200_000i64) {
            let ready = |s| state(&facts, s) == Some(InstanceState::Ready);
            if !ready(s) {
                prop_assert!(!ready(s + ahead));
            }
        }

        #[test]
        fn a_heartbeat_ends_silence(facts in any_facts(), s in 0..2_000i64) {
            let alive = Facts {
                order: None,
                node_maintenance: false,
                refused: false,
                health: Health::Known(Status::Passing),
                last_seen: at(s),
                restored: None,
                ..facts
            };
            prop_assert_eq!(state(&alive, s), Some(InstanceState::Ready));
        }
    }
}
