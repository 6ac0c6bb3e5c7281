//! Sections whose keys others declare: first values of settings, of tenants' settings, and agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::fault::{Fault, nearest};
use crate::key::{Declared, Reader, Section, join};
use crate::load::Found;
use crate::origin::Origin;
use crate::raw::{Entry, Raw};
use crate::show::printed_free;

/// The free sections as the layers gave them.
#[derive(Clone, Default)]
pub(crate) struct FreeValues(pub(crate) BTreeMap<String, FreeTable>);

/// Free keys of one section: the tree of the file, and single values of later layers.
#[derive(Clone, Default, PartialEq)]
pub struct FreeTable {
    pub(crate) file: PathBuf,
    pub(crate) entries: Vec<Entry>,
    pub(crate) over: BTreeMap<String, Found>,
}

impl fmt::Debug for FreeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leaves = self.leaves();
        f.debug_map()
            .entries(
                leaves
                    .iter()
                    .map(|(key, raw, _)| (key, printed_free(key, raw))),
            )
            .finish()
    }
}

impl FreeTable {
    /// Every value with its dotted key and origin; tables are taken apart.
    #[must_use]
    pub fn leaves(&self) -> Vec<(String, Raw, Origin)> {
        let mut leaves = BTreeMap::new();
        self.collect("", &self.entries, &mut leaves);
        for (key, found) in &self.over {
            leaves.insert(key.clone(), (found.raw.clone(), found.origin.clone()));
        }
        leaves
            .into_iter()
            .map(|(key, (raw, origin))| (key, raw, origin))
            .collect()
    }

    /// The whole section as JSON, tables kept; later layers replace single keys.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut root = Raw::Table(self.entries.clone()).to_json();
        for (key, found) in &self.over {
            let mut at = &mut root;
            for part in key.split('.') {
                if !at.is_object() {
                    *at = Json::Object(serde_json::Map::new());
                }
                at = &mut at[part];
            }
            *at = found.raw.to_json();
        }
        root
    }

    /// True when nothing was set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.over.is_empty()
    }

    fn origin(&self, line: usize) -> Origin {
        Origin::file(&self.file, line)
    }

    fn collect(&self, path: &str, entries: &[Entry], out: &mut BTreeMap<String, (Raw, Origin)>) {
        for entry in entries {
            let path = join(path, &entry.key);
            match &entry.raw {
                Raw::Table(inner) => self.collect(&path, inner, out),
                Raw::Null => {}
                raw => {
                    out.insert(path, (raw.clone(), self.origin(entry.line)));
                }
            }
        }
    }
}

/// `[settings]` holds first values of settings by key, a layer below the database's; `[agents]` what
/// the fleet will read.
impl Section for FreeTable {
    fn declare(path: &str, out: &mut Declared) {
        let doc = match path {
            "settings" => {
                "First values of settings by key, as in \"gateway.breaker.open_s\" = 30: a layer below \
                 the values of the database. A secret is named by its key and _file."
            }
            _ => "Addresses and authority for agents on nodes; read with the fleet.",
        };
        out.free_section(path, &[doc]);
    }

    fn read(path: &str, reader: &mut Reader<'_>) -> Self {
        reader.free.0.get(path).cloned().unwrap_or_default()
    }
}

/// `[settings_tenant.<slug>]`: the same for single tenants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantSettings(pub BTreeMap<String, FreeTable>);

impl Section for TenantSettings {
    fn declare(path: &str, out: &mut Declared) {
        out.free_section(path, &["The same for one tenant: [settings_tenant.SLUG]."]);
    }

    fn read(path: &str, reader: &mut Reader<'_>) -> Self {
        let all = FreeTable::read(path, reader);
        let mut tenants: BTreeMap<String, FreeTable> = BTreeMap::new();
        for entry in &all.entries {
            let origin = all.origin(entry.line);
            let Raw::Table(inner) = &entry.raw else {
                let key = join(path, &entry.key);
                let problem = format!("expected a table of settings, found {}", entry.raw.what());
                reader.faults.push(Fault::new(&origin, key, problem));
                continue;
            };
            if slug_is_good(path, &entry.key, &origin, &mut reader.faults) {
                let tenant = tenants.entry(entry.key.clone()).or_default();
                tenant.file.clone_from(&all.file);
                tenant.entries.clone_from(inner);
            }
        }
        for (key, found) in &all.over {
            let Some((slug, rest)) = key.split_once('.') else {
                let problem = "expected a tenant and the key of a setting";
                reader
                    .faults
                    .push(Fault::new(&found.origin, join(path, key), problem));
                continue;
            };
            if slug_is_good(path, slug, &found.origin, &mut reader.faults) {
                let tenant = tenants.entry(slug.to_owned()).or_default();
                tenant.over.insert(rest.to_owned(), found.clone());
            }
        }
        Self(tenants)
    }
}

