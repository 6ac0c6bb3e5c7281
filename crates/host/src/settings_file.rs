//! Settings from configuration: the layer between the declared defaults and the settings service.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portico_base::id;
use portico_config::{Config, Fault, FirstValue, SettingKey, read_file};
use portico_contract::settings::{
    Declaration, Kind, Scope, SettingsLayer, SettingsListener, SettingsSource, effective,
};
use serde_json::Value;
use uuid::Uuid;

/// Values by key and scope, so that looking one up makes no text.
type Values = HashMap<String, HashMap<Uuid, Arc<Value>>>;

/// Values of the sections `settings` and `settings_tenant`; replaced as a whole on reload.
pub struct FileSettings {
    declarations: Vec<Declaration>,
    values: ArcSwap<Values>,
    listeners: Mutex<Vec<SettingsListener>>,
}

impl FileSettings {
    /// Settings with no values yet, for these declarations.
    #[must_use]
    pub fn new(declarations: Vec<Declaration>) -> Self {
        Self {
            declarations,
            values: ArcSwap::default(),
            listeners: Mutex::default(),
        }
    }

    /// Takes over the values of a configuration that [`faults`] found good; listeners hear what changed.
    ///
    /// # Errors
    /// Every wrong entry; then nothing was taken over.
    pub fn replace(&self, config: &Config) -> Result<(), Vec<Fault>> {
        let (first, faults) = read(config, &self.declarations);
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut values = Values::new();
        for (tenant, first, value) in first {
            let of_key = values.entry(first.key).or_default();
            of_key.insert(tenant, Arc::new(value));
        }
        let before = self.values.swap(Arc::new(values));
        let after = self.values.load();
        let mut changed: Vec<String> = before
            .keys()
            .chain(after.keys())
            .filter(|key| before.get(*key) != after.get(*key))
            .cloned()
            .collect();
        changed.sort();
        changed.dedup();
        if !changed.is_empty() {
            let listeners = self.listeners.lock().clone();
            for listener in listeners {
                listener(&changed);
            }
        }
        Ok(())
    }
}

/// Every fault in the settings of a configuration.
#[must_use]
pub(crate) fn faults(config: &Config, declarations: &[Declaration]) -> Vec<Fault> {
    read(config, declarations).1
}

type Value1 = (Uuid, FirstValue, Value);

fn read(config: &Config, declarations: &[Declaration]) -> (Vec<Value1>, Vec<Fault>) {
    let keys: Vec<SettingKey<'_>> = declarations
        .iter()
        .map(|d| SettingKey {
            key: d.key,
            secret: d.secret,
        })
        .collect();
    let (first, mut faults) = config.claim_settings(&keys, &read_file);
    let mut values = Vec::new();
    for one in first {
        match check(&one, declarations) {
            Ok((tenant, value)) => values.push((tenant, one, value)),
            Err(problem) => {
                let key = match &one.tenant {
                    Some(slug) => format!("settings_tenant.{slug}.{}", one.key),
                    None => format!("settings.{}", one.key),
                };
                faults.push(Fault::new(&one.origin, key, problem));
            }
        }
    }
    (values, faults)
}

fn check(first: &FirstValue, declarations: &[Declaration]) -> Result<(Uuid, Value), String> {
    let declaration = declarations
        .iter()
        .find(|d| d.key == first.key)
        .ok_or("unknown setting")?;
    let tenant = match first.tenant.as_deref() {
        None => id::TENANT_SYSTEM,
        Some("default") => id::TENANT_DEFAULT,
        Some(_) => return Err("there is no tenant of this name".to_owned()),
    };
    match (declaration.scope, &first.tenant) {
        (Scope::System, Some(_)) => return Err("can only be set for the installation".to_owned()),
        (Scope::Tenant, None) => return Err("can only be set for a tenant".to_owned()),
        _ => {}
    }
    let as_text = matches!(declaration.kind, Kind::Text { .. } | Kind::Enum(_));
    let value = match &first.text {
        Some(text) if as_text => Value::from(text.as_str()),
        _ => first.value.clone(),
    };
    declaration.check(&value)?;
    Ok((tenant, value))
}

impl SettingsSource for FileSettings {
    fn value(&self, tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        effective(|_| None, |scope| self.own(scope, key), tenant).map(|(value, _)| value)
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }
}

impl SettingsLayer for FileSettings {
    fn own(&self, scope: Uuid, key: &str) -> Option<Arc<Value>> {
        self.values.load().get(key)?.get(&scope).cloned()
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }
}

#[cfg(test)]
mod tests {
    use portico_contract::settings::{Key, Settings};

    use super::*;

    const OPEN_S: Declaration = Declaration::new(
        "gateway.breaker.open_s",
        Kind::Integer { min: 1, max: 300 },
        "30",
        "open time",
        "断开时间",
    );

    fn config(text: &str) -> Config {
        let read = |_: &std::path::Path| Ok(text.as_bytes().to_vec());
        let input = portico_config::Input {
            env: std::collections::BTreeMap::new(),
            flags: Vec::new(),
            config_file: Some("portico.toml".into()),
            read: &read,
            also: Vec::new(),
        };
        portico_config::load(&input).unwrap().config
    }

    #[test]
    fn values_are_checked_and_listeners_hear_changes() {
        let source = Arc::new(FileSettings::new(vec![OPEN_S.scope(Scope::Both)]));
        let settings = Settings::new(source.clone());
        let key: Key<u32> = Key::new(OPEN_S);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&heard);
        settings.subscribe(Arc::new(move |changed| {
            sink.lock().extend(changed.to_vec())
        }));

        source
            .replace(&config(
                "[settings]\n\"gateway.breaker.open_s\" = 10\n[settings_tenant.default]\n\"gateway.breaker.open_s\" = 20\n",
            ))
            .unwrap();
        assert_eq!(settings.system(&key), 10);
        assert_eq!(settings.get(id::TENANT_DEFAULT, &key), 20);
        assert_eq!(*heard.lock(), ["gateway.breaker.open_s"]);

        let wrong =
            config("[settings]\n\"gateway.breaker.opens_s\" = 1\n\"gateway.breaker.open_s\" = 0\n");
        let faults = source.replace(&wrong).unwrap_err();
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 2, "{text:?}");
        assert!(
            text.iter()
                .any(|t| t.contains("did you mean `settings.gateway.breaker.open_s`")),
            "{text:?}"
        );
        assert!(text.iter().any(|t| t.contains("from 1 to 300")), "{text:?}");
        assert_eq!(settings.system(&key), 10, "nothing was taken over");
    }
}
