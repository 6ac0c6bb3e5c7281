//! The connections of one worker to one instance.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Context;

use http::Method;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::h2::Shared;
use super::link::Link;
use super::{PoolLimits, SendErrorKind};
use crate::serve::Worker;

#[expect(
    clippy::vec_box,
    reason = "a connection moves between pool and exchange as one pointer"
)]
pub(crate) struct Pool {
    idle: RefCell<Vec<Box<Link>>>,
    /// HTTP/2 connections; each carries many requests.
    pub(super) shared: RefCell<Vec<Rc<Shared>>>,
    open: Cell<usize>,
    waiters: RefCell<VecDeque<oneshot::Sender<()>>>,
    max_idle: Cell<usize>,
    max_open: Cell<usize>,
    max_waiting: Cell<usize>,
}

/// Connections of one worker to one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolSize {
    pub open: usize,
    /// Those that carry nothing at present.
    pub idle: usize,
}

impl Pool {
    pub(super) fn new(worker: &Worker, limits: &PoolLimits) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle: RefCell::default(),
            shared: RefCell::default(),
            open: Cell::new(0),
            waiters: RefCell::default(),
            max_idle: Cell::default(),
            max_open: Cell::default(),
            max_waiting: Cell::default(),
        });
        pool.set_limits(worker, limits);
        pool
    }

    /// Takes new limits; connections beyond them go as they become idle.
    pub(super) fn set_limits(&self, worker: &Worker, limits: &PoolLimits) {
        let share = |all: usize| all.div_ceil(worker.count).max(1);
        self.max_idle.set(limits.idle);
        self.max_open.set(share(limits.connections));
        self.max_waiting.set(share(limits.queue));
    }

    pub(super) fn size(&self) -> PoolSize {
        let shared = self.shared.borrow();
        PoolSize {
            open: self.open.get(),
            idle: self.idle.borrow().len() + shared.iter().filter(|s| s.is_idle()).count(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// The connection used last that still looks alive. What is not idempotent cannot be sent twice,
    /// so for it the kernel is asked too.
    pub(super) fn take_idle(
        self: &Rc<Self>,
        now: u32,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Option<Box<Link>> {
        loop {
            let link = self.idle.borrow_mut().pop()?;
            let alive =
                link.is_usable(now, cx) && (method.is_idempotent() || !link.is_readable_now());
            if alive {
                return Some(link);
            }
        }
    }

    /// Keeps a connection whose exchange has ended.
    pub(super) fn put_idle(&self, link: Box<Link>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle.get() {
            idle.push(link);
        } else {
            drop(idle);
            drop(link);
        }
        self.wake_waiter();
    }

    /// The right to open one more connection, when there are not too many.
    pub(super) fn try_permit(self: &Rc<Self>) -> Option<Permit> {
        if self.open.get() >= self.max_open.get() {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Permit(Rc::clone(self)))
    }

    /// True when somebody waits already.
    pub(super) fn has_waiters(&self) -> bool {
        self.waiters.borrow().iter().any(|w| !w.is_closed())
    }

    /// Waits until a connection came back or was closed.
    ///
    /// # Errors
    /// `QueueFull` when too many wait already, or nothing happened until the deadline.
    pub(super) async fn wait(&self, until: Instant) -> Result<(), SendErrorKind> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiters = self.waiters.borrow_mut();
            waiters.retain(|w| !w.is_closed());
            if waiters.len() >= self.max_waiting.get() {
                return Err(SendErrorKind::QueueFull);
            }
            waiters.push_back(sender);
        }
        match tokio::time::timeout_at(until, receiver).await {
            Ok(_) => Ok(()),
            Err(_) => Err(SendErrorKind::QueueFull),
        }
    }

    /// Closes what was idle too long; false when the pool is not needed any more.
    pub(super) fn sweep(&self, now: u32) -> bool {
        self.idle.borrow_mut().retain(|link| !link.is_expired(now));
        self.shared
            .borrow_mut()
            .retain(|shared| !shared.is_over(now));
        self.open.get() > 0 || !self.waiters.borrow().is_empty()
    }

    /// Closes everything idle: idle connections and their pool hold each other.
    pub(super) fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        drop(idle);
        self.shared.borrow_mut().clear();
    }

    fn wake_waiter(&self) {
        while let Some(waiter) = self.waiters.borrow_mut().pop_front() {
            if waiter.send(()).is_ok() {
                return;
            }
        }
    }
}

/// Counts one open connection of a pool.
pub(crate) struct Permit(Rc<Pool>);

impl Permit {
    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.wake_waiter();
    }
}
