//! Reading a JSON object field by field, collecting every fault instead of stopping at the first.

use portico_base::FieldFault;
use serde_json::{Map, Value};

/// Faults that are told at most; further ones would only be noise.
const MOST: usize = 100;

/// Faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<FieldFault>);

impl Faults {
    pub(crate) fn add(&mut self, field: impl Into<String>, code: &str, message: impl Into<String>) {
        if self.0.len() < MOST {
            self.0.push(FieldFault::new(field, code, message));
        }
    }
}

/// An object being read.
pub(crate) struct Reader<'a> {
    prefix: String,
    map: &'a Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Reads `value`, whose own path is `path` (empty for the body).
    pub(crate) fn new(path: &str, value: &'a Value, faults: &mut Faults) -> Option<Self> {
        let Some(map) = value.as_object() else {
            let field = if path.is_empty() { "body" } else { path };
            faults.add(field, "type", "must be an object");
            return None;
        };
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        Some(Self {
            prefix,
            map,
            known: Vec::new(),
        })
    }

    /// Full path of a field.
    pub(crate) fn path(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// The value of a field; `null` counts as absent.
    pub(crate) fn value(&mut self, field: &'static str) -> Option<&'a Value> {
        self.known.push(field);
        self.map.get(field).filter(|v| !v.is_null())
    }

    /// Text of at most `max` bytes without control characters.
    pub(crate) fn text(
        &mut self,
        field: &'static str,
        max: usize,
        faults: &mut Faults,
    ) -> Option<&'a str> {
        let value = self.value(field)?;
        let path = self.path(field);
        text(&path, value, max, faults)
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        field: &'static str,
        min: i64,
        max: i64,
        faults: &mut Faults,
    ) -> Option<i64> {
        let value = self.value(field)?;
        match value.as_i64() {
            Some(n) if (min..=max).contains(&n) => Some(n),
            Some(_) => {
                faults.add(
                    self.path(field),
                    "range",
                    format!("must be from {min} to {max}"),
                );
                None
            }
            None => {
                faults.add(
                    self.path(field),
                    "type",
                    format!("must be a whole number from {min} to {max}"),
                );
                None
            }
        }
    }

    /// `true` or `false`; false when absent.
    pub(crate) fn flag(&mut self, field: &'static str, faults: &mut Faults) -> bool {
        match self.value(field) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                faults.add(self.path(field), "type", "must be true or false");
                false
            }
        }
    }

    /// A list of at most `max` entries.
    pub(crate) fn list(
        &mut self,
        field: &'static str,
        max: usize,
        faults: &mut Faults,
    ) -> &'a [Value] {
        match self.value(field) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= max => items,
            Some(Value::Array(items)) => {
                faults.add(
                    self.path(field),
                    "too_many",
                    format!("must have at most {max} entries, not {}", items.len()),
                );
                &[]
            }
            Some(_) => {
                faults.add(self.path(field), "type", "must be a list");
                &[]
            }
        }
    }

    /// A list of texts.
    pub(crate) fn texts(
        &mut self,
        field: &'static str,
        most: usize,
        longest: usize,
        faults: &mut Faults,
    ) -> Vec<String> {
        let items = self.list(field, most, faults);
        items
            .iter()
            .enumerate()
            .filter_map(|(i, item)| {
                let path = format!("{}[{i}]", self.path(field));
                let text = text(&path, item, longest, faults)?;
                if text.is_empty() {
                    faults.add(path, "empty", "must not be empty");
                    return None;
                }
                Some(text.to_owned())
            })
            .collect()
    }

    /// A JSON object of at most `max` bytes when written.
    pub(crate) fn object(
        &mut self,
        field: &'static str,
        max: usize,
        faults: &mut Faults,
    ) -> Option<&'a Value> {
        let value = self.value(field)?;
        if !value.is_object() {
            faults.add(self.path(field), "type", "must be an object");
            return None;
        }
        if has_nul(value) {
            faults.add(
                self.path(field),
                "control",
                "must not contain the NUL character",
            );
            return None;
        }
        if value.to_string().len() > max {
            faults.add(
                self.path(field),
                "too_long",
                format!("must be at most {max} bytes"),
            );
            return None;
        }
        Some(value)
    }

    /// Whatever was not asked for is unknown.
    pub(crate) fn finish(self, faults: &mut Faults) {
        for field in self.map.keys() {
            if !self.known.contains(&field.as_str()) {
                let shown: String = field.chars().take(64).collect();
                faults.add(
                    format!("{}{shown}", self.prefix),
                    "unknown",
                    "there is no such field",
                );
            }
        }
    }
}

/// A NUL anywhere in a document: PostgreSQL keeps none.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || has_nul(v)),
        _ => false,
    }
}

/// Text of at most `max` bytes without control characters.
pub(crate) fn text<'a>(
    path: &str,
    value: &'a Value,
    max: usize,
    faults: &mut Faults,
) -> Option<&'a str> {
    let Some(text) = value.as_str() else {
        faults.add(path, "type", "must be a text");
        return None;
    };
    if text.len() > max {
        faults.add(path, "too_long", format!("must be at most {max} bytes"));
        return None;
    }
    if text.chars().any(char::is_control) {
        faults.add(path, "control", "must not contain control characters");
        return None;
    }
    Some(text)
}
