//! The cache's figures for a scrape (spec GW §9). Requests and stale answers by route are counted
//! where the route is known.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portico_telemetry::metrics::{CounterFamily, GaugeFamily, Registry, Samples};

use super::Cache;

static BYTES: GaugeFamily = GaugeFamily::new(
    "portico_gateway_cache_bytes",
    "Bytes by tier: l1 and l3 in this process (what is in both counts in both), l2 of all replicas, counted once a minute.",
    &["level"],
    3,
);
static ENTRIES: GaugeFamily = GaugeFamily::new(
    "portico_gateway_cache_entries",
    "Stored answers and notes of variants by tier.",
    &["level"],
    3,
);
static WAITERS: GaugeFamily = GaugeFamily::new(
    "portico_gateway_singleflight_waiters",
    "Requests that wait for another request's answer.",
    &[],
    1,
);
static STORED: CounterFamily = CounterFamily::new(
    "portico_gateway_cache_fills_total",
    "Answers of origins to misses: stored, or refused by the rules of caching.",
    &["result"],
    2,
);
static PURGES: CounterFamily = CounterFamily::new(
    "portico_gateway_cache_purges_total",
    "Purge orders carried out, those of other replicas included.",
    &[],
    1,
);
static SHARED: CounterFamily = CounterFamily::new(
    "portico_gateway_cache_shared_errors_total",
    "Shared tier: errors and time-outs, and writes left out because the queue was full.",
    &["kind"],
    2,
);

static EVICTED: CounterFamily = CounterFamily::new(
    "portico_gateway_cache_shared_evicted_total",
    "Answers that this replica took out of the shared tier for its bound.",
    &[],
    1,
);

/// Declares what [`Cache::report_to`] exports, for the documentation.
pub fn declare(registry: &Registry) {
    registry.declare(&[
        BYTES.family(),
        ENTRIES.family(),
        WAITERS.family(),
        STORED.family(),
        PURGES.family(),
        SHARED.family(),
        EVICTED.family(),
    ]);
}

impl Cache {
    /// Adds the cache's figures to every scrape, for as long as the cache lives.
    pub fn report_to(&self, registry: &Registry) {
        let cache = Arc::downgrade(&self.0);
        registry.collect_with(move |samples| {
            if let Some(inner) = cache.upgrade() {
                collect(&Self(inner), samples);
            }
        });
    }
}

fn collect(cache: &Cache, samples: &mut Samples) {
    let gauges = cache.gauges();
    // Exact up to 2^53, far beyond any cache.
    let float = |n: u64| n as f64;
    for (level, entries, bytes) in [
        ("l1", gauges.l1_entries, gauges.l1_bytes),
        ("l2", gauges.l2_entries, gauges.l2_bytes),
        ("l3", gauges.l3_entries, gauges.l3_bytes),
    ] {
        samples.gauge(&ENTRIES, &[level], float(entries));
        samples.gauge(&BYTES, &[level], float(bytes));
    }
    samples.gauge(&WAITERS, &[], float(gauges.waiters));
    let stats = &cache.0.stats;
    for (family, label, counter) in [
        (&STORED, "stored", &stats.stored),
        (&STORED, "refused", &stats.refused),
        (&SHARED, "error", &stats.shared_errors),
        (&SHARED, "dropped", &stats.shared_dropped),
    ] {
        samples.counter(family, &[label], float(counter.load(Ordering::Relaxed)));
    }
    for (family, counter) in [(&PURGES, &stats.purges), (&EVICTED, &stats.l2_evicted)] {
        samples.counter(family, &[], float(counter.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::CacheConfig;
    use super::*;
    use portico_telemetry::metrics::Format;

    #[test]
    fn a_scrape_tells_the_figures_and_nothing_after_the_cache_is_gone() {
        let registry = Registry::default();
        let cache = Cache::new(CacheConfig::default());
        cache.report_to(&registry);
        cache.0.stats.stored.fetch_add(1, Ordering::Relaxed);
        let text = registry.render(Format::Prometheus);
        assert!(
            text.contains("portico_gateway_cache_fills_total{result=\"stored\"} 1"),
            "{text}"
        );
        assert!(text.contains("portico_gateway_cache_entries{level=\"l1\"} 0"));
        drop(cache);
        assert!(
            !registry
                .render(Format::Prometheus)
                .contains("portico_gateway_cache_entries{")
        );
    }
}
