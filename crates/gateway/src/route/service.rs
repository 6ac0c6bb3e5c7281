//! A service as the data plane knows it: versions, instances, pools, and the state that outlives snapshots.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::HashMap;
use http::{HeaderMap, HeaderName, header};
use parking_lot::Mutex;
use portico_base::Secret;
use portico_contract::directory::{Instance, InstanceState, Protocol, Service};
use uuid::Uuid;

use super::endpoints::Endpoints;
use super::release::{Asker, Rank, Side, Split, VersionNotFound};
use crate::balance::budget::Budget;
use crate::balance::{Breaker, Load, Member, Policy, Pool};
use crate::objects::doc::{HashBy, PolicyName, ReleaseDoc};
use crate::pipeline::signature::Signer;
use crate::release::tally::Tally;
use crate::upstream::{Endpoint as Address, Protocol as Wire, Target, TlsTarget};

const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What lives on when a snapshot is replaced. Atomic but for the map, which only the builder touches.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Counts what clients finally got.
    pub breaker: Breaker,
    pub budget: Budget,
    /// Answers in a row that said nothing about caching; see [`ServiceState::is_silent`].
    silent: AtomicU32,
    loads: Mutex<HashMap<Uuid, Known>>,
    cursors: Mutex<HashMap<Arc<str>, Arc<AtomicUsize>>>,
    tallies: Mutex<Tallies>,
}

/// By trial and version.
type Tallies = HashMap<(i64, Arc<str>), Arc<Tally>>;

#[derive(Debug)]
struct Known {
    load: Arc<Load>,
    /// In the last snapshot it could get requests.
    routable: bool,
    /// Told to its open tunnels.
    leaving: Arc<AtomicBool>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.leaving.store(true, Relaxed);
    }
}

/// One instance of a snapshot.
#[derive(Debug)]
pub struct InstanceNode {
    pub instance: Arc<Instance>,
    pub id_text: Box<str>,
    pub target: Arc<Target>,
    pub load: Arc<Load>,
    /// `base_path` without a final slash; empty for `/`.
    pub base: Box<str>,
    pub signer: Option<LazySigner>,
}

/// Signs for one instance. The key's prepared state takes more memory than everything else that is known of
/// an instance, so it is made for those that get requests (GW-18).
#[derive(Debug)]
pub struct LazySigner {
    secret: Arc<Secret<String>>,
    made: OnceLock<Box<Signer>>,
}

impl std::ops::Deref for LazySigner {
    type Target = Signer;

    fn deref(&self) -> &Signer {
        self.made
            .get_or_init(|| Box::new(Signer::new(self.secret.expose().as_bytes())))
    }
}

/// One version of a snapshot.
#[derive(Debug)]
pub struct VersionNode {
    pub name: Arc<str>,
    pub pool: Pool,
    /// In the order of the pool's members.
    pub instances: Box<[Arc<InstanceNode>]>,
    /// Counts its requests while the service's release has a candidate.
    pub tally: Option<Arc<Tally>>,
}

/// One service of a snapshot.
#[derive(Debug)]
pub struct ServiceNode {
    pub service: Arc<Service>,
    pub state: Arc<ServiceState>,
    /// Best first.
    pub versions: Box<[VersionNode]>,
    names: Box<[Arc<str>]>,
    /// Place of the version that gets what nobody else claims.
    default: usize,
    candidate: Option<usize>,
    pub split: Split,
    pub endpoints: Endpoints,
    pub policy: Policy,
    pub hash_by: HashBy,
}

/// What building a service depends on besides the service.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    pub release: Option<&'a ReleaseDoc>,
    pub policy: PolicyName,
    pub now_ms: u64,
}

impl ServiceNode {
    /// True unless it is switched off, for everybody or for a tenant (GW-17).
    #[must_use]
    pub fn is_on_for(&self, tenant: Uuid) -> bool {
        self.service.enabled && !self.service.disabled_for.contains(&tenant)
    }

