//! Counters and gauges of the registry (§9 of the specification).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, GaugeFamily, Histogram, HistogramFamily, Registry, Samples,
};

use crate::domain::event::EventKind;
use crate::hub::Core;

static INSTANCES: GaugeFamily = GaugeFamily::new(
    "portico_registry_instances",
    "instances by service and state",
    &["service", "state"],
    1_400,
);
static HEARTBEATS: CounterFamily = CounterFamily::new(
    "portico_registry_heartbeats_total",
    "heartbeats taken",
    &[],
    1,
);
static HEARTBEAT_AGE: HistogramFamily = HistogramFamily::seconds(
    "portico_registry_heartbeat_age_seconds",
    "time between two heartbeats of an instance",
    &[],
    1,
);
static CHECKS: CounterFamily = CounterFamily::new(
    "portico_registry_checks_total",
    "health checks done, by kind and result",
    &["kind", "result"],
    20,
);
static CHECK_SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_registry_check_seconds",
    "time that health checks took",
    &[],
    1,
);
static EVENTS: CounterFamily = CounterFamily::new(
    "portico_registry_events_total",
    "changes of the directory, by kind",
    &["kind"],
    20,
);
static WATCHERS: GaugeFamily = GaugeFamily::new(
    "portico_registry_watchers",
    "open watches of the directory",
    &[],
    1,
);
static SEQ: GaugeFamily = GaugeFamily::new(
    "portico_registry_directory_seq",
    "position in the sequence of changes",
    &[],
    1,
);
static REGISTER: HistogramFamily = HistogramFamily::seconds(
    "portico_registry_register_seconds",
    "time from a registration to its answer, the directory swapped in between",
    &[],
    1,
);
static RESYNC: CounterFamily = CounterFamily::new(
    "portico_registry_resync_differences_total",
    "differences that the comparison with the database found and healed",
    &[],
    1,
);
static SHARDS: GaugeFamily = GaugeFamily::new(
    "portico_registry_shards",
    "shards of instances that this process watches over",
    &[],
    1,
);

/// Kept handles.
pub(crate) struct Metrics {
    pub registry: Registry,
    pub heartbeats: Counter,
    pub heartbeat_age: Histogram,
    pub checks: CounterVec,
    pub check_seconds: Histogram,
    events: BTreeMap<&'static str, Counter>,
    pub register: Histogram,
    pub resync: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        registry.declare(&[
            INSTANCES.family(),
            SEQ.family(),
            WATCHERS.family(),
            SHARDS.family(),
        ]);
        crate::consul::declare_metrics(registry);
        let events = registry.counter(&EVENTS);
        Self {
            heartbeats: registry.counter(&HEARTBEATS).with(&[]),
            heartbeat_age: registry.histogram(&HEARTBEAT_AGE).with(&[]),
            checks: registry.counter(&CHECKS),
            check_seconds: registry.histogram(&CHECK_SECONDS).with(&[]),
            events: EventKind::ALL
                .iter()
                .map(|k| (k.as_str(), events.with(&[k.as_str()])))
                .collect(),
            register: registry.histogram(&REGISTER).with(&[]),
            resync: registry.counter(&RESYNC).with(&[]),
            registry: registry.clone(),
        }
    }

    pub(crate) fn event(&self, kind: EventKind) {
        if let Some(counter) = self.events.get(kind.as_str()) {
            counter.inc();
        }
    }

    /// Lets every scrape read the model.
    pub(crate) fn observe(&self, core: &Arc<Core>) {
        let weak = Arc::downgrade(core);
        self.registry
            .collect_with(move |samples| collect(&weak, samples));
    }
}

fn collect(core: &Weak<Core>, samples: &mut Samples) {
    let Some(core) = core.upgrade() else { return };
    samples.gauge(&WATCHERS, &[], core.ring.watchers() as f64);
    samples.gauge(&SHARDS, &[], f64::from(core.shards.count()));
    let model = core.model.read();
    samples.gauge(&SEQ, &[], model.seq as f64);
    let mut counts: BTreeMap<(&str, &'static str), u32> = BTreeMap::new();
    for entry in model.instances() {
        if let Some(service) = model.service_of(&entry.instance) {
            // Names that Consul's API took unchecked would be labels without bound or form.
            let name = if service.is_routable() {
                &*service.name
            } else {
                "other"
            };
            *counts
                .entry((name, entry.instance.state.as_str()))
                .or_default() += 1;
        }
    }
    for ((service, state), count) in counts {
        samples.gauge(&INSTANCES, &[service, state], f64::from(count));
    }
}
