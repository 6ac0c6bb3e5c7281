//! The difference between two JSON documents, field by field.

use serde_json::Value;

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// Its path, `target.service.name` or `hosts[0]`.
    pub(super) path: String,
    /// What it was; nothing when it is new.
    pub(super) before: Option<Value>,
    /// What it is; nothing when it is gone.
    pub(super) after: Option<Value>,
}

impl Change {
    /// The change as a line: `+ path: new`, `- path: old`, `~ path: old → new`.
    pub(super) fn line(&self) -> String {
        let path = &self.path;
        match (&self.before, &self.after) {
            (None, Some(after)) => format!("+ {path}: {after}"),
            (Some(before), None) => format!("- {path}: {before}"),
            (Some(before), Some(after)) => format!("~ {path}: {before} → {after}"),
            (None, None) => format!("  {path}"),
        }
    }
}

/// Everything that differs, in the order of the new document. Objects are compared field by field, lists
/// entry by entry, everything else as a whole.
pub(super) fn changes(before: Option<&Value>, after: Option<&Value>) -> Vec<Change> {
    let mut found = Vec::new();
    walk("", before, after, &mut found);
    found
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    // What is new or gone is told by its innermost fields as well, so that a document reads the same way
    // whether it is created or changed.
    let empty = Value::Object(serde_json::Map::new());
    let (left, right) = match (before, after) {
        (None, Some(Value::Object(map))) if !map.is_empty() => (Some(&empty), after),
        (Some(Value::Object(map)), None) if !map.is_empty() => (before, Some(&empty)),
        other => other,
    };
    match (left, right) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            for key in new.keys().chain(gone) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                walk(&path, old.get(key), new.get(key), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                walk(&format!("{path}[{at}]"), old.get(at), new.get(at), found);
            }
        }
        _ => found.push(Change {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        changes(Some(before), Some(after))
            .iter()
            .map(Change::line)
            .collect()
    }

    #[test]
    fn fields_are_told_by_their_path() {
        let before = json!({ "path": { "prefix": "/a" }, "hosts": ["x"], "cache": { "ttl_s": 5 }, "same": 1 });
        let after = json!({ "path": { "prefix": "/b" }, "hosts": ["x", "y"], "rewrite": { "prefix": "/" }, "same": 1 });
        let mut told = lines(&before, &after);
        told.sort();
        assert_eq!(
            told,
            [
                "+ hosts[1]: \"y\"",
                "+ rewrite.prefix: \"/\"",
                "- cache.ttl_s: 5",
                "~ path.prefix: \"/a\" → \"/b\"",
            ]
        );
    }

    #[test]
    fn creation_and_deletion_read_like_a_change() {
        let doc = json!({ "path": { "exact": "/a" }, "hosts": [] });
        let mut told: Vec<String> = changes(None, Some(&doc)).iter().map(Change::line).collect();
        told.sort();
        assert_eq!(told, ["+ hosts: []", "+ path.exact: \"/a\""]);
        assert_eq!(changes(Some(&doc), None).len(), 2);
        assert!(changes(Some(&doc), Some(&doc)).is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn equal_documents_and_only_they_have_no_changes(a in value(), b in value()) {
            prop_assert!(changes(Some(&a), Some(&a)).is_empty());
            prop_assert_eq!(changes(Some(&a), Some(&b)).is_empty(), a == b);
            prop_assert_eq!(changes(Some(&a), Some(&b)).len(), changes(Some(&b), Some(&a)).len());
        }
    }
}
