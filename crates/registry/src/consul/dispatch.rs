//! Which route a path names, which methods it takes, and the way of a request (C§1).

use std::sync::Arc;

use axum::body::Body;
use http::header::ALLOW;
use http::{HeaderMap, Method, Response, StatusCode};
use portico_base::{Caller, Context};
use portico_web::serve::Peer;

use super::reply::{Answer, Refused, Reply, accepts_gzip, refuse};
use super::request::{Odd, Params, Request, read_path};
use super::state::ConsulState;
use super::{access, agent, catalog, events, fixed, health, kv, sessions, txn};
use crate::domain::check::Status;

/// A route. Those whose pattern ends with a slash take the rest of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    StatusLeader,
    StatusPeers,
    AgentSelf,
    AgentMembers,
    AgentServices,
    AgentService,
    AgentChecks,
    AgentMetrics,
    AgentMonitor,
    AgentReload,
    AgentForceLeave,
    AgentMaintenance,
    ServiceRegister,
    ServiceDeregister,
    ServiceMaintenance,
    CheckRegister,
    CheckDeregister,
    CheckPass,
    CheckWarn,
    CheckFail,
    CheckUpdate,
    AgentHealthName,
    AgentHealthId,
    CatalogRegister,
    CatalogDeregister,
    CatalogDatacenters,
    CatalogNodes,
    CatalogServices,
    CatalogService,
    CatalogNode,
    CatalogNodeServices,
    Mesh,
    HealthNode,
    HealthChecks,
    HealthService,
    HealthState,
    Kv,
    SessionCreate,
    SessionDestroy,
    SessionInfo,
    SessionNode,
    SessionList,
    SessionRenew,
    Txn,
    EventFire,
    EventList,
    CoordinateNodes,
    CoordinateNode,
    CoordinateDatacenters,
    Query,
    Raft,
    Acl,
}

const GET: &[Method] = &[Method::GET];
const PUT: &[Method] = &[Method::PUT];
const ANY: &[Method] = &[Method::GET, Method::PUT, Method::POST, Method::DELETE];

/// All routes; a pattern with a final slash is a prefix.
const ROUTES: &[(&str, &[Method], Route)] = &[
    ("/v1/status/leader", GET, Route::StatusLeader),
    ("/v1/status/peers", GET, Route::StatusPeers),
    ("/v1/agent/self", GET, Route::AgentSelf),
    ("/v1/agent/members", GET, Route::AgentMembers),
    ("/v1/agent/services", GET, Route::AgentServices),
    ("/v1/agent/service/register", PUT, Route::ServiceRegister),
    (
        "/v1/agent/service/deregister/",
        PUT,
        Route::ServiceDeregister,
    ),
    (
        "/v1/agent/service/maintenance/",
        PUT,
        Route::ServiceMaintenance,
    ),
    ("/v1/agent/service/", GET, Route::AgentService),
    ("/v1/agent/checks", GET, Route::AgentChecks),
    ("/v1/agent/metrics", GET, Route::AgentMetrics),
    ("/v1/agent/monitor", GET, Route::AgentMonitor),
    ("/v1/agent/reload", PUT, Route::AgentReload),
    ("/v1/agent/force-leave/", PUT, Route::AgentForceLeave),
    ("/v1/agent/maintenance", PUT, Route::AgentMaintenance),
    ("/v1/agent/token/", PUT, Route::Acl),
    ("/v1/agent/check/register", PUT, Route::CheckRegister),
    ("/v1/agent/check/deregister/", PUT, Route::CheckDeregister),
    ("/v1/agent/check/pass/", PUT, Route::CheckPass),
    ("/v1/agent/check/warn/", PUT, Route::CheckWarn),
    ("/v1/agent/check/fail/", PUT, Route::CheckFail),
    ("/v1/agent/check/update/", PUT, Route::CheckUpdate),
    (
        "/v1/agent/health/service/name/",
        GET,
        Route::AgentHealthName,
    ),
    ("/v1/agent/health/service/id/", GET, Route::AgentHealthId),
    ("/v1/catalog/register", PUT, Route::CatalogRegister),
    ("/v1/catalog/deregister", PUT, Route::CatalogDeregister),
    ("/v1/catalog/datacenters", GET, Route::CatalogDatacenters),
    ("/v1/catalog/nodes", GET, Route::CatalogNodes),
    ("/v1/catalog/services", GET, Route::CatalogServices),
    ("/v1/catalog/service/", GET, Route::CatalogService),
    ("/v1/catalog/connect/", GET, Route::Mesh),
    ("/v1/catalog/node/", GET, Route::CatalogNode),
    (
        "/v1/catalog/node-services/",
        GET,
        Route::CatalogNodeServices,
    ),
    ("/v1/health/node/", GET, Route::HealthNode),
    ("/v1/health/checks/", GET, Route::HealthChecks),
    ("/v1/health/service/", GET, Route::HealthService),
    ("/v1/health/connect/", GET, Route::Mesh),
    ("/v1/health/ingress/", GET, Route::Mesh),
    ("/v1/health/state/", GET, Route::HealthState),
    (
        "/v1/kv/",
        &[Method::GET, Method::PUT, Method::DELETE],
        Route::Kv,
    ),
    ("/v1/session/create", PUT, Route::SessionCreate),
    ("/v1/session/destroy/", PUT, Route::SessionDestroy),
    ("/v1/session/info/", GET, Route::SessionInfo),
    ("/v1/session/node/", GET, Route::SessionNode),
    ("/v1/session/list", GET, Route::SessionList),
    ("/v1/session/renew/", PUT, Route::SessionRenew),
    ("/v1/txn", PUT, Route::Txn),
    ("/v1/event/fire/", PUT, Route::EventFire),
    ("/v1/event/list", GET, Route::EventList),
    ("/v1/coordinate/nodes", GET, Route::CoordinateNodes),
    ("/v1/coordinate/node/", GET, Route::CoordinateNode),
    (
        "/v1/coordinate/datacenters",
        GET,
        Route::CoordinateDatacenters,
    ),
    ("/v1/query", GET, Route::Query),
    ("/v1/operator/raft/configuration", GET, Route::Raft),
    ("/v1/acl/", ANY, Route::Acl),
];

