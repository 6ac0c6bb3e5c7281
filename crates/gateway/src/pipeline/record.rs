//! The end of a request: metrics, the access record, the span, and what it held while it was under way.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use portico_telemetry::access::AccessRecord;
use portico_telemetry::trace::{Decision, Span, SpanId, SpanKind, SpanStatus, TraceContext};
use smallvec::SmallVec;

use super::client::Client;
use super::door::Door;
use super::metrics::Meter;
use super::refusal::client_gone;
use crate::balance::Attempted;
use crate::body::ReqBody;
use crate::identify::{BadCredential, Identity};
use crate::limit::{Seat, Tightest};
use crate::route::host::HostKind;
use crate::route::plan::Plan;
use crate::route::service::InstanceNode;
use crate::serve::{End, Outcome, Protocol};

/// Everything that is known of a request when it is over.
pub struct Log {
    pub(super) begun: Instant,
    pub(super) begun_us: i64,
    pub(super) request_id: HeaderValue,
    pub(super) client: Client,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: Option<HeaderValue>,
    pub(super) agent: Option<HeaderValue>,
    pub(super) protocol: Protocol,
    pub(super) plan: Option<Arc<Plan>>,
    pub(super) identity: Option<Rc<Identity>>,
    pub(super) trace: Trace,
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) cache: &'static str,
    pub(super) tightest: Option<Tightest>,
    pub(super) seats: SmallVec<[Seat; 2]>,
    pub(super) facts: Facts,
    /// The normalised path, where it is not the one that came.
    pub(super) path: Option<Box<str>>,
    /// What the host is for, once it was looked at.
    pub(super) kind: Option<HostKind>,
    /// The answer is a stranger's: fetched now, or kept from before.
    pub(super) foreign: bool,
    /// It came by the listener between services, whose callers are known and few: the limits for everybody
    /// are not for them.
    pub(super) between: bool,
    /// Why the credential that came counts for nothing: told where somebody is needed.
    pub(super) doubt: Option<BadCredential>,
}

impl Log {
    /// The path on which everybody agrees.
    pub(super) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.uri.path())
    }
}

/// What forwarding found out.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) attempts: u8,
    pub(super) upstream: Option<Duration>,
    /// When the last attempt ended.
    pub(super) ended: Option<Instant>,
    pub(super) version: Option<Arc<str>>,
    pub(super) flight: Option<Flight>,
}

/// The request's place in a trace.
pub(super) struct Trace {
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanId>,
    pub(super) decision: Decision,
}

/// A request under way at an instance; counted as load until it is dropped.
pub(super) struct Flight {
    pub(super) node: Arc<InstanceNode>,
    meter: Rc<Meter>,
    trial: bool,
    told: bool,
}

impl Flight {
    pub(super) fn begin(node: &Arc<InstanceNode>, meter: &Rc<Meter>, trial: bool) -> Self {
        node.load.begin();
        meter.in_flight.add(1);
        Self {
            node: Arc::clone(node),
            meter: Rc::clone(meter),
            trial,
            told: false,
        }
    }

    /// True when its outcome decides about a half-open breaker; asked once.
    pub(super) fn tell(&mut self) -> bool {
        self.told = true;
        self.trial
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.node.load.end();
        self.meter.in_flight.add(-1);
        if !self.told {
            let settings = crate::balance::BreakerSettings::default();
            self.node
                .load
                .tell(0, Attempted::Nothing, self.trial, &settings, 0.0);
        }
    }
}

/// Records a request whose client left before there was an answer.
pub(super) struct Pending {
    door: Rc<Door>,
    log: Option<Box<Log>>,
}

impl Pending {
    pub(super) fn new(door: &Rc<Door>, log: Box<Log>) -> Self {
        Self {
            door: Rc::clone(door),
            log: Some(log),
        }
    }

    pub(super) fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the log is taken only at the end")
    }

    pub(super) fn take(mut self) -> Box<Log> {
        self.log.take().expect("the log is taken only here")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mut log) = self.log.take() {
            log.status = client_gone();
            log.code = "gateway.client_gone";
            let end = End {
                outcome: Outcome::ClientGone,
                sent: 0,
                received: 0,
            };
            self.door.record(&log, &end);
        }
    }
}

/// Reads what the record needs before the request goes on its way.
pub(super) fn begin(
    request: &Request<ReqBody>,
    client: Client,
    request_id: HeaderValue,
    now: (Instant, i64),
    protocol: Protocol,
    trace: Trace,
) -> Box<Log> {
    Box::new(Log {
        begun: now.0,
        begun_us: now.1,
        request_id,
        client,
        method: request.method().clone(),
        uri: request.uri().clone(),
        host: request.headers().get(header::HOST).cloned(),
        agent: request.headers().get(header::USER_AGENT).cloned(),
        protocol,
        plan: None,
        identity: None,
        trace,
        status: StatusCode::INTERNAL_SERVER_ERROR,
        code: "",
        cache: "",
        tightest: None,
        seats: SmallVec::new(),
        facts: Facts::default(),
        path: None,
        kind: None,
        foreign: false,
        doubt: None,
        between: false,
    })
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|v| v.to_str().ok()).unwrap_or("")
}

