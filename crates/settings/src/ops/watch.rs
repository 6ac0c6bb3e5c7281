//! News of settings behind a position, from memory (CT-13).

use std::time::Duration;

use portico_base::Context;
use portico_base::id::TENANT_SYSTEM;
use tokio::time::Instant;

use super::scope::Sight;
use crate::error::Result;
use crate::hub::Core;
use crate::live::Watching;
use crate::views::{Setting, setting};

/// Settings that changed, as they are now. Whoever was away sees the last value of each, once.
#[derive(Debug)]
pub(crate) struct News {
    /// Where to go on.
    pub seq: u64,
    pub changed: Vec<Setting>,
}

/// What changed behind a position, as a reader sees it.
pub(crate) fn since(core: &Core, sight: &Sight, after: u64) -> News {
    let state = core.live.state();
    let scope = sight.scope();
    let mut keys: Vec<_> = state
        .rows()
        .filter(|taken| {
            let stored = &taken.stored;
            stored.seq > after && (stored.scope == scope || stored.scope == TENANT_SYSTEM)
        })
        .map(|taken| (taken.stored.seq, &taken.stored.key))
        .collect();
    keys.sort();
    keys.reverse();
    let mut seen = std::collections::BTreeSet::new();
    keys.retain(|(_, key)| seen.insert(*key));
    keys.reverse();
    let changed = keys
        .iter()
        .filter_map(|(_, key)| core.catalogue.get(key, scope))
        .filter(|declared| sight.sees(declared))
        .map(|declared| setting(core, &state, sight, &declared))
        .collect();
    News {
        seq: state.seq.max(after),
        changed,
    }
}

/// Waits for news behind a position; after `wait` the answer has none.
pub(crate) async fn wait(
    core: &Core,
    cx: &Context,
    scope: Option<&str>,
    after: u64,
    wait: Duration,
) -> Result<News> {
    let sight = Sight::of(cx, scope)?;
    let mut watching = core.live.watch()?;
    let until = Instant::now() + wait;
    let mut position = after;
    loop {
        let news = next(core, &sight, &mut watching, position);
        if !news.changed.is_empty() {
            return Ok(news);
        }
        position = news.seq;
        let waited = tokio::time::timeout_at(until, watching.news.changed()).await;
        if waited.is_err() {
            return Ok(News {
                seq: position,
                changed: Vec::new(),
            });
        }
    }
}

/// Looks once. What changes from here on wakes the watch.
pub(crate) fn next(core: &Core, sight: &Sight, watching: &mut Watching, after: u64) -> News {
    watching.news.mark_unchanged();
    since(core, sight, after)
}
