//! The durable queue: takes due jobs under a lease of their own, runs their handlers, tries again, gives up.
//!
//! A job is a row in the caller's transaction. Workers of every replica take it with a lease and a fencing
//! number; a worker that dies loses nothing, because the lease ends and another takes the job. Commits wake
//! the workers; a poll finds what a lost wake-up left.

mod figures;
mod job;
mod run;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Clock, Random};
use portico_db::{Db, DbError, LeaseTiming};
use portico_telemetry::trace::Tracer;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use figures::{KindFigures, QueueDepth, Ran};
pub use job::{Failure, Handler, Job, JobId, JobRun, enqueue};
use table::{Claim, Ended};

use figures::Figures;

/// Runs of all kinds that a process does at a time.
const AT_ONCE: usize = 16;
/// How often workers look for due jobs of which nobody told them, and for those of dead workers.
const POLL: Duration = Duration::from_secs(5);
/// How often the depths of the queues are counted for the metrics.
const COUNT: Duration = Duration::from_secs(15);

/// The queue as one process sees it. Cheap to clone.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    holder: String,
    timing: LeaseTiming,
    tracer: Tracer,
    kinds: BTreeMap<&'static str, Kind>,
    runs: AtomicU64,
    depths: Mutex<Vec<QueueDepth>>,
    observer: OnceLock<Box<Observer>>,
}

