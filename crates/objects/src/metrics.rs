//! Figures of the object store (OB-2).

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, Family, HistogramFamily, HistogramVec, Registry,
};

use crate::error::ObjectError;

static REQUESTS: CounterFamily = CounterFamily::new(
    "portico_objects_requests_total",
    "operations on objects, by operation and result",
    &["op", "result"],
    40,
);
static SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_objects_seconds",
    "time of an operation on objects; a put until it is durable, a get until its first byte can be read",
    &["op"],
    5,
);
static BYTES: CounterFamily = CounterFamily::new(
    "portico_objects_bytes_total",
    "bytes of objects that were stored (in) and read (out)",
    &["direction"],
    2,
);

pub(crate) static FAMILIES: [&Family; 3] = [REQUESTS.family(), SECONDS.family(), BYTES.family()];

/// Kept handles.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: CounterVec,
    seconds: HistogramVec,
    stored: Counter,
    read: Counter,
    trouble: Arc<Mutex<Option<&'static str>>>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let bytes = registry.counter(&BYTES);
        Self {
            requests: registry.counter(&REQUESTS),
            seconds: registry.histogram(&SECONDS),
            stored: bytes.with(&["in"]),
            read: bytes.with(&["out"]),
            trouble: Arc::default(),
        }
    }

    /// Counts an operation and passes its result on.
    pub(crate) fn ended<T>(
        &self,
        op: &'static str,
        began: Instant,
        result: Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        match &result {
            Ok(_) => {
                *self.trouble.lock() = None;
                self.count(op, began, "ok");
            }
            Err(error) => self.failed(op, began, error),
        }
        result
    }

    pub(crate) fn failed(&self, op: &'static str, began: Instant, error: &ObjectError) {
        match error {
            ObjectError::Full(_) => *self.trouble.lock() = Some("the object store is full"),
            ObjectError::Refused(_) => {
                *self.trouble.lock() = Some("the object store refuses access")
            }
            ObjectError::Unavailable(_) => {
                *self.trouble.lock() = Some("the object store cannot be used");
            }
            ObjectError::NotFound
            | ObjectError::Invalid(_)
            | ObjectError::Range(_)
            | ObjectError::Source(_) => {}
        }
        self.count(op, began, error.label());
    }

    pub(crate) fn trouble(&self) -> Option<&'static str> {
        *self.trouble.lock()
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.stored.add(bytes);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.read.add(bytes as u64);
    }

    fn count(&self, op: &'static str, began: Instant, result: &str) {
        self.requests.with(&[op, result]).inc();
        self.seconds.with(&[op]).observe(began.elapsed());
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
