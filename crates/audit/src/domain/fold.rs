//! Failures in bulk: the first twenty of a minute are recorded, one record counts the rest (CT-39).

use std::collections::HashMap;

use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_contract::audit::{Change, Outcome};

use super::record::Entry;

/// Equal failures that are recorded one by one within a minute.
const FREE: u32 = 20;
/// Different failures that are told apart; further ones are counted together by action.
const MOST: usize = 10_000;

/// What is equal: action, actor (or the address of nobody), error code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    action: &'static str,
    who: String,
    code: Option<String>,
}

struct Count {
    minute: i64,
    seen: u32,
    folded: u64,
    /// The last one that was not recorded, as the example of all.
    example: Option<Entry>,
}

/// Counts failures by what is equal.
#[derive(Default)]
pub(crate) struct Folder(Mutex<HashMap<Key, Count>>);

impl Folder {
    /// True when a failure is to be recorded; else it was counted.
    pub(crate) fn passes(&self, entry: &Entry) -> bool {
        self.take(entry, false)
    }

    /// Counts a failure that could not be recorded.
    pub(crate) fn count(&self, entry: &Entry) {
        self.take(entry, true);
    }

    fn take(&self, entry: &Entry, force: bool) -> bool {
        if entry.outcome == Outcome::Done {
            return true;
        }
        let minute = minute(entry.context.now());
        let mut all = self.0.lock();
        let mut key = key(entry);
        if all.len() >= MOST && !all.contains_key(&key) {
            "*".clone_into(&mut key.who);
        }
        let count = all.entry(key).or_insert_with(|| Count {
            minute,
            seen: 0,
            folded: 0,
            example: None,
        });
        if count.minute != minute && count.folded == 0 {
            count.minute = minute;
            count.seen = 0;
        }
        count.seen = count.seen.saturating_add(1);
        // While a minute's count waits to be written, the next minute's failures join it.
        if !force && count.seen <= FREE && count.folded == 0 {
            return true;
        }
        count.folded += 1;
        count.example = Some(entry.clone());
        false
    }

    /// The counting records of minutes that are over; all of them when `stop`.
    pub(crate) fn due(&self, now: Timestamp, stop: bool) -> Vec<Entry> {
        let present = minute(now);
        let mut due = Vec::new();
        self.0.lock().retain(|_, count| {
            if count.minute == present && !stop {
                return true;
            }
            if let Some(mut entry) = count.example.take() {
                entry.changes = vec![
                    change("folded", true.into()),
                    change("count", count.folded.into()),
                ];
                due.push(entry);
            }
            false
        });
        due
    }
}

fn key(entry: &Entry) -> Key {
    let principal = entry.context.principal();
    let who = if principal.is_authenticated() {
        principal.subject.to_string()
    } else {
        { entry.context.caller.address }.map_or_else(String::new, |ip| ip.to_string())
    };
    Key {
        action: entry.action,
        who,
        code: entry.code.clone(),
    }
}

fn change(path: &str, after: serde_json::Value) -> Change {
    Change {
        path: path.to_owned(),
        before: None,
        after: Some(after),
    }
}

fn minute(at: Timestamp) -> i64 {
    at.timestamp().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::Duration;
    use portico_base::{Caller, Clock as _, Context, ManualClock, Principal, SystemRandom, id};
    use portico_contract::audit::Record;

    use super::*;

    fn entry(clock: &ManualClock, ip: [u8; 4], code: &'static str) -> Entry {
        let mut caller = Caller::internal(Principal::anonymous(), "r");
        caller.address = Some(ip.into());
        let context = Context {
            caller,
            clock: Arc::new(clock.clone()),
            random: Arc::new(SystemRandom),
        };
        let record = Record {
            outcome: Outcome::Failed,
            code: Some(code),
            ..Record::done(
                "identity.login.failed",
                "user",
                "unknown",
                id::TENANT_DEFAULT,
            )
        };
        Entry::new(&context, record)
    }

    #[test]
    fn twenty_pass_and_the_rest_is_counted_once() {
        let clock = ManualClock::at(portico_base::clock::from_unix_ms(1_800_000_000_000));
        let folder = Folder::default();
        let one = entry(&clock, [203, 0, 113, 1], "identity.login_failed");
        let passed = (0..100).filter(|_| folder.passes(&one)).count();
        assert_eq!(passed, 20);
        // Another address and another code are other failures.
        assert!(folder.passes(&entry(&clock, [203, 0, 113, 2], "identity.login_failed")));
        assert!(folder.passes(&entry(&clock, [203, 0, 113, 1], "identity.locked")));
        assert!(
            folder.due(clock.now(), false).is_empty(),
            "the minute is not over"
        );
        clock.advance(Duration::seconds(60));
        let due = folder.due(clock.now(), false);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].changes[1].after, Some(80.into()));
        assert!(folder.passes(&one), "a new minute begins with twenty again");
        assert!(
            folder.due(clock.now(), true).is_empty(),
            "nothing was folded since"
        );
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_lost_beyond_it() {
        let clock = ManualClock::at(portico_base::clock::from_unix_ms(1_800_000_000_000));
        let folder = Folder::default();
        let many = u32::try_from(MOST).unwrap() + 500;
        let mut passed = 0_u64;
        for n in 0..many {
            passed += u64::from(folder.passes(&entry(&clock, n.to_be_bytes(), "x")));
        }
        assert!(folder.0.lock().len() <= MOST + 1);
        let due = folder.due(clock.now(), true);
        let folded: u64 = { due.iter() }
            .filter_map(|e| e.changes[1].after.as_ref()?.as_u64())
            .sum();
        assert_eq!(passed + folded, u64::from(many));
    }
}
