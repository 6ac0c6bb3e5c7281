//! Figures of the workers as metrics: read from their own counters at each scrape.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use portico_telemetry::metrics::{CounterFamily, GaugeFamily, OTHER, Registry, Samples};

use crate::pipeline::Gate;
use crate::serve::CertStore;
use crate::surface::DoorControl;
use crate::topology::Busy;
use crate::upstream::PoolSize;

/// Names of services with series of their own; the rest is one.
const NAMES: usize = 200;

static CONNECTIONS: GaugeFamily = GaugeFamily::new(
    "portico_gateway_connections",
    "Open connections of clients; a tunnel is one that was switched to another protocol.",
    &["proto"],
    2,
);
static REFUSED: CounterFamily = CounterFamily::new(
    "portico_gateway_connections_refused_total",
    "Connections of clients refused by a limit.",
    &[],
    1,
);
static REUSE: CounterFamily = CounterFamily::new(
    "portico_gateway_pool_reuse_failures_total",
    "Requests sent again because a pooled connection to an instance was dead.",
    &[],
    1,
);
static POOL: GaugeFamily = GaugeFamily::new(
    "portico_gateway_pool_connections",
    "Connections to a service's instances, idle or busy.",
    &["service", "state"],
    404,
);
static BUSY: GaugeFamily = GaugeFamily::new(
    "portico_gateway_worker_busy_ratio",
    "Share of about the last ten seconds in which a worker was not waiting, 0 to 1.",
    &["worker"],
    256,
);
static EXPIRY: GaugeFamily = GaugeFamily::new(
    "portico_gateway_certificate_expiry_seconds",
    "Time until a certificate ends; negative when it has ended.",
    &["name"],
    200,
);

/// Declares what is exported here, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        CONNECTIONS.family(),
        REFUSED.family(),
        REUSE.family(),
        POOL.family(),
        BUSY.family(),
        EXPIRY.family(),
    ]);
}

/// The pools of one worker by the key of their target.
type Sizes = Vec<(u64, PoolSize)>;

/// The sizes of the workers' pools, as each told last. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Pools(Arc<Mutex<Vec<Sizes>>>);

impl Pools {
    /// Takes what a worker tells.
    pub(crate) fn tell(&self, worker: usize, sizes: Sizes) {
        let mut all = self.0.lock();
        if all.len() <= worker {
            all.resize_with(worker + 1, Vec::new);
        }
        all[worker] = sizes;
    }

    /// Open connections to all instances.
    pub(crate) fn open(&self) -> u64 {
        let all = self.0.lock();
        all.iter().flatten().map(|(_, size)| size.open as u64).sum()
    }

    /// Sums over the workers by the key of the target.
    fn by_target(&self) -> HashMap<u64, PoolSize> {
        let mut sums: HashMap<u64, PoolSize> = HashMap::new();
        for (key, size) in self.0.lock().iter().flatten() {
            let sum = sums.entry(*key).or_default();
            sum.open += size.open;
            sum.idle += size.idle;
        }
        sums
    }
}

/// What is read at each scrape.
pub(crate) struct Sources {
    pub(crate) control: DoorControl,
    pub(crate) pools: Pools,
    pub(crate) busy: Busy,
    pub(crate) gate: Weak<Gate>,
    /// Set when there is a listener with TLS.
    pub(crate) certificates: Arc<OnceLock<Arc<CertStore>>>,
    pub(crate) clock: Arc<dyn portico_base::Clock>,
}

/// Adds the figures to every scrape.
pub(crate) fn export(registry: &Registry, sources: Sources) {
    declare(registry);
    registry.collect_with(move |samples| collect(&sources, samples));
}

fn collect(sources: &Sources, samples: &mut Samples) {
    // Nothing until the workers run.
    if let Some(totals) = sources.control.get().map(crate::serve::Control::totals) {
        let http = totals.open.saturating_sub(totals.tunnels);
        samples.gauge(&CONNECTIONS, &["http"], http as f64);
        samples.gauge(&CONNECTIONS, &["tunnel"], totals.tunnels as f64);
        samples.counter(&REFUSED, &[], totals.refused as f64);
        samples.counter(&REUSE, &[], totals.upstream_reconnects as f64);
    }
    for (worker, ratio) in sources.busy.lately().iter().enumerate() {
        samples.gauge(&BUSY, &[&worker.to_string()], f64::from(*ratio));
    }
    if let Some(store) = sources.certificates.get() {
        let now_s = sources.clock.now().timestamp();
        for (name, ends_s) in store.expiries() {
            samples.gauge(&EXPIRY, &[&name], (ends_s - now_s) as f64);
        }
    }
    if let Some(gate) = sources.gate.upgrade() {
        pools(&gate, &sources.pools, samples);
    }
}

fn pools(gate: &Gate, pools: &Pools, samples: &mut Samples) {
    let mut left = pools.by_target();
    let mut sums: BTreeMap<Arc<str>, PoolSize> = BTreeMap::new();
    let table = gate.table();
    for node in table.services().flat_map(|(_, named)| named.all()) {
        for instance in node.versions.iter().flat_map(|v| v.instances.iter()) {
            if let Some(size) = left.remove(&instance.target.key()) {
                let name = Arc::clone(&node.service.key.name);
                add(sums.entry(name).or_default(), size);
            }
        }
    }
    let mut rest = PoolSize::default();
    for (at, (name, size)) in sums.into_iter().enumerate() {
        if at < NAMES {
            write(samples, &name, size);
        } else {
            add(&mut rest, size);
        }
    }
    // Also those to instances that have left, until they are closed.
    left.into_values().for_each(|size| add(&mut rest, size));
    if rest.open > 0 {
        write(samples, OTHER, rest);
    }
}

fn add(sum: &mut PoolSize, size: PoolSize) {
    sum.open += size.open;
    sum.idle += size.idle;
}

fn write(samples: &mut Samples, service: &str, size: PoolSize) {
    let busy = size.open.saturating_sub(size.idle);
    samples.gauge(&POOL, &[service, "idle"], size.idle as f64);
    samples.gauge(&POOL, &[service, "busy"], busy as f64);
}
