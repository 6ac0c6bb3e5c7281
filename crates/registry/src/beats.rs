//! Heartbeats that the database, or other replicas, do not know of yet.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Duration;
use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_base::clock::from_unix_ms;
use uuid::Uuid;

use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// Newest sign of life by instance since the last flush, and what others told at last; as large as the
/// number of instances at most.
#[derive(Default)]
pub(crate) struct Beats {
    own: Mutex<HashMap<Uuid, Timestamp>>,
    told: Mutex<HashMap<Uuid, Told>>,
}

/// Signs of life of one instance as others wrote them, by their clocks.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    shared: Option<Timestamp>,
    row: Option<Timestamp>,
}

/// News of the shared state are not older than this: they are carried four times a second and looked at
/// every ten.
const LAG: Duration = Duration::seconds(15);

impl Beats {
    pub(crate) fn note(&self, id: Uuid, at: Timestamp) {
        self.own.lock().insert(id, at);
    }

    fn take(&self) -> Vec<(Uuid, Timestamp)> {
        std::mem::take(&mut *self.own.lock()).into_iter().collect()
    }

    fn put_back(&self, beats: Vec<(Uuid, Timestamp)>) {
        let mut map = self.own.lock();
        for (id, at) in beats {
            // A newer one that came meanwhile wins.
            map.entry(id).or_insert(at);
        }
    }
}

/// Writes the heartbeats since the last time. They are no events: nobody is woken.
pub(crate) async fn flush(core: &Arc<Core>) -> Result<usize> {
    let beats = core.beats.take();
    if beats.is_empty() {
        return Ok(0);
    }
    let written = async {
        let tx = core.db.begin().await?;
        store::instances::flush(&tx, &beats).await?;
        tx.commit().await?;
        Ok::<_, crate::error::Error>(())
    };
    if let Err(error) = written.await {
        core.beats.put_back(beats);
        return Err(error);
    }
    Ok(beats.len())
}

/// Takes over the heartbeats that other replicas heard: from the shared state, and from the rows.
pub(crate) async fn learn(core: &Arc<Core>, since: Timestamp) -> Result<()> {
    let shared = core.heartbeats.scan().await;
    let rows = store::instances::heartbeats(core.db.reader(), since).await?;
    let now = core.clock.now();
    let mut fresh: HashMap<Uuid, Told> = HashMap::with_capacity(shared.len());
    let mut gone = Vec::new();
    let model = core.model.read();
    for (text, beat) in &shared {
        match Uuid::parse_str(text) {
            Ok(id) if model.instance(id).is_some() => {
                fresh.entry(id).or_default().shared = Some(from_unix_ms(beat.at_ms));
            }
            _ => gone.push(text.as_str()),
        }
    }
    core.heartbeats.forget(gone);
    for (id, at) in rows {
        fresh.entry(id).or_default().row = Some(at);
    }
    let mut told = core.beats.told.lock();
    for (id, new) in &fresh {
        let old = told.get(id).copied().unwrap_or_default();
        if let Some(entry) = model.instance(*id) {
            let signs = [
                sign(old.shared, new.shared, now, Some(LAG)),
                // A row also changes when somebody writes down an old sign of life.
                sign(old.row, new.row, now, None),
            ];
            signs
                .into_iter()
                .flatten()
                .for_each(|at| entry.live.see(at));
        }
    }
    *told = fresh;
    Ok(())
}

/// What a time that another replica wrote by its own clock means by ours. The same time as at the last
/// look is nothing new; one that lies ahead of us is of now; and one that is new but older than news can
/// be, by `lag`, was written by a clock that is behind ours.
fn sign(
    old: Option<Timestamp>,
    new: Option<Timestamp>,
    now: Timestamp,
    lag: Option<Duration>,
) -> Option<Timestamp> {
    let at = new.filter(|_| new != old)?;
    let behind = old.is_some() && lag.is_some_and(|lag| at < now - lag);
    Some(if behind { now } else { at.min(now) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_clocks_are_read_by_ours() {
        let at = |s: i64| from_unix_ms(1_000_000 + s * 1_000);
        let read = |old: Option<i64>, new| sign(old.map(at), Some(at(new)), at(0), Some(LAG));
        assert_eq!(read(Some(-20), -20), None, "nothing new");
        assert_eq!(
            read(None, -3_600),
            Some(at(-3_600)),
            "an old one of before our start"
        );
        assert_eq!(read(Some(-20), -3), Some(at(-3)));
        assert_eq!(read(Some(-20), 3_600), Some(at(0)), "a clock ahead of ours");
        assert_eq!(
            read(Some(-3_630), -3_600),
            Some(at(0)),
            "a clock behind ours"
        );
        assert_eq!(
            sign(Some(at(-90)), Some(at(-60)), at(0), None),
            Some(at(-60))
        );
        assert_eq!(sign(Some(at(-90)), None, at(0), None), None);
    }
}
