//! Figures of settings (§7 of the specification).

use std::sync::{Arc, Weak};

use portico_telemetry::metrics::{
    Counter, CounterFamily, GaugeFamily, Histogram, HistogramFamily, Registry,
};

use crate::hub::Core;

static SEQ: GaugeFamily = GaugeFamily::new(
    "portico_settings_seq",
    "position of the last change that this process has taken over",
    &[],
    1,
);
static APPLY: HistogramFamily = HistogramFamily::seconds(
    "portico_settings_apply_seconds",
    "time from reading changed values to having them in force",
    &[],
    1,
);
static REJECTED: CounterFamily = CounterFamily::new(
    "portico_settings_rejected_total",
    "values that this process did not take over",
    &[],
    1,
);
static WATCHERS: GaugeFamily = GaugeFamily::new(
    "portico_settings_watchers",
    "open watches of settings",
    &[],
    1,
);

/// Kept handles.
pub(crate) struct Metrics {
    pub apply: Histogram,
    pub rejected: Counter,
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        declare(registry);
        Self {
            apply: registry.histogram(&APPLY).with(&[]),
            rejected: registry.counter(&REJECTED).with(&[]),
            registry: registry.clone(),
        }
    }

    /// Lets every scrape read the position.
    pub(crate) fn observe(&self, core: &Arc<Core>) {
        let weak = Arc::downgrade(core);
        self.registry.collect_with(move |samples| {
            if let Some(core) = Weak::upgrade(&weak) {
                samples.gauge(&SEQ, &[], core.live.state().seq as f64);
                samples.gauge(&WATCHERS, &[], core.live.watchers() as f64);
            }
        });
    }
}

/// Declares all metrics.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        SEQ.family(),
        APPLY.family(),
        REJECTED.family(),
        WATCHERS.family(),
    ]);
}
