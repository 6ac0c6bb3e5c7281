//! The JSON Schema (2020-12) of the configuration file, for editors and for manifests' checks.

use serde_json::{Map, Value as Json, json};

use crate::key::{Class, Declared, Key};
use crate::raw::Raw;
use crate::render::{last, parent};
use crate::sections::Config;

/// The schema of a configuration file in TOML, YAML or JSON.
#[must_use]
pub fn schema() -> Json {
    let declared = Declared::of::<Config>();
    let mut root = section(&declared, "");
    let object = root.as_object_mut().expect("a section is an object");
    object.insert(
        "$schema".to_owned(),
        json!("https://json-schema.org/draft/2020-12/schema"),
    );
    object.insert("title".to_owned(), json!("Portico configuration"));
    let properties = object["properties"]
        .as_object_mut()
        .expect("a section has properties");
    properties.insert("$schema".to_owned(), json!({ "type": "string" }));
    properties.insert("apiVersion".to_owned(), json!({ "enum": ["portico/v1"] }));
    properties.insert("kind".to_owned(), json!({ "enum": ["PorticoConfig"] }));
    root
}

fn section(declared: &Declared, path: &str) -> Json {
    let mut properties = Map::new();
    for key in declared.keys.iter().filter(|key| parent(&key.path) == path) {
        properties.insert(last(&key.path).to_owned(), of_key(key));
        if let Some(file) = key.file_key() {
            let text = format!("A file that holds the value of `{}`.", key.path);
            let of_file = json!({ "description": text, "type": "string" });
            properties.insert(last(&file).to_owned(), of_file);
        }
    }
    let inner = declared
        .sections
        .iter()
        .filter(|(inner, _)| !inner.is_empty() && parent(inner) == path);
    for (inner, doc) in inner {
        let mut schema = if declared.free.contains(inner) {
            json!({ "type": "object" })
        } else {
            section(declared, inner)
        };
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(doc));
        }
        properties.insert(last(inner).to_owned(), schema);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn of_key(key: &Key) -> Json {
    let mut schema = bounded(&key.kind.schema, key.range);
    let expands = json!({ "type": "string", "pattern": "\\$\\{" });
    if !accepts_any_text(&schema) {
        schema = json!({ "anyOf": [schema, expands] });
    }
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(key.doc));
        if !matches!(&key.default, Raw::String(text) if text.is_empty()) {
            object.insert("default".to_owned(), key.default.to_json());
        }
        if key.kind.class == Class::Secret {
            object.insert("writeOnly".to_owned(), json!(true));
        }
    }
    schema
}

/// Puts the bounds at the numbers, wherever in the alternatives they are.
fn bounded(schema: &Json, range: Option<(f64, f64)>) -> Json {
    let Some((least, most)) = range else {
        return schema.clone();
    };
    let mut schema = schema.clone();
    if let Some(alternatives) = schema.get_mut("anyOf").and_then(Json::as_array_mut) {
        for alternative in alternatives {
            *alternative = bounded(alternative, range);
        }
    } else if matches!(schema["type"].as_str(), Some("integer" | "number")) {
        schema["minimum"] = number(least);
        schema["maximum"] = number(most);
    }
    schema
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "bounds are small whole numbers"
)]
fn number(value: f64) -> Json {
    if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn accepts_any_text(schema: &Json) -> bool {
    schema == &json!({ "type": "string" })
}
