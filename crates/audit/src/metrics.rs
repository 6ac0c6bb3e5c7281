//! Counters and gauges of the audit (§7 of the specification).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use portico_base::Timestamp;
use portico_telemetry::metrics::{Counter, CounterFamily, CounterVec, GaugeFamily, Registry};

static RECORDS: CounterFamily = CounterFamily::new(
    "portico_audit_records_total",
    "audit records written, by the service of the action and how it ended",
    &["action_group", "outcome"],
    90,
);
static SEAL_LAG: GaugeFamily = GaugeFamily::new(
    "portico_audit_seal_lag_seconds",
    "age of the oldest record that is not sealed yet",
    &[],
    1,
);
static PENDING: GaugeFamily = GaugeFamily::new(
    "portico_audit_pending",
    "records that wait to be sealed",
    &[],
    1,
);
static VERIFIED: GaugeFamily = GaugeFamily::new(
    "portico_audit_verify_last_ok_timestamp_seconds",
    "when the chain was last found in order",
    &[],
    1,
);
static FAILURES: CounterFamily = CounterFamily::new(
    "portico_audit_verify_failures_total",
    "verifications that found the chain touched",
    &[],
    1,
);
static FOLDED: CounterFamily = CounterFamily::new(
    "portico_audit_folded_total",
    "failures that were counted together instead of recorded one by one",
    &[],
    1,
);

/// Kept handles.
pub(crate) struct Metrics {
    records: CounterVec,
    pub failures: Counter,
    pub folded: Counter,
    gauges: Arc<Gauges>,
}

/// What the sealer and the verifier saw last.
#[derive(Default)]
struct Gauges {
    pending: AtomicU64,
    /// When the oldest waiting record was written, in microseconds; 0 when none waits.
    oldest_us: AtomicI64,
    /// The last good verification, in seconds; 0 before the first.
    verified_s: AtomicI64,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        registry.declare(&[SEAL_LAG.family(), PENDING.family(), VERIFIED.family()]);
        Self {
            records: registry.counter(&RECORDS),
            failures: registry.counter(&FAILURES).with(&[]),
            folded: registry.counter(&FOLDED).with(&[]),
            gauges: Arc::default(),
        }
    }

    /// Lets every scrape see the gauges; `now_us` tells the time.
    pub(crate) fn observe(
        &self,
        registry: &Registry,
        now_us: impl Fn() -> i64 + Send + Sync + 'static,
    ) {
        let gauges = Arc::clone(&self.gauges);
        registry.collect_with(move |samples| {
            samples.gauge(&PENDING, &[], gauges.pending.load(Relaxed) as f64);
            let oldest = gauges.oldest_us.load(Relaxed);
            let lag = if oldest == 0 { 0 } else { now_us() - oldest };
            samples.gauge(&SEAL_LAG, &[], lag.max(0) as f64 / 1e6);
            let verified = gauges.verified_s.load(Relaxed);
            if verified > 0 {
                samples.gauge(&VERIFIED, &[], verified as f64);
            }
        });
    }

    /// A handle for records of an action.
    pub(crate) fn records(&self, action: &str, outcome: &str) -> Counter {
        let group = action.split('.').next().unwrap_or(action);
        self.records.with(&[group, outcome])
    }

    pub(crate) fn waiting(&self, pending: u64, oldest: Option<Timestamp>) {
        self.gauges.pending.store(pending, Relaxed);
        let oldest = oldest.map_or(0, |at| at.timestamp_micros());
        self.gauges.oldest_us.store(oldest, Relaxed);
    }

    pub(crate) fn verified(&self, at: Timestamp) {
        self.gauges.verified_s.store(at.timestamp(), Relaxed);
    }
}
