//! Builds tables on a thread that serves nobody; what has not changed is taken over from the table before (GW-18).

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use portico_contract::directory::{Directory, Service, ServiceKey};
use portico_contract::settings::Settings;

use super::condition::Conditions;
use super::host::Hosts;
use super::pattern::Pattern;
use super::plan::{Compiled, Plan};
use super::service::{Build, ServiceNode, ServiceState};
use super::table::{Look, Named, Route, RouteSet, Table};
use crate::objects::doc::{Object, Objects, PathMatch, ReleaseDoc, RouteDoc, Target};
use crate::pipeline::settings::Values;

/// Pairs of service and route with metrics of their own; the rest is `other` (§9).
const LABELS: usize = 200;
/// Name of the route that nobody wrote.
pub const API_ROUTE: &str = "api";

/// Names of the configuration, fixed at start.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub domain: Option<String>,
    pub hosts: Vec<String>,
    /// Services whose routers this process has.
    pub builtin: Vec<&'static str>,
    /// Root prefixes of built-in services (`/docs`).
    pub roots: Vec<&'static str>,
}

/// Keeps what lives longer than one table.
#[derive(Debug)]
pub struct Builder {
    names: Names,
    roots: Arc<[&'static str]>,
    states: HashMap<ServiceKey, Arc<ServiceState>>,
    labels: HashMap<(Arc<str>, Arc<str>), u32>,
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    objects: Arc<Objects>,
    settings: u64,
    compiled: Arc<Compiled>,
    table: Arc<Table>,
}

/// What a table is made from.
#[derive(Debug, Clone)]
pub struct Input {
    pub directory: Arc<Directory>,
    pub objects: Arc<Objects>,
    pub settings: Settings,
    /// Rises when settings change.
    pub settings_version: u64,
    pub now_ms: u64,
}

impl Builder {
    #[must_use]
    pub fn new(names: Names) -> Self {
        let mut roots = names.roots.clone();
        roots.sort_by_key(|r| std::cmp::Reverse(r.len()));
        Self {
            roots: roots.into(),
            names,
            states: HashMap::new(),
            labels: HashMap::new(),
            last: None,
        }
    }

    /// Builds the next table.
    pub fn build(&mut self, input: &Input) -> Arc<Table> {
        let same = self.last.take().filter(|l| {
            Arc::ptr_eq(&l.objects, &input.objects) && l.settings == input.settings_version
        });
        let compiled = same.as_ref().map_or_else(
            || Arc::new(Compiled::of(&input.objects)),
            |l| Arc::clone(&l.compiled),
        );
        let values = same
            .as_ref()
            .map_or_else(|| Values::read(&input.settings), |l| l.table.values.clone());
        let before = same.as_ref().map(|l| &l.table);
        let names = self.services(input, &values, &compiled, before);
        let mut table = Table {
            seq: input.directory.seq,
            objects: input.objects.version,
            built_ms: input.now_ms,
            hosts: self.hosts(&input.objects),
            blocks: input
                .objects
                .blocks
                .iter()
                .map(|o| Arc::clone(&o.doc))
                .collect(),
            names,
            bound: HashMap::new(),
            wild: Vec::new(),
            any: RouteSet::default(),
            roots: Arc::clone(&self.roots),
            callers: Arc::clone(&compiled.callers),
            values,
        };
        self.routes(&mut table, &input.objects, &compiled);
        let table = Arc::new(table);
        let last = Last {
            objects: Arc::clone(&input.objects),
            settings: input.settings_version,
            compiled,
            table: Arc::clone(&table),
        };
        self.last = Some(last);
        table
    }

    fn hosts(&self, objects: &Objects) -> Hosts {
        let mut hosts = Hosts::new(
            self.names.domain.as_deref(),
            self.names.hosts.iter().cloned(),
        );
        let of_routes = objects
            .routes
            .iter()
            .filter(|r| r.doc.enabled)
            .flat_map(|r| &r.doc.hosts);
        for host in of_routes.chain(objects.hosts.iter().flat_map(|h| &h.doc.hosts)) {
            hosts.add(host);
        }
        hosts
    }