impl Door {
    /// Counts and writes down a request that is over.
    pub(super) fn record(&self, log: &Log, end: &End) {
        let took = log.begun.elapsed();
        let status = match end.outcome {
            Outcome::ClientGone if log.status.is_success() || log.status.is_redirection() => {
                client_gone()
            }
            _ => log.status,
        };
        let meter = self.meters.of(log.plan.as_deref());
        meter.count(&log.method, status);
        if self.gate.tracer.is_enabled() && log.trace.decision.sampled() {
            let at_ms = (log.begun_us + micros(took)) / 1_000;
            meter
                .seconds
                .observe_traced(took, log.trace.context.trace_id, at_ms);
        } else {
            meter.seconds.observe(took);
        }
        meter.bytes_in.add(end.received);
        meter.bytes_out.add(end.sent);
        if let Some(upstream) = log.facts.upstream {
            meter.upstream.observe(upstream);
        }
        self.access(log, end, status, took);
        self.span(log, status, took);
    }

    fn access(&self, log: &Log, end: &End, status: StatusCode, took: Duration) {
        let mut writer = self.access.borrow_mut();
        let Some(writer) = writer.as_mut() else {
            return;
        };
        let principal = log.identity.as_ref().map(|i| &i.principal);
        let instance = log.facts.flight.as_ref().map(|f| &f.node);
        writer.record(&AccessRecord {
            at_us: log.begun_us + micros(took),
            request_id: text(Some(&log.request_id)),
            client: Some(log.client.address),
            method: log.method.as_str(),
            host: text(log.host.as_ref()),
            path: log.uri.path(),
            query: log.uri.query().unwrap_or(""),
            protocol: match log.protocol {
                Protocol::Http1 => "http/1.1",
                Protocol::Http2 => "h2",
            },
            route: log.plan.as_ref().map_or("", |p| &p.route),
            service: log.plan.as_ref().map_or("", |p| &p.service),
            version: log.facts.version.as_deref().unwrap_or(""),
            instance: instance.map_or("", |i| &i.id_text),
            status: status.as_u16(),
            code: log.code,
            bytes_in: end.received,
            bytes_out: end.sent,
            duration: took,
            upstream: log.facts.upstream,
            attempts: log.facts.attempts,
            cache: log.cache,
            principal: principal.map_or("", |p| p.kind.as_str()),
            principal_id: principal.map_or("", |p| &p.subject),
            tenant_id: log
                .identity
                .as_ref()
                .filter(|i| i.principal.is_authenticated())
                .map_or("", |i| &i.tenant_text),
            user_agent: text(log.agent.as_ref()),
            trace_id: Some(log.trace.context.trace_id),
        });
    }

    fn span(&self, log: &Log, status: StatusCode, took: Duration) {
        let failed = status.is_server_error();
        if !self.gate.tracer.is_enabled() || !(log.trace.decision.sampled() || failed) {
            return;
        }
        let context = &log.trace.context;
        let start_ns = u64::try_from(log.begun_us)
            .unwrap_or(0)
            .saturating_mul(1_000);
        let route = log.plan.as_ref().map_or("none", |p| &p.route);
        let service = log.plan.as_ref().map_or("", |p| &p.service);
        let name = format!("{} {route}", log.method);
        let mut span = Span::new(context.trace_id, context.span_id, "gateway", name, start_ns);
        span.parent = log.trace.parent;
        span.state = context.state.clone();
        span.kind = SpanKind::Server;
        span.end_ns = start_ns + u64::try_from(took.as_nanos()).unwrap_or(0);
        if failed {
            span.status = SpanStatus::Error(log.code.into());
        }
        span.set("http.request.method", log.method.to_string());
        span.set("http.route", route.to_owned());
        span.set(
            "url.path",
            portico_telemetry::mask::text(log.uri.path()).into_owned(),
        );
        span.set("http.response.status_code", i64::from(status.as_u16()));
        span.set("client.address", log.client.address.to_string());
        span.set("portico.service", service.to_owned());
        span.set("portico.request_id", text(Some(&log.request_id)).to_owned());
        if !log.cache.is_empty() {
            span.set("portico.cache", log.cache);
        }
        if let Some(flight) = &log.facts.flight {
            span.set("portico.instance", flight.node.id_text.to_string());
        }
        self.gate.tracer.submit(span);
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
