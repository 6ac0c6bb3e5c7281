//! Single-flight: of many simultaneous misses of one key one goes to the origin, the others wait for its answer.
//!
//! Works across the data plane's worker threads. The leader holds a [`Baton`]; dropping it (its client went away,
//! its task was cancelled, it failed) hands the lead to the longest waiting. An answer that turns out not to be
//! storable lets the waiters go gradually: one first, and each whose answer has arrived lets two more go, so that
//! the origin never meets all of them at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::object::Stored;

/// Shards of the table; only misses come here.
const SHARDS: usize = 64;
/// After so many failed leaders in a row the rest of the queue tries by itself.
const FAILURES_MAX: usize = 3;
/// How many may go for each whose answer has arrived, once a flight has turned out useless.
const RELEASE: usize = 2;

type Shard = Mutex<HashMap<Box<[u8]>, Arc<Flight>, foldhash::fast::RandomState>>;

/// All fetches under way in this process.
pub(super) struct Flights {
    shards: Box<[Shard]>,
    /// Requests that wait now, over all keys.
    waiting: AtomicUsize,
    limits: Limits,
}

/// How many may wait for one key.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Those who may inherit the lead, or be let go to the origin.
    pub queue: usize,
    /// Those beyond, who only wait for a stored answer and are refused when there is none.
    pub audience: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 1000,
            audience: 20_000,
        }
    }
}

struct Flight {
    /// A permit is the right to lead, or after a useless end the right to go alone.
    gate: Semaphore,
    /// Never has permits; its end wakes the audience.
    audience: Semaphore,
    end: OnceLock<End>,
    queued: AtomicUsize,
    listening: AtomicUsize,
    failures: AtomicUsize,
}

enum End {
    /// Fresh, or stale and allowed because the origin failed; whoever waits checks which.
    Stored(Arc<Stored>),
    Useless,
}

/// How a request takes part in a flight.
pub(super) enum Join {
    Lead(Baton),
    Wait(Seat),
    Full,
}

/// The lead of a flight.
pub(super) struct Baton {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Box<[u8]>,
    landed: bool,
}

/// A place among those who wait.
pub(super) struct Seat {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    key: Box<[u8]>,
    heir: bool,
}

/// What waiting came to.
pub(super) enum Turn {
    /// The leader is gone without an answer: it is our turn.
    Lead(Baton),
    /// The leader's answer.
    Ready(Arc<Stored>),
    /// The leader's answer is of no use to others: fetch, and hold this until the answer's head is there.
    Alone(Release),
    /// The flight ended without anything: look again.
    Again,
    /// Too many wait for something that cannot be shared.
    Busy,
}

/// Lets the next ones go when dropped.
pub(super) struct Release(Arc<Flight>);

