//! Figures of the edge: tokens issued and refused, the log, the keys (§9 of the specification).

use std::sync::{Arc, Weak};

use portico_contract::tokens::Denied;
use portico_telemetry::metrics::{CounterFamily, CounterVec, GaugeFamily, Registry, Samples};

use super::Edge;
use crate::store::revocations::Kind;

static ISSUED: CounterFamily = CounterFamily::new(
    "portico_identity_tokens_issued_total",
    "tokens issued, by kind",
    &["kind"],
    10,
);
static CHECKS: CounterFamily = CounterFamily::new(
    "portico_identity_token_checks_total",
    "access tokens verified, and refusals of remembered ones, by result",
    &["result"],
    20,
);
static REVOCATIONS: CounterFamily = CounterFamily::new(
    "portico_identity_revocations_total",
    "revocations that this edge took over, by kind",
    &["kind"],
    10,
);
static LAG: GaugeFamily = GaugeFamily::new(
    "portico_identity_revocation_lag_seconds",
    "time since this edge last read the revocation log",
    &[],
    1,
);
static ENTRIES: GaugeFamily = GaugeFamily::new(
    "portico_identity_revocation_entries",
    "users and sessions whose tokens this edge refuses",
    &[],
    1,
);
static KEY_AGE: GaugeFamily = GaugeFamily::new(
    "portico_identity_key_age_seconds",
    "time since the active signing key began to sign",
    &[],
    1,
);

/// Refusals that are told apart; everything else is `invalid`.
const RESULTS: [Denied; 7] = [
    // Perhaps a foreign issuer's.
    Denied("unknown_key"),
    Denied::EXPIRED,
    Denied::STALE,
    Denied::SESSION_REVOKED,
    Denied::ACCOUNT_DISABLED,
    Denied::TENANT_SUSPENDED,
    Denied::IP_MISMATCH,
];

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        ISSUED.family(),
        CHECKS.family(),
        REVOCATIONS.family(),
        LAG.family(),
        ENTRIES.family(),
        KEY_AGE.family(),
    ]);
}

/// Kept handles.
pub(super) struct Metrics {
    issued: CounterVec,
    checks: CounterVec,
    revocations: CounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        registry.declare(&[LAG.family(), ENTRIES.family(), KEY_AGE.family()]);
        Self {
            issued: registry.counter(&ISSUED),
            checks: registry.counter(&CHECKS),
            revocations: registry.counter(&REVOCATIONS),
        }
    }

    pub(super) fn issued(&self, kind: &'static str) {
        self.issued.with(&[kind]).inc();
    }

    pub(super) fn check(&self, denied: Option<Denied>) {
        let result = match denied {
            None => "ok",
            Some(denied) if RESULTS.contains(&denied) => denied.0,
            Some(_) => "invalid",
        };
        self.checks.with(&[result]).inc();
    }

    pub(super) fn revocation(&self, kind: Kind) {
        self.revocations.with(&[kind.as_str()]).inc();
    }
}

/// Lets every scrape read the edge.
pub(super) fn observe(registry: &Registry, edge: &Arc<Edge>) {
    let weak = Arc::downgrade(edge);
    registry.collect_with(move |samples| collect(&weak, samples));
}

fn collect(edge: &Weak<Edge>, samples: &mut Samples) {
    let Some(edge) = edge.upgrade() else { return };
    samples.gauge(&LAG, &[], edge.lag_us().max(0) as f64 / 1e6);
    samples.gauge(&ENTRIES, &[], edge.marks.len() as f64);
    if let Some(since) = edge.keys.load().active_since() {
        let age = edge.clock.now() - since;
        samples.gauge(&KEY_AGE, &[], age.num_milliseconds().max(0) as f64 / 1e3);
    }
}
