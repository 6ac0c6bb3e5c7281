//! What flows where, second by second: kept for fifteen minutes, summed over replicas, drawn as a map.

mod exchange;
pub(crate) mod happenings;
pub(crate) mod map;
pub(crate) mod ring;
mod sample;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portico_base::{Clock, Timestamp};
use portico_contract::directory::Directory;
use portico_db::{Db, Replica, ReplicaState};
use portico_host::Health;
use portico_state::{Bus, Event};
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Error;
use crate::figures::Pools;
use crate::live::Live;
use crate::pipeline::Gate;
use crate::pipeline::operate::Audience;
use crate::surface::DoorControl;
use happenings::{Happening, Happenings};
use map::{Drawing, Edge, Map, Node, RouteFigures};
use ring::{Key, Process, Ring, Second, Totals, add_up};
pub(crate) use sample::{Busy, Sampler};

/// Memory for this process's seconds.
const OWN_BYTES: usize = 16 << 20;
/// Memory for those of one other replica.
const OTHER_BYTES: usize = 4 << 20;
/// Other replicas that are listened to.
const OTHERS: usize = 32;
/// A replica that said nothing for so long is not counted as present.
const PRESENT_MS: i64 = 3_000;

/// What a map needs to know; cheap to clone.
#[derive(Clone)]
pub(crate) struct Topology(Arc<Inner>);

/// What it is made from.
pub(crate) struct Parts {
    /// Name of this replica.
    pub(crate) name: Arc<str>,
    /// Tells this process from others, should two have one name.
    pub(crate) id: Uuid,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) db: Db,
    /// Where replicas tell each other; absent when messages reach nobody else.
    pub(crate) bus: Option<Bus>,
    pub(crate) control: DoorControl,
    pub(crate) health: Arc<OnceLock<Health>>,
    pub(crate) pools: Pools,
}

struct Inner {
    parts: Parts,
    /// Set once everything is built; weak, because the gate's own router holds this.
    gate: OnceLock<Weak<Gate>>,
    busy: Busy,
    rings: Mutex<Rings>,
    happenings: Mutex<Happenings>,
    live: Live,
    /// Rings are dated by a clock that nobody sets.
    origin: Instant,
}

struct Rings {
    own: Ring,
    others: HashMap<Uuid, Other>,
}

struct Other {
    name: String,
    ring: Ring,
    process: Process,
    at_ms: i64,
}

/// A process that serves.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayReplica)]
pub(crate) struct ReplicaView {
    pub(crate) name: String,
    /// The one that answers.
    pub(crate) own: bool,
    /// Its figures are among the sums.
    pub(crate) counted: bool,
    /// Connections of clients that speak HTTP.
    pub(crate) connections: u64,
    /// Connections that were switched to another protocol.
    pub(crate) tunnels: u64,
    /// Connections to instances.
    pub(crate) upstream_connections: u64,
    /// Share of the last second in which each worker was busy.
    pub(crate) busy: Vec<f32>,
}

/// The map over a window.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayTopology)]
pub(crate) struct TopologyView {
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Seconds asked for.
    pub(crate) window_s: u32,
    /// Seconds that the figures are of: fewer soon after the start, or when memory for them is used up.
    pub(crate) covered_s: f64,
    /// Name of the replica that answers.
    pub(crate) replica: String,
    /// All replicas that serve, for those who act for the whole installation.
    pub(crate) replicas: Vec<ReplicaView>,
    /// The figures are of all replicas; else of those that are `counted`, which is this one alone where
    /// replicas share no Redis.
    pub(crate) complete: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) routes: Vec<RouteFigures>,
}

