//! Which route, checks, limits, version and instance a request would meet, without sending it.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use portico_base::Principal;
use portico_contract::directory::DefaultAccess;
use serde::Serialize;

use super::host::without_port;
use super::path::normalise;
use super::plan;
use super::release::Asker;
use super::table::{Ask, Found, Miss, Route, Table};
use crate::balance::Dice;
use crate::objects::doc::Target;
use crate::pipeline::authorise;
use crate::route::service::ServiceNode;

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
    pub now_ms: u64,
}

/// What it would meet.
#[derive(Debug, Default, Serialize, PartialEq)]
pub struct Explanation {
    /// Path that routing, authorisation and the service agree on.
    pub path: Option<String>,
    pub route: Option<String>,
    pub service: Option<String>,
    pub version: Option<String>,
    /// Versions that are there, best first.
    pub versions: Vec<String>,
    /// Instances that could be chosen.
    pub instances: Vec<Candidate>,
    pub endpoint: Option<String>,
    /// Limits that would count it.
    pub limits: Vec<String>,
    pub cached: bool,
    pub attempts: u8,
    /// What would be answered without asking a service.
    pub refused: Option<Refused>,
}

/// An instance and its present standing.
#[derive(Debug, Serialize, PartialEq)]
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
#[derive(Debug, Serialize, PartialEq)]
pub struct Refused {
    pub status: u16,
    pub code: &'static str,
}

impl Explanation {
    fn refuse(mut self, status: u16, code: &'static str) -> Self {
        self.refused = Some(Refused { status, code });
        self
    }
}

/// Explains a request.
#[must_use]
pub fn explain(table: &Table, q: &Question<'_>) -> Explanation {
    let told = Explanation::default();
    let Ok(path) = normalise(q.path.as_bytes()) else {
        return told.refuse(400, "gateway.bad_path");
    };
    let host = q.host.to_ascii_lowercase();
    let ask = Ask {
        host: without_port(&host),
        kind: table.hosts.find(without_port(&host)),
        path: &path,
        query: q.query,
        method: q.method,
        headers: q.headers,
    };
    let told = Explanation {
        path: Some(path.as_str().to_owned()),
        ..told
    };
    match table.find(&ask) {
        Err(Miss::UnknownHost) => told.refuse(421, "gateway.unknown_host"),
        Err(Miss::BadPath) => told.refuse(400, "gateway.bad_path"),
        Err(Miss::NoService(_)) => told.refuse(404, "gateway.service_not_found"),
        Err(Miss::Nothing) => told.refuse(404, "gateway.not_found"),
        Ok(Found::Root(prefix)) => Explanation {
            route: Some(prefix.to_owned()),
            ..told
        },
        Ok(Found::Console) => Explanation {
            route: Some("/console".to_owned()),
            ..told
        },
        Ok(Found::Route(route)) => explain_route(table, q, told, route),
        Ok(Found::Service {
            name,
            named,
            version,
            below,
        }) => {
            let told = Explanation {
                route: Some(named.plan.route.to_string()),
                service: Some(name.to_owned()),
                ..told
            };
            if named.builtin {
                return told;
            }
            match named.of(q.principal.tenant) {
                None => told.refuse(404, "gateway.service_not_found"),
                Some(node) => explain_service(q, told, node, &named.plan, version, below),
            }
        }
    }
}

fn explain_route(table: &Table, q: &Question<'_>, told: Explanation, route: &Route) -> Explanation {
    let told = Explanation {
        route: Some(route.name.to_string()),
        ..told
    };
    if !matches!(route.doc.target, Target::Service(_) | Target::Services(_)) {
        return told;
    }
    // Of several the one with the largest share; the others are in the route itself.
    let Some((name, version, _)) = route.services().max_by_key(|(_, _, weight)| *weight) else {
        return told;
    };
    let told = Explanation {
        service: Some(name.to_owned()),
        ..told
    };
    match table
        .named(name)
        .and_then(|named| named.of(q.principal.tenant))
    {
        None => told.refuse(404, "gateway.service_not_found"),
        Some(node) => {
            let below = told.path.clone().unwrap_or_default();
            explain_service(q, told, node, &route.plan, version, &below)
        }
    }
}