    fn services(
        &mut self,
        input: &Input,
        values: &Values,
        compiled: &Compiled,
        before: Option<&Arc<Table>>,
    ) -> HashMap<Arc<str>, Arc<Named>> {
        self.states
            .retain(|key, _| input.directory.services.contains_key(key));
        let mut grouped: HashMap<Arc<str>, Vec<&Arc<Service>>> =
            HashMap::with_capacity(input.directory.services.len());
        for service in input.directory.services.values() {
            grouped
                .entry(Arc::clone(&service.key.name))
                .or_default()
                .push(service);
        }
        for name in &self.names.builtin {
            grouped.entry(Arc::from(*name)).or_default();
        }
        let route: Arc<str> = Arc::from(API_ROUTE);
        let mut names = HashMap::with_capacity(grouped.len());
        for (name, services) in grouped {
            let old = before.and_then(|t| t.named(&name));
            if let Some(old) = old
                && services.len() == old.all().count()
                && services
                    .iter()
                    .all(|s| old.all().any(|node| Arc::ptr_eq(&node.service, s)))
            {
                names.insert(name, Arc::clone(old));
                continue;
            }
            let label = self.label(&name, &route);
            let plan = old.map_or_else(
                || Arc::new(Plan::new(&name, &route, label, None, values, compiled)),
                |o| Arc::clone(&o.plan),
            );
            let mut named = Named {
                global: None,
                tenants: Vec::new(),
                builtin: self.names.builtin.contains(&&*name),
                plan,
            };
            for service in services {
                let known = old.and_then(|o| {
                    o.all()
                        .find(|node| Arc::ptr_eq(&node.service, service))
                        .cloned()
                });
                let node = known.unwrap_or_else(|| Arc::new(self.node(service, input, values)));
                match service.key.tenant {
                    None => named.global = Some(node),
                    Some(tenant) => named.tenants.push((tenant, node)),
                }
            }
            names.insert(name, Arc::new(named));
        }
        names
    }

    fn node(&mut self, service: &Arc<Service>, input: &Input, values: &Values) -> ServiceNode {
        let state = self.states.entry(service.key.clone()).or_default();
        let release = release(&input.objects.releases, service);
        ServiceNode::build(
            service,
            state,
            &Build {
                release,
                policy: values.policy,
                now_ms: input.now_ms,
            },
        )
    }

    fn routes(&mut self, table: &mut Table, objects: &Objects, compiled: &Compiled) {
        let mut routes: Vec<(Look, Pattern, Arc<Route>)> = Vec::new();
        for object in objects.routes.iter().filter(|o| o.doc.enabled) {
            if let Some(compiled) = self.route(object, &table.values, compiled) {
                routes.push(compiled);
            }
        }
        // Of one path: more conditions first, then age (GW-14).
        let ages: HashMap<Arc<str>, _> = objects
            .routes
            .iter()
            .map(|o| (Arc::clone(&o.name), o.created_at))
            .collect();
        routes.sort_by_key(|(_, _, r)| {
            (
                std::cmp::Reverse(r.conditions.count()),
                ages.get(&r.name).copied(),
                Arc::clone(&r.name),
            )
        });
        for (look, pattern, route) in &routes {
            if route.doc.hosts.is_empty() {
                table.any.insert(*look, pattern, route);
            }
            for host in &route.doc.hosts {
                let set = match host.strip_prefix('*') {
                    None => table.bound.entry(host.as_str().into()).or_default(),
                    Some(suffix) => wildcard(&mut table.wild, suffix),
                };
                set.insert(*look, pattern, route);
            }
        }
        table
            .wild
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }

    fn route(
        &mut self,
        object: &Object<RouteDoc>,
        values: &Values,
        compiled: &Compiled,
    ) -> Option<(Look, Pattern, Arc<Route>)> {
        let doc = &object.doc;
        let conditions = Conditions::compile(&doc.methods, &doc.headers, &doc.query)?;
        let (look, text) = match &doc.path {
            PathMatch::Exact(path) => (Look::Exact, path.clone()),
            PathMatch::Pattern(path) => (Look::Pattern, path.clone()),
            PathMatch::Prefix(path) => (Look::Prefix, format!("{}/*", path.trim_end_matches('/'))),
        };
        let pattern = Pattern::parse(&text).ok()?;
        let service: Arc<str> = match &doc.target {
            Target::Service(one) => one.name.as_str().into(),
            Target::Services(several) => several.first().map_or("", |t| &t.name).into(),
            _ => "".into(),
        };
        let label = self.label(&service, &object.name);
        let depth = match look {
            Look::Prefix => text.split('/').filter(|s| !s.is_empty()).count() - 1,
            Look::Exact | Look::Pattern => 0,
        };
        let route = Route {
            name: Arc::clone(&object.name),
            tenant: object.tenant,
            doc: Arc::clone(doc),
            conditions,
            pattern: (look == Look::Pattern).then(|| pattern.clone()),
            depth,
            plan: Arc::new(Plan::new(
                &service,
                &object.name,
                label,
                Some(doc),
                values,
                compiled,
            )),
        };
        Some((look, pattern, Arc::new(route)))
    }

