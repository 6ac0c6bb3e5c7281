//! Work that is due again and again.

use std::sync::Arc;
use std::time::Duration;

use chrono::Duration as Span;
use portico_db::Backend;
use portico_jobs::{JobError, JobSet, Periodic};

use crate::error::Result;
use crate::hub::Core;
use crate::ops::{query, rotate, versions};
use crate::{beats, life, store};

/// Events are kept so long, or so many (RG data model).
const EVENTS_KEPT: Span = Span::days(7);
const EVENTS_MOST: u64 = 100_000;
/// Steps of instances' lives are kept so long.
const HISTORY_KEPT: Span = Span::days(30);

/// All jobs.
pub(crate) fn all(core: &Arc<Core>, reap_every: Duration, reap_least: Duration) -> JobSet {
    let shared = core.db.backend() == Backend::Postgres;
    // Without another replica nobody but a restart reads what is flushed.
    let flush_every = if shared {
        Duration::from_secs(10)
    } else {
        Duration::from_secs(60)
    };
    let mut jobs = JobSet::new()
        .with(job(
            "registry.flush",
            flush_every,
            core,
            |core| async move { beats::flush(&core).await.map(|_| ()) },
        ))
        .with(job(
            "registry.sweep",
            reap_every,
            core,
            move |core| async move {
                let cx = core.own_context("registry.sweep");
                life::reap(&core, &cx, reap_least).await
            },
        ))
        .with(job(
            "registry.rotate",
            Duration::from_secs(3_600),
            core,
            |core| async move {
                let cx = core.own_context("registry.rotate");
                rotate::rotate(&core, &cx).await.map(|_| ())
            },
        ))
        .with(
            job(
                "registry.trim",
                Duration::from_secs(3_600),
                core,
                |core| async move {
                    let cx = core.own_context("registry.trim");
                    versions::forget(&core, &cx).await?;
                    trim(&core).await
                },
            )
            .alone(),
        );
    if shared {
        jobs = jobs.with(job(
            "registry.learn",
            Duration::from_secs(10),
            core,
            |core| async move {
                let since = core.clock.now() - Span::seconds(120);
                beats::learn(&core, since).await
            },
        ));
    }
    jobs
}

fn job<F, Fut>(name: &'static str, every: Duration, core: &Arc<Core>, run: F) -> Periodic
where
    F: Fn(Arc<Core>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let core = Arc::clone(core);
    Periodic::new(name, every, move |_| {
        let work = run(Arc::clone(&core));
        async move { work.await.map_err(|e| Box::new(e) as JobError) }
    })
}

/// Removes old events and history.
pub(crate) async fn trim(core: &Arc<Core>) -> Result<()> {
    let now = core.clock.now();
    let seq = core.model.read().seq;
    let tx = core.db.begin().await?;
    store::events::trim(&tx, now - EVENTS_KEPT, seq.saturating_sub(EVENTS_MOST)).await?;
    store::events::trim_history(&tx, now - HISTORY_KEPT).await?;
    for id in store::events::crowded(&tx, query::HISTORY).await? {
        store::events::trim_history_of(&tx, id, query::HISTORY).await?;
    }
    tx.commit().await?;
    Ok(())
}
