//! Figures of releases, read from the objects and the table at each scrape, so that nothing old stays behind.

use portico_telemetry::metrics::{GaugeFamily, Registry};

use super::serving::Serving;
use crate::objects::Book;
use crate::objects::doc::{Guard, Phase, ReleaseDoc};

/// Releases with figures of their own (§9).
const SERVICES: usize = 200;

static WEIGHT: GaugeFamily = GaugeFamily::new(
    "portico_gateway_release_weight",
    "Percent of a service's traffic that a version gets by its release.",
    &["service", "version"],
    400,
);
static GUARD: GaugeFamily = GaugeFamily::new(
    "portico_gateway_release_guard",
    "1 for the guard that stopped a service's candidate, 0 for one that watches.",
    &["service", "guard"],
    400,
);

/// Declares what [`export`] exports, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[WEIGHT.family(), GUARD.family()]);
}

/// Adds the figures to every scrape.
pub(super) fn export(registry: &Registry, book: Book, serving: Serving) {
    declare(registry);
    registry.collect_with(move |samples| {
        for release in book.current().releases.iter().take(SERVICES) {
            let (service, doc) = (&*release.name, &release.doc);
            let candidate = doc.candidate.as_ref();
            let name = candidate.map(|c| c.version.as_str());
            let weight = candidate.map_or(0.0, |c| c.weight);
            let stable = { doc.stable.clone() }.or_else(|| serving.stable(service, name));
            if let Some(stable) = stable {
                samples.gauge(&WEIGHT, &[service, &stable], 100.0 - weight);
            }
            if let Some(candidate) = name {
                samples.gauge(&WEIGHT, &[service, candidate], weight);
            }
            for guard in watching(doc) {
                let stopped = doc.state.as_ref().and_then(|s| s.stopped.as_ref());
                let decided = stopped.is_some_and(|s| s.guard == Some(guard));
                let value = f64::from(u8::from(decided));
                samples.gauge(&GUARD, &[service, guard.as_str()], value);
            }
        }
    });
}

/// The guards of a trial that is under way, or was stopped.
fn watching(doc: &ReleaseDoc) -> impl Iterator<Item = Guard> {
    let guards =
        { doc.plan.as_ref() }.filter(|_| doc.candidate.is_some() && doc.phase() != Phase::Steady);
    let guards = guards.map(|plan| plan.guards);
    Guard::ALL.into_iter().filter(move |guard| {
        guards.is_some_and(|on| match guard {
            Guard::ErrorRate => on.error_points.is_some(),
            Guard::P95 => on.p95_ratio.is_some(),
        })
    })
}
