//! Counters and gauges of control; each part declares its own (§7 of the specification).

use portico_telemetry::metrics::Registry;

/// Declares the families of all parts, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[]);
}
