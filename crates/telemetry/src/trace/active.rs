//! Spans around pieces of work within a kept request (OB-11); nothing but a look at a thread-local for the others.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::context::{SpanId, TraceId};
use super::sampler::SamplingHints;
use super::span::{Span, SpanKind, SpanStatus, Value};
use super::tracer::Tracer;
use crate::logs::{LogContext, current, in_scope};

/// A span that is open. It ends, and goes to the exporters, when it is dropped.
#[derive(Debug)]
pub struct OpenSpan {
    open: Option<Box<Open>>,
    /// What holds for work inside; absent: what holds around.
    inside: Option<Arc<LogContext>>,
}

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    span: Span,
    begin: Instant,
    /// When not, only a failure is worth keeping.
    kept: bool,
}

/// Opens a span below the one that is open around this code. Without a kept trace it is nothing: the
/// context of the request says which (its `tracer`).
#[must_use]
pub fn start(scope: &'static str, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> OpenSpan {
    const NOTHING: OpenSpan = OpenSpan {
        open: None,
        inside: None,
    };
    let Some(context) = current() else {
        return NOTHING;
    };
    let (Some(tracer), Some(trace_id)) = (&context.tracer, context.trace_id) else {
        return NOTHING;
    };
    let span_id = SpanId::random(tracer.random());
    let mut span = Span::new(trace_id, span_id, scope, name, now_ns());
    span.parent = context.span_id;
    span.kind = kind;
    let inside = LogContext {
        span_id: Some(span_id),
        ..(*context).clone()
    };
    OpenSpan {
        inside: Some(Arc::new(inside)),
        open: Some(Box::new(Open {
            tracer: tracer.clone(),
            span,
            begin: Instant::now(),
            kept: true,
        })),
    }
}

/// Opens the first span of a new trace, for work that no request asked for: the run of a job. Whether
/// the trace is kept is decided by ratio; a span that fails is kept in any case. `context` is what the
/// lines inside carry; its ids are filled in.
#[must_use]
pub fn root(
    tracer: &Tracer,
    scope: &'static str,
    name: impl Into<Cow<'static, str>>,
    kind: SpanKind,
    mut context: LogContext,
) -> OpenSpan {
    let trace_id = TraceId::random(tracer.random());
    let span_id = SpanId::random(tracer.random());
    let decision = tracer.sampler().decide(trace_id, SamplingHints::default());
    let kept = tracer.is_enabled() && decision.sampled();
    context.trace_id = Some(trace_id);
    context.span_id = Some(span_id);
    context.tracer = kept.then(|| tracer.clone());
    let open = tracer.is_enabled().then(|| {
        let mut span = Span::new(trace_id, span_id, scope, name, now_ns());
        span.kind = kind;
        Box::new(Open {
            tracer: tracer.clone(),
            span,
            begin: Instant::now(),
            kept,
        })
    });
    OpenSpan {
        open,
        inside: Some(Arc::new(context)),
    }
}

impl OpenSpan {
    /// True when somebody may see it, so that dear attributes are worth making.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        self.open.is_some()
    }

    /// Adds an attribute.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(open) = &mut self.open {
            open.span.set(name, value);
        }
    }

    /// Says that the work failed.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.open {
            open.span.fail(why);
        }
    }

    /// Its id, for whoever is told to hang spans of their own below it.
    #[must_use]
    pub fn id(&self) -> Option<SpanId> {
        self.open.as_ref().map(|open| open.span.span_id)
    }

    /// The trace, when it is kept.
    #[must_use]
    pub fn kept_trace(&self) -> Option<TraceId> {
        let inside = self.inside.as_ref()?;
        inside.tracer.as_ref().and(inside.trace_id)
    }

    /// Runs a future inside the span: its own spans and log lines hang below this one.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.inside {
            Some(inside) => in_scope(Arc::clone(inside), work).await,
            None => work.await,
        }
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Open {
            tracer,
            mut span,
            begin,
            kept,
        } = *open;
        if !kept && !matches!(span.status, SpanStatus::Error(_)) {
            return;
        }
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        span.end_ns = span.start_ns.saturating_add(took);
        tracer.submit(span);
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}
