//! Coarse deadlines of one worker: setting one is a store, no registration with the runtime.
//!
//! A ticker looks at all slots ten times a second, so a deadline fires up to 200 ms late and never
//! early. That is the right price for time-outs of seconds; shorter ones use the runtime's timer.
//! Where nobody has set a deadline for a while it looks once a second, or when the nearest is due: an
//! idle process should not wake its processor ten times a second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

const TICK: Duration = Duration::from_millis(100);
const NEVER: u32 = u32::MAX;
/// Ticks without a new deadline after which the ticker slows down, and ticks between its looks then.
const QUIET: u32 = 10;

/// All deadlines of a worker.
pub(crate) struct Timers {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    used: Cell<u32>,
    now: Cell<u32>,
    /// The tick at which a deadline was set last.
    last_set: Cell<u32>,
    /// The ticker sleeps for longer than a tick, so that `now` is old.
    is_slow: Cell<bool>,
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
            last_set: Cell::new(0),
            is_slow: Cell::new(false),
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
        if self.is_slow.get() {
            self.read_clock();
        }
        self.now.get()
    }

    /// The tick at which something that lasts `after` from now is over.
    pub(crate) fn tick_after(&self, after: Duration) -> u32 {
        let ticks = after.as_millis().div_ceil(TICK.as_millis()) + 1;
        self.now()
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
            match self.ticks_to_sleep() {
                0 | 1 => tokio::time::sleep(TICK).await,
                ticks => {
                    self.is_slow.set(true);
                    let woken = self.needed.notified();
                    let _woken = tokio::time::timeout(TICK * ticks, woken).await;
                    self.is_slow.set(false);
                }
            }
            self.read_clock();
            self.fire();
            on_tick();
        }
    }

    /// How long nobody will miss the ticker: one tick while deadlines are being set.
    fn ticks_to_sleep(&self) -> u32 {
        let now = self.now.get();
        if now.saturating_sub(self.last_set.get()) < QUIET {
            return 1;
        }
        let slots = self.slots.borrow();
        let nearest = slots.iter().map(|slot| slot.deadline).min();
        nearest.unwrap_or(NEVER).saturating_sub(now).min(QUIET)
    }

    /// A deadline was set: the ticker must not sleep through it.
    fn note_set(&self) {
        self.last_set.set(self.now.get());
        if self.is_slow.replace(false) {
            self.needed.notify_one();
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
        self.timers.note_set();
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
        let now = self.timers.now();
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
    async fn a_quiet_ticker_looks_once_a_second_and_still_wakes_in_time() {
        let timers = Timers::new();
        let far = timers.timer();
        far.set(Duration::from_secs(75));
        timers.now.set(QUIET);
        assert_eq!(timers.ticks_to_sleep(), QUIET);
        let near = timers.timer();
        near.set(Duration::from_millis(400));
        assert_eq!(timers.ticks_to_sleep(), 1, "somebody is there");
        timers.now.set(timers.now() + 2 + QUIET);
        assert_eq!(timers.ticks_to_sleep(), 0, "one is overdue");
        near.clear();
        assert_eq!(timers.ticks_to_sleep(), QUIET);
        timers.is_slow.set(true);
        near.set(Duration::from_millis(400));
        assert!(
            !timers.is_slow.get(),
            "who sets a deadline wakes the ticker"
        );
        timers.needed.notified().await;
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
