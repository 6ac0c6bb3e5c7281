//! `portico_runtime_*`: how busy the asynchronous runtimes are, from what tokio's stable metrics tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, RuntimeMetrics};

use crate::metrics::{Family, GaugeFamily, Registry, Samples};

static BUSY: GaugeFamily = GaugeFamily::new(
    "portico_runtime_busy_ratio",
    "Share of the time that a runtime's workers were polling tasks since the last reading, 0 to 1.",
    &["runtime"],
    8,
);
static QUEUE: GaugeFamily = GaugeFamily::new(
    "portico_runtime_queue_depth",
    "Tasks that wait in the queue which all workers of a runtime share.",
    &["runtime"],
    8,
);
static TASKS: GaugeFamily = GaugeFamily::new(
    "portico_runtime_tasks",
    "Tasks of a runtime that have not ended.",
    &["runtime"],
    8,
);
static WORKERS: GaugeFamily = GaugeFamily::new(
    "portico_runtime_workers",
    "Worker threads by runtime.",
    &["runtime"],
    8,
);
static BLOCKING: GaugeFamily = GaugeFamily::new(
    "portico_runtime_blocking_threads",
    "Threads that runtimes hold for blocking work: files, name look-ups, hashing.",
    &[],
    1,
);

pub(crate) static FAMILIES: [&Family; 5] = [
    BUSY.family(),
    QUEUE.family(),
    TASKS.family(),
    WORKERS.family(),
    BLOCKING.family(),
];

/// Between two readings of the busy time lies at least this, however often one scrapes.
const WINDOW: Duration = Duration::from_secs(1);

/// The runtimes of a process. Cheap to clone; several runtimes of one name are shown as one.
#[derive(Debug, Clone, Default)]
pub struct Runtimes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    watched: Mutex<Vec<Watched>>,
    threads: AtomicUsize,
    /// Of those, the workers.
    workers: AtomicUsize,
}

#[derive(Debug)]
struct Watched {
    name: &'static str,
    metrics: RuntimeMetrics,
    read: Instant,
    busy: Duration,
    ratio: f64,
}

impl Runtimes {
    /// Counts the threads that a runtime yet to be built will start: its workers, and those for blocking
    /// work. `workers` of them are workers (0 for one that lives on its builder's thread).
    pub fn count_threads(&self, builder: &mut Builder, workers: usize) {
        self.0.workers.fetch_add(workers, Ordering::Relaxed);
        let (begun, ended) = (Arc::clone(&self.0), Arc::clone(&self.0));
        builder
            .on_thread_start(move || {
                begun.threads.fetch_add(1, Ordering::Relaxed);
            })
            .on_thread_stop(move || {
                ended.threads.fetch_sub(1, Ordering::Relaxed);
            });
    }

    /// Shows a runtime from now on.
    pub fn watch(&self, name: &'static str, runtime: &Handle) {
        let metrics = runtime.metrics();
        self.0.watched.lock().push(Watched {
            name,
            busy: busy(&metrics),
            metrics,
            read: Instant::now(),
            ratio: 0.0,
        });
    }

    /// Adds the figures to every scrape.
    pub fn export(&self, registry: &Registry) {
        registry.declare(&FAMILIES);
        let this = self.clone();
        registry.collect_with(move |samples| this.collect(samples));
    }

    fn collect(&self, samples: &mut Samples) {
        let mut sums: BTreeMap<&'static str, Sum> = BTreeMap::new();
        for runtime in self.0.watched.lock().iter_mut() {
            runtime.read();
            let sum = sums.entry(runtime.name).or_default();
            let workers = runtime.metrics.num_workers() as f64;
            sum.workers += workers;
            sum.busy += runtime.ratio * workers;
            sum.queued += runtime.metrics.global_queue_depth() as f64;
            sum.tasks += runtime.metrics.num_alive_tasks() as f64;
        }
        for (name, sum) in sums {
            samples.gauge(&BUSY, &[name], sum.busy / sum.workers.max(1.0));
            samples.gauge(&QUEUE, &[name], sum.queued);
            samples.gauge(&TASKS, &[name], sum.tasks);
            samples.gauge(&WORKERS, &[name], sum.workers);
        }
        let threads = self.0.threads.load(Ordering::Relaxed);
        let blocking = threads.saturating_sub(self.0.workers.load(Ordering::Relaxed));
        samples.gauge(&BLOCKING, &[], blocking as f64);
    }
}

#[derive(Default)]
struct Sum {
    workers: f64,
    busy: f64,
    queued: f64,
    tasks: f64,
}

impl Watched {
    fn read(&mut self) {
        let elapsed = self.read.elapsed();
        if elapsed < WINDOW {
            return;
        }
        let busy = busy(&self.metrics);
        let share = busy.saturating_sub(self.busy).as_secs_f64() / elapsed.as_secs_f64();
        // A poll that began in the window before is counted when it ends.
        self.ratio = (share / self.metrics.num_workers().max(1) as f64).clamp(0.0, 1.0);
        self.busy = busy;
        self.read = Instant::now();
    }
}

fn busy(metrics: &RuntimeMetrics) -> Duration {
    (0..metrics.num_workers())
        .map(|worker| metrics.worker_total_busy_duration(worker))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    fn value(registry: &Registry, series: &str) -> f64 {
        let text = registry.render(Format::Prometheus);
        let line = text.lines().find_map(|l| l.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in {text}"))
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn a_runtime_shows_its_threads_and_tasks() {
        let (runtimes, registry) = (Runtimes::default(), Registry::default());
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        runtimes.count_threads(&mut builder, 2);
        let runtime = builder.enable_all().build().unwrap();
        runtimes.watch("test", runtime.handle());
        runtimes.export(&registry);
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let task = runtime.spawn(receiver);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (here, begun) = std::sync::mpsc::channel::<()>();
        let blocked = runtime.spawn_blocking(move || {
            here.send(()).unwrap();
            wait.recv().unwrap();
        });
        begun.recv().unwrap();
        assert!((value(&registry, "portico_runtime_tasks{runtime=\"test\"}") - 1.0).abs() < 0.5);
        assert!((value(&registry, "portico_runtime_workers{runtime=\"test\"}") - 2.0).abs() < 0.1);
        assert!((value(&registry, "portico_runtime_blocking_threads") - 1.0).abs() < 0.1);
        let busy = value(&registry, "portico_runtime_busy_ratio{runtime=\"test\"}");
        assert!((0.0..=1.0).contains(&busy));
        assert!(value(&registry, "portico_runtime_queue_depth{runtime=\"test\"}") >= 0.0);
        go.send(()).unwrap();
        drop(sender);
        assert!(runtime.block_on(task).unwrap().is_err());
        runtime.block_on(blocked).unwrap();
    }

    #[test]
    fn busy_time_shows_after_a_second() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let runtimes = Runtimes::default();
        runtimes.watch("one", runtime.handle());
        let begin = Instant::now();
        runtime.block_on(async {
            // Busy on purpose: the measure is of time spent in polls.
            while begin.elapsed() < WINDOW {
                std::hint::spin_loop();
                if begin.elapsed().as_millis().is_multiple_of(50) {
                    tokio::task::yield_now().await;
                }
            }
        });
        let registry = Registry::default();
        runtimes.export(&registry);
        let busy = value(&registry, "portico_runtime_busy_ratio{runtime=\"one\"}");
        assert!(busy > 0.3, "{busy}");
    }
}
