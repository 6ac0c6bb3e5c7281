//! What the cache would do with an address, and why: for the person who asks (GW-74, GW-75).

use std::borrow::Cow;

use http::{HeaderMap, Method};
use portico_base::Principal;
use serde::Serialize;

use super::cached::{default_rule, written};
use super::gate::Gate;
use crate::balance::Dice;
use crate::cache::{Explanation, RequestView, RulePolicy};
use crate::objects::doc::Target;
use crate::route::endpoints::EndpointRule;
use crate::route::host::without_port;
use crate::route::path::normalise;
use crate::route::plan::Plan;
use crate::route::release::Asker;
use crate::route::service::ServiceNode;
use crate::route::table::{Ask, Found, Named, Table};

/// A GET that somebody might send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheQuestion<'a> {
    pub(crate) https: bool,
    /// As clients write it, with a port that is not the scheme's own.
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// The tenant whose copy is meant; strangers belong to the default one.
    pub(crate) tenant: uuid::Uuid,
    /// Whole Unix milliseconds.
    pub(crate) unix_ms: u64,
}

/// What it would meet.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayCacheExplained)]
pub(crate) struct CacheTold {
    pub(crate) route: String,
    pub(crate) service: String,
    /// Empty when the service has none.
    pub(crate) version: String,
    /// Who wrote the rule: `operator`, `endpoint`, or `default`; `disabled` when the cache is switched off.
    pub(crate) rule: &'static str,
    #[schema(value_type = Object)]
    pub(crate) policy: RulePolicy,
    #[serde(flatten)]
    pub(crate) entry: Explanation,
}

/// A service with what holds on the way to it.
struct Way<'t> {
    plan: &'t Plan,
    node: &'t ServiceNode,
    version: &'t str,
    endpoint: Option<&'t EndpointRule>,
}

impl Gate {
    /// Explains a GET without sending it; nothing when it would not come to a service.
    pub(crate) fn explain_cache(&self, q: &CacheQuestion<'_>) -> Option<CacheTold> {
        let table = self.table();
        let path = normalise(q.path.as_bytes()).ok()?;
        let host = q.host.to_ascii_lowercase();
        let none = HeaderMap::new();
        let ask = Ask {
            host: without_port(&host),
            kind: table.hosts.find(without_port(&host)),
            path: &path,
            query: q.query,
            method: &Method::GET,
            headers: &none,
        };
        let stranger = Principal {
            tenant: q.tenant,
            ..Principal::anonymous()
        };
        let way = find(&table, &ask, path.as_str(), &stranger)?;
        let said = written(way.plan, way.endpoint, &Method::GET, path.as_str());
        let by_operator = crate::route::plan::first(&way.plan.cache, &Method::GET, path.as_str());
        let (rule, policy) = match said {
            _ if !table.values.cache => ("disabled", Cow::Owned(RulePolicy::off())),
            Some(policy) if by_operator.is_some() => ("operator", Cow::Borrowed(&**policy)),
            Some(policy) => ("endpoint", Cow::Borrowed(&**policy)),
            None => ("default", Cow::Owned(default_rule(&table.values))),
        };
        let tenant = q.tenant.to_string();
        let view = RequestView {
            method: &Method::GET,
            scheme: if q.https { "https" } else { "http" },
            host: &host,
            path: path.as_str(),
            query: q.query,
            headers: &none,
            tenant: &tenant,
            principal: None,
            trusted: false,
            service: &way.plan.service,
            version: way.version,
            route: &way.plan.route,
        };
        Some(CacheTold {
            route: way.plan.route.to_string(),
            service: way.node.service.key.name.to_string(),
            version: way.version.to_owned(),
            rule,
            entry: self.cache.explain(&view, &policy, q.unix_ms),
            policy: policy.into_owned(),
        })
    }
}

fn find<'t>(
    table: &'t Table,
    ask: &Ask<'_, '_>,
    path: &str,
    stranger: &Principal,
) -> Option<Way<'t>> {
    match table.find(ask).ok()? {
        Found::Service {
            named,
            version,
            below,
            ..
        } => way(named, &named.plan, version, below, stranger),
        Found::Route(route) => {
            if !matches!(route.doc.target, Target::Service(_) | Target::Services(_)) {
                return None;
            }
            let (name, version, _) = route.services().max_by_key(|(_, _, weight)| *weight)?;
            way(table.named(name)?, &route.plan, version, path, stranger)
        }
        Found::Root(_) | Found::Home(_) => None,
    }
}

fn way<'t>(
    named: &'t Named,
    plan: &'t Plan,
    version: Option<&str>,
    below: &str,
    stranger: &Principal,
) -> Option<Way<'t>> {
    if named.builtin {
        return None;
    }
    let node = &**named.of(stranger.tenant)?;
    let asker = Asker {
        headers: &HeaderMap::new(),
        principal: stranger,
        address: std::net::Ipv4Addr::UNSPECIFIED.into(),
        dice: &Dice::new(0),
    };
    let at = node.version(version, &asker).ok()?;
    let version = at
        .and_then(|at| node.versions.get(at))
        .map_or("", |v| &*v.name);
    let endpoint = node.endpoints.find(&Method::GET, below, version);
    Some(Way {
        plan,
        node,
        version,
        endpoint: endpoint.map(|e| &**e),
    })
}
