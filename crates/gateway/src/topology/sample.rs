//! Takes a second: reads what workers counted, once, off the data plane.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::RuntimeMetrics;
use uuid::Uuid;

use super::ring::{Entry, Key, Process, Second};
use crate::balance::Load;
use crate::balance::flow::Sum;
use crate::figures::Pools;
use crate::pipeline::Gate;
use crate::surface::DoorControl;

/// Moments that are kept of the workers' time.
const MOMENTS: usize = 11;

/// How busy the workers are, by their runtimes' own clocks. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Busy(Arc<Mutex<Workers>>);

#[derive(Default)]
struct Workers {
    runtimes: Vec<Option<RuntimeMetrics>>,
    /// When, and how long each worker had worked until then.
    moments: VecDeque<(Instant, Vec<Duration>)>,
}

impl Busy {
    /// Enters the worker of this thread; to be called within its runtime.
    pub(crate) fn enter(&self, index: usize) {
        let metrics = tokio::runtime::Handle::current().metrics();
        let mut workers = self.0.lock();
        if workers.runtimes.len() <= index {
            workers.runtimes.resize_with(index + 1, || None);
        }
        workers.runtimes[index] = Some(metrics);
    }

    /// Looks at the workers' clocks.
    pub(crate) fn look(&self, now: Instant) {
        let mut workers = self.0.lock();
        let worked = |m: &Option<RuntimeMetrics>| {
            m.as_ref()
                .map_or(Duration::ZERO, |m| m.worker_total_busy_duration(0))
        };
        let times = workers.runtimes.iter().map(worked).collect();
        if workers.moments.len() == MOMENTS {
            workers.moments.pop_front();
        }
        workers.moments.push_back((now, times));
    }

    /// Each worker's share of the time since the last look but one.
    pub(crate) fn last(&self) -> Vec<f32> {
        let workers = self.0.lock();
        let before = workers.moments.len().checked_sub(2);
        ratios(&workers, before)
    }

    /// Each worker's share of about the last ten seconds.
    pub(crate) fn lately(&self) -> Vec<f32> {
        ratios(&self.0.lock(), Some(0))
    }
}

fn ratios(workers: &Workers, from: Option<usize>) -> Vec<f32> {
    let first = from.and_then(|at| workers.moments.get(at));
    let (Some((began, before)), Some((ended, now))) = (first, workers.moments.back()) else {
        return Vec::new();
    };
    let all = ended.saturating_duration_since(*began).as_secs_f32();
    if all <= 0.0 {
        return Vec::new();
    }
    let share = |(at, now): (usize, &Duration)| {
        let before = before.get(at).copied().unwrap_or_default();
        (now.saturating_sub(before).as_secs_f32() / all).clamp(0.0, 1.0)
    };
    now.iter().enumerate().map(share).collect()
}

/// Reads differences since it read last.
pub(crate) struct Sampler {
    gate: Arc<Gate>,
    control: DoorControl,
    busy: Busy,
    pools: Pools,
    passages: HashMap<Key, Sum>,
    instances: HashMap<Uuid, Known>,
    last: Instant,
}

/// An instance that was visited; it is watched until its last request has ended.
struct Known {
    load: Arc<Load>,
    sum: Sum,
    listed: bool,
}

impl Sampler {
    pub(crate) fn new(gate: Arc<Gate>, control: DoorControl, busy: Busy, pools: Pools) -> Self {
        Self {
            gate,
            control,
            busy,
            pools,
            passages: HashMap::new(),
            instances: HashMap::new(),
            last: Instant::now(),
        }
    }

    /// What happened since the last time.
    pub(crate) fn take(&mut self, at_ms: i64, now: Instant) -> Second {
        self.busy.look(now);
        let lasted = now.saturating_duration_since(self.last);
        self.last = now;
        let mut entries = Vec::new();
        self.passages(&mut entries);
        self.instances(&mut entries);
        let totals = self.control.get().map(crate::serve::Control::totals);
        let totals = totals.unwrap_or_default();
        Second {
            at_ms,
            lasted_ms: u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX),
            process: Process {
                connections: totals.open.saturating_sub(totals.tunnels),
                tunnels: totals.tunnels,
                upstream_connections: self.pools.open(),
                busy: self.busy.last(),
            },
            entries: entries.into(),
        }
    }

    fn passages(&mut self, entries: &mut Vec<Entry>) {
        for (passage, flow) in self.gate.flows().all() {
            let (key, sum) = (Key::Passage(passage), flow.sum());
            let before = self.passages.entry(key.clone()).or_default();
            entries.extend(Entry::between(&key, before, &sum, 0));
            *before = sum;
        }
    }

    fn instances(&mut self, entries: &mut Vec<Entry>) {
        for known in self.instances.values_mut() {
            known.listed = false;
        }
        let table = self.gate.table();
        let nodes = table.services().flat_map(|(_, named)| named.all());
        for node in nodes.flat_map(|n| n.versions.iter().flat_map(|v| v.instances.iter())) {
            if let Some(known) = self.instances.get_mut(&node.instance.id) {
                known.listed = true;
                if !Arc::ptr_eq(&known.load, &node.load) {
                    // It left and came back: its counts began anew.
                    known.load = Arc::clone(&node.load);
                    known.sum = Sum::default();
                }
            } else if !node.load.flow.is_untouched() || node.load.in_flight() > 0 {
                let known = Known {
                    load: Arc::clone(&node.load),
                    sum: Sum::default(),
                    listed: true,
                };
                self.instances.insert(node.instance.id, known);
            }
        }
        self.instances.retain(|id, known| {
            let (sum, in_flight) = (known.load.flow.sum(), known.load.in_flight());
            let entry = Entry::between(&Key::Instance(*id), &known.sum, &sum, in_flight);
            let quiet = entry.is_none();
            entries.extend(entry);
            known.sum = sum;
            known.listed || !quiet
        });
    }
}
