//! The steps of GW-20 in their order, from the address limit to the service that answers.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use portico_base::Caller;
use serde_json::json;

use super::cors::is_preflight;
use super::door::{Door, Local};
use super::forward::Trip;
use super::record::Log;
use super::refusal::Refusal;
use super::transform::Fill;
use super::{authorise, hygiene};
use crate::body::{ReqBody, RespBody};
use crate::identify::Identity;
use crate::limit::{Limited, Subject, tighter};
use crate::objects::doc::{Rewrite, Target};
use crate::route::host::{HostKind, without_port};
use crate::route::path::normalise;
use crate::route::plan::{self, Plan};
use crate::route::release::Asker;
use crate::route::table::{Ask, Found, Miss, Named, Route};
use crate::serve::{self, Stream};

const VERSION: HeaderName = HeaderName::from_static("x-service-version");
const DEADLINE: HeaderName = HeaderName::from_static("x-portico-deadline-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const ADMIN: portico_base::Permission = portico_base::Permission::new("gateway:route:write");
const AGENT_MAX: usize = 200;

/// A request on its way to a service.
struct Call<'a> {
    name: &'a str,
    named: &'a Arc<Named>,
    version: Option<&'a str>,
    /// Path below the service, normalised.
    below: Cow<'a, str>,
    plan: &'a Arc<Plan>,
    params: &'a [(&'a str, &'a str)],
    /// As the client sent it, normalised.
    path: &'a str,
}

