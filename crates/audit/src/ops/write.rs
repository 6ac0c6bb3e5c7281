//! Writing records within the transaction of their change (CT-30).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Tx};
use portico_contract::audit::{AuditError, AuditSink, Outcome, Record};
use portico_db::WriteTx;

use crate::domain::record::Entry;
use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// The audit's sink.
pub(crate) struct Sink(pub Arc<Core>);

impl AuditSink for Sink {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, std::result::Result<(), AuditError>> {
        Box::pin(async move {
            let tx = WriteTx::of(tx).map_err(|error| AuditError(error.into()))?;
            write(&self.0, tx, Entry::new(context, record))
                .await
                .map_err(|error| AuditError(error.into()))
        })
    }
}

/// Writes a record, unless it is one of many equal failures, which are counted.
pub(crate) async fn write(core: &Arc<Core>, tx: &WriteTx, entry: Entry) -> Result<()> {
    if entry.outcome != Outcome::Done {
        let (told, request) = (
            Arc::clone(core),
            Arc::clone(&entry.context.caller.request_id),
        );
        tx.after_commit(Box::new(move || told.remember_failure(&request)));
        if !core.folder.passes(&entry) {
            core.metrics.folded.inc();
            return Ok(());
        }
    }
    insert(core, tx, entry).await
}

/// Writes a record, whatever it is.
pub(crate) async fn insert(core: &Arc<Core>, tx: &WriteTx, entry: Entry) -> Result<()> {
    let stored = entry.store(&core.masker);
    store::records::insert(tx, &stored).await?;
    let written = core.metrics.records(&stored.action, &stored.outcome);
    let core = Arc::clone(core);
    tx.after_commit(Box::new(move || {
        written.inc();
        core.committed.notify_one();
    }));
    Ok(())
}
