//! What the lines and spans of a request carry while it is worked on (OB-11, OB-12, OB-30).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use portico_base::{Permission, Principal};
use portico_telemetry::logs::LogContext;
use portico_telemetry::trace::{self, Baggage, Decision, OpenSpan, SpanKind, TraceContext};

use super::door::Door;
use super::forward::Trip;
use super::record::Log;
use crate::body::ReqBody;
use crate::route::service::InstanceNode;

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACE: HeaderName = HeaderName::from_static("x-portico-trace");

/// Whoever may look at traces may ask for one.
const READ_TRACES: Permission = Permission::new("control:trace:read");

impl Door {
    /// Keeps the trace of a request whose sender asks for it and may.
    pub(super) fn force_trace(&self, headers: &HeaderMap, principal: &Principal, log: &mut Log) {
        if !self.gate.tracer.is_enabled() || log.trace.decision.sampled() {
            return;
        }
        let asked = headers.get(TRACE).is_some_and(|v| v.as_bytes() == b"1");
        if asked && principal.may(&READ_TRACES) {
            log.trace.decision = Decision::Keep;
            log.trace.context.sampled = true;
        }
    }

    /// The context of a request to a built-in service, whose lines all name it.
    pub(super) fn context(&self, log: &Log, service: &str) -> Arc<LogContext> {
        let trace = &log.trace;
        let identity = log.identity.as_ref();
        let known = identity.filter(|i| i.principal.is_authenticated());
        Arc::new(LogContext {
            request_id: log.request_id.to_str().ok().map(Arc::from),
            trace_id: Some(trace.context.trace_id),
            span_id: Some(trace.context.span_id),
            tenant_id: known.map(|i| Arc::from(&*i.tenant_text)),
            user_id: known.map(|i| Arc::clone(&i.principal.subject)),
            service: Some(Arc::from(service)),
            tracer: self.is_kept(log).then(|| self.gate.tracer.clone()),
            tail: None,
        })
    }

    /// The same for a request that is forwarded: most leave no span, and need none.
    pub(super) fn kept_context(&self, log: &Log, service: &str) -> Option<Arc<LogContext>> {
        self.is_kept(log).then(|| self.context(log, service))
    }

    fn is_kept(&self, log: &Log) -> bool {
        self.gate.tracer.is_enabled() && log.trace.decision.sampled()
    }
}

/// Lets only the listed keys of `baggage` pass (OB-10): it is free text of strangers otherwise.
pub(super) fn filter_baggage(headers: &mut HeaderMap, allowed: &[String]) {
    if !headers.contains_key(BAGGAGE) {
        return;
    }
    let lines = headers.get_all(BAGGAGE).iter().map(HeaderValue::as_bytes);
    let kept = Baggage::parse(lines, allowed).header();
    match kept.and_then(|text| HeaderValue::from_str(&text).ok()) {
        Some(value) => {
            headers.insert(BAGGAGE, value);
        }
        None => {
            headers.remove(BAGGAGE);
        }
    }
}

/// The span of one attempt at an instance; what the instance does hangs below it.
pub(super) fn attempt(
    trip: &Trip,
    node: &InstanceNode,
    number: u8,
    request: &mut Request<ReqBody>,
) -> OpenSpan {
    let mut span = trace::start("gateway", "attempt", SpanKind::Client);
    if let Some(id) = span.id() {
        span.set("http.request.method", request.method().to_string());
        span.set("portico.service", Arc::clone(&trip.node.service.key.name));
        span.set("portico.instance", node.id_text.to_string());
        span.set("portico.attempt", u32::from(number));
        let below = TraceContext {
            span_id: id,
            ..trip.trace.clone()
        };
        below.inject(request.headers_mut());
    }
    span
}

/// The span of a look-up in the cache: in this process, or with whoever fetches the same, or in the shared tier.
pub(super) fn look_up() -> OpenSpan {
    trace::start("gateway", "cache look-up", SpanKind::Internal)
}

/// The span of a call of a built-in service.
pub(super) fn operation(service: &str, request: &Request<ReqBody>) -> OpenSpan {
    let mut span = trace::start("gateway", "built-in", SpanKind::Internal);
    if span.is_recorded() {
        span.set("portico.service", service.to_owned());
        span.set("http.request.method", request.method().to_string());
        span.set("url.path", request.uri().path().to_owned());
    }
    span
}
