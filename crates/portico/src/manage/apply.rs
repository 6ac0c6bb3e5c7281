//! `portico route apply`: what a file says becomes what holds, after everybody saw the difference.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::changes::{Change, changes};
use super::print_json;
use crate::client::{ApiError, Client, encoded, usage};
use crate::table::plain;

/// Kinds that a file may hold, as the API names them.
pub(super) const KINDS: [&str; 8] = [
    "routes",
    "releases",
    "limits",
    "cors",
    "cache-rules",
    "transforms",
    "hosts",
    "blocks",
];
/// Fields of an object beside its document; the last four are what the API answers and are not sent.
const KNOWN: [&str; 7] = [
    "name",
    "doc",
    "message",
    "version",
    "author",
    "created_at",
    "conflicts",
];
/// Largest file: all objects of an installation fit.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// An object of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wished {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) doc: Value,
    message: Option<String>,
    /// The version that whoever wrote the file saw.
    seen: Option<i64>,
}

/// What would become of one object.
struct Step {
    wished: Wished,
    /// Version in force; nothing for a new object.
    version: Option<i64>,
    changes: Vec<Change>,
    conflicts: Vec<String>,
    faults: Vec<String>,
}

/// How to apply.
pub(super) struct How<'a> {
    pub(super) kind: &'a str,
    pub(super) file: &'a Path,
    pub(super) dry_run: bool,
    pub(super) message: &'a str,
    pub(super) json: bool,
}

/// Reads, compares, asks the gateway for every fault, and only without one changes anything.
pub(super) async fn run(client: &Client, how: How<'_>) -> Result<u8> {
    let wishes = parse(&read(how.file)?, is_toml(how.file), how.kind).map_err(|faults| {
        usage(format!(
            "{}:\n  {}",
            how.file.display(),
            faults.join("\n  ")
        ))
    })?;
    let mut steps = Vec::new();
    for wished in wishes {
        steps.push(look(client, wished).await?);
    }
    let faulty = steps.iter().any(|step| !step.faults.is_empty());
    let mut versions = vec![None; steps.len()];
    let mut failed = None;
    if !faulty && !how.dry_run {
        for (at, step) in steps.iter().enumerate() {
            if step.changes.is_empty() {
                continue;
            }
            match save(client, &step.wished, how.message, false).await {
                Ok(saved) => versions[at] = saved["version"].as_i64(),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
    }
    if how.json {
        print_json(&report(&steps, &versions, how.dry_run))?;
    } else {
        show(&steps, &versions, how.dry_run);
    }
    match failed {
        Some(error) => {
            Err(error.context("stopped; what stands above with its version was applied"))
        }
        None if faulty => bail!("nothing was changed: correct the faults above and apply again"),
        None => Ok(0),
    }
}

/// Compares with what holds, and lets the gateway find every fault.
async fn look(client: &Client, wished: Wished) -> Result<Step> {
    let found = client.find(&path(&wished)).await?;
    let before = found.as_ref().map(|found| content(&found["doc"]));
    let mut step = Step {
        version: found.as_ref().and_then(|found| found["version"].as_i64()),
        changes: changes(before.as_ref(), Some(&wished.doc)),
        conflicts: Vec::new(),
        faults: Vec::new(),
        wished,
    };
    if step.changes.is_empty() {
        return Ok(step);
    }
    match save(client, &step.wished, "", true).await {
        Ok(would) => {
            let names = would["conflicts"].as_array().into_iter().flatten();
            step.conflicts = names.filter_map(Value::as_str).map(plain).collect();
            // Some kinds are kept with their defaults written out: what would hold is what counts.
            step.changes = changes(before.as_ref(), Some(&content(&would["doc"])));
        }
        Err(error) => match error.downcast_ref::<ApiError>() {
            Some(api) if !api.faults.is_empty() => {
                let faults = api.faults.iter();
                step.faults = faults
                    .map(|(field, why)| format!("{field}: {why}"))
                    .collect();
            }
            Some(api)
                if (400..500).contains(&api.status) && !matches!(api.status, 401 | 403 | 429) =>
            {
                step.faults = vec![api.detail.clone()];
            }
            _ => return Err(error),
        },
    }
    Ok(step)
}

/// A document without what Portico itself keeps in it.
fn content(doc: &Value) -> Value {
    let mut doc = doc.clone();
    if let Some(map) = doc.as_object_mut() {
        map.remove("state");
    }
    doc
}

async fn save(client: &Client, wished: &Wished, message: &str, dry_run: bool) -> Result<Value> {
    let message = match &wished.message {
        Some(own) if message.is_empty() => own.as_str(),
        _ => message,
    };
    let body = json!({ "doc": wished.doc, "message": message });
    let query = if dry_run { "?dry_run=true" } else { "" };
    client
        .put(&format!("{}{query}", path(wished)), &body, wished.seen)
        .await
}

fn path(wished: &Wished) -> String {
    format!("/api/gateway/{}/{}", wished.kind, encoded(&wished.name))
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_FILE)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|error| usage(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text)
}

fn is_toml(file: &Path) -> bool {
    file.extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("toml"))
}

