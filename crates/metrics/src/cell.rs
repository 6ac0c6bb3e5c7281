//! The values behind handles: shared cells, and per-worker cells that one thread writes and a scrape merges (OB-4).
//!
//! A local cell has exactly one writer: its handle is neither `Sync` nor `Clone`. So it needs no
//! read-modify-write instruction; a relaxed load and store cost about a nanosecond.

use std::cell::Cell as NotSync;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::family::Buckets;

/// A traced example of one observation, shown by OpenMetrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar {
    /// The trace in which it happened.
    pub trace_id: [u8; 16],
    /// The observed value in the exposed unit.
    pub value: f64,
    /// When, as Unix milliseconds.
    pub at_ms: i64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Padded<T>(T);

/// Number behind a counter.
#[derive(Debug, Default)]
pub(crate) struct CounterCore {
    base: AtomicU64,
    locals: Mutex<Vec<Arc<Padded<AtomicU64>>>>,
    exemplar: Mutex<Option<Exemplar>>,
}

impl CounterCore {
    pub(crate) fn value(&self) -> u64 {
        // The lock keeps a cell from being merged into the base between the two reads.
        let locals = self.locals.lock();
        let mut sum = self.base.load(Relaxed);
        for cell in locals.iter() {
            sum = sum.wrapping_add(cell.0.load(Relaxed));
        }
        sum
    }

    pub(crate) fn exemplar(&self) -> Option<Exemplar> {
        *self.exemplar.lock()
    }
}

/// A counter that any thread may raise. Cheap to clone; keep it instead of looking it up again.
#[derive(Debug, Clone, Default)]
pub struct Counter(pub(crate) Arc<CounterCore>);

impl Counter {
    /// Raises by one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Raises by `n`.
    pub fn add(&self, n: u64) {
        self.0.base.fetch_add(n, Relaxed);
    }

    /// Raises by one and remembers the trace in which it happened.
    pub fn inc_traced(&self, trace_id: impl Into<[u8; 16]>, at_ms: i64) {
        self.inc();
        *self.0.exemplar.lock() = Some(Exemplar {
            trace_id: trace_id.into(),
            value: 1.0,
            at_ms,
        });
    }

    /// The present value, local cells included.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.value()
    }

    /// A cell of its own for one worker; its value stays when the worker ends.
    #[must_use]
    pub fn local(&self) -> LocalCounter {
        let cell = Arc::new(Padded::default());
        self.0.locals.lock().push(Arc::clone(&cell));
        LocalCounter {
            cell,
            core: Arc::clone(&self.0),
            one_writer: PhantomData,
        }
    }
}

/// A counter that only its owner raises; about a nanosecond.
#[derive(Debug)]
pub struct LocalCounter {
    cell: Arc<Padded<AtomicU64>>,
    core: Arc<CounterCore>,
    one_writer: PhantomData<NotSync<()>>,
}

impl LocalCounter {
    /// Raises by one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Raises by `n`.
    pub fn add(&self, n: u64) {
        let cell = &self.cell.0;
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }
}

impl Drop for LocalCounter {
    fn drop(&mut self) {
        let mut locals = self.core.locals.lock();
        locals.retain(|cell| !Arc::ptr_eq(cell, &self.cell));
        self.core.base.fetch_add(self.cell.0.load(Relaxed), Relaxed);
    }
}

/// Number behind a gauge.
#[derive(Debug, Default)]
pub(crate) struct GaugeCore {
    bits: AtomicU64,
    locals: Mutex<Vec<Arc<Padded<AtomicI64>>>>,
}

impl GaugeCore {
    pub(crate) fn value(&self) -> f64 {
        let locals = self.locals.lock();
        let base = f64::from_bits(self.bits.load(Relaxed));
        base + locals.iter().map(|c| c.0.load(Relaxed) as f64).sum::<f64>()
    }

    fn add(&self, by: f64) {
        let _ = self.bits.fetch_update(Relaxed, Relaxed, |bits| {
            Some((f64::from_bits(bits) + by).to_bits())
        });
    }
}

/// A gauge that any thread may set.
#[derive(Debug, Clone, Default)]
pub struct Gauge(pub(crate) Arc<GaugeCore>);

