//! Pick and forward: attempts at instances within breakers, budgets and deadlines (GW-27, GW-37, GW-46, GW-55).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use portico_contract::directory::Observation;
use portico_telemetry::trace::TraceContext;
use smallvec::SmallVec;

use super::client::Client;
use super::deadline::{DEADLINE, GRPC_TIMEOUT};
use super::door::{Door, Local};
use super::gate::BreakerEvent;
use super::hygiene;
use super::record::{Facts, Flight};
use super::refusal::Refusal;
use super::scope;
use super::signature::Signed;
use super::way::fill;
use crate::balance::breaker::Admission;
use crate::balance::pool::Ask;
use crate::balance::{Attempted, Change, Phase, backoff};
use crate::body::{ReqBody, RespBody};
use crate::identify::Identity;
use crate::objects::doc::HashBy;
use crate::route::endpoints::EndpointRule;
use crate::route::plan::{self, Plan};
use crate::route::release::{cookie, hash};
use crate::route::service::{InstanceNode, ServiceNode, VersionNode};
use crate::serve::UpgradeTo;
use crate::upstream::{SendError, SendErrorKind, SendOptions, TimeoutKind};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const IDENTITY: HeaderName = HeaderName::from_static("x-portico-identity");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Headers that a request gets here.
const OWN_HEADERS: usize = 16;

/// One request on its way to one version of a service; owns what a background refresh needs too.
pub(super) struct Trip {
    pub(super) local: Rc<Local>,
    pub(super) node: Arc<ServiceNode>,
    /// Place of the version; absent when the service has no instance at all.
    pub(super) version: Option<usize>,
    pub(super) endpoint: Option<Arc<EndpointRule>>,
    pub(super) plan: Arc<Plan>,
    pub(super) identity: Rc<Identity>,
    pub(super) client: Client,
    pub(super) request_id: HeaderValue,
    pub(super) trace: TraceContext,
    /// Path and query below the instance's base path.
    pub(super) target: String,
    /// As the client sent it, normalised; empty where no transform asks for it.
    pub(super) path: Box<str>,
    pub(super) begun: Instant,
    pub(super) begun_ms: i64,
    pub(super) deadline: Option<Instant>,
    /// The service is told what is left.
    pub(super) tell_deadline: bool,
    pub(super) http2: bool,
}

impl Trip {
    /// The same trip for a request of our own, without the client's deadline.
    pub(super) fn again(&self) -> Self {
        Self {
            local: Rc::clone(&self.local),
            node: Arc::clone(&self.node),
            version: self.version,
            endpoint: self.endpoint.clone(),
            plan: Arc::clone(&self.plan),
            identity: Rc::clone(&self.identity),
            client: self.client,
            request_id: self.request_id.clone(),
            trace: self.trace.clone(),
            target: self.target.clone(),
            path: self.path.clone(),
            begun: self.begun,
            begun_ms: self.begun_ms,
            deadline: None,
            tell_deadline: false,
            http2: self.http2,
        }
    }
}

/// A failed attempt: what the client gets if it was the last, and the request when it can be sent again.
struct Failed {
    refusal: Refusal,
    request: Option<Box<Request<ReqBody>>>,
    /// Nothing of it had left.
    safe: bool,
    worth: bool,
}

enum Attempt {
    Done(Response<RespBody>),
    /// A status that may be tried again; the answer in case it is not.
    Poor(Response<RespBody>),
    Failed(Failed),
}

