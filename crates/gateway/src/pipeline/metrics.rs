//! What the pipeline counts (§9): families once, handles per worker, labels bounded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use parking_lot::Mutex;
use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, GaugeFamily, GaugeVec, HistogramFamily, HistogramVec,
    LocalCounter, LocalGauge, LocalHistogram, OTHER, Registry, Samples,
};

use crate::balance::Phase;
use crate::balance::flow::{Ended, Flow};
use crate::route::plan::Plan;
use crate::route::service::{ServiceNode, VersionNode};
use crate::route::table::Table;

static REQUESTS: CounterFamily = CounterFamily::new(
    "portico_gateway_requests_total",
    "Requests by service, route, method and class of status.",
    &["service", "route", "method", "status_class"],
    4_000,
);
static SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_gateway_request_seconds",
    "From the first byte of a request to the last of its answer.",
    &["service", "route"],
    202,
);
static UPSTREAM: HistogramFamily = HistogramFamily::seconds(
    "portico_gateway_upstream_seconds",
    "Until the first byte of an instance's answer.",
    &["service"],
    202,
);
static IN_FLIGHT: GaugeFamily = GaugeFamily::new(
    "portico_gateway_in_flight",
    "Requests under way at instances.",
    &["service"],
    202,
);
static BYTES: CounterFamily = CounterFamily::new(
    "portico_gateway_bytes_total",
    "Bytes of bodies, in from clients and out to them.",
    &["direction", "service"],
    404,
);
static PROTOCOL: CounterFamily = CounterFamily::new(
    "portico_gateway_protocol_errors_total",
    "Requests refused for their framing or size.",
    &["kind"],
    100,
);
static REJECTED: CounterFamily = CounterFamily::new(
    "portico_gateway_rejected_total",
    "Requests answered by the gateway itself with an error.",
    &["reason"],
    60,
);
static LIMITED: CounterFamily = CounterFamily::new(
    "portico_gateway_limited_total",
    "Requests refused by a limit.",
    &["dimension"],
    20,
);
static RETRIES: CounterFamily = CounterFamily::new(
    "portico_gateway_retries_total",
    "Further attempts at instances.",
    &["service", "result"],
    404,
);
static EXHAUSTED: CounterFamily = CounterFamily::new(
    "portico_gateway_retry_budget_exhausted_total",
    "Retries that were not made because the service's budget was used up.",
    &[],
    1,
);
static EJECTIONS: CounterFamily = CounterFamily::new(
    "portico_gateway_ejections_total",
    "Times that an instance's breaker opened.",
    &["service"],
    202,
);
static BREAKER: GaugeFamily = GaugeFamily::new(
    "portico_gateway_breaker_state",
    "Breaker of a service: 0 closed, 1 half open, 2 open.",
    &["service"],
    202,
);
static PANIC: GaugeFamily = GaugeFamily::new(
    "portico_gateway_panic_mode",
    "1 while more than half of a service's instances are ejected, so that all are used.",
    &["service"],
    202,
);
static CACHE: CounterFamily = CounterFamily::new(
    "portico_gateway_cache_requests_total",
    "Requests by how they met the cache.",
    &["route", "level", "result"],
    1_000,
);
static STALE: CounterFamily = CounterFamily::new(
    "portico_gateway_stale_served_total",
    "Answers served stale.",
    &[],
    1,
);
static BUILD: HistogramFamily = HistogramFamily::seconds(
    "portico_gateway_snapshot_build_seconds",
    "Time to build a route table.",
    &[],
    1,
);
static SEQ: GaugeFamily = GaugeFamily::new(
    "portico_gateway_snapshot_seq",
    "Position of the directory in the route table.",
    &[],
    1,
);
static AGE: GaugeFamily = GaugeFamily::new(
    "portico_gateway_snapshot_age_seconds",
    "Age of the route table.",
    &[],
    1,
);

/// All families of the pipeline.
#[derive(Clone)]
pub struct Families {
    requests: CounterVec,
    seconds: HistogramVec,
    upstream: HistogramVec,
    in_flight: GaugeVec,
    bytes: CounterVec,
    pub protocol: CounterVec,
    pub rejected: CounterVec,
    pub limited: CounterVec,
    pub retries: CounterVec,
    pub exhausted: Counter,
    pub ejections: CounterVec,
    pub cache: CounterVec,
    pub stale: Counter,
    pub build: HistogramVec,
    /// The same by service and route for the map of the house.
    pub flows: Arc<Flows>,
}

