//! The one chain before every method (GW-104): request id and trace → panic guard → who → may → how much →
//! by when → log and metrics.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::FutureExt as _;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, header};
use portico_base::{
    Access, Caller, Clock, Context, ErrorKind, Fault, Principal, Random, Refusal, authorise, id,
};
use portico_contract::address_rules::{AddressBlocked, AddressRules};
use portico_contract::credentials::Credentials;
use portico_contract::tenants::Tenants;
use portico_contract::tokens::TokenVerifier;
use portico_state::{KeyHasher, Limit, Limiter};
use portico_telemetry::logs::{LogContext, in_scope};
use portico_telemetry::metrics::Registry;
use portico_telemetry::trace::{self, OpenSpan, SpanKind, TraceContext, Tracer};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::call::Call;
use crate::hosts::Hosts;
use crate::identify::{Identifier, Unknown};
use crate::meter::{Meter, word};
use crate::observed::{Ending, Observed, code_of, name_sizes};
use crate::routes::RpcRoutes;
use crate::status::to_status;
use crate::timeout;

/// Time of a call whose client does not say.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest that a client may ask for, but for streams.
const LONGEST: Duration = Duration::from_secs(600);
/// Calls of one caller a second, and at once.
const CALLS: Limit = Limit::new(30_000.0, 30_000);
/// Bad credentials of one address a second, and at once: whoever guesses is slowed down.
const GUESSES: Limit = Limit::new(1.0, 60);
/// Services of the protocol itself, open to everybody who reaches the listener.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// What the chain works with.
#[derive(Clone)]
pub struct ChainOptions {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
    /// Opaque tokens.
    pub credentials: Credentials,
    /// Signed tokens.
    pub verifier: Option<Arc<dyn TokenVerifier>>,
    /// Tenants, to refuse those of suspended ones.
    pub tenants: Option<Arc<dyn Tenants>>,
    /// Names under which the listener may be called.
    pub hosts: Hosts,
    /// Whose addresses are answered at all.
    pub address_rules: Option<Arc<dyn AddressRules>>,
    /// Counts calls.
    pub limiter: Limiter,
    /// Where metrics go.
    pub metrics: Registry,
    /// Where spans go.
    pub tracer: Tracer,
}

pub(crate) struct Chain {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    identifier: Identifier,
    hosts: Hosts,
    address_rules: Option<Arc<dyn AddressRules>>,
    limiter: Limiter,
    keys: KeyHasher,
    begun: Instant,
    pub(crate) meter: Meter,
    tracer: Tracer,
    routes: RpcRoutes,
    /// Cancelled when streams are to end.
    stopping: CancellationToken,
}

/// The peer of a connection, as the server notes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// A refusal of the chain itself.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    kind: ErrorKind,
    code: &'static str,
    text: String,
    wait_s: Option<u32>,
}

impl Refused {
    fn new(kind: ErrorKind, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            kind,
            code,
            text: text.into(),
            wait_s: None,
        }
    }
}

impl Fault for Refused {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn code(&self) -> &'static str {
        self.code
    }

    fn retry_after_s(&self) -> Option<u32> {
        self.wait_s
    }
}

