//! The registry: hands out handles by family and label values, keeps every family within its bound, and is scraped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use crate::cell::{
    Counter, CounterCore, Gauge, GaugeCore, Histogram, HistogramCore, HistogramSnapshot,
};
use crate::family::{CounterFamily, Family, GaugeFamily, HistogramFamily, Kind};

/// Most series of one process (OB-3); a histogram's series counts once for each of its lines.
pub const SERIES_BUDGET: usize = 20_000;

/// The value that stands for every set of labels beyond a family's bound.
pub const OTHER: &str = "other";

const MAX_LABEL_VALUE: usize = 120;

static OVERFLOW: CounterFamily = CounterFamily::new(
    "portico_metrics_overflow_total",
    "Look-ups of label values that went to `other` because their family or the process was full.",
    &["metric"],
    200,
);

/// All metrics of one process, or of one test. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    budget: usize,
    lines: AtomicUsize,
    families: RwLock<BTreeMap<&'static str, Entry>>,
    collectors: Mutex<Vec<Collector>>,
}

type Collector = Arc<dyn Fn(&mut Samples) + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Entry {
    Declared(&'static Family),
    Counter(Arc<Labelled<Counter>>),
    Gauge(Arc<Labelled<Gauge>>),
    Histogram(Arc<Labelled<Histogram>>),
}

impl Entry {
    pub(crate) fn family(&self) -> &'static Family {
        match self {
            Self::Declared(family) => family,
            Self::Counter(l) => l.family,
            Self::Gauge(l) => l.family,
            Self::Histogram(l) => l.family,
        }
    }
}

pub(crate) struct Labelled<H> {
    family: &'static Family,
    pub(crate) series: Mutex<BTreeMap<Box<str>, Series<H>>>,
}

pub(crate) struct Series<H> {
    values: Box<[Box<str>]>,
    pub(crate) handle: H,
}

impl<H> Labelled<H> {
    fn new(family: &'static Family) -> Arc<Self> {
        Arc::new(Self {
            family,
            series: Mutex::default(),
        })
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(SERIES_BUDGET)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("families", &self.0.families.read().len())
            .field("lines", &self.0.lines.load(Relaxed))
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry that holds at most `budget` series.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        let registry = Self(Arc::new(Inner {
            budget,
            lines: AtomicUsize::new(0),
            families: RwLock::default(),
            collectors: Mutex::default(),
        }));
        registry.declare(&[OVERFLOW.family()]);
        registry
    }

    /// Lists families before they have a series, for the documentation and the metric walk.
    pub fn declare(&self, families: &[&'static Family]) {
        let mut known = self.0.families.write();
        for family in families {
            let entry = known.entry(family.name).or_insert(Entry::Declared(family));
            assert_same(entry.family(), family);
        }
    }

    /// The counters of a family.
    #[must_use]
    pub fn counter(&self, family: &'static CounterFamily) -> CounterVec {
        let family = family.family();
        let mut known = self.0.families.write();
        let entry = known.entry(family.name).or_insert(Entry::Declared(family));
        assert_same(entry.family(), family);
        if let Entry::Counter(labelled) = entry {
            return CounterVec(self.clone(), Arc::clone(labelled));
        }
        let labelled = Labelled::new(family);
        *entry = Entry::Counter(Arc::clone(&labelled));
        CounterVec(self.clone(), labelled)
    }

    /// The gauges of a family.
    #[must_use]
    pub fn gauge(&self, family: &'static GaugeFamily) -> GaugeVec {
        let family = family.family();
        let mut known = self.0.families.write();
        let entry = known.entry(family.name).or_insert(Entry::Declared(family));
        assert_same(entry.family(), family);
        if let Entry::Gauge(labelled) = entry {
            return GaugeVec(self.clone(), Arc::clone(labelled));
        }
        let labelled = Labelled::new(family);
        *entry = Entry::Gauge(Arc::clone(&labelled));
        GaugeVec(self.clone(), labelled)
    }

    /// The histograms of a family.
    #[must_use]
    pub fn histogram(&self, family: &'static HistogramFamily) -> HistogramVec {
        let family = family.family();
        let mut known = self.0.families.write();
        let entry = known.entry(family.name).or_insert(Entry::Declared(family));
        assert_same(entry.family(), family);
        if let Entry::Histogram(labelled) = entry {
            return HistogramVec(self.clone(), Arc::clone(labelled));
        }
        let labelled = Labelled::new(family);
        *entry = Entry::Histogram(Arc::clone(&labelled));
        HistogramVec(self.clone(), labelled)
    }

    /// Calls `collect` at every scrape, for values that are read rather than counted. It must be quick
    /// and must not block.
    pub fn collect_with(&self, collect: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.0.collectors.lock().push(Arc::new(collect));
    }

    /// Every family known so far, sorted by name.
    #[must_use]
    pub fn describe(&self) -> Vec<&'static Family> {
        let mut known: BTreeMap<&'static str, &'static Family> = self
            .0
            .families
            .read()
            .iter()
            .map(|(name, entry)| (*name, entry.family()))
            .collect();
        for family in self.collected().families() {
            known.insert(family.name, family);
        }
        known.into_values().collect()
    }

