//! Reading a configuration file as TOML, YAML or JSON into raw values that know their lines.

mod json;
mod toml;
mod yaml;

use std::path::Path;

use crate::raw::{Entry, Raw};

/// Deeper nesting than this is a mistake or an attack.
const MAX_DEPTH: usize = 32;

/// A syntax error: its line (0 when unknown) and what is wrong, without a piece of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) problem: String,
}

impl SyntaxError {
    fn new(line: usize, problem: impl Into<String>) -> Self {
        Self {
            line,
            problem: problem.into(),
        }
    }
}

/// Reads another file than the configuration in the format that its name says, as JSON.
///
/// # Errors
/// The first fault, with its line where it is known.
pub fn document(path: &Path, text: &str) -> Result<serde_json::Value, String> {
    let (entries, errors) = parse(path, text);
    match errors.into_iter().next() {
        None => Ok(Raw::Table(entries).to_json()),
        Some(error) if error.line == 0 => Err(error.problem),
        Some(error) => Err(format!("line {}: {}", error.line, error.problem)),
    }
}

/// Reads `text` in the format that the file's name says; whatever could be read is returned next to
/// the errors, so that faults behind a syntax error are reported with it.
pub(crate) fn parse(path: &Path, text: &str) -> (Vec<Entry>, Vec<SyntaxError>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let (raw, mut errors) = match extension.to_ascii_lowercase().as_str() {
        "toml" => toml::parse(text),
        "yaml" | "yml" => yaml::parse(text),
        "json" => json::parse(text),
        _ => {
            let problem = "the name of a configuration file ends in .toml, .yaml, .yml or .json";
            return (Vec::new(), vec![SyntaxError::new(0, problem)]);
        }
    };
    match raw {
        Raw::Table(entries) => {
            repeated(&entries, &mut errors);
            (entries, errors)
        }
        Raw::Null => (Vec::new(), errors),
        other => {
            let problem = format!(
                "a configuration file is a table of sections, not {}",
                other.what()
            );
            errors.push(SyntaxError::new(1, problem));
            (Vec::new(), errors)
        }
    }
}

/// Line of a byte offset, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let end = offset.min(text.len());
    1 + text.as_bytes()[..end]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
}

fn repeated(entries: &[Entry], errors: &mut Vec<SyntaxError>) {
    let mut seen = std::collections::BTreeMap::new();
    for entry in entries {
        if let Some(first) = seen.insert(entry.key.as_str(), entry.line) {
            let problem = format!("key {:?} stands here and on line {first}", entry.key);
            errors.push(SyntaxError::new(entry.line, problem));
        }
        if let Raw::Table(inner) = &entry.raw {
            repeated(inner, errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOML: &str = "a = 1\n[s]\nt = \"x\"\nlist = [1, 2.5, true]\n[s.deep]\nk = \"v\"\n";
    const YAML: &str = "a: 1\ns:\n  t: x\n  list: [1, 2.5, true]\n  deep:\n    k: 'v'\n";
    const JSON: &str = "{\"a\": 1,\n\"s\": {\n\t\"t\": \"x\",\n\"list\": [1, 2.5, true],\n\"deep\": {\n\"k\": \"v\"}}}";

    fn read(name: &str, text: &str) -> Vec<Entry> {
        let (entries, errors) = parse(Path::new(name), text);
        assert_eq!(errors, [], "{name}");
        entries
    }

    fn lines(entries: &[Entry], out: &mut Vec<(String, usize)>) {
        for entry in entries {
            out.push((entry.key.clone(), entry.line));
            if let Raw::Table(inner) = &entry.raw {
                lines(inner, out);
            }
        }
    }

    #[test]
    fn three_formats_say_the_same() {
        let json = |entries| Raw::Table(entries).to_json();
        let toml = json(read("p.toml", TOML));
        assert_eq!(toml, json(read("p.yaml", YAML)));
        assert_eq!(toml, json(read("p.yml", YAML)));
        assert_eq!(toml, json(read("p.json", JSON)));
    }

    #[test]
    fn lines_are_kept() {
        for (name, text, want) in [
            ("p.toml", TOML, [1, 2, 3, 4, 5, 6]),
            ("p.yaml", YAML, [1, 2, 3, 4, 5, 6]),
            ("p.json", JSON, [1, 2, 3, 4, 5, 6]),
        ] {
            let mut found = Vec::new();
            lines(&read(name, text), &mut found);
            let found: Vec<_> = found.into_iter().map(|(_, line)| line).collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for name in ["p.toml", "p.yaml"] {
            assert_eq!(read(name, ""), [], "{name}");
            assert_eq!(read(name, "\u{feff}# only a comment\n"), [], "{name}");
        }
        assert_eq!(read("p.json", "{}"), []);
    }

    #[test]
    fn deep_nesting_is_refused_without_a_stack_overflow() {
        for (name, open) in [
            ("p.json", "["),
            ("p.json", "{\"a\":"),
            ("p.yaml", "["),
            ("p.toml", "["),
        ] {
            let text = format!(
                "{}{}",
                if name == "p.json" { "" } else { "a = " },
                open.repeat(100_000)
            );
            let (_, errors) = parse(Path::new(name), &text);
            assert!(!errors.is_empty(), "{name}");
        }
        let closed = format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        for name in ["p.json", "p.yaml"] {
            let (_, errors) = parse(Path::new(name), &closed);
            let problem = &errors[0].problem;
            assert!(
                problem.contains("deep") || problem.contains("recursion"),
                "{name}: {problem}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "\\PC{0,80}", name in "p\\.(toml|yaml|json|txt)") {
            let _ = parse(Path::new(&name), &text);
        }

        #[test]
        fn no_likely_input_panics(
            text in "([a-z]{1,3}|[\\[\\]{}:=,&*!|>'\"#\\n\\t -]|[0-9.]{1,3}){0,40}",
            name in "p\\.(toml|yaml|json)",
        ) {
            let _ = parse(Path::new(&name), &text);
        }
    }
}
