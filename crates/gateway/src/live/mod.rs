//! The map as it changes, once a second, for those who watch: whole at first, then only what differs.
//!
//! A watcher that is slow misses seconds, never gets old ones: it is given the whole map again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;
use portico_base::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::error::Error;
use crate::pipeline::operate::Audience;
use crate::topology::happenings::Happening;
use crate::topology::map::{Edge, Map, Node};
use crate::topology::ring::{Totals, add_up};
use crate::topology::{ReplicaView, Topology};

/// Watchers at once in a process.
const WATCHERS: usize = 64;
/// Happenings that a whole map begins with.
const BEGIN_WITH: usize = 50;
/// Happenings of one frame.
const AT_ONCE: usize = 200;

/// Who watches, and what they are told.
pub(crate) struct Live {
    frames: watch::Sender<Arc<Frame>>,
    watchers: AtomicUsize,
    audiences: Mutex<HashMap<Audience, Seen>>,
}

/// What an audience was told last.
#[derive(Default)]
struct Seen {
    watchers: usize,
    nodes: BTreeMap<String, Node>,
    happened: u64,
}

/// One second as every audience is told.
#[derive(Default)]
struct Frame {
    number: u64,
    texts: HashMap<Audience, Bytes>,
    end: bool,
}

/// A whole map.
#[derive(Serialize)]
struct Whole<'a> {
    number: u64,
    at: Timestamp,
    replica: &'a str,
    replicas: Vec<ReplicaView>,
    nodes: &'a [Node],
    edges: Vec<Edge>,
    happenings: Vec<Happening>,
}

/// What differs from the second before. A node that is not named is as it was; an edge that is not
/// named had no request.
#[derive(Serialize)]
struct Step<'a> {
    number: u64,
    at: Timestamp,
    replicas: Vec<ReplicaView>,
    nodes: Vec<&'a Node>,
    removed: Vec<String>,
    edges: Vec<Edge>,
    happenings: Vec<Happening>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            frames: watch::Sender::new(Arc::default()),
            watchers: AtomicUsize::new(0),
            audiences: Mutex::default(),
        }
    }
}

impl Live {
    /// Begins to watch.
    ///
    /// # Errors
    /// When too many do already, or the process is ending.
    pub(crate) fn watch(&self, topology: &Topology, audience: Audience) -> Result<Watcher, Error> {
        if self.frames.borrow().end {
            return Err(Error::NotServing);
        }
        if self.watchers.fetch_add(1, Relaxed) >= WATCHERS {
            self.watchers.fetch_sub(1, Relaxed);
            return Err(Error::TooManyWatchers);
        }
        let begin = || Seen {
            // Whatever happens from now on is told, some of it by the whole map too.
            happened: topology.happenings(0, audience, 0).1,
            ..Seen::default()
        };
        let mut audiences = self.audiences.lock();
        audiences.entry(audience).or_insert_with(begin).watchers += 1;
        drop(audiences);
        Ok(Watcher {
            topology: topology.clone(),
            frames: self.frames.subscribe(),
            audience,
            told: None,
        })
    }

    /// Draws what each audience is told of the second that has just ended.
    pub(crate) fn tick(&self, topology: &Topology) {
        if self.frames.borrow().end {
            return;
        }
        let number = self.frames.borrow().number + 1;
        let mut texts = HashMap::new();
        for (audience, seen) in self.audiences.lock().iter_mut() {
            if let Ok(map) = newest(topology, *audience) {
                texts.insert(*audience, step(topology, number, *audience, map, seen));
            }
        }
        self.frames.send_replace(Arc::new(Frame {
            number,
            texts,
            end: false,
        }));
    }

    /// Ends all streams, for good.
    pub(crate) fn end(&self) {
        let number = self.frames.borrow().number + 1;
        self.frames.send_replace(Arc::new(Frame {
            number,
            texts: HashMap::new(),
            end: true,
        }));
    }

    /// The nodes that an audience was told of last.
    fn seen(&self, audience: Audience) -> Option<Vec<Node>> {
        let audiences = self.audiences.lock();
        let nodes = audiences.get(&audience).map(|seen| &seen.nodes)?;
        (!nodes.is_empty()).then(|| nodes.values().cloned().collect())
    }

