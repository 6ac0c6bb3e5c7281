//! Spans around pieces of work within a kept request (OB-11); nothing but a look at a thread-local for the others.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::context::SpanId;
use super::span::{Span, SpanKind, SpanStatus, Value};
use super::tracer::Tracer;
use crate::logs::{LogContext, current, in_scope};

/// A span that is open. It ends, and goes to the exporters, when it is dropped.
#[derive(Debug)]
pub struct OpenSpan(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    span: Span,
    begin: Instant,
    inside: Arc<LogContext>,
}

/// Opens a span below the one that is open around this code. Without a kept trace it is nothing: the
/// context of the request says which (its `tracer`).
#[must_use]
pub fn start(scope: &'static str, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> OpenSpan {
    let Some(context) = current() else {
        return OpenSpan(None);
    };
    let (Some(tracer), Some(trace_id)) = (&context.tracer, context.trace_id) else {
        return OpenSpan(None);
    };
    let span_id = SpanId::random(tracer.random());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let start_ns = since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
    let mut span = Span::new(trace_id, span_id, scope, name, start_ns);
    span.parent = context.span_id;
    span.kind = kind;
    let inside = LogContext {
        span_id: Some(span_id),
        ..(*context).clone()
    };
    OpenSpan(Some(Box::new(Open {
        tracer: tracer.clone(),
        span,
        begin: Instant::now(),
        inside: Arc::new(inside),
    })))
}

impl OpenSpan {
    /// True when somebody will see it, so that dear attributes are worth making.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.0 {
            open.span.set(name, value);
        }
    }

    /// Says that the work failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.0 {
            open.span.status = SpanStatus::Error(why.into());
        }
    }

    /// Runs a future inside the span: its own spans and log lines hang below this one.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(open) => in_scope(Arc::clone(&open.inside), work).await,
            None => work.await,
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let Open {
                tracer,
                mut span,
                begin,
                ..
            } = *open;
            let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            span.end_ns = span.start_ns.saturating_add(took);
            tracer.submit(span);
        }
    }
}
