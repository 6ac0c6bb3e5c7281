//! Showing a loaded configuration: every key with its value and origin, secrets masked.

use portico_base::mask;
use serde::Serialize;
use serde_json::Value as Json;

use crate::key::{Class, Declared, Key};
use crate::load::Loaded;
use crate::origin::Origin;
use crate::raw::Raw;
use crate::sections::Config;
use crate::urls::masked_url;

/// One line of `portico config show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The dotted key.
    pub key: String,
    /// The value on one line, without secrets.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// The layer of the origin: default, file, environment or flag.
    pub layer: &'static str,
}

/// Every key of a loaded configuration in the order of the sections, then settings and agents.
#[must_use]
pub fn rows(loaded: &Loaded) -> Vec<Row> {
    let row = |key: &str, value: String, origin: &Origin| Row {
        key: key.to_owned(),
        value,
        origin: origin.clone(),
        layer: origin.layer(),
    };
    let mut rows: Vec<Row> = Declared::of::<Config>()
        .keys
        .iter()
        .filter_map(|key| {
            let found = loaded.found.get(&key.path)?;
            Some(row(&key.path, printed(key, &found.raw), &found.origin))
        })
        .collect();
    for (key, raw, origin) in free_leaves(&loaded.config) {
        rows.push(row(&key, printed_free(&key, &raw), &origin));
    }
    rows
}

/// [`rows`] as a table of text, one line a key, with the origin when asked for.
#[must_use]
pub fn show(loaded: &Loaded, with_origin: bool) -> String {
    let rows = rows(loaded);
    let width = |f: &dyn Fn(&Row) -> usize| rows.iter().map(f).max().unwrap_or(0);
    let key_width = width(&|row| row.key.chars().count());
    let value_width = width(&|row| row.value.chars().count()).min(60);
    rows.iter()
        .map(|row| {
            if with_origin {
                format!(
                    "{:key_width$}  {:value_width$}  {}\n",
                    row.key, row.value, row.origin
                )
            } else {
                format!("{:key_width$}  {}\n", row.key, row.value)
            }
        })
        .collect()
}

/// A value as it may be printed.
pub(crate) fn printed(key: &Key, raw: &Raw) -> String {
    match (key.kind.class, raw.as_text()) {
        (Class::Secret, Some("")) => "\"\"".to_owned(),
        (Class::Secret, _) => mask::MASKED.to_owned(),
        (Class::Url, Some(text)) => crate::raw::quoted(&masked_url(text)),
        (Class::Url, None) => mask::MASKED.to_owned(),
        (Class::Plain, _) => plain(key, raw),
    }
}

/// Open text is printed as what it was read as, so that the layer does not change the look.
fn plain(key: &Key, raw: &Raw) -> String {
    match raw {
        Raw::Text(text) if key.kind.name.starts_with("list") => {
            let items = crate::types::items(raw).unwrap_or_else(|_| vec![Raw::Text(text.clone())]);
            Raw::List(items).to_line()
        }
        Raw::Text(text) if is_bare(key, text) => text.trim().to_owned(),
        _ => raw.to_line(),
    }
}

fn is_bare(key: &Key, text: &str) -> bool {
    let name = key.kind.name.as_str();
    (name.starts_with("integer") || name.starts_with("number") || name == "boolean")
        && text.trim() != "auto"
}

/// Free values are not typed here: names that look secret are masked, and URLs lose their passwords.
pub(crate) fn printed_free(key: &str, raw: &Raw) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let mut value = raw.to_json();
    mask_json(name, &mut value);
    value.to_string()
}

fn mask_json(name: &str, value: &mut Json) {
    match value {
        _ if mask::is_secret_name(name) && !name.ends_with("_file") => *value = mask::MASKED.into(),
        Json::String(text) => *text = masked_url(text),
        Json::Array(items) => items.iter_mut().for_each(|item| mask_json("", item)),
        Json::Object(members) => members
            .iter_mut()
            .for_each(|(name, item)| mask_json(name, item)),
        _ => {}
    }
}

/// Settings of the file and of later layers, and the agents' table, key by key.
pub(crate) fn free_leaves(config: &Config) -> Vec<(String, Raw, Origin)> {
    let mut leaves = Vec::new();
    let mut add = |section: &str, table: &crate::free::FreeTable| {
        for (key, raw, origin) in table.leaves() {
            leaves.push((format!("{section}.{key}"), raw, origin));
        }
    };
    add("settings", &config.settings);
    for (slug, table) in &config.settings_tenant.0 {
        add(&format!("settings_tenant.{slug}"), table);
    }
    add("agents", &config.agents);
    leaves
}
