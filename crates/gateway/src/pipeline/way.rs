//! The steps of GW-20 in their order, from the address limit to the service that answers.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use portico_contract::services::PLATFORM;
use portico_telemetry::logs::in_scope_if;
use serde_json::json;
use smallvec::SmallVec;

use super::authorise;
use super::between::Came;
use super::caller::{Strange, Towards, no_key_in_query};
use super::cors::is_preflight;
use super::deadline::deadline;
use super::door::{Door, Local};
use super::entrance::INTERNAL;
use super::forward::Trip;
use super::record::Log;
use super::refusal::Refusal;
use super::target::{redirect, rewritten};
use super::transform::Fill;
use crate::body::{ReqBody, RespBody};
use crate::identify::Identity;
use crate::limit::{Limited, Subject, tighter};
use crate::objects::doc::Target;
use crate::route::endpoints::EndpointRule;
use crate::route::host::{HostKind, without_port};
use crate::route::house::HouseRoute;
use crate::route::path::normalise;
use crate::route::plan::{self, Plan};
use crate::route::release::{Asker, VersionNotFound};
use crate::route::service::ServiceNode;
use crate::route::table::{Ask, Found, Miss, Named, Route};
use crate::serve::{self, Stream};

const VERSION: HeaderName = HeaderName::from_static("x-service-version");
const ADMIN: portico_base::Permission = portico_base::Permission::new("gateway:route:write");