impl Chain {
    pub(crate) fn new(
        options: ChainOptions,
        routes: RpcRoutes,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            meter: Meter::new(&options.metrics),
            keys: KeyHasher::new(0),
            begun: Instant::now(),
            identifier: Identifier {
                credentials: options.credentials,
                verifier: options.verifier,
                tenants: options.tenants,
            },
            hosts: options.hosts,
            address_rules: options.address_rules,
            clock: options.clock,
            random: options.random,
            limiter: options.limiter,
            tracer: options.tracer,
            routes,
            stopping,
        }
    }

    /// Who calls, if they may.
    async fn admit(
        &self,
        headers: &HeaderMap,
        authority: Option<&Authority>,
        peer: Option<IpAddr>,
        path: &str,
    ) -> Result<Principal, Refused> {
        let service = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        let now = self.clock.now().timestamp();
        // No gRPC client sends one: this is a page in a browser that tries (GW-10).
        if headers.contains_key(header::ORIGIN) {
            let text = "pages of other origins may not call this";
            return Err(Refused::new(
                ErrorKind::Forbidden,
                "gateway.origin_not_allowed",
                text,
            ));
        }
        if !self.hosts.admit(authority, headers) {
            let text = "the authority is not one of this installation";
            return Err(Refused::new(
                ErrorKind::Forbidden,
                "gateway.unknown_host",
                text,
            ));
        }
        self.check_address(peer, now, path)?;
        let area = service.split('.').nth(1).unwrap_or_default();
        let found = self.identifier.identify(headers, peer, area, now).await;
        let principal = match found {
            Ok(principal) => principal,
            Err(Unknown::Busy) => {
                let text = "the credential cannot be checked now";
                return Err(Refused::new(
                    ErrorKind::Unavailable,
                    "identity.revocations_stale",
                    text,
                ));
            }
            Err(Unknown::Bad(why)) => {
                let address = peer.map(|ip| ip.to_string()).unwrap_or_default();
                self.count("guess", &address, GUESSES)?;
                let text = "the credential is not good";
                return Err(Refused::new(ErrorKind::Unauthenticated, why.code(), text));
            }
        };
        let open = OPEN.iter().any(|open| path.starts_with(open));
        let declared = self.routes.methods.get(path).map(|method| &method.access);
        let access = match declared {
            Some(access) => access,
            None if open => &Access::Public,
            None if self.routes.services.contains(&service) => {
                let text = "nobody may call this method";
                return Err(Refused::new(
                    ErrorKind::Forbidden,
                    "system.undeclared",
                    text,
                ));
            }
            // What is not there says so itself.
            None => return Ok(Principal::clone(&principal)),
        };
        authorise(&principal, access, now).map_err(refusal)?;
        let caller = match peer {
            Some(ip) if !principal.is_authenticated() => ip.to_string(),
            _ => format!("{}/{}", principal.kind.as_str(), principal.subject),
        };
        self.count("call", &caller, CALLS)?;
        Ok(Principal::clone(&principal))
    }

    /// Address rules hold here as at the door: for everybody, and again for what asks for a permission.
    fn check_address(&self, peer: Option<IpAddr>, now_s: i64, path: &str) -> Result<(), Refused> {
        let (Some(rules), Some(address)) = (&self.address_rules, peer) else {
            return Ok(());
        };
        let access = self.routes.methods.get(path).map(|method| &method.access);
        let open = matches!(access, None | Some(Access::Public | Access::Authenticated));
        let mut checked = rules.check(address, now_s);
        if !open {
            checked = checked.and_then(|()| rules.check_admin(address, now_s));
        }
        checked.map_err(|_| {
            let text = "this address is not answered";
            Refused::new(ErrorKind::Forbidden, AddressBlocked::CODE, text)
        })
    }

    fn count(&self, what: &str, who: &str, limit: Limit) -> Result<(), Refused> {
        let key = self.keys.key(&[b"rpc", what.as_bytes(), who.as_bytes()]);
        let now_ns = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let decision = self.limiter.check_local(key, limit, now_ns);
        if decision.allowed {
            return Ok(());
        }
        let wait = decision.retry_after_ns.div_ceil(1_000_000_000);
        let mut refused = Refused::new(ErrorKind::TooMany, "system.rate_limited", "too many calls");
        refused.wait_s = Some(u32::try_from(wait).unwrap_or(u32::MAX));
        Err(refused)
    }

    /// The deadline of a call, as a time from now.
    fn time_for(&self, path: &str, headers: &HeaderMap) -> Option<Duration> {
        let asked = timeout::parse(headers);
        let streams = self.streams(path);
        match asked {
            Some(asked) if streams => Some(asked),
            Some(asked) => Some(asked.min(LONGEST)),
            None if streams => None,
            None => Some(DEADLINE),
        }
    }

    /// Those of the protocol itself may stream as well.
    fn streams(&self, path: &str) -> bool {
        let method = self.routes.methods.get(path);
        method.is_none_or(|method| method.streams)
    }

    fn span(&self, path: &str, headers: &HeaderMap, mut context: LogContext) -> Around {
        let lines = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let name = path.trim_start_matches('/').to_owned();
        match TraceContext::extract(lines("traceparent"), lines("tracestate")) {
            None => Around {
                outer: None,
                span: Some(trace::root(
                    &self.tracer,
                    "rpc",
                    name,
                    SpanKind::Server,
                    context,
                )),
                name: String::new(),
            },
            Some(parent) => {
                context.trace_id = Some(parent.trace_id);
                context.span_id = Some(parent.span_id);
                let kept = parent.sampled && self.tracer.is_enabled();
                context.tracer = kept.then(|| self.tracer.clone());
                Around {
                    outer: Some(Arc::new(context)),
                    span: None,
                    name,
                }
            }
        }
    }
}

