//! Where records go: to the audit service once it is there, and always to a second output beside it.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use portico_base::{Context, Tx};
use portico_contract::audit::{Audit, AuditError, AuditSink, Record};

/// The host's audit sink. Services hold it before the audit service is built, and never learn of the change.
pub struct AuditSwitch {
    service: OnceLock<Audit>,
    /// The log stream `audit`, or a test's list.
    beside: Audit,
}

impl AuditSwitch {
    /// A switch that writes to `beside` only, until somebody puts more in.
    #[must_use]
    pub fn new(beside: Audit) -> Arc<Self> {
        Arc::new(Self {
            service: OnceLock::new(),
            beside,
        })
    }

    /// From now on `sink` gets every record, in the transaction of its change. Of several the first stays.
    pub fn put(&self, sink: Audit) {
        if self.service.set(sink).is_err() {
            tracing::error!("two services want the audit records; the first one has them");
        }
    }
}

impl AuditSink for AuditSwitch {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, Result<(), AuditError>> {
        Box::pin(async move {
            if let Some(service) = self.service.get() {
                service.record(tx, context, record.clone()).await?;
            }
            self.beside.record(tx, context, record).await
        })
    }
}
