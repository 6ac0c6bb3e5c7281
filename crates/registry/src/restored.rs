//! What happens to the directory's rows when they come out of a backup: the index never falls (RG-42).

use portico_base::Tx;
use portico_contract::backup::{AfterRestore, Finding, Findings, PartFailed, Restoring};
use portico_db::{DbError, JUMP, WriteTx};

use crate::store;

const SERVICE: &str = "registry";

/// The registry's part of a restore.
pub(crate) struct RestoredDirectory;

impl AfterRestore for RestoredDirectory {
    fn service(&self) -> &'static str {
        SERVICE
    }

    fn settle<'a>(&'a self, tx: &'a dyn Tx, _: &'a Restoring) -> Findings<'a> {
        Box::pin(async move {
            let tx = WriteTx::of(tx).map_err(failed)?;
            let by = JUMP.unsigned_abs();
            let position = store::events::advance(tx, by, by).await.map_err(failed)?;
            Ok(vec![Finding::note(
                SERVICE,
                format!("the Consul index jumped to {}", position.index),
            )])
        })
    }
}

fn failed(error: DbError) -> PartFailed {
    PartFailed(Box::new(error))
}
