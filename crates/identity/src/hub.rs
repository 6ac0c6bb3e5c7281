//! What identity's use-cases share: database, clock, keys, settings, and the edge's memory.

use std::sync::Arc;

use portico_base::envelope::MasterKeys;
use portico_base::{Caller, Clock, Context, Principal, Random};
use portico_contract::audit::Audit;
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_host::BuildCx;

use crate::edge::Edge;

/// Identity of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub audit: Audit,
    pub keys: Arc<MasterKeys>,
    /// Keys, versions, roles and tenants in memory; what the door asks.
    pub edge: Arc<Edge>,
}

impl Core {
    /// Everything from the host's ground.
    pub(crate) fn new(cx: &BuildCx<'_>) -> Arc<Self> {
        Arc::new(Self {
            db: cx.db.clone(),
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            settings: cx.settings.clone(),
            audit: Arc::clone(cx.audit),
            keys: Arc::clone(cx.keys),
            edge: Edge::new(cx.db.clone(), Arc::clone(cx.clock)),
        })
    }

    /// A context for identity's own work.
    pub(crate) fn own_context(&self, what: &str) -> Context {
        Context {
            caller: Caller::internal(Principal::system(), what),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }
}
