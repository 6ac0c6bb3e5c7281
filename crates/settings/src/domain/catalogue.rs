//! All declared settings: those of our services, fixed, and those of plug-ins, as they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use portico_contract::settings::Declaration;
use portico_contract::settings_tree::PluginSchema;
use uuid::Uuid;

use super::declared::Declared;
use super::plugin;
use crate::error::{Error, configuration};

/// A plug-in's settings by key; services of two tenants may have one name.
type Plugins = BTreeMap<Arc<str>, Vec<Arc<Declared>>>;

/// All declared settings of a process.
pub(crate) struct Catalogue {
    builtin: BTreeMap<Arc<str>, Arc<Declared>>,
    plugins: ArcSwap<Plugins>,
    /// First words of configuration.
    configuration: BTreeSet<String>,
}

impl Catalogue {
    /// The settings of our services, and the keys of the configuration.
    pub(crate) fn new<'a>(
        declarations: &[(&'static str, &'static [Declaration])],
        configuration: impl Iterator<Item = &'a str>,
    ) -> Self {
        let builtin = declarations
            .iter()
            .flat_map(|(service, all)| all.iter().map(|d| Declared::builtin(service, d)))
            .map(|d| (Arc::clone(&d.key), Arc::new(d)))
            .collect();
        let first = |key: &'a str| key.split('.').next().unwrap_or_default().to_owned();
        Self {
            builtin,
            plugins: ArcSwap::default(),
            configuration: configuration
                .filter(|key| !key.starts_with("settings"))
                .map(first)
                .collect(),
        }
    }

    /// Takes over what plug-ins declare now; schemas that nobody checked are left out. Gives the keys
    /// whose declaration changed.
    pub(crate) fn learn(&self, all: &[PluginSchema]) -> Vec<String> {
        let mut plugins = Plugins::new();
        for one in all {
            match plugin::parse(&one.service, one.tenant, &one.schema) {
                Ok(declared) => {
                    for d in declared {
                        let of_key = plugins.entry(Arc::clone(&d.key)).or_default();
                        of_key.push(Arc::new(d));
                    }
                }
                Err(faults) => {
                    tracing::warn!(
                        service = &*one.service,
                        fault = faults.first().map_or("", |f| f.1.as_str()),
                        "the settings of a plug-in are not understood"
                    );
                }
            }
        }
        let before = self.plugins.swap(Arc::new(plugins));
        let after = self.plugins.load();
        let keys: BTreeSet<&Arc<str>> = before.keys().chain(after.keys()).collect();
        keys.into_iter()
            .filter(|key| text(before.get(*key)) != text(after.get(*key)))
            .map(|key| key.to_string())
            .collect()
    }

    /// The declaration of a key, as one scope sees it.
    pub(crate) fn get(&self, key: &str, scope: Uuid) -> Option<Arc<Declared>> {
        if let Some(declared) = self.builtin.get(key) {
            return Some(Arc::clone(declared));
        }
        let plugins = self.plugins.load();
        let of_key = plugins.get(key)?;
        of_key
            .iter()
            .find(|d| d.tenant == Some(scope))
            .or_else(|| of_key.iter().find(|d| d.tenant.is_none()))
            .cloned()
    }

    /// All declarations that begin with a prefix, in the order of their keys, as one scope sees them.
    pub(crate) fn list(&self, prefix: &str, scope: Uuid) -> Vec<Arc<Declared>> {
        let builtin = self.builtin.values().map(Arc::clone);
        let plugins = self.plugins.load();
        let further = plugins.keys().filter_map(|key| self.get(key, scope));
        let mut all: Vec<Arc<Declared>> = builtin
            .chain(further)
            .filter(|d| d.key.starts_with(prefix))
            .collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    /// What to say of a key that nobody declares.
    pub(crate) fn missing(&self, key: &str) -> Error {
        if self.is_configuration(key) {
            return Error::Configuration(vec![configuration(key)]);
        }
        Error::unknown(key)
    }

    /// True when a key that nobody declares is one of the configuration.
    pub(crate) fn is_configuration(&self, key: &str) -> bool {
        let first = key.split('.').next().unwrap_or_default();
        self.configuration.contains(first)
    }
}

fn text(declared: Option<&Vec<Arc<Declared>>>) -> String {
    let all = declared.into_iter().flatten();
    all.map(|d| format!("{:?}|{}", d.tenant, d.schema()))
        .collect()
}
