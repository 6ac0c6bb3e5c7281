//! Whether a value fulfils a checked expression.

use serde_json::Value;

use super::check::{Checked, Wanted};
use super::parse::Op;

/// True when the value fulfils the expression.
pub(super) fn holds(expression: &Checked, value: &Value) -> bool {
    match expression {
        Checked::Or(parts) => parts.iter().any(|part| holds(part, value)),
        Checked::And(parts) => parts.iter().all(|part| holds(part, value)),
        Checked::Not(inner) => !holds(inner, value),
        Checked::Match {
            path,
            op,
            value: wanted,
        } => reach(path, *op, wanted, value),
    }
}

/// Follows a selector. Through a list any element will do; a missing key fulfils every negative operator.
fn reach(path: &[String], op: Op, wanted: &Wanted, value: &Value) -> bool {
    let Some((step, rest)) = path.split_first() else {
        return compare(op, wanted, value);
    };
    match value {
        Value::Array(items) => items.iter().any(|item| reach(path, op, wanted, item)),
        Value::Object(map) => match map.get(step) {
            Some(inner) => reach(rest, op, wanted, inner),
            None => op.is_negative(),
        },
        _ => op.is_negative(),
    }
}

fn compare(op: Op, wanted: &Wanted, value: &Value) -> bool {
    match op {
        Op::Equal => equals(wanted, value),
        Op::NotEqual => !equals(wanted, value),
        Op::In => contains(wanted, value),
        Op::NotIn => !contains(wanted, value),
        Op::IsEmpty => is_empty(value),
        Op::IsNotEmpty => !is_empty(value),
        Op::Matches => matches(wanted, value),
        Op::NotMatches => !matches(wanted, value),
    }
}

fn equals(wanted: &Wanted, value: &Value) -> bool {
    match wanted {
        Wanted::Text(text) => value.as_str().unwrap_or_default() == text,
        Wanted::Integer(n) => value.as_i64().unwrap_or_default() == *n,
        Wanted::Bool(flag) => value.as_bool().unwrap_or_default() == *flag,
        Wanted::Nothing | Wanted::Pattern(_) => false,
    }
}

fn contains(wanted: &Wanted, value: &Value) -> bool {
    let Wanted::Text(text) = wanted else {
        return false;
    };
    match value {
        Value::String(whole) => whole.contains(text.as_str()),
        Value::Array(items) => items.iter().any(|item| item.as_str() == Some(text)),
        Value::Object(map) => map.contains_key(text),
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        other => other.is_null(),
    }
}

fn matches(wanted: &Wanted, value: &Value) -> bool {
    match wanted {
        Wanted::Pattern(pattern) => pattern.is_match(value.as_str().unwrap_or_default()),
        _ => false,
    }
}