/// The span of a call: the first of a new trace, or one below the caller's.
struct Around {
    outer: Option<Arc<LogContext>>,
    span: Option<OpenSpan>,
    name: String,
}

impl Around {
    async fn run<T>(self, code: impl Fn(&T) -> Code, work: impl Future<Output = T>) -> T {
        let Self { outer, span, name } = self;
        let spanned = async move {
            let mut span = span.unwrap_or_else(|| trace::start("rpc", name, SpanKind::Server));
            span.set("rpc.system", "grpc");
            let done = span.around(work).await;
            let code = code(&done);
            span.set("rpc.grpc.status_code", i64::from(code as i32));
            if matches!(code, Code::Internal | Code::Unknown | Code::DataLoss) {
                span.fail(word(code));
            }
            done
        };
        match outer {
            Some(outer) => in_scope(outer, spanned).await,
            None => spanned.await,
        }
    }
}

/// The chain around a method.
pub(crate) async fn run(
    State(chain): State<Arc<Chain>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let (service, method) = chain.names(&path);
    let request_id = chain.request_id(request.headers());
    let context = LogContext {
        request_id: Some(Arc::clone(&request_id)),
        service: Some(Arc::from(&*service)),
        ..LogContext::default()
    };
    let ending = CallEnding::begin(&chain, service, method, &request_id);
    let around = chain.span(&path, request.headers(), context);
    let time = chain.time_for(&path, request.headers());
    let sleep = time.map(|time| Box::pin(tokio::time::sleep(time)));
    let deadline = sleep.as_ref().map(|sleep| sleep.deadline());
    let headers = request.headers().clone();
    let work = {
        let (chain, request_id, path) = (Arc::clone(&chain), Arc::clone(&request_id), path.clone());
        async move {
            let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
            let authority = request.uri().authority();
            match chain.admit(&headers, authority, peer, &path).await {
                Err(refused) => (to_status(&refused, &request_id).into_http(), ending),
                Ok(principal) => {
                    let call = chain.call(principal, &request, &request_id);
                    request.extensions_mut().insert(call);
                    answer(next, request, deadline, ending).await
                }
            }
        }
    };
    let coded =
        |(response, _): &(Response, CallEnding)| code_of(response.headers()).unwrap_or(Code::Ok);
    let (response, ending) = around.run(coded, Box::pin(work)).await;
    let streams = chain.streams(&path);
    let stopping = streams.then(|| chain.stopping.clone());
    finish(response, ending, (sleep, stopping), &request_id)
}

/// Runs the method within its time; a panic in it is an answer.
async fn answer(
    next: Next,
    request: Request,
    deadline: Option<tokio::time::Instant>,
    mut ending: CallEnding,
) -> (Response, CallEnding) {
    let guarded = AssertUnwindSafe(next.run(request)).catch_unwind();
    let done = match deadline {
        Some(at) => tokio::time::timeout_at(at, guarded).await,
        None => Ok(guarded.await),
    };
    let response = match done {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => ending.panicked().into_http(),
        Err(_) => Status::deadline_exceeded("the deadline is over").into_http(),
    };
    (response, ending)
}