/// The objects of a file, or every fault of its shape with the path of each.
pub(super) fn parse(text: &str, toml: bool, kind: &str) -> Result<Vec<Wished>, Vec<String>> {
    let value: Value = if toml {
        ::toml::from_str(text)
            .map_err(|error| vec![format!("not TOML: {}", error.to_string().trim())])?
    } else {
        serde_json::from_str(text).map_err(|error| vec![format!("not JSON: {error}")])?
    };
    let mut parsed = Parsed::default();
    match &value {
        Value::Array(list) => parsed.list("", kind, list),
        Value::Object(map) if map.contains_key("name") || map.contains_key("doc") => {
            parsed.one("", kind, map)
        }
        Value::Object(map) => {
            for (name, list) in map {
                match list {
                    Value::Array(list) if KINDS.contains(&&**name) => parsed.list(name, name, list),
                    _ if KINDS.contains(&&**name) => {
                        parsed.fault(name, "must be a list of objects")
                    }
                    _ => parsed.fault(name, &format!("is none of {}", KINDS.join(", "))),
                }
            }
        }
        _ => parsed.fault("", "must be an object or a list of objects"),
    }
    if parsed.wishes.is_empty() && parsed.faults.is_empty() {
        parsed.fault("", "holds no object");
    }
    if parsed.faults.is_empty() {
        Ok(parsed.wishes)
    } else {
        Err(parsed.faults)
    }
}

#[derive(Default)]
struct Parsed {
    wishes: Vec<Wished>,
    faults: Vec<String>,
}

impl Parsed {
    fn fault(&mut self, path: &str, why: &str) {
        let path = if path.is_empty() { "the file" } else { path };
        self.faults.push(format!("{}: {why}", plain(path)));
    }

    fn list(&mut self, path: &str, kind: &str, list: &[Value]) {
        for (at, value) in list.iter().enumerate() {
            let path = format!("{path}[{at}]");
            match value {
                Value::Object(map) => self.one(&path, kind, map),
                _ => self.fault(&path, "must be an object"),
            }
        }
    }

    fn one(&mut self, path: &str, kind: &str, map: &Map<String, Value>) {
        let before = self.faults.len();
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        for name in map.keys().filter(|name| !KNOWN.contains(&&***name)) {
            self.fault(
                &below(name),
                "unknown; an object has `name`, `doc` and, if you like, `message` and `version`",
            );
        }
        let name = match map.get("name").map(Value::as_str) {
            Some(Some(name)) if !name.is_empty() => name.to_owned(),
            Some(_) => {
                self.fault(&below("name"), "must be a text");
                String::new()
            }
            None => {
                self.fault(&below("name"), "is missing");
                String::new()
            }
        };
        match map.get("doc") {
            Some(Value::Object(_)) => {}
            Some(_) => self.fault(&below("doc"), "must be an object"),
            None => self.fault(&below("doc"), "is missing"),
        }
        let message = map.get("message").filter(|m| !m.is_null());
        if message.is_some_and(|m| !m.is_string()) {
            self.fault(&below("message"), "must be a text");
        }
        let seen = map.get("version").filter(|v| !v.is_null());
        if seen.is_some_and(|v| v.as_i64().is_none_or(|v| v < 1)) {
            self.fault(&below("version"), "must be a whole number above 0");
        }
        if self.wishes.iter().any(|w| w.kind == kind && w.name == name) {
            self.fault(&below("name"), &format!("`{name}` is in the file twice"));
        }
        if self.faults.len() == before {
            self.wishes.push(Wished {
                kind: kind.to_owned(),
                name,
                doc: map.get("doc").cloned().unwrap_or_default(),
                message: message.and_then(Value::as_str).map(str::to_owned),
                seen: seen.and_then(Value::as_i64),
            });
        }
    }
}