/// A request on its way to a service.
pub(super) struct Call<'a> {
    pub(super) name: &'a str,
    pub(super) named: &'a Arc<Named>,
    pub(super) version: Option<&'a str>,
    /// Path below the service, normalised.
    pub(super) below: Cow<'a, str>,
    pub(super) plan: &'a Arc<Plan>,
    pub(super) params: &'a [(&'a str, &'a str)],
    /// As the client sent it, normalised.
    pub(super) path: &'a str,
    /// Lower case, with the port as sent.
    pub(super) host: &'a str,
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
        let listener = stream.conn.listener;
        log.between = listener == INTERNAL;
        self.limit_address(local, log)?;
        if !local.table.blocks.is_empty() {
            blocked(local, log, &self.gate.clock.now())?;
        }
        let now_s = log.begun_us / 1_000_000;
        self.gate.entrance.admits(log.client.address, now_s)?;
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
        no_key_in_query(uri.query())?;
        let path = normalise(uri.path().as_bytes()).map_err(|why| bad_path(&why.to_string()))?;
        if path.as_str() != uri.path() {
            log.path = Some(path.as_str().into());
        }
        let host_value = log.host.clone();
        let host = lower_host(host_value.as_ref());
        log.kind = self.kind_of_host(local, listener, &host);
        if log.kind == Some(HostKind::Admin) {
            self.manages(local, listener, log)?;
        }
        let ask = Ask {
            host: without_port(&host),
            kind: log.kind,
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
                let call = Call {
                    name,
                    named,
                    version,
                    below: below.into(),
                    plan: &named.plan,
                    params: &[],
                    path: path.as_str(),
                    host: &host,
                };
                self.call(local, call, request, stream, log).await
            }
            // Services call each other by name, and nothing else is there.
            Ok(_) if listener == INTERNAL => Err(missed(Miss::Nothing)),
            Ok(Found::Route(route)) => {
                self.routed(local, route, path.as_str(), &host, request, stream, log)
                    .await
            }
            Ok(Found::Root(prefix)) => {
                let at = (prefix, path.as_str(), &*host);
                self.root(local, at, request, stream, log).await
            }
            Ok(Found::Home(page)) => Ok(redirect(page, StatusCode::FOUND)),
            Err(miss) => Err(missed(miss)),
        }
    }

    /// What a host is for. By the listener between services every host is ours, and so is one that a tenant
    /// is bound to.
    fn kind_of_host(&self, local: &Local, listener: &str, host: &str) -> Option<HostKind> {
        if listener == INTERNAL {
            return Some(HostKind::Whole);
        }
        local.host_kind(host).or_else(|| {
            let bound = self.identifier.tenant_of_host(without_port(host));
            bound.map(|_| HostKind::Whole)
        })
    }

    fn limit_address(&self, local: &Local, log: &Log) -> Result<(), Refusal> {
        self.take(local, local.address.as_ref(), log)
    }

    fn limit_auth(&self, local: &Local, log: &Log) -> Result<(), Refusal> {
        self.take(local, local.auth.as_ref(), log)
    }

    /// Takes one request out of a limit that concerns nothing but the client's address.
    fn take(&self, local: &Local, limited: Option<&Limited>, log: &Log) -> Result<(), Refusal> {
        let Some(limited) = limited.filter(|_| !is_exempt(local, log)) else {
            return Ok(());
        };
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
        let Some(key) = limited.key(&self.gate.hasher, &address) else {
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
            host,
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
        let house = { call.named.builtin }
            .then(|| self.house_route(&call, request.method()))
            .flatten();
        if !house.is_some_and(|route| route.foreign) {
            foreign_origin(local, &call, &request)?;
        }
        if house.is_some_and(|route| route.admin) {
            self.manages(local, stream.conn.listener, log)?;
        }
        let identity = self.identify(local, &towards(&call), &request, log).await?;
        let identity = self.between(
            local,
            came(stream),
            (&call.named.plan.service, &call.below),
            request.method(),
            identity,
            log,
        )?;
        if house.is_some_and(|route| !route.public) && !identity.principal.is_authenticated() {
            return Err(Refusal::nobody());
        }
        self.fresh_enough(&identity, house.is_some_and(|route| route.sensitive))?;
        if !identity.principal.is_authenticated() && log.kind == Some(HostKind::Auth) {
            self.limit_auth(local, log)?;
        }
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        maintenance(local, &identity)?;
        request.body_mut().set_limit(call.plan.body_max);
        too_large(&request, call.plan.body_max)?;
        if call.named.builtin {
            house_is_on(&call, &identity)?;
            self.limit_account(local, call.plan, None, &identity, &request, log)?;
            return self.in_process(&call, &identity, request, log).await;
        }
        let trip = self.trip(local, &call, &identity, &request, stream, log)?;
        log.foreign = true;
        self.limit_account(
            local,
            &trip.plan,
            trip.endpoint.as_ref(),
            &identity,
            &request,
            log,
        )?;
        let kept = self.kept_context(log, call.name);
        in_scope_if(kept, self.cached(&trip, call.path, request, log)).await
    }

    /// What is known of a built-in route before anybody is identified.
    fn house_route(&self, call: &Call<'_>, method: &Method) -> Option<&HouseRoute> {
        let house = &self.gate.entrance.house;
        house.find(call.name, method, &call.below)
    }

    fn manages(&self, local: &Local, listener: &str, log: &Log) -> Result<(), Refusal> {
        let now_s = log.begun_us / 1_000_000;
        let networks = local.table.values.console_networks.as_deref();
        self.gate
            .entrance
            .manages(listener, networks, &log.client, now_s)
    }

    /// Tenant and service switch, version, endpoint, authorisation.
    fn trip(
        &self,
        local: &Rc<Local>,
        call: &Call<'_>,
        identity: &Rc<Identity>,
        request: &Request<ReqBody>,
        stream: &Stream,
        log: &mut Log,
    ) -> Result<Trip, Refusal> {
        let principal = &*identity.principal;
        let node = switched_on(call, identity)?;
        let header = request.headers().get(VERSION).and_then(|v| v.to_str().ok());
        let asker = Asker {
            headers: request.headers(),
            principal,
            address: log.client.address,
            dice: &self.dice,
        };
        let version = node
            .version(call.version.or(header), &asker)
            .map_err(|missing| no_version(&missing))?;
        let name = version
            .and_then(|at| node.versions.get(at))
            .map(|v| &v.name);
        log.facts.version = name.cloned();
        let endpoint = node
            .endpoints
            .find(request.method(), &call.below, name.map_or("", |n| n))
            .cloned();
        let rule = endpoint.as_ref().map(|e| &e.access);
        let asked = rule.map_or(&[][..], |r| &r.permissions);
        if self.gate.entrance.house.is_admin(call.name, asked) {
            self.manages(local, stream.conn.listener, log)?;
        }
        authorise::principal(
            principal,
            call.plan.access.as_ref(),
            rule,
            node.service.default_access,
        )?;
        let asked = deadline(request.headers(), log.begun)?;
        let own = endpoint.as_ref().and_then(|e| e.timeout_ms);
        let total = earliest(log.begun, call.plan.total, own, asked);
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
            path: if call.plan.transforms.is_empty() {
                Box::default()
            } else {
                call.path.into()
            },
            begun: log.begun,
            begun_ms: log.begun_us / 1_000,
            deadline: total,
            tell_deadline: asked.is_some() || call.plan.total.is_some(),
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
        plan: &Plan,
        endpoint: Option<&Arc<EndpointRule>>,
        identity: &Identity,
        request: &Request<ReqBody>,
        log: &mut Log,
    ) -> Result<(), Refusal> {
        let principal = &*identity.principal;
        let known = principal.is_authenticated();
        let of_endpoint = endpoint
            .and_then(|e| e.limits.as_ref())
            .map(|pair| &pair[usize::from(!known)]);
        if !known && of_endpoint.is_none() && plan.limits.is_empty() {
            return Ok(());
        }
        let subject = Subject {
            address: log.client.address,
            principal,
            service: &plan.service,
            route: &plan.route,
            endpoint: endpoint.map_or("", |e| &e.name),
            headers: request.headers(),
            claims: &identity.claims,
        };
        let exempt = is_exempt(local, log);
        let defaults = [&local.user, &local.user_at_once]
            .into_iter()
            .flatten()
            .filter(|_| !exempt);
        let declared: SmallVec<[&Limited; 4]> = plan
            .limits
            .iter()
            .filter(|(filter, _)| filter.fits(request.method(), log.path()))
            .map(|(_, l)| &**l)
            .collect();
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
}

/// The service of a name in the caller's tenant, which may have switched it off (GW-17).
fn switched_on<'a>(call: &Call<'a>, identity: &Identity) -> Result<&'a Arc<ServiceNode>, Refusal> {
    let tenant = identity.principal.tenant;
    let node = call
        .named
        .of(tenant)
        .ok_or(missed(Miss::NoService(call.name)))?;
    if node.is_on_for(tenant) {
        Ok(node)
    } else {
        Err(switched_off())
    }
}

