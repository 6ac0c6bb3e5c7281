//! Metrics: declared families, kept handles, per-worker cells, and the exposition formats of Prometheus and OpenMetrics.
//!
//! Everybody else reaches this crate as `portico_telemetry::metrics`.

mod cell;
mod family;
mod host;
mod process;
mod registry;
mod render;

pub use cell::{
    Counter, Exemplar, Gauge, Histogram, HistogramSnapshot, LocalCounter, LocalGauge,
    LocalHistogram,
};
pub use family::{Buckets, CounterFamily, Family, GaugeFamily, HistogramFamily, Kind};
pub use host::collect_host;
pub use process::{BuildInfo, collect_process};
pub use registry::{CounterVec, GaugeVec, HistogramVec, OTHER, Registry, SERIES_BUDGET, Samples};
pub use render::{Format, documentation};

/// Declares what the collectors of this crate export, for the documentation.
pub fn declare(registry: &Registry) {
    registry.declare(&process::FAMILIES);
    registry.declare(&host::FAMILIES);
}
