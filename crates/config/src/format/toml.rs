//! TOML 1.1; the parser recovers, so that every syntax error of a file is reported in one run.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{SyntaxError, line_at};
use crate::raw::{Entry, Raw};

pub(super) fn parse(text: &str) -> (Raw, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .iter()
        .map(|error| {
            let line = error.span().map_or(0, |span| line_at(text, span.start));
            SyntaxError::new(line, error.message())
        })
        .collect();
    (Raw::Table(entries(table.get_ref(), text)), errors)
}

fn entries(table: &DeTable<'_>, text: &str) -> Vec<Entry> {
    let mut members: Vec<_> = table.iter().collect();
    // The parser's map is ordered by name; messages are to follow the file.
    members.sort_by_key(|(key, _)| key.span().start);
    members
        .into_iter()
        .map(|(key, item)| Entry {
            key: key.get_ref().to_string(),
            line: line_at(text, key.span().start),
            raw: value(item, text),
        })
        .collect()
}

fn value(item: &Spanned<DeValue<'_>>, text: &str) -> Raw {
    match item.get_ref() {
        DeValue::String(value) => Raw::String(value.to_string()),
        DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
            .map_or_else(|_| Raw::String(value.to_string()), Raw::Integer),
        DeValue::Float(value) => value
            .as_str()
            .parse()
            .map_or_else(|_| Raw::String(value.to_string()), Raw::Float),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Datetime(value) => Raw::String(value.to_string()),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| value(item, text)).collect()),
        DeValue::Table(table) => Raw::Table(entries(table, text)),
    }
}