/// Puts the request id into the answer and watches its end.
fn finish(
    response: Response,
    mut ending: CallEnding,
    (sleep, stopping): (Option<Pin<Box<Sleep>>>, Option<CancellationToken>),
    request_id: &str,
) -> Response {
    let (mut parts, body) = response.into_parts();
    name_sizes(&mut parts.headers);
    if let Ok(value) = HeaderValue::from_str(request_id) {
        parts.headers.insert("x-request-id", value);
    }
    match code_of(&parts.headers) {
        // The whole answer is its headers.
        Some(code) => {
            ending.ended(code);
            Response::from_parts(parts, body)
        }
        None => {
            let body = Observed::new(body, sleep, stopping, ending);
            Response::from_parts(parts, Body::new(body))
        }
    }
}

impl Chain {
    /// Service and method as metrics write them; what is not ours has one name.
    fn names(&self, path: &str) -> (String, String) {
        let known = self.routes.methods.contains_key(path)
            || OPEN.iter().any(|open| path.starts_with(open));
        match path.trim_start_matches('/').split_once('/') {
            Some((service, method)) if known && method.len() <= 64 => {
                (service.to_owned(), method.to_owned())
            }
            _ => ("unknown".to_owned(), "unknown".to_owned()),
        }
    }

    /// The caller's own request id where it has the usual form, else a new one.
    fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let given = headers.get("x-request-id").and_then(|v| v.to_str().ok());
        let good = |text: &&str| {
            (1..=128).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        match given.filter(good) {
            Some(given) => Arc::from(given),
            None => Arc::from(id::new_id(&*self.clock, &*self.random).to_string()),
        }
    }

    fn call(&self, principal: Principal, request: &Request, request_id: &Arc<str>) -> Call {
        let address = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
        let agent = request.headers().get(header::USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok());
        let trace_id = portico_telemetry::logs::current().and_then(|c| c.trace_id);
        Call {
            context: Context {
                caller: Caller {
                    principal: Arc::new(principal),
                    request_id: Arc::clone(request_id),
                    trace_id: trace_id.map(|id| Arc::from(id.to_string())),
                    address,
                    agent: agent.map(|text| text.chars().take(200).collect::<String>().into()),
                    direct_loopback: address.is_some_and(|ip| ip.is_loopback()),
                },
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
            },
        }
    }
}

/// Log line and metrics of a call, at its end.
struct CallEnding {
    chain: Arc<Chain>,
    service: String,
    method: String,
    request_id: Arc<str>,
    begun: Instant,
    told: bool,
}

impl CallEnding {
    fn begin(chain: &Arc<Chain>, service: String, method: String, request_id: &Arc<str>) -> Self {
        chain.meter.began(&service);
        Self {
            chain: Arc::clone(chain),
            service,
            method,
            request_id: Arc::clone(request_id),
            begun: Instant::now(),
            told: false,
        }
    }
}

impl Ending for CallEnding {
    fn ended(&mut self, code: Code) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let took = self.begun.elapsed();
        self.chain
            .meter
            .ended(&self.service, &self.method, code, took);
        let (service, method, request_id) = (&*self.service, &*self.method, &*self.request_id);
        let (code, ms) = (word(code), took.as_secs_f64() * 1e3);
        match code {
            "OK" | "CANCELLED" => {
                tracing::debug!(service, method, code, ms, request_id, "gRPC call");
            }
            _ => tracing::info!(service, method, code, ms, request_id, "gRPC call"),
        }
    }

    fn panicked(&mut self) -> Status {
        self.chain.meter.panics.inc();
        let request_id = &*self.request_id;
        tracing::error!(
            service = self.service,
            method = self.method,
            request_id,
            "a gRPC call panicked"
        );
        let fault = Refused::new(ErrorKind::Internal, "system.internal", "the call panicked");
        to_status(&fault, request_id)
    }
}

impl Drop for CallEnding {
    fn drop(&mut self) {
        // The client went away before there was an answer.
        self.ended(Code::Cancelled);
    }
}

fn refusal(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Unauthenticated => Refused::new(
            ErrorKind::Unauthenticated,
            "identity.token_missing",
            "a credential is needed",
        ),
        Refusal::Missing(permission) => Refused::new(
            ErrorKind::Forbidden,
            "identity.permission_denied",
            format!("the permission {permission} is missing"),
        ),
        Refusal::StepUp => Refused::new(
            ErrorKind::Unauthenticated,
            "identity.step_up_required",
            "show a second factor, or authenticate again",
        ),
    }
}
