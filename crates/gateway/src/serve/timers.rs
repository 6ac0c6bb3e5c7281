//! Coarse deadlines of one worker: setting one is a store, no registration with the runtime.
//!
//! A ticker looks at all slots ten times a second, so a deadline fires up to 200 ms late and never
//! early. That is the right price for time-outs of seconds; shorter ones use the runtime's timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

const TICK: Duration = Duration::from_millis(100);
const NEVER: u32 = u32::MAX;

/// All deadlines of a worker.
pub(crate) struct Timers {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    used: Cell<u32>,
    now: Cell<u32>,
    origin: Instant,
    needed: Notify,
}

struct Slot {
    deadline: u32,
    waker: Option<Waker>,
}

impl Timers {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            slots: RefCell::default(),
            free: RefCell::default(),
            used: Cell::new(0),
            now: Cell::new(0),
            origin: Instant::now(),
            needed: Notify::new(),
        })
    }

    /// A slot of one's own, given back when dropped.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        if self.used.get() == 0 {
            self.read_clock();
            self.needed.notify_one();
        }
        self.used.set(self.used.get() + 1);
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut slots = self.slots.borrow_mut();
            slots.push(Slot {
                deadline: NEVER,
                waker: None,
            });
            u32::try_from(slots.len() - 1).expect("a worker has fewer than 2^32 timers")
        });
        Timer {
            timers: Rc::clone(self),
            index,
        }
    }

    /// Ticks since the worker began; one tick is 100 ms.
    pub(crate) fn now(&self) -> u32 {
        self.now.get()
    }

    /// The tick at which something that lasts `after` from now is over.
    pub(crate) fn tick_after(&self, after: Duration) -> u32 {
        let ticks = after.as_millis().div_ceil(TICK.as_millis()) + 1;
        self.now
            .get()
            .saturating_add(u32::try_from(ticks).unwrap_or(NEVER))
            .min(NEVER - 1)
    }

    /// Ticks for ever; sleeps without waking while no timer exists.
    pub(crate) async fn run(&self, mut on_tick: impl FnMut()) {
        loop {
            if self.used.get() == 0 {
                on_tick();
                self.needed.notified().await;
            }
            tokio::time::sleep(TICK).await;
            self.read_clock();
            self.fire();
            on_tick();
        }
    }

    fn read_clock(&self) {
        let ticks = self.origin.elapsed().as_millis() / TICK.as_millis();
        self.now.set(u32::try_from(ticks).unwrap_or(NEVER - 1));
    }

    fn fire(&self) {
        let now = self.now.get();
        let mut due = Vec::new();
        for slot in self.slots.borrow_mut().iter_mut() {
            if slot.deadline <= now
                && let Some(waker) = slot.waker.take()
            {
                due.push(waker);
            }
        }
        for waker in due {
            waker.wake();
        }
    }
}

/// One deadline; unset at first.
pub(crate) struct Timer {
    timers: Rc<Timers>,
    index: u32,
}

impl Timer {
    /// Sets the deadline `after` from now.
    pub(crate) fn set(&self, after: Duration) {
        let deadline = self.timers.tick_after(after);
        self.slot(|slot| slot.deadline = deadline);
    }

    /// Removes the deadline.
    pub(crate) fn clear(&self) {
        self.slot(|slot| slot.deadline = NEVER);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.slot(|slot| slot.deadline != NEVER)
    }

    /// Ready once the deadline has passed; otherwise the task is woken when it does.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.timers.now.get();
        self.slot(|slot| {
            if slot.deadline <= now {
                return Poll::Ready(());
            }
            match &mut slot.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                waker => *waker = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    fn slot<R>(&self, use_it: impl FnOnce(&mut Slot) -> R) -> R {
        use_it(&mut self.timers.slots.borrow_mut()[self.index as usize])
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let waker = self.slot(|slot| {
            slot.deadline = NEVER;
            slot.waker.take()
        });
        drop(waker);
        self.timers.free.borrow_mut().push(self.index);
        self.timers.used.set(self.timers.used.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fires_after_its_time_and_not_before() {
        let timers = Timers::new();
        let timer = timers.timer();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(timer.poll(&mut cx).is_pending(), "unset never fires");
        timer.set(Duration::from_millis(250));
        timers.now.set(timers.now() + 3);
        assert!(timer.poll(&mut cx).is_pending());
        timers.now.set(timers.now() + 1);
        assert!(timer.poll(&mut cx).is_ready());
        timer.clear();
        assert!(timer.poll(&mut cx).is_pending());
    }

    #[test]
    fn slots_are_reused() {
        let timers = Timers::new();
        let first = timers.timer();
        let second = timers.timer();
        drop(first);
        let third = timers.timer();
        assert_eq!(third.index, 0);
        assert_eq!(timers.slots.borrow().len(), 2);
        drop((second, third));
        assert_eq!(timers.used.get(), 0);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_ticker_wakes_a_waiting_task() {
        let timers = Timers::new();
        let timer = timers.timer();
        timer.set(Duration::from_millis(100));
        let waited = std::future::poll_fn(|cx| timer.poll(cx));
        tokio::select! {
            biased;
            () = waited => {}
            () = timers.run(|| {}) => unreachable!("the ticker never ends"),
        }
        assert!(timers.now() >= 1);
    }
}
