//! The cache's place in the sequence: a hit ends it, a miss goes on to an instance and is kept on its way back (GW-70…72).

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame};

use super::door::Door;
use super::forward::Trip;
use super::record::{Facts, Log};
use super::refusal::Refusal;
use crate::body::{BodyError, ReqBody, RespBody};
use crate::cache::{
    Answer, CACHE_TAG, Collector, Fill, Forwarded, Leader, Level, Lookup, Mode, RequestView,
    RulePolicy, Turn, X_CACHE, mark_forwarded,
};
use crate::route::plan;

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
        if !is_written(trip, &rule) && trip.node.state.is_silent() {
            return self.unasked(trip, request, log).await;
        }
        let now_ms = self.unix_ms();
        let host = host_of(request.headers());
        let looked = {
            let ask = Asked {
                trip,
                path,
                host: &host,
                method: request.method(),
                query: request.uri().query(),
            };
            self.gate
                .cache
                .lookup(&ask.view(request.headers()), &rule, now_ms)
        };
        match looked {
            Lookup::Hit(answer) => Ok(self.stored(&answer, trip, log)),
            Lookup::Stale(answer, refresh) => {
                if let Some(leader) = refresh {
                    self.refresh(trip, path, &host, &request, &rule, leader);
                }
                Ok(self.stored(&answer, trip, log))
            }
            Lookup::OnlyIfCached => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "gateway.not_cached",
                "there is no stored answer",
            )),
            Lookup::Bypass(why) => {
                let mut response = self.forward(trip, request, &mut log.facts).await?;
                mark(
                    &mut response,
                    Forwarded::Bypassed(why),
                    is_written(trip, &rule),
                    log,
                );
                Ok(response)
            }
            Lookup::Miss(ticket) => {
                self.miss(trip, path, &host, request, &rule, ticket, log)
                    .await
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a look-up found, and the request it was for"
    )]
    async fn miss(
        self: &Rc<Self>,
        trip: &Trip,
        path: &str,
        host: &str,
        request: Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        ticket: crate::cache::Ticket,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // The cache compares the client's own headers; the request's are changed for the service.
        let theirs = request.headers().clone();
        let ask = Asked {
            trip,
            path,
            host,
            method: &method,
            query: uri.query(),
        };
        let view = ask.view(&theirs);
        let wait = trip.plan.first_byte;
        let origin = std::time::Instant::now();
        let began = self.unix_ms();
        let clock = move || began + u64::try_from(origin.elapsed().as_millis()).unwrap_or(0);
        match ticket.turn(&view, rule, wait, &clock).await {
            Turn::Ready(answer) => Ok(self.stored(&answer, trip, log)),
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
            Turn::Lead(leader) => self.lead(trip, &view, request, rule, leader, log).await,
        }
    }

    async fn lead(
        self: &Rc<Self>,
        trip: &Trip,
        view: &RequestView<'_>,
        mut request: Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        mut leader: Leader,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        leader.prepare(request.headers_mut(), self.unix_ms());
        let mut response = match self.forward(trip, request, &mut log.facts).await {
            Ok(response) => response,
            Err(refusal) => {
                return match leader.on_error(view, self.unix_ms()) {
                    Some(answer) => Ok(self.stored(&answer, trip, log)),
                    None => Err(refusal),
                };
            }
        };
        if response.status().is_success() {
            trip.node.state.heard(response.headers());
        }
        // What only we may say must not be stored either.
        super::hygiene::clean_response(response.headers_mut(), false);
        let status = response.status();
        match leader.fill(view, rule, status, response.headers(), self.unix_ms()) {
            Fill::Answer(answer) => Ok(self.stored(&answer, trip, log)),
            Fill::Through(why) => {
                mark(
                    &mut response,
                    Forwarded::Refused(why),
                    is_written(trip, rule),
                    log,
                );
                Ok(response)
            }
            Fill::Collect(collector) => {
                mark(&mut response, Forwarded::Stored, true, log);
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
                host: &host,
                method: &method,
                query: uri.query(),
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
        trip: &Trip,
        path: &str,
        host: &str,
        request: &Request<ReqBody>,
        rule: &Arc<RulePolicy>,
        mut leader: Leader,
    ) {
        let mut fresh = Request::new(ReqBody::empty());
        *fresh.uri_mut() = request.uri().clone();
        *fresh.headers_mut() = request.headers().clone();
        let theirs = request.headers().clone();
        let (door, rule) = (Rc::clone(self), Arc::clone(rule));
        let (path, host, query) = (
            path.to_owned(),
            host.to_owned(),
            request.uri().query().map(str::to_owned),
        );
        let trip = trip.again();
        self.worker.spawn(async move {
            let ask = Asked {
                trip: &trip,
                path: &path,
                host: &host,
                method: &Method::GET,
                query: query.as_deref(),
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
        let values = &trip.local.table.values;
        if !values.cache {
            return None;
        }
        let written = plan::first(&trip.plan.cache, method, path);
        let declared = trip.endpoint.as_ref().and_then(|e| e.cache.as_ref());
        Some(
            written
                .or(declared)
                .map_or_else(|| Arc::clone(&trip.local.default_rule), Arc::clone),
        )
    }

    fn stored(&self, answer: &Answer, trip: &Trip, log: &mut Log) -> Response<RespBody> {
        log.cache = answer.level().as_str();
        let (level, result) = answer.outcome().labels();
        self.meters.of(Some(&trip.plan)).cache(level, result);
        if log.cache == "STALE" {
            self.meters.families.stale.inc();
        }
        let mut response = Response::new(RespBody::from(answer.body()));
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers(None);
        response
    }

    fn unix_ms(&self) -> u64 {
        u64::try_from(self.gate.clock.unix_ms()).unwrap_or(0)
    }
}

/// True when somebody wrote a rule for this path, so that he wants to know what became of it.
fn is_written(trip: &Trip, rule: &Arc<RulePolicy>) -> bool {
    !Arc::ptr_eq(rule, &trip.local.default_rule)
}

/// Tells how an answer met the cache: all of it where it was stored or a rule was written, else in one word.
fn mark(response: &mut Response<RespBody>, forwarded: Forwarded, whole: bool, log: &mut Log) {
    let level = forwarded.level().as_str();
    log.cache = level;
    if whole {
        mark_forwarded(response.headers_mut(), forwarded, None);
    } else {
        response.headers_mut().remove(CACHE_TAG);
        response
            .headers_mut()
            .insert(X_CACHE, HeaderValue::from_static(level));
    }
}

/// What a view is made of besides the headers.
struct Asked<'a> {
    trip: &'a Trip,
    path: &'a str,
    host: &'a str,
    method: &'a Method,
    query: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn view(&self, headers: &'a HeaderMap) -> RequestView<'a> {
        let identity = &self.trip.identity;
        let known = identity.principal.is_authenticated();
        RequestView {
            method: self.method,
            scheme: self.trip.client.scheme(),
            host: self.host,
            path: self.path,
            query: self.query,
            headers,
            tenant: &identity.tenant_text,
            principal: known.then_some(&*identity.principal.subject),
            trusted: known,
            service: &self.trip.plan.service,
            route: &self.trip.plan.route,
        }
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

fn host_of(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or("")
        .to_ascii_lowercase()
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
