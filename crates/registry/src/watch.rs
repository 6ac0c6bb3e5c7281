//! Watching the directory (RG-30, RG-32): the last changes in memory, written once for all watchers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use uuid::Uuid;

use crate::domain::event::SharedEvent;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::store;

/// Changes kept in memory; older ones are read from the database.
const KEPT: usize = 4_096;
/// Changes of one answer.
pub(crate) const BATCH: usize = 500;
/// Watchers at once in a process.
const WATCHERS: usize = 20_000;

/// The newest changes.
#[derive(Default)]
pub(crate) struct Ring {
    inner: RwLock<Inner>,
    watchers: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Inner {
    events: VecDeque<SharedEvent>,
    /// Everything behind this number is in `events`.
    complete_since: u64,
    last: u64,
}

impl Ring {
    /// Begins behind `seq`: nothing is in memory yet.
    pub(crate) fn begin(&self, seq: u64) {
        let mut inner = self.inner.write();
        inner.events.clear();
        inner.complete_since = seq;
        inner.last = seq;
    }

    /// Adds changes up to `seq`; true when a watcher is told of one of them.
    pub(crate) fn push(&self, events: Vec<SharedEvent>, seq: u64) -> bool {
        let mut inner = self.inner.write();
        inner.last = inner.last.max(seq);
        let mut any = false;
        for event in events {
            if event.kind.is_public() {
                any = true;
                inner.events.push_back(event);
            }
        }
        while inner.events.len() > KEPT {
            if let Some(dropped) = inner.events.pop_front() {
                inner.complete_since = dropped.seq;
            }
        }
        any
    }

    /// Changes behind `since` that are in memory; nothing when memory does not reach back so far.
    fn since(&self, since: u64, limit: usize) -> Option<(Vec<SharedEvent>, u64)> {
        let inner = self.inner.read();
        if since < inner.complete_since {
            return None;
        }
        let at = inner.events.partition_point(|e| e.seq <= since);
        let events: Vec<SharedEvent> = inner.events.range(at..).take(limit).cloned().collect();
        let upto = match events.last() {
            Some(last) if events.len() == limit => last.seq,
            _ => inner.last,
        };
        Some((events, upto))
    }

    /// Counts a watcher while the guard lives.
    pub(crate) fn watcher(&self) -> Result<Watching> {
        let count = Arc::clone(&self.watchers);
        if count.fetch_add(1, Ordering::Relaxed) >= WATCHERS {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::TooManyWatchers);
        }
        Ok(Watching(count))
    }

    pub(crate) fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }
}

/// A counted watcher.
pub(crate) struct Watching(Arc<AtomicUsize>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a watcher is told: changes, and the position from which it goes on.
#[derive(Debug, Clone, Default)]
pub(crate) struct News {
    pub events: Vec<SharedEvent>,
    pub upto: u64,
}

/// Changes behind `since` that a tenant (absent: everybody's) may see.
///
/// # Errors
/// [`Error::SeqTooOld`] when some of them are not kept any more, or `since` is from another life of the
/// database.
pub(crate) async fn news(core: &Core, since: u64, tenant: Option<Uuid>) -> Result<News> {
    let (events, upto) = match core.ring.since(since, BATCH) {
        Some(found) => found,
        // On the heap: thousands of watchers wait, and hardly one of them was away for so long.
        None => Box::pin(stored(core, since)).await?,
    };
    if since > core.model.read().seq {
        return Err(Error::SeqTooOld);
    }
    let visible = |e: &SharedEvent| tenant.is_none() || e.tenant.is_none() || e.tenant == tenant;
    Ok(News {
        events: events.into_iter().filter(visible).collect(),
        upto,
    })
}

async fn stored(core: &Core, since: u64) -> Result<(Vec<SharedEvent>, u64)> {
    let oldest = store::events::oldest(core.db.reader()).await?;
    // The event right behind `since` must still be there, or nothing has ever been removed.
    if oldest.is_none_or(|oldest| oldest > since + 1) {
        return Err(Error::SeqTooOld);
    }
    let rows = store::events::read(core.db.reader(), since, BATCH as u64).await?;
    let upto = rows.last().map_or(since, |r| r.event.seq);
    let events = rows
        .into_iter()
        .map(|r| Arc::new(r.event))
        .filter(|e| e.kind.is_public());
    Ok((events.collect(), upto))
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use bytes::Bytes;
    use portico_base::clock::from_unix_ms;

    use super::*;
    use crate::domain::event::{Event, EventKind};

    fn event(seq: u64, kind: EventKind) -> SharedEvent {
        Arc::new(Event {
            seq,
            kind,
            tenant: None,
            service: None,
            instance: None,
            at: from_unix_ms(0),
            data: Bytes::new(),
            frame: OnceLock::new(),
        })
    }

    #[test]
    fn memory_knows_how_far_back_it_reaches() {
        let ring = Ring::default();
        ring.begin(10);
        assert!(ring.since(9, 5).is_none());
        assert!(!ring.push(vec![event(11, EventKind::TokenChanged)], 11));
        assert!(ring.push(vec![event(12, EventKind::InstanceChanged)], 12));
        let (events, upto) = ring.since(10, 5).unwrap();
        assert_eq!((events.len(), upto), (1, 12));
        for seq in 13..13 + KEPT as u64 {
            ring.push(vec![event(seq, EventKind::InstanceChanged)], seq);
        }
        assert!(ring.since(11, 5).is_none(), "the oldest were dropped");
        let (events, upto) = ring.since(12, 5).unwrap();
        assert_eq!(
            (events.first().unwrap().seq, events.len(), upto),
            (13, 5, 17)
        );
        assert_eq!(ring.since(5_000, 5).unwrap().1, 12 + KEPT as u64);
    }

    #[test]
    fn watchers_are_counted() {
        let ring = Ring::default();
        let one = ring.watcher().unwrap();
        assert_eq!(ring.watchers(), 1);
        drop(one);
        assert_eq!(ring.watchers(), 0);
    }
}
