//! What time and checks do to sessions, aliases and tombstones, and what other replicas did (RG-42).

use std::time::Duration;

use portico_base::Timestamp;
use portico_db::News;
use tokio_util::sync::CancellationToken;

use super::kv_store::{EVENT_FIRED, KV_CHANGED, SESSION_CHANGED, Told, wake};
use super::reply::Refused;
use super::sessions::{end, obstacle};
use super::state::{ConsulState, Topic};
use crate::error::Result;
use crate::model;
use crate::store;

/// How often time is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Sessions that are ended in one look.
const BATCH: u64 = 200;
/// Tombstones are kept for so long.
const BURIED: chrono::Duration = chrono::Duration::hours(1);
/// Ticks between two sweeps of tombstones and two readings of the figures.
const SWEEP_TICKS: u64 = 300;
const FIGURE_TICKS: u64 = 15;

/// Follows alias checks, ends sessions whose time is over or whose checks fail, and sweeps tombstones. Every replica does it: what
/// one has ended is gone for the others.
pub(super) async fn run(state: ConsulState, stop: CancellationToken) {
    let mut ticks: u64 = 0;
    loop {
        let checks = state.core.topics.listen(model::Topic::Checks);
        let nodes = state.core.topics.listen(model::Topic::Nodes);
        if let Err(error) = tick(&state, ticks).await {
            tracing::warn!(err = %error, "sessions could not be looked at");
        }
        ticks += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
            () = checks.woken() => pause().await,
            () = nodes.woken() => pause().await,
        }
    }
}

/// Many changes in a row are looked at together.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

async fn tick(state: &ConsulState, ticks: u64) -> Result<()> {
    let now = state.core.clock.now();
    super::alias::follow(state, &state.core.own_context("registry.alias")).await?;
    expire(state, now).await?;
    examine(state).await?;
    if ticks.is_multiple_of(SWEEP_TICKS) {
        sweep(state, now).await?;
    }
    if ticks.is_multiple_of(FIGURE_TICKS) {
        let db = state.core.db.reader();
        state
            .figures
            .kv_entries
            .set(store::kv::count(db).await? as f64);
        state
            .figures
            .sessions
            .set(store::sessions::count(db, None).await? as f64);
    }
    Ok(())
}

/// Ends sessions whose time is over.
pub(super) async fn expire(state: &ConsulState, now: Timestamp) -> Result<usize> {
    let due = store::sessions::expired(state.core.db.reader(), now, BATCH).await?;
    let mut ended = 0;
    let cx = state.core.own_context("registry.sessions");
    for session in due {
        let over = |s: &store::sessions::Session| s.expires_at.is_some_and(|at| at <= now);
        ended += usize::from(
            end(state, &cx, session.tenant, session.id, over)
                .await
                .is_ok_and(|e| e),
        );
    }
    Ok(ended)
}

/// Ends sessions whose node is gone or one of whose checks is critical or gone.
async fn examine(state: &ConsulState) -> Result<()> {
    let cx = state.core.own_context("registry.sessions");
    for session in store::sessions::watched(state.core.db.reader()).await? {
        let lost = {
            let model = state.core.model.read();
            obstacle(
                &state.view(&model, session.tenant),
                &session.node,
                &session.checks,
            )
        };
        if let Some(why) = lost {
            tracing::debug!(session = %session.id, why, "a session ends");
            if let Err(fail) = end(state, &cx, session.tenant, session.id, |_| true).await {
                let Refused(reply) = fail.into();
                tracing::warn!(
                    status = reply.status.as_u16(),
                    "a session could not be ended"
                );
            }
        }
    }
    Ok(())
}

/// Removes old tombstones; the highest index among them stays known, so that no index falls.
pub(super) async fn sweep(state: &ConsulState, now: Timestamp) -> Result<()> {
    let before = now - BURIED;
    if store::kv::sweepable(state.core.db.reader(), before)
        .await?
        .is_empty()
    {
        return Ok(());
    }
    let tx = state.core.db.begin().await?;
    if state.core.db.backend() == portico_db::Backend::Postgres {
        store::events::advance(&tx, 0, 0).await?;
    }
    for (tenant, highest) in store::kv::sweepable(&tx, before).await? {
        let mut usage = store::kv::usage(&tx, tenant).await?;
        usage.floor = usage.floor.max(highest);
        store::kv::put_usage(&tx, tenant, usage).await?;
    }
    store::kv::sweep(&tx, before).await?;
    tx.commit().await?;
    Ok(())
}

/// Wakes those who wait here for what other replicas changed. One process alone wakes them itself.
pub(super) async fn follow(state: ConsulState, stop: CancellationToken) {
    if state.core.db.backend() == portico_db::Backend::Sqlite {
        stop.cancelled().await;
        return;
    }
    let position = loop {
        match state.core.db.outbox().head().await {
            Ok(position) => break position,
            Err(error) => tracing::debug!(err = %error, "the outbox could not be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    };
    let topics = [KV_CHANGED, SESSION_CHANGED, EVENT_FIRED];
    let mut follower = state.core.db.follow(&topics, position, TICK);
    loop {
        let news = tokio::select! {
            () = stop.cancelled() => return,
            news = follower.next() => news,
        };
        match news {
            Ok(News::Events(rows)) => {
                for row in rows {
                    tell(&state, &row);
                }
            }
            Ok(News::Reset) => state.topics.wake_all(),
            Err(error) => {
                tracing::debug!(err = %error, "changes of other replicas could not be read");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

fn tell(state: &ConsulState, row: &portico_db::OutboxRow) {
    let Ok(told) = row.decode::<Told>() else {
        return;
    };
    match row.topic.as_str() {
        KV_CHANGED => wake(state, &told),
        SESSION_CHANGED => state.topics.wake(&Topic::Sessions(told.tenant)),
        _ => state.topics.wake(&Topic::Events(told.tenant)),
    }
}
