//! The stream: per-worker buffers of 64 KiB, one thread that carries them off, and the last records in memory.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use portico_base::Clock;

use super::record::{AccessEntry, AccessRecord, Style};
use super::sampling::{AccessMode, Fate, Sampling, SharedMode};
use crate::json::Stamp;
use crate::metrics::{Counter, CounterFamily, Family, Registry};
use crate::sink::{OpenSink, Sink};

static RECORDS: CounterFamily = CounterFamily::new(
    "portico_access_log_lines_total",
    "Lines of the access log by what became of them: written, dropped (the writer was too slow or failed).",
    &["result"],
    2,
);

pub(crate) static FAMILIES: [&Family; 1] = [RECORDS.family()];

/// Size at which a worker's buffer is handed over.
const BUFFER: usize = 64 * 1024;
/// Full buffers that may wait for the writer: 16 MiB.
const WAITING: usize = 256;
/// A buffer that is not full is handed over after this time.
const INTERVAL: Duration = Duration::from_millis(200);
/// Records kept in memory, and their most bytes.
const MEMORY_LINES: usize = 10_000;
const MEMORY_BYTES: usize = 16 << 20;

/// How the access log is written.
#[derive(Debug, Clone, Default)]
pub struct AccessOptions {
    /// Which requests get a line.
    pub mode: AccessMode,
    /// Writes the client's network instead of its address.
    pub mask_address: bool,
    /// Writes the query too, with secret values masked.
    pub with_query: bool,
    /// Name of this process, in every line.
    pub replica: String,
}

/// The access log of one process. Cheap to clone.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

struct Shared {
    options: AccessOptions,
    mode: SharedMode,
    workers: Mutex<Vec<Weak<Mutex<Buffers>>>>,
    worker_count: AtomicU32,
    carrier: Mutex<Carrier>,
    work: Condvar,
    done: Condvar,
    memory: Mutex<Memory>,
    written: Counter,
    dropped: Counter,
}

#[derive(Default)]
struct Carrier {
    full: VecDeque<(Target, Chunk)>,
    /// Rises with every request for a flush; the thread answers by raising `flushed` to it.
    flush_wanted: u64,
    flushed: u64,
    closed: bool,
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Stream,
    Memory,
}

#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    lines: usize,
}

#[derive(Default)]
struct Buffers {
    stream: Chunk,
    memory: Chunk,
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessLog")
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl AccessLog {
    /// Opens the sink and starts the thread that writes. The thread ends with [`AccessLog::close`], or
    /// when the last handle and writer are gone.
    ///
    /// # Errors
    /// When the file or the thread cannot be made.
    pub fn start(
        options: AccessOptions,
        sink: Sink,
        clock: &Arc<dyn Clock>,
        registry: &Registry,
    ) -> io::Result<Self> {
        let sink = sink.open(clock)?;
        let lines = registry.counter(&RECORDS);
        let shared = Arc::new(Shared {
            mode: SharedMode::new(options.mode),
            options,
            workers: Mutex::default(),
            worker_count: AtomicU32::new(0),
            carrier: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            memory: Mutex::default(),
            written: lines.with(&["written"]),
            dropped: lines.with(&["dropped"]),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || carry(&weak, sink))?;
        Ok(Self(shared))
    }

    /// A writer for one worker.
    #[must_use]
    pub fn writer(&self) -> AccessWriter {
        let buffers = Arc::new(Mutex::new(Buffers::default()));
        self.0.workers.lock().push(Arc::downgrade(&buffers));
        self.0.worker_count.fetch_add(1, Relaxed);
        AccessWriter {
            style: Style {
                replica: self.0.options.replica.clone(),
                mask_address: self.0.options.mask_address,
                with_query: self.0.options.with_query,
                weight: 1,
            },
            shared: Arc::clone(&self.0),
            buffers,
            stamp: Stamp::default(),
            sampling: Sampling::default(),
            one_writer: PhantomData,
        }
    }

    /// Changes which requests get a line, for all workers.
    pub fn set_mode(&self, mode: AccessMode) {
        self.0.mode.set(mode);
    }

    /// The newest records that `wanted` says yes to, newest first, at most `limit`. It parses: not for
    /// the data plane's threads.
    #[must_use]
    pub fn recent(
        &self,
        limit: usize,
        mut wanted: impl FnMut(&AccessEntry) -> bool,
    ) -> Vec<AccessEntry> {
        self.flush(Duration::from_millis(500));
        let text = self.0.memory.lock().copy();
        let mut entries: Vec<AccessEntry> = text
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
            .filter_map(|line| serde_json::from_slice(line).ok())
            .filter(|entry| wanted(entry))
            .collect();
        entries.sort_by(|a, b| b.ts.cmp(&a.ts));
        entries.truncate(limit);
        entries
    }

    /// Waits until what was recorded before is written, or the time is over; true in the first case.
    pub fn flush(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        let mut carrier = self.0.carrier.lock();
        carrier.flush_wanted += 1;
        let ticket = carrier.flush_wanted;
        self.0.work.notify_one();
        while carrier.flushed < ticket && !carrier.ended {
            if self.0.done.wait_until(&mut carrier, deadline).timed_out() {
                return carrier.flushed >= ticket;
            }
        }
        carrier.flushed >= ticket
    }

    /// Writes what is left, at most for the given time, and ends the thread.
    pub fn close(&self, most: Duration) {
        self.flush(most);
        self.0.carrier.lock().closed = true;
        self.0.work.notify_one();
    }
}

/// Writes the records of one worker.
pub struct AccessWriter {
    style: Style,
    shared: Arc<Shared>,
    buffers: Arc<Mutex<Buffers>>,
    stamp: Stamp,
    sampling: Sampling,
    one_writer: PhantomData<std::cell::Cell<()>>,
}

impl std::fmt::Debug for AccessWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessWriter").finish_non_exhaustive()
    }
}