impl Door {
    /// Sends a request to an instance, to another when that fails, and gives the answer's head.
    pub(super) async fn forward(
        &self,
        trip: &Trip,
        mut request: Request<ReqBody>,
        facts: &mut Facts,
    ) -> Result<Response<RespBody>, Refusal> {
        let state = Arc::clone(&trip.node.state);
        let (admission, change) = state.breaker.admit(self.gate.millis(trip.begun));
        self.breaker_changed(trip, None, change);
        if let Admission::Refuse { retry_after_ms } = admission {
            let seconds = u32::try_from(retry_after_ms.div_ceil(1000)).unwrap_or(30);
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "gateway.breaker_open",
                "the service fails too often and is left alone",
            )
            .retry_after(seconds.max(1)));
        }
        state.budget.request(self.gate.millis(trip.begun));
        self.prepare(trip, &mut request)?;
        let answered = self.attempts(trip, request, facts).await;
        let ended = facts.ended.unwrap_or(trip.begun);
        self.tell_service(trip, &answered, admission == Admission::Trial, ended);
        tell_release(trip, &answered, facts);
        answered
    }

    async fn attempts(
        &self,
        trip: &Trip,
        mut request: Request<ReqBody>,
        facts: &mut Facts,
    ) -> Result<Response<RespBody>, Refusal> {
        let Some(version) = trip.version.and_then(|at| trip.node.versions.get(at)) else {
            return Err(no_instance());
        };
        let repeatable = is_repeatable(trip, &request);
        let spare = spare(version, repeatable, &request);
        let hash = self.hash(trip, &request);
        let mut tried: SmallVec<[u16; 4]> = SmallVec::new();
        loop {
            let Some((at, flight)) = self.pick(trip, version, hash, &tried, facts) else {
                return Err(no_instance());
            };
            facts.flight = Some(flight);
            tried.push(at);
            self.address(trip, &version.instances[usize::from(at)], &mut request)?;
            let more = usize::from(facts.attempts) < usize::from(trip.plan.attempts)
                && tried.len() < version.pool.members().len();
            let failed = match self.attempt(trip, request, facts).await {
                Attempt::Done(response) => return Ok(response),
                Attempt::Poor(response) => {
                    match spare.as_ref().filter(|_| more && repeatable).map(again) {
                        Some(request) if self.may_retry(trip, facts).await => Ok(request),
                        _ => return Ok(response),
                    }
                }
                Attempt::Failed(failed) => {
                    let again = failed
                        .request
                        .filter(|_| failed.worth && more && (repeatable || failed.safe));
                    match again {
                        Some(request) if self.may_retry(trip, facts).await => Ok(*request),
                        _ => Err(failed.refusal),
                    }
                }
            };
            request = failed?;
        }
    }

    /// One attempt at the instance of `facts.flight`.
    async fn attempt(
        &self,
        trip: &Trip,
        mut request: Request<ReqBody>,
        facts: &mut Facts,
    ) -> Attempt {
        facts.attempts += 1;
        let Some(flight) = facts.flight.as_mut() else {
            return Attempt::Failed(Failed {
                refusal: no_instance(),
                request: None,
                safe: true,
                worth: false,
            });
        };
        let node = Arc::clone(&flight.node);
        let options = self.options(trip, &request);
        let sent = Instant::now();
        let mut span = scope::attempt(trip, &node, facts.attempts, &mut request);
        let answered = self.upstreams.send(&node.target, request, &options).await;
        let ended = Instant::now();
        let took = ended.saturating_duration_since(sent);
        facts.ended = Some(ended);
        facts.upstream = Some(facts.upstream.unwrap_or_default() + took);
        let micros = took.as_secs_f32() * 1e6;
        let penalty = (trip.plan.first_byte.as_secs_f32() * 1e6).max(micros);
        match answered {
            Ok(response) => {
                span.set("http.response.status_code", response.status().as_u16());
                if node.load.connected() {
                    self.gate
                        .directory
                        .observe(node.instance.id, Observation::Connected);
                }
                let what = judge(trip, &response, micros, penalty);
                self.tell(trip, flight, what, ended);
                let poor = trip
                    .plan
                    .retry_statuses
                    .contains(&response.status().as_u16())
                    && !response.headers().contains_key(header::RETRY_AFTER);
                if poor {
                    Attempt::Poor(response)
                } else {
                    Attempt::Done(response)
                }
            }
            Err(error) => {
                span.fail(error.to_string());
                if is_connect(&error.kind) && node.load.connect_failed() {
                    self.gate
                        .directory
                        .observe(node.instance.id, Observation::ConnectFailed);
                }
                self.tell(trip, flight, failure(&error.kind, penalty), ended);
                tracing::debug!(instance = %node.id_text, err = %error, "an attempt failed");
                Attempt::Failed(failed(error))
            }
        }
    }

    /// Chooses an instance that was not tried; counts the request as its load.
    fn pick(
        &self,
        trip: &Trip,
        version: &VersionNode,
        hash: u64,
        tried: &[u16],
        facts: &Facts,
    ) -> Option<(u16, Flight)> {
        let now_ms = if facts.attempts == 0 {
            self.gate.millis(trip.begun)
        } else {
            self.gate.now_ms()
        };
        let ask = Ask {
            now_ms,
            dice: &self.dice,
            hash,
            tried,
            slow_start_ms: trip.local.table.values.slow_start_ms,
            timeout_us: trip.plan.first_byte.as_secs_f32() * 1e6,
        };
        let choice = version.pool.pick(&ask)?;
        let node = version.instances.get(usize::from(choice.index))?;
        self.breaker_changed(trip, Some(node), choice.change);
        let meter = self.meters.of(Some(&trip.plan));
        Some((choice.index, Flight::begin(node, &meter, choice.trial)))
    }

    /// Takes a retry out of the budget and waits; false when there is none, or no time left.
    async fn may_retry(&self, trip: &Trip, facts: &mut Facts) -> bool {
        let values = &trip.local.table.values;
        let now_ms = self.gate.now_ms();
        let families = &self.meters.families;
        if !trip.node.state.budget.take(now_ms, values.budget_percent) {
            families.exhausted.inc();
            return false;
        }
        let pause = backoff::pause(u32::from(facts.attempts), values.backoff_ms, &self.dice);
        if trip
            .deadline
            .is_some_and(|end| Instant::now() + pause >= end)
        {
            return false;
        }
        families.retries.with(&[&trip.plan.service, "made"]).inc();
        // While it waits it is nobody's load.
        facts.flight = None;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        true
    }

    /// Changes the headers for the service, once for all attempts.
    fn prepare(&self, trip: &Trip, request: &mut Request<ReqBody>) -> Result<(), Refusal> {
        let method = request.method().clone();
        let headers = request.headers_mut();
        hygiene::clean_request(headers, trip.client.proxied);
        hygiene::mark_via(headers, trip.http2)?;
        hygiene::take_credentials(headers, trip.node.service.forward_credentials);
        // Ours come on top of the client's: grown once instead of twice.
        headers.reserve(OWN_HEADERS);
        let addresses = (
            self.address_value(trip.client.peer),
            self.address_value(trip.client.address),
        );
        let host = headers.get(header::HOST).cloned();
        hygiene::forward_client(headers, &trip.client, addresses, host.as_ref());
        headers.insert(super::client::X_REQUEST_ID, trip.request_id.clone());
        trip.trace.inject(headers);
        scope::filter_baggage(headers, &trip.local.table.values.baggage);
        if let Some(transform) = plan::first(&trip.plan.transforms, &method, &trip.path) {
            transform.request(headers, &fill(&trip.identity, &trip.request_id, &[]));
        }
        trip.identity.wire.write(headers, &trip.request_id);
        self.state_identity(trip, headers);
        Ok(())
    }

    /// Signed words about the caller, for services that ask for them (ID-170). Whoever signs remembers them,
    /// so that hardly a request pays for a signature.
    fn state_identity(&self, trip: &Trip, headers: &mut HeaderMap) {
        let principal = &trip.identity.principal;
        if !trip.node.service.identity_statement || !principal.is_authenticated() {
            return;
        }
        let statements = self.gate.entrance.statements.as_ref();
        let service = &trip.node.service.key.name;
        let now_s = trip.begun_ms / 1_000;
        let said = statements.and_then(|s| s.statement(principal, service, now_s));
        if let Some(value) = said.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(IDENTITY, value);
        }
    }

    /// Makes the request one for this instance: target, deadline, signature.
    fn address(
        &self,
        trip: &Trip,
        node: &InstanceNode,
        request: &mut Request<ReqBody>,
    ) -> Result<(), Refusal> {
        let text = if node.base.is_empty() {
            trip.target.clone()
        } else {
            format!("{}{}", node.base, trip.target)
        };
        let target = PathAndQuery::try_from(text).map_err(|_| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "gateway.bad_path",
                "the path cannot be forwarded",
            )
        })?;
        if let Some(end) = trip.deadline {
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            if left.is_zero() {
                return Err(Refusal::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "gateway.deadline_exceeded",
                    "the request's deadline has passed",
                ));
            }
            if trip.tell_deadline {
                tell_deadline(request, left);
            }
        }
        if let Some(signer) = &node.signer {
            let method = request.method().clone();
            let waited = i64::try_from(trip.begun.elapsed().as_millis()).unwrap_or(0);
            let signed = Signed {
                now_ms: trip.begun_ms + waited,
                method: &method,
                target: target.as_str(),
                request_id: &trip.request_id,
            };
            signer.sign(request.headers_mut(), &trip.identity.wire, &signed);
        } else {
            super::signature::unsign(request.headers_mut());
        }
        *request.uri_mut() = Uri::from(target);
        Ok(())
    }

    fn options(&self, trip: &Trip, request: &Request<ReqBody>) -> SendOptions {
        let streams = request.extensions().get::<UpgradeTo>().is_some()
            || request
                .headers()
                .get(header::ACCEPT)
                .is_some_and(|a| a.as_bytes().starts_with(b"text/event-stream"));
        let total = trip
            .deadline
            .map(|end| end.saturating_duration_since(Instant::now()));
        SendOptions {
            connect: trip.plan.connect,
            first_byte: trip.plan.first_byte,
            between_bytes: if streams {
                trip.plan.idle_stream
            } else {
                trip.plan.between_bytes
            },
            total,
            hold_body: true,
        }
    }

    /// What `hash` balances by; 0 for every other policy.
    fn hash(&self, trip: &Trip, request: &Request<ReqBody>) -> u64 {
        if trip.node.policy != crate::balance::Policy::Hash {
            return 0;
        }
        let principal = &trip.identity.principal;
        let key = match &trip.node.hash_by {
            HashBy::User => principal
                .is_authenticated()
                .then(|| principal.subject.as_bytes()),
            HashBy::Session => principal.session.as_deref().map(str::as_bytes),
            HashBy::Header(name) => request.headers().get(name).map(HeaderValue::as_bytes),
            HashBy::Cookie(name) => cookie(request.headers(), name).map(str::as_bytes),
            HashBy::Address => None,
        };
        match key {
            Some(key) => hash(1, key),
            None => hash(1, &crate::limit::network_of(trip.client.address)),
        }
    }

    fn tell(&self, trip: &Trip, flight: &mut Flight, what: Attempted, ended: Instant) {
        let (trial, node) = (flight.tell(), Arc::clone(&flight.node));
        let change = node.load.tell(
            self.gate.millis(ended),
            what,
            trial,
            &trip.local.table.values.breaker,
            self.dice.unit(),
        );
        self.breaker_changed(trip, Some(&node), change);
    }

    /// The service's own breaker counts what the client finally gets.
    fn tell_service(
        &self,
        trip: &Trip,
        answered: &Result<Response<RespBody>, Refusal>,
        trial: bool,
        ended: Instant,
    ) {
        let (status, says_nothing) = match answered {
            Ok(response) => (
                response.status(),
                response.headers().contains_key(header::RETRY_AFTER),
            ),
            Err(refusal) => (
                refusal.status,
                matches!(
                    refusal.code,
                    "gateway.no_instance" | "gateway.overloaded" | "gateway.deadline_exceeded"
                ),
            ),
        };
        let breaker = &trip.node.state.breaker;
        let set = &trip.local.table.values.breaker;
        let listed = trip.plan.failure_statuses.contains(&status.as_u16());
        let failed = matches!(status.as_u16(), 502..=504) || listed;
        let bad = failed && !(says_nothing && status.as_u16() != 502);
        let now_ms = self.gate.millis(ended);
        let change = if bad {
            breaker.failure(now_ms, trial, set, self.dice.unit())
        } else if status.as_u16() == 499 || says_nothing {
            breaker.abandon(trial);
            None
        } else {
            breaker.success(now_ms, trial, set)
        };
        self.breaker_changed(trip, None, change);
    }

    fn breaker_changed(
        &self,
        trip: &Trip,
        node: Option<&Arc<InstanceNode>>,
        change: Option<Change>,
    ) {
        let Some(change) = change else { return };
        if node.is_some() && change.to == Phase::Open {
            self.meters
                .families
                .ejections
                .with(&[&trip.plan.service])
                .inc();
        }
        let instance = node.map(|n| n.instance.id);
        (self.gate.breakers)(BreakerEvent {
            service: Arc::clone(&trip.node.service.key.name),
            service_id: trip.node.service.id,
            tenant: trip.node.service.key.tenant,
            instance,
            change,
            reasons: node.map_or_else(Vec::new, |n| {
                n.load.reasons().iter().map(|r| r.why).collect()
            }),
        });
    }
}

