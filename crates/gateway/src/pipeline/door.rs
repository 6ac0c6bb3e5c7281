//! The part of the pipeline that lives on one worker: it answers each request by the fixed sequence of steps.

use std::cell::RefCell;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;
use http::header::{self, HeaderName};
use http::{HeaderValue, Request, Response, StatusCode};
use portico_base::Random;
use portico_telemetry::access::AccessWriter;
use portico_telemetry::trace::{SamplingHints, TraceContext};

use super::cached::default_rule;
use super::client::{self, Client};
use super::gate::Gate;
use super::metrics::Meters;
use super::record::{self, Log, Pending, Trace};
use super::refusal::{Refusal, is_grpc};
use super::settings;
use crate::balance::Dice;
use crate::body::{ReqBody, RespBody};
use crate::cache::RulePolicy;
use crate::identify::Identifier;
use crate::limit::Limited;
use crate::objects::doc::Dimension;
use crate::route::host::{HostKind, without_port};
use crate::route::table::Table;
use crate::serve::{ConnInfo, End, Handler, Protocol, Stream, Worker};
use crate::upstream::Upstreams;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Client addresses whose header values are kept.
const ADDRESSES: usize = 1_024;

/// One worker's side of the gate.
pub struct Door {
    pub(super) gate: Arc<Gate>,
    pub(super) worker: Rc<Worker>,
    pub(super) upstreams: Rc<Upstreams>,
    pub(super) identifier: Identifier,
    pub(super) dice: Dice,
    pub(super) meters: Meters,
    pub(super) access: RefCell<Option<AccessWriter>>,
    local: RefCell<Rc<Local>>,
    addresses: RefCell<HashMap<IpAddr, HeaderValue>>,
}

/// The table in use on this worker, with what is derived from it once: cloning it touches no shared counter.
pub(super) struct Local {
    pub(super) table: Arc<Table>,
    pub(super) address: Option<Limited>,
    pub(super) auth: Option<Limited>,
    pub(super) user: Option<Limited>,
    pub(super) user_at_once: Option<Limited>,
    /// The last host that was asked for, and what it is for: the same for most requests of a worker.
    host: RefCell<(Vec<u8>, Option<HostKind>)>,
    /// For paths about which nobody said anything.
    pub(super) default_rule: Arc<RulePolicy>,
}

impl Local {
    fn new(table: Arc<Table>) -> Self {
        let v = &table.values;
        let limit = |name, by, per_s: f64| {
            Limited::per_second(
                name,
                by,
                per_s,
                Some((per_s * 2.0).ceil() as u32),
                v.limits_shared,
            )
        };
        Self {
            address: limit("address", Dimension::Address, v.address_per_s),
            auth: limit("auth", Dimension::Address, v.auth_per_s),
            host: RefCell::default(),
            user: limit("user", Dimension::User, v.user_per_s),
            default_rule: Arc::new(default_rule(v)),
            user_at_once: Limited::at_once("user-concurrent", Dimension::User, v.user_concurrent),
            table,
        }
    }
}

impl Local {
    /// What a host is for; nothing for a stranger's name. `host` is in lower case, with its port.
    pub(super) fn host_kind(&self, host: &str) -> Option<HostKind> {
        let mut last = self.host.borrow_mut();
        if last.0 != host.as_bytes() {
            last.0.clear();
            last.0.extend_from_slice(host.as_bytes());
            last.1 = self.table.hosts.find(without_port(host));
        }
        last.1
    }
}

impl Door {
    /// Builds one worker's side; call it in the data plane's factory.
    #[must_use]
    pub fn new(gate: &Arc<Gate>, worker: &Rc<Worker>) -> Rc<Self> {
        let guard = Arc::clone(&gate.addresses);
        let policy = Arc::new(move |ip: IpAddr| guard.check((ip, 0).into()).is_ok());
        Rc::new(Self {
            upstreams: Upstreams::new(worker, settings::pool_limits(&gate.settings), policy),
            identifier: Identifier::new(
                gate.credentials.clone(),
                gate.entrance.verifier.clone(),
                gate.entrance.tenants.clone(),
            ),
            dice: Dice::new(gate.random.u64()),
            meters: Meters::new(gate.families.clone()),
            access: RefCell::new(
                gate.access
                    .as_ref()
                    .map(portico_telemetry::access::AccessLog::writer),
            ),
            local: RefCell::new(Rc::new(Local::new(gate.table.load_full()))),
            addresses: RefCell::default(),
            worker: Rc::clone(worker),
            gate: Arc::clone(gate),
        })
    }

    /// The newest table; a new one is taken over when it is there.
    pub(super) fn local(&self) -> Rc<Local> {
        let newest = self.gate.table.load();
        let mut local = self.local.borrow_mut();
        if !Arc::ptr_eq(&local.table, &newest) {
            *local = Rc::new(Local::new(Arc::clone(&newest)));
        }
        Rc::clone(&local)
    }

