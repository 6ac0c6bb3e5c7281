//! The filter language of `?filter=` (C§12): parsed, checked against what an endpoint shows, evaluated.

mod check;
mod eval;
mod parse;
mod schema;

use serde::Serialize;

pub(crate) use schema::Kind;
pub(crate) use schema::{AGENT_SERVICES, CHECKS, HEALTH, NODE_SERVICES, NODES, SERVICE_NODES};

/// Longest expression in bytes.
const LONGEST: usize = 8 * 1024;
/// Deepest nesting of parentheses and `not`.
const DEEPEST: usize = 64;

/// A filter that fits its endpoint. The empty one keeps everything.
#[derive(Debug)]
pub(crate) struct Filter(Option<check::Checked>);

impl Filter {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// Consul's sentence, which is answered with 500.
    pub(crate) fn new(text: &str, kind: &'static Kind) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let made = if text.len() > LONGEST {
            Err(format!("the expression is longer than {LONGEST} bytes"))
        } else {
            parse::parse(text).and_then(|expression| check::check(expression, kind))
        };
        made.map(|checked| Self(Some(checked)))
            .map_err(|why| format!("Failed to create boolean expression evaluator: {why}"))
    }

    /// True when the filter keeps everything.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// True when an item is to be kept.
    pub(crate) fn keeps<T: Serialize>(&self, item: &T) -> bool {
        let Some(checked) = &self.0 else { return true };
        serde_json::to_value(item).is_ok_and(|value| eval::holds(checked, &value))
    }
}

#[cfg(test)]
mod tests;