/// Counts for the guards of a release, while there is one to guard (GW-81): 5xx and what the gateway itself had
/// to answer are failures of the version that was chosen.
fn tell_release(trip: &Trip, answered: &Result<Response<RespBody>, Refusal>, facts: &Facts) {
    let version = trip.version.and_then(|at| trip.node.versions.get(at));
    let Some(tally) = version.and_then(|v| v.tally.as_ref()) else {
        return;
    };
    let failed = match answered {
        Ok(response) => {
            response.status().is_server_error() || grpc_failed(response.headers().get(GRPC_STATUS))
        }
        Err(refusal) if refusal.status.is_server_error() => true,
        // The client left, or sent what cannot be forwarded: nothing about the version.
        Err(_) => return,
    };
    tally.note(failed, facts.upstream);
}

/// gRPC's own kinds of 5xx, where the answer has nothing but trailers: unknown, deadline, unimplemented,
/// internal, unavailable, data loss.
fn grpc_failed(status: Option<&HeaderValue>) -> bool {
    status.is_some_and(|s| matches!(s.as_bytes(), b"2" | b"4" | b"12" | b"13" | b"14" | b"15"))
}

fn no_instance() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "gateway.no_instance",
        "no instance of the service is ready",
    )
    .retry_after(1)
}

/// Idempotent by method, or declared so with a key (RFC 9110 §9.2.2).
fn is_repeatable(trip: &Trip, request: &Request<ReqBody>) -> bool {
    let keyed = || {
        trip.endpoint.as_ref().is_some_and(|e| e.idempotency_key)
            && request.headers().contains_key(IDEMPOTENCY_KEY)
    };
    let switches = request.extensions().get::<UpgradeTo>().is_some();
    !switches
        && !super::refusal::is_grpc(request.headers())
        && (request.method().is_idempotent() || keyed())
}

