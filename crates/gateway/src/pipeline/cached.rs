//! The cache's place in the sequence: a hit ends it, a miss goes on to an instance and is kept on its way back (GW-70…72).

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use portico_base::Permission;

use super::door::Door;
use super::forward::Trip;
use super::record::{Facts, Log};
use super::refusal::Refusal;
use super::scope;
use super::settings::Values;
use crate::body::{BodyError, ReqBody, RespBody};
use crate::cache::{
    Answer, CACHE_TAG, Collector, Fill, Forwarded, Leader, Level, Lookup, Mode, Outcome,
    RequestView, RulePolicy, Turn, X_CACHE, describe, mark_forwarded,
};
use crate::route::endpoints::EndpointRule;
use crate::route::plan::{self, Plan};

/// Whoever holds one of these is told the key in `Cache-Status` (GW-74).
const READ: Permission = Permission::new("gateway:cache:read");
const WRITE: Permission = Permission::new("gateway:cache:write");

impl Door {
    /// Answers from the cache, or forwards.
    pub(super) async fn cached(
        self: &Rc<Self>,
        trip: &Trip,
        path: &str,
        request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let rule = self.rule(trip, request.method(), path);
        let Some(rule) = rule.filter(|r| r.mode != Mode::Off && is_cacheable(&request)) else {
            return self.uncached(trip, path, request, log).await;
        };
        if !is_written(trip, &rule)
            && trip.node.state.is_silent()
            && !wants_only_copies(request.headers())
        {
            return self.unasked(trip, request, log).await;
        }
        let now_ms = self.unix_ms();
        let host = host_of(request.headers());
        let ask = Asked {
            trip,
            path,
            host: &lower(&host),
            method: &request.method().clone(),
            query: request.uri().clone(),
        };
        let mut span = scope::look_up();
        let looked = self
            .gate
            .cache
            .lookup(&ask.view(request.headers()), &rule, now_ms);
        span.set("portico.cache", found(&looked));
        drop(span);
        match looked {
            Lookup::Hit(answer) => Ok(self.stored(&answer, &ask, &rule, log)),
            Lookup::Stale(answer, refresh) => {
                if let Some(leader) = refresh {
                    self.refresh(&ask, &request, &rule, leader);
                }
                Ok(self.stored(&answer, &ask, &rule, log))
            }
            Lookup::OnlyIfCached => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.not_cached",
                "there is no stored answer",
            )),
            Lookup::Bypass(why) => {
                let mut response = self.forward(trip, request, &mut log.facts).await?;
                self.mark(&mut response, Forwarded::Bypassed(why), &ask, &rule, log);
                Ok(response)
            }
            // On the heap, so that a hit does not carry the room that a miss needs.
            Lookup::Miss(ticket) => Box::pin(self.miss(&ask, request, &rule, ticket, log)).await,
        }
    }

    async fn miss(
        self: &Rc<Self>,
        ask: &Asked<'_>,
        request: Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        ticket: crate::cache::Ticket,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        // The cache compares the client's own headers; the request's are changed for the service.
        let theirs = request.headers().clone();
        let view = ask.view(&theirs);
        let wait = ask.trip.plan.first_byte;
        let origin = std::time::Instant::now();
        let began = self.unix_ms();
        let clock = move || began + u64::try_from(origin.elapsed().as_millis()).unwrap_or(0);
        let mut span = scope::look_up();
        let turn = span.around(ticket.turn(&view, rule, wait, &clock)).await;
        span.set("portico.cache", waited(&turn));
        drop(span);
        match turn {
            Turn::Ready(answer) => Ok(self.stored(&answer, ask, rule, log)),
            Turn::Busy => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "gateway.overloaded",
                "too many requests wait for this answer",
            )
            .retry_after(1)),
            Turn::TimedOut => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.upstream_timeout",
                "the service did not answer in time",
            )),
            Turn::Lead(leader) => self.lead(ask, &view, request, rule, leader, log).await,
        }
    }

    async fn lead(
        self: &Rc<Self>,
        ask: &Asked<'_>,
        view: &RequestView<'_>,
        mut request: Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        mut leader: Leader,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        leader.prepare(request.headers_mut(), self.unix_ms());
        let mut response = match self.forward(ask.trip, request, &mut log.facts).await {
            Ok(response) => response,
            Err(refusal) => {
                return match leader.on_error(view, self.unix_ms()) {
                    Some(answer) => Ok(self.stored(&answer, ask, rule, log)),
                    None => Err(refusal),
                };
            }
        };
        if response.status().is_success() {
            ask.trip.node.state.heard(response.headers());
        }
        // What only we may say must not be stored either.
        super::hygiene::clean_response(response.headers_mut(), false);
        let status = response.status();
        match leader.fill(view, rule, status, response.headers(), self.unix_ms()) {
            Fill::Answer(answer) => Ok(self.stored(&answer, ask, rule, log)),
            Fill::Through(why) => {
                self.mark(&mut response, Forwarded::Refused(why), ask, rule, log);
                Ok(response)
            }
            Fill::Collect(collector) => {
                self.mark(&mut response, Forwarded::Stored, ask, rule, log);
                if response.body().is_end_stream() {
                    // Nobody reads a body that is not there (204, or of no length): this is its end.
                    drop(collector.finish(self.unix_ms()));
                    return Ok(response);
                }
                let gate = Arc::clone(&self.gate);
                let clock: Rc<dyn Fn() -> u64> =
                    Rc::new(move || u64::try_from(gate.clock.unix_ms()).unwrap_or(0));
                Ok(response.map(|body| {
                    RespBody::boxed(Collected {
                        body,
                        collector: Some(collector),
                        clock,
                    })
                }))
            }
        }
    }

    /// Past the cache, because neither we nor this service ever said anything about caching.
    async fn unasked(
        &self,
        trip: &Trip,
        request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let mut response = self.forward(trip, request, &mut log.facts).await?;
        trip.node.state.heard(response.headers());
        self.met(trip, Outcome::Pass);
        log.cache = Level::Miss.as_str();
        response
            .headers_mut()
            .insert(X_CACHE, HeaderValue::from_static(log.cache));
        Ok(response)
    }

    /// Without the cache; an unsafe method takes stored answers out.
    async fn uncached(
        &self,
        trip: &Trip,
        path: &str,
        request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        if request.method().is_safe() {
            return self.forward(trip, request, &mut log.facts).await;
        }
        let rule = self.rule(trip, &Method::GET, path);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let host = host_of(request.headers());
        let response = self.forward(trip, request, &mut log.facts).await?;
        if let Some(rule) = rule {
            let none = HeaderMap::new();
            let ask = Asked {
                trip,
                path,
                host: &lower(&host),
                method: &method,
                query: uri,
            };
            self.gate.cache.after_unsafe(
                &ask.view(&none),
                &rule,
                response.status(),
                response.headers(),
                self.unix_ms(),
            );
        }
        Ok(response)
    }

    /// Fetches a stale answer anew behind the client's back.
    fn refresh(
        self: &Rc<Self>,
        ask: &Asked<'_>,
        request: &Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        mut leader: Leader,
    ) {
        let mut fresh = Request::new(ReqBody::empty());
        *fresh.uri_mut() = request.uri().clone();
        *fresh.headers_mut() = request.headers().clone();
        let theirs = request.headers().clone();
        let (door, rule) = (Rc::clone(self), Arc::clone(rule));
        let (path, host) = (ask.path.to_owned(), ask.host.to_owned());
        let (trip, query) = (ask.trip.again(), ask.query.clone());
        self.worker.spawn(async move {
            let ask = Asked {
                trip: &trip,
                path: &path,
                host: &host,
                method: &Method::GET,
                query,
            };
            let view = ask.view(&theirs);
            let mut facts = Facts::default();
            leader.prepare(fresh.headers_mut(), door.unix_ms());
            let Ok(mut response) = door.forward(&trip, fresh, &mut facts).await else {
                drop(leader.on_error(&view, door.unix_ms()));
                return;
            };
            super::hygiene::clean_response(response.headers_mut(), false);
            if let Fill::Collect(collector) = leader.fill(
                &view,
                &rule,
                response.status(),
                response.headers(),
                door.unix_ms(),
            ) {
                let mut body = response.into_body();
                let now = door.unix_ms();
                read_out(&mut body, collector, now).await;
            }
        });
    }

    /// The rule for a path: the route's, else the endpoint's, else what the answers say themselves.
    fn rule(&self, trip: &Trip, method: &Method, path: &str) -> Option<Arc<RulePolicy>> {
        if !trip.local.table.values.cache {
            return None;
        }
        let said = written(&trip.plan, trip.endpoint.as_deref(), method, path);
        Some(said.map_or_else(|| Arc::clone(&trip.local.default_rule), Arc::clone))
    }

    fn stored(
        &self,
        answer: &Answer,
        ask: &Asked<'_>,
        rule: &RulePolicy,
        log: &mut Log,
    ) -> Response<RespBody> {
        log.cache = answer.level().as_str();
        self.met(ask.trip, answer.outcome());
        if answer.level() == Level::Stale {
            self.meters.families.stale.inc();
        }
        let mut response = Response::new(RespBody::from(answer.body()));
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers(ask.key_if_told(rule).as_deref());
        response
    }

    /// Tells how an answer met the cache: all of it where it was stored or a rule was written, else in one word.
    fn mark(
        &self,
        response: &mut Response<RespBody>,
        forwarded: Forwarded,
        ask: &Asked<'_>,
        rule: &Arc<RulePolicy>,
        log: &mut Log,
    ) {
        let level = forwarded.level().as_str();
        log.cache = level;
        self.met(
            ask.trip,
            match forwarded {
                Forwarded::Bypassed(_) => Outcome::Bypass,
                Forwarded::Stored | Forwarded::Refused(_) => Outcome::Miss,
            },
        );
        let key = ask.key_if_told(rule);
        if forwarded == Forwarded::Stored || key.is_some() || is_written(ask.trip, rule) {
            mark_forwarded(response.headers_mut(), forwarded, key.as_deref());
        } else {
            response.headers_mut().remove(CACHE_TAG);
            response
                .headers_mut()
                .insert(X_CACHE, HeaderValue::from_static(level));
        }
    }

    fn met(&self, trip: &Trip, outcome: Outcome) {
        let (level, result) = outcome.labels();
        self.meters.of(Some(&trip.plan)).cache(level, result);
    }

    fn unix_ms(&self) -> u64 {
        u64::try_from(self.gate.clock.unix_ms()).unwrap_or(0)
    }
}