impl Gauge {
    /// Sets the shared part; local cells are added to it.
    pub fn set(&self, value: f64) {
        self.0.bits.store(value.to_bits(), Relaxed);
    }

    /// Raises or, with a negative number, lowers.
    pub fn add(&self, by: f64) {
        self.0.add(by);
    }

    /// The present value, local cells included.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.0.value()
    }

    /// A cell of its own for one worker; what it holds is taken back when the worker ends.
    #[must_use]
    pub fn local(&self) -> LocalGauge {
        let cell = Arc::new(Padded::default());
        self.0.locals.lock().push(Arc::clone(&cell));
        LocalGauge {
            cell,
            core: Arc::clone(&self.0),
            one_writer: PhantomData,
        }
    }
}

/// A gauge's part that only its owner changes (requests in flight on one worker).
#[derive(Debug)]
pub struct LocalGauge {
    cell: Arc<Padded<AtomicI64>>,
    core: Arc<GaugeCore>,
    one_writer: PhantomData<NotSync<()>>,
}

impl LocalGauge {
    /// Raises or, with a negative number, lowers.
    pub fn add(&self, by: i64) {
        let cell = &self.cell.0;
        cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
    }
}

impl Drop for LocalGauge {
    fn drop(&mut self) {
        // What a gauge counts (connections, requests in flight) ends with its worker.
        self.core
            .locals
            .lock()
            .retain(|cell| !Arc::ptr_eq(cell, &self.cell));
    }
}

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slots {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Slots {
    fn new(buckets: Buckets) -> Self {
        Self {
            counts: (0..=buckets.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }
}

/// Numbers behind a histogram.
#[derive(Debug)]
pub(crate) struct HistogramCore {
    pub(crate) buckets: Buckets,
    base: Slots,
    locals: Mutex<Vec<Arc<Slots>>>,
    exemplars: Mutex<Vec<Option<Exemplar>>>,
}

impl HistogramCore {
    pub(crate) fn new(buckets: Buckets) -> Self {
        Self {
            buckets,
            base: Slots::new(buckets),
            locals: Mutex::default(),
            exemplars: Mutex::default(),
        }
    }

    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        let locals = self.locals.lock();
        let mut counts = vec![0_u64; self.buckets.len() + 1];
        let mut sum = 0_u64;
        for slots in std::iter::once(&self.base).chain(locals.iter().map(AsRef::as_ref)) {
            for (total, cell) in counts.iter_mut().zip(&slots.counts) {
                *total += cell.load(Relaxed);
            }
            sum = sum.wrapping_add(slots.sum.load(Relaxed));
        }
        HistogramSnapshot {
            buckets: self.buckets,
            counts,
            sum,
        }
    }

    pub(crate) fn exemplars(&self) -> Vec<Option<Exemplar>> {
        self.exemplars.lock().clone()
    }

    fn remember(&self, raw: u64, trace_id: [u8; 16], at_ms: i64) {
        let mut exemplars = self.exemplars.lock();
        exemplars.resize(self.buckets.len() + 1, None);
        exemplars[self.buckets.index(raw)] = Some(Exemplar {
            trace_id,
            value: self.buckets.expose(raw),
            at_ms,
        });
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Its bounds.
    pub buckets: Buckets,
    /// Observations in each bucket alone (not cumulative), `+Inf` last.
    pub counts: Vec<u64>,
    /// Sum of all observations in nanoseconds or bytes.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// Number of observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bound of the bucket that holds quantile `q` (0 to 1), in the exposed unit; `None` when empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64) * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, n) in self.counts.iter().enumerate() {
            seen += n;
            if count > 0 && seen >= rank {
                return Some(self.buckets.bound(i.min(self.buckets.len() - 1)));
            }
        }
        None
    }
}

/// A histogram that any thread may observe into.
#[derive(Debug, Clone)]
pub struct Histogram(pub(crate) Arc<HistogramCore>);

impl Histogram {
    /// Observes a duration.
    pub fn observe(&self, time: Duration) {
        self.observe_raw(nanos(time));
    }

    /// Observes nanoseconds or bytes, by the family's unit.
    pub fn observe_raw(&self, raw: u64) {
        self.0.base.counts[self.0.buckets.index(raw)].fetch_add(1, Relaxed);
        self.0.base.sum.fetch_add(raw, Relaxed);
    }

    /// Observes a duration and remembers the trace in which it was.
    pub fn observe_traced(&self, time: Duration, trace_id: impl Into<[u8; 16]>, at_ms: i64) {
        self.observe(time);
        self.0.remember(nanos(time), trace_id.into(), at_ms);
    }

    /// All observations so far, local cells included.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        self.0.snapshot()
    }

    /// A set of cells of its own for one worker.
    #[must_use]
    pub fn local(&self) -> LocalHistogram {
        let slots = Arc::new(Slots::new(self.0.buckets));
        self.0.locals.lock().push(Arc::clone(&slots));
        LocalHistogram {
            slots,
            core: Arc::clone(&self.0),
            one_writer: PhantomData,
        }
    }
}

