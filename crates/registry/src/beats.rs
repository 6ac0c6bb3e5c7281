//! Heartbeats that the database, or other replicas, do not know of yet.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_base::clock::from_unix_ms;
use uuid::Uuid;

use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// Newest sign of life by instance since the last flush; as large as the number of instances at most.
#[derive(Default)]
pub(crate) struct Beats(Mutex<HashMap<Uuid, Timestamp>>);

impl Beats {
    pub(crate) fn note(&self, id: Uuid, at: Timestamp) {
        self.0.lock().insert(id, at);
    }

    fn take(&self) -> Vec<(Uuid, Timestamp)> {
        std::mem::take(&mut *self.0.lock()).into_iter().collect()
    }

    fn put_back(&self, beats: Vec<(Uuid, Timestamp)>) {
        let mut map = self.0.lock();
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
    let mut gone = Vec::new();
    {
        let model = core.model.read();
        for (text, beat) in &shared {
            match Uuid::parse_str(text).ok().and_then(|id| model.instance(id)) {
                Some(entry) => entry.live.see(from_unix_ms(beat.at_ms)),
                None => gone.push(text.as_str()),
            }
        }
    }
    core.heartbeats.forget(gone);
    let rows = store::instances::heartbeats(core.db.reader(), since).await?;
    let model = core.model.read();
    for (id, at) in rows {
        if let Some(entry) = model.instance(id) {
            entry.live.see(at);
        }
    }
    Ok(())
}