impl Families {
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        TableFigures::declare(registry);
        Self {
            requests: registry.counter(&REQUESTS),
            seconds: registry.histogram(&SECONDS),
            upstream: registry.histogram(&UPSTREAM),
            in_flight: registry.gauge(&IN_FLIGHT),
            bytes: registry.counter(&BYTES),
            protocol: registry.counter(&PROTOCOL),
            rejected: registry.counter(&REJECTED),
            limited: registry.counter(&LIMITED),
            retries: registry.counter(&RETRIES),
            exhausted: registry.counter(&EXHAUSTED).with(&[]),
            ejections: registry.counter(&EJECTIONS),
            cache: registry.counter(&CACHE),
            stale: registry.counter(&STALE).with(&[]),
            build: registry.histogram(&BUILD),
            flows: Arc::default(),
        }
    }
}

/// What flows through each pair of service and route, over all workers.
#[derive(Debug, Default)]
pub struct Flows(Mutex<BTreeMap<Passage, Arc<Flow>>>);

/// A way through the gateway.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Passage {
    /// Name of the service; `none` without one, `other` for those beyond the bound.
    pub service: Arc<str>,
    pub route: Arc<str>,
}

impl Flows {
    /// The flow of a pair; as many as there are labels, which are bounded.
    fn of(&self, service: &str, route: &str) -> Arc<Flow> {
        let passage = Passage {
            service: service.into(),
            route: route.into(),
        };
        Arc::clone(self.0.lock().entry(passage).or_default())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(Passage, Arc<Flow>)> {
        let flows = self.0.lock();
        flows
            .iter()
            .map(|(passage, flow)| (passage.clone(), Arc::clone(flow)))
            .collect()
    }
}

/// Names of services with series of their own; the rest is one.
const NAMES: usize = 200;

/// What is read from the table at each scrape.
pub(super) struct TableFigures<'t> {
    pub(super) table: &'t Table,
    pub(super) now_ms: u64,
}

impl TableFigures<'_> {
    /// Declares them, for the documentation.
    pub(super) fn declare(registry: &Registry) {
        registry.declare(&[SEQ.family(), AGE.family(), BREAKER.family(), PANIC.family()]);
    }

    pub(super) fn add_to(&self, samples: &mut Samples) {
        let (table, now_ms) = (self.table, self.now_ms);
        samples.gauge(&SEQ, &[], table.seq as f64);
        let age = now_ms.saturating_sub(table.built_ms) as f64 / 1e3;
        samples.gauge(&AGE, &[], age);
        let mut names: Vec<_> = table
            .services()
            .filter(|(_, named)| !named.builtin)
            .collect();
        names.sort_by_key(|(name, _)| Arc::clone(name));
        // Beyond the bound the worst of them stands for all.
        let mut rest: Option<(f64, f64)> = None;
        for (at, (name, named)) in names.into_iter().enumerate() {
            let standing = |node: &ServiceNode| (phase(node, now_ms), panics(node, now_ms));
            let worst = named
                .all()
                .map(|node| standing(node))
                .fold((0.0, 0.0), worse);
            if at >= NAMES {
                rest = Some(worse(rest.unwrap_or_default(), worst));
                continue;
            }
            samples.gauge(&BREAKER, &[name], worst.0);
            samples.gauge(&PANIC, &[name], worst.1);
        }
        if let Some((breaker, panic)) = rest {
            samples.gauge(&BREAKER, &[OTHER], breaker);
            samples.gauge(&PANIC, &[OTHER], panic);
        }
    }
}

fn worse(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    (f64::max(a.0, b.0), f64::max(a.1, b.1))
}

fn phase(node: &ServiceNode, now_ms: u64) -> f64 {
    match node.state.breaker.seen(now_ms) {
        Phase::Closed => 0.0,
        Phase::HalfOpen => 1.0,
        Phase::Open => 2.0,
    }
}