    /// An address as a header value, rendered once.
    pub(super) fn address_value(&self, address: IpAddr) -> HeaderValue {
        let mut known = self.addresses.borrow_mut();
        if let Some(value) = known.get(&address) {
            return value.clone();
        }
        if known.len() >= ADDRESSES {
            known.clear();
        }
        let value = client::address_value(address);
        known.insert(address, value.clone());
        value
    }

    async fn answer(
        self: Rc<Self>,
        request: Request<ReqBody>,
        stream: Rc<Stream>,
    ) -> (Response<RespBody>, Box<Log>) {
        let local = self.local();
        let log = self.begin(&request, &stream.conn);
        let mut pending = Pending::new(&self, log);
        let grpc = is_grpc(request.headers());
        let origin = request.headers().get(header::ORIGIN).cloned();
        let answered = self.way(&local, request, &stream, pending.log()).await;
        let mut log = pending.take();
        let mut response = match answered {
            Ok(response) => response,
            Err(refusal) => self.refuse(&refusal.or_of(log.doubt.take()), &mut log, grpc),
        };
        self.finish_headers(&mut response, &mut log, origin.as_ref());
        log.status = response.status();
        (response, log)
    }

    /// Step one and two: request id and trace context.
    fn begin(&self, request: &Request<ReqBody>, conn: &ConnInfo) -> Box<Log> {
        let headers = request.headers();
        let client = Client::of(conn, headers, &self.gate.trusted.load());
        let now = (Instant::now(), self.gate.clock.now().timestamp_micros());
        let given = if client.proxied {
            client::given_request_id(headers)
        } else {
            None
        };
        let request_id = given.unwrap_or_else(|| self.new_request_id(now.1));
        let trace = self.trace(request, client.proxied);
        record::begin(request, client, request_id, now, conn.protocol, trace)
    }

    /// A UUIDv7 of a moment in Unix microseconds.
    fn new_request_id(&self, now_us: i64) -> HeaderValue {
        let mut tail = [0; 10];
        self.gate.random.fill(&mut tail);
        let ms = u64::try_from(now_us / 1_000).unwrap_or(0);
        let id = uuid::Builder::from_unix_timestamp_millis(ms, &tail).into_uuid();
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut text))
            .expect("an id is visible ASCII")
    }

    fn trace(&self, request: &Request<ReqBody>, trusted: bool) -> Trace {
        let headers = request.headers();
        let bytes = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let parent = if headers.contains_key(TRACEPARENT) {
            TraceContext::extract(bytes(TRACEPARENT), bytes(TRACESTATE))
        } else {
            None
        };
        let random: &dyn Random = &*self.gate.random;
        let mut context = parent
            .as_ref()
            .map_or_else(|| TraceContext::root(random, false), |p| p.child(random));
        let hints = SamplingHints {
            parent: parent.as_ref(),
            trusted,
            forced: false,
        };
        let decision = self.gate.tracer.sampler().decide(context.trace_id, hints);
        context.sampled = decision.sampled();
        Trace {
            context,
            parent: parent.map(|p| p.span_id),
            decision,
        }
    }

    fn refuse(&self, refusal: &Refusal, log: &mut Log, grpc: bool) -> Response<RespBody> {
        log.code = refusal.code;
        self.report_denied(refusal, log);
        let families = &self.meters.families;
        families
            .rejected
            .with(&[refusal.code.trim_start_matches("gateway.")])
            .inc();
        if let Some(refused) = &refusal.limited {
            families.limited.with(&[refused.dimension]).inc();
        }
        refusal.answer(&log.request_id, grpc)
    }
}

impl Handler for Door {
    type Log = Box<Log>;

    fn handle(
        self: &Rc<Self>,
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
    ) -> impl Future<Output = (Response<RespBody>, Self::Log)> {
        Rc::clone(self).answer(request, Rc::clone(stream))
    }

    fn finished(&self, log: Self::Log, end: &End) {
        self.record(&log, end);
    }

    fn refused(&self, conn: &ConnInfo, status: StatusCode, kind: &'static str) -> String {
        self.meters.families.protocol.with(&[kind]).inc();
        let now_us = self.gate.clock.now().timestamp_micros();
        let id = self
            .new_request_id(now_us)
            .to_str()
            .unwrap_or("")
            .to_owned();
        tracing::info!(kind, status = status.as_u16(), client = %conn.peer.ip(), listener = conn.listener, request_id = id, "refused a request for its form");
        if let Some(writer) = self.access.borrow_mut().as_mut() {
            writer.record(&portico_telemetry::access::AccessRecord {
                at_us: now_us,
                request_id: &id,
                client: Some(client::canonical(conn.peer.ip())),
                protocol: if conn.protocol == Protocol::Http1 {
                    "http/1.1"
                } else {
                    "h2"
                },
                status: status.as_u16(),
                code: kind,
                ..portico_telemetry::access::AccessRecord::default()
            });
        }
        id
    }
}
