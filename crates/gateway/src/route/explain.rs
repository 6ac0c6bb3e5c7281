//! Which route, checks, limits, version and instance a request would meet, without sending it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Method};
use portico_base::{Permission, Principal, PrincipalKind, Timestamp};
use serde::Serialize;

use super::endpoints::EndpointRule;
use super::host::without_port;
use super::path::normalise;
use super::plan::{self, Plan};
use super::release::Asker;
use super::service::{InstanceNode, ServiceNode, VersionNode};
use super::table::{Ask, Found, Miss, Route, Table};
use crate::balance::Dice;
use crate::cache::{Mode, RulePolicy};
use crate::objects::doc::Target;
use crate::pipeline::authorise;
use crate::pipeline::refusal::Refusal;
use crate::pipeline::target::rewritten;

/// Whoever holds it passes while the house is closed for maintenance.
const ADMIN: Permission = Permission::new("gateway:route:write");

/// The request to explain.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub method: &'a Method,
    /// With or without a port.
    pub host: &'a str,
    /// As a client would send it, without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub principal: &'a Principal,
    pub address: IpAddr,
    /// By the gate's own clock.
    pub now_ms: u64,
}

/// What it would meet.
#[derive(Debug, Default, Serialize, PartialEq, utoipa::ToSchema)]
#[schema(as = GatewayExplanation)]
pub struct Explanation {
    /// Path that routing, authorisation and the service agree on.
    pub path: Option<String>,
    pub route: Option<String>,
    pub service: Option<String>,
    /// The service runs in this process; its own routes decide about access.
    pub builtin: bool,
    /// Path as the service gets it, without the instance's base path.
    pub forwarded: Option<String>,
    pub version: Option<String>,
    /// Versions that are there, best first.
    pub versions: Vec<String>,
    /// Instances that could be chosen.
    pub instances: Vec<Candidate>,
    /// The one that would be chosen if they stay as they are; policies that draw lots may draw another.
    pub instance: Option<String>,
    pub endpoint: Option<String>,
    /// Limits that would count it.
    pub limits: Vec<Counted>,
    /// A rule says that answers are cached.
    pub cached: bool,
    pub attempts: u8,
    /// What would be answered without asking a service.
    pub refused: Option<Refused>,
    /// What was decided, in the order of a request's way, up to a refusal.
    pub steps: Vec<Step>,
}

/// One decision on the way.
#[derive(Debug, Serialize, PartialEq, utoipa::ToSchema)]
#[schema(as = GatewayExplanationStep)]
pub struct Step {
    /// `path`, `host`, `blocked`, `route`, `network`, `caller`, `maintenance`, `service`, `version`,
    /// `endpoint`, `access`, `limits`, `cache`, `breaker` or `instance`.
    pub step: &'static str,
    /// The request goes on.
    pub passes: bool,
    /// Why, for people.
    pub why: String,
}

/// A limit that counts the request.
#[derive(Debug, Serialize, PartialEq, utoipa::ToSchema)]
#[schema(as = GatewayExplanationLimit)]
pub struct Counted {
    pub name: String,
    /// What it counts by.
    pub by: &'static str,
}

/// An instance and its present standing.
#[derive(Debug, Serialize, PartialEq, utoipa::ToSchema)]
#[schema(as = GatewayExplanationInstance)]
pub struct Candidate {
    pub id: String,
    pub address: String,
    pub weight: u16,
    pub in_flight: u32,
    /// Peak-EWMA in microseconds, when it is known.
    pub latency_us: Option<u64>,
    pub breaker: &'static str,
    pub ejected: bool,
}

/// An answer of the gateway's own.
#[derive(Debug, Serialize, PartialEq, utoipa::ToSchema)]
#[schema(as = GatewayExplanationRefusal)]
pub struct Refused {
    pub status: u16,
    pub code: &'static str,
}