impl Door {
    /// From the request to an answer or the reason why there is none.
    pub(super) async fn way(
        self: &Rc<Self>,
        local: &Rc<Local>,
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        self.limit_address(local, log)?;
        blocked(local, log, &self.gate.clock.now())?;
        if request.method() == Method::TRACE || request.method() == Method::CONNECT {
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "gateway.method_not_allowed",
                "this method is not served",
            ));
        }
        if request.uri().path() == "*" {
            return Ok(options_of_the_server());
        }
        let uri = request.uri().clone();
        let path = normalise(uri.path().as_bytes()).map_err(|why| bad_path(&why.to_string()))?;
        let host_value = log.host.clone();
        let host = lower_host(host_value.as_ref());
        let ask = Ask {
            host: without_port(&host),
            path: &path,
            query: uri.query(),
            method: request.method(),
            headers: request.headers(),
        };
        let found = local.table.find(&ask);
        match found {
            Ok(Found::Service {
                name,
                named,
                version,
                below,
            }) => {
                let auth_host = local.table.hosts.find(without_port(&host)) == Some(HostKind::Auth);
                if auth_host {
                    self.limit_auth(local, log)?;
                }
                let call = Call {
                    name,
                    named,
                    version,
                    below: below.into(),
                    plan: &named.plan,
                    params: &[],
                    path: path.as_str(),
                };
                self.call(local, call, request, stream, log).await
            }
            Ok(Found::Route(route)) => {
                self.routed(local, route, path.as_str(), &host, request, stream, log)
                    .await
            }
            Ok(Found::Root(prefix)) => self.root(prefix, path.as_str(), request, stream, log).await,
            Ok(Found::Console) => Ok(redirect("/console/", StatusCode::FOUND)),
            Err(miss) => Err(missed(miss)),
        }
    }

    fn limit_address(&self, local: &Local, log: &mut Log) -> Result<(), Refusal> {
        let exempt = log.client.direct_loopback && !local.table.values.limit_loopback;
        let Some(limited) = local.address.as_ref().filter(|_| !exempt) else {
            return Ok(());
        };
        self.take(limited, log, None)
    }

    fn limit_auth(&self, local: &Local, log: &mut Log) -> Result<(), Refusal> {
        let exempt = log.client.direct_loopback && !local.table.values.limit_loopback;
        local
            .auth
            .as_ref()
            .filter(|_| !exempt)
            .map_or(Ok(()), |limited| self.take(limited, log, None))
    }

    /// Takes one request out of a limit that concerns nothing but the client's address.
    fn take(
        &self,
        limited: &Limited,
        log: &Log,
        subject: Option<&Subject<'_>>,
    ) -> Result<(), Refusal> {
        let (anonymous, headers) = (self.identifier.anonymous(), HeaderMap::new());
        let address = Subject {
            address: log.client.address,
            principal: &anonymous.principal,
            service: "",
            route: "",
            endpoint: "",
            headers: &headers,
            claims: &[],
        };
        let Some(key) = limited.key(&self.gate.hasher, subject.unwrap_or(&address)) else {
            return Ok(());
        };
        limited
            .take(&self.gate.limiter, key, self.gate.nanos(log.begun))
            .map(drop)
            .map_err(Refusal::limited)
    }

    /// A written route: its own target, or one of its services.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, each needed by some target"
    )]
    async fn routed(
        self: &Rc<Self>,
        local: &Rc<Local>,
        route: &Arc<Route>,
        path: &str,
        host: &str,
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        log.plan = Some(Arc::clone(&route.plan));
        authorise::network(route.plan.access.as_ref(), log.client.address)?;
        let captured = route
            .pattern
            .as_ref()
            .map(|p| p.capture(path))
            .unwrap_or_default();
        let own = match &route.doc.target {
            Target::Service(_) | Target::Services(_) => false,
            Target::Directory(_) | Target::Redirect(_) | Target::Fixed(_) => true,
        };
        if own {
            return self
                .own_target(local, route, path, host, &captured, request, stream, log)
                .await;
        }
        let (name, version) = self.choose_service(route);
        let named = local
            .table
            .named(name)
            .ok_or(missed(Miss::NoService(name)))?;
        let below = rewritten(route, path, &captured);
        let call = Call {
            name,
            named,
            version,
            below,
            plan: &route.plan,
            params: &captured,
            path,
        };
        self.call(local, call, request, stream, log).await
    }

    /// One of a route's services by weight.
    fn choose_service<'r>(&self, route: &'r Route) -> (&'r str, Option<&'r str>) {
        let total: u32 = route.services().map(|(_, _, weight)| weight).sum();
        let mut place = u32::try_from(self.dice.below(total as usize)).unwrap_or(0);
        for (name, version, weight) in route.services() {
            if place < weight {
                return (name, version);
            }
            place -= weight;
        }
        ("", None)
    }

    /// The steps from identification on, for a request that has found its service.
    async fn call(
        self: &Rc<Self>,
        local: &Rc<Local>,
        call: Call<'_>,
        mut request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        log.plan = Some(Arc::clone(call.plan));
        authorise::network(call.plan.access.as_ref(), log.client.address)?;
        if let Some(answer) = preflight(&call, &request) {
            return Ok(answer);
        }
        let public = call
            .named
            .all()
            .next()
            .is_some_and(|n| n.service.forward_credentials);
        let identity = self.identify(&request, log, public)?;
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        maintenance(local, &identity)?;
        request.body_mut().set_limit(call.plan.body_max);
        too_large(&request, call.plan.body_max)?;
        if call.named.builtin {
            return self.in_process(&call, &identity, request, log).await;
        }
        let trip = self.trip(local, &call, &identity, &request, log)?;
        self.limit_account(local, &trip, &request, log)?;
        self.cached(&trip, call.path, request, log).await
    }

    /// Who calls. A bad credential is refused, except towards services that check credentials of their own.
    fn identify(
        &self,
        request: &Request<ReqBody>,
        log: &mut Log,
        lenient: bool,
    ) -> Result<Rc<Identity>, Refusal> {
        let now_s = log.begun_us / 1_000_000;
        let identity =
            match self
                .identifier
                .identify(request.headers(), log.client.direct_loopback, now_s)
            {
                Ok(identity) => identity,
                Err(_) if lenient => self.identifier.anonymous(),
                Err(why) => {
                    tracing::debug!(reason = why.0, "a credential was refused");
                    return Err(Refusal::new(
                        StatusCode::UNAUTHORIZED,
                        "gateway.token_invalid",
                        "the credential is not valid",
                    ));
                }
            };
        log.identity = Some(Rc::clone(&identity));
        Ok(identity)
    }

    /// Tenant and service switch, version, endpoint, authorisation.
    fn trip(
        &self,
        local: &Rc<Local>,
        call: &Call<'_>,
        identity: &Rc<Identity>,
        request: &Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Trip, Refusal> {
        let principal = &*identity.principal;
        let node = call
            .named
            .of(principal.tenant)
            .ok_or(missed(Miss::NoService(call.name)))?;
        if !node.service.enabled || node.service.disabled_for.contains(&principal.tenant) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "gateway.service_disabled",
                "the service is switched off",
            ));
        }
        let header = request.headers().get(VERSION).and_then(|v| v.to_str().ok());
        let asker = Asker {
            headers: request.headers(),
            principal,
            address: log.client.address,
            dice: &self.dice,
        };
        let version = node
            .version(call.version.or(header), &asker)
            .map_err(|missing| {
                let mut more = serde_json::Map::new();
                more.insert("versions".to_owned(), json!(missing.present));
                Refusal {
                    more: Some(Box::new(more)),
                    ..Refusal::new(
                        StatusCode::NOT_FOUND,
                        "gateway.version_not_found",
                        "the service has no such version for you",
                    )
                }
            })?;
        let name = version
            .and_then(|at| node.versions.get(at))
            .map(|v| &v.name);
        log.facts.version = name.cloned();
        let endpoint = node
            .endpoints
            .find(request.method(), &call.below, name.map_or("", |n| n))
            .cloned();
        let rule = endpoint.as_ref().map(|e| &e.access);
        authorise::principal(
            principal,
            call.plan.access.as_ref(),
            rule,
            node.service.default_access,
        )?;
        let deadline = deadline(request.headers(), log.begun)?;
        let total = [
            call.plan.total,
            endpoint
                .as_ref()
                .and_then(|e| e.timeout_ms)
                .map(|ms| Duration::from_millis(u64::from(ms))),
        ];
        let total = total
            .into_iter()
            .flatten()
            .map(|t| log.begun + t)
            .chain(deadline)
            .min();
        Ok(Trip {
            local: Rc::clone(local),
            node: Arc::clone(node),
            version,
            endpoint,
            plan: Arc::clone(call.plan),
            identity: Rc::clone(identity),
            client: log.client,
            request_id: log.request_id.clone(),
            trace: log.trace.context.clone(),
            target: self.target(call, identity, request, log),
            begun: log.begun,
            begun_ms: log.begun_us / 1_000,
            deadline: total,
            tell_deadline: deadline.is_some() || call.plan.total.is_some(),
            http2: log.protocol == serve::Protocol::Http2,
        })
    }

    /// Path and query as forwarded, without the instance's base path.
    fn target(
        &self,
        call: &Call<'_>,
        identity: &Identity,
        request: &Request<ReqBody>,
        log: &Log,
    ) -> String {
        let fill = fill(identity, &log.request_id, call.params);
        let query = request.uri().query();
        let changed = plan::first(&call.plan.transforms, request.method(), call.path)
            .and_then(|t| t.query(query, &fill));
        let query = changed.as_deref().or(query);
        let mut target = String::with_capacity(call.below.len() + query.map_or(0, |q| q.len() + 1));
        target.push_str(&call.below);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        target
    }

    /// Limits of the account, the service, the route and the endpoint; the tightest is told.
    fn limit_account(
        &self,
        local: &Local,
        trip: &Trip,
        request: &Request<ReqBody>,
        log: &mut Log,
    ) -> Result<(), Refusal> {
        let principal = &*trip.identity.principal;
        let known = principal.is_authenticated();
        let endpoint = trip.endpoint.as_ref();
        let of_endpoint = endpoint
            .and_then(|e| e.limits.as_ref())
            .map(|pair| &pair[usize::from(!known)]);
        if !known && of_endpoint.is_none() && trip.plan.limits.is_empty() {
            return Ok(());
        }
        let subject = Subject {
            address: log.client.address,
            principal,
            service: &trip.plan.service,
            route: &trip.plan.route,
            endpoint: endpoint.map_or("", |e| &e.name),
            headers: request.headers(),
            claims: &trip.identity.claims,
        };
        let exempt = log.client.direct_loopback && !local.table.values.limit_loopback;
        let defaults = [&local.user, &local.user_at_once]
            .into_iter()
            .flatten()
            .filter(|_| !exempt);
        let path = request.uri().path();
        let declared = trip
            .plan
            .limits
            .iter()
            .filter(|(filter, _)| filter.fits(request.method(), path))
            .map(|(_, l)| &**l);
        let now_ns = self.gate.nanos(log.begun);
        let mut worst: Option<crate::limit::Refused> = None;
        for (limited, shown) in defaults
            .map(|l| (l, false))
            .chain(of_endpoint.into_iter().chain(declared).map(|l| (l, true)))
        {
            let Some(key) = limited.key(&self.gate.hasher, &subject) else {
                continue;
            };
            match limited.take(&self.gate.limiter, key, now_ns) {
                Ok(tightest) if shown => log.tightest = tighter(log.tightest.take(), tightest),
                Ok(_) => {}
                Err(refused)
                    if worst
                        .as_ref()
                        .is_none_or(|w| w.retry_after_s < refused.retry_after_s) =>
                {
                    worst = Some(refused)
                }
                Err(_) => {}
            }
            match limited.sit(&self.gate.concurrent, key) {
                Ok(seat) => log.seats.extend(seat),
                Err(refused) => worst = worst.or(Some(refused)),
            }
        }
        worst.map_or(Ok(()), |refused| Err(Refusal::limited(refused)))
    }

    /// A built-in service on this worker; it checks rights itself.
    async fn in_process(
        self: &Rc<Self>,
        call: &Call<'_>,
        identity: &Rc<Identity>,
        request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let router = self
            .gate
            .builtins
            .services
            .get(call.name)
            .cloned()
            .ok_or(missed(Miss::NoService(call.name)))?;
        let unsafe_method = !request.method().is_safe();
        let answer = self
            .run_router(&router, &call.below, identity, request, log)
            .await?;
        if unsafe_method && self.gate.is_behind() {
            // What was registered by this call must be routable once its answer is out.
            self.gate.settled().await;
        }
        Ok(answer)
    }

    async fn root(
        self: &Rc<Self>,
        prefix: &'static str,
        path: &str,
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let identity = self.identify(&request, log, false)?;
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        let router = self
            .gate
            .builtins
            .roots
            .iter()
            .find(|(p, _)| *p == prefix)
            .map(|(_, r)| r.clone());
        let router = router.ok_or(missed(Miss::Nothing))?;
        self.run_router(&router, path, &identity, request, log)
            .await
    }

    async fn run_router(
        self: &Rc<Self>,
        router: &axum::Router,
        path: &str,
        identity: &Rc<Identity>,
        mut request: Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        hygiene::clean_request(request.headers_mut(), log.client.proxied);
        let original = request.uri().clone();
        *request.uri_mut() = uri(path, original.query())?;
        let agent = request
            .headers()
            .get(header::USER_AGENT)
            .and_then(|v| v.to_str().ok());
        let caller = Caller {
            principal: Arc::clone(&identity.principal),
            request_id: log.request_id.to_str().unwrap_or("").into(),
            trace_id: Some(String::from_utf8_lossy(&log.trace.context.trace_id.hex()).into()),
            address: Some(log.client.address),
            agent: agent.map(|a| a[..a.floor_char_boundary(AGENT_MAX)].into()),
            direct_loopback: log.client.direct_loopback,
        };
        request.extensions_mut().insert(caller);
        request
            .extensions_mut()
            .insert(axum::extract::OriginalUri(original));
        serve::call(&self.worker, router, request, false)
            .await
            .map_err(|panicked| {
                tracing::error!(
                    message = panicked.message,
                    request_id = log.request_id.to_str().unwrap_or(""),
                    "a built-in service panicked"
                );
                Refusal::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "system.internal",
                    "something went wrong on our side",
                )
            })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, each needed by some target"
    )]
    async fn own_target(
        self: &Rc<Self>,
        local: &Rc<Local>,
        route: &Arc<Route>,
        path: &str,
        host: &str,
        params: &[(&str, &str)],
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let access = route.plan.access.as_ref();
        let needs =
            access.is_some_and(|a| !a.public && (!a.roles.is_empty() || !a.permissions.is_empty()));
        let identity = if needs {
            self.identify(&request, log, false)?
        } else {
            self.identifier.anonymous()
        };
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        maintenance(local, &identity)?;
        authorise::principal(
            &identity.principal,
            access,
            None,
            portico_contract::directory::DefaultAccess::Public,
        )?;
        match &route.doc.target {
            Target::Directory(directory) => {
                let below = rewritten_directory(route, path);
                super::files::serve(
                    directory,
                    &self.gate.file_roots,
                    &below,
                    request.method(),
                    request.headers(),
                )
                .await
            }
            Target::Redirect(to) => {
                let other = [
                    ("path", path),
                    ("query", request.uri().query().unwrap_or("")),
                    ("host", host),
                ];
                let with = Fill {
                    other: &other,
                    ..fill(&identity, &log.request_id, params)
                };
                let status =
                    StatusCode::from_u16(to.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
                Ok(redirect(
                    &super::transform::Template::parse(&to.to).fill(&with),
                    status,
                ))
            }
            Target::Fixed(fixed) => Ok(super::files::fixed(fixed)),
            Target::Service(_) | Target::Services(_) => Err(missed(Miss::Nothing)),
        }
    }
}