fn explain_service(
    q: &Question<'_>,
    mut told: Explanation,
    node: &ServiceNode,
    plan: &plan::Plan,
    version: Option<&str>,
    below: &str,
) -> Explanation {
    told.versions = node
        .version_names()
        .iter()
        .map(ToString::to_string)
        .collect();
    told.attempts = plan.attempts;
    let path = told.path.clone().unwrap_or_default();
    told.limits = plan
        .limits
        .iter()
        .filter(|(f, _)| f.fits(q.method, &path))
        .map(|(_, l)| l.name.to_string())
        .collect();
    if authorise::network(plan.access.as_ref(), q.address).is_err() {
        return told.refuse(403, "gateway.address_denied");
    }
    if !node.service.enabled || node.service.disabled_for.contains(&q.principal.tenant) {
        return told.refuse(403, "gateway.service_disabled");
    }
    let asker = Asker {
        headers: q.headers,
        principal: q.principal,
        address: q.address,
        dice: &Dice::new(0),
    };
    let header = q
        .headers
        .get("x-service-version")
        .and_then(|v| v.to_str().ok());
    let Ok(at) = node.version(version.or(header), &asker) else {
        return told.refuse(404, "gateway.version_not_found");
    };
    let chosen = at.and_then(|at| node.versions.get(at));
    told.version = chosen.map(|v| v.name.to_string());
    let endpoint = node
        .endpoints
        .find(q.method, below, told.version.as_deref().unwrap_or(""));
    told.endpoint = endpoint.map(|e| e.name.to_string());
    told.cached = plan::first(&plan.cache, q.method, &path).is_some()
        || endpoint.is_some_and(|e| e.cache.is_some());
    if let Some(limits) = endpoint.and_then(|e| e.limits.as_ref()) {
        told.limits.push(limits[0].name.to_string());
    }
    told.instances = chosen.map(|v| candidates(v, q.now_ms)).unwrap_or_default();
    let default: DefaultAccess = node.service.default_access;
    match authorise::principal(
        q.principal,
        plan.access.as_ref(),
        endpoint.map(|e| &e.access),
        default,
    ) {
        Err(refusal) => told.refuse(refusal.status.as_u16(), refusal.code),
        Ok(()) if told.instances.is_empty() => told.refuse(503, "gateway.no_instance"),
        Ok(()) if node.state.breaker.is_open(q.now_ms) => told.refuse(503, "gateway.breaker_open"),
        Ok(()) => told,
    }
}

fn candidates(version: &super::service::VersionNode, now_ms: u64) -> Vec<Candidate> {
    let one = |node: &std::sync::Arc<super::service::InstanceNode>| Candidate {
        id: node.id_text.to_string(),
        address: format!("{}:{}", node.instance.host, node.instance.port),
        weight: node.instance.weight,
        in_flight: node.load.in_flight(),
        latency_us: node.load.latency(now_ms).map(|us| us as u64),
        breaker: node.load.breaker.phase().0.as_str(),
        ejected: node.load.breaker.is_open(now_ms),
    };
    version.instances.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_contract::directory::Directory;
    use portico_contract::settings::Settings;

    use super::super::build::{Builder, Input, Names};
    use super::super::service::fixture::{endpoint, instance, service};
    use super::*;

    #[test]
    fn a_request_is_explained_without_being_sent() {
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
        let table = Builder::new(Names::default()).build(&input);
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
                    code: "gateway.unauthenticated"
                })
            )
        );
        assert_eq!(ask("/api/none").refused.map(|r| r.status), Some(404));
        assert_eq!(ask("/a/%00").refused.map(|r| r.status), Some(400));
    }
}