impl Explanation {
    /// Adds a decision after which the request goes on.
    pub(crate) fn pass(&mut self, step: &'static str, why: impl Into<String>) {
        self.steps.push(Step {
            step,
            passes: true,
            why: why.into(),
        });
    }

    /// Adds the decision that ends its way.
    pub(crate) fn stop(
        &mut self,
        step: &'static str,
        status: u16,
        code: &'static str,
        why: impl Into<String>,
    ) {
        self.steps.push(Step {
            step,
            passes: false,
            why: why.into(),
        });
        self.refused = Some(Refused { status, code });
    }

    fn refuse(&mut self, step: &'static str, refusal: &Refusal) {
        let why = refusal.detail.to_string();
        self.stop(step, refusal.status.as_u16(), refusal.code, why);
    }
}

/// Explains a request.
#[must_use]
pub fn explain(table: &Table, q: &Question<'_>) -> Explanation {
    explain_at(table, q, None)
}

/// Explains a request at a moment, on which blocks of addresses depend.
#[must_use]
pub fn explain_at(table: &Table, q: &Question<'_>, now: Option<Timestamp>) -> Explanation {
    let mut told = Explanation::default();
    // The answer is what the steps found before one of them ended it.
    let _ended = blocked(table, q, &mut told, now).and_then(|()| walk(table, q, &mut told));
    told
}

/// Nothing when a step ended the way.
fn walk(table: &Table, q: &Question<'_>, told: &mut Explanation) -> Option<()> {
    let path = match normalise(q.path.as_bytes()) {
        Ok(path) => path,
        Err(why) => return end(told, "path", 400, "gateway.bad_path", &why.to_string()),
    };
    told.path = Some(path.as_str().to_owned());
    told.pass("path", format!("the path is {}", path.as_str()));
    let host = q.host.to_ascii_lowercase();
    let kind = table.hosts.find(without_port(&host));
    if kind.is_none() {
        let why = format!("the host {} is not served here", without_port(&host));
        return end(told, "host", 421, "gateway.unknown_host", &why);
    }
    told.pass(
        "host",
        format!("the host {} is served", without_port(&host)),
    );
    let ask = Ask {
        host: without_port(&host),
        kind,
        path: &path,
        query: q.query,
        method: q.method,
        headers: q.headers,
    };
    match table.find(&ask) {
        Err(miss) => missed(told, miss),
        Ok(Found::Root(prefix)) => {
            told.route = Some(prefix.to_owned());
            told.pass("route", format!("{prefix} is a page of the house"));
            caller(q, told);
            Some(())
        }
        Ok(Found::Home(page)) => {
            told.route = Some(page.to_owned());
            told.pass(
                "route",
                format!("nothing is here: the answer leads to {page}"),
            );
            Some(())
        }
        Ok(Found::Route(route)) => written(table, q, told, route),
        Ok(Found::Service {
            name,
            named,
            version,
            below,
        }) => {
            told.route = Some(named.plan.route.to_string());
            told.service = Some(name.to_owned());
            told.forwarded = Some(below.to_owned());
            told.pass("route", format!("the service {name} by its name"));
            network(q, told, &named.plan)?;
            caller(q, told);
            maintenance(table, q, told)?;
            if named.builtin {
                told.builtin = true;
                told.pass("service", format!("{name} runs in this process"));
                return Some(());
            }
            match named.of(q.principal.tenant) {
                None => no_service(told, name),
                Some(node) => service(table, q, told, node, &named.plan, version),
            }
        }
    }
}

fn end(
    told: &mut Explanation,
    step: &'static str,
    status: u16,
    code: &'static str,
    why: &str,
) -> Option<()> {
    told.stop(step, status, code, why);
    None
}

fn missed(told: &mut Explanation, miss: Miss<'_>) -> Option<()> {
    match miss {
        Miss::UnknownHost => end(
            told,
            "host",
            421,
            "gateway.unknown_host",
            "this host name is not served here",
        ),
        Miss::BadPath => end(
            told,
            "route",
            400,
            "gateway.bad_path",
            "the path leads out of its service",
        ),
        Miss::NoService(name) => no_service(told, name),
        Miss::Nothing => end(
            told,
            "route",
            404,
            "gateway.not_found",
            "no route and no service takes this path",
        ),
    }
}

