//! Merging OpenAPI documents: paths below `/api/{service}`, component names that do not collide.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

const METHODS: [&str; 8] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace",
];

/// The document of our own services, each with its name.
#[must_use]
pub fn merge(own: &[(&str, OpenApi)]) -> Value {
    let part = |(name, part): &(_, OpenApi)| Some((*name, serde_json::to_value(part).ok()?));
    of_parts(own.iter().filter_map(part))
}

/// The same from documents that are JSON already.
pub(super) fn of_parts<'a>(own: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portico",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Everything behind this door: the built-in services and the registered ones.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [],
        "paths": {},
        "components": {
            "schemas": {},
            "responses": {},
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "access, registration or operator token" }
            }
        },
        "security": [{ "token": [] }],
    });
    for (name, part) in own {
        add(&mut document, name, &part, false);
    }
    document
}

/// Adds the document of a registered service. What does not look like OpenAPI 3 is left out.
pub(super) fn add_stranger(document: &mut Value, service: &str, part: &Value) {
    if part["openapi"]
        .as_str()
        .is_some_and(|version| version.starts_with("3."))
    {
        add(document, service, part, true);
    }
}

fn add(document: &mut Value, service: &str, part: &Value, rename: bool) {
    let mut part = part.clone();
    if rename {
        rename_components(&mut part, &format!("#/components/schemas/{service}."));
    } else {
        unsigned(&mut part);
    }
    let prefix = format!("/api/{service}");
    let mut paths = Map::new();
    for (path, item) in part["paths"].as_object().into_iter().flatten() {
        let full = match path.as_str() {
            "/" => prefix.clone(),
            path => format!("{prefix}/{}", path.trim_start_matches('/')),
        };
        paths.insert(full, tagged(item, service));
    }
    if let Some(all) = document["paths"].as_object_mut() {
        all.extend(paths);
    }
    for (name, schema) in part["components"]["schemas"]
        .as_object()
        .into_iter()
        .flatten()
    {
        let name = if rename {
            format!("{service}.{name}")
        } else {
            name.clone()
        };
        document["components"]["schemas"][name] = schema.clone();
    }
    if !rename {
        let answers = part["components"]["responses"].as_object();
        for (name, answer) in answers.into_iter().flatten() {
            document["components"]["responses"][name] = answer.clone();
        }
    }
    let description = part["info"]["description"].as_str().unwrap_or_default();
    let title = part["info"]["title"].as_str().filter(|_| rename);
    let title = title.map_or_else(|| capitalised(service), str::to_owned);
    if let Some(tags) = document["tags"].as_array_mut() {
        tags.push(json!({ "name": service, "x-displayName": title, "description": description }));
    }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

/// Operations under the tag of their service, with ids that no other service has.
fn tagged(item: &Value, service: &str) -> Value {
    let mut item = item.clone();
    for method in METHODS {
        let Some(operation) = item.get_mut(method).and_then(Value::as_object_mut) else {
            continue;
        };
        operation.insert("tags".to_owned(), json!([service]));
        if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
            let id = format!("{}_{id}", service.replace('-', "_"));
            operation.insert("operationId".to_owned(), Value::from(id));
        }
    }
    item
}

/// Whole numbers from 0 are unsigned: `int64` would say that the upper half of them is refused.
fn unsigned(value: &mut Value) {
    if value["minimum"] == 0 {
        let format = match value["format"].as_str() {
            Some("int32") => Some("uint32"),
            Some("int64") => Some("uint64"),
            _ => None,
        };
        if let Some(format) = format {
            value["format"] = format.into();
        }
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(unsigned),
        Value::Array(list) => list.iter_mut().for_each(unsigned),
        _ => {}
    }
}

/// `#/components/schemas/X` → `#/components/schemas/{service}.X`, everywhere.
fn rename_components(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::String(text) if key == "$ref" => {
                        if let Some(name) = text.strip_prefix("#/components/schemas/") {
                            *text = format!("{prefix}{name}");
                        }
                    }
                    _ => rename_components(inner, prefix),
                }
            }
        }
        Value::Array(list) => list
            .iter_mut()
            .for_each(|inner| rename_components(inner, prefix)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_document_moves_below_its_service() {
        let mut document = merge(&[]);
        let part = json!({
            "openapi": "3.0.3",
            "info": { "title": "Notes", "version": "1", "description": "notes of a tenant" },
            "paths": {
                "/": { "get": { "operationId": "root", "responses": {} } },
                "/notes/{id}": { "get": { "responses": { "200": { "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/Note" } } } } } } }
            },
            "components": { "schemas": { "Note": { "type": "object" } } }
        });
        add_stranger(&mut document, "notes", &part);
        assert_eq!(
            document["paths"]["/api/notes"]["get"]["operationId"],
            "notes_root"
        );
        let note = &document["paths"]["/api/notes/notes/{id}"]["get"];
        assert_eq!(note["tags"][0], "notes");
        assert_eq!(document["tags"][0]["x-displayName"], "Notes");
        assert_eq!(
            note["responses"]["200"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/notes.Note"
        );
        assert!(document["components"]["schemas"]["notes.Note"].is_object());
    }

    #[test]
    fn nonsense_is_left_out() {
        let mut document = merge(&[]);
        let before = document.clone();
        for part in [
            json!(null),
            json!([1]),
            json!({ "swagger": "2.0", "paths": {} }),
            json!({ "openapi": 3 }),
        ] {
            add_stranger(&mut document, "bad", &part);
        }
        assert_eq!(document, before);
    }
}