    /// Builds the node; the state is the one of the snapshot before.
    #[must_use]
    pub fn build(service: &Arc<Service>, state: &Arc<ServiceState>, build: &Build<'_>) -> Self {
        let balance = build.release.and_then(|r| r.balance.as_ref());
        let policy = policy(balance.map_or(build.policy, |b| b.policy));
        let instances = state.adopt(&service.instances, build.now_ms);
        let mut versions = group(instances);
        versions.sort_by(|(a, _), (b, _)| Rank::of(b).cmp(&Rank::of(a)));
        let split = build
            .release
            .map_or_else(Split::default, |doc| Split::compile(&service.key.name, doc));
        let versions: Box<[VersionNode]> = versions
            .into_iter()
            .map(|(name, nodes)| VersionNode {
                tally: split.run().map(|run| state.tally(run, &name)),
                ..version(name, &nodes, policy, state)
            })
            .collect();
        state.forget_tallies(split.run());
        let names: Box<[Arc<str>]> = versions.iter().map(|v| Arc::clone(&v.name)).collect();
        let place =
            |wanted: Option<&str>| wanted.and_then(|w| versions.iter().position(|v| *v.name == *w));
        let working = |v: &VersionNode| !v.pool.is_empty();
        let ready = |v: &VersionNode| {
            working(v)
                && v.instances
                    .iter()
                    .any(|i| i.instance.state == InstanceState::Ready)
        };
        let candidate = place(split.candidate());
        // Without a word from the release: the best that can answer, so that a ready instance is never left idle;
        // the version on trial only where there is no other.
        let best = {
            let other = |at: &usize| Some(*at) != candidate;
            let places = || 0..versions.len();
            places()
                .filter(other)
                .find(|at| ready(&versions[*at]))
                .or_else(|| places().filter(other).find(|at| working(&versions[*at])))
                .or_else(|| places().find(|at| working(&versions[*at])))
                .unwrap_or(0)
        };
        Self {
            service: Arc::clone(service),
            state: Arc::clone(state),
            default: place(split.stable()).unwrap_or(best),
            candidate,
            endpoints: Endpoints::compile(&service.key.name, &service.endpoints),
            policy,
            hash_by: balance.and_then(|b| b.by.clone()).unwrap_or_default(),
            split,
            names,
            versions,
        }
    }

    /// The place in `versions` of the version that a request gets; nothing when there is none at all.
    ///
    /// # Errors
    /// When the caller named one that is not there for it.
    pub fn version(
        &self,
        wanted: Option<&str>,
        asker: &Asker<'_>,
    ) -> Result<Option<usize>, VersionNotFound> {
        let default = self.names.get(self.default).map_or("", |n| &**n);
        if let Some(wanted) = wanted {
            return self
                .split
                .pick(wanted, &self.names, default, asker.principal)
                .map(Some);
        }
        let at = match (self.split.side(asker), self.candidate) {
            (Side::Candidate, Some(candidate)) => candidate,
            _ => self.default,
        };
        let works = |at: &usize| self.versions.get(*at).is_some_and(|v| !v.pool.is_empty());
        // A side that cannot answer gives its share to whoever can.
        let others = [at, self.default].into_iter().chain(0..self.versions.len());
        let working = { others }.find(works);
        Ok(working.or((at < self.versions.len()).then_some(at)))
    }

    /// The version that gets what no candidate does. Where that one is `not`, the best of the others that can
    /// answer.
    #[must_use]
    pub fn serving(&self, not: Option<&str>) -> Option<&VersionNode> {
        let fits = |v: &&VersionNode| Some(&*v.name) != not;
        let others = || self.versions.iter().filter(fits);
        { self.versions.get(self.default).filter(fits) }
            .or_else(|| others().find(|v| !v.pool.is_empty()))
            .or_else(|| others().next())
    }

