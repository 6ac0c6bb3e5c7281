//! The durable queue: takes due jobs under a lease of their own, runs their handlers, tries again, gives up.
//!
//! A job is a row in the caller's transaction. Workers of every replica take it with a lease and a fencing
//! number; a worker that dies loses nothing, because the lease ends and another takes the job. Jobs are
//! taken and ended many in a transaction. Commits wake the workers; a poll finds what a lost wake-up left.

mod claims;
mod ends;
mod figures;
mod held;
mod insert;
mod job;
mod pairs;
mod run;
mod sweep;
mod work;
mod write;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Clock, Random};
use portico_contract::settings::Settings;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::{Db, DbError, LeaseTiming, WriteTx};
use portico_telemetry::trace::Tracer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use claims::{Claim, free_all};
pub use figures::{KindFigures, QueueDepth, Ran};
pub use job::{Failure, Handler, Job, JobId, JobRun, Priority, enqueue, enqueue_all};
pub(crate) use sweep::sweep;

use claims::Want;
use figures::Figures;
use held::Hands;

/// Outbox topic by which the workers of all replicas are woken.
pub const ENQUEUED: &str = "job.enqueued";
/// Told when a job is given up.
pub(crate) const DEAD: &str = "job.dead";
/// Told when a running job is to be cancelled.
pub const CANCEL: &str = "job.cancel_asked";
/// Told when a run says how far it is.
pub(crate) const PROGRESS: &str = "job.progress";

/// The jobs.
pub const TABLE: &str = "jobs";
/// Kinds that are paused.
pub const PAUSES: &str = "job_pauses";
/// Most rows that one statement of the upkeep touches.
const BATCH: u64 = 500;
/// How often workers look for due jobs of which nobody told them, and for those of dead workers.
const POLL: Duration = Duration::from_secs(5);
/// How often the depths of the queues are counted for the metrics.
const COUNT: Duration = Duration::from_secs(15);

/// True when the same job as this one waits or runs, so that this one cannot wait again.
///
/// # Errors
/// When the database refuses.
pub async fn has_twin(tx: &WriteTx, id: JobId) -> Result<bool, DbError> {
    let mut keys = Query::select();
    keys.columns(["kind", "unique_key", "exclusive_key"])
        .from(TABLE)
        .and_where(Expr::col("id").eq(id.0));
    let Some(keys) = tx.query_one(&keys).await? else {
        return Ok(false);
    };
    let kind: String = keys.try_get("", "kind")?;
    match job::Once::of(
        keys.try_get("", "unique_key")?,
        keys.try_get("", "exclusive_key")?,
    ) {
        Some(once) => Ok(tx.query_one(&insert::twin(&kind, &once)).await?.is_some()),
        None => Ok(false),
    }
}

/// True when a job with this exclusive key waits or runs.
pub(crate) async fn is_live(tx: &WriteTx, kind: &str, key: &str) -> Result<bool, DbError> {
    let once = job::Once::UntilEnded(key.to_owned());
    Ok(tx.query_one(&insert::twin(kind, &once)).await?.is_some())
}

/// True for rows of a state. Written into the statement, so that partial indexes can be used.
#[must_use]
pub fn is(state: &'static str) -> Expr {
    Expr::cust(format!("state = '{state}'"))
}

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
    settings: Settings,
    kinds: BTreeMap<&'static str, Kind>,
    hands: Hands,
    runs: AtomicU64,
    depths: Mutex<Vec<QueueDepth>>,
    observer: OnceLock<Box<Observer>>,
}

type Observer = dyn Fn(&'static str, Duration) + Send + Sync;

struct Kind {
    handler: Handler,
    running: AtomicUsize,
    /// When to look for its jobs.
    look_at: Mutex<Instant>,
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
                    look_at: Mutex::new(Instant::now()),
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
            settings: Settings::defaults(),
            kinds,
            hands: Hands::default(),
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

    /// How many jobs it runs at a time is decided there; to be called before it is cloned.
    pub(crate) fn set_settings(&mut self, settings: Settings) {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.settings = settings;
        }
    }

    /// Tells `observer` the kind and the time of each run. There is one; a second is ignored.
    pub fn observe(&self, observer: impl Fn(&'static str, Duration) + Send + Sync + 'static) {
        let _ = self.0.observer.set(Box::new(observer));
    }

    /// Works until told to stop; running jobs are then cancelled, and given back when they do not end.
    pub async fn work(&self, stop: &CancellationToken) {
        let ended = CancellationToken::new();
        let working = async {
            let _ended = ended.clone().drop_guard();
            self.0.work(stop).await;
        };
        tokio::join!(working, self.0.keep(&ended));
    }

    /// Runs everything that is due, one after the other, until nothing is left, and gives the kinds and
    /// how they ended. For tests: nothing else runs meanwhile.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn work_off(&self) -> Result<Vec<(&'static str, Ran)>, DbError> {
        let inner = &self.0;
        let stop = CancellationToken::new();
        let mut ran = Vec::new();
        loop {
            inner.recover().await?;
            let before = ran.len();
            let kinds: Vec<&str> = self.kinds().collect();
            for due in claims::due(&inner.db, &kinds).await? {
                let Some(kind) = inner.kinds.get(&*due.kind) else {
                    continue;
                };
                let want = Want {
                    kind: &due.kind,
                    priority: due.priority,
                    room: 1,
                    everywhere: kind.handler.everywhere,
                };
                if let Some(claim) = inner.claim(&[want]).await?.pop() {
                    let run = inner.run(kind, claim, &stop).await;
                    ran.push((kind.handler.kind, inner.write_now(run).await));
                    // What goes first may be another one now.
                    break;
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
    async fn claim(&self, wants: &[Want<'_>]) -> Result<Vec<Claim>, DbError> {
        let now = self.clock.now();
        claims::claim(&self.db, wants, &self.holder, self.timing.ttl, now).await
    }

    async fn count(&self) {
        if let Some(depths) = self.logged(figures::depths(&self.db).await) {
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
    claims::end_all_leases(db, db.clock().now()).await
}