    /// Series held at present (of histograms: their lines), collectors not counted.
    #[must_use]
    pub fn series(&self) -> usize {
        self.0.lines.load(Relaxed)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.families.read().values().cloned().collect()
    }

    pub(crate) fn collected(&self) -> Samples {
        let collectors = self.0.collectors.lock().clone();
        let mut samples = Samples::default();
        for collect in collectors {
            collect(&mut samples);
        }
        for family in std::mem::take(&mut samples.overflowed) {
            self.overflowed(family);
        }
        samples
    }

    /// Finds or makes the series of some label values. Beyond a bound all values become `other`.
    fn series_of<H: Clone>(
        &self,
        labelled: &Labelled<H>,
        values: &[&str],
        make: impl FnOnce() -> H,
    ) -> H {
        let family = labelled.family;
        let key = label_text(family, values);
        let mut series = labelled.series.lock();
        if let Some(known) = series.get(&*key) {
            return known.handle.clone();
        }
        let lines = family.lines_per_series();
        let others = vec![OTHER; family.labels.len()];
        let other_key = label_text(family, &others);
        let own = series.len() - usize::from(series.contains_key(&*other_key));
        // What tells of the overflow must itself find room.
        let reserve = if std::ptr::eq(family, OVERFLOW.family()) {
            0
        } else {
            OVERFLOW.family().max_series
        };
        let full = own >= family.max_series
            || self.0.lines.load(Relaxed) + lines + reserve > self.0.budget;
        if full && !family.labels.is_empty() {
            let key = other_key;
            let handle = insert(&mut series, key, &others, make);
            drop(series);
            self.overflowed(family);
            return handle;
        }
        self.0.lines.fetch_add(lines, Relaxed);
        insert(&mut series, key, values, make)
    }

    fn overflowed(&self, family: &'static Family) {
        // The overflow counter itself may be full; then its own `other` counts, without recursion.
        if family.name != OVERFLOW.family().name {
            self.counter(&OVERFLOW).with(&[family.name]).inc();
        }
    }

    fn remove<H>(&self, labelled: &Labelled<H>, mut gone: impl FnMut(&[Box<str>]) -> bool) {
        let mut series = labelled.series.lock();
        let before = series.len();
        series.retain(|_, s| s.values.iter().all(|v| &**v == OTHER) || !gone(&s.values));
        let removed = (before - series.len()) * labelled.family.lines_per_series();
        self.0.lines.fetch_sub(removed, Relaxed);
    }
}

fn insert<H: Clone>(
    series: &mut BTreeMap<Box<str>, Series<H>>,
    key: String,
    values: &[&str],
    make: impl FnOnce() -> H,
) -> H {
    let entry = series
        .entry(key.into_boxed_str())
        .or_insert_with(|| Series {
            values: values.iter().map(|v| Box::from(*v)).collect(),
            handle: make(),
        });
    entry.handle.clone()
}

