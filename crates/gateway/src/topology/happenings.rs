//! What happened in the house: who came, went or changed, for those who watch the map.

use std::collections::VecDeque;
use std::sync::Arc;

use portico_base::Timestamp;
use portico_contract::directory::{Directory, Instance, Service, ServiceKey};
use serde::Serialize;
use uuid::Uuid;

use crate::pipeline::operate::Audience;

/// Happenings that are kept.
const KEPT: usize = 500;
/// Happenings of one comparison; a flood is cut.
const AT_ONCE: usize = 200;

/// Something that happened to a service or an instance.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayHappening)]
pub(crate) struct Happening {
    /// Rises by one with each; a gap is what somebody else may see.
    pub(crate) number: u64,
    /// `service.registered`, `service.removed`, `instance.registered`, `instance.removed`,
    /// `instance.state_changed` or `breaker.changed`.
    pub(crate) kind: &'static str,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    #[schema(value_type = String)]
    pub(crate) service: Arc<str>,
    /// Id of the service.
    pub(crate) service_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) version: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) reason: Option<Arc<str>>,
    /// Which replica saw it, when it is about a breaker: each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) replica: Option<Arc<str>>,
    #[serde(skip)]
    pub(crate) about: Arc<Service>,
}

impl Happening {
    /// Numbered when it is kept.
    pub(crate) fn new(kind: &'static str, at: Timestamp, about: &Arc<Service>) -> Self {
        Self {
            number: 0,
            kind,
            at,
            service: Arc::clone(&about.key.name),
            service_id: about.id,
            instance: None,
            version: None,
            from: None,
            to: None,
            reason: None,
            replica: None,
            about: Arc::clone(about),
        }
    }

    fn of(kind: &'static str, at: Timestamp, about: &Arc<Service>, instance: &Instance) -> Self {
        Self {
            instance: Some(instance.id),
            version: Some(Arc::clone(&instance.version)),
            ..Self::new(kind, at, about)
        }
    }
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Happenings {
    kept: VecDeque<Happening>,
    last: u64,
}

impl Happenings {
    pub(crate) fn push(&mut self, mut happening: Happening) {
        self.last += 1;
        happening.number = self.last;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(happening);
    }

