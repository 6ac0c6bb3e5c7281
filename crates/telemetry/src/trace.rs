//! Traces: W3C context in and out, sampling, light span records, and exporters behind one interface.

mod active;
mod baggage;
mod context;
mod otlp;
mod sampler;
mod span;
mod state;
mod tracer;

pub use active::{OpenSpan, root, start};
pub use baggage::Baggage;
pub use context::{SpanId, TraceContext, TraceId};
pub use otlp::{OtlpConfigError, OtlpExporter, OtlpOptions, OtlpProtocol};
pub use sampler::{Decision, Sampler, SamplingHints};
pub use span::{Attribute, Link, Span, SpanKind, SpanStatus, Value};
pub use state::TraceState;
pub(crate) use tracer::FAMILIES;
pub use tracer::{ExportError, SpanExporter, TraceDriver, TraceOptions, Tracer};
