//! Settings of several layers: those of the settings service above those of the configuration file.
//!
//! Made before any service, so that all of them hold it; the settings service puts its layer in when it is
//! built, and every holder sees its values without knowing.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use portico_contract::settings::{SettingsLayer, SettingsListener, SettingsSource, effective};
use serde_json::Value;
use uuid::Uuid;

/// The layers of a process.
pub struct SettingsLayers {
    file: Arc<dyn SettingsLayer>,
    stored: OnceLock<Arc<dyn SettingsLayer>>,
    listeners: Arc<Mutex<Vec<SettingsListener>>>,
}

impl SettingsLayers {
    /// The configuration file alone, so far.
    #[must_use]
    pub fn new(file: Arc<dyn SettingsLayer>) -> Arc<Self> {
        let listeners = Arc::default();
        forward(&*file, &listeners);
        Arc::new(Self {
            file,
            stored: OnceLock::new(),
            listeners,
        })
    }

    /// Puts the upper layer in; a second one is not taken.
    pub fn put(&self, stored: Arc<dyn SettingsLayer>) {
        forward(&*stored, &self.listeners);
        // Composition builds one settings service; another would be its own mistake.
        let _ = self.stored.set(stored);
    }

    /// The layer of the configuration file.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn SettingsLayer> {
        &self.file
    }
}

/// What a layer says is heard by whoever listens to all of them.
fn forward(layer: &dyn SettingsLayer, listeners: &Arc<Mutex<Vec<SettingsListener>>>) {
    let listeners = Arc::clone(listeners);
    layer.subscribe(Arc::new(move |changed| {
        let all = listeners.lock().clone();
        for listener in all {
            listener(changed);
        }
    }));
}

impl SettingsSource for SettingsLayers {
    fn value(&self, tenant: Uuid, key: &str) -> Option<Arc<Value>> {
        let stored = |scope| self.stored.get().and_then(|layer| layer.own(scope, key));
        let file = |scope| self.file.own(scope, key);
        effective(stored, file, tenant).map(|(value, _)| value)
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use parking_lot::RwLock;
    use portico_base::id::{TENANT_DEFAULT, TENANT_SYSTEM};

    use super::*;

    #[derive(Default)]
    struct Fixed {
        values: RwLock<HashMap<Uuid, Arc<Value>>>,
        listeners: Mutex<Vec<SettingsListener>>,
    }

    impl Fixed {
        fn set(&self, scope: Uuid, value: i64) {
            self.values.write().insert(scope, Arc::new(value.into()));
            for listener in &*self.listeners.lock() {
                listener(&["a.b".to_owned()]);
            }
        }
    }

    impl SettingsLayer for Fixed {
        fn own(&self, scope: Uuid, _key: &str) -> Option<Arc<Value>> {
            self.values.read().get(&scope).cloned()
        }

        fn subscribe(&self, listener: SettingsListener) {
            self.listeners.lock().push(listener);
        }
    }

    #[test]
    fn scope_goes_before_layer_and_both_layers_are_heard() {
        let (file, stored) = (Arc::new(Fixed::default()), Arc::new(Fixed::default()));
        let layers = SettingsLayers::new(file.clone());
        let heard = Arc::new(Mutex::new(0));
        let sink = Arc::clone(&heard);
        layers.subscribe(Arc::new(move |_| *sink.lock() += 1));
        let value = |tenant| layers.value(tenant, "a.b").and_then(|v| v.as_i64());
        assert_eq!(value(TENANT_DEFAULT), None);
        file.set(TENANT_SYSTEM, 1);
        assert_eq!(value(TENANT_DEFAULT), Some(1));
        stored.set(TENANT_SYSTEM, 2);
        layers.put(stored.clone());
        assert_eq!(
            (value(TENANT_DEFAULT), value(TENANT_SYSTEM)),
            (Some(2), Some(2))
        );
        file.set(TENANT_DEFAULT, 3);
        assert_eq!(
            (value(TENANT_DEFAULT), value(TENANT_SYSTEM)),
            (Some(3), Some(2))
        );
        stored.set(TENANT_DEFAULT, 4);
        assert_eq!(value(TENANT_DEFAULT), Some(4));
        assert_eq!(
            *heard.lock(),
            3,
            "what was set before it was put in was not heard"
        );
    }
}