impl Flights {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            shards,
            waiting: AtomicUsize::new(0),
            limits,
        })
    }

    /// Takes the lead if nobody has it, otherwise a seat.
    pub(super) fn join(self: &Arc<Self>, key: &[u8], hash: u64) -> Join {
        let mut shard = self.shard(hash).lock();
        let Some(flight) = shard.get(key) else {
            let flight = Arc::new(Flight::new());
            shard.insert(key.into(), Arc::clone(&flight));
            return Join::Lead(Baton {
                flights: Arc::clone(self),
                flight,
                key: key.into(),
                landed: false,
            });
        };
        let heir = flight.queued.load(Ordering::Acquire) < self.limits.queue;
        if heir {
            flight.queued.fetch_add(1, Ordering::AcqRel);
        } else if flight.listening.fetch_add(1, Ordering::AcqRel) >= self.limits.audience {
            flight.listening.fetch_sub(1, Ordering::AcqRel);
            return Join::Full;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Join::Wait(Seat {
            flights: Arc::clone(self),
            flight: Arc::clone(flight),
            key: key.into(),
            heir,
        })
    }

    /// Takes the lead only if nobody has it.
    pub(super) fn try_lead(self: &Arc<Self>, key: &[u8], hash: u64) -> Option<Baton> {
        let mut shard = self.shard(hash).lock();
        if shard.contains_key(key) {
            return None;
        }
        let flight = Arc::new(Flight::new());
        shard.insert(key.into(), Arc::clone(&flight));
        Some(Baton {
            flights: Arc::clone(self),
            flight,
            key: key.into(),
            landed: false,
        })
    }

    /// Requests that wait now.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Keys being fetched now.
    pub(super) fn under_way(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn shard_of(&self, key: &[u8]) -> &Shard {
        self.shard(super::key::hash(key))
    }
}

impl Flight {
    fn new() -> Self {
        Self {
            gate: Semaphore::new(0),
            audience: Semaphore::new(0),
            end: OnceLock::new(),
            queued: AtomicUsize::new(0),
            listening: AtomicUsize::new(0),
            failures: AtomicUsize::new(0),
        }
    }

    /// Everything that decides whether a flight goes on happens under its shard's lock.
    fn forget(
        self: &Arc<Self>,
        shard: &mut HashMap<Box<[u8]>, Arc<Self>, foldhash::fast::RandomState>,
        key: &[u8],
    ) {
        if shard.get(key).is_some_and(|had| Arc::ptr_eq(had, self)) {
            shard.remove(key);
        }
    }
}

impl Baton {
    /// There is an answer for everybody.
    pub(super) fn stored(mut self, object: Arc<Stored>) {
        self.land(End::Stored(object));
    }

    /// The answer is nobody else's business: the queue is let go gradually, beginning with one.
    pub(super) fn useless(mut self) {
        self.land(End::Useless);
    }

    /// The origin failed. The next in the queue tries, until [`FAILURES_MAX`] have.
    pub(super) fn failed(mut self) {
        if self.flight.failures.fetch_add(1, Ordering::AcqRel) + 1 >= FAILURES_MAX {
            self.land(End::Useless);
        }
    }

    fn land(&mut self, end: End) {
        self.landed = true;
        let stored = matches!(end, End::Stored(_));
        // Set before anybody can wake; the flight leaves the table, so later requests look the answer up.
        let _ = self.flight.end.set(end);
        self.flight
            .forget(&mut self.flights.shard_of(&self.key).lock(), &self.key);
        self.flight.audience.close();
        if stored {
            self.flight.gate.close();
        } else {
            self.flight.gate.add_permits(1);
        }
    }
}

impl Drop for Baton {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        let mut shard = self.flights.shard_of(&self.key).lock();
        if self.flight.queued.load(Ordering::Acquire) == 0 {
            self.flight.forget(&mut shard, &self.key);
            drop(shard);
            self.flight.audience.close();
        } else {
            self.flight.gate.add_permits(1);
        }
    }
}

