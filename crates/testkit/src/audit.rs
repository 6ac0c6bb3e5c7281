//! Audit records, kept in memory for the test.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use portico_base::{Context, Tx};
use portico_contract::audit::{AuditError, AuditSink, Record};

/// A record of a change that was committed, and who made it.
#[derive(Debug, Clone)]
pub struct Written {
    /// The request's id.
    pub request_id: String,
    /// The kind of principal, as logs write it.
    pub principal: &'static str,
    /// What the use-case said.
    pub record: Record,
}

/// All records so far; shared by cloning.
#[derive(Debug, Clone, Default)]
pub struct Records(Arc<Mutex<Vec<Written>>>);

impl Records {
    /// A copy of all records.
    #[must_use]
    pub fn all(&self) -> Vec<Written> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The records of one request.
    #[must_use]
    pub fn of(&self, request_id: &str) -> Vec<Record> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter(|w| w.request_id == request_id)
            .map(|w| w.record.clone())
            .collect()
    }
}

impl AuditSink for Records {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, Result<(), AuditError>> {
        let written = Written {
            request_id: context.caller.request_id.to_string(),
            principal: context.caller.principal.kind.as_str(),
            record,
        };
        let all = Arc::clone(&self.0);
        tx.after_commit(Box::new(move || {
            all.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(written)
        }));
        Box::pin(std::future::ready(Ok(())))
    }
}
