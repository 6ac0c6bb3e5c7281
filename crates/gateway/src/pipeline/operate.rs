//! What operators see of breakers, whose services they may look at, and what a request would meet (GW-57).

use std::sync::Arc;

use portico_base::{Permission, Principal, Timestamp};
use portico_contract::directory::Service;
use serde::Serialize;
use uuid::Uuid;

use super::gate::Gate;
use crate::balance::Breaker;
use crate::balance::load::Reason;
use crate::route::explain::{Explanation, Question, explain_at};
use crate::route::service::{InstanceNode, ServiceNode};

/// Permission of those who act for the whole installation; the registry asks for the same.
pub(crate) const ANY_TENANT: Permission = Permission::new("registry:tenant:write");
/// Failures of a service that are told; an instance keeps no more.
const REASONS: usize = 10;

/// Whose services somebody may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Audience {
    /// The whole installation.
    All,
    /// A tenant: what is its own, and what is global and switched on for it.
    Tenant(Uuid),
}

impl Audience {
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        if principal.may(&ANY_TENANT) {
            Self::All
        } else {
            Self::Tenant(principal.tenant)
        }
    }

    /// May know of the service.
    #[must_use]
    pub fn sees(self, service: &Service) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(own) => match service.key.tenant {
                Some(tenant) => tenant == own,
                None => service.enabled && !service.disabled_for.contains(&own),
            },
        }
    }

    /// May decide about the service.
    #[must_use]
    pub fn rules(self, service: &Service) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(own) => service.key.tenant == Some(own),
        }
    }
}

/// One breaker as it is now.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayBreaker)]
pub struct BreakerView {
    /// Id of the instance, or of the service for the service's own breaker.
    pub id: Uuid,
    /// `instance` or `service`.
    pub kind: &'static str,
    pub service: String,
    /// Id of the service.
    pub service_id: Uuid,
    /// Owner of the service; absent for a global one.
    pub tenant: Option<Uuid>,
    /// Version of the instance.
    pub version: Option<String>,
    /// What it does with requests: `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// What it would do without the operator's word.
    pub own_state: &'static str,
    /// Milliseconds until it tries again, while open by itself.
    pub tries_again_ms: Option<u64>,
    /// What an operator decided: `open` or `closed`.
    pub forced: Option<&'static str>,
    /// Milliseconds for which that holds.
    pub forced_for_ms: Option<u64>,
    /// The last failures, newest last; of a service those of all its instances.
    pub reasons: Vec<ReasonView>,
}

/// One failure.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = GatewayBreakerReason)]
pub struct ReasonView {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// `connect`, `reset`, `timeout`, `invalid`, `502`, `503`, `504`, or `status` for one that the route lists.
    pub why: &'static str,
    /// The instance that failed.
    pub instance: Uuid,
}

/// A service or instance that has a breaker.
pub(crate) struct Place {
    pub(crate) service: Arc<Service>,
    /// The instance, unless the service itself is meant.
    pub(crate) instance: Option<Uuid>,
}

impl Place {
    /// Id of what is meant.
    pub(crate) fn id(&self) -> Uuid {
        self.instance.unwrap_or(self.service.id)
    }
}

impl Gate {
    /// All breakers that somebody may see, the services' before their instances'.
    #[must_use]
    pub fn breakers(&self, audience: Audience) -> Vec<BreakerView> {
        let (table, now_ms) = (self.table(), self.now_ms());
        let mut nodes: Vec<&Arc<ServiceNode>> = table
            .services()
            .flat_map(|(_, named)| named.all())
            .filter(|node| !node.service.builtin && audience.sees(&node.service))
            .collect();
        nodes.sort_by(|a, b| {
            (&a.service.key.name, a.service.key.tenant)
                .cmp(&(&b.service.key.name, b.service.key.tenant))
        });
        let mut all = Vec::new();
        for node in nodes {
            all.push(of_service(node, now_ms));
            for version in &node.versions {
                let views = version.instances.iter();
                all.extend(views.map(|i| of_instance(node, &version.name, i, now_ms)));
            }
        }
        all
    }

    /// One breaker by the id of its service or instance.
    #[must_use]
    pub fn breaker(&self, id: Uuid) -> Option<BreakerView> {
        let (table, now_ms) = (self.table(), self.now_ms());
        let mut nodes = table.services().flat_map(|(_, named)| named.all());
        nodes.find_map(|node| {
            if node.service.id == id {
                return Some(of_service(node, now_ms));
            }
            let mut all = node
                .versions
                .iter()
                .flat_map(|v| v.instances.iter().map(move |i| (v, i)));
            all.find(|(_, i)| i.instance.id == id)
                .map(|(v, i)| of_instance(node, &v.name, i, now_ms))
        })
    }