/// The rule that somebody wrote for a path: an operator's, else the service's own for its endpoint.
pub(super) fn written<'p>(
    plan: &'p Plan,
    endpoint: Option<&'p EndpointRule>,
    method: &Method,
    path: &str,
) -> Option<&'p Arc<RulePolicy>> {
    let declared = endpoint.and_then(|e| e.cache.as_ref());
    plan::first(&plan.cache, method, path).or(declared)
}

/// The rule for paths about which nobody wrote anything: what the answers say themselves.
pub(super) fn default_rule(values: &Values) -> RulePolicy {
    RulePolicy {
        heuristic: values.cache_heuristic,
        honour_request: values.cache_honour,
        ..RulePolicy::default()
    }
}

/// True when somebody wrote a rule for this path, so that he wants to know what became of it.
fn is_written(trip: &Trip, rule: &Arc<RulePolicy>) -> bool {
    !Arc::ptr_eq(rule, &trip.local.default_rule)
}

/// What a view is made of besides the headers.
struct Asked<'a> {
    trip: &'a Trip,
    path: &'a str,
    host: &'a str,
    method: &'a Method,
    /// Where the query is.
    query: http::Uri,
}

impl Asked<'_> {
    fn view<'v>(&'v self, headers: &'v HeaderMap) -> RequestView<'v> {
        let identity = &self.trip.identity;
        let known = identity.principal.is_authenticated();
        RequestView {
            method: self.method,
            scheme: self.trip.client.scheme(),
            host: self.host,
            path: self.path,
            query: self.query.query(),
            headers,
            tenant: &identity.tenant_text,
            principal: known.then_some(&*identity.principal.subject),
            trusted: known,
            service: &self.trip.plan.service,
            version: self
                .trip
                .version
                .and_then(|at| self.trip.node.versions.get(at))
                .map_or("", |version| &version.name),
            route: &self.trip.plan.route,
        }
    }

    /// The key in words, for those who look after the cache.
    fn key_if_told(&self, rule: &RulePolicy) -> Option<String> {
        let principal = &self.trip.identity.principal;
        if !principal.is_authenticated() || !(principal.may(&READ) || principal.may(&WRITE)) {
            return None;
        }
        Some(describe(&self.view(&HeaderMap::new()), rule))
    }
}

