//! The map as a document: the gateway, its services, their versions and instances, and what flows between them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use portico_base::Timestamp;
use portico_contract::directory::{Instance, InstanceState};
use serde::Serialize;
use uuid::Uuid;

use super::ring::{Key, Total, Totals};
use crate::pipeline::metrics::Passage;
use crate::pipeline::operate::Audience;
use crate::route::service::{InstanceNode, ServiceNode, VersionNode};
use crate::route::table::{Named, Table};

/// Id of the node in the middle.
pub(crate) const GATEWAY: &str = "gateway";

/// What flowed over a time.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayFigures)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    /// Ended with 4xx.
    pub(crate) refused: u64,
    /// Ended with 5xx; of attempts also those without an answer.
    pub(crate) failed: u64,
    pub(crate) per_s: f64,
    /// `failed` of `requests`, 0 to 1.
    pub(crate) error_rate: f64,
    /// Of requests until the last byte of the answer, of attempts until the first; absent without any.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

impl Figures {
    pub(crate) fn of(total: &Total, seconds: f64) -> Self {
        let share = |part: u64, all: f64| {
            if all > 0.0 {
                (part as f64 / all * 1e4).round() / 1e4
            } else {
                0.0
            }
        };
        Self {
            requests: total.requests,
            refused: total.refused,
            failed: total.failed,
            per_s: share(total.requests, seconds),
            error_rate: share(total.failed, total.requests as f64),
            p50_ms: total.quantile_ms(0.5),
            p95_ms: total.quantile_ms(0.95),
            p99_ms: total.quantile_ms(0.99),
        }
    }
}

/// The gateway, a service, one of its versions, or an instance.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayNode)]
pub(crate) struct Node {
    /// `gateway`, `service:…`, `version:…:…` or `instance:…`; the same as long as the thing lives.
    pub(crate) id: String,
    /// `gateway`, `service`, `version` or `instance`.
    pub(crate) kind: &'static str,
    /// For people.
    pub(crate) name: String,
    /// Gateway, service: `ready`, `degraded`, `down` or `disabled`; version: one of the first three;
    /// instance: its state in the registry.
    pub(crate) state: &'static str,
    /// Why an instance is in its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) reason: Option<Arc<str>>,
    /// Name of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) service: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service_id: Option<Uuid>,
    /// Owner of the service; absent for a global one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) version: Option<Arc<str>>,
    /// Runs inside the process.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) builtin: bool,
    /// Breaker of a service or instance: `closed`, `open` or `half_open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) breaker: Option<&'static str>,
    /// What an operator decided about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forced: Option<&'static str>,
    /// More than half of a version's instances are ejected, so that all are used.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) panic: bool,
    /// Percent of the service's requests that a release sends to a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) share: Option<f64>,
    /// Weight of an instance, 0 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) zone: Option<Arc<str>>,
    /// Since when an instance is in its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) since: Option<Timestamp>,
    /// Requests under way at instances.
    pub(crate) in_flight: u64,
}

impl Node {
    fn new(id: String, kind: &'static str, name: String, state: &'static str) -> Self {
        Self {
            id,
            kind,
            name,
            state,
            reason: None,
            service: None,
            service_id: None,
            tenant: None,
            version: None,
            builtin: false,
            breaker: None,
            forced: None,
            panic: false,
            share: None,
            weight: None,
            address: None,
            zone: None,
            since: None,
            in_flight: 0,
        }
    }
}

/// What flows from one node to another.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayEdge)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    /// `requests` of clients, or `attempts` at instances: more than requests where some were repeated,
    /// fewer where the cache answered or the gateway refused.
    pub(crate) what: &'static str,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// What flowed by a route.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayRouteFigures)]
pub(crate) struct RouteFigures {
    /// Name of the route; `api` for the one that nobody wrote.
    #[schema(value_type = String)]
    pub(crate) route: Arc<str>,
    /// Absent for routes that lead to no service.
    #[schema(value_type = Option<String>)]
    pub(crate) service: Option<Arc<str>>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Nodes and edges.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Map {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) routes: Vec<RouteFigures>,
}

