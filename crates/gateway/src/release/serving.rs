//! What the route table knows of versions: which one serves, who can answer, what was counted.

use std::sync::{Arc, OnceLock, Weak};

use super::counts::Count;
use crate::pipeline::Gate;

/// Looks into the table in use. Knows nothing before [`Serving::attach`]: routes are built before the gate.
#[derive(Clone, Default)]
pub(crate) struct Serving(Arc<OnceLock<Weak<Gate>>>);

impl Serving {
    /// From now on this gate's table is looked at.
    pub(crate) fn attach(&self, gate: &Arc<Gate>) {
        // Weak: the gate holds the routes that hold this. Attached once, at the start.
        let _ = self.0.set(Arc::downgrade(gate));
    }

    fn gate(&self) -> Option<Arc<Gate>> {
        self.0.get()?.upgrade()
    }

    /// The version that gets what no candidate does; `not` when it is another.
    pub(crate) fn stable(&self, service: &str, not: Option<&str>) -> Option<String> {
        let gate = self.gate()?;
        let table = gate.table();
        let node = table.named(service)?.all().next()?.clone();
        node.serving(not).map(|version| version.name.to_string())
    }

    /// Instances of a version that can answer, of all services of the name.
    pub(super) fn ready(&self, service: &str, version: &str) -> usize {
        let Some(gate) = self.gate() else { return 0 };
        let table = gate.table();
        let Some(named) = table.named(service) else {
            return 0;
        };
        { named.all() }
            .flat_map(|node| node.versions.iter())
            .filter(|v| *v.name == *version)
            .map(|v| v.pool.members().len())
            .sum()
    }

    /// What this replica counted of all trials. Services of one name in several tenants count together: they
    /// share the release.
    pub(super) fn counted(&self) -> Vec<Count> {
        let Some(gate) = self.gate() else {
            return Vec::new();
        };
        let table = gate.table();
        let mut all: Vec<Count> = Vec::new();
        for (service, named) in table.services() {
            for node in named.all() {
                let Some(run) = node.split.run() else {
                    continue;
                };
                for version in &node.versions {
                    let Some(tally) = &version.tally else {
                        continue;
                    };
                    let totals = tally.totals();
                    let same = { all.iter_mut() }.find(|c| {
                        c.run == run && c.version == *version.name && c.service == **service
                    });
                    match same {
                        Some(count) => count.totals.add(&totals),
                        None => all.push(Count {
                            service: service.to_string(),
                            run,
                            version: version.name.to_string(),
                            totals,
                        }),
                    }
                }
            }
        }
        all
    }
}