/// What transforms fill their templates with.
pub(super) fn fill<'a>(
    identity: &'a Identity,
    request_id: &'a HeaderValue,
    params: &'a [(&'a str, &'a str)],
) -> Fill<'a> {
    let known = identity.principal.is_authenticated();
    Fill {
        user: if known {
            &identity.principal.subject
        } else {
            ""
        },
        tenant: if known { &identity.tenant_text } else { "" },
        request_id: request_id.to_str().unwrap_or(""),
        params,
        other: &[],
    }
}

fn preflight(call: &Call<'_>, request: &Request<ReqBody>) -> Option<Response<RespBody>> {
    if call.plan.cors.is_empty() || !is_preflight(request.method(), request.headers()) {
        return None;
    }
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let method = asked.and_then(|m| Method::from_bytes(m.as_bytes()).ok())?;
    let cors = plan::first(&call.plan.cors, &method, call.path)?;
    let mut response = Response::new(RespBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // A refused preflight is answered without the headers that would allow anything.
    *response.headers_mut() = cors.preflight(request.headers()).unwrap_or_default();
    Some(response)
}

fn blocked(local: &Local, log: &Log, now: &portico_base::Timestamp) -> Result<(), Refusal> {
    let address = log.client.address;
    let hit = local.table.blocks.iter().find(|b| {
        b.until.is_none_or(|u| u > *now) && b.networks.iter().any(|n| n.contains(&address))
    });
    match hit {
        None => Ok(()),
        Some(_) => Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "gateway.blocked",
            "your address is blocked",
        )),
    }
}

