//! Takes the settings that plug-ins declare (CT-15).

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::FieldFault;
use portico_contract::settings_tree::{PluginSchema, PluginSettings};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::plugin;
use crate::hub::Core;
use crate::live;

/// Declarations of plug-ins on their way into the catalogue.
pub(crate) struct Plugins {
    core: Arc<Core>,
    /// Keys whose declaration changed and whose values are to be looked at again.
    changed: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Plugins {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            changed: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// Looks again at values whose declaration changed, until told to stop.
    pub(crate) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
            }
            let keys: Vec<String> = std::mem::take(&mut *self.changed.lock())
                .into_iter()
                .collect();
            live::review(&self.core, &keys).await;
        }
    }
}

impl PluginSettings for Plugins {
    fn check(&self, service: &str, schema: &Value, field: &str) -> Vec<FieldFault> {
        plugin::faults(service, schema, field)
    }

    fn declared(&self, all: Vec<PluginSchema>) {
        let changed = self.core.catalogue.learn(&all);
        if !changed.is_empty() {
            self.changed.lock().extend(changed);
            self.news.notify_one();
        }
    }
}
