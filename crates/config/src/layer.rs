//! One layer at a time: which declared key each written name means, and what is written wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::env;
use crate::fault::{Fault, Warning, nearest};
use crate::free::{FreeTable, FreeValues, secret_file};
use crate::key::{Class, Declared, Key, Place, join};
use crate::load::{Flag, Found};
use crate::origin::Origin;
use crate::raw::{Entry, Raw};

/// The versions of the file's form that are read (CF-8).
const API_VERSIONS: &[&str] = &["portico/v1"];
const KIND: &str = "PorticoConfig";

/// What one layer says.
#[derive(Default)]
pub(crate) struct Layer {
    /// By declared key; the value of `<key>_file` is still the path.
    pub(crate) values: BTreeMap<String, Found>,
    free: BTreeMap<String, FreeTable>,
}

/// Reads layers and collects their faults.
pub(crate) struct Layers<'a> {
    declared: &'a Declared,
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Warning>,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(declared: &'a Declared) -> Self {
        Self {
            declared,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn environment(&mut self, variables: &BTreeMap<String, String>) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in variables {
            if let Some(path) = env::path_of(name) {
                let origin = Origin::Env(name.clone());
                self.single(&mut layer, &path, Raw::Text(value.clone()), &origin);
            }
        }
        let paths = self.declared.keys.iter().map(|key| key.path.as_str());
        for (name, meant) in env::lookalikes(variables, paths) {
            let origin = Origin::Env(name.to_owned());
            let message = format!("not read, did you mean {meant}?");
            self.warnings.push(Warning::new(&origin, "", message));
        }
        layer
    }

    pub(crate) fn flags(&mut self, flags: &[Flag]) -> Layer {
        let mut layer = Layer::default();
        for flag in flags {
            let origin = Origin::Flag(flag.flag.clone());
            let raw = Raw::Text(flag.value.clone());
            self.single(&mut layer, &flag.key, raw, &origin);
        }
        layer
    }

    pub(crate) fn file(&mut self, path: &Path, entries: Vec<Entry>) -> Layer {
        let mut layer = Layer::default();
        let entries = self.header(path, entries);
        self.table(&mut layer, path, "", entries);
        layer
    }

    /// Takes the keys that say what the file is, and leaves the sections.
    fn header(&mut self, path: &Path, mut entries: Vec<Entry>) -> Vec<Entry> {
        entries.retain(|entry| {
            let allowed: &[&str] = match entry.key.as_str() {
                // Editors read the schema's address from JSON files themselves.
                "$schema" => return false,
                "apiVersion" => API_VERSIONS,
                "kind" => &[KIND],
                _ => return true,
            };
            let text = entry.raw.as_text();
            if !text.is_some_and(|text| allowed.contains(&text)) {
                let origin = Origin::file(path, entry.line);
                let problem = match text {
                    Some(text) => format!("{} is not known", crate::types::shown(text)),
                    None => format!("expected text, found {}", entry.raw.what()),
                };
                self.faults
                    .push(Fault::new(&origin, &entry.key, problem).allowed(allowed.join(", ")));
            }
            false
        });
        entries
    }

    fn table(&mut self, layer: &mut Layer, path: &Path, prefix: &str, entries: Vec<Entry>) {
        for entry in entries {
            let key = join(prefix, &entry.key);
            let origin = Origin::file(path, entry.line);
            match (self.declared.place(&key), entry.raw) {
                (_, Raw::Null) => {}
                (Place::Section, Raw::Table(inner)) => self.table(layer, path, &key, inner),
                (Place::Free, Raw::Table(inner)) => {
                    let free = layer.free.entry(key).or_default();
                    path.clone_into(&mut free.file);
                    free.entries.extend(inner);
                }
                (Place::Section | Place::Free, raw) => self.not_a_table(&key, &raw, &origin),
                (Place::Key(declared) | Place::FileOf(declared), raw) => {
                    self.put(layer, declared, key, raw, &origin);
                }
                (Place::Unknown, raw) => self.unknown(&key, raw, &origin),
            }
        }
    }

    /// One value of the environment or of a flag.
    fn single(&mut self, layer: &mut Layer, path: &str, raw: Raw, origin: &Origin) {
        if path.split('.').any(str::is_empty) {
            let problem = "a part of the name is empty";
            let allowed = "PORTICO__SECTION__KEY, two underscores between the parts";
            self.faults
                .push(Fault::new(origin, "", problem).allowed(allowed));
            return;
        }
        match self.declared.place(path) {
            Place::Key(declared) | Place::FileOf(declared) => {
                self.put(layer, declared, path.to_owned(), raw, origin);
            }
            Place::Section | Place::Free => self.not_a_table(path, &raw, origin),
            Place::Unknown => match path.split_once('.') {
                Some((section, key)) if self.declared.free.contains(section) => {
                    let found = Found::new(raw, origin.clone(), path);
                    let free = layer.free.entry(section.to_owned()).or_default();
                    free.over.insert(key.to_owned(), found);
                }
                _ => self.unknown(path, raw, origin),
            },
        }
    }

    /// A flag may be repeated, the last one counts; elsewhere one place for a value is enough.
    fn put(&mut self, layer: &mut Layer, key: &Key, written: String, raw: Raw, origin: &Origin) {
        let found = Found::new(raw, origin.clone(), &written);
        if let Some(first) = layer.values.insert(key.path.clone(), found)
            && !(matches!(origin, Origin::Flag(_)) && first.written == written)
        {
            let problem = format!(
                "set a second time, first as `{}` at {}",
                first.written, first.origin
            );
            self.faults.push(Fault::new(origin, written, problem));
        }
    }

    fn not_a_table(&mut self, path: &str, raw: &Raw, origin: &Origin) {
        let problem = format!("expected a section, found {}", raw.what());
        let members = self.declared.members(path).join(", ");
        let fault = Fault::new(origin, path, problem);
        self.faults.push(if members.is_empty() {
            fault
        } else {
            fault.allowed(members)
        });
    }

    fn unknown(&mut self, path: &str, raw: Raw, origin: &Origin) {
        if let (Raw::Table(inner), Origin::File { path: file, .. }) = (raw, origin)
            && !inner.is_empty()
            && self.near(path).is_some()
        {
            // A misspelt section: each key in it gets its own right name.
            for entry in inner {
                let origin = Origin::file(file, entry.line);
                self.unknown(&join(path, &entry.key), entry.raw, &origin);
            }
            return;
        }
        let mut near = self.near(path);
        let section = path.rsplit_once('.').map_or("", |(section, _)| section);
        let known = matches!(self.declared.place(section), Place::Section);
        let mut fault = Fault::new(origin, path, "unknown key");
        if near.is_none() {
            let section = if known { section } else { "" };
            fault = fault.allowed(self.declared.members(section).join(", "));
        }
        if let Origin::Env(_) = origin {
            near = near.map(|near| env::name_of(&near));
        }
        self.faults.push(fault.did_you_mean(near));
    }

    fn near(&self, path: &str) -> Option<String> {
        nearest(path, self.declared.names())
    }

    /// Puts a later layer over the earlier ones, key by key.
    pub(crate) fn put_over(
        &self,
        layer: Layer,
        found: &mut BTreeMap<String, Found>,
        free: &mut FreeValues,
    ) {
        found.extend(layer.values);
        for (section, table) in layer.free {
            let below = free.0.entry(section).or_default();
            if !table.entries.is_empty() {
                below.file = table.file;
                below.entries = table.entries;
            }
            below.over.extend(table.over);
        }
    }

    /// Reads the files of secrets and writes the data directory into the values that name it.
    pub(crate) fn settle(
        &mut self,
        found: &mut BTreeMap<String, Found>,
        data_dir: &str,
        read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
    ) {
        for key in &self.declared.keys {
            let Some(value) = found.get_mut(&key.path) else {
                continue;
            };
            key.write_data_dir(&mut value.raw, data_dir);
            if value.written == key.path {
                continue;
            }
            if value.raw.as_text() == Some("") {
                found.remove(&key.path);
                continue;
            }
            match secret_file(&value.raw, &value.origin, read) {
                Ok((text, origin)) => {
                    value.raw = Raw::Text(text);
                    value.origin = origin;
                }
                Err(problem) => {
                    self.faults
                        .push(Fault::new(&value.origin, &value.written, problem));
                    found.remove(&key.path);
                }
            }
        }
        self.inline_passwords(found);
        self.without_effect(found, data_dir);
    }

    /// Operations §7: a password in a URL is taken, with one warning that names the better key.
    fn inline_passwords(&mut self, found: &BTreeMap<String, Found>) {
        for key in self
            .declared
            .keys
            .iter()
            .filter(|key| key.kind.class == Class::Url)
        {
            let Some(value) = found.get(&key.path) else {
                continue;
            };
            let file_key = key.file_key().unwrap_or_default();
            let holds = value.raw.as_text().is_some_and(crate::urls::holds_password);
            if holds && value.written == key.path {
                let message = format!(
                    "holds a password; better put the URL into a file and name it by `{file_key}`"
                );
                self.warnings
                    .push(Warning::new(&value.origin, &key.path, message));
            }
        }
    }

    fn without_effect(&mut self, found: &BTreeMap<String, Found>, data_dir: &str) {
        for key in &self.declared.keys {
            if let (Some(with), Some(value)) = (key.later, found.get(&key.path))
                && value.raw != key.default_in(data_dir)
            {
                let message = format!("has no effect yet, it comes with {with}");
                self.warnings
                    .push(Warning::new(&value.origin, &value.written, message));
            }
        }
    }
}
