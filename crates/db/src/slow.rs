//! Slow statements: logged with a fingerprint, time and rows, never with their parameters (SC-9).

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Slow runs that are remembered; older ones are forgotten first.
const KEPT: usize = 4_096;
/// Longest text that is kept of a statement, in bytes.
const TEXT_MAX: usize = 1_000;
/// How far back [`SlowStatements::worst`] looks.
const WINDOW: chrono::Duration = chrono::Duration::hours(1);

/// What one statement did in the last hour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlowStatement {
    /// First 16 hexadecimal digits of the SHA-256 of `sql`.
    pub fingerprint: String,
    /// The statement without values, lists shortened.
    pub sql: Arc<str>,
    /// Slow runs.
    pub count: u64,
    /// Their time together.
    pub total_ms: u64,
    /// The slowest.
    pub max_ms: u64,
    /// Rows given or changed, together.
    pub rows: u64,
    /// The last slow run.
    pub last_at: Timestamp,
}

struct Run {
    fingerprint: u64,
    sql: Arc<str>,
    ms: u64,
    rows: u64,
    at: Timestamp,
}

/// The slow statements of the last hour, in memory.
#[derive(Default)]
pub struct SlowStatements(Mutex<VecDeque<Run>>);

impl SlowStatements {
    pub(crate) fn record(&self, sql: &str, took: Duration, rows: u64, at: Timestamp) {
        let sql = normalise(sql);
        let fingerprint = fingerprint(&sql);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            fingerprint = format!("{fingerprint:016x}"),
            ms,
            rows,
            statement = sql,
            "slow statement"
        );
        let mut runs = self.0.lock();
        if runs.len() == KEPT {
            runs.pop_front();
        }
        runs.push_back(Run {
            fingerprint,
            sql: Arc::from(sql),
            ms,
            rows,
            at,
        });
    }

    /// The statements that cost most in the hour before `now`, worst first, at most `limit`.
    #[must_use]
    pub fn worst(&self, now: Timestamp, limit: usize) -> Vec<SlowStatement> {
        let mut by_print: HashMap<u64, SlowStatement> = HashMap::new();
        for run in self.0.lock().iter().filter(|r| r.at > now - WINDOW) {
            let sum = by_print
                .entry(run.fingerprint)
                .or_insert_with(|| SlowStatement {
                    fingerprint: format!("{:016x}", run.fingerprint),
                    sql: Arc::clone(&run.sql),
                    count: 0,
                    total_ms: 0,
                    max_ms: 0,
                    rows: 0,
                    last_at: run.at,
                });
            sum.count += 1;
            sum.total_ms += run.ms;
            sum.max_ms = sum.max_ms.max(run.ms);
            sum.rows += run.rows;
            sum.last_at = sum.last_at.max(run.at);
        }
        let mut all: Vec<_> = by_print.into_values().collect();
        all.sort_by(|a, b| {
            (b.total_ms, &a.fingerprint)
                .cmp(&(a.total_ms, &b.fingerprint))
                .then(b.count.cmp(&a.count))
        });
        all.truncate(limit);
        all
    }
}

/// A statement without its values, and the fingerprint that the log of slow statements shows for it.
pub(crate) fn describe(sql: &str) -> (String, String) {
    let text = normalise(sql);
    let fingerprint = format!("{:016x}", fingerprint(&text));
    (text, fingerprint)
}

fn fingerprint(sql: &str) -> u64 {
    let digest = Sha256::digest(sql.as_bytes());
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(head)
}

/// Replaces placeholders, numbers and strings by `?` and shortens lists of them, so that one kind of
/// statement has one text whatever the number of its values.
fn normalise(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len().min(TEXT_MAX));
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        let in_word = out
            .chars()
            .next_back()
            .is_some_and(|p| p.is_alphanumeric() || p == '_' || p == '"');
        match c {
            '\'' => {
                skip_string(&mut chars);
                put_value(&mut out);
            }
            '$' | '?' => {
                while chars.next_if(char::is_ascii_digit).is_some() {}
                put_value(&mut out);
            }
            '0'..='9' if !in_word => {
                while chars.next_if(|d| d.is_ascii_digit() || *d == '.').is_some() {}
                put_value(&mut out);
            }
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            ')' => {
                out.push(')');
                if out.ends_with("(?), (?)") {
                    out.truncate(out.len() - ", (?)".len());
                }
            }
            c => out.push(c),
        }
        if out.len() >= TEXT_MAX {
            let _ = write!(out, "…");
            break;
        }
    }
    out
}

fn skip_string(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(c) = chars.next() {
        // Two quotes are one quote inside the string.
        if c == '\'' && chars.next_if_eq(&'\'').is_none() {
            return;
        }
    }
}

fn put_value(out: &mut String) {
    if out.ends_with("?, ") {
        out.truncate(out.len() - 2);
    } else if !out.ends_with('?') {
        out.push('?');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::clock::from_unix_ms;

    #[test]
    fn values_and_lists_do_not_show() {
        assert_eq!(
            normalise("SELECT \"a1\" FROM t2 WHERE x = 'se''cret' AND y IN ($1, $2, $3) LIMIT 50"),
            "SELECT \"a1\" FROM t2 WHERE x = ? AND y IN (?) LIMIT ?"
        );
        assert_eq!(
            normalise("INSERT INTO t (a, b) VALUES (?, ?), (?, ?), (?, ?)"),
            normalise("INSERT INTO t (a, b)  VALUES ($1, $2)")
        );
        assert!(normalise(&"x ".repeat(5_000)).len() < TEXT_MAX + 8);
    }

    #[test]
    fn the_worst_of_the_last_hour_come_first() {
        let slow = SlowStatements::default();
        let at = |min: i64| from_unix_ms(min * 60_000);
        slow.record("SELECT 1 FROM old", Duration::from_secs(90), 1, at(0));
        slow.record("SELECT a FROM t", Duration::from_millis(300), 2, at(70));
        slow.record("SELECT a FROM t", Duration::from_millis(500), 3, at(80));
        slow.record("SELECT b FROM t", Duration::from_millis(700), 1, at(80));
        let worst = slow.worst(at(90), 50);
        assert_eq!(worst.len(), 2);
        assert_eq!((worst[0].count, worst[0].total_ms), (2, 800));
        assert_eq!((worst[0].max_ms, worst[0].rows), (500, 5));
        assert_eq!(slow.worst(at(90), 1).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in ".{0,300}") {
            let once = normalise(&text);
            proptest::prop_assert!(once.len() <= TEXT_MAX + 8);
        }
    }
}