    /// Names of all versions, best first.
    #[must_use]
    pub fn version_names(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// After so many answers that say nothing about caching a service is not asked for it any more.
const SILENT: u32 = 64;

impl ServiceState {
    /// True for a service whose answers never say anything about caching: where no rule was written either,
    /// looking into the cache would be wasted.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent.load(Relaxed) >= SILENT
    }

    /// Takes note of an answer; the first one that speaks of caching ends the silence.
    pub fn heard(&self, headers: &HeaderMap) {
        let names = [header::CACHE_CONTROL, header::EXPIRES, CDN_CACHE_CONTROL];
        let count = self.silent.load(Relaxed);
        if names.iter().any(|name| headers.contains_key(name)) {
            if count != 0 {
                self.silent.store(0, Relaxed);
            }
        } else if count < SILENT {
            self.silent.store(count + 1, Relaxed);
        }
    }

    /// Nodes for all instances, with the loads that are known; forgets those that are gone.
    fn adopt(&self, instances: &[Arc<Instance>], now_ms: u64) -> Vec<Arc<InstanceNode>> {
        let mut loads = self.loads.lock();
        loads.retain(|id, _| instances.iter().any(|i| i.id == *id));
        let was_routable = loads.values().any(|known| known.routable);
        let median = median(
            loads
                .values()
                .filter(|k| k.routable)
                .filter_map(|k| k.load.latency(now_ms)),
        );
        let node = |instance: &Arc<Instance>| {
            let routable = instance.state == InstanceState::Ready;
            let known = loads.entry(instance.id).or_insert_with(|| Known {
                load: Arc::default(),
                routable: false,
                leaving: Arc::default(),
            });
            let leaves = instance.state == InstanceState::Draining;
            known.leaving.store(leaves, Relaxed);
            if routable && !known.routable && was_routable {
                // New or back among others that are warm: it begins as they are, and slowly (GW-46, GW-47).
                if let Some(median) = median {
                    known.load.seed(now_ms, median);
                }
                known.load.ramp(now_ms);
            }
            known.routable = routable;
            Arc::new(InstanceNode {
                id_text: instance.id.to_string().into(),
                target: target(instance, &known.leaving),
                load: Arc::clone(&known.load),
                base: instance.base_path.trim_end_matches('/').into(),
                signer: instance.secret.as_ref().map(|secret| LazySigner {
                    secret: Arc::clone(secret),
                    made: OnceLock::new(),
                }),
                instance: Arc::clone(instance),
            })
        };
        instances.iter().map(node).collect()
    }

    fn tally(&self, run: i64, version: &Arc<str>) -> Arc<Tally> {
        let mut tallies = self.tallies.lock();
        Arc::clone(tallies.entry((run, Arc::clone(version))).or_default())
    }

    /// Counts of trials that are over.
    fn forget_tallies(&self, run: Option<i64>) {
        self.tallies.lock().retain(|(of, _), _| Some(*of) == run);
    }

    fn cursor(&self, version: &Arc<str>) -> Arc<AtomicUsize> {
        Arc::clone(self.cursors.lock().entry(Arc::clone(version)).or_default())
    }
}

fn median(values: impl Iterator<Item = f32>) -> Option<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied()
}

fn group(instances: Vec<Arc<InstanceNode>>) -> Vec<(Arc<str>, Vec<Arc<InstanceNode>>)> {
    let mut versions: Vec<(Arc<str>, Vec<Arc<InstanceNode>>)> = Vec::new();
    for node in instances {
        match versions
            .iter_mut()
            .find(|(name, _)| *name == node.instance.version)
        {
            Some((_, nodes)) => nodes.push(node),
            None => versions.push((Arc::clone(&node.instance.version), vec![node])),
        }
    }
    versions
}

fn version(
    name: Arc<str>,
    nodes: &[Arc<InstanceNode>],
    policy: Policy,
    state: &ServiceState,
) -> VersionNode {
    let of = |wanted: InstanceState| {
        let fitting = nodes.iter().filter(move |n| n.instance.state == wanted);
        fitting
            .map(|n| Member {
                id: n.instance.id,
                weight: n.instance.weight,
                load: Arc::clone(&n.load),
            })
            .collect::<Vec<_>>()
    };
    let cursor = state.cursor(&name);
    let mut pool = Pool::new(of(InstanceState::Ready), policy, Arc::clone(&cursor));
    if pool.is_empty() {
        pool = Pool::new(of(InstanceState::Late), policy, cursor);
    }
    let instances = pool
        .members()
        .iter()
        .filter_map(|m| nodes.iter().find(|n| n.instance.id == m.id))
        .cloned()
        .collect();
    VersionNode {
        name,
        pool,
        instances,
        tally: None,
    }
}

fn target(instance: &Instance, leaving: &Arc<AtomicBool>) -> Arc<Target> {
    let address = match instance.protocol {
        Protocol::Unix => Address::Unix((&*instance.host).into()),
        _ => Address::Tcp {
            host: (&*instance.host).into(),
            port: instance.port,
        },
    };
    let wire = match instance.protocol {
        Protocol::H2c | Protocol::H2 => Wire::Http2,
        Protocol::Http1 | Protocol::Https | Protocol::Unix => Wire::Http1,
    };
    let tls = matches!(instance.protocol, Protocol::Https | Protocol::H2).then(|| TlsTarget {
        server_name: (&*instance.host).into(),
        pin_sha256: instance.tls_pin,
        insecure: false,
        extra_roots: None,
    });
    let idle = instance
        .metadata
        .get("keep_alive_s")
        .and_then(|s| s.parse::<u64>().ok());
    let idle = idle.map(|s| Duration::from_secs(s.saturating_sub(1).clamp(1, 3_600)));
    let target = Target::new(&instance.id.to_string(), address, wire, tls);
    Arc::new(
        target
            .with_idle_life(idle)
            .with_leaving(Arc::clone(leaving)),
    )
}