impl Topology {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            gate: OnceLock::new(),
            busy: Busy::default(),
            rings: Mutex::new(Rings {
                own: Ring::new(OWN_BYTES),
                others: HashMap::new(),
            }),
            happenings: Mutex::default(),
            live: Live::default(),
            origin: Instant::now(),
        }))
    }

    /// Binds the gate, which is built later.
    pub(crate) fn bind(&self, gate: &Arc<Gate>) {
        // Bound once; a second gate would be a second process.
        let _ = self.0.gate.set(Arc::downgrade(gate));
    }

    /// The gate, while the process serves.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn gate(&self) -> Result<Arc<Gate>, Error> {
        let gate = self.0.gate.get().and_then(Weak::upgrade);
        gate.ok_or(Error::NotServing)
    }

    pub(crate) fn busy(&self) -> &Busy {
        &self.0.busy
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0.live
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// Milliseconds since the start.
    fn running_ms(&self) -> i64 {
        i64::try_from(self.0.origin.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub(crate) fn replica(&self) -> &str {
        &self.0.parts.name
    }

    /// Tells those who watch.
    pub(crate) fn happened(&self, happening: Happening) {
        self.0.happenings.lock().push(happening);
    }

    /// Happenings behind a number, with the number of the newest.
    pub(crate) fn happenings(
        &self,
        behind: u64,
        audience: Audience,
        most: usize,
    ) -> (Vec<Happening>, u64) {
        let all = self.0.happenings.lock();
        (all.since(behind, audience, most), all.last())
    }

    /// The map over the last `window_s` seconds. Computes for some milliseconds: not for a data thread.
    ///
    /// # Errors
    /// When the process is ending.
    pub(crate) fn view(&self, window_s: u32, audience: Audience) -> Result<TopologyView, Error> {
        let after = self.running_ms() - i64::from(window_s) * 1_000;
        let (seconds, own_ms) = self.seconds(after);
        let mut totals = Totals::new();
        add_up(&mut totals, &seconds);
        let covered_s = (own_ms as f64 / 1_000.0).max(0.001);
        let map = self.draw(&totals, covered_s, audience)?;
        let replicas = match audience {
            Audience::All => self.replicas(),
            Audience::Tenant(_) => Vec::new(),
        };
        Ok(TopologyView {
            at: self.now(),
            window_s,
            covered_s,
            replica: self.0.parts.name.to_string(),
            replicas,
            complete: true,
            nodes: map.nodes,
            edges: map.edges,
            routes: map.routes,
        })
    }

    /// Adds the replicas that are known to the installation and not heard here.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub(crate) async fn complete(
        &self,
        view: &mut TopologyView,
        audience: Audience,
    ) -> Result<(), Error> {
        let known: Vec<Replica> = self.0.parts.db.replicas().list().await?;
        let serves = |r: &&Replica| {
            r.state == ReplicaState::Ready && r.roles.iter().any(|role| role == "gateway")
        };
        for replica in known.iter().filter(serves) {
            let here = replica.name == *self.0.parts.name || self.heard(&replica.name);
            if here {
                continue;
            }
            view.complete = false;
            if audience == Audience::All {
                view.replicas.push(ReplicaView {
                    name: replica.name.clone(),
                    own: false,
                    counted: false,
                    connections: 0,
                    tunnels: 0,
                    upstream_connections: 0,
                    busy: Vec::new(),
                });
            }
        }
        Ok(())
    }

    fn heard(&self, name: &str) -> bool {
        let now_ms = self.running_ms();
        let rings = self.0.rings.lock();
        rings
            .others
            .values()
            .any(|o| o.name == name && now_ms - o.at_ms < PRESENT_MS)
    }

    /// Draws totals of a time.
    ///
    /// # Errors
    /// When the process is ending.
    pub(crate) fn draw(
        &self,
        totals: &Totals,
        seconds: f64,
        audience: Audience,
    ) -> Result<Map, Error> {
        let gate = self.gate()?;
        let in_flight = self.in_flight();
        let drawing = Drawing {
            table: &gate.table(),
            now_ms: gate.now_ms(),
            totals,
            seconds,
            in_flight: &in_flight,
            audience,
        };
        Ok(drawing.draw())
    }

    /// Seconds of all replicas that ended after a moment, and how long our own were together.
    pub(crate) fn seconds(&self, after_ms: i64) -> (Vec<Arc<Second>>, u64) {
        let rings = self.0.rings.lock();
        let mut all = rings.own.since(after_ms);
        let own_ms = all.iter().map(|s| u64::from(s.lasted_ms)).sum();
        for other in rings.others.values() {
            all.extend(other.ring.since(after_ms));
        }
        (all, own_ms)
    }

    /// The last second of each replica that is present, and how long our own was.
    pub(crate) fn newest(&self) -> (Vec<Arc<Second>>, u64) {
        let now_ms = self.running_ms();
        let rings = self.0.rings.lock();
        let mut all: Vec<Arc<Second>> = rings.own.last().cloned().into_iter().collect();
        let own_ms = all.iter().map(|s| u64::from(s.lasted_ms)).sum();
        for other in rings.others.values() {
            if now_ms - other.at_ms < PRESENT_MS {
                // The parts of one second come one after the other.
                all.extend(other.ring.since(other.at_ms - 1));
            }
        }
        (all, own_ms)
    }

    /// Requests under way by instance, over all replicas that are present.
    fn in_flight(&self) -> HashMap<Uuid, u64> {
        let mut sums = HashMap::new();
        let (seconds, _) = self.newest();
        for entry in seconds.iter().flat_map(|s| s.entries.iter()) {
            if let Key::Instance(id) = entry.key
                && entry.in_flight > 0
            {
                *sums.entry(id).or_insert(0) += u64::from(entry.in_flight);
            }
        }
        sums
    }

    pub(crate) fn replicas(&self) -> Vec<ReplicaView> {
        let now_ms = self.running_ms();
        let rings = self.0.rings.lock();
        let view = |name: &str, own: bool, process: &Process| ReplicaView {
            name: name.to_owned(),
            own,
            counted: true,
            connections: process.connections,
            tunnels: process.tunnels,
            upstream_connections: process.upstream_connections,
            busy: process.busy.clone(),
        };
        let own = rings.own.last().map(|s| s.process.clone());
        let mut all = vec![view(&self.0.parts.name, true, &own.unwrap_or_default())];
        let mut others: Vec<&Other> = { rings.others.values() }
            .filter(|o| now_ms - o.at_ms < PRESENT_MS)
            .collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        all.extend(others.iter().map(|o| view(&o.name, false, &o.process)));
        all
    }

    /// Takes a second each second, tells the other replicas and those who watch, until told to stop.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Ok(gate) = self.gate() else { return };
        let mut directory = gate.directory();
        let mut sampler = self.sampler(gate);
        let mut heard = self
            .0
            .parts
            .bus
            .as_ref()
            .map(|b| b.subscribe(exchange::TOPIC));
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let told = async {
                match heard.as_mut() {
                    Some(heard) => heard.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = tick.tick() => self.tick(&mut sampler, &mut directory),
                event = told => if let Event::Message(message) = event {
                    self.hear(&message);
                },
            }
        }
        self.0.live.end();
    }

    pub(crate) fn sampler(&self, gate: Arc<Gate>) -> Sampler {
        let parts = &self.0.parts;
        Sampler::new(
            gate,
            parts.control.clone(),
            self.0.busy.clone(),
            parts.pools.clone(),
        )
    }

    /// Takes a second and tells everybody.
    pub(crate) fn tick(&self, sampler: &mut Sampler, directory: &mut Arc<Directory>) {
        let now = self.now();
        let second = Arc::new(sampler.take(self.running_ms(), Instant::now()));
        if let Some(bus) = &self.0.parts.bus {
            for message in exchange::write(self.0.parts.id, &self.0.parts.name, &second) {
                bus.publish(exchange::TOPIC, message);
            }
        }
        self.0.rings.lock().own.push(second);
        if let Ok(gate) = self.gate() {
            let newest = gate.directory();
            let found = happenings::compare(directory, &newest, now);
            let mut all = self.0.happenings.lock();
            found.into_iter().for_each(|h| all.push(h));
            *directory = newest;
        }
        if self.0.parts.health.get().is_some_and(Health::draining) {
            // A stream without an end would hold the drain up to its deadline.
            self.0.live.end();
        }
        self.0.live.tick(self);
    }

    /// A second of another replica.
    fn hear(&self, message: &[u8]) {
        let now_ms = self.running_ms();
        let Some(told) = exchange::read(message, now_ms) else {
            return;
        };
        if told.from == self.0.parts.id {
            return;
        }
        let mut rings = self.0.rings.lock();
        let kept_ms = i64::try_from(ring::SECONDS * 1_000).unwrap_or(i64::MAX);
        rings.others.retain(|_, o| now_ms - o.at_ms < kept_ms);
        if rings.others.len() >= OTHERS && !rings.others.contains_key(&told.from) {
            return;
        }
        let other = rings.others.entry(told.from).or_insert_with(|| Other {
            name: told.name,
            ring: Ring::new(OTHER_BYTES),
            process: Process::default(),
            at_ms: now_ms,
        });
        if told.second.lasted_ms > 0 {
            other.process = told.second.process.clone();
            other.at_ms = now_ms;
        }
        other.ring.push(Arc::new(told.second));
    }
}
