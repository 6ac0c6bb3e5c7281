//! Refusals and failed changes: recorded in transactions of their own, by one writer, in bounded number
//! (CT-31, CT-32, CT-39).

use std::sync::Arc;
use std::time::Duration;

use portico_contract::audit::{Change, Outcome, Record};
use portico_web::{Failed, Failures};
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use super::write;
use crate::domain::record::{Entry, cut};
use crate::error::Result;
use crate::hub::Core;

/// Records of one transaction.
const BATCH: usize = 100;
/// How often the counts of past minutes are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// Bytes of a path that are kept.
const PATH_LIMIT: usize = 512;

/// Takes note of failures that the doors report.
pub(crate) struct Notes(pub Arc<Core>);

impl Failures for Notes {
    fn note(&self, failed: Failed) {
        let core = &self.0;
        if core.knows_failure(&failed.context.caller.request_id) {
            return;
        }
        let entry = entry(failed);
        if !core.folder.passes(&entry) {
            core.metrics.folded.inc();
            return;
        }
        tell(&entry);
        if let Err(full) = core.notes.try_send(entry) {
            core.folder.count(&full.into_inner());
            core.metrics.folded.inc();
        }
    }
}

/// Writes notes until told to stop, then what is left.
pub(crate) async fn run(core: Arc<Core>, mut notes: Receiver<Entry>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let stopped = tokio::select! {
            biased;
            _ = notes.recv_many(&mut batch, BATCH) => false,
            () = stop.cancelled() => true,
            () = tokio::time::sleep(SWEEP) => false,
        };
        batch.extend(core.folder.due(core.clock.now(), stopped));
        let written = write_all(&core, &mut batch).await;
        if let Err(error) = written {
            tracing::error!(err = %portico_web::problem::chain(&error), "failures could not be recorded");
            if stopped {
                return;
            }
            // What was not written is counted and told of once the database is there again.
            for entry in batch.drain(..) {
                core.folder.count(&entry);
            }
        }
        if stopped {
            return;
        }
    }
}

/// Writes what has gathered.
pub(crate) async fn write_all(core: &Arc<Core>, batch: &mut Vec<Entry>) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let tx = core.db.begin().await?;
    for entry in batch.iter() {
        write::insert(core, &tx, entry.clone()).await?;
    }
    tx.commit().await?;
    batch.clear();
    Ok(())
}

fn entry(failed: Failed) -> Entry {
    let (action, outcome) = if failed.denied {
        ("system.access.denied", Outcome::Denied)
    } else {
        ("system.operation.failed", Outcome::Failed)
    };
    let tenant = failed.context.tenant();
    let record = Record {
        outcome,
        ..Record::done(action, "route", failed.route, tenant)
    };
    Entry {
        code: Some(failed.code),
        changes: vec![Change {
            path: "path".to_owned(),
            before: None,
            after: Some(cut(&failed.path, PATH_LIMIT).into()),
        }],
        ..Entry::new(&failed.context, record)
    }
}

/// The same in the log stream `audit`, where every record is.
fn tell(entry: &Entry) {
    let caller = &entry.context.caller;
    tracing::info!(
        target: "audit",
        action = entry.action,
        target_type = entry.target_type,
        target_id = %entry.target,
        tenant_id = %entry.tenant,
        principal_kind = caller.principal.kind.as_str(),
        user_id = %caller.principal.subject,
        request_id = %caller.request_id,
        address = caller.address.map(tracing::field::display),
        outcome = ?entry.outcome,
        code = entry.code.as_deref(),
        "audit"
    );
}