impl Seat {
    /// Waits until the flight ends or the lead is ours. Dropping the future gives the seat up.
    pub(super) async fn wait(self) -> Turn {
        if self.heir {
            if let Ok(permit) = self.flight.gate.acquire().await {
                permit.forget();
                if self.flight.end.get().is_some() {
                    return Turn::Alone(Release(Arc::clone(&self.flight)));
                }
                let baton = Baton {
                    flights: Arc::clone(&self.flights),
                    flight: Arc::clone(&self.flight),
                    key: self.key.clone(),
                    landed: false,
                };
                return Turn::Lead(baton);
            }
        } else {
            // Ends with an error only: there are no permits.
            let _ = self.flight.audience.acquire().await;
        }
        match self.flight.end.get() {
            Some(End::Stored(object)) => Turn::Ready(Arc::clone(object)),
            Some(End::Useless) => Turn::Busy,
            None => Turn::Again,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        if !self.heir {
            self.flight.listening.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let mut shard = self.flights.shard_of(&self.key).lock();
        let left = self.flight.queued.fetch_sub(1, Ordering::AcqRel) - 1;
        // The lead was offered, but the last who could take it is leaving.
        if left == 0
            && self.flight.end.get().is_none()
            && let Ok(permit) = self.flight.gate.try_acquire()
        {
            permit.forget();
            self.flight.forget(&mut shard, &self.key);
            drop(shard);
            self.flight.audience.close();
        }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        self.0.gate.add_permits(RELEASE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::hash;
    use crate::cache::object::tests::{minute, object};
    use futures_util::future::join_all;
    use futures_util::poll;
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::Poll;

    const KEY: &[u8] = b"key";

    fn join(flights: &Arc<Flights>) -> Join {
        flights.join(KEY, hash(KEY))
    }

    fn lead(flights: &Arc<Flights>) -> Baton {
        match join(flights) {
            Join::Lead(baton) => baton,
            _ => panic!("somebody else leads"),
        }
    }

    fn seat(flights: &Arc<Flights>) -> Seat {
        match join(flights) {
            Join::Wait(seat) => seat,
            _ => panic!("nobody leads"),
        }
    }

    fn answer() -> Arc<Stored> {
        Arc::new(object(KEY, minute(), b"answer"))
    }

    #[tokio::test]
    async fn everybody_gets_the_leaders_answer() {
        let flights = Flights::new(Limits::default());
        let leader = lead(&flights);
        let seats: Vec<_> = (0..1000)
            .map(|_| tokio::spawn(seat(&flights).wait()))
            .collect();
        assert_eq!(flights.waiting(), 1000);
        leader.stored(answer());
        for turn in join_all(seats).await {
            assert!(
                matches!(turn.expect("joined"), Turn::Ready(object) if object.body == "answer")
            );
        }
        assert_eq!((flights.waiting(), flights.under_way()), (0, 0));
    }

    #[tokio::test]
    async fn a_cancelled_leader_hands_over_in_order() {
        let flights = Flights::new(Limits::default());
        let leader = lead(&flights);
        let mut first = pin!(seat(&flights).wait());
        let mut second = pin!(seat(&flights).wait());
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(leader);
        assert!(poll!(&mut second).is_pending(), "only one inherits");
        let Poll::Ready(Turn::Lead(heir)) = poll!(&mut first) else {
            panic!("the first in the queue inherits")
        };
        heir.stored(answer());
        assert!(matches!(second.await, Turn::Ready(_)));
    }

    #[tokio::test]
    async fn an_heir_who_leaves_passes_the_lead_on() {
        let flights = Flights::new(Limits::default());
        let leader = lead(&flights);
        let mut second = pin!(async {
            let mut first = Box::pin(seat(&flights).wait());
            assert!(poll!(&mut first).is_pending());
            let mut next = Box::pin(seat(&flights).wait());
            assert!(poll!(&mut next).is_pending());
            drop(leader);
            drop(first);
            next.await
        });
        assert!(matches!(poll!(&mut second), Poll::Ready(Turn::Lead(_))));
    }

    #[tokio::test]
    async fn nothing_is_left_when_all_have_gone() {
        let flights = Flights::new(Limits::default());
        let leader = lead(&flights);
        let mut waiting = Box::pin(seat(&flights).wait());
        assert!(poll!(&mut waiting).is_pending());
        drop(leader);
        drop(waiting);
        assert_eq!((flights.waiting(), flights.under_way()), (0, 0));
        drop(lead(&flights));
        assert_eq!(flights.under_way(), 0);
    }

    #[tokio::test]
    async fn a_useless_answer_lets_them_go_gradually() {
        let flights = Flights::new(Limits::default());
        let leader = lead(&flights);
        let going = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let gone = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (seat, going, most, gone) = (
                    seat(&flights),
                    Arc::clone(&going),
                    Arc::clone(&most),
                    Arc::clone(&gone),
                );
                tokio::spawn(async move {
                    let Turn::Alone(release) = seat.wait().await else {
                        panic!("let go")
                    };
                    let now = going.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    if gone.load(Ordering::SeqCst) == 0 {
                        assert_eq!(now, 1, "one first");
                    }
                    tokio::task::yield_now().await;
                    going.fetch_sub(1, Ordering::SeqCst);
                    gone.fetch_add(1, Ordering::SeqCst);
                    drop(release);
                })
            })
            .collect();
        leader.useless();
        assert!(
            matches!(join(&flights), Join::Lead(_)),
            "newcomers do not queue behind a useless flight"
        );
        for task in tasks {
            task.await.expect("joined");
        }
        assert_eq!(gone.load(Ordering::SeqCst), 100);
        assert!(most.load(Ordering::SeqCst) < 100, "never all at once");
    }

    #[tokio::test]
    async fn failing_leaders_are_replaced_three_times() {
        let flights = Flights::new(Limits::default());
        let first = lead(&flights);
        let mut seats: Vec<_> = (0..5).map(|_| Box::pin(seat(&flights).wait())).collect();
        for seat in &mut seats {
            assert!(poll!(seat.as_mut()).is_pending());
        }
        first.failed();
        for _ in 0..2 {
            match seats.remove(0).await {
                Turn::Lead(baton) => baton.failed(),
                _ => panic!("the next tries"),
            }
        }
        for seat in seats {
            assert!(
                matches!(seat.await, Turn::Alone(_)),
                "the rest goes by itself"
            );
        }
    }

    #[tokio::test]
    async fn limits_hold() {
        let flights = Flights::new(Limits {
            queue: 2,
            audience: 1,
        });
        let leader = lead(&flights);
        let (a, b, c) = (seat(&flights), seat(&flights), seat(&flights));
        assert!(matches!(join(&flights), Join::Full));
        assert!(a.heir && b.heir && !c.heir);
        let c = tokio::spawn(c.wait());
        leader.useless();
        assert!(
            matches!(c.await.expect("joined"), Turn::Busy),
            "the audience never reaches the origin"
        );
        assert!(matches!(a.wait().await, Turn::Alone(_)));
        assert!(matches!(b.wait().await, Turn::Alone(_)));
    }

    /// Ten thousand misses on four threads while every other leader is cancelled: nobody is forgotten, one fetch.
    #[test]
    fn ten_thousand_across_threads() {
        let flights = Flights::new(Limits::default());
        let fetches = Arc::new(AtomicUsize::new(0));
        let landed = Arc::new(AtomicBool::new(false));
        let started = Arc::new(std::sync::Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (flights, fetches, landed, started) = (
                    Arc::clone(&flights),
                    Arc::clone(&fetches),
                    Arc::clone(&landed),
                    Arc::clone(&started),
                );
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .expect("runtime");
                    runtime.block_on(async move {
                        // Every request has joined before the first leader moves, on all threads.
                        let joined: Vec<_> = (0..2500).map(|_| join(&flights)).collect();
                        started.wait();
                        let all = joined
                            .into_iter()
                            .map(|joined| one(joined, &fetches, &landed));
                        join_all(all)
                            .await
                            .into_iter()
                            .filter(|served| *served)
                            .count()
                    })
                })
            })
            .collect();
        let served: usize = threads.into_iter().map(|t| t.join().expect("thread")).sum();
        assert_eq!(
            served,
            10_000 - 9,
            "nine leaders were cancelled, everybody else was answered"
        );
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        assert_eq!((flights.waiting(), flights.under_way()), (0, 0));
    }

    /// The first nine leaders vanish, the tenth fetches.
    async fn one(joined: Join, fetches: &AtomicUsize, landed: &AtomicBool) -> bool {
        let turn = match joined {
            Join::Lead(baton) => Turn::Lead(baton),
            Join::Wait(seat) => seat.wait().await,
            Join::Full => Turn::Busy,
        };
        match turn {
            Turn::Lead(baton) => {
                if baton.flight.failures.fetch_add(1, Ordering::SeqCst) < 9 {
                    drop(baton);
                    return false;
                }
                tokio::task::yield_now().await;
                fetches.fetch_add(1, Ordering::SeqCst);
                assert!(!landed.swap(true, Ordering::SeqCst));
                baton.stored(answer());
                true
            }
            Turn::Ready(object) => object.body == "answer",
            Turn::Alone(_) | Turn::Busy | Turn::Again => false,
        }
    }
}