    /// The place with this id, whether it can get requests at present or not.
    pub(crate) fn place(&self, id: Uuid) -> Option<Place> {
        let directory = self.directory.current();
        directory
            .services
            .values()
            .filter(|service| !service.builtin)
            .find_map(|service| {
                let instance = service.instances.iter().find(|i| i.id == id).map(|i| i.id);
                (service.id == id || instance.is_some()).then(|| Place {
                    service: Arc::clone(service),
                    instance,
                })
            })
    }

    /// The service that a tenant reaches under a name.
    pub(crate) fn service_named(&self, tenant: Uuid, name: &str) -> Option<Place> {
        let directory = self.directory.current();
        let service = directory.find(tenant, name).filter(|s| !s.builtin)?;
        Some(Place {
            service: Arc::clone(service),
            instance: None,
        })
    }

    /// What a request would meet; `now_ms` of the question is set here.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>, now: Timestamp) -> Explanation {
        let question = Question {
            now_ms: self.now_ms(),
            ..*question
        };
        explain_at(&self.table(), &question, Some(now))
    }
}

fn of_service(node: &ServiceNode, now_ms: u64) -> BreakerView {
    let instances = node.versions.iter().flat_map(|v| v.instances.iter());
    let mut reasons: Vec<(Uuid, Reason)> = instances
        .flat_map(|i| {
            let all = i.load.reasons().into_iter();
            all.map(|reason| (i.instance.id, reason))
        })
        .collect();
    reasons.sort_by_key(|(_, reason)| reason.at_ms);
    let newest = reasons.len().saturating_sub(REASONS);
    let told = reasons.drain(newest..).map(|(id, r)| told(id, &r, now_ms));
    BreakerView {
        reasons: told.collect(),
        ..view(node, &node.state.breaker, now_ms)
    }
}

fn of_instance(node: &ServiceNode, version: &str, i: &InstanceNode, now_ms: u64) -> BreakerView {
    let id = i.instance.id;
    BreakerView {
        id,
        kind: "instance",
        version: Some(version.to_owned()),
        reasons: {
            let all = i.load.reasons();
            all.iter().map(|r| told(id, r, now_ms)).collect()
        },
        ..view(node, &i.load.breaker, now_ms)
    }
}

fn told(instance: Uuid, reason: &Reason, now_ms: u64) -> ReasonView {
    ReasonView {
        ago_ms: now_ms.saturating_sub(reason.at_ms),
        why: reason.why,
        instance,
    }
}

fn view(node: &ServiceNode, breaker: &Breaker, now_ms: u64) -> BreakerView {
    let (phase, until_ms) = breaker.phase();
    let forced = breaker.forced_until(now_ms);
    BreakerView {
        id: node.service.id,
        kind: "service",
        service: node.service.key.name.to_string(),
        service_id: node.service.id,
        tenant: node.service.key.tenant,
        version: None,
        state: breaker.seen(now_ms).as_str(),
        own_state: phase.as_str(),
        tries_again_ms: until_ms.map(|until| until.saturating_sub(now_ms)),
        forced: forced.map(|(what, _)| what.as_str()),
        forced_for_ms: forced.map(|(_, until)| until.saturating_sub(now_ms)),
        reasons: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use portico_base::PrincipalKind;
    use portico_contract::directory::ServiceKey;

    use super::*;
    use crate::route::service::fixture::service;

    #[test]
    fn a_tenant_sees_its_own_and_what_is_global_and_on() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let of = |tenant| Service {
            key: ServiceKey {
                tenant,
                name: "a".into(),
            },
            ..service("a", Vec::new())
        };
        let off = Service {
            enabled: false,
            ..of(None)
        };
        let not_here = Service {
            disabled_for: Arc::from([own]),
            ..of(None)
        };
        let audience = Audience::of(&Principal::new(PrincipalKind::User, "u", own));
        assert_eq!(audience, Audience::Tenant(own));
        let sees = [of(Some(own)), of(Some(other)), of(None), off, not_here];
        assert_eq!(
            sees.each_ref().map(|s| audience.sees(s)),
            [true, false, true, false, false]
        );
        assert_eq!(
            sees.each_ref().map(|s| audience.rules(s)),
            [true, false, false, false, false],
            "what is global is decided for all"
        );
        assert_eq!(Audience::of(&Principal::operator()), Audience::All);
        assert!(
            sees.iter()
                .all(|s| Audience::All.sees(s) && Audience::All.rules(s))
        );
    }
}