fn no_service(told: &mut Explanation, name: &str) -> Option<()> {
    let why = format!("the caller's tenant has no service {name}, and there is no global one");
    end(told, "service", 404, "gateway.service_not_found", &why)
}

fn blocked(
    table: &Table,
    q: &Question<'_>,
    told: &mut Explanation,
    now: Option<Timestamp>,
) -> Option<()> {
    let hit = table.blocks.iter().find(|b| {
        b.until
            .is_none_or(|until| now.is_none_or(|now| until > now))
            && b.networks.iter().any(|n| n.contains(&q.address))
    });
    if let Some(block) = hit {
        let why = format!("{} is blocked: {}", q.address, block.reason);
        return end(told, "blocked", 403, "gateway.blocked", &why);
    }
    told.pass("blocked", format!("{} is not blocked", q.address));
    Some(())
}

fn network(q: &Question<'_>, told: &mut Explanation, plan: &Plan) -> Option<()> {
    if let Err(refusal) = authorise::network(plan.access.as_ref(), q.address) {
        told.refuse("network", &refusal);
        return None;
    }
    told.pass("network", format!("the route serves {}", q.address));
    Some(())
}

fn caller(q: &Question<'_>, told: &mut Explanation) {
    let principal = q.principal;
    let why = if principal.is_authenticated() {
        let roles = if principal.roles.is_empty() {
            "no role".to_owned()
        } else {
            format!("the roles {}", principal.roles.join(", "))
        };
        format!(
            "{} {} of tenant {} with {roles}",
            principal.kind.as_str(),
            principal.subject,
            principal.tenant
        )
    } else {
        "nobody is known".to_owned()
    };
    told.pass("caller", why);
}

fn maintenance(table: &Table, q: &Question<'_>, told: &mut Explanation) -> Option<()> {
    let set = &table.values.maintenance;
    let passes =
        (set.allow_admin && q.principal.may(&ADMIN)) || q.principal.kind == PrincipalKind::Operator;
    match (set.on, passes) {
        (false, _) => Some(()),
        (true, true) => {
            told.pass("maintenance", "it is on, and the caller passes");
            Some(())
        }
        (true, false) => end(
            told,
            "maintenance",
            503,
            "gateway.maintenance",
            "the setting gateway.maintenance is on",
        ),
    }
}

/// A written route.
fn written(table: &Table, q: &Question<'_>, told: &mut Explanation, route: &Route) -> Option<()> {
    told.route = Some(route.name.to_string());
    told.pass("route", format!("the written route {}", route.name));
    network(q, told, &route.plan)?;
    caller(q, told);
    maintenance(table, q, told)?;
    let target = match &route.doc.target {
        Target::Service(_) | Target::Services(_) => None,
        Target::Directory(_) => Some("files of a directory"),
        Target::Redirect(_) => Some("a redirect"),
        Target::Fixed(_) => Some("a fixed answer"),
    };
    if let Some(target) = target {
        let access = route.plan.access.as_ref();
        let open = portico_contract::directory::DefaultAccess::Public;
        if let Err(refusal) = authorise::principal(q.principal, access, None, open) {
            told.refuse("access", &refusal);
            return None;
        }
        told.pass("access", "the route lets the caller through");
        told.pass("service", format!("the route gives {target} itself"));
        return Some(());
    }
    // Of several the one with the largest share; the others are in the route itself.
    let (name, version, _) = route.services().max_by_key(|(_, _, weight)| *weight)?;
    told.service = Some(name.to_owned());
    let path = told.path.clone().unwrap_or_default();
    let captured = route.pattern.as_ref().map(|p| p.capture(&path));
    let below = rewritten(route, &path, &captured.unwrap_or_default());
    told.forwarded = Some(below.into_owned());
    let named = table.named(name);
    match named.and_then(|named| named.of(q.principal.tenant)) {
        None => no_service(told, name),
        Some(node) => service(table, q, told, node, &route.plan, version),
    }
}

