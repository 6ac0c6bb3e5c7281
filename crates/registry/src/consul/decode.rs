//! JSON bodies as Go decodes them: names without regard to case and underscores, Go's sentences on faults.

use std::collections::HashSet;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::duration;

/// Why a body cannot be read, in Go's words.
pub(crate) type Fault = String;

/// Parses a body.
pub(crate) fn parse(body: &[u8]) -> Result<Value, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err("EOF".to_owned());
    }
    serde_json::from_slice(body).map_err(|error| explain(&error, body))
}

/// Go's sentence about broken JSON, as near as another parser comes to it.
fn explain(error: &serde_json::Error, body: &[u8]) -> Fault {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let line = body
        .split(|b| *b == b'\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let at = error.column().saturating_sub(1).min(line.len());
    let found = String::from_utf8_lossy(&line[at..]).chars().next();
    match found {
        Some(c) => format!("invalid character '{c}' looking for beginning of value"),
        None => format!("invalid character {}", duration::quoted(&error.to_string())),
    }
}

/// The members of an object by their names in any case.
pub(crate) struct Fields<'a> {
    members: Vec<(String, &'a str, &'a Value)>,
    used: HashSet<String>,
}

/// The name of a kind of value in Go's errors.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn mismatch(value: &Value, field: &str, wanted: &str) -> Fault {
    format!(
        "json: cannot unmarshal {} into Go struct field .{field} of type {wanted}",
        kind(value)
    )
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value) -> Result<Self, Fault> {
        match value {
            Value::Object(map) => Ok(Self::of(map)),
            Value::Null => Ok(Self {
                members: Vec::new(),
                used: HashSet::new(),
            }),
            other => Err(format!(
                "json: cannot unmarshal {} into Go value of type struct",
                kind(other)
            )),
        }
    }

    fn of(map: &'a Map<String, Value>) -> Self {
        let members = map
            .iter()
            .map(|(name, value)| (plain(name), name.as_str(), value))
            .collect();
        Self {
            members,
            used: HashSet::new(),
        }
    }

    /// A member; `null` counts as absent.
    pub(crate) fn value(&mut self, name: &str) -> Option<&'a Value> {
        let wanted = plain(name);
        let found = self
            .members
            .iter()
            .rev()
            .find(|(n, ..)| *n == wanted)
            .map(|(.., v)| *v);
        self.used.insert(wanted);
        found.filter(|v| !v.is_null())
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<String, Fault> {
        match self.value(name) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(mismatch(other, name, "string")),
        }
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(value @ Value::Number(n)) => match n.as_i64() {
                Some(n) => Ok(Some(n)),
                None => Err(format!(
                    "json: cannot unmarshal number {value} into Go struct field .{name} of type int"
                )),
            },
            Some(other) => Err(mismatch(other, name, "int")),
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        match self.value(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(mismatch(other, name, "bool")),
        }
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<&'a [Value], Fault> {
        match self.value(name) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(mismatch(other, name, "[]struct")),
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text.clone()),
                    Value::Null => Ok(String::new()),
                    other => Err(mismatch(other, name, "string")),
                })
                .collect::<Result<Vec<String>, Fault>>()
                .map(Some),
            Some(other) => Err(mismatch(other, name, "[]string")),
        }
    }

    pub(crate) fn map(&mut self, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(mismatch(other, name, "map[string]string")),
        }
    }

    pub(crate) fn text_map(
        &mut self,
        name: &str,
    ) -> Result<Option<IndexMap<String, String>>, Fault> {
        let Some(map) = self.map(name)? else {
            return Ok(None);
        };
        map.iter()
            .map(|(key, value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                Value::Null => Ok((key.clone(), String::new())),
                other => Err(mismatch(other, name, "string")),
            })
            .collect::<Result<_, Fault>>()
            .map(Some)
    }

    /// A duration in nanoseconds: Go's text, or a number of nanoseconds.
    pub(crate) fn duration(&mut self, name: &str) -> Result<i64, Fault> {
        match self.value(name) {
            None => Ok(0),
            Some(Value::String(text)) if text.is_empty() => Ok(0),
            Some(Value::String(text)) => duration::parse(text),
            Some(Value::Number(n)) => Ok(n.as_i64().unwrap_or(0)),
            Some(other) => Err(mismatch(other, name, "time.Duration")),
        }
    }

    /// Refuses members that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        match self
            .members
            .iter()
            .find(|(name, ..)| !self.used.contains(name))
        {
            Some((_, original, _)) => Err(format!(
                "json: unknown field {}",
                duration::quoted(original)
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_in_any_case() {
        let body =
            json!({"enable_tag_override": true, "TAGGEDADDRESSES": {}, "port": 5, "Bogus": 1});
        let mut f = Fields::new(&body).unwrap();
        assert_eq!(f.flag("EnableTagOverride"), Ok(true));
        assert!(f.map("TaggedAddresses").unwrap().is_some());
        assert_eq!(f.integer("Port"), Ok(Some(5)));
        assert_eq!(f.finish(), Err("json: unknown field \"Bogus\"".to_owned()));
    }

    #[test]
    fn faults_in_gos_words() {
        let body = json!({"Port": "80", "Ttl": "zz", "Tags": "x"});
        let mut f = Fields::new(&body).unwrap();
        assert_eq!(
            f.integer("Port").unwrap_err(),
            "json: cannot unmarshal string into Go struct field .Port of type int"
        );
        assert_eq!(
            f.duration("TTL").unwrap_err(),
            "time: invalid duration \"zz\""
        );
        assert!(f.texts("Tags").is_err());
        assert_eq!(parse(b"").unwrap_err(), "EOF");
        assert_eq!(parse(b"{\"a\":").unwrap_err(), "unexpected EOF");
        assert!(
            parse(b"nonsense")
                .unwrap_err()
                .starts_with("invalid character 'o'")
        );
    }
}