fn assert_same(known: &'static Family, asked: &'static Family) {
    assert!(
        known == asked,
        "metric `{}` is declared twice in different forms",
        asked.name
    );
}

macro_rules! labelled {
    ($(#[$doc:meta])* $vec:ident, $handle:ident, $make:expr, $value:ty, $read:expr) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $vec(Registry, Arc<Labelled<$handle>>);

        impl $vec {
            /// The handle of some label values, in the order of the family's labels. It takes a lock and
            /// allocates: keep the handle.
            ///
            /// # Panics
            /// When the number of values is not the number of labels.
            #[must_use]
            pub fn with(&self, values: &[&str]) -> $handle {
                let family = self.1.family;
                self.0.series_of(&self.1, values, || ($make)(family))
            }

            /// Counts that some label values were given as `other`, for whoever keeps to the bound itself.
            pub fn overflowed(&self) {
                self.0.overflowed(self.1.family);
            }

            /// Forgets the series whose label values `gone` says yes to (a removed service); `other` stays.
            pub fn remove(&self, gone: impl FnMut(&[Box<str>]) -> bool) {
                self.0.remove(&self.1, gone);
            }

            /// Label values and value of every series.
            #[must_use]
            pub fn values(&self) -> Vec<(Vec<String>, $value)> {
                let series = self.1.series.lock();
                series
                    .values()
                    .map(|s| {
                        let labels = s.values.iter().map(ToString::to_string).collect();
                        (labels, ($read)(&s.handle))
                    })
                    .collect()
            }
        }

        impl std::fmt::Debug for $vec {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($vec)).field(&self.1.family.name).finish()
            }
        }
    };
}

labelled!(
    /// The counters of a family.
    CounterVec, Counter, |_| Counter(Arc::new(CounterCore::default())), u64, |h: &Counter| h.value()
);
labelled!(
    /// The gauges of a family.
    GaugeVec, Gauge, |_| Gauge(Arc::new(GaugeCore::default())), f64, |h: &Gauge| h.value()
);
labelled!(
    /// The histograms of a family.
    HistogramVec, Histogram, new_histogram, HistogramSnapshot, |h: &Histogram| h.snapshot()
);

fn new_histogram(family: &'static Family) -> Histogram {
    let Kind::Histogram(buckets) = family.kind else {
        unreachable!("a HistogramFamily declares buckets");
    };
    Histogram(Arc::new(HistogramCore::new(buckets)))
}

/// What collectors add to a scrape.
#[derive(Debug, Default)]
pub struct Samples {
    pub(crate) by_family: BTreeMap<&'static str, Collected>,
    /// Families that had more than their bound.
    overflowed: Vec<&'static Family>,
}

#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) family: &'static Family,
    pub(crate) series: BTreeMap<String, f64>,
}

impl Samples {
    /// Adds a gauge's value; a second value for the same labels replaces the first.
    pub fn gauge(&mut self, family: &'static GaugeFamily, values: &[&str], value: f64) {
        *self.slot(family.family(), values).0 = value;
    }

    /// Adds a counter's total, kept elsewhere.
    pub fn counter(&mut self, family: &'static CounterFamily, values: &[&str], total: f64) {
        let (slot, shared) = self.slot(family.family(), values);
        *slot = if shared { *slot + total } else { total };
    }

    /// The place of a value, and whether it stands for all that is beyond the family's bound.
    fn slot(&mut self, family: &'static Family, values: &[&str]) -> (&mut f64, bool) {
        let collected = self.by_family.entry(family.name).or_insert(Collected {
            family,
            series: BTreeMap::new(),
        });
        let mut key = label_text(family, values);
        let full = collected.series.len() >= family.max_series;
        let beyond = full && !collected.series.contains_key(&key) && !family.labels.is_empty();
        if beyond {
            key = label_text(family, &vec![OTHER; family.labels.len()]);
            self.overflowed.push(family);
        }
        (collected.series.entry(key).or_default(), beyond)
    }

    fn families(&self) -> impl Iterator<Item = &'static Family> {
        self.by_family.values().map(|c| c.family)
    }
}

