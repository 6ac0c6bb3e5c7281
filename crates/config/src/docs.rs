//! The text of `docs/configuration.md`, written from the declarations.

use crate::key::{Declared, Key};
use crate::raw::Raw;
use crate::render::{last, parent, value};
use crate::sections::Config;

/// What stands above the generated tables.
const HEAD: &str = include_str!("configuration_head.md");

/// The text of `docs/configuration.md`.
#[must_use]
pub fn docs() -> String {
    let declared = Declared::of::<Config>();
    let mut out = String::from(HEAD);
    flags(&mut out, &declared);
    out.push_str("\n## Keys\n");
    for (section, doc) in declared
        .sections
        .iter()
        .filter(|(path, _)| !path.is_empty())
    {
        out.push_str(&format!("\n### `{section}`\n\n{}\n", cell(doc)));
        let keys: Vec<&Key> = declared
            .keys
            .iter()
            .filter(|key| parent(&key.path) == section)
            .collect();
        if keys.is_empty() {
            continue;
        }
        out.push_str("\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        for key in keys {
            out.push_str(&row(key));
        }
    }
    out
}

fn flags(out: &mut String, declared: &Declared) {
    out.push_str("\n## Flags\n\n| Flag | Key | Variable |\n|---|---|---|\n");
    out.push_str("| `--config FILE` | | `PORTICO_CONFIG` |\n");
    for key in &declared.keys {
        if let Some(flag) = key.flag {
            // Flags without a value say the opposite of a default.
            let value = match key.default {
                Raw::Bool(default) => format!(" = {}", !default),
                _ => String::new(),
            };
            out.push_str(&format!(
                "| `{flag}` | `{}{value}` | `{}` |\n",
                key.path,
                key.env()
            ));
        }
    }
}

fn row(key: &Key) -> String {
    let mut kind = key.kind.name.clone();
    if let Some((least, most)) = key.range {
        kind.push_str(&format!(", {least} to {most}"));
    }
    let mut doc = key.doc.clone();
    if let Some(file) = key.file_key() {
        doc.push_str(&format!(" From a file: `{}`.", last(&file)));
    }
    if key.reload {
        doc.push_str(" *Reload.*");
    }
    if let Some(with) = key.later {
        doc.push_str(&format!(" *No effect yet, it comes with {with}.*"));
    }
    format!(
        "| `{}` | {} | `{}` | {} |\n",
        last(&key.path),
        cell(&kind),
        value(&key.default),
        cell(&doc)
    )
}

/// `|` would end a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