/// A histogram that only its owner observes into; about two nanoseconds.
#[derive(Debug)]
pub struct LocalHistogram {
    slots: Arc<Slots>,
    core: Arc<HistogramCore>,
    one_writer: PhantomData<NotSync<()>>,
}

impl LocalHistogram {
    /// Observes a duration.
    pub fn observe(&self, time: Duration) {
        self.observe_raw(nanos(time));
    }

    /// Observes nanoseconds or bytes, by the family's unit.
    pub fn observe_raw(&self, raw: u64) {
        let cell = &self.slots.counts[self.core.buckets.index(raw)];
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
        let sum = &self.slots.sum;
        sum.store(sum.load(Relaxed).wrapping_add(raw), Relaxed);
    }

    /// Observes a duration and remembers the trace in which it was (takes a lock: sampled requests only).
    pub fn observe_traced(&self, time: Duration, trace_id: impl Into<[u8; 16]>, at_ms: i64) {
        self.observe(time);
        self.core.remember(nanos(time), trace_id.into(), at_ms);
    }
}

impl Drop for LocalHistogram {
    fn drop(&mut self) {
        let mut locals = self.core.locals.lock();
        locals.retain(|slots| !Arc::ptr_eq(slots, &self.slots));
        for (total, cell) in self.core.base.counts.iter().zip(&self.slots.counts) {
            total.fetch_add(cell.load(Relaxed), Relaxed);
        }
        let sum = self.slots.sum.load(Relaxed);
        self.core.base.sum.fetch_add(sum, Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_exact_under_threads() {
        let counter = Counter::default();
        let gauge = Gauge::default();
        let histogram = Histogram(Arc::new(HistogramCore::new(Buckets::Seconds)));
        std::thread::scope(|scope| {
            for worker in 0..8 {
                let (counter, gauge, histogram) = (&counter, &gauge, &histogram);
                scope.spawn(move || {
                    let (c, g, h) = (counter.local(), gauge.local(), histogram.local());
                    for i in 0..10_000_u64 {
                        c.inc();
                        counter.inc();
                        g.add(1);
                        g.add(-1);
                        gauge.add(1.0);
                        h.observe_raw(i * 1_000);
                        histogram.observe(Duration::from_micros(i + worker));
                        if i % 1_000 == 0 {
                            // A scrape in between must neither lose nor double anything.
                            assert!(counter.value() >= i * 2);
                        }
                    }
                });
            }
        });
        assert_eq!(counter.value(), 160_000);
        assert!((gauge.value() - 80_000.0).abs() < f64::EPSILON);
        assert_eq!(histogram.snapshot().count(), 160_000);
        assert!(counter.0.locals.lock().is_empty(), "cells were merged");
    }

    #[test]
    fn quantiles_come_from_buckets() {
        let histogram = Histogram(Arc::new(HistogramCore::new(Buckets::Seconds)));
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        for _ in 0..99 {
            histogram.observe(Duration::from_micros(400));
        }
        histogram.observe(Duration::from_secs(60));
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.quantile(0.5), Some(0.0005));
        assert_eq!(snapshot.quantile(1.0), Some(32.768));
        assert_eq!(snapshot.sum, 99 * 400_000 + 60_000_000_000);
    }
}
