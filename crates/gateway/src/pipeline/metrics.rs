//! What the pipeline counts (§9): families once, handles per worker, labels bounded.

use std::cell::RefCell;
use std::rc::Rc;

use http::{Method, StatusCode};
use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, GaugeFamily, GaugeVec, HistogramFamily, HistogramVec,
    LocalCounter, LocalGauge, LocalHistogram, OTHER, Registry,
};

use crate::route::plan::Plan;

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
static WEIGHT: GaugeFamily = GaugeFamily::new(
    "portico_gateway_release_weight",
    "Percent of a service's traffic that a candidate gets.",
    &["service", "version"],
    200,
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
    pub breaker: GaugeVec,
    pub panic: GaugeVec,
    pub cache: CounterVec,
    pub stale: Counter,
    pub build: HistogramVec,
    pub seq: GaugeVec,
    pub age: GaugeVec,
    pub weight: GaugeVec,
}

impl Families {
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
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
            breaker: registry.gauge(&BREAKER),
            panic: registry.gauge(&PANIC),
            cache: registry.counter(&CACHE),
            stale: registry.counter(&STALE).with(&[]),
            build: registry.histogram(&BUILD),
            seq: registry.gauge(&SEQ),
            age: registry.gauge(&AGE),
            weight: registry.gauge(&WEIGHT),
        }
    }
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
    pub seconds: LocalHistogram,
    pub upstream: LocalHistogram,
    pub in_flight: LocalGauge,
    pub bytes_in: LocalCounter,
    pub bytes_out: LocalCounter,
}

impl Meter {
    fn new(families: &Families, service: &str, route: &str) -> Self {
        let label = if service.is_empty() { "none" } else { service };
        Self {
            seconds: families.seconds.with(&[label, route]).local(),
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
        self.families
            .cache
            .with(&[&self.route, level, result])
            .inc();
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
                (OTHER, OTHER)
            } else {
                (&*plan.service, &*plan.route)
            };
            Rc::new(Meter::new(&self.families, service, route))
        });
        Rc::clone(meter)
    }
}
