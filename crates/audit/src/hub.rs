//! What the audit's use-cases share: database, keys, the memory of failures, the way to the note writer.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::envelope::MasterKeys;
use portico_base::{Caller, Clock, Context, Principal, Random};
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_host::BuildCx;
use portico_objects::Objects;
use portico_telemetry::metrics::Registry;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::domain::checkpoint::Signer;
use crate::domain::fold::Folder;
use crate::domain::mask::Masker;
use crate::domain::record::Entry;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::ops;

/// Notes that may wait for their writer; beyond that they are counted instead.
const NOTES: usize = 1_024;
/// Requests of which a use-case recorded the failure itself.
const RECENT: usize = 1_024;

/// The audit of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub objects: Objects,
    pub metrics: Metrics,
    pub masker: Masker,
    pub folder: Folder,
    /// Whose chain it is.
    pub installation: Uuid,
    pub signer: Signer,
    /// Rung when a record was committed.
    pub committed: Notify,
    pub notes: mpsc::Sender<Entry>,
    recent: Mutex<VecDeque<Arc<str>>>,
}

/// What a core is made of: from the host's ground, or a test's.
pub(crate) struct Parts {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub objects: Objects,
    pub keys: Arc<MasterKeys>,
    pub registry: Registry,
}

impl Parts {
    /// Everything from the host's ground.
    pub(crate) fn new(cx: &BuildCx<'_>) -> Self {
        Self {
            db: cx.db.clone(),
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            settings: cx.settings.clone(),
            objects: cx.objects.clone(),
            keys: Arc::clone(cx.keys),
            registry: cx.telemetry.metrics.clone(),
        }
    }
}

impl Core {
    /// Puts the parts together; makes the installation's id and key at the first start.
    pub(crate) async fn new(parts: Parts) -> Result<(Arc<Self>, mpsc::Receiver<Entry>)> {
        let (installation, signer) = ops::keys::ensure(&parts).await?;
        let kid = parts.keys.current();
        let fingerprint = parts.keys.derive(kid, "portico/audit/1/fingerprint")?;
        let (notes, receiver) = mpsc::channel(NOTES);
        let metrics = Metrics::new(&parts.registry);
        let clock = Arc::clone(&parts.clock);
        metrics.observe(&parts.registry, move || clock.now().timestamp_micros());
        let core = Arc::new(Self {
            db: parts.db,
            clock: parts.clock,
            random: parts.random,
            settings: parts.settings,
            objects: parts.objects,
            metrics,
            masker: Masker::new(fingerprint.expose()),
            folder: Folder::default(),
            installation,
            signer,
            committed: Notify::new(),
            notes,
            recent: Mutex::default(),
        });
        Ok((core, receiver))
    }

    /// A context for the audit's own work.
    pub(crate) fn own_context(&self, what: &str) -> Context {
        Context {
            caller: Caller::internal(Principal::system(), what),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }

    /// Remembers that a use-case recorded the failure of a request itself.
    pub(crate) fn remember_failure(&self, request: &Arc<str>) {
        let mut recent = self.recent.lock();
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(request));
    }

    /// True when one did.
    pub(crate) fn knows_failure(&self, request: &str) -> bool {
        self.recent.lock().iter().rev().any(|r| **r == *request)
    }
}