fn maintenance(local: &Local, identity: &Identity) -> Result<(), Refusal> {
    let maintenance = &local.table.values.maintenance;
    if !maintenance.on
        || (maintenance.allow_admin && identity.principal.may(&ADMIN))
        || identity.principal.kind == portico_base::PrincipalKind::Operator
    {
        return Ok(());
    }
    let detail = if maintenance.message.is_empty() {
        "we are working on it".to_owned()
    } else {
        maintenance.message.clone()
    };
    Err(
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "gateway.maintenance", "")
            .with_detail(detail)
            .retry_after(60),
    )
}

fn too_large(request: &Request<ReqBody>, most: u64) -> Result<(), Refusal> {
    match request.body().remaining() {
        Some(length) if length > most => Err(Refusal::body(&crate::body::BodyError::TooLarge {
            limit: most,
        })),
        _ => Ok(()),
    }
}

/// The moment by which the client wants its answer (GW-27).
fn deadline(headers: &HeaderMap, begun: Instant) -> Result<Option<Instant>, Refusal> {
    let ms = headers
        .get(DEADLINE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse::<u64>().ok());
    let grpc = headers
        .get(GRPC_TIMEOUT)
        .and_then(|v| v.to_str().ok())
        .and_then(grpc_timeout);
    let Some(left) = ms.map(Duration::from_millis).into_iter().chain(grpc).min() else {
        return Ok(None);
    };
    if left.is_zero() {
        return Err(Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "gateway.deadline_exceeded",
            "the request's deadline has passed",
        ));
    }
    Ok(begun.checked_add(left))
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = (1..=8)
        .contains(&digits.len())
        .then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

