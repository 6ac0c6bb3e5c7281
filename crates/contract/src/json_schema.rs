//! The subset of JSON Schema 2020-12 that settings are described with: checked whole, so that a keyword
//! that would be ignored is refused instead.

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// How deep schemas may be nested.
const DEPTH: usize = 16;
/// Faults of one value that are told.
const MOST_FAULTS: usize = 50;
/// Compiled size of a pattern.
const PATTERN_BYTES: usize = 64 * 1024;

/// Keywords that say nothing about a value.
const ANNOTATIONS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// What is wrong at a path of a value or of a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFault {
    /// `limits.per_day[2]`; empty for the whole.
    pub path: String,
    /// What is wrong, lowercase without full stop.
    pub message: String,
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// A schema, parsed.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    types: Vec<Type>,
    allowed: Option<Vec<Value>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: Option<f64>,
    exclusive_maximum: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    pattern: Option<Regex>,
    items: Option<Box<Self>>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    unique_items: bool,
    properties: BTreeMap<String, Self>,
    required: Vec<String>,
    /// Nothing: further properties may be anything. The inner nothing: there may be none.
    further: Option<Option<Box<Self>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "array" => Self::Array,
            "object" => Self::Object,
            _ => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::String => "text",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Boolean => value.is_boolean(),
            // 3.0 is an integer in JSON Schema.
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

impl Schema {
    /// Parses a schema. Keywords that begin with `x-` are for whoever reads the schema besides.
    ///
    /// # Errors
    /// Every fault with its path in the schema.
    pub fn parse(schema: &Value) -> Result<Self, Vec<SchemaFault>> {
        let mut reader = Reader { faults: Vec::new() };
        let parsed = reader.schema(schema, "", 0);
        if reader.faults.is_empty() {
            Ok(parsed)
        } else {
            Err(reader.faults)
        }
    }

    /// What is wrong with a value.
    #[must_use]
    pub fn check(&self, value: &Value) -> Vec<SchemaFault> {
        let mut faults = Vec::new();
        self.look(value, "", &mut faults);
        faults.truncate(MOST_FAULTS);
        faults
    }

    fn look(&self, value: &Value, path: &str, faults: &mut Vec<SchemaFault>) {
        if faults.len() >= MOST_FAULTS {
            return;
        }
        let mut wrong = |message: String| {
            faults.push(SchemaFault {
                path: path.to_owned(),
                message,
            });
        };
        if !self.types.is_empty() && !self.types.iter().any(|t| t.fits(value)) {
            let words: Vec<&str> = self.types.iter().map(|t| t.word()).collect();
            wrong(format!("must be {}", words.join(" or ")));
            return;
        }
        if let Some(allowed) = &self.allowed
            && !allowed.contains(value)
        {
            let words: Vec<String> = allowed.iter().map(Value::to_string).collect();
            wrong(format!("must be one of {}", words.join(", ")));
        }
        if let Some(n) = value.as_f64() {
            self.number(n, &mut wrong);
        }
        if let Some(text) = value.as_str() {
            self.text(text, &mut wrong);
        }
        if let Some(list) = value.as_array() {
            self.list(list, &mut wrong);
            for (i, item) in list.iter().enumerate() {
                if let Some(schema) = &self.items {
                    schema.look(item, &format!("{path}[{i}]"), faults);
                }
            }
        }
        if let Some(object) = value.as_object() {
            self.object(object, path, faults);
        }
    }

    fn number(&self, n: f64, wrong: &mut impl FnMut(String)) {
        if let Some(min) = self.minimum.filter(|min| n < *min) {
            wrong(format!("must be at least {min}"));
        }
        if let Some(max) = self.maximum.filter(|max| n > *max) {
            wrong(format!("must be at most {max}"));
        }
        if let Some(min) = self.exclusive_minimum.filter(|min| n <= *min) {
            wrong(format!("must be more than {min}"));
        }
        if let Some(max) = self.exclusive_maximum.filter(|max| n >= *max) {
            wrong(format!("must be less than {max}"));
        }
    }