/// Only plain reads are looked up: no switch of protocols, no body, no gRPC.
fn is_cacheable(request: &Request<ReqBody>) -> bool {
    (request.method() == Method::GET || request.method() == Method::HEAD)
        && request.body().is_end_stream()
        && request
            .extensions()
            .get::<crate::serve::UpgradeTo>()
            .is_none()
}

/// RFC 9111 §5.2.1.7: no request may go to the service for this one.
fn wants_only_copies(headers: &HeaderMap) -> bool {
    headers
        .get(header::CACHE_CONTROL)
        .is_some_and(|v| memchr::memmem::find(v.as_bytes(), b"only-if-cached").is_some())
}

fn host_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::HOST).cloned()
}

fn lower(host: &Option<HeaderValue>) -> Cow<'_, str> {
    let host = host.as_ref().and_then(|h| h.to_str().ok()).unwrap_or("");
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

async fn read_out(body: &mut RespBody, mut collector: Collector, now_ms: u64) {
    let idle = Duration::from_secs(60);
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match tokio::time::timeout(idle, next).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => collector.push(&data),
                Err(_) => return collector.refuse_trailers(),
            },
            Ok(None) => {
                drop(collector.finish(now_ms));
                return;
            }
            _ => return,
        }
    }
}

/// A body that is kept while it passes.
struct Collected {
    body: RespBody,
    collector: Option<Collector>,
    clock: Rc<dyn Fn() -> u64>,
}

impl http_body::Body for Collected {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &next {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    if let Some(collector) = self.collector.as_mut() {
                        collector.push(data);
                    }
                    self.finish_if_ended();
                }
                None => {
                    if let Some(collector) = self.collector.take() {
                        collector.refuse_trailers();
                    }
                }
            },
            Some(Err(_)) => self.collector = None,
            None => self.finish(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        // Not before the collector was told, or it would never hear of the end.
        self.collector.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Collected {
    fn finish_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(collector) = self.collector.take() {
            drop(collector.finish((self.clock)()));
        }
    }
}

/// What a look in this process found, as the span tells it.
const fn found(looked: &Lookup) -> &'static str {
    match looked {
        Lookup::Hit(_) => "hit",
        Lookup::Stale(..) => "stale",
        Lookup::Miss(_) | Lookup::OnlyIfCached => "miss",
        Lookup::Bypass(_) => "bypass",
    }
}

/// What came of waiting for somebody else's answer, or for the shared tier.
const fn waited(turn: &Turn) -> &'static str {
    match turn {
        Turn::Ready(_) => "hit",
        Turn::Lead(_) => "miss",
        Turn::Busy | Turn::TimedOut => "none",
    }
}
