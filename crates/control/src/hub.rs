//! What control's use-cases share: database, clock, settings, audit, and the work of this process.

use std::sync::{Arc, OnceLock};

use portico_base::{Clock, Random};
use portico_contract::audit::Audit;
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_host::BuildCx;
use portico_jobs::Runner;

use crate::backups::Backups;
use crate::system::Sources;

/// Control of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub audit: Audit,
    pub backups: Backups,
    /// What the system page looks at.
    pub system: Sources,
    /// Jobs and schedules of this process, once all services are built.
    pub jobs: Arc<OnceLock<Runner>>,
}

impl Core {
    /// Everything from the host's ground.
    pub(crate) fn new(cx: &mut BuildCx<'_>) -> Arc<Self> {
        Arc::new(Self {
            db: cx.db.clone(),
            clock: Arc::clone(cx.clock),
            random: Arc::clone(cx.random),
            settings: cx.settings.clone(),
            audit: Arc::clone(cx.audit),
            backups: Backups::new(cx),
            jobs: Arc::clone(cx.jobs),
            system: Sources::new(cx),
        })
    }
}
