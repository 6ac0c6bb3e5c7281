//! JSON; positions come from the slices that `RawValue` borrows from the file's text.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{MAX_DEPTH, SyntaxError, line_at};
use crate::raw::{Entry, Raw};

pub(super) fn parse(text: &str) -> (Raw, Vec<SyntaxError>) {
    let parsed = serde_json::from_str::<&RawValue>(text)
        .map_err(|error| syntax(text, 0, &error))
        .and_then(|root| value(root, text, 0));
    match parsed {
        Ok(raw) => (raw, Vec::new()),
        Err(error) => (Raw::Null, vec![error]),
    }
}

/// The members of an object in their order, repeated names included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

fn value(raw: &RawValue, text: &str, depth: usize) -> Result<Raw, SyntaxError> {
    let piece = raw.get();
    let offset = piece.as_ptr() as usize - text.as_ptr() as usize;
    let wrong = |error: serde_json::Error| syntax(text, offset, &error);
    if depth > MAX_DEPTH {
        return Err(SyntaxError::new(line_at(text, offset), "nested too deep"));
    }
    Ok(match piece.as_bytes().first() {
        Some(b'{') => {
            let Members(members) = serde_json::from_str(piece).map_err(wrong)?;
            let entries: Result<_, _> = members
                .into_iter()
                .map(|(key, inner)| {
                    let at = inner.get().as_ptr() as usize - text.as_ptr() as usize;
                    let raw = value(inner, text, depth + 1)?;
                    Ok(Entry {
                        key,
                        line: line_at(text, at),
                        raw,
                    })
                })
                .collect();
            Raw::Table(entries?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(piece).map_err(wrong)?;
            let items: Result<_, _> = items
                .into_iter()
                .map(|item| value(item, text, depth + 1))
                .collect();
            Raw::List(items?)
        }
        Some(b'"') => Raw::String(serde_json::from_str(piece).map_err(wrong)?),
        Some(b't') => Raw::Bool(true),
        Some(b'f') => Raw::Bool(false),
        Some(b'n') => Raw::Null,
        _ => match piece.parse() {
            Ok(whole) => Raw::Integer(whole),
            Err(_) => Raw::Float(serde_json::from_str(piece).map_err(wrong)?),
        },
    })
}

/// The message of serde_json without its own position, which counts from the piece.
fn syntax(text: &str, offset: usize, error: &serde_json::Error) -> SyntaxError {
    let before = line_at(text, offset) - 1;
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let problem = message.strip_suffix(&position).unwrap_or(&message);
    SyntaxError::new(before + error.line(), problem)
}
