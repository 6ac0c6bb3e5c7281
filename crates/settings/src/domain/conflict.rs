//! A lost update that was refused, with both sides told apart (CT-5).

use portico_base::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::diff::{Change, paths};
use super::state::Author;

/// One key that somebody else changed since.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Conflict {
    pub key: String,
    /// The version that the change was based on; absent when it was based on a position.
    pub base_version: Option<u64>,
    /// The present version.
    pub version: u64,
    /// The present value; for a secret its fingerprint; null when it is not set.
    pub current: Value,
    pub changed_by: Option<Author>,
    pub changed_at: Option<Timestamp>,
    pub diff: ThreeWay,
}

/// What both sides did to the common base.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct ThreeWay {
    /// From the base to the present value.
    pub theirs: Vec<Change>,
    /// From the base to the wished value.
    pub yours: Vec<Change>,
    /// Paths that both changed, differently.
    pub clashes: Vec<String>,
}

impl ThreeWay {
    /// Compares both sides with what they began from.
    pub(crate) fn of(base: Option<&Value>, theirs: Option<&Value>, yours: Option<&Value>) -> Self {
        let (theirs, yours) = (paths(base, theirs), paths(base, yours));
        let clash = |mine: &Change| {
            theirs
                .iter()
                .any(|t| touches(&t.path, &mine.path) && t.after != mine.after)
        };
        Self {
            clashes: yours
                .iter()
                .filter(|c| clash(c))
                .map(|c| c.path.clone())
                .collect(),
            theirs,
            yours,
        }
    }
}

/// Does one path hold the other?
fn touches(a: &str, b: &str) -> bool {
    let holds = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
    };
    holds(a, b) || holds(b, a)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_both_changed_differently_clashes() {
        let base = json!({"a": 1, "b": 1, "c": {"x": 1}});
        let theirs = json!({"a": 2, "b": 1, "c": 5});
        let yours = json!({"a": 2, "b": 3, "c": {"x": 2}});
        let three = ThreeWay::of(Some(&base), Some(&theirs), Some(&yours));
        assert_eq!(three.clashes, ["c.x"]);
        assert_eq!(three.theirs.len(), 2);
        assert_eq!(three.yours.len(), 3);
        assert!(!touches("ab", "a") && touches("a[0]", "a") && touches("", "a"));
    }
}
