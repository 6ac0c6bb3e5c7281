//! The platform's own jobs: lost replicas, old events and jobs, the write-ahead log.

use std::time::Duration;

use portico_contract::settings::Settings;
use portico_db::{Db, HEARTBEAT, KEPT};

use crate::cron::Cron;
use crate::periodic::{JobSet, Periodic};
use crate::settings::SWEEP_SCHEDULE;

/// SQLite empties its log by itself at about 4 MiB, unless readers kept it from doing so; from this size
/// on it is done with patience.
const LOG_LIMIT: u64 = 32 * 1024 * 1024;

/// The jobs that every installation has, for the host's runner.
#[must_use]
pub fn ops_jobs(db: &Db, settings: &Settings) -> JobSet {
    let (replicas, outbox, log, jobs) = (db.replicas(), db.clone(), db.clone(), db.clone());
    let kept = settings.clone();
    let counted = db.clone();
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
        .cron(Cron::new(
            "ops.jobs_sweep",
            settings,
            &SWEEP_SCHEDULE,
            move |run| {
                let (db, settings) = (jobs.clone(), kept.clone());
                async move { Ok(crate::queue::sweep(&db, &settings, &run).await?) }
            },
        ))
        // Each process has a connection of its own for writing, and only SQLite needs it.
        .with(Periodic::new(
            "ops.optimize",
            Duration::from_secs(3_600),
            move |_| {
                let db = counted.clone();
                async move { Ok(db.optimize().await?) }
            },
        ))
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