fn missed(miss: Miss<'_>) -> Refusal {
    match miss {
        Miss::UnknownHost => Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "gateway.unknown_host",
            "this host name is not served here",
        ),
        Miss::BadPath => bad_path("the path leads out of its service"),
        Miss::NoService(name) => {
            let detail = format!(
                "there is no service \"{}\"",
                name.chars().take(60).collect::<String>()
            );
            Refusal::new(StatusCode::NOT_FOUND, "gateway.service_not_found", "").with_detail(detail)
        }
        Miss::Nothing => Refusal::new(
            StatusCode::NOT_FOUND,
            "gateway.not_found",
            "there is nothing at this path",
        ),
    }
}

fn bad_path(why: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "gateway.bad_path", "").with_detail(why.to_owned())
}

fn lower_host(host: Option<&HeaderValue>) -> Cow<'_, str> {
    let host = host.and_then(|h| h.to_str().ok()).unwrap_or("");
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        host.to_ascii_lowercase().into()
    } else {
        host.into()
    }
}

/// The path that a route's service gets.
fn rewritten<'a>(route: &Route, path: &'a str, captured: &[(&str, &str)]) -> Cow<'a, str> {
    match &route.doc.rewrite {
        None => path.into(),
        Some(Rewrite::Prefix(to)) => {
            let rest = path
                .strip_prefix(route.doc.path.text().trim_end_matches('/'))
                .unwrap_or(path);
            let joined = format!("{}{rest}", to.trim_end_matches('/'));
            if joined.is_empty() {
                "/".into()
            } else {
                joined.into()
            }
        }
        Some(Rewrite::Path(to)) => {
            let fill = Fill {
                user: "",
                tenant: "",
                request_id: "",
                params: &[],
                other: captured,
            };
            super::transform::Template::parse(to).fill(&fill).into()
        }
    }
}