/// An application of the house can be switched off as well; what the platform stands on cannot, for nobody
/// could switch it on again.
fn house_is_on(call: &Call<'_>, identity: &Identity) -> Result<(), Refusal> {
    let tenant = identity.principal.tenant;
    let node = call.named.of(tenant);
    if PLATFORM.contains(&call.name) || node.is_none_or(|node| node.is_on_for(tenant)) {
        Ok(())
    } else {
        Err(switched_off())
    }
}

fn switched_off() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "gateway.service_disabled",
        "the service is switched off",
    )
}

/// The limits that hold for everybody do not hold for this machine, nor between services.
fn is_exempt(local: &Local, log: &Log) -> bool {
    log.between || (log.client.direct_loopback && !local.table.values.limit_loopback)
}

fn towards<'a>(call: &Call<'a>) -> Towards<'a> {
    let own = call.named.all().next();
    let strange = match own {
        // Whoever logs in may still carry what has ended.
        _ if call.named.builtin => Strange::Doubt,
        Some(node) if node.service.forward_credentials => Strange::Leave,
        _ => Strange::Refuse,
    };
    Towards {
        service: call.name,
        host: call.host,
        strange,
    }
}

fn came(stream: &Stream) -> Came {
    if stream.conn.listener == INTERNAL {
        Came::Internal
    } else {
        Came::Public
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

/// A page of somebody else's may not speak to services unless a rule lets it (`gateway.cors`).
fn foreign_origin(
    local: &Local,
    call: &Call<'_>,
    request: &Request<ReqBody>,
) -> Result<(), Refusal> {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return Ok(());
    };
    let text = origin.to_str().unwrap_or("").to_ascii_lowercase();
    let theirs = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or("");
    let plain = |host: &str| {
        let host = host.strip_suffix(":443").unwrap_or(host);
        host.strip_suffix(":80").unwrap_or(host).to_owned()
    };
    let own = !theirs.is_empty()
        && (plain(theirs) == plain(call.host) || local.table.hosts.is_house(without_port(theirs)));
    let mut rules = call
        .plan
        .cors
        .iter()
        .filter(|(filter, _)| filter.fits(request.method(), call.path));
    if own || rules.any(|(_, cors)| cors.allows(origin)) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "gateway.origin_not_allowed",
        "pages of this origin may not use the service",
    ))
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

pub(super) fn maintenance(local: &Local, identity: &Identity) -> Result<(), Refusal> {
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

/// Names the versions that the caller may know of.
fn no_version(missing: &VersionNotFound) -> Refusal {
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
}

pub(super) fn missed(miss: Miss<'_>) -> Refusal {
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

pub(super) fn bad_path(why: &str) -> Refusal {
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

fn options_of_the_server() -> Response<RespBody> {
    let mut response = Response::new(RespBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(
        header::ALLOW,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    response
}

/// The end of a request: the earliest of what route, endpoint and client allow.
fn earliest(
    begun: Instant,
    route: Option<Duration>,
    endpoint_ms: Option<u32>,
    asked: Option<Instant>,
) -> Option<Instant> {
    let endpoint = endpoint_ms.map(|ms| Duration::from_millis(u64::from(ms)));
    let limits = [route, endpoint].into_iter().flatten();
    limits.map(|limit| begun + limit).chain(asked).min()
}