    fn text(&self, text: &str, wrong: &mut impl FnMut(String)) {
        let length = text.chars().count() as u64;
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            wrong(format!("must have at least {min} characters"));
        }
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            wrong(format!("must have at most {max} characters"));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(text)) {
            wrong(format!("must match {pattern}"));
        }
    }

    fn list(&self, list: &[Value], wrong: &mut impl FnMut(String)) {
        let length = list.len() as u64;
        if let Some(min) = self.min_items.filter(|min| length < *min) {
            wrong(format!("must have at least {min} entries"));
        }
        if let Some(max) = self.max_items.filter(|max| length > *max) {
            wrong(format!("must have at most {max} entries"));
        }
        let mut seen = std::collections::HashSet::new();
        if self.unique_items && !list.iter().all(|v| seen.insert(v.to_string())) {
            wrong("must not have an entry twice".to_owned());
        }
    }

    fn object(&self, object: &Map<String, Value>, path: &str, faults: &mut Vec<SchemaFault>) {
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        for name in self.required.iter().filter(|n| !object.contains_key(*n)) {
            faults.push(SchemaFault {
                path: below(name),
                message: "is missing".to_owned(),
            });
        }
        for (name, value) in object {
            match (self.properties.get(name), &self.further) {
                (Some(schema), _) => schema.look(value, &below(name), faults),
                (None, Some(None)) => faults.push(SchemaFault {
                    path: below(name),
                    message: "is not known here".to_owned(),
                }),
                (None, Some(Some(schema))) => schema.look(value, &below(name), faults),
                (None, None) => {}
            }
        }
    }
}

struct Reader {
    faults: Vec<SchemaFault>,
}