fn service(
    table: &Table,
    q: &Question<'_>,
    told: &mut Explanation,
    node: &ServiceNode,
    plan: &Plan,
    version: Option<&str>,
) -> Option<()> {
    told.versions = node
        .version_names()
        .iter()
        .map(ToString::to_string)
        .collect();
    told.attempts = plan.attempts;
    let name = &node.service.key.name;
    if !node.service.enabled || node.service.disabled_for.contains(&q.principal.tenant) {
        let why = format!("{name} is switched off for the caller's tenant");
        return end(told, "service", 403, "gateway.service_disabled", &why);
    }
    told.pass(
        "service",
        format!("{name} is switched on for the caller's tenant"),
    );
    let chosen = choose_version(q, told, node, version)?;
    let below = told.forwarded.clone().unwrap_or_default();
    let version = told.version.clone().unwrap_or_default();
    let endpoint = node.endpoints.find(q.method, &below, &version);
    told.endpoint = endpoint.map(|e| e.name.to_string());
    told.pass(
        "endpoint",
        match endpoint {
            Some(endpoint) => format!("the service declares {}", endpoint.name),
            None => format!("{} {below} is not declared", q.method),
        },
    );
    access(q, told, node, plan, endpoint)?;
    limits(table, q, told, plan, endpoint);
    cache(table, q, told, plan, endpoint);
    instance(q, told, node, chosen)
}

fn choose_version<'n>(
    q: &Question<'_>,
    told: &mut Explanation,
    node: &'n ServiceNode,
    version: Option<&str>,
) -> Option<Option<&'n VersionNode>> {
    let asker = Asker {
        headers: q.headers,
        principal: q.principal,
        address: q.address,
        dice: &Dice::new(0),
    };
    let header = q.headers.get("x-service-version");
    let wanted = version.or(header.and_then(|v| v.to_str().ok()));
    let Ok(at) = node.version(wanted, &asker) else {
        let why = "the caller asks for a version that is not there for it";
        told.stop("version", 404, "gateway.version_not_found", why);
        return None;
    };
    let chosen = at.and_then(|at| node.versions.get(at));
    told.version = chosen.map(|v| v.name.to_string());
    let name = told.version.as_deref().unwrap_or("none");
    let why = match (wanted, node.split.candidate()) {
        (Some(wanted), _) => format!("{wanted} was asked for: {name}"),
        (None, Some(candidate)) => {
            format!(
                "the release gives {candidate} {} %: {name}",
                node.split.weight()
            )
        }
        (None, None) => format!("{name} stands for the service"),
    };
    told.pass("version", why);
    Some(chosen)
}

fn access(
    q: &Question<'_>,
    told: &mut Explanation,
    node: &ServiceNode,
    plan: &Plan,
    endpoint: Option<&Arc<EndpointRule>>,
) -> Option<()> {
    let (route, rule) = (plan.access.as_ref(), endpoint.map(|e| &e.access));
    let default = node.service.default_access;
    if let Err(refusal) = authorise::principal(q.principal, route, rule, default) {
        told.refuse("access", &refusal);
        return None;
    }
    let why = if authorise::is_public(route, rule, default) {
        "anybody may call it"
    } else {
        "the caller has what is asked for"
    };
    told.pass("access", why);
    Some(())
}

