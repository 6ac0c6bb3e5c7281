//! Logs, metrics and traces of the process: what OB-1 to OB-34 ask for, without a global registry.
//!
//! Metrics are declared as statics and counted through kept handles of a [`metrics::Registry`]; logs go
//! through `tracing` into one non-blocking writer that masks; the access log has a stream of its own;
//! finished spans go to exporters behind one trait. OpenTelemetry's types do not leave this crate.

pub mod access;
mod json;
pub mod logs;
pub mod mask;
pub mod rolling;
mod runtime;
mod sink;
pub mod trace;

pub use portico_metrics as metrics;
pub use runtime::Runtimes;
pub use sink::Sink;

/// Declares what this crate exports, for the documentation.
pub fn declare_metrics(registry: &metrics::Registry) {
    portico_metrics::declare(registry);
    registry.declare(&logs::FAMILIES);
    registry.declare(&access::FAMILIES);
    registry.declare(&trace::FAMILIES);
    registry.declare(&runtime::FAMILIES);
}
