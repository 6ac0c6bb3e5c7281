//! What goes on with a release now, for people and programs: phase, shares, counts, guards, the way back.

use portico_base::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::guards::{Judged, judge};
use super::machine::{Hindrance, World};
use super::serving::Serving;
use super::watch::Watch;
use crate::objects::doc::{Figures, GuardsDoc, Phase, ReleaseDoc};

/// What goes on with a release, as this replica sees it.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = GatewayReleaseStatus)]
pub(crate) struct Status {
    /// What goes on.
    phase: Phase,
    /// The version that gets what the candidate does not; absent while the service has no instance.
    stable: Option<String>,
    /// The version on trial.
    candidate: Option<String>,
    /// Percent of the traffic that the candidate gets.
    weight: f64,
    /// Steps that are reached.
    step: u32,
    /// Steps of the plan; 0 without one.
    steps: u32,
    /// The weight of the next step; absent at the last one.
    next_weight: Option<f64>,
    /// When the plan goes on; absent unless it does so by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_at: Option<Timestamp>,
    /// What keeps the plan from going on although its time has come: `candidate_not_ready` or
    /// `too_few_requests`.
    #[schema(value_type = Option<String>)]
    waits_for: Option<&'static str>,
    /// The versions that have a part in it.
    versions: Vec<VersionView>,
    /// What the guards say by the newest requests that are enough; empty without a plan.
    guards: Vec<Judged>,
    /// What `rollback` would do; absent when it would be refused.
    rollback: Option<WayBack>,
}

/// One version of a release.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayReleaseVersion)]
struct VersionView {
    /// Its name.
    version: String,
    /// `stable`, `candidate` or `previous`.
    #[schema(value_type = String)]
    role: &'static str,
    /// Percent of the traffic.
    weight: f64,
    /// Instances that can answer.
    ready: usize,
    /// Its requests since the trial began, on all replicas; absent without a trial.
    figures: Option<Figures>,
}

/// Where `rollback` leads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GatewayReleaseWayBack)]
struct WayBack {
    /// The version that gets everything then.
    version: Option<String>,
    /// The end of the window; absent where a trial would be ended, which is possible at any time.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

/// Puts the status together.
pub(super) fn status(
    service: &str,
    doc: &ReleaseDoc,
    now: Timestamp,
    serving: &Serving,
    watch: &Watch,
) -> Status {
    let candidate = doc.candidate.as_ref();
    let name = candidate.map(|c| c.version.as_str());
    let stable = doc.stable.clone().or_else(|| serving.stable(service, name));
    let state = doc.state.as_ref();
    let guards = { doc.plan.as_ref() }.map_or_else(GuardsDoc::default, |plan| plan.guards);
    let counted = state.and_then(|s| watch.sides(service, s.run, guards.min_requests));
    let counted = counted.filter(|_| candidate.is_some());
    let weight = candidate.map_or(0.0, |c| c.weight);
    let whole = counted.as_ref().map(|(whole, _)| whole);
    let view = |version: &str, role, weight, figures| VersionView {
        version: version.to_owned(),
        role,
        weight,
        ready: serving.ready(service, version),
        figures,
    };
    let mut versions = Vec::new();
    if let Some(version) = &stable {
        let figures = whole.map(|sides| sides.stable.figures());
        versions.push(view(version, "stable", 100.0 - weight, figures));
    }
    if let Some(version) = name {
        let figures = whole.map(|sides| sides.candidate.figures());
        versions.push(view(version, "candidate", weight, figures));
    }
    let previous = state.and_then(|s| s.previous.as_ref());
    let previous = previous.filter(|p| !p.over && now < p.until);
    if let Some(previous) = previous {
        versions.push(view(&previous.version, "previous", 0.0, None));
    }
    let world = World {
        now,
        candidate_ready: name.is_some_and(|v| serving.ready(service, v) > 0),
        requests: whole.map_or(0, |w| w.candidate.requests.min(w.stable.requests)),
    };
    let rollback = if doc.has_trial() {
        Some(WayBack {
            version: stable.clone(),
            until: None,
        })
    } else {
        previous.map(|p| WayBack {
            version: Some(p.version.clone()),
            until: Some(p.until),
        })
    };
    Status {
        phase: doc.phase(),
        candidate: name.map(str::to_owned),
        weight,
        step: state.map_or(0, |s| s.step),
        steps: { doc.plan.as_ref() }
            .map_or(0, |p| u32::try_from(p.steps.len()).unwrap_or(u32::MAX)),
        next_weight: doc.next_weight(),
        next_at: doc.hold_ends(),
        waits_for: doc.due(&world).and_then(Result::err).map(|why| match why {
            Hindrance::CandidateNotReady => "candidate_not_ready",
            Hindrance::TooFewRequests => "too_few_requests",
        }),
        guards: match (&doc.plan, &counted) {
            (Some(_), Some((_, judged))) => judge(&guards, &judged.candidate, &judged.stable),
            _ => Vec::new(),
        },
        stable,
        versions,
        rollback,
    }
}