const fn policy(name: PolicyName) -> Policy {
    match name {
        PolicyName::Adaptive => Policy::Adaptive,
        PolicyName::RoundRobin => Policy::RoundRobin,
        PolicyName::Weighted => Policy::Weighted,
        PolicyName::LeastInFlight => Policy::LeastInFlight,
        PolicyName::Random2 => Policy::Random2,
        PolicyName::Hash => Policy::Hash,
        PolicyName::First => Policy::First,
    }
}

/// Services and instances for tests.
#[cfg(test)]
pub(crate) mod fixture {
    use portico_contract::directory::{DefaultAccess, Endpoint, ServiceKey};

    use super::*;

    pub(crate) fn endpoint(method: Option<&str>, path: &str) -> Endpoint {
        Endpoint {
            version: None,
            method: method.map(Arc::from),
            path: path.into(),
            description: "".into(),
            is_public: false,
            required_roles: Arc::default(),
            required_permissions: Arc::default(),
            rate_limit: None,
            timeout_ms: None,
            cache: None,
            idempotency_key: false,
        }
    }

    pub(crate) fn instance(id: u128, version: &str, port: u16) -> Instance {
        Instance {
            id: Uuid::from_u128(id),
            version: version.into(),
            host: "127.0.0.1".into(),
            port,
            base_path: "/".into(),
            protocol: Protocol::Http1,
            tls_pin: None,
            state: InstanceState::Ready,
            state_reason: "".into(),
            state_since: portico_base::Timestamp::default(),
            weight: 100,
            zone: "".into(),
            node: "".into(),
            tags: Arc::default(),
            metadata: Arc::default(),
            secret: None,
            created_at: portico_base::Timestamp::default(),
        }
    }

