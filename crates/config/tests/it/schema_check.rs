//! A validator for the keywords that our schema uses; any other keyword is a fault, so that nothing
//! is accepted because it was not understood.

use serde_json::Value as Json;

pub(crate) fn faults(schema: &Json, value: &Json) -> Vec<String> {
    let mut out = Vec::new();
    check("", schema, value, &mut out);
    out
}

fn check(path: &str, schema: &Json, value: &Json, out: &mut Vec<String>) {
    let mut wrong = |why: String| out.push(format!("{path}: {why}"));
    let mut inner = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        let good = match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "writeOnly" => true,
            "type" => is_a(rule.as_str().unwrap(), value),
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minLength" => length(value).is_none_or(|length| length >= rule.as_u64().unwrap()),
            "maxLength" => length(value).is_none_or(|length| length <= rule.as_u64().unwrap()),
            "pattern" => {
                let pattern = regex::Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "anyOf" => rule
                .as_array()
                .unwrap()
                .iter()
                .any(|one| faults(one, value).is_empty()),
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(&format!("{path}[]"), rule, item, &mut inner);
                }
                true
            }
            "properties" => {
                for (name, item) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(name) {
                        check(&format!("{path}.{name}"), rule, item, &mut inner);
                    }
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(rule, false);
                let known = |name: &String| schema["properties"].get(name).is_some();
                value
                    .as_object()
                    .is_none_or(|object| object.keys().all(known))
            }
            other => panic!("keyword {other}"),
        };
        if !good {
            wrong(format!("{keyword} {rule}"));
        }
    }
    out.append(&mut inner);
}

fn is_a(kind: &str, value: &Json) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        other => panic!("type {other}"),
    }
}

fn length(value: &Json) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}
