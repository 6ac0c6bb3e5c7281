//! Revoked users and sessions in memory, as small as their number asks for (ID-114).

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::RwLock;
use uuid::Uuid;

/// Parts of the table; a writer holds one of them for one insertion.
const SHARDS: usize = 64;
/// Most different causes; they are words of the house, so there are about twenty.
const MOST_CAUSES: usize = 250;

/// Tokens of a user below a version are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserMark {
    pub min: u32,
    pub cause: Cause,
    until: Seconds,
}

/// A session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionMark {
    pub cause: Cause,
    until: Seconds,
}

/// Index of a cause's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cause(u8);

/// Unix seconds until the year 2106, in half the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seconds(u32);

impl Seconds {
    fn of(unix_s: i64) -> Self {
        Self(u32::try_from(unix_s.max(0)).unwrap_or(u32::MAX))
    }
}

type Shards<V> = Box<[RwLock<HashMap<Uuid, V>>]>;

/// All marks.
#[derive(Debug)]
pub(super) struct Marks {
    users: Shards<UserMark>,
    sessions: Shards<SessionMark>,
    causes: RwLock<Vec<Arc<str>>>,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            users: shards(),
            sessions: shards(),
            causes: RwLock::default(),
        }
    }
}

impl Marks {
    /// Refuses tokens of a user below `min` until then. Of several marks the highest version counts.
    pub(super) fn user(&self, user: Uuid, min: u32, until_s: i64, cause: &str) {
        let mark = UserMark {
            min,
            cause: self.cause(cause),
            until: Seconds::of(until_s),
        };
        let mut shard = self.users[index(user)].write();
        let kept = shard.entry(user).or_insert(mark);
        if mark.min > kept.min {
            kept.min = mark.min;
            kept.cause = mark.cause;
        }
        kept.until = kept.until.max(mark.until);
    }

    /// Refuses a session until then.
    pub(super) fn session(&self, session: Uuid, until_s: i64, cause: &str) {
        let mark = SessionMark {
            cause: self.cause(cause),
            until: Seconds::of(until_s),
        };
        let mut shard = self.sessions[index(session)].write();
        let kept = shard.entry(session).or_insert(mark);
        kept.until = kept.until.max(mark.until);
    }

    pub(super) fn of_user(&self, user: Uuid) -> Option<UserMark> {
        self.users[index(user)].read().get(&user).copied()
    }

    pub(super) fn of_session(&self, session: Uuid) -> Option<SessionMark> {
        self.sessions[index(session)].read().get(&session).copied()
    }

    /// The word of a cause.
    pub(super) fn word(&self, cause: Cause) -> Option<Arc<str>> {
        self.causes.read().get(usize::from(cause.0)).cloned()
    }

    /// Drops what means nothing any more.
    pub(super) fn sweep(&self, now_s: i64) {
        let now = Seconds::of(now_s);
        for shard in &self.users {
            let mut shard = shard.write();
            shard.retain(|_, mark| mark.until > now);
            give_back(&mut shard);
        }
        for shard in &self.sessions {
            let mut shard = shard.write();
            shard.retain(|_, mark| mark.until > now);
            give_back(&mut shard);
        }
    }

    pub(super) fn len(&self) -> usize {
        let users: usize = self.users.iter().map(|s| s.read().len()).sum();
        let sessions: usize = self.sessions.iter().map(|s| s.read().len()).sum();
        users + sessions
    }

    /// Bytes of the tables as they are allocated: entries and one control byte each (hashbrown's layout).
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        fn of<V>(shards: &Shards<V>) -> usize {
            let buckets =
                |s: &RwLock<HashMap<Uuid, V>>| (s.read().capacity() * 8 / 7).next_power_of_two();
            shards
                .iter()
                .map(|s| buckets(s) * (size_of::<(Uuid, V)>() + 1))
                .sum()
        }
        of(&self.users) + of(&self.sessions)
    }

    fn cause(&self, word: &str) -> Cause {
        let known = |causes: &[Arc<str>]| causes.iter().position(|c| **c == *word);
        if let Some(at) = known(&self.causes.read()) {
            return Cause(u8::try_from(at).unwrap_or(u8::MAX));
        }
        let mut causes = self.causes.write();
        let at = known(&causes).unwrap_or_else(|| {
            if causes.len() < MOST_CAUSES {
                causes.push(word.into());
                causes.len() - 1
            } else {
                usize::from(u8::MAX)
            }
        });
        Cause(u8::try_from(at).unwrap_or(u8::MAX))
    }
}

fn shards<V>() -> Shards<V> {
    (0..SHARDS).map(|_| RwLock::default()).collect()
}

/// The last byte of our ids is random.
const fn index(id: Uuid) -> usize {
    id.as_bytes()[15] as usize % SHARDS
}

fn give_back<V>(shard: &mut HashMap<Uuid, V>) {
    if shard.capacity() > 4 * shard.len().max(64) {
        shard.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> Uuid {
        // Spread like real ids.
        Uuid::from_u128(
            u128::try_from(number)
                .unwrap()
                .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        )
    }

    /// ID-114: 200,000 live entries take at most 20 MiB, and what is over is dropped.
    #[test]
    fn two_hundred_thousand_entries_are_small() {
        let marks = Marks::default();
        for number in 0..100_000 {
            marks.user(id(number), 2, 1_000 + i64::from(number >= 50_000), "logout");
            marks.session(id(number), 1_000, "kicked");
        }
        assert_eq!(marks.len(), 200_000);
        assert!(marks.bytes() <= 20 << 20, "{} bytes", marks.bytes());
        marks.sweep(1_000);
        assert_eq!(marks.len(), 50_000);
        assert!(marks.of_session(id(1)).is_none() && marks.of_user(id(1)).is_none());
        assert_eq!(marks.of_user(id(70_000)).map(|m| m.min), Some(2));
        marks.sweep(1_001);
        assert_eq!(marks.len(), 0);
        assert!(marks.bytes() < 1 << 20, "{} bytes", marks.bytes());
    }

    #[test]
    fn causes_have_a_bound() {
        let marks = Marks::default();
        for number in 0..300 {
            marks.session(id(number), 10, &format!("cause-{number}"));
        }
        let word = |number| {
            marks
                .of_session(id(number))
                .and_then(|m| marks.word(m.cause))
        };
        assert_eq!(word(7).as_deref(), Some("cause-7"));
        assert_eq!(word(299), None);
    }

    proptest! {
        /// Whatever the order in which rows arrive, and however often, the highest version counts.
        #[test]
        fn the_highest_version_counts(mut rows in proptest::collection::vec((0..4_usize, 1..20_u32), 1..40)) {
            let marks = Marks::default();
            let mut wanted = [0_u32; 4];
            rows.extend(rows.clone().into_iter().rev());
            for (user, min) in rows {
                marks.user(id(user), min, 10, if min % 2 == 0 { "even" } else { "odd" });
                wanted[user] = wanted[user].max(min);
            }
            for (user, min) in wanted.into_iter().enumerate().filter(|(_, min)| *min > 0) {
                let mark = marks.of_user(id(user)).unwrap();
                prop_assert_eq!(mark.min, min);
                let cause = if min % 2 == 0 { "even" } else { "odd" };
                let word = marks.word(mark.cause);
                prop_assert_eq!(word.as_deref(), Some(cause));
            }
        }
    }
}
