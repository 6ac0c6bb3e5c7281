//! A pool of threads of its own: a flood of logins queues here and takes neither the runtime's threads nor their share of the cores.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use portico_telemetry::metrics::{Gauge, GaugeFamily, Histogram, HistogramFamily, Registry};
use tokio::sync::oneshot;

use super::{IDLE, Memory};

/// Waiting work for each thread (ID-42).
const QUEUE_PER_THREAD: usize = 64;
/// Threads of the runtime go first when cores are short, so that a flood does not slow what needs no hash.
const NICE: i32 = 10;
/// Blocks of 1 KiB that a thread keeps between two hashes; what an imported row needed beyond is given back.
const KEPT_BLOCKS: usize = 65_536;

static HASH: HistogramFamily = HistogramFamily::seconds(
    "portico_identity_hash_seconds",
    "time that password hashes took",
    &[],
    1,
);
static WAIT: HistogramFamily = HistogramFamily::seconds(
    "portico_identity_hash_wait_seconds",
    "time that password hashes waited for a thread",
    &[],
    1,
);
static QUEUE: GaugeFamily = GaugeFamily::new(
    "portico_identity_hash_queue",
    "password hashes waiting for a thread",
    &[],
    1,
);

/// Declares the families, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[HASH.family(), WAIT.family(), QUEUE.family()]);
}

/// The queue is full.
#[derive(Debug)]
pub(crate) struct Full;

struct Job {
    queued: Instant,
    run: Box<dyn FnOnce(&mut Memory) + Send>,
}

struct Shared {
    queue: Mutex<Queue>,
    woken: Condvar,
    /// Threads that live.
    threads: AtomicUsize,
    figures: Arc<Figures>,
}

/// What is measured.
pub(crate) struct Figures {
    hash: Histogram,
    wait: Histogram,
    length: Gauge,
}

impl Figures {
    /// Runs a hash and takes its time.
    pub(crate) fn time<T>(&self, hash: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let answer = hash();
        self.hash.observe(began.elapsed());
        answer
    }

    #[cfg(test)]
    pub(crate) fn done(&self) -> u64 {
        self.hash.snapshot().count()
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// The pool; its threads end after it was dropped.
pub(crate) struct Pool(Arc<Shared>);

impl Pool {
    /// Starts the threads. One that cannot be started is missing, which is logged.
    pub(crate) fn start(threads: usize, registry: &Registry) -> Arc<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            woken: Condvar::new(),
            threads: AtomicUsize::new(0),
            figures: Arc::new(Figures {
                hash: registry.histogram(&HASH).with(&[]),
                wait: registry.histogram(&WAIT).with(&[]),
                length: registry.gauge(&QUEUE).with(&[]),
            }),
        });
        for number in 0..threads.max(1) {
            let mine = Arc::clone(&shared);
            let started = std::thread::Builder::new()
                .name(format!("portico-hash-{number}"))
                .spawn(move || mine.serve());
            match started {
                Ok(_detached) => {
                    shared.threads.fetch_add(1, Relaxed);
                }
                Err(error) => tracing::error!(err = %error, "a thread for hashes is missing"),
            }
        }
        Arc::new(Self(shared))
    }

    /// Queues work; what nobody waits for any more when its turn comes is left out.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Full> {
        let (sender, receiver) = oneshot::channel();
        let run = Box::new(move |memory: &mut Memory| {
            if !sender.is_closed() {
                // Whoever asked may have gone meanwhile.
                let _ = sender.send(work(memory));
            }
        });
        let most = QUEUE_PER_THREAD * self.0.threads.load(Relaxed);
        let mut queue = self.0.queue.lock();
        if queue.jobs.len() >= most {
            return Err(Full);
        }
        queue.jobs.push_back(Job {
            queued: Instant::now(),
            run,
        });
        self.0.figures.length.set(queue.jobs.len() as f64);
        drop(queue);
        self.0.woken.notify_one();
        Ok(receiver)
    }
}

impl Pool {
    /// Where times are noted.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.0.figures)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.queue.lock().closed = true;
        self.0.woken.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        // Where the system does not allow it, a flood costs others more; nothing breaks.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut memory = Memory::new();
        while let Some(job) = self.next(&mut memory) {
            self.figures.wait.observe(job.queued.elapsed());
            if catch_unwind(AssertUnwindSafe(|| (job.run)(&mut memory))).is_err() {
                tracing::error!("work on a password panicked");
                memory = Memory::new();
            }
            memory.truncate(KEPT_BLOCKS);
            memory.shrink_to(KEPT_BLOCKS);
        }
    }

    /// The next job; nothing when the pool is gone. Memory is given back when there is none for a while.
    fn next(&self, memory: &mut Memory) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                self.figures.length.set(queue.jobs.len() as f64);
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            if memory.capacity() == 0 {
                self.woken.wait(&mut queue);
            } else if self.woken.wait_for(&mut queue, IDLE).timed_out() {
                *memory = Memory::new();
            }
        }
    }
}

#[cfg(test)]
pub(crate) struct Saturated {
    _go: std::sync::mpsc::Sender<()>,
    waiting: Vec<oneshot::Receiver<()>>,
}

#[cfg(test)]
impl Saturated {
    /// Pieces of work that are queued or held.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
impl Pool {
    pub(crate) fn saturate(&self) -> Saturated {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let threads = self.0.threads.load(Relaxed);
        let held = Arc::new(std::sync::Barrier::new(threads + 1));
        let mut waiting = Vec::new();
        for _ in 0..threads {
            let (held, gate) = (Arc::clone(&held), Arc::clone(&gate));
            let answer = self.submit(move |_| {
                held.wait();
                // Ends when the sender is dropped.
                let _ = gate.lock().recv();
            });
            waiting.push(answer.expect("the pool is idle"));
        }
        held.wait();
        while let Ok(answer) = self.submit(|_| ()) {
            waiting.push(answer);
        }
        Saturated { _go: go, waiting }
    }
}