fn limits(
    table: &Table,
    q: &Question<'_>,
    told: &mut Explanation,
    plan: &Plan,
    endpoint: Option<&Arc<EndpointRule>>,
) {
    let path = told.path.clone().unwrap_or_default();
    let known = q.principal.is_authenticated();
    let counted = |name: &str, by| Counted {
        name: name.to_owned(),
        by,
    };
    // The defaults spare direct loopback peers, as everywhere.
    let spared = q.address.is_loopback() && !table.values.limit_loopback;
    let values = &table.values;
    let defaults = [
        ("address", "address", values.address_per_s > 0.0),
        ("user", "user", known && values.user_per_s > 0.0),
        (
            "user-concurrent",
            "user",
            known && values.user_concurrent > 0,
        ),
    ];
    let mut all: Vec<Counted> = { defaults.into_iter() }
        .filter(|(_, _, on)| *on && !spared)
        .map(|(name, by, _)| counted(name, by))
        .collect();
    let of_endpoint = endpoint
        .and_then(|e| e.limits.as_ref())
        .map(|pair| &pair[usize::from(!known)]);
    all.extend(of_endpoint.map(|l| counted(&l.name, l.by.as_str())));
    let declared = plan.limits.iter().filter(|(f, _)| f.fits(q.method, &path));
    all.extend(declared.map(|(_, l)| counted(&l.name, l.by.as_str())));
    let why = if all.is_empty() {
        "no limit counts it".to_owned()
    } else {
        let names: Vec<&str> = all.iter().map(|l| &*l.name).collect();
        format!("counted by {}", names.join(", "))
    };
    told.limits = all;
    told.pass("limits", why);
}

fn cache(
    table: &Table,
    q: &Question<'_>,
    told: &mut Explanation,
    plan: &Plan,
    endpoint: Option<&Arc<EndpointRule>>,
) {
    let path = told.path.clone().unwrap_or_default();
    let of_route = plan::first(&plan.cache, q.method, &path);
    let of_endpoint = endpoint.and_then(|e| e.cache.as_ref());
    let says = |who: &str, rule: &RulePolicy| match (rule.mode, rule.ttl_s) {
        (Mode::Off, _) => format!("{who} says never"),
        (Mode::On, Some(ttl)) => format!("{who} keeps answers for {ttl} s when they do not say"),
        _ => format!("{who} keeps answers that say for how long"),
    };
    let why = match (table.values.cache, of_route, of_endpoint) {
        (false, _, _) => "the cache is off".to_owned(),
        (true, Some(rule), _) => says("the route", rule),
        (true, None, Some(rule)) => says("the endpoint", rule),
        (true, None, None) => "no rule: the service's answers decide".to_owned(),
    };
    let rule = of_route.or(of_endpoint);
    told.cached = table.values.cache && rule.is_some_and(|rule| rule.mode != Mode::Off);
    told.pass("cache", why);
}

fn instance(
    q: &Question<'_>,
    told: &mut Explanation,
    node: &ServiceNode,
    version: Option<&VersionNode>,
) -> Option<()> {
    told.instances = version
        .map(|v| v.instances.iter().map(|i| candidate(i, q.now_ms)).collect())
        .unwrap_or_default();
    if node.state.breaker.is_open(q.now_ms) {
        let why = "the service's own breaker is open";
        return end(told, "breaker", 503, "gateway.breaker_open", why);
    }
    told.pass("breaker", "the service's own breaker lets requests through");
    let standing: Vec<&Candidate> = told.instances.iter().filter(|i| !i.ejected).collect();
    let panics = version.is_some_and(|v| !v.pool.is_empty() && v.pool.panics(q.now_ms));
    if told.instances.is_empty() || (standing.is_empty() && !panics) {
        let why = "no instance is ready, or operators closed all of them off";
        return end(told, "instance", 503, "gateway.no_instance", why);
    }
    let cost = |i: &&&Candidate| {
        let latency = i.latency_us.unwrap_or(0).max(1);
        (latency * u64::from(i.in_flight + 1)).saturating_mul(1_000) / u64::from(i.weight.max(1))
    };
    let likely = standing.iter().min_by_key(cost).map(|i| i.id.clone());
    let why = match (standing.len(), panics) {
        (_, true) => "more than half are ejected: all of them are used".to_owned(),
        (1, false) => "one instance can take it".to_owned(),
        (n, false) => format!("{n} instances can take it, by policy {:?}", node.policy),
    };
    told.instance = likely;
    told.pass("instance", why);
    Some(())
}

