//! Differences of two values: line by line for text, path by path for everything else (CT-8).

use serde::Serialize;
use serde_json::Value;

/// Above so many pairs of lines the middle is told as one replacement.
const MOST_PAIRS: usize = 4_000_000;

/// How two values differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Diff {
    /// Texts with several lines.
    Lines {
        /// All lines of both.
        lines: Vec<Line>,
    },
    /// Paths that differ, in their order.
    Paths {
        /// What changed where.
        changes: Vec<Change>,
    },
}

/// One line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    /// `same`, `removed` or `added`.
    pub op: &'static str,
    /// The line.
    pub text: String,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Change {
    /// `limits.per_day[2]`; empty for the whole value.
    pub path: String,
    /// Absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The difference of two values; nothing stands for a value that is not set.
pub(crate) fn diff(before: Option<&Value>, after: Option<&Value>) -> Diff {
    let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
    match (text(before), text(after)) {
        (Some(a), Some(b)) if a.contains('\n') || b.contains('\n') => Diff::Lines {
            lines: lines(&a, &b),
        },
        _ => Diff::Paths {
            changes: paths(before, after),
        },
    }
}

/// The paths at which two values differ.
pub(crate) fn paths(before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let mut out = Vec::new();
    walk("", before, after, &mut out);
    out
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, out: &mut Vec<Change>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let dot = if path.is_empty() { "" } else { "." };
                walk(&format!("{path}{dot}{name}"), a.get(name), b.get(name), out);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for i in 0..a.len().max(b.len()) {
                walk(&format!("{path}[{i}]"), a.get(i), b.get(i), out);
            }
        }
        _ => out.push(Change {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

fn lines(before: &str, after: &str) -> Vec<Line> {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let head = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = a.len().min(b.len()) - head;
    let tail = a.iter().rev().zip(b.iter().rev()).take(rest);
    let tail = tail.take_while(|(x, y)| x == y).count();
    let line = |op, text: &&str| Line {
        op,
        text: (*text).to_owned(),
    };
    let mut out: Vec<Line> = a[..head].iter().map(|t| line("same", t)).collect();
    let (from, to) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    if from.len().saturating_mul(to.len()) > MOST_PAIRS {
        out.extend(from.iter().map(|t| line("removed", t)));
        out.extend(to.iter().map(|t| line("added", t)));
    } else {
        out.extend(
            middle(from, to)
                .into_iter()
                .map(|(op, text)| line(op, &text)),
        );
    }
    out.extend(a[a.len() - tail..].iter().map(|t| line("same", t)));
    out
}

/// Longest common subsequence by dynamic programming.
fn middle<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    let wide = b.len() + 1;
    let mut common = vec![0_u32; (a.len() + 1) * wide];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * wide + j] = if a[i] == b[j] {
                common[(i + 1) * wide + j + 1] + 1
            } else {
                common[(i + 1) * wide + j].max(common[i * wide + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(("same", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len()
            || (i < a.len() && common[(i + 1) * wide + j] >= common[i * wide + j + 1])
        {
            out.push(("removed", a[i]));
            i += 1;
        } else {
            out.push(("added", b[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_by_path_and_texts_by_line() {
        let (a, b) = (
            json!({"x": 1, "l": [1, 2]}),
            json!({"x": 2, "l": [1], "n": null}),
        );
        let changes = paths(Some(&a), Some(&b));
        let told: Vec<&str> = changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(told, ["l[1]", "n", "x"]);
        assert_eq!(changes[0].after, None);
        let Diff::Lines { lines } = diff(Some(&json!("a\nb\nc")), Some(&json!("a\nc\nd"))) else {
            panic!("texts with lines are told by line");
        };
        let told: Vec<String> = lines
            .iter()
            .map(|l| format!("{} {}", l.op, l.text))
            .collect();
        assert_eq!(told, ["same a", "removed b", "same c", "added d"]);
    }

    proptest! {
        #[test]
        fn both_texts_can_be_read_from_their_difference(a in "[ab\n]{0,30}", b in "[ab\n]{0,30}") {
            let all = lines(&a, &b);
            let side = |op: &str| all.iter().filter(|l| l.op == "same" || l.op == op).map(|l| l.text.as_str()).collect::<Vec<_>>();
            prop_assert_eq!(side("removed"), a.lines().collect::<Vec<_>>());
            prop_assert_eq!(side("added"), b.lines().collect::<Vec<_>>());
        }
    }
}