    /// Number of the newest.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Those behind a number that somebody may see, at most the newest `most`.
    pub(crate) fn since(&self, number: u64, audience: Audience, most: usize) -> Vec<Happening> {
        let mut found: Vec<Happening> = self
            .kept
            .iter()
            .rev()
            .take_while(|h| h.number > number)
            .filter(|h| audience.sees(&h.about))
            .take(most)
            .cloned()
            .collect();
        found.reverse();
        found
    }
}

/// What differs between two directories.
pub(crate) fn compare(before: &Directory, now: &Directory, at: Timestamp) -> Vec<Happening> {
    let mut found = Vec::new();
    if before.seq == now.seq {
        return found;
    }
    for (key, service) in sorted(now) {
        match before.services.get(key) {
            None => {
                found.push(Happening::new("service.registered", at, service));
                instances(&[], service, at, &mut found);
            }
            Some(old) if !Arc::ptr_eq(old, service) => {
                instances(&old.instances, service, at, &mut found);
            }
            Some(_) => {}
        }
        if found.len() >= AT_ONCE {
            break;
        }
    }
    for (key, service) in sorted(before) {
        if !now.services.contains_key(key) {
            let gone = |i: &Arc<Instance>| Happening::of("instance.removed", at, service, i);
            found.extend(service.instances.iter().map(gone));
            found.push(Happening::new("service.removed", at, service));
        }
    }
    found.truncate(AT_ONCE);
    found
}

fn sorted(directory: &Directory) -> Vec<(&ServiceKey, &Arc<Service>)> {
    let mut all: Vec<_> = directory.services.iter().collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

fn instances(
    before: &[Arc<Instance>],
    now: &Arc<Service>,
    at: Timestamp,
    found: &mut Vec<Happening>,
) {
    for instance in now.instances.iter() {
        match before.iter().find(|old| old.id == instance.id) {
            None => found.push(Happening {
                to: Some(instance.state.as_str()),
                ..Happening::of("instance.registered", at, now, instance)
            }),
            Some(old) if old.state != instance.state => found.push(Happening {
                from: Some(old.state.as_str()),
                to: Some(instance.state.as_str()),
                reason: Some(Arc::clone(&instance.state_reason)).filter(|r| !r.is_empty()),
                ..Happening::of(
                    "instance.state_changed",
                    instance.state_since,
                    now,
                    instance,
                )
            }),
            Some(_) => {}
        }
    }
    for old in before {
        if !now.instances.iter().any(|i| i.id == old.id) {
            found.push(Happening::of("instance.removed", at, now, old));
        }
    }
}

#[cfg(test)]
mod tests {
    use portico_contract::directory::InstanceState;

    use super::*;
    use crate::route::service::fixture::{instance, service};

    fn directory(seq: u64, services: Vec<Service>) -> Directory {
        Directory {
            seq,
            services: services
                .into_iter()
                .map(|s| (s.key.clone(), Arc::new(s)))
                .collect(),
        }
    }

    fn kinds(found: &[Happening]) -> Vec<&str> {
        found.iter().map(|h| h.kind).collect()
    }

    #[test]
    fn coming_going_and_changing_are_seen() {
        let at = Timestamp::default();
        let empty = directory(1, Vec::new());
        let one = directory(2, vec![service("a", vec![instance(1, "1", 1)])]);
        let came = compare(&empty, &one, at);
        assert_eq!(kinds(&came), ["service.registered", "instance.registered"]);
        let failing = Instance {
            state: InstanceState::Failing,
            state_reason: "check".into(),
            ..instance(1, "1", 1)
        };
        let two = directory(3, vec![service("a", vec![failing, instance(2, "2", 2)])]);
        let changed = compare(&one, &two, at);
        assert_eq!(
            kinds(&changed),
            ["instance.state_changed", "instance.registered"]
        );
        assert_eq!(
            (changed[0].from, changed[0].to, changed[0].reason.as_deref()),
            (Some("ready"), Some("failing"), Some("check"))
        );
        let three = directory(4, vec![service("a", vec![instance(2, "2", 2)])]);
        assert_eq!(kinds(&compare(&two, &three, at)), ["instance.removed"]);
        assert_eq!(
            kinds(&compare(&three, &directory(5, Vec::new()), at)),
            ["instance.removed", "service.removed"]
        );
        assert!(compare(&three, &three, at).is_empty());
    }

    #[test]
    fn only_the_last_are_kept_and_a_tenant_gets_its_own() {
        let mut happenings = Happenings::default();
        let tenant = Uuid::from_u128(5);
        let own = Arc::new(Service {
            key: ServiceKey {
                tenant: Some(tenant),
                name: "own".into(),
            },
            ..service("own", Vec::new())
        });
        let all = Arc::new(service("all", Vec::new()));
        for n in 0..KEPT + 100 {
            let about = if n % 2 == 0 { &own } else { &all };
            happenings.push(Happening::new("x", Timestamp::default(), about));
        }
        assert_eq!(happenings.since(0, Audience::All, 10_000).len(), KEPT);
        let last = happenings.last();
        assert_eq!(happenings.since(last - 4, Audience::All, 10).len(), 4);
        let other = Audience::Tenant(Uuid::from_u128(6));
        assert_eq!(happenings.since(last - 4, other, 10).len(), 2);
        assert_eq!(
            happenings
                .since(last - 4, Audience::Tenant(tenant), 3)
                .len(),
            3
        );
        assert!(happenings.since(last, Audience::All, 10).is_empty());
    }

    #[test]
    fn a_flood_is_cut() {
        let many = (0..500).map(|n| service(&format!("s{n}"), Vec::new()));
        let found = compare(
            &directory(1, Vec::new()),
            &directory(2, many.collect()),
            Timestamp::default(),
        );
        assert_eq!(found.len(), AT_ONCE);
    }
}
