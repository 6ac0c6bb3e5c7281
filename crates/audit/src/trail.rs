//! Records for other services: in the chain's order for rules, newest first for exports.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::Timestamp;
use portico_contract::audit::{AuditError, AuditTrail, Entries, Entry, Filter};
use uuid::Uuid;

use crate::domain::chain::Found;
use crate::error::Result;
use crate::hub::Core;
use crate::ops::search;
use crate::store;

/// Most records of one call.
const MOST: usize = 1_000;

/// Reads records.
pub(crate) struct Trail(pub Arc<Core>);

impl AuditTrail for Trail {
    fn head(&self) -> BoxFuture<'_, std::result::Result<u64, AuditError>> {
        Box::pin(async move {
            let head = crate::ops::seal::head(self.0.db.reader(), self.0.installation).await;
            head.map(|head| head.seq).map_err(failed)
        })
    }

    fn sealed(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, std::result::Result<Vec<Entry>, AuditError>> {
        Box::pin(async move { sealed(&self.0, after, limit).await.map_err(failed) })
    }

    fn search<'a>(
        &'a self,
        filter: &'a Filter,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> BoxFuture<'a, std::result::Result<Entries, AuditError>> {
        Box::pin(async move {
            let found = search::find(&self.0, filter, after, limit.min(MOST)).await;
            found.map_err(failed)
        })
    }
}

async fn sealed(core: &Core, after: u64, limit: usize) -> Result<Vec<Entry>> {
    let limit = limit.min(MOST) as u64;
    let rows =
        store::chain::rows(core.db.reader(), after.saturating_add(1), u64::MAX, limit).await?;
    let entries = rows.into_iter().filter_map(|row| match row.record {
        Found::Record(record) => Some(search::entry(&(*record, Some(row.seq)))),
        // What somebody removed by hand is for the verification to tell.
        Found::Unreadable(_) | Found::Nothing => None,
    });
    Ok(entries.collect())
}

fn failed(error: crate::error::Error) -> AuditError {
    AuditError(error.into())
}