    /// The number of a pair for metrics; it never changes while the process lives.
    fn label(&mut self, service: &Arc<str>, route: &Arc<str>) -> u32 {
        let key = (Arc::clone(service), Arc::clone(route));
        if let Some(label) = self.labels.get(&key) {
            return *label;
        }
        if self.labels.len() >= LABELS {
            return 0;
        }
        let label = u32::try_from(self.labels.len() + 1).unwrap_or(0);
        self.labels.insert(key, label);
        label
    }
}

fn wildcard<'w>(wild: &'w mut Vec<(Box<str>, RouteSet)>, suffix: &str) -> &'w mut RouteSet {
    let at = wild
        .iter()
        .position(|(have, _)| **have == *suffix)
        .unwrap_or_else(|| {
            wild.push((suffix.into(), RouteSet::default()));
            wild.len() - 1
        });
    &mut wild[at].1
}

/// The release of a service: its tenant's own, else the installation's.
fn release<'o>(releases: &'o [Object<ReleaseDoc>], service: &Service) -> Option<&'o ReleaseDoc> {
    let of = |tenant| {
        releases
            .iter()
            .find(move |r| *r.name == *service.key.name && r.tenant == tenant)
    };
    of(service.key.tenant).or_else(|| of(None)).map(|r| &*r.doc)
}