fn candidate(node: &Arc<InstanceNode>, now_ms: u64) -> Candidate {
    Candidate {
        id: node.id_text.to_string(),
        address: format!("{}:{}", node.instance.host, node.instance.port),
        weight: node.instance.weight,
        in_flight: node.load.in_flight(),
        latency_us: node.load.latency(now_ms).map(|us| us as u64),
        breaker: node.load.breaker.seen(now_ms).as_str(),
        ejected: node.load.breaker.is_open(now_ms),
    }
}

#[cfg(test)]
mod tests {
    use portico_contract::directory::Directory;
    use portico_contract::settings::Settings;

    use super::super::build::{Builder, Input, Names};
    use super::super::service::fixture::{endpoint, instance, service};
    use super::*;

    /// A service of two versions with a path that only a chief may call.
    fn table() -> Arc<Table> {
        let secret = portico_contract::directory::Endpoint {
            required_roles: Arc::from(["chief".to_owned()]),
            ..endpoint(Some("GET"), "/secret")
        };
        let hello = portico_contract::directory::Service {
            endpoints: Arc::from([secret]),
            ..service(
                "hello",
                vec![instance(1, "1.0.0", 81), instance(2, "2.0.0", 82)],
            )
        };
        let directory = Directory {
            seq: 1,
            services: [hello]
                .into_iter()
                .map(|s| (s.key.clone(), Arc::new(s)))
                .collect(),
        };
        let input = Input {
            directory: Arc::new(directory),
            objects: Arc::default(),
            settings: Settings::defaults(),
            settings_version: 1,
            now_ms: 1,
        };
        Builder::new(Names::default()).build(&input)
    }

    #[test]
    fn a_request_is_explained_without_being_sent() {
        let table = table();
        let (principal, headers) = (Principal::anonymous(), HeaderMap::new());
        let ask = |path| {
            let q = Question {
                method: &Method::GET,
                host: "localhost:8080",
                path,
                query: None,
                headers: &headers,
                principal: &principal,
                address: [127, 0, 0, 1].into(),
                now_ms: 1,
            };
            explain(&table, &q)
        };
        let good = ask("/api/hello/x/./y");
        assert_eq!(
            (
                good.path.as_deref(),
                good.service.as_deref(),
                good.version.as_deref()
            ),
            (Some("/api/hello/x/y"), Some("hello"), Some("2.0.0"))
        );
        assert_eq!(
            (
                good.instances.len(),
                good.instances[0].address.as_str(),
                good.refused
            ),
            (1, "127.0.0.1:82", None)
        );
        assert_eq!(ask("/api/hello@1/x").version.as_deref(), Some("1.0.0"));
        let closed = ask("/api/hello/secret");
        assert_eq!(
            (closed.endpoint.as_deref(), closed.refused),
            (
                Some("GET /secret"),
                Some(Refused {
                    status: 401,
                    code: "identity.token_missing"
                })
            )
        );
        let steps: Vec<(&str, bool)> = closed.steps.iter().map(|s| (s.step, s.passes)).collect();
        assert_eq!(steps.last(), Some(&("access", false)), "{steps:?}");
        assert!(steps[..steps.len() - 1].iter().all(|(_, passes)| *passes));
        let way: Vec<&str> = good.steps.iter().map(|s| s.step).collect();
        let wanted = [
            "blocked", "path", "host", "route", "network", "caller", "service", "version",
            "endpoint", "access", "limits", "cache", "breaker", "instance",
        ];
        assert_eq!(way, wanted);
        assert_eq!(good.instance.as_deref(), Some(&*good.instances[0].id));
        assert_eq!(ask("/api/none").refused.map(|r| r.status), Some(404));
        assert_eq!(ask("/a/%00").refused.map(|r| r.status), Some(400));
    }
}
