//! The same error more than ten times a second is folded: the rest is counted and told in one line (OB-34).

use std::collections::HashMap;

/// Lines of one kind that are written in a second.
const FULL: u32 = 10;
/// Kinds that are watched at once; beyond that nothing is folded.
const KINDS: usize = 1_024;

/// What happens to a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Written; so many before it were not.
    Write(u64),
    /// Counted.
    Fold,
}

/// A line that stands for those that were folded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary<T> {
    pub(super) kind: T,
    pub(super) folded: u64,
}

#[derive(Debug)]
pub(super) struct Folder<T> {
    kinds: HashMap<u64, Kind<T>>,
}

#[derive(Debug)]
struct Kind<T> {
    second: i64,
    seen: u32,
    folded: u64,
    sample: T,
}

impl<T> Default for Folder<T> {
    fn default() -> Self {
        Self {
            kinds: HashMap::new(),
        }
    }
}

impl<T: Clone> Folder<T> {
    /// Counts a line of kind `key`; `sample` is what a summary of it is made of.
    pub(super) fn see(&mut self, key: u64, second: i64, sample: impl FnOnce() -> T) -> Verdict {
        if !self.kinds.contains_key(&key) {
            if self.kinds.len() >= KINDS {
                self.kinds
                    .retain(|_, kind| kind.second == second || kind.folded > 0);
            }
            if self.kinds.len() >= KINDS {
                return Verdict::Write(0);
            }
        }
        let kind = self.kinds.entry(key).or_insert_with(|| Kind {
            second,
            seen: 0,
            folded: 0,
            sample: sample(),
        });
        if kind.second != second {
            kind.second = second;
            kind.seen = 0;
        }
        kind.seen += 1;
        if kind.seen > FULL {
            kind.folded += 1;
            return Verdict::Fold;
        }
        Verdict::Write(std::mem::take(&mut kind.folded))
    }

    /// Kinds that have been silent since the second before, with what was folded of them.
    pub(super) fn summaries(&mut self, second: i64) -> Vec<Summary<T>> {
        let mut out = Vec::new();
        self.kinds.retain(|_, kind| {
            if kind.second >= second {
                return true;
            }
            if kind.folded > 0 {
                out.push(Summary {
                    kind: kind.sample.clone(),
                    folded: kind.folded,
                });
            }
            false
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eleventh_and_later_lines_of_a_second_are_folded() {
        let mut folder = Folder::default();
        for i in 0..25 {
            let expected = if i < 10 {
                Verdict::Write(0)
            } else {
                Verdict::Fold
            };
            assert_eq!(folder.see(1, 100, || "kind 1"), expected);
        }
        assert_eq!(folder.see(2, 100, || "kind 2"), Verdict::Write(0));
        assert!(folder.summaries(100).is_empty(), "the second is not over");
        assert_eq!(folder.see(1, 101, || "kind 1"), Verdict::Write(15));
        for _ in 0..12 {
            folder.see(1, 101, || "kind 1");
        }
        let summaries = folder.summaries(103);
        assert_eq!(
            summaries,
            [Summary {
                kind: "kind 1",
                folded: 3
            }]
        );
        assert!(folder.kinds.is_empty(), "silent kinds are forgotten");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut folder = Folder::default();
        for key in 0..5_000 {
            assert_eq!(folder.see(key, 7, || ()), Verdict::Write(0));
        }
        assert_eq!(folder.kinds.len(), KINDS);
        for key in 10_000..10_010 {
            folder.see(key, 8, || ());
        }
        assert!(folder.kinds.len() <= 10);
    }
}