impl AccessWriter {
    /// Takes a record. Never waits for the disk: the only lock is the worker's own, which the carrying
    /// thread holds for the time of a pointer swap five times a second.
    pub fn record(&mut self, record: &AccessRecord<'_>) {
        let mode = self.shared.mode.get();
        let workers = self.shared.worker_count.load(Relaxed);
        let fate = self
            .sampling
            .decide(mode, record.at_us, record.is_error(), workers);
        let (target, weight) = match fate {
            Fate::Line(weight) => (Target::Stream, weight),
            Fate::Memory(weight) => (Target::Memory, weight),
            Fate::Nothing => return,
        };
        self.style.weight = weight;
        let mut buffers = self.buffers.lock();
        let chunk = match target {
            Target::Stream => &mut buffers.stream,
            Target::Memory => &mut buffers.memory,
        };
        if chunk.bytes.capacity() == 0 {
            chunk.bytes.reserve_exact(BUFFER + 8 * 1024);
        }
        record.write(&mut chunk.bytes, &mut self.stamp, &self.style);
        chunk.lines += 1;
        if chunk.bytes.len() >= BUFFER {
            let chunk = std::mem::take(chunk);
            drop(buffers);
            self.shared.hand_over(target, chunk);
        }
    }
}

impl Drop for AccessWriter {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut *self.buffers.lock());
        self.shared.hand_over(Target::Stream, buffers.stream);
        self.shared.hand_over(Target::Memory, buffers.memory);
        self.shared.worker_count.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    fn hand_over(&self, target: Target, chunk: Chunk) {
        if chunk.lines == 0 {
            return;
        }
        let mut carrier = self.carrier.lock();
        if carrier.full.len() >= WAITING || carrier.ended {
            drop(carrier);
            if target == Target::Stream {
                self.dropped.add(chunk.lines as u64);
            }
            return;
        }
        carrier.full.push_back((target, chunk));
        drop(carrier);
        self.work.notify_one();
    }

    /// Takes what the workers have begun, leaving them empty buffers.
    fn collect(&self) {
        let mut workers = self.workers.lock();
        workers.retain(|worker| {
            let Some(buffers) = worker.upgrade() else {
                return false;
            };
            let begun = std::mem::take(&mut *buffers.lock());
            self.hand_over(Target::Stream, begun.stream);
            self.hand_over(Target::Memory, begun.memory);
            true
        });
    }

    fn write(&self, target: Target, chunk: Chunk, sink: &mut OpenSink) {
        if target == Target::Stream {
            let counter = match sink.write(&chunk.bytes) {
                Ok(()) => &self.written,
                Err(_) => &self.dropped,
            };
            counter.add(chunk.lines as u64);
        }
        self.memory.lock().push(chunk);
    }
}

/// The thread: waits for full buffers, collects begun ones, writes.
fn carry(shared: &Weak<Shared>, mut sink: OpenSink) {
    let mut last_check = Instant::now();
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let (wanted, closed) = {
            let mut carrier = shared.carrier.lock();
            let idle = carrier.full.is_empty() && carrier.flush_wanted == carrier.flushed;
            if idle && !carrier.closed {
                shared.work.wait_for(&mut carrier, INTERVAL);
            }
            (carrier.flush_wanted, carrier.closed)
        };
        shared.collect();
        while let Some((target, chunk)) = shared.next_chunk() {
            shared.write(target, chunk, &mut sink);
        }
        if last_check.elapsed() > Duration::from_secs(1) {
            last_check = Instant::now();
            sink.check();
        }
        let mut carrier = shared.carrier.lock();
        carrier.flushed = wanted;
        // Nobody can add anything when this thread holds the last handle.
        let last = Arc::strong_count(&shared) == 1;
        carrier.ended = (closed || last) && carrier.full.is_empty();
        shared.done.notify_all();
        if carrier.ended {
            return;
        }
    }
}

impl Shared {
    fn next_chunk(&self) -> Option<(Target, Chunk)> {
        self.carrier.lock().full.pop_front()
    }
}

/// The last lines, in a few large pieces.
#[derive(Default)]
struct Memory {
    chunks: VecDeque<Chunk>,
    lines: usize,
    bytes: usize,
}

impl Memory {
    fn push(&mut self, mut chunk: Chunk) {
        self.lines += chunk.lines;
        self.bytes += chunk.bytes.len();
        match self.chunks.back_mut() {
            Some(last) if last.bytes.len() + chunk.bytes.len() <= BUFFER => {
                last.bytes.extend_from_slice(&chunk.bytes);
                last.lines += chunk.lines;
            }
            _ => {
                chunk.bytes.shrink_to_fit();
                self.chunks.push_back(chunk);
            }
        }
        while let Some(first) = self.chunks.front() {
            let spare = self.lines - first.lines >= MEMORY_LINES;
            if !spare && (self.bytes <= MEMORY_BYTES || self.chunks.len() == 1) {
                break;
            }
            self.lines -= first.lines;
            self.bytes -= first.bytes.len();
            self.chunks.pop_front();
        }
    }

    fn copy(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes);
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.bytes);
        }
        out
    }
}