fn slug_is_good(path: &str, slug: &str, origin: &Origin, faults: &mut Vec<Fault>) -> bool {
    let good = (1..=63).contains(&slug.len())
        && slug
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !slug.starts_with('-');
    if !good {
        faults.push(
            Fault::new(origin, join(path, slug), "not the short name of a tenant")
                .allowed("lower-case letters, digits and hyphens, at most 63"),
        );
    }
    good
}

/// A setting that some service declares.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey<'a> {
    /// Its dotted key.
    pub key: &'a str,
    /// True when `<key>_file` may name a file with its value.
    pub secret: bool,
}

/// The first value of a declared setting, not yet checked against its type. It has no `Debug`: the
/// value may be a secret.
#[derive(Clone, PartialEq)]
pub struct FirstValue {
    /// The tenant's slug, none for the whole installation.
    pub tenant: Option<String>,
    /// The setting.
    pub key: String,
    /// Its value. From the environment, text that reads as JSON is taken as such.
    pub value: Json,
    /// The text behind `value` when the layer knew no types; a text setting takes this.
    pub text: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// Matches the first values with the settings that exist. Unknown keys are faults with the nearest
/// declared key; types and bounds are the caller's, who has the declarations.
pub(crate) fn claim(
    settings: &FreeTable,
    tenants: &TenantSettings,
    declared: &[SettingKey<'_>],
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Vec<FirstValue>, Vec<Fault>) {
    let mut claim = Claim {
        keys: declared.iter().map(|setting| setting.key).collect(),
        secrets: declared
            .iter()
            .filter(|s| s.secret)
            .map(|s| s.key)
            .collect(),
        read,
        values: BTreeMap::new(),
        faults: Vec::new(),
    };
    claim.table(None, "settings", settings);
    for (slug, table) in &tenants.0 {
        claim.table(Some(slug), &format!("settings_tenant.{slug}"), table);
    }
    (claim.values.into_values().collect(), claim.faults)
}

struct Claim<'a> {
    keys: BTreeSet<&'a str>,
    secrets: BTreeSet<&'a str>,
    read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    values: BTreeMap<(Option<String>, String), FirstValue>,
    faults: Vec<Fault>,
}

impl Claim<'_> {
    fn table(&mut self, tenant: Option<&String>, section: &str, table: &FreeTable) {
        self.entries(tenant, section, "", &table.entries, table);
        for (key, found) in &table.over {
            self.take(tenant, section, key, &found.raw, &found.origin);
        }
    }

    fn entries(
        &mut self,
        tenant: Option<&String>,
        section: &str,
        path: &str,
        entries: &[Entry],
        table: &FreeTable,
    ) {
        for entry in entries {
            let path = join(path, &entry.key);
            match &entry.raw {
                Raw::Null => {}
                Raw::Table(inner) if !self.keys.contains(path.as_str()) => {
                    self.entries(tenant, section, &path, inner, table);
                }
                raw => self.take(tenant, section, &path, raw, &table.origin(entry.line)),
            }
        }
    }

    fn take(
        &mut self,
        tenant: Option<&String>,
        section: &str,
        key: &str,
        raw: &Raw,
        origin: &Origin,
    ) {
        let secret = key
            .strip_suffix("_file")
            .filter(|secret| self.secrets.contains(secret));
        let (key, value, text, origin) = if self.keys.contains(key) {
            let text = if let Raw::Text(text) = raw {
                Some(text.clone())
            } else {
                None
            };
            (key, raw.to_json(), text, origin.clone())
        } else if let Some(secret) = secret {
            match secret_file(raw, origin, self.read) {
                Ok((text, origin)) => (secret, Json::String(text), None, origin),
                Err(problem) => {
                    self.faults
                        .push(Fault::new(origin, join(section, key), problem));
                    return;
                }
            }
        } else {
            let near = nearest(key, self.keys.iter().copied()).map(|near| join(section, &near));
            let fault = Fault::new(origin, join(section, key), "unknown setting");
            self.faults.push(fault.did_you_mean(near));
            return;
        };
        let (tenant, key) = (tenant.cloned(), key.to_owned());
        let first = FirstValue {
            tenant: tenant.clone(),
            key: key.clone(),
            value,
            text,
            origin,
        };
        self.values.insert((tenant, key), first);
    }
}

/// Reads a secret from the file that a value names; the end of its last line is not part of it.
pub(crate) fn secret_file(
    raw: &Raw,
    origin: &Origin,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(String, Origin), String> {
    let Some(path) = raw.as_text().filter(|path| !path.is_empty()) else {
        return Err(format!("expected the path of a file, found {}", raw.what()));
    };
    let path = PathBuf::from(path);
    let shown = path.display();
    let bytes = read(&path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8 text"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(format!("{shown} is empty"));
    }
    let origin = Origin::SecretFile {
        path: path.clone(),
        named_by: Box::new(origin.clone()),
    };
    Ok((text.to_owned(), origin))
}
