//! The writer that never blocks anybody: a bounded queue of lines and one thread (OB-32).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use portico_base::Clock;
use tracing::Level;

use super::collect::{FieldValue, Fields};
use super::fold::{Folder, Verdict};
use super::line::{Parts, Style};
use crate::json::Stamp;
use crate::metrics::Counter;
use crate::sink::OpenSink;

/// Lines that are taken from the queue at once.
const BATCH: usize = 512;
const TICK: Duration = Duration::from_secs(1);

pub(super) struct Setup {
    pub(super) sink: OpenSink,
    pub(super) capacity: usize,
    pub(super) report_drops: Duration,
    pub(super) dropped: Counter,
    pub(super) style: Style,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a summary of folded lines is made of.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) code: Option<String>,
}

pub(super) struct Queue {
    capacity: usize,
    state: Mutex<State>,
    work: Condvar,
    idle: Condvar,
    dropped: Counter,
    folder: Mutex<Folder<Sample>>,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Lines that the thread has taken and not yet written.
    writing: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn start(setup: Setup) -> std::io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            capacity: setup.capacity,
            state: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            dropped: setup.dropped.clone(),
            folder: Mutex::default(),
        });
        // Made here and not in the thread, which may begin late: lines that are lost until then count too.
        let writer = Writer::new(Arc::clone(&queue), setup);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Takes a line, or counts it as lost when the writer is too slow. Never waits for the writer.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.state.lock();
        if state.closed || state.lines.len() + state.writing >= self.capacity {
            drop(state);
            self.dropped.inc();
            return;
        }
        state.lines.push_back(line);
        let first = state.lines.len() == 1;
        drop(state);
        if first {
            self.work.notify_one();
        }
    }

    pub(super) fn fold(&self, key: u64, at_us: i64, sample: impl FnOnce() -> Sample) -> Verdict {
        let second = at_us.div_euclid(1_000_000);
        self.folder.lock().see(key, second, sample)
    }

    pub(super) fn flush(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        let mut state = self.state.lock();
        self.work.notify_one();
        while !state.lines.is_empty() || state.writing > 0 {
            if self.idle.wait_until(&mut state, deadline).timed_out() {
                return state.lines.is_empty() && state.writing == 0;
            }
        }
        true
    }

    pub(super) fn close(&self, most: Duration) {
        self.flush(most);
        self.state.lock().closed = true;
        self.work.notify_one();
    }
}

struct Writer {
    queue: Arc<Queue>,
    sink: OpenSink,
    style: Style,
    clock: Arc<dyn Clock>,
    stamp: Stamp,
    report_drops: Duration,
    reported_at: Instant,
    reported: u64,
}

impl Writer {
    fn new(queue: Arc<Queue>, setup: Setup) -> Self {
        Self {
            reported: queue.dropped.value(),
            queue,
            sink: setup.sink,
            style: setup.style,
            clock: setup.clock,
            stamp: Stamp::default(),
            report_drops: setup.report_drops,
            reported_at: Instant::now(),
        }
    }

    fn run(mut self) {
        let mut ticked = Instant::now();
        loop {
            let (batch, closed) = self.take();
            let lines = batch.len();
            if lines > 0 {
                let bytes: Vec<u8> = batch.concat();
                if self.sink.write(&bytes).is_err() {
                    self.queue.dropped.add(lines as u64);
                }
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
            let mut state = self.queue.state.lock();
            state.writing = 0;
            if state.lines.is_empty() {
                self.queue.idle.notify_all();
                if closed {
                    return;
                }
            }
        }
    }

    fn take(&self) -> (Vec<Vec<u8>>, bool) {
        let mut state = self.queue.state.lock();
        if state.lines.is_empty() && !state.closed {
            self.queue
                .work
                .wait_for(&mut state, TICK.min(self.report_drops));
        }
        let n = state.lines.len().min(BATCH);
        let batch: Vec<Vec<u8>> = state.lines.drain(..n).collect();
        state.writing = n;
        (batch, state.closed)
    }

    fn tick(&mut self) {
        self.sink.check();
        let second = self.clock.now().timestamp();
        let summaries = self.queue.folder.lock().summaries(second);
        for summary in summaries {
            let sample = summary.kind;
            let mut fields = Fields {
                message: sample.message,
                ..Fields::default()
            };
            if let Some(code) = sample.code {
                fields.all.push(("code", FieldValue::Text(code)));
            }
            self.own_line(sample.level, sample.target, &fields, summary.folded);
        }
        let dropped = self.queue.dropped.value();
        if dropped > self.reported && self.reported_at.elapsed() >= self.report_drops {
            self.reported_at = Instant::now();
            let lost = dropped - self.reported;
            self.reported = dropped;
            let mut fields = Fields {
                message: "log lines were lost because the writer was too slow".to_owned(),
                ..Fields::default()
            };
            fields.all.push(("lost", FieldValue::Uint(lost)));
            self.own_line(Level::WARN, "portico_telemetry", &fields, 0);
        }
    }

    fn own_line(&mut self, level: Level, target: &str, event: &Fields, folded: u64) {
        let parts = Parts {
            at_us: self.clock.now().timestamp_micros(),
            level,
            target,
            event,
            spans: &[],
            context: None,
            folded,
        };
        let line = parts.write(&self.style, &mut self.stamp);
        if self.sink.write(&line).is_err() {
            self.queue.dropped.inc();
        }
    }
}