/// What a map is drawn from.
pub(crate) struct Drawing<'a> {
    pub(crate) table: &'a Table,
    pub(crate) now_ms: u64,
    pub(crate) totals: &'a Totals,
    /// Time that the totals are of.
    pub(crate) seconds: f64,
    /// Requests under way by instance, over all replicas.
    pub(crate) in_flight: &'a HashMap<Uuid, u64>,
    pub(crate) audience: Audience,
}

impl Drawing<'_> {
    /// Draws everything that the audience may see.
    pub(crate) fn draw(&self) -> Map {
        let mut map = Map::default();
        let passages = self.passages();
        let mut names: Vec<(&Arc<str>, &Arc<Named>)> = self.table.services().collect();
        names.sort_by_key(|(name, _)| Arc::clone(name));
        let mut all = Total::default();
        for (name, named) in names {
            let visible: Vec<&Arc<ServiceNode>> = { named.all() }
                .filter(|n| self.audience.sees(&n.service))
                .collect();
            let of_name = passages.get(&**name);
            if named.builtin {
                self.builtin(&mut map, name, of_name);
            } else {
                // One owner: what was asked for under the name was asked of it.
                let alone = named.all().count() == 1;
                for node in &visible {
                    self.service(&mut map, node, of_name.filter(|_| alone));
                }
            }
            if named.builtin || !visible.is_empty() && visible.len() == named.all().count() {
                self.routes(&mut map, name, of_name, &mut all);
            }
        }
        if self.audience == Audience::All {
            for name in ["none", portico_telemetry::metrics::OTHER] {
                self.routes(&mut map, &Arc::from(name), passages.get(name), &mut all);
            }
        }
        map.nodes.insert(0, self.gateway(&map));
        let total = Figures::of(&all, self.seconds);
        map.edges.insert(
            0,
            edge("clients".to_owned(), GATEWAY.to_owned(), "requests", total),
        );
        map
    }

    /// Totals of passages by service.
    fn passages(&self) -> HashMap<&str, BTreeMap<&Arc<str>, &Total>> {
        let mut found: HashMap<&str, BTreeMap<&Arc<str>, &Total>> = HashMap::new();
        for (key, total) in self.totals {
            if let Key::Passage(Passage { service, route }) = key {
                found.entry(service).or_default().insert(route, total);
            }
        }
        found
    }

    fn gateway(&self, map: &Map) -> Node {
        let down = map
            .nodes
            .iter()
            .any(|n| n.kind == "service" && n.state == "down");
        let state = if down { "degraded" } else { "ready" };
        Node {
            in_flight: { map.nodes.iter() }
                .filter(|n| n.kind == "service")
                .map(|n| n.in_flight)
                .sum(),
            ..Node::new(GATEWAY.to_owned(), "gateway", GATEWAY.to_owned(), state)
        }
    }

    fn builtin(
        &self,
        map: &mut Map,
        name: &Arc<str>,
        passages: Option<&BTreeMap<&Arc<str>, &Total>>,
    ) {
        let node = Node {
            service: Some(Arc::clone(name)),
            builtin: true,
            ..Node::new(
                format!("service:{name}"),
                "service",
                name.to_string(),
                "ready",
            )
        };
        let figures = Figures::of(&sum(passages), self.seconds);
        map.edges.push(edge(
            GATEWAY.to_owned(),
            node.id.clone(),
            "requests",
            figures,
        ));
        map.nodes.push(node);
    }

    fn service(
        &self,
        map: &mut Map,
        node: &ServiceNode,
        passages: Option<&BTreeMap<&Arc<str>, &Total>>,
    ) {
        let service = &node.service;
        let id = format!("service:{}", service.id);
        let place = map.nodes.len();
        let mut attempts = Total::default();
        let mut in_flight = 0;
        for name in node.version_names() {
            let instances: Vec<&Arc<Instance>> = { service.instances.iter() }
                .filter(|i| i.version == *name)
                .collect();
            let (total, flying) = self.version(map, node, &id, name, &instances);
            attempts.add_all(&total);
            in_flight += flying;
        }
        let (what, total) = match passages {
            Some(passages) => ("requests", sum(Some(passages))),
            None if attempts.requests == 0 => ("requests", Total::default()),
            None => ("attempts", attempts),
        };
        let breaker = &node.state.breaker;
        let own = Node {
            service: Some(Arc::clone(&service.key.name)),
            service_id: Some(service.id),
            tenant: service.key.tenant,
            breaker: Some(breaker.seen(self.now_ms).as_str()),
            forced: breaker
                .forced(self.now_ms)
                .map(crate::balance::Forced::as_str),
            in_flight,
            ..Node::new(id.clone(), "service", display(node), self.state(node))
        };
        map.nodes.insert(place, own);
        let figures = Figures::of(&total, self.seconds);
        map.edges.push(edge(GATEWAY.to_owned(), id, what, figures));
    }

    fn state(&self, node: &ServiceNode) -> &'static str {
        let service = &node.service;
        let ready = |i: &Arc<Instance>| i.state == InstanceState::Ready;
        let off = match self.audience {
            Audience::All => false,
            Audience::Tenant(own) => service.disabled_for.contains(&own),
        };
        if !service.enabled || off {
            "disabled"
        } else if !service.instances.iter().any(ready) {
            "down"
        } else if service.instances.iter().all(ready) && !node.state.breaker.is_open(self.now_ms) {
            "ready"
        } else {
            "degraded"
        }
    }

    fn version(
        &self,
        map: &mut Map,
        node: &ServiceNode,
        parent: &str,
        name: &Arc<str>,
        instances: &[&Arc<Instance>],
    ) -> (Total, u64) {
        let service = &node.service;
        let id = format!("version:{}:{name}", service.id);
        let place = map.nodes.len();
        let pooled = node.versions.iter().find(|v| v.name == *name);
        let (mut total, mut in_flight) = (Total::default(), 0);
        for instance in instances {
            let own = { pooled.iter() }
                .flat_map(|v| v.instances.iter())
                .find(|i| i.instance.id == instance.id);
            let drawn = self.instance(node, instance, own);
            in_flight += drawn.in_flight;
            if let Some(its) = self.totals.get(&Key::Instance(instance.id)) {
                total.add_all(its);
                let figures = Figures::of(its, self.seconds);
                map.edges
                    .push(edge(id.clone(), drawn.id.clone(), "attempts", figures));
            }
            map.nodes.push(drawn);
        }
        let panic = pooled.is_some_and(|v| !v.pool.is_empty() && v.pool.panics(self.now_ms));
        let ready = { instances.iter() }
            .filter(|i| i.state == InstanceState::Ready)
            .count();
        let state = match ready {
            0 => "down",
            n if n == instances.len() && !panic => "ready",
            _ => "degraded",
        };
        let own = Node {
            service: Some(Arc::clone(&service.key.name)),
            service_id: Some(service.id),
            tenant: service.key.tenant,
            version: Some(Arc::clone(name)),
            share: pooled.and_then(|v| share(node, v)),
            panic,
            in_flight,
            ..Node::new(id.clone(), "version", name.to_string(), state)
        };
        map.nodes.insert(place, own);
        let figures = Figures::of(&total, self.seconds);
        map.edges
            .push(edge(parent.to_owned(), id, "attempts", figures));
        (total, in_flight)
    }

    fn instance(
        &self,
        node: &ServiceNode,
        instance: &Instance,
        own: Option<&Arc<InstanceNode>>,
    ) -> Node {
        let breaker = own.map(|i| &i.load.breaker);
        let address = match instance.port {
            0 => instance.host.to_string(),
            port if instance.host.contains(':') => format!("[{}]:{port}", instance.host),
            port => format!("{}:{port}", instance.host),
        };
        Node {
            reason: Some(Arc::clone(&instance.state_reason)).filter(|r| !r.is_empty()),
            service: Some(Arc::clone(&node.service.key.name)),
            service_id: Some(node.service.id),
            tenant: node.service.key.tenant,
            version: Some(Arc::clone(&instance.version)),
            breaker: breaker.map(|b| b.seen(self.now_ms).as_str()),
            forced: { breaker }
                .and_then(|b| b.forced(self.now_ms))
                .map(crate::balance::Forced::as_str),
            weight: Some(instance.weight),
            zone: Some(Arc::clone(&instance.zone)).filter(|z| !z.is_empty()),
            since: Some(instance.state_since),
            in_flight: self.in_flight.get(&instance.id).copied().unwrap_or(0),
            ..Node::new(
                format!("instance:{}", instance.id),
                "instance",
                address.clone(),
                instance.state.as_str(),
            )
        }
        .at(address)
    }

    fn routes(
        &self,
        map: &mut Map,
        service: &Arc<str>,
        passages: Option<&BTreeMap<&Arc<str>, &Total>>,
        all: &mut Total,
    ) {
        for (route, total) in passages.into_iter().flatten() {
            all.add_all(total);
            map.routes.push(RouteFigures {
                route: Arc::clone(route),
                service: Some(Arc::clone(service)).filter(|s| &**s != "none"),
                figures: Figures::of(total, self.seconds),
            });
        }
    }
}

