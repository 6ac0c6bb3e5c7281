//! What a presented refresh token means: the table of identity-protocols §8, as a pure function.

use chrono::Duration;
use portico_base::Timestamp;

/// Tabs of one browser refresh at once; within this time after a rotation that is what happened.
const RACE: Duration = Duration::seconds(10);

/// This generation had a late retry.
pub(crate) const THIS: u8 = 0b01;
/// The generation before had one.
const BEFORE: u8 = 0b10;

/// What the row of a session knows of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub counter: u32,
    pub rotated_at: Timestamp,
    pub retried: u8,
}

/// What happens to a presented token. Genuineness was checked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The newest: rotate.
    Rotate,
    /// Tabs raced: the token of now again.
    Raced,
    /// The answer was lost: the token of now again, once.
    Retried,
    /// Somebody else has used it: the session ends.
    Reused,
    /// Never made.
    Invalid,
}

/// Judges a token with the counter `presented`. `proved`: the secret of the session's device came with it.
pub(crate) fn judge(presented: u32, stored: Stored, now: Timestamp, proved: bool) -> Step {
    let behind = i64::from(stored.counter) - i64::from(presented);
    match behind {
        0 => Step::Rotate,
        1 if now - stored.rotated_at <= RACE => Step::Raced,
        1 if proved && stored.retried & BEFORE == 0 => Step::Retried,
        1.. => Step::Reused,
        _ => Step::Invalid,
    }
}

/// The retries as the next generation remembers them.
pub(crate) const fn rotated(retried: u8) -> u8 {
    (retried & THIS) << 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::default() + Duration::seconds(1_000_000 + seconds)
    }

    fn stored(counter: u32, retried: u8) -> Stored {
        Stored {
            counter,
            rotated_at: at(0),
            retried,
        }
    }

    #[test]
    fn the_table() {
        let judge = |p, retried, after, proved| judge(p, stored(7, retried), at(after), proved);
        assert_eq!(judge(7, 0, 0, false), Step::Rotate);
        assert_eq!(judge(7, 3, 100_000, false), Step::Rotate);
        assert_eq!(judge(6, 3, 10, false), Step::Raced);
        assert_eq!(judge(6, 0, -5, false), Step::Raced);
        assert_eq!(judge(6, 0, 11, true), Step::Retried);
        assert_eq!(judge(6, THIS, 11, true), Step::Retried);
        assert_eq!(judge(6, 0, 11, false), Step::Reused);
        assert_eq!(judge(6, BEFORE, 11, true), Step::Reused);
        assert_eq!(judge(5, 0, 0, true), Step::Reused);
        assert_eq!(judge(0, 0, 0, true), Step::Reused);
        assert_eq!(judge(8, 0, 0, true), Step::Invalid);
        assert_eq!(judge(u32::MAX, 0, 0, true), Step::Invalid);
    }

    /// The table as a story: which generation was handed out when, and which had a late retry.
    #[derive(Default)]
    struct Model {
        rotations: Vec<i64>,
        late: Vec<bool>,
        dead: bool,
    }

    impl Model {
        /// Generation 0 is the login at second 0.
        fn new() -> Self {
            Self {
                rotations: vec![0],
                late: vec![false],
                dead: false,
            }
        }

        fn present(&mut self, generation: usize, now: i64, proved: bool) -> &'static str {
            let newest = self.rotations.len() - 1;
            if self.dead || generation > newest {
                return "invalid";
            }
            if generation == newest {
                self.rotations.push(now);
                self.late.push(false);
                return "rotated";
            }
            if generation + 1 == newest {
                if now - self.rotations[newest] <= 10 {
                    return "same";
                }
                let twice = newest > 0 && self.late[newest - 1];
                if proved && !twice {
                    self.late[newest] = true;
                    return "same";
                }
            }
            self.dead = true;
            "killed"
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever is presented in whatever order, the row of one counter and two bits answers as the whole
        /// story would.
        #[test]
        fn the_row_answers_as_the_whole_story(
            steps in prop::collection::vec((0_u32..4, 0_i64..25, any::<bool>()), 1..60)
        ) {
            let (mut model, mut row, mut dead) = (Model::new(), stored(0, 0), false);
            let mut now = 0;
            for (back, wait, proved) in steps {
                now += wait;
                // Now and then a token that was never made.
                let presented = if back == 3 { row.counter + 1 } else { row.counter.saturating_sub(back) };
                let wanted = model.present(presented as usize, now, proved);
                let step = if dead { Step::Invalid } else { judge(presented, row, at(now), proved) };
                let got = match step {
                    Step::Rotate => {
                        row = Stored {
                            counter: row.counter + 1,
                            rotated_at: at(now),
                            retried: rotated(row.retried),
                        };
                        "rotated"
                    }
                    Step::Raced => "same",
                    Step::Retried => {
                        row.retried |= THIS;
                        "same"
                    }
                    Step::Reused => {
                        dead = true;
                        "killed"
                    }
                    Step::Invalid => "invalid",
                };
                prop_assert_eq!(got, wanted, "token {} of {} at {}", presented, row.counter, now);
            }
        }

        /// Thief and victim, each with the device's secret and each always one behind: the second late retry
        /// in successive generations ends it, whatever the pace.
        #[test]
        fn a_leapfrog_ends(pauses in prop::collection::vec(11_i64..100_000, 4..40)) {
            let mut row = stored(1, 0);
            let mut now = 0;
            let mut late = 0;
            for pause in pauses {
                now += pause;
                // Whoever was overtaken presents the one before and is given the newest, then rotates it.
                match judge(row.counter - 1, row, at(now), true) {
                    Step::Retried => {
                        late += 1;
                        row.retried |= THIS;
                        row = Stored {
                            counter: row.counter + 1,
                            rotated_at: at(now),
                            retried: rotated(row.retried),
                        };
                    }
                    Step::Reused => {
                        prop_assert_eq!(late, 1);
                        return Ok(());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert!(false, "it went on");
        }
    }
}
