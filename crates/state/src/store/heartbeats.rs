//! Heartbeats that are no database writes (RG-4): told at once here, carried to the other replicas together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::StateError;
use crate::link::Link;

/// Most ids of one map.
const MAX_IDS: usize = 100_000;
/// Longest data of one beat.
const MAX_DATA: usize = 4 * 1024;
/// What was told here is at the others after about this time.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_millis(250);
/// A map that nobody writes to any more is forgotten after a day.
const MAP_TTL_MS: u64 = 24 * 3600 * 1000;

/// The last sign of life of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// When, as Unix milliseconds.
    pub at_ms: i64,
    /// What it said about itself (load, version), up to 4 KiB; may be empty.
    pub data: Bytes,
}

/// A map from ids to their last beat, shared by all replicas. Cheap to clone.
#[derive(Clone)]
pub struct Heartbeats(pub(crate) Arc<HeartbeatsInner>);

pub(crate) struct HeartbeatsInner {
    name: &'static str,
    link: Option<Arc<Link>>,
    maps: Mutex<Maps>,
}

#[derive(Default)]
struct Maps {
    beats: HashMap<String, Beat>,
    dirty: HashSet<String>,
    forgotten: HashSet<String>,
}

impl std::fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Heartbeats").field(&self.0.name).finish()
    }
}

impl Heartbeats {
    pub(crate) fn new(name: &'static str, link: Option<Arc<Link>>) -> Self {
        Self(Arc::new(HeartbeatsInner {
            name,
            link,
            maps: Mutex::default(),
        }))
    }

    /// Notes a beat. Never waits; a beat older than the known one is ignored. Longer data is left out.
    ///
    /// # Errors
    /// When 100,000 ids are known and this is a new one.
    pub fn touch(&self, id: &str, at_ms: i64, data: Bytes) -> Result<(), StateError> {
        let data = if data.len() > MAX_DATA {
            Bytes::new()
        } else {
            data
        };
        let mut maps = self.0.maps.lock();
        if !maps.beats.contains_key(id) && maps.beats.len() >= MAX_IDS {
            return Err(StateError::Full("heartbeats"));
        }
        let newer = maps.beats.get(id).is_none_or(|known| known.at_ms <= at_ms);
        if newer {
            maps.beats.insert(id.to_owned(), Beat { at_ms, data });
            maps.forgotten.remove(id);
            if self.0.link.is_some() {
                maps.dirty.insert(id.to_owned());
            }
        }
        Ok(())
    }

    /// The last beat of one id, as far as this process knows without asking.
    #[must_use]
    pub fn known(&self, id: &str) -> Option<Beat> {
        self.0.maps.lock().beats.get(id).cloned()
    }

    /// Forgets ids, here at once and at the others with the next flush.
    pub fn forget<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        let mut maps = self.0.maps.lock();
        for id in ids {
            maps.beats.remove(id);
            maps.dirty.remove(id);
            // While Redis is away the list would grow; what is left out ends with the map's own time.
            if self.0.link.is_some() && maps.forgotten.len() < MAX_IDS {
                maps.forgotten.insert(id.to_owned());
            }
        }
    }

    /// The last beat of every id, of all replicas. What Redis knows better is taken over; while it is
    /// away, what this process knows is the answer.
    pub async fn scan(&self) -> Vec<(String, Beat)> {
        if let Some(link) = &self.0.link {
            let all = redis::cmd("HGETALL").arg(self.key(link)).clone();
            let answer: Result<HashMap<String, Vec<u8>>, _> = link.query("hgetall", &all).await;
            if let Ok(theirs) = answer {
                self.merge(theirs);
            }
        }
        let maps = self.0.maps.lock();
        maps.beats
            .iter()
            .map(|(id, beat)| (id.clone(), beat.clone()))
            .collect()
    }

    fn merge(&self, theirs: HashMap<String, Vec<u8>>) {
        let mut maps = self.0.maps.lock();
        for (id, bytes) in theirs {
            let Some(beat) = decode(&bytes) else { continue };
            let newer = maps
                .beats
                .get(&id)
                .is_none_or(|known| known.at_ms < beat.at_ms);
            let wanted = newer && !maps.forgotten.contains(&id);
            if wanted && (maps.beats.len() < MAX_IDS || maps.beats.contains_key(&id)) {
                maps.beats.insert(id, beat);
            }
        }
    }

    /// Carries to Redis what changed since the last time.
    pub(crate) async fn flush(&self) {
        let Some(link) = &self.0.link else { return };
        let (changed, forgotten) = {
            let mut maps = self.0.maps.lock();
            let dirty = std::mem::take(&mut maps.dirty);
            let changed: Vec<(String, Vec<u8>)> = dirty
                .into_iter()
                .filter_map(|id| maps.beats.get(&id).map(encode).map(|bytes| (id, bytes)))
                .collect();
            let forgotten: Vec<String> = maps.forgotten.iter().cloned().collect();
            (changed, forgotten)
        };
        if changed.is_empty() && forgotten.is_empty() {
            return;
        }
        let key = self.key(link);
        let mut pipe = redis::pipe();
        if !changed.is_empty() {
            pipe.hset_multiple(&key, &changed).ignore();
            pipe.cmd("PEXPIRE").arg(&key).arg(MAP_TTL_MS).ignore();
        }
        if !forgotten.is_empty() {
            pipe.hdel(&key, &forgotten).ignore();
        }
        let sent = link.pipeline::<()>("heartbeats", &pipe).await.is_ok();
        let mut maps = self.0.maps.lock();
        if sent {
            for id in &forgotten {
                maps.forgotten.remove(id);
            }
        } else {
            // Redis is away: the same again when it is back.
            maps.dirty.extend(changed.into_iter().map(|(id, _)| id));
        }
    }

    fn key(&self, link: &Link) -> String {
        format!("{}beat:{}", link.prefix, self.0.name)
    }
}

fn encode(beat: &Beat) -> Vec<u8> {
    let mut bytes = beat.at_ms.to_le_bytes().to_vec();
    bytes.extend_from_slice(&beat.data);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Beat> {
    let (at_ms, data) = bytes.split_first_chunk::<8>()?;
    let at_ms = i64::from_le_bytes(*at_ms);
    let data = Bytes::copy_from_slice(data);
    Some(Beat { at_ms, data })
}