fn show(steps: &[Step], versions: &[Option<i64>], dry_run: bool) {
    let mut out = String::new();
    for (step, saved) in steps.iter().zip(versions) {
        let Wished { kind, name, .. } = &step.wished;
        let word = match (&step.changes.is_empty(), step.version, saved) {
            (true, ..) => "unchanged".to_owned(),
            (_, _, Some(version)) => format!("applied, version {version}"),
            (_, None, None) if dry_run => "would be new".to_owned(),
            (_, Some(version), None) if dry_run => format!("would change version {version}"),
            (_, None, None) => "new, not applied".to_owned(),
            (_, Some(version), None) => format!("differs from version {version}, not applied"),
        };
        out.push_str(&format!("{kind}/{}: {word}\n", plain(name)));
        for change in &step.changes {
            out.push_str(&format!("  {}\n", plain(&change.line())));
        }
        for other in &step.conflicts {
            out.push_str(&format!(
                "  note: {kind}/{other} matches the same requests, the older one wins\n"
            ));
        }
        for fault in &step.faults {
            out.push_str(&format!("  fault: {fault}\n"));
        }
    }
    crate::text::print(&out);
}

fn report(steps: &[Step], versions: &[Option<i64>], dry_run: bool) -> Value {
    let items = steps.iter().zip(versions).map(|(step, saved)| {
        let changes: Vec<Value> = step
            .changes
            .iter()
            .map(|c| json!({ "path": c.path, "before": c.before, "after": c.after }))
            .collect();
        json!({
            "kind": step.wished.kind, "name": step.wished.name, "version_before": step.version, "version": saved,
            "changed": !step.changes.is_empty(), "changes": changes, "conflicts": step.conflicts, "faults": step.faults,
        })
    });
    json!({ "dry_run": dry_run, "items": items.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[Wished]) -> Vec<String> {
        found
            .iter()
            .map(|w| format!("{}/{}", w.kind, w.name))
            .collect()
    }

    #[test]
    fn one_object_a_list_and_tables_by_kind() {
        let one = r#"{ "name": "a", "doc": {} }"#;
        assert_eq!(names(&parse(one, false, "routes").unwrap()), ["routes/a"]);
        let list = r#"[{ "name": "a", "doc": {}, "version": 3, "author": "x", "created_at": "y" }, { "name": "b", "doc": {} }]"#;
        let found = parse(list, false, "limits").unwrap();
        assert_eq!(names(&found), ["limits/a", "limits/b"]);
        assert_eq!((found[0].seen, found[1].seen), (Some(3), None));
        let tables = "[[routes]]\nname = \"a\"\n[routes.doc]\npath = { prefix = \"/a\" }\n[[hosts]]\nname = \"h\"\ndoc = { hosts = [\"x.example\"] }\n";
        let found = parse(tables, true, "routes").unwrap();
        assert_eq!(names(&found), ["hosts/h", "routes/a"]);
        assert_eq!(found[1].doc, json!({ "path": { "prefix": "/a" } }));
    }

    #[test]
    fn every_fault_of_the_shape_has_its_path() {
        let text = r#"{ "routes": [{ "name": "", "doc": 5 }, 7, { "doc": {}, "path": 1 }, { "name": "a", "doc": {} }, { "name": "a", "doc": {}, "version": 0, "message": 1 }], "rutes": [], "hosts": {} }"#;
        let mut faults = parse(text, false, "routes").unwrap_err();
        faults.sort();
        let begin: Vec<&str> = faults
            .iter()
            .map(|f| f.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            begin,
            [
                "hosts",
                "routes[0].doc",
                "routes[0].name",
                "routes[1]",
                "routes[2].name",
                "routes[2].path",
                "routes[4].message",
                "routes[4].name",
                "routes[4].version",
                "rutes",
            ]
        );
        for (text, toml) in [
            ("", false),
            ("5", false),
            ("{}", false),
            ("a = ", true),
            ("[]", false),
        ] {
            assert!(parse(text, toml, "routes").is_err(), "{text}");
        }
    }
}
