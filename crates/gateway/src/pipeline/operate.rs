//! What operators see and do: breakers, their reasons, forcing them, and what a request would meet (GW-57).

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::gate::Gate;
use crate::balance::load::Reason;
use crate::balance::{Breaker, Forced};
use crate::route::explain::{Explanation, Question, explain};
use crate::route::service::ServiceNode;

/// One breaker as it is now.
#[derive(Debug, Serialize)]
pub struct BreakerView {
    pub service: String,
    pub tenant: Option<Uuid>,
    /// Absent for the service's own breaker.
    pub instance: Option<Uuid>,
    /// `closed`, `open` or `half_open`.
    pub phase: &'static str,
    /// Milliseconds until it tries again, while open.
    pub opens_again_ms: Option<u64>,
    /// What an operator decided: `open` or `closed`.
    pub forced: Option<&'static str>,
    /// The last failures, with how long ago each was.
    pub reasons: Vec<ReasonView>,
}

/// One failure.
#[derive(Debug, Serialize)]
pub struct ReasonView {
    pub ago_ms: u64,
    pub why: &'static str,
}

/// Load of one instance.
#[derive(Debug, Serialize)]
pub struct LoadView {
    pub service: String,
    pub version: String,
    pub instance: Uuid,
    pub in_flight: u32,
    /// Peak-EWMA of its latency in microseconds, when it is known.
    pub latency_us: Option<u64>,
    pub ejected: bool,
}

impl Gate {
    /// All breakers, the services' before their instances'.
    #[must_use]
    pub fn breakers(&self) -> Vec<BreakerView> {
        let (table, now_ms) = (self.table(), self.now_ms());
        let mut all = Vec::new();
        for node in table.services().flat_map(|(_, named)| named.all()) {
            all.push(view(node, None, &node.state.breaker, &[], now_ms));
            for instance in node.versions.iter().flat_map(|v| v.instances.iter()) {
                all.push(view(
                    node,
                    Some(instance.instance.id),
                    &instance.load.breaker,
                    &instance.load.reasons(),
                    now_ms,
                ));
            }
        }
        all.sort_by(|a, b| {
            (&a.service, a.tenant, a.instance).cmp(&(&b.service, b.tenant, b.instance))
        });
        all
    }

    /// Forces a breaker open or closed for a time, or gives the decision back; false when there is no such one.
    /// The caller checks rights and records it.
    pub fn force_breaker(
        &self,
        service: &str,
        tenant: Option<Uuid>,
        instance: Option<Uuid>,
        what: Option<Forced>,
        for_ms: u64,
    ) -> bool {
        let (table, until_ms) = (self.table(), self.now_ms().saturating_add(for_ms));
        let node = table.named(service).and_then(|named| {
            named
                .all()
                .find(|n| n.service.key.tenant == tenant)
                .cloned()
        });
        let Some(node) = node else { return false };
        let Some(instance) = instance else {
            node.state.breaker.force(what, until_ms);
            return true;
        };
        let found = node
            .versions
            .iter()
            .flat_map(|v| v.instances.iter())
            .find(|i| i.instance.id == instance);
        found.is_some_and(|node| {
            node.load.breaker.force(what, until_ms);
            true
        })
    }

    /// The load of every instance that can get requests.
    #[must_use]
    pub fn loads(&self) -> Vec<LoadView> {
        let (table, now_ms) = (self.table(), self.now_ms());
        let nodes: Vec<Arc<ServiceNode>> = table
            .services()
            .flat_map(|(_, named)| named.all().cloned())
            .collect();
        let of = |node: &Arc<ServiceNode>| {
            let name = node.service.key.name.to_string();
            let all = node
                .versions
                .iter()
                .flat_map(|v| v.instances.iter().map(move |i| (v, i)));
            all.map(|(version, i)| LoadView {
                service: name.clone(),
                version: version.name.to_string(),
                instance: i.instance.id,
                in_flight: i.load.in_flight(),
                latency_us: i.load.latency(now_ms).map(|us| us as u64),
                ejected: i.load.breaker.is_open(now_ms),
            })
            .collect::<Vec<_>>()
        };
        nodes.iter().flat_map(of).collect()
    }

    /// What a request would meet; `now_ms` of the question is set here.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        explain(
            &self.table(),
            &Question {
                now_ms: self.now_ms(),
                ..*question
            },
        )
    }
}

fn view(
    node: &ServiceNode,
    instance: Option<Uuid>,
    breaker: &Breaker,
    reasons: &[Reason],
    now_ms: u64,
) -> BreakerView {
    let (phase, until_ms) = breaker.phase();
    BreakerView {
        service: node.service.key.name.to_string(),
        tenant: node.service.key.tenant,
        instance,
        phase: phase.as_str(),
        opens_again_ms: until_ms.map(|until| until.saturating_sub(now_ms)),
        forced: breaker.forced(now_ms).map(|forced| match forced {
            Forced::Open => "open",
            Forced::Closed => "closed",
        }),
        reasons: reasons
            .iter()
            .map(|r| ReasonView {
                ago_ms: now_ms.saturating_sub(r.at_ms),
                why: r.why,
            })
            .collect(),
    }
}
