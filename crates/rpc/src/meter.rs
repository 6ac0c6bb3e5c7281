//! Metrics of gRPC servers.

use std::time::Duration;

use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, Family, Gauge, GaugeFamily, GaugeVec, HistogramFamily,
    HistogramVec, Registry,
};
use tonic::Code;

static REQUESTS: CounterFamily = CounterFamily::new(
    "portico_rpc_requests_total",
    "gRPC calls by service, method and code.",
    &["service", "method", "code"],
    600,
);
static SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_rpc_seconds",
    "Times of gRPC calls until their end, streams included.",
    &["service", "method"],
    100,
);
static IN_FLIGHT: GaugeFamily = GaugeFamily::new(
    "portico_rpc_in_flight",
    "gRPC calls under way.",
    &["service"],
    32,
);
static CONNECTIONS: GaugeFamily = GaugeFamily::new(
    "portico_rpc_connections",
    "Open connections of gRPC clients.",
    &[],
    1,
);
static PANICS: CounterFamily = CounterFamily::new(
    "portico_rpc_panics_total",
    "gRPC calls that panicked.",
    &[],
    1,
);

/// All families, for the documentation.
pub static FAMILIES: [&Family; 5] = [
    REQUESTS.family(),
    SECONDS.family(),
    IN_FLIGHT.family(),
    CONNECTIONS.family(),
    PANICS.family(),
];

pub(crate) struct Meter {
    requests: CounterVec,
    seconds: HistogramVec,
    in_flight: GaugeVec,
    pub(crate) connections: Gauge,
    pub(crate) panics: Counter,
}

impl Meter {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counter(&REQUESTS),
            seconds: registry.histogram(&SECONDS),
            in_flight: registry.gauge(&IN_FLIGHT),
            connections: registry.gauge(&CONNECTIONS).with(&[]),
            panics: registry.counter(&PANICS).with(&[]),
        }
    }

    /// A call begins; it has begun until [`Meter::ended`].
    pub(crate) fn began(&self, service: &str) {
        self.in_flight.with(&[service]).add(1.0);
    }

    pub(crate) fn ended(&self, service: &str, method: &str, code: Code, took: Duration) {
        self.in_flight.with(&[service]).add(-1.0);
        self.requests.with(&[service, method, word(code)]).inc();
        self.seconds.with(&[service, method]).observe(took);
    }
}

/// The code as the specification writes it.
pub(crate) const fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
