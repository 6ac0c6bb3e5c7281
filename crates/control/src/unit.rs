//! A unit of work: one transaction with its audit records and events.

use std::sync::Arc;

use portico_base::{Context, Timestamp};
use portico_contract::audit::Record;
use portico_db::WriteTx;

use crate::error::Result;
use crate::hub::Core;

/// An open unit of work. Dropping it undoes everything.
pub(crate) struct Unit {
    pub(crate) core: Arc<Core>,
    pub(crate) cx: Context,
    pub(crate) tx: WriteTx,
    now: Timestamp,
}

impl Unit {
    /// Opens the transaction.
    pub(crate) async fn begin(core: &Arc<Core>, cx: &Context) -> Result<Self> {
        let tx = core.db.begin().await?;
        tx.set_trace(cx.caller.trace_id.as_deref());
        Ok(Self {
            core: Arc::clone(core),
            cx: cx.clone(),
            tx,
            now: cx.now(),
        })
    }

    /// The moment of the change.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Records the change.
    pub(crate) async fn audit(&self, record: Record) -> Result<()> {
        Ok(self.core.audit.record(&self.tx, &self.cx, record).await?)
    }

    /// Commits.
    pub(crate) async fn commit(self) -> Result<()> {
        self.tx.commit().await?;
        Ok(())
    }
}
