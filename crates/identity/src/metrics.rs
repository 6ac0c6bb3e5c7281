//! Figures of logins, refreshes and sessions (§9 of the specification).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use portico_telemetry::metrics::{
    Counter, CounterFamily, CounterVec, GaugeFamily, HistogramFamily, HistogramVec, Registry,
};

static LOGINS: CounterFamily = CounterFamily::new(
    "portico_identity_logins_total",
    "logins, by method and result",
    &["method", "result"],
    100,
);
static LOGIN_SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_identity_login_seconds",
    "time from the proof to the tokens, by method",
    &["method"],
    12,
);
static REFRESHES: CounterFamily = CounterFamily::new(
    "portico_identity_refresh_total",
    "refreshes, by result",
    &["result"],
    20,
);
static EVICTED: CounterFamily = CounterFamily::new(
    "portico_identity_devices_evicted_total",
    "devices that were logged out because another one needed the room",
    &[],
    1,
);
static SESSIONS: GaugeFamily = GaugeFamily::new(
    "portico_identity_sessions_active",
    "sessions that have not ended, counted every ten minutes",
    &[],
    1,
);

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        LOGINS.family(),
        LOGIN_SECONDS.family(),
        REFRESHES.family(),
        EVICTED.family(),
        SESSIONS.family(),
    ]);
}

/// Kept handles.
pub(crate) struct Logins {
    logins: CounterVec,
    seconds: HistogramVec,
    refreshes: CounterVec,
    evicted: Counter,
    active: Arc<AtomicI64>,
}

impl Logins {
    pub(crate) fn new(registry: &Registry) -> Self {
        registry.declare(&[SESSIONS.family()]);
        let active: Arc<AtomicI64> = Arc::new(AtomicI64::new(-1));
        let seen = Arc::clone(&active);
        registry.collect_with(move |samples| {
            let active = seen.load(Relaxed);
            // Nothing is said before the first count, and by replicas that do not count.
            if active >= 0 {
                samples.gauge(&SESSIONS, &[], active as f64);
            }
        });
        Self {
            logins: registry.counter(&LOGINS),
            seconds: registry.histogram(&LOGIN_SECONDS),
            refreshes: registry.counter(&REFRESHES),
            evicted: registry.counter(&EVICTED).with(&[]),
            active,
        }
    }

    /// A login that ended: `ok`, a status, or the code's reason that refused it.
    pub(crate) fn login(&self, method: &str, result: &str) {
        self.logins.with(&[method, result]).inc();
    }

    /// How long it took from the proof to the tokens.
    pub(crate) fn took(&self, method: &str, time: Duration) {
        self.seconds.with(&[method]).observe(time);
    }

    pub(crate) fn refresh(&self, result: &str) {
        self.refreshes.with(&[result]).inc();
    }

    pub(crate) fn evicted(&self, devices: usize) {
        self.evicted.add(devices as u64);
    }

    /// What the count of live sessions gave.
    pub(crate) fn active(&self, sessions: i64) {
        self.active.store(sessions, Relaxed);
    }
}
