//! What happens to the audit's rows when they come out of a backup: the chain must be whole (CT-123).

use portico_base::Tx;
use portico_contract::backup::{AfterRestore, Finding, Findings, PartFailed, Restoring};
use portico_db::{DbError, WriteTx};

const SERVICE: &str = "audit";

/// The audit's part of a restore.
pub(crate) struct RestoredTrail;

impl AfterRestore for RestoredTrail {
    fn service(&self) -> &'static str {
        SERVICE
    }

    fn check<'a>(&'a self, tx: &'a dyn Tx, _: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let db = WriteTx::of(tx).map_err(failed)?.db();
            let report = crate::verify_database(&db, None, None).await;
            let report = report.map_err(failed)?;
            Ok(vec![match report.fault.filter(|_| !report.ok) {
                None if report.ok => Finding::note(
                    SERVICE,
                    format!(
                        "the chain is whole: {} records, {} checkpoints",
                        report.checked, report.checkpoints
                    ),
                ),
                None => Finding::fault(SERVICE, "the chain is not whole"),
                Some(fault) => Finding::fault(
                    SERVICE,
                    format!("the chain is broken at {}: {}", fault.seq, fault.detail),
                ),
            }])
        })
    }

    /// The chain goes on from where the backup ended; the record of the restore is its next link.
    fn settle<'a>(&'a self, _: &'a dyn Tx, _: &'a Restoring) -> Findings<'a> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

fn failed(error: DbError) -> PartFailed {
    PartFailed(Box::new(error))
}