    fn leave(&self, audience: Audience) {
        self.watchers.fetch_sub(1, Relaxed);
        let mut audiences = self.audiences.lock();
        if let Some(seen) = audiences.get_mut(&audience) {
            seen.watchers -= 1;
            if seen.watchers == 0 {
                audiences.remove(&audience);
            }
        }
    }
}

/// One who watches.
pub(crate) struct Watcher {
    topology: Topology,
    frames: watch::Receiver<Arc<Frame>>,
    audience: Audience,
    /// Number of the last frame that was given.
    told: Option<u64>,
}

impl Watcher {
    /// The next event for the stream; nothing when it is over.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(told) = self.told {
            self.frames.changed().await.ok()?;
            let frame = Arc::clone(&self.frames.borrow_and_update());
            if frame.end {
                return None;
            }
            if frame.number == told + 1
                && let Some(text) = frame.texts.get(&self.audience)
            {
                self.told = Some(frame.number);
                return Some(text.clone());
            }
        }
        self.whole().await
    }

    /// The whole map, at the beginning or after seconds that were missed.
    async fn whole(&mut self) -> Option<Bytes> {
        let (number, end) = {
            let frame = self.frames.borrow_and_update();
            (frame.number, frame.end)
        };
        if end {
            return None;
        }
        let (topology, audience) = (self.topology.clone(), self.audience);
        let draw = move || whole(&topology, number, audience);
        // Drawing a large house takes milliseconds.
        let text = tokio::task::spawn_blocking(draw).await.ok()?.ok()?;
        self.told = Some(number);
        Some(text)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.topology.live().leave(self.audience);
    }
}

/// The map of the last second.
fn newest(topology: &Topology, audience: Audience) -> Result<Map, Error> {
    let (seconds, own_ms) = topology.newest();
    let mut totals = Totals::new();
    add_up(&mut totals, &seconds);
    topology.draw(&totals, (own_ms as f64 / 1_000.0).max(0.001), audience)
}

fn whole(topology: &Topology, number: u64, audience: Audience) -> Result<Bytes, Error> {
    let mut map = newest(topology, audience)?;
    if let Some(seen) = topology.live().seen(audience) {
        // What differs next differs from this.
        map.nodes = seen;
    }
    let (happenings, _) = topology.happenings(0, audience, BEGIN_WITH);
    let document = Whole {
        number,
        at: topology.now(),
        replica: topology.replica(),
        replicas: replicas(topology, audience),
        nodes: &map.nodes,
        edges: active(map.edges),
        happenings,
    };
    Ok(event("map", number, &document))
}

fn step(topology: &Topology, number: u64, audience: Audience, map: Map, seen: &mut Seen) -> Bytes {
    let nodes: BTreeMap<String, Node> = { map.nodes.into_iter() }
        .map(|n| (n.id.clone(), n))
        .collect();
    let (happenings, last) = topology.happenings(seen.happened, audience, AT_ONCE);
    let changed = |n: &&Node| seen.nodes.get(&n.id) != Some(n);
    let gone = |id: &&String| !nodes.contains_key(*id);
    let document = Step {
        number,
        at: topology.now(),
        replicas: replicas(topology, audience),
        nodes: nodes.values().filter(changed).collect(),
        removed: seen.nodes.keys().filter(gone).cloned().collect(),
        edges: active(map.edges),
        happenings,
    };
    let text = event("step", number, &document);
    seen.nodes = nodes;
    seen.happened = last;
    text
}

fn replicas(topology: &Topology, audience: Audience) -> Vec<ReplicaView> {
    match audience {
        Audience::All => topology.replicas(),
        Audience::Tenant(_) => Vec::new(),
    }
}

/// Edges on which something happened.
fn active(mut edges: Vec<Edge>) -> Vec<Edge> {
    edges.retain(|e| e.figures.requests > 0 || e.figures.p50_ms.is_some());
    edges
}

fn event(name: &str, number: u64, document: &impl Serialize) -> Bytes {
    let text = serde_json::to_string(document).unwrap_or_default();
    format!("id: {number}\nevent: {name}\ndata: {text}\n\n").into()
}
