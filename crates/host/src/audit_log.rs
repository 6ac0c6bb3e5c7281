//! The audit's second output: one line in the log stream `audit` for each committed change.

use futures_util::future::BoxFuture;
use portico_base::{Context, Tx};
use portico_contract::audit::{AuditError, AuditSink, Record};

/// Logs records after their transaction was committed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AuditLog;

impl AuditSink for AuditLog {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, Result<(), AuditError>> {
        let caller = context.caller.clone();
        tx.after_commit(Box::new(move || {
            let changes = serde_json::to_string(&record.changes).unwrap_or_default();
            tracing::info!(
                target: "audit",
                action = record.action,
                target_type = record.target_type,
                target_id = %record.target,
                tenant_id = %record.tenant,
                principal_kind = caller.principal.kind.as_str(),
                user_id = %caller.principal.subject,
                request_id = %caller.request_id,
                address = caller.address.map(tracing::field::display),
                outcome = ?record.outcome,
                changes = %changes,
                "audit"
            );
        }));
        Box::pin(std::future::ready(Ok(())))
    }
}
