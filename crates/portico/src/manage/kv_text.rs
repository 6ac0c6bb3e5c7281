//! Entries of the store as people and programs read them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::table::plain;

/// Longest value in a line for people.
const LINE: usize = 200;

/// An entry as the store tells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    flags: u64,
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
    lock_index: u64,
}

/// Entries by key, to tell what changed.
pub(super) type Known = BTreeMap<String, Entry>;

/// The entries of an answer.
pub(super) fn entries(found: &Value) -> Vec<Entry> {
    let list = found.as_array().into_iter().flatten();
    list.map(|item| Entry {
        key: item["Key"].as_str().unwrap_or_default().to_owned(),
        value: item["Value"].as_str().map(decode).unwrap_or_default(),
        flags: item["Flags"].as_u64().unwrap_or(0),
        session: item["Session"].as_str().map(str::to_owned),
        create_index: item["CreateIndex"].as_u64().unwrap_or(0),
        modify_index: item["ModifyIndex"].as_u64().unwrap_or(0),
        lock_index: item["LockIndex"].as_u64().unwrap_or(0),
    })
    .collect()
}

/// The entries of an answer by their keys.
pub(super) fn known(found: &Value) -> Known {
    let all = entries(found).into_iter();
    all.map(|entry| (entry.key.clone(), entry)).collect()
}

/// An entry as JSON: the value as text, or in base64 when it is none.
pub(super) fn shown(entry: &Entry) -> Value {
    let mut out = json!({
        "key": entry.key, "flags": entry.flags, "session": entry.session, "create_index": entry.create_index,
        "modify_index": entry.modify_index, "lock_index": entry.lock_index,
    });
    match std::str::from_utf8(&entry.value) {
        Ok(text) => out["value"] = Value::from(text),
        Err(_) => out["value_base64"] = Value::from(BASE64.encode(&entry.value)),
    }
    out
}

/// One line for each entry that is new, changed or gone.
pub(super) fn summary(before: &Known, now: &Known, as_json: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, entry) in now {
        if before
            .get(key)
            .is_some_and(|old| old.modify_index == entry.modify_index)
        {
            continue;
        }
        lines.push(if as_json {
            shown(entry).to_string()
        } else {
            format!(
                "{}  {} = {}",
                entry.modify_index,
                plain(key),
                preview(&entry.value)
            )
        });
    }
    for key in before.keys().filter(|key| !now.contains_key(*key)) {
        lines.push(if as_json {
            json!({ "key": key, "removed": true }).to_string()
        } else {
            format!("-  {} is removed", plain(key))
        });
    }
    lines
}

fn preview(value: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(value) else {
        return format!("({} bytes)", value.len());
    };
    let cut: String = text.chars().take(LINE).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    plain(&cut) + more
}

fn decode(text: &str) -> Vec<u8> {
    BASE64.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(items: &[(&str, &[u8], u64)]) -> Value {
        let list = items.iter().map(|(key, value, index)| {
            json!({ "Key": key, "Value": BASE64.encode(value), "Flags": 0, "CreateIndex": 1, "ModifyIndex": index, "LockIndex": 0 })
        });
        Value::from_iter(list)
    }

    #[test]
    fn values_are_text_or_base64() {
        let all = entries(&found(&[("a", "grün".as_bytes(), 3), ("b", &[0xff, 0], 4)]));
        assert_eq!(shown(&all[0])["value"], "grün");
        assert_eq!(shown(&all[1])["value_base64"], "/wA=");
        assert!(shown(&all[1]).get("value").is_none());
        assert!(entries(&Value::Null).is_empty());
    }

    #[test]
    fn a_watch_tells_what_is_new_changed_and_gone() {
        let first = known(&found(&[("a", b"1", 3), ("b", b"2", 4)]));
        assert_eq!(
            summary(&Known::new(), &first, false),
            ["3  a = 1", "4  b = 2"]
        );
        let second = known(&found(&[("a", b"one\ntwo", 5)]));
        assert_eq!(
            summary(&first, &second, false),
            ["5  a = one·two", "-  b is removed"]
        );
        assert!(summary(&second, &second, false).is_empty());
        let json: Vec<Value> = summary(&first, &second, true)
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(json[0]["value"], "one\ntwo");
        assert_eq!(json[1], json!({ "key": "b", "removed": true }));
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(
            preview("ä".repeat(300).as_bytes()).chars().count(),
            LINE + 1
        );
        assert_eq!(preview(&[0xff]), "(1 bytes)");
    }
}