/// Where a path leads.
enum Found<'a> {
    Route {
        pattern: &'static str,
        methods: &'static [Method],
        route: Route,
        rest: &'a str,
    },
    /// Only with a final slash.
    Slash,
    Nothing,
}

fn find(path: &str) -> Found<'_> {
    let exact = ROUTES
        .iter()
        .find(|(pattern, ..)| !pattern.ends_with('/') && *pattern == path);
    if let Some((pattern, methods, route)) = exact {
        return Found::Route {
            pattern,
            methods,
            route: *route,
            rest: "",
        };
    }
    // The longest prefix wins.
    let prefix = ROUTES
        .iter()
        .filter(|(pattern, ..)| pattern.ends_with('/'))
        .filter_map(|entry| path.strip_prefix(entry.0).map(|rest| (entry, rest)))
        .max_by_key(|((pattern, ..), _)| pattern.len());
    if let Some(((pattern, methods, route), rest)) = prefix {
        return Found::Route {
            pattern,
            methods,
            route: *route,
            rest,
        };
    }
    if ROUTES
        .iter()
        .any(|(pattern, ..)| pattern.strip_suffix('/') == Some(path))
    {
        return Found::Slash;
    }
    Found::Nothing
}

/// Answers a request.
pub(super) async fn serve(state: ConsulState, request: http::Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let peer = parts.extensions.get::<Peer>().copied();
    let gzip = accepts_gzip(&parts.headers);
    let (name, answer) = Box::pin(route(&state, parts, body, peer)).await;
    let reply = match answer {
        Ok(reply) => reply,
        Err(Refused(reply)) => *reply,
    };
    let class = match reply.status.as_u16() {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    state.figures.requests.with(&[name, class]).inc();
    reply.finish(gzip)
}

/// The name of the route for the figures, and the answer.
async fn route(
    state: &ConsulState,
    parts: http::request::Parts,
    body: Body,
    peer: Option<Peer>,
) -> (&'static str, Answer) {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    if let Err(refused) = access::same_site(state, &parts.headers, authority, peer.map(|p| p.local))
    {
        return ("refused", Err(refused));
    }
    let path = match read_path(&parts.uri) {
        Ok(path) => path,
        Err(Odd::Unclean(to)) => return ("moved", Ok(Reply::moved(&to))),
        Err(Odd::Unreadable) => return ("refused", refuse(400, "the path is not UTF-8")),
    };
    let (pattern, methods, route, rest) = match find(&path) {
        Found::Route {
            pattern,
            methods,
            route,
            rest,
        } => (pattern, methods, route, rest.to_owned()),
        Found::Slash => {
            let query = parts
                .uri
                .query()
                .map(|q| format!("?{q}"))
                .unwrap_or_default();
            return ("moved", Ok(Reply::moved(&format!("{path}/{query}"))));
        }
        Found::Nothing if path == "/" => return ("moved", Ok(Reply::moved("/ui/"))),
        Found::Nothing => return ("unknown", Ok(Reply::bare(StatusCode::NOT_FOUND))),
    };
    if parts.method == Method::OPTIONS {
        return (pattern, Ok(Reply::empty().header(ALLOW, &allow(methods))));
    }
    if !methods.contains(&parts.method) {
        let text = format!("method {} not allowed", parts.method);
        return (
            pattern,
            Ok(Reply::text(405, text).header(ALLOW, &allow(methods))),
        );
    }
    let params = Params::parse(parts.uri.query().unwrap_or_default());
    let remote = peer.map(|p| p.remote);
    let principal = match access::identify(state, &parts.headers, &params, remote).await {
        Ok(principal) => principal,
        Err(refused) => return (pattern, Err(refused)),
    };
    let cx = context(state, principal, &parts.headers, peer);
    let request = Request::new(parts.method, params, parts.headers, body, cx);
    (pattern, run(state, route, request, &rest).await)
}

/// `OPTIONS` first, commas without spaces.
fn allow(methods: &[Method]) -> String {
    let mut out = "OPTIONS".to_owned();
    for method in methods {
        out.push(',');
        out.push_str(method.as_str());
    }
    out
}

fn context(
    state: &ConsulState,
    principal: Arc<portico_base::Principal>,
    headers: &HeaderMap,
    peer: Option<Peer>,
) -> Context {
    let (clock, random) = (
        Arc::clone(&state.core.clock),
        Arc::clone(&state.core.random),
    );
    let request_id = portico_base::id::new_id(&*clock, &*random).to_string();
    let agent = headers
        .get(http::header::USER_AGENT)
        .and_then(|v| v.to_str().ok());
    let address = peer.map(|p| p.remote.ip().to_canonical());
    Context {
        caller: Caller {
            principal,
            request_id: Arc::from(request_id),
            trace_id: None,
            address,
            agent: agent.map(|a| Arc::from(a.chars().take(200).collect::<String>())),
            direct_loopback: address.is_none_or(|ip| ip.is_loopback()),
        },
        clock,
        random,
    }
}

/// Each way is on the heap: whoever waits for minutes must not hold the room of the largest one.
async fn run(state: &ConsulState, route: Route, mut r: Request, rest: &str) -> Answer {
    match route {
        Route::Kv => match r.method {
            Method::GET => Box::pin(kv::get(state, &r, rest)).await,
            Method::PUT => Box::pin(kv::put(state, &mut r, rest)).await,
            _ => Box::pin(kv::delete(state, &r, rest)).await,
        },
        Route::SessionCreate => Box::pin(sessions::create(state, &mut r)).await,
        Route::SessionDestroy => Box::pin(sessions::destroy(state, &r, rest)).await,
        Route::SessionInfo => Box::pin(sessions::info(state, &r, rest)).await,
        Route::SessionNode => Box::pin(sessions::list(state, &r, Some(rest))).await,
        Route::SessionList => Box::pin(sessions::list(state, &r, None)).await,
        Route::SessionRenew => Box::pin(sessions::renew(state, &r, rest)).await,
        Route::Txn => Box::pin(txn::put(state, &mut r)).await,
        Route::EventFire => Box::pin(events::fire(state, &mut r, rest)).await,
        Route::EventList => Box::pin(events::list(state, &r)).await,
        Route::CatalogRegister => Box::pin(catalog::register(state, &mut r)).await,
        Route::CatalogDeregister => Box::pin(catalog::deregister(state, &mut r)).await,
        Route::CatalogDatacenters => catalog::datacenters(state, &r),
        Route::CatalogNodes => Box::pin(catalog::nodes(state, &r)).await,
        Route::CatalogServices => Box::pin(catalog::services(state, &r)).await,
        Route::CatalogService => Box::pin(catalog::service(state, &r, rest)).await,
        Route::CatalogNode => Box::pin(catalog::node(state, &r, rest)).await,
        Route::CatalogNodeServices => Box::pin(catalog::node_services(state, &r, rest)).await,
        Route::HealthNode => Box::pin(health::node(state, &r, rest)).await,
        Route::HealthChecks => Box::pin(health::checks(state, &r, rest)).await,
        Route::HealthService => Box::pin(health::service(state, &r, rest)).await,
        Route::HealthState => Box::pin(health::state_of(state, &r, rest)).await,
        Route::Mesh => health::nobody(state, &r, rest),
        Route::Acl => refuse(401, "ACL support disabled"),
        other => Box::pin(agent_or_fixed(state, other, r, rest)).await,
    }
}

async fn agent_or_fixed(state: &ConsulState, route: Route, mut r: Request, rest: &str) -> Answer {
    match route {
        Route::AgentServices => agent::services(state, &r),
        Route::AgentService => Box::pin(agent::service(state, &r, rest)).await,
        Route::AgentChecks => agent::checks(state, &r),
        Route::ServiceRegister => Box::pin(agent::register_service(state, &mut r)).await,
        Route::ServiceDeregister => Box::pin(agent::deregister_service(state, &r, rest)).await,
        Route::ServiceMaintenance => Box::pin(agent::service_maintenance(state, &r, rest)).await,
        Route::AgentMaintenance => Box::pin(agent::node_maintenance(state, &r)).await,
        Route::CheckRegister => Box::pin(agent::register_check(state, &mut r)).await,
        Route::CheckDeregister => Box::pin(agent::deregister_check(state, &r, rest)).await,
        Route::CheckPass => Box::pin(agent::report(state, &r, rest, Status::Passing)).await,
        Route::CheckWarn => Box::pin(agent::report(state, &r, rest, Status::Warning)).await,
        Route::CheckFail => Box::pin(agent::report(state, &r, rest, Status::Critical)).await,
        Route::CheckUpdate => Box::pin(agent::update_check(state, &mut r, rest)).await,
        Route::AgentHealthName => agent::health_by_name(state, &r, rest),
        Route::AgentHealthId => agent::health_by_id(state, &r, rest),
        Route::StatusLeader => fixed::leader(state, &r),
        Route::StatusPeers => fixed::peers(state, &r),
        Route::AgentSelf => fixed::me(state, &r),
        Route::AgentMembers => fixed::members(state, &r),
        Route::AgentMetrics => fixed::metrics(state, &r),
        Route::AgentMonitor => fixed::monitor(&r),
        Route::AgentReload => fixed::reload(&r),
        Route::AgentForceLeave => fixed::force_leave(&r, rest),
        Route::CoordinateNodes => fixed::coordinates(state, &r, None),
        Route::CoordinateNode => fixed::coordinates(state, &r, Some(rest)),
        Route::CoordinateDatacenters => fixed::coordinate_datacenters(state, &r),
        Route::Query => fixed::queries(state, &r),
        Route::Raft => fixed::raft(state, &r),
        _ => Ok(Reply::bare(StatusCode::NOT_FOUND)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        let named = |path| match find(path) {
            Found::Route { route, rest, .. } => Some((route, rest)),
            _ => None,
        };
        assert_eq!(named("/v1/kv/a/b/c"), Some((Route::Kv, "a/b/c")));
        assert_eq!(named("/v1/kv/"), Some((Route::Kv, "")));
        assert_eq!(
            named("/v1/agent/service/register"),
            Some((Route::ServiceRegister, ""))
        );
        assert_eq!(
            named("/v1/agent/service/web/1"),
            Some((Route::AgentService, "web/1"))
        );
        assert_eq!(
            named("/v1/agent/service/deregister/x"),
            Some((Route::ServiceDeregister, "x"))
        );
        assert_eq!(named("/v1/catalog/services/"), None);
        assert!(matches!(find("/v1/kv"), Found::Slash));
        assert!(matches!(find("/v1/nothing"), Found::Nothing));
        assert_eq!(allow(&[Method::GET]), "OPTIONS,GET");
    }

    #[test]
    fn patterns_are_unique() {
        let mut patterns: Vec<&str> = ROUTES.iter().map(|(pattern, ..)| *pattern).collect();
        patterns.sort_unstable();
        let before = patterns.len();
        patterns.dedup();
        assert_eq!(patterns.len(), before);
    }
}