impl Node {
    fn at(self, address: String) -> Self {
        Self {
            address: Some(address),
            ..self
        }
    }
}

fn edge(from: String, to: String, what: &'static str, figures: Figures) -> Edge {
    Edge {
        from,
        to,
        what,
        figures,
    }
}

fn sum(passages: Option<&BTreeMap<&Arc<str>, &Total>>) -> Total {
    let mut sum = Total::default();
    for total in passages.into_iter().flat_map(BTreeMap::values) {
        sum.add_all(total);
    }
    sum
}

fn display(node: &ServiceNode) -> String {
    let service = &node.service;
    if service.display_name.is_empty() {
        service.key.name.to_string()
    } else {
        service.display_name.to_string()
    }
}

/// What a release sends to a version, when it says so.
fn share(node: &ServiceNode, version: &VersionNode) -> Option<f64> {
    let candidate = node.split.candidate()?;
    let weight = node.split.weight();
    if *version.name == *candidate {
        return Some(weight);
    }
    (node.split.stable() == Some(&*version.name)).then_some(100.0 - weight)
}

#[cfg(test)]
mod tests {
    use portico_contract::directory::{Directory, Service, ServiceKey};
    use portico_contract::settings::Settings;

    use super::*;
    use crate::balance::Flow;
    use crate::balance::flow::{Ended, Sum};
    use crate::route::build::{Builder, Input, Names};
    use crate::route::service::fixture::{instance, service};
    use crate::topology::ring::Entry;

