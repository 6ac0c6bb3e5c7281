//! Blocking queries (C§2, RG-42): look, and look again when something that may matter changed.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, select_all};
use tokio::time::Instant;

use super::access::still_in;
use super::reply::{Answer, Refused, Reply};
use super::request::{Blocking, Request};
use super::state::{ConsulState, Topic};
use crate::model;

/// What a look found.
pub(crate) struct Look<T> {
    /// Index of the last change that this query is about: a wish below it is fulfilled.
    pub changed: u64,
    /// The index that is told; never below `changed`.
    pub told: u64,
    pub value: T,
}

impl<T> Look<T> {
    /// A look whose told index is that of its last change.
    pub(crate) fn at(index: u64, value: T) -> Self {
        Self {
            changed: index,
            told: index,
            value,
        }
    }
}

/// What a query waits for.
#[derive(Debug, Clone)]
pub(crate) enum Wait {
    Directory(model::Topic),
    Store(Topic),
}

/// Runs a query: at once, or until its index rises or its time is over. `look` is called again after each
/// wake-up.
pub(crate) async fn run<T, F, Fut>(
    state: &ConsulState,
    r: &Request,
    waits: &[Wait],
    look: F,
) -> Result<Look<T>, Refused>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Look<T>, Refused>>,
{
    let Blocking { index, wait } = r.blocking()?;
    if index == 0 {
        return state.look(look()).await;
    }
    let mut guard = None;
    let deadline = Instant::now() + with_jitter(state, wait);
    loop {
        // Listening before looking: what changes in between is not missed.
        let listeners = listen(state, waits);
        let found = state.look(look()).await?;
        if found.changed > index || Instant::now() >= deadline || state.stop.is_cancelled() {
            return Ok(found);
        }
        drop(found);
        if guard.is_none() {
            guard = Some(state.block(r.cx.principal())?);
        }
        tokio::select! {
            _ = listeners => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = state.stop.cancelled() => {}
        }
        still_in(state, r.cx.principal())?;
    }
}

/// The server adds up to a sixteenth, so that clients do not come back all at once.
fn with_jitter(state: &ConsulState, wait: Duration) -> Duration {
    let most = u64::try_from(wait.as_micros() / 16).unwrap_or(0);
    if most == 0 {
        return wait;
    }
    wait + Duration::from_micros(state.core.random.below(most))
}

/// Something that ends when any of the topics is woken.
fn listen(state: &ConsulState, waits: &[Wait]) -> impl Future<Output = ()> + Send + use<> {
    let mut all: Vec<BoxFuture<'static, ()>> = Vec::with_capacity(waits.len());
    for wait in waits {
        all.push(match wait {
            Wait::Directory(topic) => Box::pin(state.core.topics.listen(topic.clone()).woken()),
            Wait::Store(topic) => Box::pin(state.topics.listen(topic.clone()).woken()),
        });
    }
    async move {
        if all.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(all).map(|_| ()).await;
    }
}

/// Adds the headers of reads. Only catalogue and health tell their consistency.
pub(crate) fn with_index(r: &Request, reply: Reply, index: u64, consistency: bool) -> Reply {
    let reply = reply
        .named("x-consul-index", &index.max(1).to_string())
        .named("x-consul-knownleader", "true")
        .named("x-consul-lastcontact", "0");
    let reply = if consistency {
        let how = if r.params.has("stale") {
            "stale"
        } else {
            "leader"
        };
        reply.named("x-consul-effective-consistency", how)
    } else {
        reply
    };
    if r.params.has("cached") {
        reply.named("x-cache", "MISS")
    } else {
        reply
    }
}

/// The usual end of a read: JSON with an index.
pub(crate) fn answer<T: serde::Serialize>(
    r: &Request,
    found: &Look<T>,
    consistency: bool,
) -> Answer {
    Ok(with_index(r, r.json(&found.value), found.told, consistency))
}