/// A copy for an attempt after a poor answer; made only where another instance could take it.
fn spare(version: &VersionNode, repeatable: bool, request: &Request<ReqBody>) -> Option<Parts> {
    (repeatable && version.pool.members().len() > 1 && request.body().is_end_stream()).then(|| {
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        copy.into_parts().0
    })
}

fn again(parts: &Parts) -> Request<ReqBody> {
    let mut request = Request::new(ReqBody::empty());
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = parts.version;
    *request.headers_mut() = parts.headers.clone();
    request
}

fn tell_deadline(request: &mut Request<ReqBody>, left: Duration) {
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    let headers = request.headers_mut();
    headers.insert(DEADLINE, HeaderValue::from(ms));
    if headers.contains_key(GRPC_TIMEOUT)
        && let Ok(value) = HeaderValue::try_from(format!("{}m", ms.min(99_999_999)))
    {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

/// What an answer's head says about the instance (GW-55).
fn judge(trip: &Trip, response: &Response<RespBody>, micros: f32, penalty: f32) -> Attempted {
    let status = response.status().as_u16();
    let asked_to_wait = response.headers().contains_key(header::RETRY_AFTER);
    match status {
        503 if asked_to_wait => Attempted::Busy { micros },
        502 => Attempted::Failed {
            penalty,
            why: "502",
        },
        503 => Attempted::Failed {
            penalty,
            why: "503",
        },
        504 => Attempted::Failed {
            penalty,
            why: "504",
        },
        _ if trip.plan.failure_statuses.contains(&status) => Attempted::Failed {
            penalty,
            why: "status",
        },
        500..=599 => Attempted::Erred { micros },
        _ => Attempted::Answered { micros },
    }
}

/// True when no connection could be made.
const fn is_connect(kind: &SendErrorKind) -> bool {
    matches!(
        kind,
        SendErrorKind::Connect(_) | SendErrorKind::Timeout(TimeoutKind::Connect)
    )
}

fn failure(kind: &SendErrorKind, penalty: f32) -> Attempted {
    let why = match kind {
        SendErrorKind::Connect(_) | SendErrorKind::AddressNotAllowed => "connect",
        SendErrorKind::Reset => "reset",
        SendErrorKind::Timeout(_) => "timeout",
        SendErrorKind::Invalid(_) => "invalid",
        SendErrorKind::Refused
        | SendErrorKind::QueueFull
        | SendErrorKind::RequestBody(_)
        | SendErrorKind::HeadTooLarge => return Attempted::Nothing,
    };
    Attempted::Failed { penalty, why }
}

fn failed(error: SendError) -> Failed {
    let safe = error.is_safe_to_repeat();
    // An instance that was slow once may have done the work; one that spoke nonsense would speak it again.
    let worth = is_connect(&error.kind)
        || matches!(
            error.kind,
            SendErrorKind::Reset | SendErrorKind::Refused | SendErrorKind::AddressNotAllowed
        );
    Failed {
        refusal: Refusal::upstream(&error.kind),
        request: error.request,
        safe,
        worth,
    }
}