impl Reader {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(SchemaFault {
                path: path.to_owned(),
                message: message.into(),
            });
        }
    }

    fn schema(&mut self, value: &Value, path: &str, depth: usize) -> Schema {
        let mut out = Schema::default();
        if let Some(anything) = value.as_bool() {
            if !anything {
                out.allowed = Some(Vec::new());
            }
            return out;
        }
        let Some(object) = value.as_object() else {
            self.wrong(path, "must be a schema");
            return out;
        };
        if depth > DEPTH {
            self.wrong(path, format!("is nested deeper than {DEPTH}"));
            return out;
        }
        for (word, value) in object {
            let at = if path.is_empty() {
                word.clone()
            } else {
                format!("{path}.{word}")
            };
            self.keyword(&mut out, word, value, &at, depth);
        }
        out
    }

    fn keyword(&mut self, out: &mut Schema, word: &str, value: &Value, at: &str, depth: usize) {
        match word {
            "type" => out.types = self.types(value, at),
            "enum" => match value.as_array().filter(|list| list.len() <= 1_000) {
                Some(list) => out.allowed = Some(list.clone()),
                None => self.wrong(at, "must be a list of at most 1000 values"),
            },
            "const" => out.allowed = Some(vec![value.clone()]),
            "minimum" => out.minimum = self.number(value, at),
            "maximum" => out.maximum = self.number(value, at),
            "exclusiveMinimum" => out.exclusive_minimum = self.number(value, at),
            "exclusiveMaximum" => out.exclusive_maximum = self.number(value, at),
            "minLength" => out.min_length = self.count(value, at),
            "maxLength" => out.max_length = self.count(value, at),
            "minItems" => out.min_items = self.count(value, at),
            "maxItems" => out.max_items = self.count(value, at),
            "pattern" => out.pattern = self.pattern(value, at),
            "uniqueItems" => match value.as_bool() {
                Some(unique) => out.unique_items = unique,
                None => self.wrong(at, "must be true or false"),
            },
            "items" => out.items = Some(Box::new(self.schema(value, at, depth + 1))),
            "properties" => out.properties = self.properties(value, at, depth),
            "required" => out.required = self.names(value, at),
            "additionalProperties" => {
                out.further = match value.as_bool() {
                    Some(true) => None,
                    Some(false) => Some(None),
                    None => Some(Some(Box::new(self.schema(value, at, depth + 1)))),
                }
            }
            _ if word.starts_with("x-") || ANNOTATIONS.contains(&word) => {}
            _ => self.wrong(at, "is a keyword that is not known here"),
        }
    }

    fn types(&mut self, value: &Value, at: &str) -> Vec<Type> {
        let words: Vec<&str> = match value {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let types: Vec<Type> = words.iter().filter_map(|w| Type::parse(w)).collect();
        let said = value.as_array().map_or(1, Vec::len);
        if types.is_empty() || types.len() != said {
            self.wrong(at, "must name types of JSON");
        }
        types
    }

    fn number(&mut self, value: &Value, at: &str) -> Option<f64> {
        if !value.is_number() {
            self.wrong(at, "must be a number");
        }
        value.as_f64()
    }

    fn count(&mut self, value: &Value, at: &str) -> Option<u64> {
        if !value.is_u64() {
            self.wrong(at, "must be a whole number, not negative");
        }
        value.as_u64()
    }

    fn pattern(&mut self, value: &Value, at: &str) -> Option<Regex> {
        let pattern = value.as_str().and_then(|text| {
            RegexBuilder::new(text)
                .size_limit(PATTERN_BYTES)
                .build()
                .ok()
        });
        if pattern.is_none() {
            self.wrong(at, "must be a small regular expression");
        }
        pattern
    }

    fn properties(&mut self, value: &Value, at: &str, depth: usize) -> BTreeMap<String, Schema> {
        let Some(object) = value.as_object() else {
            self.wrong(at, "must be an object of schemas");
            return BTreeMap::new();
        };
        object
            .iter()
            .map(|(name, schema)| {
                let at = format!("{at}.{name}");
                (name.clone(), self.schema(schema, &at, depth + 1))
            })
            .collect()
    }

    fn names(&mut self, value: &Value, at: &str) -> Vec<String> {
        let names: Option<Vec<String>> = value
            .as_array()
            .and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        if names.is_none() {
            self.wrong(at, "must be a list of names");
        }
        names.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_checked_with_their_paths() {
        let schema = Schema::parse(&json!({
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$" },
                "count": { "type": "integer", "minimum": 1, "exclusiveMaximum": 10 },
                "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "maxItems": 2, "uniqueItems": true },
            },
            "required": ["name"],
            "additionalProperties": false,
        }))
        .unwrap();
        let good = json!({ "name": "abc", "count": 9, "tags": ["a", "b"] });
        assert_eq!(schema.check(&good), []);
        let faults =
            schema.check(&json!({ "name": "A", "count": 10, "tags": ["a", "c", "a"], "more": 1 }));
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "count: must be less than 10",
                "more: is not known here",
                "name: must have at least 2 characters",
                "name: must match ^[a-z]+$",
                "tags: must have at most 2 entries",
                "tags: must not have an entry twice",
                "tags[1]: must be one of \"a\", \"b\"",
            ]
        );
        assert_eq!(schema.check(&json!({}))[0].to_string(), "name: is missing");
        assert_eq!(schema.check(&json!(3))[0].to_string(), "must be an object");
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let wrong = json!({ "type": "any", "properties": { "a": { "format": "email", "minLength": -1 } }, "oneOf": [] });
        let faults = Schema::parse(&wrong).unwrap_err();
        let paths: Vec<&str> = faults.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "oneOf",
                "properties.a.format",
                "properties.a.minLength",
                "type"
            ]
        );
        let mut deep = json!({});
        for _ in 0..40 {
            deep = json!({ "items": deep });
        }
        assert!(Schema::parse(&deep).is_err());
        assert!(Schema::parse(&json!({ "pattern": "(a{1000}){1000}" })).is_err());
        assert_eq!(
            Schema::parse(&json!(false)).unwrap().check(&json!(1)).len(),
            1
        );
        assert!(Schema::parse(&json!({ "x-secret": true, "title": "t" })).is_ok());
    }
}