fn panics(node: &ServiceNode, now_ms: u64) -> f64 {
    let panics = |v: &VersionNode| !v.pool.is_empty() && v.pool.panics(now_ms);
    f64::from(u8::from(node.versions.iter().any(panics)))
}

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The handles of one pair of service and route on one worker.
pub struct Meter {
    families: Families,
    service: Box<str>,
    route: Box<str>,
    requests: RefCell<[[Option<LocalCounter>; CLASSES.len()]; METHODS.len() + 1]>,
    met: RefCell<Vec<Met>>,
    flow: Arc<Flow>,
    pub seconds: Clocked,
    pub upstream: LocalHistogram,
    pub in_flight: LocalGauge,
    pub bytes_in: LocalCounter,
    pub bytes_out: LocalCounter,
}

/// How requests met the cache, in one way.
struct Met {
    level: Box<str>,
    result: Box<str>,
    times: LocalCounter,
}

/// A histogram whose observations are in the flow too.
pub struct Clocked {
    seconds: LocalHistogram,
    flow: Arc<Flow>,
}

impl Clocked {
    /// Observes a duration.
    pub fn observe(&self, took: Duration) {
        self.seconds.observe(took);
        self.note(took);
    }

    /// Observes a duration and remembers the trace in which it was.
    pub fn observe_traced(&self, took: Duration, trace_id: impl Into<[u8; 16]>, at_ms: i64) {
        self.seconds.observe_traced(took, trace_id, at_ms);
        self.note(took);
    }

    fn note(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.flow.time(micros);
    }
}

impl Meter {
    fn new(families: &Families, service: &str, route: &str) -> Self {
        let label = if service.is_empty() { "none" } else { service };
        let flow = families.flows.of(label, route);
        Self {
            seconds: Clocked {
                seconds: families.seconds.with(&[label, route]).local(),
                flow: Arc::clone(&flow),
            },
            flow,
            met: RefCell::default(),
            upstream: families.upstream.with(&[label]).local(),
            in_flight: families.in_flight.with(&[label]).local(),
            bytes_in: families.bytes.with(&["in", label]).local(),
            bytes_out: families.bytes.with(&["out", label]).local(),
            families: families.clone(),
            service: label.into(),
            route: route.into(),
            requests: RefCell::default(),
        }
    }

    /// Counts a request.
    pub fn count(&self, method: &Method, status: StatusCode) {
        let row = METHODS
            .iter()
            .position(|m| m == method)
            .unwrap_or(METHODS.len());
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.flow.count(match class {
            4 => Ended::Failed,
            3 => Ended::Refused,
            _ => Ended::Well,
        });
        let mut cells = self.requests.borrow_mut();
        let cell = cells[row][class].get_or_insert_with(|| {
            let method = METHODS.get(row).map_or(OTHER, Method::as_str);
            self.families
                .requests
                .with(&[&self.service, &self.route, method, CLASSES[class]])
                .local()
        });
        cell.inc();
    }

    /// How a request met the cache.
    pub fn cache(&self, level: &str, result: &str) {
        let mut met = self.met.borrow_mut();
        // A dozen pairs at most, of a few letters: looking through them is cheaper than a lock.
        let known = met
            .iter()
            .position(|m| *m.level == *level && *m.result == *result);
        let at = known.unwrap_or_else(|| {
            met.push(Met {
                level: level.into(),
                result: result.into(),
                times: self
                    .families
                    .cache
                    .with(&[&self.route, level, result])
                    .local(),
            });
            met.len() - 1
        });
        met[at].times.inc();
    }
}

/// All meters of one worker, by the label of the plan.
pub struct Meters {
    pub families: Families,
    by_label: RefCell<Vec<Option<Rc<Meter>>>>,
    nowhere: Rc<Meter>,
}

impl Meters {
    #[must_use]
    pub fn new(families: Families) -> Self {
        let nowhere = Rc::new(Meter::new(&families, "none", "none"));
        Self {
            families,
            by_label: RefCell::default(),
            nowhere,
        }
    }

    /// The meter of a plan; requests that never found one share another.
    pub fn of(&self, plan: Option<&Plan>) -> Rc<Meter> {
        let Some(plan) = plan else {
            return Rc::clone(&self.nowhere);
        };
        let at = plan.label as usize;
        let mut all = self.by_label.borrow_mut();
        if all.len() <= at {
            all.resize_with(at + 1, || None);
        }
        let meter = all[at].get_or_insert_with(|| {
            let (service, route) = if at == 0 {
                self.families.requests.overflowed();
                (OTHER, OTHER)
            } else {
                (&*plan.service, &*plan.route)
            };
            Rc::new(Meter::new(&self.families, service, route))
        });
        Rc::clone(meter)
    }
}