    fn total(requests: u32) -> Total {
        let flow = Flow::default();
        for _ in 0..requests {
            flow.count(Ended::Well);
            flow.time(1_000);
        }
        let key = Key::Instance(Uuid::nil());
        let mut total = Total::default();
        if let Some(entry) = Entry::between(&key, &Sum::default(), &flow.sum(), 0) {
            total.add(&entry);
        }
        total
    }

    fn passage(service: &str) -> Key {
        Key::Passage(Passage {
            service: service.into(),
            route: "api".into(),
        })
    }

    fn table(services: Vec<Service>) -> Arc<Table> {
        let names = Names {
            builtin: vec!["registry"],
            ..Names::default()
        };
        let services = services.into_iter();
        let directory = Directory {
            seq: 1,
            services: services.map(|s| (s.key.clone(), Arc::new(s))).collect(),
        };
        Builder::new(names).build(&Input {
            directory: Arc::new(directory),
            objects: Arc::default(),
            settings: Settings::defaults(),
            settings_version: 1,
            now_ms: 1,
        })
    }

    fn draw(table: &Table, totals: &Totals, audience: Audience) -> Map {
        let drawing = Drawing {
            table,
            now_ms: 1,
            totals,
            seconds: 10.0,
            in_flight: &HashMap::from([(Uuid::from_u128(1), 4)]),
            audience,
        };
        drawing.draw()
    }