type Observer = dyn Fn(&'static str, Duration) + Send + Sync;

struct Kind {
    handler: Handler,
    running: AtomicUsize,
    figures: Figures,
}

impl Queue {
    /// A queue with handlers; `holder` names the process in leases. Of two handlers of one kind the last
    /// one counts.
    pub fn new(
        db: Db,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        holder: &str,
        handlers: impl IntoIterator<Item = Handler>,
    ) -> Self {
        let kinds = handlers
            .into_iter()
            .map(|handler| {
                let kind = Kind {
                    running: AtomicUsize::new(0),
                    figures: Figures::default(),
                    handler,
                };
                (kind.handler.kind, kind)
            })
            .collect();
        Self(Arc::new(Inner {
            db,
            clock,
            random,
            holder: holder.to_owned(),
            timing: LeaseTiming::default(),
            tracer: Tracer::disabled(),
            kinds,
            runs: AtomicU64::new(0),
            depths: Mutex::default(),
            observer: OnceLock::new(),
        }))
    }

    /// The same queue with other times for its leases; to be called before it is started.
    #[must_use]
    pub fn with_lease_timing(mut self, timing: LeaseTiming) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.timing = timing;
        }
        self
    }

    /// Spans of its runs go there; to be called before it is cloned.
    pub(crate) fn set_tracer(&mut self, tracer: Tracer) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.tracer = tracer;
        }
    }

    /// Tells `observer` the kind and the time of each run. There is one; a second is ignored.
    pub fn observe(&self, observer: impl Fn(&'static str, Duration) + Send + Sync + 'static) {
        let _ = self.0.observer.set(Box::new(observer));
    }

    /// Works until told to stop; running jobs are then cancelled, and given back when they do not end.
    pub async fn work(&self, stop: &CancellationToken) {
        let mut running = JoinSet::new();
        let head = self.0.db.outbox().head().await.unwrap_or(0);
        let mut news = self.0.db.follow(&[table::ENQUEUED], head, 12 * POLL);
        let (mut look_at, mut count_at) = (Instant::now(), Instant::now());
        while !stop.is_cancelled() {
            if Instant::now() >= count_at {
                count_at = Instant::now() + COUNT;
                self.0.count().await;
            }
            let now = Instant::now();
            if now >= look_at {
                look_at = now + POLL;
                self.0.logged(self.0.recover().await);
            }
            let filled = self.0.fill(&mut running, stop).await;
            let due = self.0.logged(filled).unwrap_or(POLL);
            let until = look_at.min(Instant::now() + due);
            tokio::select! {
                () = stop.cancelled() => break,
                // What it was does not matter; an error means that the poll must do.
                told = news.next() => if told.is_err() { tokio::time::sleep(Duration::from_secs(1)).await },
                () = tokio::time::sleep_until(until) => {}
                Some(_) = running.join_next() => {}
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Runs everything that is due, one after the other, until nothing is left, and gives the kinds and
    /// how they ended. For tests: nothing else runs meanwhile.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn work_off(&self) -> Result<Vec<(&'static str, Ran)>, DbError> {
        let stop = CancellationToken::new();
        let mut ran = Vec::new();
        loop {
            self.0.recover().await?;
            let before = ran.len();
            for kind in self.0.kinds.values() {
                for claim in self.0.claim(kind, 1).await? {
                    let how = self.0.run(kind, claim, &stop).await;
                    ran.push((kind.handler.kind, how));
                }
            }
            if ran.len() == before {
                return Ok(ran);
            }
        }
    }

    /// Depths of the queues (a queue is the first word of its kinds), as last counted.
    #[must_use]
    pub fn depths(&self) -> Vec<QueueDepth> {
        self.0.depths.lock().clone()
    }

    /// What this process did, by kind.
    #[must_use]
    pub fn figures(&self) -> Vec<KindFigures> {
        let kinds = self.0.kinds.values();
        kinds
            .map(|kind| kind.figures.of(kind.handler.kind))
            .collect()
    }

    /// Kinds that have handlers here.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.0.kinds.keys().copied()
    }
}

impl Inner {
    /// Starts what is due as far as there is room; gives the time until the next job is due.
    async fn fill(
        self: &Arc<Self>,
        running: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<Duration, DbError> {
        let mut wait = POLL;
        for kind in self.kinds.values() {
            let used = kind.running.load(Ordering::Relaxed);
            let room = kind.handler.at_once.saturating_sub(used);
            let room = room.min(AT_ONCE.saturating_sub(running.len()));
            if room == 0 {
                continue;
            }
            let Some(due) = table::next_due(&self.db, kind.handler.kind).await? else {
                continue;
            };
            let left = (due - self.clock.now()).to_std().unwrap_or_default();
            if left > Duration::ZERO {
                wait = wait.min(left);
                continue;
            }
            let claims = self.claim(kind, room).await?;
            if claims.len() < room {
                // The next one of this kind may be due soon.
                wait = wait.min(Duration::from_millis(500));
            }
            for claim in claims {
                kind.running.fetch_add(1, Ordering::Relaxed);
                let (inner, name, stop) = (Arc::clone(self), kind.handler.kind, stop.clone());
                running.spawn(async move {
                    if let Some(kind) = inner.kinds.get(name) {
                        inner.run(kind, claim, &stop).await;
                        kind.running.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
        }
        Ok(wait)
    }

    async fn claim(&self, kind: &Kind, room: usize) -> Result<Vec<Claim>, DbError> {
        let (name, now) = (kind.handler.kind, self.clock.now());
        table::claim(&self.db, name, room, &self.holder, self.timing.ttl, now).await
    }

    /// Gives the jobs of dead workers back, whatever their kind; those that have no tries left are dead.
    async fn recover(&self) -> Result<(), DbError> {
        for claim in table::expired(&self.db).await? {
            let now = self.clock.now();
            let error = "its worker was lost".to_owned();
            let ended = if claim.tries >= claim.max_tries {
                Ended::Dead(error)
            } else {
                Ended::Again(now, Some(error))
            };
            let tx = self.db.begin().await?;
            let taken = table::take_over(&tx, &self.db, &claim).await?
                && table::end(&tx, &claim, &ended, now).await?;
            match tx.commit().await {
                // Somebody asked for the same at this moment: the next look sees it.
                Err(error) if error.is_unique_violation() => continue,
                done => done?,
            };
            if taken {
                tracing::warn!(job = claim.kind, job_id = %claim.id, holder = claim.holder, "a job's worker was lost");
                if let (Some(kind), Ended::Dead(_)) = (self.kinds.get(&*claim.kind), &ended) {
                    kind.figures.note(Ran::Dead);
                }
            }
        }
        Ok(())
    }

    async fn count(&self) {
        if let Some(depths) = self.logged(table::depths(&self.db).await) {
            *self.depths.lock() = figures::by_queue(depths, self.clock.now());
        }
    }

    /// The queue goes on without the database: what could not be done is done later.
    #[expect(clippy::unused_self, reason = "reads as a sentence where it is used")]
    fn logged<T>(&self, result: Result<T, DbError>) -> Option<T> {
        result
            .inspect_err(|error| tracing::warn!(err = %error, "the job queue could not be read"))
            .ok()
    }
}

/// Ends the leases of all running jobs. Only right at the start in single mode, where the lock of the data
/// directory proves that their worker is gone.
///
/// # Errors
/// When the database cannot be reached.
pub async fn end_all_job_leases(db: &Db) -> Result<(), DbError> {
    table::end_all_leases(db, db.clock().now()).await
}

/// Removes jobs that ended long ago: the done after a week, the dead after ninety days.
pub(crate) async fn trim(db: &Db, cx: &crate::periodic::JobCx) -> Result<(), DbError> {
    let now = cx.context.now();
    for (states, days) in [(&["done", "cancelled"][..], 7), (&["dead"][..], 90)] {
        let before = now - chrono::Duration::days(days);
        while table::trim(db, states, before).await? > 0 {
            if cx.cancel.is_cancelled() {
                return Ok(());
            }
        }
    }
    Ok(())
}
