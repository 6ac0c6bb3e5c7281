//! What one worker's connections share; lives on the worker's thread.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::buffers::Buffers;
use super::date::DateCache;
use super::limits::ServeLimits;
use super::stats::WorkerStats;
use super::streams::Streams;
use super::timers::Timers;

/// Goodbyes are spread, because everybody who gets one connects anew.
const FAREWELL: Duration = Duration::from_secs(5);

/// One worker: a thread with its own runtime.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are in the process.
    pub count: usize,
    /// The runtime that in-process services and everything else live on.
    pub shared: tokio::runtime::Handle,
    pub stats: Arc<WorkerStats>,
    pub(crate) limits: ServeLimits,
    pub(crate) buffers: Rc<Buffers>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) date: DateCache,
    pub(crate) streams: Streams,
    pub(crate) draining: Cell<bool>,
    pub(crate) leaving: Cell<bool>,
    /// Over how long the goodbyes to WebSocket clients are spread once a drain begins.
    pub(crate) farewell: Cell<Duration>,
    pub(crate) drain_begins: Notify,
    /// Told whenever a client's connection ends.
    pub(crate) closed: Notify,
    on_tick: RefCell<Vec<Box<dyn FnMut()>>>,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        count: usize,
        limits: ServeLimits,
        shared: tokio::runtime::Handle,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            count,
            shared,
            stats: Arc::default(),
            limits,
            buffers: Rc::default(),
            timers: Timers::new(),
            date: DateCache::new(),
            streams: Streams::default(),
            draining: Cell::new(false),
            leaving: Cell::new(false),
            farewell: Cell::new(Duration::ZERO),
            drain_begins: Notify::new(),
            closed: Notify::new(),
            on_tick: RefCell::default(),
        })
    }

    /// True once this worker accepts nothing new.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// True once clients should go elsewhere: a drain is coming, or has begun.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get() || self.draining.get()
    }

    pub(crate) fn begin_drain(&self, deadline: Duration) {
        self.draining.set(true);
        self.farewell.set(FAREWELL.min(deadline / 2));
        self.drain_begins.notify_waiters();
    }

    /// Calls `f` about ten times a second while anything is open, and once when all became idle.
    pub fn on_tick(&self, f: Box<dyn FnMut()>) {
        self.on_tick.borrow_mut().push(f);
    }

    /// Runs a task on this worker; it ends with the worker.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    pub(crate) async fn tick(&self) {
        self.timers
            .run(|| {
                self.date.refresh();
                for f in self.on_tick.borrow_mut().iter_mut() {
                    f();
                }
            })
            .await;
    }
}
