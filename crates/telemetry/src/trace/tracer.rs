//! The way of finished spans to the exporters: one bounded queue each, batches, back-off; nobody ever waits (OB-12).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use portico_base::Random;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::sampler::Sampler;
use super::span::Span;
use crate::metrics::{Counter, CounterFamily, CounterVec, Family, Registry};

static SPANS: CounterFamily = CounterFamily::new(
    "portico_trace_spans_total",
    "Finished spans by exporter and by what became of them: exported, dropped (queue full), failed.",
    &["exporter", "result"],
    12,
);

pub(crate) static FAMILIES: [&Family; 1] = [SPANS.family()];

/// Most time that the last batches get when the process stops.
const FLUSH_DEADLINE: Duration = Duration::from_secs(3);
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Bounds of the queues.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// Share of traces that are kept when no trusted parent decides, 0 to 1.
    pub ratio: f64,
    /// Most spans that wait for one exporter; further ones are dropped and counted.
    pub queue: usize,
    /// Most spans in one batch.
    pub batch: usize,
    /// A batch leaves after this time even when it is not full.
    pub interval: Duration,
    /// Tries of one batch before it is given up.
    pub tries: u32,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            ratio: 0.01,
            queue: 4_096,
            batch: 512,
            interval: Duration::from_secs(1),
            tries: 3,
        }
    }
}

/// Why a batch could not be handed over.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Trying again may help (unreachable, overloaded, time-out).
    #[error("the trace collector is not available: {0}")]
    Unavailable(String),
    /// The batch is refused and will stay so.
    #[error("the trace collector refuses the batch: {0}")]
    Refused(String),
}

/// Where batches of finished spans go: a collector, or a store of our own.
pub trait SpanExporter: Send + Sync + 'static {
    /// Short name for metrics and logs.
    fn name(&self) -> &'static str;

    /// Hands a batch over. Must end within a bounded time.
    ///
    /// # Errors
    /// Says whether trying again may help.
    fn export<'a>(
        &'a self,
        batch: &'a [Arc<Span>],
    ) -> Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>>;
}

/// Takes finished spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    sampler: Sampler,
    /// True while there is a lane, so that most requests ask nothing else.
    enabled: AtomicBool,
    lanes: RwLock<Vec<Arc<Lane>>>,
    random: Arc<dyn Random>,
    options: TraceOptions,
    spans: Option<CounterVec>,
}

impl PartialEq for Tracer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tracer {}

struct Lane {
    exporter: Arc<dyn SpanExporter>,
    capacity: usize,
    batch: usize,
    queue: Mutex<VecDeque<Arc<Span>>>,
    ready: Notify,
    exported: Counter,
    dropped: Counter,
    failed: Counter,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lanes = self.0.lanes.read();
        let names: Vec<&str> = lanes.iter().map(|l| l.exporter.name()).collect();
        f.debug_struct("Tracer").field("exporters", &names).finish()
    }
}

impl Tracer {
    /// A tracer and the driver that must be run (by the host's spawner) for anything to leave.
    #[must_use]
    pub fn new(
        options: &TraceOptions,
        exporters: Vec<Arc<dyn SpanExporter>>,
        registry: &Registry,
        random: Arc<dyn Random>,
    ) -> (Self, TraceDriver) {
        let tracer = Self(Arc::new(Inner {
            sampler: Sampler::new(options.ratio),
            enabled: AtomicBool::new(false),
            lanes: RwLock::default(),
            random,
            options: options.clone(),
            spans: Some(registry.counter(&SPANS)),
        }));
        let driver = tracer.replace(exporters);
        (tracer, driver)
    }

    /// Other exporters from now on (CF-5). The driver of the former ones should be stopped: it hands over
    /// what still waits for them, and then ends.
    #[must_use]
    pub fn replace(&self, exporters: Vec<Arc<dyn SpanExporter>>) -> TraceDriver {
        let lanes: Vec<_> = exporters.into_iter().map(|e| self.0.lane(e)).collect();
        self.0.enabled.store(!lanes.is_empty(), Ordering::Relaxed);
        (*self.0.lanes.write()).clone_from(&lanes);
        TraceDriver {
            tracer: self.clone(),
            lanes,
        }
    }

    /// A tracer without exporters: everything is dropped at once.
    #[must_use]
    pub fn disabled() -> Self {
        Self(Arc::new(Inner {
            sampler: Sampler::new(0.0),
            enabled: AtomicBool::new(false),
            lanes: RwLock::default(),
            random: Arc::new(portico_base::SystemRandom),
            options: TraceOptions::default(),
            spans: None,
        }))
    }

    /// True when there is an exporter at all; when not, nobody needs to make spans.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.enabled.load(Ordering::Relaxed)
    }

    pub(super) fn random(&self) -> &dyn Random {
        &*self.0.random
    }

    /// Who decides which traces are kept.
    #[must_use]
    pub fn sampler(&self) -> &Sampler {
        &self.0.sampler
    }

    /// Hands over a finished span. Never waits: a full queue drops it and counts.
    pub fn submit(&self, span: Span) {
        if !self.is_enabled() {
            return;
        }
        let span = Arc::new(span);
        for lane in &*self.0.lanes.read() {
            lane.push(Arc::clone(&span));
        }
    }
}