/// The path below a directory: without the route's prefix.
fn rewritten_directory<'a>(route: &Route, path: &'a str) -> Cow<'a, str> {
    match &route.doc.rewrite {
        None => path
            .strip_prefix(route.doc.path.text().trim_end_matches('/'))
            .unwrap_or(path)
            .into(),
        Some(_) => rewritten(route, path, &[]),
    }
}

/// A URI of a path that was normalised, and a query as it came.
fn uri(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let text = query.map_or_else(|| path.to_owned(), |q| format!("{path}?{q}"));
    PathAndQuery::try_from(text)
        .map(Uri::from)
        .map_err(|_| bad_path("the path cannot be forwarded"))
}

fn redirect(to: &str, status: StatusCode) -> Response<RespBody> {
    let mut response = Response::new(RespBody::empty());
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn options_of_the_server() -> Response<RespBody> {
    let mut response = Response::new(RespBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read() {
        for (text, wanted) in [
            ("100m", Some(100)),
            ("2S", Some(2_000)),
            ("1H", Some(3_600_000)),
            ("1x", None),
            ("123456789m", None),
            ("S", None),
            ("", None),
        ] {
            assert_eq!(
                grpc_timeout(text),
                wanted.map(Duration::from_millis),
                "{text}"
            );
        }
        let now = Instant::now();
        let with = |value| HeaderMap::from_iter([(DEADLINE, HeaderValue::from_static(value))]);
        assert_eq!(
            deadline(&with("250"), now).unwrap(),
            Some(now + Duration::from_millis(250))
        );
        assert_eq!(
            deadline(&with("0"), now).unwrap_err().code,
            "gateway.deadline_exceeded"
        );
        assert_eq!(deadline(&with("soon"), now).unwrap(), None);
    }
}
