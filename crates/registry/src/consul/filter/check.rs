//! Whether an expression fits what an endpoint shows: selectors, operators, values.

use regex::{Regex, RegexBuilder};

use super::Kind;
use super::parse::{Expression, Op};
use crate::consul::duration::quoted;

/// Largest compiled regular expression in bytes.
const REGEX_BYTES: usize = 1 << 18;

/// An expression that fits.
#[derive(Debug)]
pub(super) enum Checked {
    Or(Vec<Self>),
    And(Vec<Self>),
    Not(Box<Self>),
    Match {
        path: Vec<String>,
        op: Op,
        value: Wanted,
    },
}

/// What is compared with.
#[derive(Debug)]
pub(super) enum Wanted {
    Nothing,
    Text(String),
    Integer(i64),
    Bool(bool),
    Pattern(Box<Regex>),
}

/// Checks an expression.
pub(super) fn check(expression: Expression, kind: &'static Kind) -> Result<Checked, String> {
    Ok(match expression {
        Expression::Or(parts) => Checked::Or(all(parts, kind)?),
        Expression::And(parts) => Checked::And(all(parts, kind)?),
        Expression::Not(inner) => Checked::Not(Box::new(check(*inner, kind)?)),
        Expression::Match {
            selector,
            op,
            value,
        } => {
            let leaf = find(&selector, kind)
                .ok_or_else(|| format!("Selector {} is not valid", quoted(&selector.join("."))))?;
            let value = wanted(leaf, op, value, &selector)?;
            Checked::Match {
                path: selector,
                op,
                value,
            }
        }
    })
}

fn all(parts: Vec<Expression>, kind: &'static Kind) -> Result<Vec<Checked>, String> {
    parts.into_iter().map(|part| check(part, kind)).collect()
}

/// The type behind a selector.
fn find(path: &[String], kind: &'static Kind) -> Option<&'static Kind> {
    let mut kind = kind;
    for step in path {
        kind = match kind {
            Kind::List(inner) => inner,
            other => other,
        };
        kind = match kind {
            Kind::Struct(fields) => &fields.iter().find(|(name, _)| name == step)?.1,
            Kind::Map(inner) => inner,
            _ => return None,
        };
    }
    Some(kind)
}

fn wanted(leaf: &Kind, op: Op, value: Option<String>, path: &[String]) -> Result<Wanted, String> {
    let selector = || quoted(&path.join("."));
    let refuse = || {
        Err(format!(
            "Invalid match operator {} for selector {}",
            quoted(op.name()),
            selector()
        ))
    };
    let value = value.unwrap_or_default();
    match (leaf, op) {
        (Kind::Text, Op::Equal | Op::NotEqual | Op::In | Op::NotIn)
        | (Kind::Texts | Kind::Map(_), Op::In | Op::NotIn) => Ok(Wanted::Text(value)),
        (Kind::Text, Op::Matches | Op::NotMatches) => RegexBuilder::new(&value)
            .size_limit(REGEX_BYTES)
            .build()
            .map(|r| Wanted::Pattern(Box::new(r)))
            .map_err(|error| {
                let last = error.to_string().lines().last().unwrap_or_default().to_owned();
                format!("Failed to compile regular expression: {last}")
            }),
        (Kind::Texts | Kind::Map(_) | Kind::List(_), Op::IsEmpty | Op::IsNotEmpty) => Ok(Wanted::Nothing),
        (Kind::Integer, Op::Equal | Op::NotEqual) => integer(&value).map(Wanted::Integer).ok_or_else(|| {
            format!(
                "Failed to coerce value {0} for selector {1}: strconv.ParseInt: parsing {0}: invalid syntax",
                quoted(&value),
                selector()
            )
        }),
        (Kind::Bool, Op::Equal | Op::NotEqual) => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Wanted::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Wanted::Bool(false)),
            _ => Err(format!(
                "Failed to coerce value {0} for selector {1}: strconv.ParseBool: parsing {0}: invalid syntax",
                quoted(&value),
                selector()
            )),
        },
        _ => refuse(),
    }
}

/// Go's `ParseInt` with base 0: decimal, or with a prefix.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let number = if let Some(hex) = lower.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if let Some(octal) = lower.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()?
    } else if let Some(binary) = lower.strip_prefix("0b") {
        i64::from_str_radix(binary, 2).ok()?
    } else if lower.len() > 1 && lower.starts_with('0') {
        i64::from_str_radix(&lower[1..], 8).ok()?
    } else {
        lower.parse().ok()?
    };
    Some(if negative { -number } else { number })
}