impl Inner {
    fn lane(&self, exporter: Arc<dyn SpanExporter>) -> Arc<Lane> {
        let counter = |result| {
            self.spans
                .as_ref()
                .map(|spans| spans.with(&[exporter.name(), result]))
                .unwrap_or_default()
        };
        Arc::new(Lane {
            capacity: self.options.queue.max(1),
            batch: self.options.batch.clamp(1, self.options.queue.max(1)),
            queue: Mutex::default(),
            ready: Notify::new(),
            exported: counter("exported"),
            dropped: counter("dropped"),
            failed: counter("failed"),
            exporter,
        })
    }
}

impl Lane {
    fn push(&self, span: Arc<Span>) {
        let mut queue = self.queue.lock();
        if queue.len() >= self.capacity {
            drop(queue);
            self.dropped.inc();
            return;
        }
        queue.push_back(span);
        let full = queue.len() == self.batch;
        drop(queue);
        if full {
            self.ready.notify_one();
        }
    }

    fn take(&self) -> Vec<Arc<Span>> {
        let mut queue = self.queue.lock();
        let n = queue.len().min(self.batch);
        queue.drain(..n).collect()
    }
}

/// Carries batches to the exporters; run it once.
pub struct TraceDriver {
    tracer: Tracer,
    lanes: Vec<Arc<Lane>>,
}

impl std::fmt::Debug for TraceDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TraceDriver").field(&self.tracer).finish()
    }
}

impl TraceDriver {
    /// Runs until `stop`; then the waiting spans get at most three seconds.
    pub async fn run(self, stop: CancellationToken) {
        let lanes = self.lanes.iter();
        join_all(lanes.map(|lane| self.run_lane(lane, &stop))).await;
    }

    async fn run_lane(&self, lane: &Lane, stop: &CancellationToken) {
        let mut backoff = Backoff::default();
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = lane.ready.notified() => {}
                () = tokio::time::sleep(self.tracer.0.options.interval) => {}
            }
            loop {
                let batch = lane.take();
                if batch.is_empty() || !self.send(lane, &batch, &mut backoff, stop).await {
                    break;
                }
            }
        }
        let flush = async {
            loop {
                let batch = lane.take();
                if batch.is_empty() || !deliver(lane, &batch).await {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(FLUSH_DEADLINE, flush).await;
    }

    /// Sends one batch with retries; false when the process stops meanwhile.
    async fn send(
        &self,
        lane: &Lane,
        batch: &[Arc<Span>],
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> bool {
        for attempt in 1.. {
            let outcome = tokio::select! {
                () = stop.cancelled() => {
                    return_to_queue(lane, batch);
                    return false;
                }
                outcome = lane.exporter.export(batch) => outcome,
            };
            let error = match outcome {
                Ok(()) => {
                    lane.exported.add(batch.len() as u64);
                    backoff.reset();
                    return true;
                }
                Err(error) => error,
            };
            let hopeless = matches!(error, ExportError::Refused(_));
            if hopeless || attempt >= self.tracer.0.options.tries {
                lane.failed.add(batch.len() as u64);
                if backoff.should_report() {
                    let exporter = lane.exporter.name();
                    tracing::warn!(exporter, err = %error, spans = batch.len(), "spans were not exported");
                }
            }
            let pause = backoff.next(self.tracer.random());
            tokio::select! {
                () = stop.cancelled() => {
                    if !hopeless && attempt < self.tracer.0.options.tries {
                        return_to_queue(lane, batch);
                    }
                    return false;
                }
                () = tokio::time::sleep(pause) => {}
            }
            if hopeless || attempt >= self.tracer.0.options.tries {
                return true;
            }
        }
        true
    }
}

/// One try without patience, for the end.
async fn deliver(lane: &Lane, batch: &[Arc<Span>]) -> bool {
    let sent = lane.exporter.export(batch).await.is_ok();
    let counter = if sent { &lane.exported } else { &lane.failed };
    counter.add(batch.len() as u64);
    sent
}

fn return_to_queue(lane: &Lane, batch: &[Arc<Span>]) {
    let mut queue = lane.queue.lock();
    for span in batch.iter().rev() {
        queue.push_front(Arc::clone(span));
    }
}

/// Exponential pause with full jitter; reports a series of failures once, then every hundredth.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    reported: u32,
}

impl Backoff {
    fn next(&mut self, random: &dyn Random) -> Duration {
        let factor = 1_u32 << self.failures.min(10);
        self.failures = self.failures.saturating_add(1);
        let most = (FIRST_BACKOFF * factor).min(MAX_BACKOFF).as_millis();
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        Duration::from_millis(most / 2 + random.below(most / 2 + 1))
    }

    fn should_report(&mut self) -> bool {
        let due = self.reported.is_multiple_of(100);
        self.reported = self.reported.wrapping_add(1);
        due
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}
