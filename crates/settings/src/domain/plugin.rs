//! Settings that a plug-in declares with a JSON Schema when it registers (CT-15).
//!
//! The schema is one of an object; each property is a setting `plugin.<service>.<property>`. Beside the
//! schema's own words a property may say `writeOnly` (a secret), `x-scope` (`system`, `tenant`, `both`),
//! `x-danger` (`none`, `confirm`, `aal2`), `x-public` and `x-unit`.

use std::sync::Arc;

use portico_base::FieldFault;
use portico_contract::json_schema::Schema;
use portico_contract::settings::{Danger, Scope};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::declared::{Declared, Takes};

/// Settings of one plug-in.
const MOST: usize = 100;
/// First word of their keys.
pub(crate) const PREFIX: &str = "plugin";

/// Where the settings of a plug-in begin.
pub(crate) fn prefix(service: &str) -> String {
    format!("{PREFIX}.{service}.")
}

/// The settings of a plug-in.
pub(crate) fn parse(
    service: &str,
    tenant: Option<Uuid>,
    schema: &Value,
) -> Result<Vec<Declared>, Vec<(String, String)>> {
    let mut faults = Vec::new();
    let wrong = |path: &str, message: &str| (path.to_owned(), message.to_owned());
    let Some(root) = schema.as_object() else {
        return Err(vec![wrong("", "must be a JSON Schema of an object")]);
    };
    if root.get("type").is_some_and(|t| t != "object") {
        faults.push(wrong("type", "must be \"object\""));
    }
    for word in root.keys() {
        let known = [
            "type",
            "properties",
            "title",
            "description",
            "$schema",
            "$id",
            "$comment",
        ];
        if !known.contains(&word.as_str()) {
            faults.push(wrong(
                word,
                "is not known here: each property is a setting of its own",
            ));
        }
    }
    let none = Map::new();
    let properties = match root.get("properties") {
        None => &none,
        Some(Value::Object(properties)) => properties,
        Some(_) => return Err(vec![wrong("properties", "must be an object of schemas")]),
    };
    if properties.len() > MOST {
        faults.push(wrong("properties", &format!("must be at most {MOST}")));
    }
    let mut out = Vec::new();
    for (name, schema) in properties.iter().take(MOST) {
        match property(service, tenant, name, schema) {
            Ok(declared) => out.push(declared),
            Err(found) => faults.extend(found.into_iter().map(|(path, message)| {
                let dot = if path.is_empty() { "" } else { "." };
                (format!("properties.{name}{dot}{path}"), message)
            })),
        }
    }
    if faults.is_empty() {
        Ok(out)
    } else {
        Err(faults)
    }
}

/// The same as faults of the registration's field.
pub(crate) fn faults(service: &str, schema: &Value, field: &str) -> Vec<FieldFault> {
    let found = parse(service, None, schema).err().unwrap_or_default();
    found
        .into_iter()
        .map(|(path, message)| {
            let dot = if path.is_empty() { "" } else { "." };
            FieldFault::new(format!("{field}{dot}{path}"), "schema", message)
        })
        .collect()
}

fn property(
    service: &str,
    tenant: Option<Uuid>,
    name: &str,
    written: &Value,
) -> Result<Declared, Vec<(String, String)>> {
    let one = |path: &str, message: &str| vec![(path.to_owned(), message.to_owned())];
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 40 || !name.bytes().all(good) {
        return Err(one("", "the name must be [a-z0-9_]{1,40}"));
    }
    let Some(words) = written.as_object() else {
        return Err(one("", "must be a schema"));
    };
    let schema = Schema::parse(written).map_err(|found| {
        let pairs = found.into_iter().map(|f| (f.path, f.message));
        pairs.collect::<Vec<_>>()
    })?;
    let secret = flag(words, "writeOnly")?;
    let public = flag(words, "x-public")?;
    if secret && public {
        return Err(one("x-public", "a secret cannot be public"));
    }
    let scope = match word(words, "x-scope")? {
        None | Some("both") => Scope::Both,
        Some("system") => Scope::System,
        Some("tenant") => Scope::Tenant,
        Some(_) => return Err(one("x-scope", "must be system, tenant or both")),
    };
    let danger = match word(words, "x-danger")? {
        None | Some("none") => Danger::None,
        Some("confirm") => Danger::Confirm,
        Some("aal2") => Danger::Aal2,
        Some(_) => return Err(one("x-danger", "must be none, confirm or aal2")),
    };
    let default = words.get("default").cloned().unwrap_or_default();
    if !default.is_null() {
        if secret {
            return Err(one("default", "a secret has none"));
        }
        if let Some(fault) = schema.check(&default).first() {
            return Err(one("default", &fault.to_string()));
        }
    }
    let text = |name| Ok::<_, Vec<_>>(Arc::<str>::from(word(words, name)?.unwrap_or_default()));
    let title = text("title")?;
    let help = text("description")?;
    Ok(Declared {
        key: Arc::from(format!("{}{name}", prefix(service))),
        service: Arc::from(service),
        takes: Takes::Schema(Arc::new(schema), Arc::new(written.clone())),
        default: Arc::new(default),
        unit: text("x-unit")?,
        scope,
        secret,
        danger,
        title_zh: Arc::clone(&title),
        title,
        help_zh: Arc::clone(&help),
        help,
        public,
        tenant,
    })
}

fn flag(words: &Map<String, Value>, name: &str) -> Result<bool, Vec<(String, String)>> {
    match words.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(vec![(name.to_owned(), "must be true or false".to_owned())]),
    }
}

fn word<'a>(
    words: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, Vec<(String, String)>> {
    match words.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= 1_000 => Ok(Some(text)),
        Some(_) => Err(vec![(name.to_owned(), "must be a short text".to_owned())]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_property_is_a_setting() {
        let schema = json!({ "type": "object", "properties": {
            "greeting": { "type": "string", "maxLength": 20, "default": "hello", "title": "greeting", "x-public": true },
            "token": { "type": "string", "writeOnly": true, "x-scope": "system", "x-danger": "aal2" },
        } });
        let declared = parse("hello", None, &schema).unwrap();
        let keys: Vec<&str> = declared.iter().map(|d| &*d.key).collect();
        assert_eq!(keys, ["plugin.hello.greeting", "plugin.hello.token"]);
        assert!(
            declared[0].public && !declared[0].secret && *declared[0].default == json!("hello")
        );
        assert!(declared[1].secret && declared[1].danger == Danger::Aal2);
        assert_eq!(declared[1].scope, Scope::System);
        assert_eq!(declared[0].check(&json!(1)), ["must be text"]);
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let schema = json!({ "type": "array", "required": ["a"], "properties": {
            "Bad": {}, "a": { "type": "integer", "default": "x" }, "b": { "oneOf": [] },
            "c": { "writeOnly": true, "x-public": true }, "d": { "x-scope": "all" },
        } });
        let found = faults("hello", &schema, "settings_schema");
        let fields: Vec<&str> = found.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "settings_schema.type",
                "settings_schema.required",
                "settings_schema.properties.Bad",
                "settings_schema.properties.a.default",
                "settings_schema.properties.b.oneOf",
                "settings_schema.properties.c.x-public",
                "settings_schema.properties.d.x-scope",
            ]
        );
    }
}
