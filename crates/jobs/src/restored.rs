//! What happens to jobs when they come out of a backup: nobody works on them any more (BK-4).

use std::sync::Arc;

use portico_base::Tx;
use portico_contract::backup::{AfterRestore, Finding, Findings, PartFailed, Restoring};
use portico_db::{DbError, WriteTx};

use crate::queue::free_all;

const SERVICE: &str = "jobs";

struct RestoredJobs;

/// The part of jobs in a restore.
#[must_use]
pub fn after_restore() -> Arc<dyn AfterRestore> {
    Arc::new(RestoredJobs)
}

impl AfterRestore for RestoredJobs {
    fn service(&self) -> &'static str {
        SERVICE
    }

    fn settle<'a>(&'a self, tx: &'a dyn Tx, restoring: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let tx = WriteTx::of(tx).map_err(failed)?;
            let freed = free_all(tx, restoring.now).await.map_err(failed)?;
            Ok(vec![Finding::note(
                SERVICE,
                format!("{freed} running jobs lost their worker and are taken again"),
            )])
        })
    }
}

fn failed(error: DbError) -> PartFailed {
    PartFailed(Box::new(error))
}