    pub(crate) fn service(name: &str, instances: Vec<Instance>) -> Service {
        Service {
            id: Uuid::from_u128(u128::from(crate::route::release::hash(0, name.as_bytes()))),
            key: ServiceKey {
                tenant: None,
                name: name.into(),
            },
            display_name: name.into(),
            description: "".into(),
            builtin: false,
            enabled: true,
            disabled_for: Arc::default(),
            default_access: DefaultAccess::Public,
            forward_credentials: false,
            identity_statement: false,
            endpoints: Arc::default(),
            openapi_url: None,
            instances: instances.into_iter().map(Arc::new).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use portico_base::Principal;

    use super::fixture::{instance, service};
    use super::*;
    use crate::balance::Dice;
    use crate::objects::doc::Candidate;

    fn build(
        service: Service,
        state: &Arc<ServiceState>,
        release: Option<&ReleaseDoc>,
        now_ms: u64,
    ) -> ServiceNode {
        ServiceNode::build(
            &Arc::new(service),
            state,
            &Build {
                release,
                policy: PolicyName::Adaptive,
                now_ms,
            },
        )
    }

    fn got(node: &ServiceNode, wanted: Option<&str>) -> Option<String> {
        let principal = Principal::anonymous();
        let asker = Asker {
            headers: &HeaderMap::new(),
            principal: &principal,
            address: [10, 0, 0, 1].into(),
            dice: &Dice::new(1),
        };
        node.version(wanted, &asker)
            .ok()
            .flatten()
            .map(|at| node.versions[at].name.to_string())
    }

    #[test]
    fn without_a_release_the_highest_that_works_is_used() {
        let state = Arc::default();
        let down = Instance {
            state: InstanceState::Failing,
            ..instance(3, "2.0.0", 3)
        };
        let late = Instance {
            state: InstanceState::Late,
            ..instance(4, "1.9.0", 4)
        };
        let node = build(
            service(
                "a",
                vec![
                    instance(1, "1.0.0", 1),
                    instance(2, "3.0.0-rc.1", 2),
                    down,
                    late,
                ],
            ),
            &state,
            None,
            1,
        );
        assert_eq!(got(&node, None).as_deref(), Some("1.0.0"));
        assert_eq!(got(&node, Some("1.9")).as_deref(), Some("1.9.0"));
        assert_eq!(got(&node, Some("7")), None);
        assert_eq!(node.version_names().len(), 4);
    }

    #[test]
    fn a_side_that_cannot_answer_gives_its_share_away() {
        let state = Arc::default();
        let release = ReleaseDoc {
            stable: Some("1".into()),
            candidate: Some(Candidate {
                version: "2".into(),
                weight: 100.0,
                matchers: Vec::new(),
            }),
            ..ReleaseDoc::default()
        };
        let both = build(
            service("a", vec![instance(1, "1", 1), instance(2, "2", 2)]),
            &state,
            Some(&release),
            1,
        );
        assert_eq!(got(&both, None).as_deref(), Some("2"));
        let drained = Instance {
            state: InstanceState::Draining,
            ..instance(2, "2", 2)
        };
        let one = build(
            service("a", vec![instance(1, "1", 1), drained]),
            &state,
            Some(&release),
            1,
        );
        assert_eq!(got(&one, None).as_deref(), Some("1"));
    }

    #[test]
    fn loads_outlive_snapshots_and_a_new_instance_begins_like_its_peers() {
        let state = Arc::default();
        let first = build(service("a", vec![instance(1, "1", 1)]), &state, None, 1_000);
        let load = Arc::clone(&first.versions[0].instances[0].load);
        assert_eq!(
            load.ramped(1_000, 15_000),
            1.0,
            "all are new: nobody begins slowly"
        );
        load.seed(1_000, 7_000.0);
        let second = build(
            service("a", vec![instance(1, "1", 1), instance(2, "1", 2)]),
            &state,
            None,
            1_000,
        );
        assert!(Arc::ptr_eq(&load, &second.versions[0].instances[0].load));
        let new = &second.versions[0].instances[1].load;
        assert_eq!(new.latency(1_000), Some(7_000.0));
        assert!(new.ramped(1_000, 15_000) < 0.11);
    }

    #[test]
    fn a_candidate_is_not_what_serves_where_nobody_named_a_stable_version() {
        let state = Arc::default();
        let release = ReleaseDoc {
            candidate: Some(Candidate {
                version: "2.0.0".into(),
                weight: 0.0,
                matchers: Vec::new(),
            }),
            ..ReleaseDoc::default()
        };
        let instances = vec![instance(1, "1.0.0", 1), instance(2, "2.0.0", 2)];
        let node = build(service("a", instances), &state, Some(&release), 1);
        assert_eq!(got(&node, None).as_deref(), Some("1.0.0"));
        let name = |not| node.serving(not).map(|v| v.name.to_string());
        assert_eq!(name(Some("2.0.0")).as_deref(), Some("1.0.0"));
        assert_eq!(name(Some("1.0.0")).as_deref(), Some("2.0.0"));
        let alone = vec![instance(2, "2.0.0", 2)];
        let node = build(service("a", alone), &state, Some(&release), 1);
        assert_eq!(got(&node, None).as_deref(), Some("2.0.0"));
    }

    #[test]
    fn a_trial_is_counted_over_snapshots_and_anew_with_the_next() {
        let state = Arc::default();
        let instances = || vec![instance(1, "1", 1), instance(2, "2", 2)];
        let of = |run: i64| {
            serde_json::from_value(serde_json::json!({
                "stable": "1", "candidate": {"version": "2", "weight": 1},
                "state": {"phase": "manual", "run": run, "since": "2026-01-01T00:00:00Z"},
            }))
            .expect("a release")
        };
        let tally = |release: Option<&ReleaseDoc>| {
            let node = build(service("a", instances()), &state, release, 1);
            node.versions[0].tally.clone()
        };
        let (first, second) = (of(1), of(2));
        let one = tally(Some(&first)).expect("it is counted");
        one.note(true, None);
        let again = tally(Some(&first)).expect("it is counted");
        assert_eq!(again.totals().errors, 1);
        assert_eq!(
            tally(Some(&second)).expect("it is counted").totals().errors,
            0
        );
        assert!(
            tally(None).is_none(),
            "nothing is counted without a release"
        );
        assert_eq!(
            tally(Some(&first)).expect("it is counted").totals().errors,
            0
        );
    }
}