/// `a="x",b="y"`, escaped for both formats; empty without labels.
fn label_text(family: &'static Family, values: &[&str]) -> String {
    assert_eq!(
        values.len(),
        family.labels.len(),
        "metric `{}` has other labels",
        family.name
    );
    let mut out = String::with_capacity(values.len() * 24);
    for (i, (label, value)) in family.labels.iter().zip(values).enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(label);
        out.push_str("=\"");
        for c in value.chars().take(MAX_LABEL_VALUE) {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    static HITS: CounterFamily =
        CounterFamily::new("portico_test_hits_total", "hits of the test", &["kind"], 3);
    static LEVEL: GaugeFamily = GaugeFamily::new("portico_test_level", "level of the test", &[], 1);
    static TIME: HistogramFamily =
        HistogramFamily::seconds("portico_test_seconds", "time of the test", &["op"], 5_000);

    #[test]
    fn beyond_its_maximum_a_family_counts_under_other() {
        let registry = Registry::default();
        let hits = registry.counter(&HITS);
        for i in 0..10 {
            hits.with(&[&format!("k{i}")]).inc();
        }
        hits.with(&["k1"]).inc();
        let values: BTreeMap<String, u64> = hits
            .values()
            .into_iter()
            .map(|(mut labels, n)| (labels.remove(0), n))
            .collect();
        assert_eq!(values.len(), 4);
        assert_eq!(values["k1"], 2);
        assert_eq!(values[OTHER], 7);
        let overflow = registry.counter(&OVERFLOW);
        assert_eq!(overflow.with(&["portico_test_hits_total"]).value(), 7);
    }

    #[test]
    fn the_process_has_a_budget_too() {
        let registry = Registry::new(300);
        let time = registry.histogram(&TIME);
        for i in 0..50 {
            time.with(&[&i.to_string()]).observe_raw(1);
        }
        assert!(registry.series() <= 300, "{}", registry.series());
        let total: u64 = time.values().iter().map(|(_, s)| s.count()).sum();
        assert_eq!(total, 50, "nothing is lost");
    }

    #[test]
    fn removed_series_make_room() {
        let registry = Registry::default();
        let hits = registry.counter(&HITS);
        for name in ["a", "b", "c", "d"] {
            hits.with(&[name]).inc();
        }
        hits.remove(|labels| &*labels[0] == "a");
        hits.with(&["e"]).inc();
        let names: Vec<String> = hits
            .values()
            .into_iter()
            .map(|(l, _)| l[0].clone())
            .collect();
        assert_eq!(names, ["b", "c", "e", "other"]);
    }

    #[test]
    fn handles_are_shared_and_kinds_cannot_clash() {
        let registry = Registry::default();
        registry.gauge(&LEVEL).with(&[]).set(3.0);
        assert!((registry.gauge(&LEVEL).with(&[]).value() - 3.0).abs() < f64::EPSILON);
        static CLASH: GaugeFamily =
            GaugeFamily::new("portico_test_level", "another level of the test", &[], 1);
        let clash = std::panic::AssertUnwindSafe(|| registry.gauge(&CLASH));
        assert!(std::panic::catch_unwind(clash).is_err());
    }

    #[test]
    fn collectors_are_asked_at_every_scrape() {
        let registry = Registry::default();
        let n = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&n);
        registry.collect_with(move |samples| {
            let value = count.fetch_add(1, Relaxed) as f64;
            samples.gauge(&LEVEL, &[], value);
            for i in 0..10 {
                samples.counter(&HITS, &[&i.to_string()], value);
            }
        });
        let samples = registry.collected();
        let hits = &samples.by_family["portico_test_hits_total"].series;
        assert_eq!((hits.len(), hits["kind=\"other\""]), (4, 0.0));
        let samples = registry.collected();
        let hits = &samples.by_family["portico_test_hits_total"].series;
        assert_eq!(hits["kind=\"other\""], 7.0, "the sum of what is beyond");
        assert_eq!(n.load(Relaxed), 2);
        let overflow = registry.counter(&OVERFLOW);
        assert_eq!(overflow.with(&["portico_test_hits_total"]).value(), 14);
    }
}
