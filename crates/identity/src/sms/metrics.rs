//! Figures of messages and codes (§9 of the specification).

use std::sync::{Arc, Weak};

use portico_base::id::TENANT_SYSTEM;
use portico_contract::settings::Settings;
use portico_sms::{Attempt, Breakers};
use portico_telemetry::metrics::{
    CounterFamily, CounterVec, GaugeFamily, HistogramFamily, HistogramVec, Registry, Samples,
};

use super::{KNOWN, accounts};

/// Providers by countries that are seen at most; more are `other` to the registry.
const SERIES: usize = 400;

static SENT: CounterFamily = CounterFamily::new(
    "portico_identity_otp_sent_total",
    "codes that a provider took, or perhaps took",
    &["provider", "country"],
    SERIES,
);
static VERIFIED: CounterFamily = CounterFamily::new(
    "portico_identity_otp_verified_total",
    "codes that came back",
    &["provider", "country"],
    SERIES,
);
static FAILED: CounterFamily = CounterFamily::new(
    "portico_identity_otp_failed_total",
    "codes that nobody took, and tries that were wrong",
    &["provider", "country"],
    SERIES,
);
static STATE: GaugeFamily = GaugeFamily::new(
    "portico_identity_sms_provider_state",
    "state of a provider of the installation: 0 works, 1 breaker open, 2 misconfigured, 3 not set up",
    &["provider"],
    KNOWN.len(),
);
static SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_identity_sms_attempt_seconds",
    "time that a provider took to answer",
    &["provider", "class"],
    24,
);
static COST: CounterFamily = CounterFamily::new(
    "portico_identity_sms_cost_micro_total",
    "price of messages in millionths of the accounts' currency",
    &["provider"],
    KNOWN.len(),
);

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        SENT.family(),
        VERIFIED.family(),
        FAILED.family(),
        STATE.family(),
        SECONDS.family(),
        COST.family(),
    ]);
}

/// Kept handles.
pub(crate) struct Metrics {
    sent: CounterVec,
    verified: CounterVec,
    failed: CounterVec,
    seconds: HistogramVec,
    cost: CounterVec,
}

impl Metrics {
    pub(super) fn new(
        registry: &Registry,
        settings: &Settings,
        breakers: &Arc<Breakers>,
        dev: bool,
    ) -> Self {
        registry.declare(&[STATE.family()]);
        let (settings, breakers) = (settings.clone(), Arc::downgrade(breakers));
        registry.collect_with(move |samples| collect(samples, &settings, &breakers, dev));
        Self {
            sent: registry.counter(&SENT),
            verified: registry.counter(&VERIFIED),
            failed: registry.counter(&FAILED),
            seconds: registry.histogram(&SECONDS),
            cost: registry.counter(&COST),
        }
    }

    /// A provider answered.
    pub(crate) fn attempt(&self, attempt: &Attempt) {
        let class = attempt.verdict.class.as_str();
        let seconds = self.seconds.with(&[attempt.provider, class]);
        seconds.observe(attempt.latency);
        let cost = u64::try_from(attempt.cost_micro).unwrap_or(0);
        self.cost.with(&[attempt.provider]).add(cost);
    }

    /// A code is on its way.
    pub(crate) fn sent(&self, provider: &str, country: &str) {
        self.sent.with(&[provider, country]).inc();
    }

    /// A code came back.
    pub(crate) fn verified(&self, provider: &str, country: &str) {
        self.verified.with(&[provider, country]).inc();
    }

    /// A code was not sent, or a wrong one was shown.
    pub(crate) fn failed(&self, provider: &str, country: &str) {
        self.failed.with(&[provider, country]).inc();
    }
}

fn collect(samples: &mut Samples, settings: &Settings, breakers: &Weak<Breakers>, dev: bool) {
    let Some(breakers) = breakers.upgrade() else {
        return;
    };
    for account in accounts::of(settings, TENANT_SYSTEM, dev) {
        let Some(name) = KNOWN.into_iter().find(|name| *name == account.name) else {
            continue;
        };
        let state = match &account.link {
            Err(_) => 3.0,
            Ok(link) => {
                let state = breakers.state(&*link.provider);
                match (state.misconfigured_since, state.open_until) {
                    (Some(_), _) => 2.0,
                    (None, Some(_)) => 1.0,
                    (None, None) => 0.0,
                }
            }
        };
        samples.gauge(&STATE, &[name], state);
    }
}