/// Names of routes that take the same requests as `doc`, so that only their age decides (GW-14).
#[must_use]
pub fn conflicts(doc: &RouteDoc, name: &str, routes: &[Object<RouteDoc>]) -> Vec<Arc<str>> {
    let shape = |path: &PathMatch| match path {
        PathMatch::Pattern(text) => {
            let plain = |s: &str| {
                if s.starts_with("{*") || s == "*" {
                    "*".to_owned()
                } else if s.starts_with('{') {
                    "{}".to_owned()
                } else {
                    s.to_owned()
                }
            };
            (1, text.split('/').map(plain).collect::<Vec<_>>().join("/"))
        }
        PathMatch::Exact(text) => (0, text.clone()),
        PathMatch::Prefix(text) => (2, text.trim_end_matches('/').to_owned()),
    };
    let share_host = |other: &RouteDoc| {
        (doc.hosts.is_empty() && other.hosts.is_empty())
            || doc.hosts.iter().any(|h| other.hosts.contains(h))
    };
    let share_method = |other: &RouteDoc| {
        doc.methods.is_empty() == other.methods.is_empty()
            && (doc.methods.is_empty() || doc.methods.iter().any(|m| other.methods.contains(m)))
    };
    let same = |other: &Object<RouteDoc>| {
        let o = &other.doc;
        o.enabled
            && *other.name != *name
            && shape(&o.path) == shape(&doc.path)
            && share_host(o)
            && share_method(o)
            && o.headers == doc.headers
            && o.query == doc.query
    };
    routes
        .iter()
        .filter(|o| same(o))
        .map(|o| Arc::clone(&o.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use portico_base::id::TENANT_DEFAULT;
    use serde_json::json;
    use uuid::Uuid;

    use super::super::path::normalise;
    use super::super::service::fixture::{instance, service};
    use super::super::table::{Ask, Found};
    use super::*;

    fn directory(seq: u64, services: Vec<Arc<Service>>) -> Arc<Directory> {
        let services = services.into_iter().map(|s| (s.key.clone(), s)).collect();
        Arc::new(Directory { seq, services })
    }

    fn input(directory: Arc<Directory>, objects: Arc<Objects>) -> Input {
        Input {
            directory,
            objects,
            settings: Settings::defaults(),
            settings_version: 1,
            now_ms: 1_000,
        }
    }

    fn route(name: &str, age: i64, doc: serde_json::Value) -> Object<RouteDoc> {
        let doc: RouteDoc = serde_json::from_value(doc).expect("a route");
        Object {
            name: name.into(),
            tenant: None,
            created_at: portico_base::clock::from_unix_ms(age),
            doc: Arc::new(doc),
        }
    }

    fn objects(routes: Vec<Object<RouteDoc>>) -> Arc<Objects> {
        Arc::new(Objects {
            version: 1,
            routes,
            ..Objects::default()
        })
    }

    fn table(routes: Vec<Object<RouteDoc>>, names: Names) -> Arc<Table> {
        let services = vec![
            Arc::new(service("hello", vec![instance(1, "1", 1)])),
            Arc::new(service("identity", vec![])),
        ];
        Builder::new(names).build(&input(directory(1, services), objects(routes)))
    }

    /// `service/below@version`, `route:name`, `root:/x`, or the miss.
    fn at(table: &Table, host: &str, path: &str) -> String {
        at_with(table, host, path, &Method::GET, &HeaderMap::new())
    }

    fn at_with(
        table: &Table,
        host: &str,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> String {
        let path = normalise(path.as_bytes()).expect("a path");
        match table.find(&Ask {
            host,
            kind: table.hosts.find(host),
            path: &path,
            query: None,
            method,
            headers,
        }) {
            Ok(Found::Service {
                name,
                version,
                below,
                ..
            }) => format!(
                "{name}{below}{}",
                version.map_or(String::new(), |v| format!("@{v}"))
            ),
            Ok(Found::Route(route)) => format!("route:{}", route.name),
            Ok(Found::Root(root)) => format!("root:{root}"),
            Ok(Found::Home(page)) => format!("home:{page}"),
            Err(miss) => format!("{miss:?}"),
        }
    }

    #[test]
    fn services_are_reached_without_a_written_route() {
        let table = table(
            vec![],
            Names {
                roots: vec!["/docs", "/console"],
                ..Names::default()
            },
        );
        for (path, wanted) in [
            ("/api/hello", "hello/"),
            ("/api/hello/", "hello/"),
            ("/api/hello/a%2Fb/c", "hello/a%2Fb/c"),
            ("/api/hello@1.4/x", "hello/x@1.4"),
            ("/api/nobody/x", "NoService(\"nobody\")"),
            ("/api/hello/../identity", "BadPath"),
            ("/x/../api/hello", "BadPath"),
            ("/api/he%5Cllo", "BadPath"),
            ("/api", "Nothing"),
            ("/apix/hello", "Nothing"),
            ("/docs/a", "root:/docs"),
            ("/", "home:/console/"),
        ] {
            assert_eq!(at(&table, "localhost", path), wanted, "{path}");
        }
        assert_eq!(at(&table, "evil.test", "/api/hello"), "UnknownHost");
    }

    #[test]
    fn a_domain_splits_its_hosts() {
        let table = table(
            vec![],
            Names {
                domain: Some("example.com".into()),
                roots: vec!["/console"],
                ..Names::default()
            },
        );
        for (host, path, wanted) in [
            ("api.example.com", "/hello/x", "hello/x"),
            ("api.example.com", "/api/hello/x", "hello/x"),
            ("api.example.com", "/hello@2/x", "hello/x@2"),
            ("auth.example.com", "/api/identity/x", "identity/x"),
            ("auth.example.com", "/api/hello/x", "NoService(\"hello\")"),
            ("admin.example.com", "/api/hello/x", "hello/x"),
            ("admin.example.com", "/", "home:/console/"),
            ("static.example.com", "/api/hello/x", "Nothing"),
            ("oss-a.example.com", "/x", "Nothing"),
            ("example.com", "/api/hello/x", "hello/x"),
            ("www.example.com", "/", "UnknownHost"),
        ] {
            assert_eq!(at(&table, host, path), wanted, "{host}{path}");
        }
    }

    #[test]
    fn written_routes_come_in_their_order() {
        let to = json!({"service": {"name": "hello"}});
        let table = table(
            vec![
                route("old", 1, json!({"path": {"prefix": "/shop"}, "target": to})),
                route(
                    "deep",
                    2,
                    json!({"path": {"prefix": "/shop/a"}, "target": to}),
                ),
                route(
                    "pattern",
                    3,
                    json!({"path": {"pattern": "/shop/{x}"}, "target": to}),
                ),
                route(
                    "exact",
                    4,
                    json!({"path": {"exact": "/shop/a"}, "target": to}),
                ),
                route(
                    "young",
                    5,
                    json!({"path": {"prefix": "/shop"}, "target": to}),
                ),
                route(
                    "picky",
                    6,
                    json!({"path": {"prefix": "/shop"}, "methods": ["POST"], "headers": [{"name": "x-a", "is": "1"}], "target": to}),
                ),
                route(
                    "wild",
                    7,
                    json!({"hosts": ["*.shop.example"], "path": {"prefix": "/"}, "target": to}),
                ),
                route(
                    "host",
                    8,
                    json!({"hosts": ["a.shop.example"], "path": {"prefix": "/only"}, "target": to}),
                ),
                route(
                    "off",
                    0,
                    json!({"enabled": false, "path": {"prefix": "/shop"}, "target": to}),
                ),
            ],
            Names::default(),
        );
        for (path, wanted) in [
            ("/shop", "route:old"),
            ("/shop/a", "route:exact"),
            ("/shop/b", "route:pattern"),
            ("/shop/a/b", "route:deep"),
            ("/shop/b/c", "route:old"),
            ("/shopping", "Nothing"),
            ("/shop/a/../../x", "Nothing"),
            ("/shop/../shop/b/c", "BadPath"),
        ] {
            assert_eq!(at(&table, "localhost", path), wanted, "{path}");
        }
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("x-a"),
            http::HeaderValue::from_static("1"),
        )]);
        assert_eq!(
            at_with(&table, "localhost", "/shop/b/c", &Method::POST, &headers),
            "route:picky"
        );
        assert_eq!(at(&table, "a.shop.example", "/only/x"), "route:host");
        assert_eq!(at(&table, "a.shop.example", "/else"), "route:wild");
        assert_eq!(at(&table, "b.shop.example", "/only"), "route:wild");
        assert_eq!(at(&table, "shop.example", "/"), "UnknownHost");
    }

    #[test]
    fn a_tenant_reaches_its_own_and_the_global_services() {
        let other = Uuid::from_u128(9);
        let mut own = service("hello", vec![]);
        own.key.tenant = Some(other);
        let directory = directory(1, vec![Arc::new(service("hello", vec![])), Arc::new(own)]);
        let table = Builder::new(Names::default()).build(&input(directory, Arc::default()));
        let named = table.named("hello").expect("it is there");
        assert_eq!(named.of(other).unwrap().service.key.tenant, Some(other));
        assert_eq!(named.of(TENANT_DEFAULT).unwrap().service.key.tenant, None);
    }

    #[test]
    fn what_has_not_changed_is_taken_over() {
        let services: Vec<_> = (0..100_u16)
            .map(|i| {
                Arc::new(service(
                    &format!("s{i}"),
                    vec![instance(u128::from(i) + 1, "1", i)],
                ))
            })
            .collect();
        let mut builder = Builder::new(Names::default());
        let objects = Arc::new(Objects::default());
        let first = builder.build(&input(directory(1, services.clone()), Arc::clone(&objects)));
        let mut changed = services;
        changed[7] = Arc::new(service(
            "s7",
            vec![instance(8, "1", 7), instance(500, "1", 8)],
        ));
        let second = builder.build(&input(directory(2, changed), objects));
        let same =
            |name: &str| Arc::ptr_eq(first.named(name).unwrap(), second.named(name).unwrap());
        assert!(same("s6") && !same("s7"));
        let pool = &second
            .named("s7")
            .unwrap()
            .global
            .as_ref()
            .unwrap()
            .versions[0]
            .pool;
        assert_eq!(pool.members().len(), 2);
    }

    #[test]
    fn conflicts_are_shown_before_saving() {
        let to = json!({"service": {"name": "hello"}});
        let routes = vec![
            route(
                "a",
                1,
                json!({"path": {"pattern": "/x/{id}"}, "target": to}),
            ),
            route(
                "b",
                1,
                json!({"hosts": ["h.example"], "path": {"pattern": "/x/{id}"}, "target": to}),
            ),
            route("c", 1, json!({"path": {"exact": "/x/{id}"}, "target": to})),
        ];
        let doc = serde_json::from_value(json!({"path": {"pattern": "/x/{name}"}, "target": to}))
            .expect("a route");
        assert_eq!(conflicts(&doc, "new", &routes), [Arc::from("a")]);
        assert!(conflicts(&doc, "a", &routes).is_empty());
    }
}
