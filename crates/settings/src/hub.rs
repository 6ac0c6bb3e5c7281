//! What settings' use-cases share: database, keys, declarations, and the values in memory.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, Random};
use portico_config::Row;
use portico_contract::audit::Audit;
use portico_contract::sealed::SealedParts;
use portico_contract::settings::{Declaration, SettingsCheck, SettingsLayer};
use portico_db::Db;
use portico_host::BuildCx;
use portico_telemetry::metrics::Registry;

use crate::domain::catalogue::Catalogue;
use crate::live::Live;
use crate::metrics::Metrics;

/// Settings of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub keys: Arc<MasterKeys>,
    pub audit: Audit,
    pub catalogue: Catalogue,
    /// The layer below ours.
    pub file: Arc<dyn SettingsLayer>,
    pub checks: Vec<SettingsCheck>,
    pub live: Live,
    pub configuration: Arc<ArcSwap<Vec<Row>>>,
    pub sealed: SealedParts,
    pub metrics: Metrics,
    /// Name of this process among the replicas.
    pub replica: Arc<str>,
}

/// What a core is made of: from the host's ground, or a test's.
pub(crate) struct Parts<'a> {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub keys: Arc<MasterKeys>,
    pub audit: Audit,
    pub declarations: &'a [(&'static str, &'static [Declaration])],
    pub file: Arc<dyn SettingsLayer>,
    pub checks: Vec<SettingsCheck>,
    pub configuration: Arc<ArcSwap<Vec<Row>>>,
    pub sealed: SealedParts,
    pub metrics: Registry,
    pub replica: Arc<str>,
}

impl<'a> Parts<'a> {
    /// Everything from the host's ground.
    pub(crate) fn new(cx: &'a BuildCx<'_>) -> Self {
        Self {
            db: cx.db.clone(),
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            keys: Arc::clone(cx.keys),
            audit: Arc::clone(cx.audit),
            declarations: cx.declarations,
            file: Arc::clone(cx.layers.file()),
            checks: cx.settings_checks.to_vec(),
            configuration: Arc::clone(cx.configuration),
            sealed: cx.sealed.clone(),
            metrics: cx.telemetry.metrics.clone(),
            replica: Arc::clone(&cx.node.name),
        }
    }
}

impl Core {
    /// Puts the parts together.
    pub(crate) fn new(parts: Parts<'_>) -> Arc<Self> {
        let rows = parts.configuration.load();
        let core = Arc::new(Self {
            catalogue: Catalogue::new(parts.declarations, rows.iter().map(|row| &*row.key)),
            live: Live::default(),
            metrics: Metrics::new(&parts.metrics),
            db: parts.db,
            clock: parts.clock,
            random: parts.random,
            keys: parts.keys,
            audit: parts.audit,
            file: parts.file,
            checks: parts.checks,
            configuration: parts.configuration,
            sealed: parts.sealed,
            replica: parts.replica,
        });
        core.metrics.observe(&core);
        core
    }
}
