//! The platform's own jobs: lost replicas, old events and jobs, the write-ahead log.

use std::time::Duration;

use portico_db::{Db, HEARTBEAT, KEPT};

use crate::periodic::{JobSet, Periodic};

/// SQLite empties its log by itself at about 4 MiB, unless readers kept it from doing so; from this size
/// on it is done with patience.
const LOG_LIMIT: u64 = 32 * 1024 * 1024;

/// The jobs that every installation has, for the host's runner.
#[must_use]
pub fn ops_jobs(db: &Db) -> JobSet {
    let (replicas, outbox, log, jobs) = (db.replicas(), db.clone(), db.clone(), db.clone());
    JobSet::new()
        .with(
            Periodic::new("ops.replicas", HEARTBEAT, move |_| {
                let replicas = replicas.clone();
                async move {
                    for lost in replicas.sweep().await? {
                        tracing::warn!(replica_name = lost.name, "replica lost");
                    }
                    Ok(())
                }
            })
            .alone(),
        )
        .with(
            Periodic::new("ops.outbox_trim", Duration::from_secs(3_600), move |cx| {
                let db = outbox.clone();
                async move {
                    db.outbox().trim(cx.context.now() - KEPT).await?;
                    Ok(())
                }
            })
            .alone(),
        )
        .with(
            Periodic::new("ops.jobs_trim", Duration::from_secs(3_600), move |cx| {
                let db = jobs.clone();
                async move { Ok(crate::queue::trim(&db, &cx).await?) }
            })
            .alone(),
        )
        .with(Periodic::new(
            "ops.log_checkpoint",
            Duration::from_secs(60),
            move |_| {
                let db = log.clone();
                async move {
                    if db.wal_bytes().is_some_and(|bytes| bytes > LOG_LIMIT) {
                        db.checkpoint().await?;
                    }
                    Ok(())
                }
            },
        ))
}
