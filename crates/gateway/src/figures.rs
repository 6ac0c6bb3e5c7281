//! Figures of the workers as metrics: read from their own counters at each scrape.

use portico_telemetry::metrics::{CounterFamily, GaugeFamily, Registry};

use crate::surface::DoorControl;

static CONNECTIONS: GaugeFamily = GaugeFamily::new(
    "portico_gateway_connections",
    "Open connections of clients; a tunnel is one that was switched to another protocol.",
    &["proto"],
    2,
);
static REFUSED: CounterFamily = CounterFamily::new(
    "portico_gateway_connections_refused_total",
    "Connections of clients refused by a limit.",
    &[],
    1,
);
static REUSE: CounterFamily = CounterFamily::new(
    "portico_gateway_pool_reuse_failures_total",
    "Requests sent again because a pooled connection to an instance was dead.",
    &[],
    1,
);

/// Declares what [`export`] exports, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[CONNECTIONS.family(), REFUSED.family(), REUSE.family()]);
}

/// Adds the figures to every scrape; nothing until the workers run.
pub(crate) fn export(registry: &Registry, control: DoorControl) {
    declare(registry);
    registry.collect_with(move |samples| {
        let Some(totals) = control.get().map(crate::serve::Control::totals) else {
            return;
        };
        let http = totals.open.saturating_sub(totals.tunnels);
        samples.gauge(&CONNECTIONS, &["http"], http as f64);
        samples.gauge(&CONNECTIONS, &["tunnel"], totals.tunnels as f64);
        samples.counter(&REFUSED, &[], totals.refused as f64);
        samples.counter(&REUSE, &[], totals.upstream_reconnects as f64);
    });
}