    fn requests(map: &Map, to: &str) -> Option<(u64, &'static str)> {
        let found = map.edges.iter().find(|e| e.to == to)?;
        Some((found.figures.requests, found.what))
    }

    #[test]
    fn everything_is_there_once_and_hangs_together() {
        let failing = Instance {
            state: InstanceState::Failing,
            ..instance(3, "1.0.0", 3)
        };
        let hello = service(
            "hello",
            vec![instance(1, "1.0.0", 1), instance(2, "2.0.0", 2), failing],
        );
        let id = hello.id;
        let totals = Totals::from([
            (passage("hello"), total(30)),
            (passage("registry"), total(2)),
            (passage("none"), total(1)),
            (Key::Instance(Uuid::from_u128(1)), total(25)),
        ]);
        let table = table(vec![hello]);
        let map = draw(&table, &totals, Audience::All);
        let ids: Vec<&str> = map.nodes.iter().map(|n| &*n.id).collect();
        assert_eq!(ids.len(), 8, "{ids:?}");
        for edge in &map.edges[1..] {
            assert!(
                ids.contains(&&*edge.from) && ids.contains(&&*edge.to),
                "{edge:?}"
            );
        }
        let node = |id: &str| map.nodes.iter().find(|n| n.id == id).unwrap();
        let own = node(&format!("service:{id}"));
        assert_eq!((own.state, own.in_flight), ("degraded", 4));
        assert_eq!(node(&format!("version:{id}:2.0.0")).state, "ready");
        assert_eq!(node(&format!("version:{id}:1.0.0")).state, "degraded");
        assert_eq!(requests(&map, &own.id), Some((30, "requests")));
        assert_eq!(requests(&map, "service:registry"), Some((2, "requests")));
        assert_eq!(
            requests(&map, &format!("version:{id}:1.0.0")),
            Some((25, "attempts"))
        );
        assert_eq!(requests(&map, GATEWAY), Some((33, "requests")));
        let edge = map.edges.iter().find(|e| e.to == own.id).unwrap();
        assert!((edge.figures.per_s - 3.0).abs() < 1e-9);
        assert!(
            edge.figures
                .p50_ms
                .is_some_and(|ms| (0.8..1.3).contains(&ms))
        );
    }

    #[test]
    fn a_tenant_gets_its_own_part_and_no_figures_of_a_namesake() {
        let (one, two) = (Uuid::from_u128(101), Uuid::from_u128(102));
        let of = |tenant: Uuid, id: u128| Service {
            id: Uuid::from_u128(id),
            key: ServiceKey {
                tenant: Some(tenant),
                name: "notes".into(),
            },
            ..service("notes", vec![instance(id, "1", 1)])
        };
        let totals = Totals::from([
            (passage("notes"), total(9)),
            (passage("none"), total(50)),
            (Key::Instance(Uuid::from_u128(11)), total(4)),
            (Key::Instance(Uuid::from_u128(12)), total(5)),
        ]);
        let table = table(vec![of(one, 11), of(two, 12)]);
        let map = draw(&table, &totals, Audience::Tenant(one));
        let own = format!("service:{}", Uuid::from_u128(11));
        assert_eq!(requests(&map, &own), Some((4, "attempts")));
        let text = serde_json::to_string(&map.nodes).unwrap();
        assert!(!text.contains(&Uuid::from_u128(12).to_string()), "{text}");
        assert!(map.routes.is_empty(), "a name that two have tells nobody");
        assert_eq!(requests(&map, GATEWAY), Some((0, "requests")));
        assert_eq!(draw(&table, &totals, Audience::All).nodes.len(), 2 + 6);
    }
}
