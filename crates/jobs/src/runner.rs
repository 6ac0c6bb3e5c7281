//! Runs the jobs of all services: by the clock in a process, by hand in tests.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use portico_base::{Caller, Clock, Context, Principal, Random, Timestamp};
use portico_contract::settings::Settings;
use portico_db::{Db, DbError, Held, Lease, LeaseTiming, News};
use portico_telemetry::logs::LogContext;
use portico_telemetry::trace::{self, OpenSpan, SpanKind, Tracer};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cron::{ASKED, CronRun, Form, Scheduler, Seen, runs};
use crate::periodic::{JobCx, JobSet, Periodic};
use crate::queue::Queue;
use crate::status::{JobStatus, Outcome, State};

/// First runs are spread over this time after the start.
const FIRST_SPREAD: Duration = Duration::from_secs(10);

/// Runs that end well are noted no more often.
const NOTED_EVERY: Duration = Duration::from_secs(600);
/// Runs that fail are noted no more often.
const FAILURES_NOTED_EVERY: Duration = Duration::from_secs(60);

/// Two jobs, or two handlers of durable jobs, have one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two jobs are named `{0}`")]
pub struct DuplicateJob(pub &'static str);

/// Runs jobs. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    holder: String,
    timing: LeaseTiming,
    jobs: Vec<Arc<Job>>,
    runs: AtomicU64,
    held: parking_lot::Mutex<BTreeSet<String>>,
    observer: OnceLock<Box<Observer>>,
    tracer: Tracer,
    queue: Queue,
    scheduler: Scheduler,
}

type Observer = dyn Fn(&'static str, Duration) + Send + Sync;

struct Job {
    periodic: Periodic,
    state: State,
    /// Somebody wants it to run at once.
    asked: Notify,
    noted_at: parking_lot::Mutex<Option<Instant>>,
}

impl Runner {
    /// A runner for jobs that do not run yet. `holder` names the process in leases.
    ///
    /// # Errors
    /// When two jobs have one name.
    pub fn new(
        db: Db,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        holder: &str,
        jobs: JobSet,
    ) -> Result<Self, DuplicateJob> {
        let mut names = BTreeSet::new();
        if let Some(name) = jobs.names().find(|name| !names.insert(*name)) {
            return Err(DuplicateJob(name));
        }
        let now = clock.now();
        let handlers = jobs.crons.iter().map(|cron| cron.handler.clone());
        let queue = Queue::new(
            db.clone(),
            Arc::clone(&clock),
            Arc::clone(&random),
            holder,
            jobs.handlers.into_iter().chain(handlers),
        );
        let scheduler = Scheduler::new(
            db.clone(),
            Arc::clone(&clock),
            Arc::clone(&random),
            seen(&jobs.periodic, &jobs.crons),
            jobs.crons,
        );
        let jobs = jobs
            .periodic
            .into_iter()
            .map(|periodic| {
                let spread = periodic.every.min(FIRST_SPREAD);
                let first = now + some_of(spread, &*random);
                Arc::new(Job {
                    periodic,
                    state: State::due_at(first),
                    asked: Notify::new(),
                    noted_at: parking_lot::Mutex::default(),
                })
            })
            .collect();
        Ok(Self(Arc::new(Inner {
            db,
            clock,
            random,
            holder: holder.to_owned(),
            timing: LeaseTiming::default(),
            jobs,
            runs: AtomicU64::new(0),
            held: parking_lot::Mutex::default(),
            observer: OnceLock::new(),
            tracer: Tracer::disabled(),
            queue,
            scheduler,
        })))
    }

    /// The same runner with spans of its runs (OB-11); to be called before it is started.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Tracer) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.queue.set_tracer(tracer.clone());
            inner.tracer = tracer;
        }
        self
    }

    /// The same runner with the limits that settings say; to be called before it is started.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.queue.set_settings(settings);
        }
        self
    }

    /// The same runner with other times for its leases; to be called before it is started.
    #[must_use]
    pub fn with_lease_timing(mut self, timing: LeaseTiming) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.timing = timing;
        }
        self
    }

    /// Tells `observer` the name and the time of each run, for histograms kept elsewhere. There is one; a
    /// second is ignored.
    pub fn observe(&self, observer: impl Fn(&'static str, Duration) + Send + Sync + 'static) {
        let observer = Arc::new(observer);
        let also = Arc::clone(&observer);
        self.0.queue.observe(move |kind, took| also(kind, took));
        let _ = self
            .0
            .observer
            .set(Box::new(move |job, took| observer(job, took)));
    }

    /// The durable jobs.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.0.queue
    }

    /// Starts all jobs as tasks of `tracker`; they end soon after `stop` is cancelled.
    pub fn start(&self, tracker: &TaskTracker, stop: &CancellationToken) {
        let (queue, stopping) = (self.0.queue.clone(), stop.clone());
        tracker.spawn(async move { queue.work(&stopping).await });
        let (inner, stopping) = (Arc::clone(&self.0), stop.clone());
        tracker.spawn(async move { inner.scheduler.run(&stopping).await });
        let (inner, stopping) = (Arc::clone(&self.0), stop.clone());
        tracker.spawn(async move { inner.hear(&stopping).await });
        let mut groups: BTreeMap<String, Vec<Arc<Job>>> = BTreeMap::new();
        for job in &self.0.jobs {
            if job.periodic.lease {
                let group = groups.entry(job.periodic.lease_name()).or_default();
                group.push(Arc::clone(job));
            } else {
                let (inner, job, stop) = (Arc::clone(&self.0), Arc::clone(job), stop.clone());
                tracker.spawn(async move { inner.repeat(&job, None, &stop).await });
            }
        }
        for (lease, jobs) in groups {
            let (inner, stop) = (Arc::clone(&self.0), stop.clone());
            tracker.spawn(async move { inner.lead(&lease, &jobs, &stop).await });
        }
    }

    /// Runs once, one after the other, every job that is due at `now`, and gives the names of those that
    /// ran. For tests: nothing else runs meanwhile. A job that wants to be alone is left out when another
    /// process holds its lease.
    ///
    /// # Errors
    /// When the lease cannot be asked for.
    pub async fn run_due(&self, now: Timestamp) -> Result<Vec<&'static str>, DbError> {
        let mut ran = Vec::new();
        for job in &self.0.jobs {
            if job.state.wait(now, job.period_at_most()) > Duration::ZERO {
                continue;
            }
            if self.run_now(job.periodic.name).await?.is_some() {
                ran.push(job.periodic.name);
            }
        }
        Ok(ran)
    }

    /// Runs one job at once, due or not. Gives nothing when there is no such job, when a run is under
    /// way, or when another process holds its lease.
    ///
    /// # Errors
    /// When the lease cannot be asked for.
    pub async fn run_now(&self, name: &str) -> Result<Option<Outcome>, DbError> {
        let inner = &self.0;
        let Some(job) = inner.jobs.iter().find(|job| job.periodic.name == name) else {
            return Ok(None);
        };
        let cancel = CancellationToken::new();
        if !job.periodic.lease {
            return Ok(inner.run(job, None, &cancel).await);
        }
        let leases = inner.db.leases();
        let lease_name = job.periodic.lease_name();
        let Some(lease) = leases.acquire(&lease_name, &inner.holder).await? else {
            return Ok(None);
        };
        let outcome = inner.run(job, Some(lease.clone()), &cancel).await;
        leases.release(&lease).await?;
        Ok(outcome)
    }

    /// Asks for the jobs of all schedules whose moment has come. For tests: nothing else runs meanwhile.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn look_at_schedules(&self) -> Result<(), DbError> {
        self.0.scheduler.look().await.map(|_| ())
    }

    /// What is known of each job, by name.
    #[must_use]
    pub fn status(&self) -> Vec<JobStatus> {
        let mut all: Vec<JobStatus> = self
            .0
            .jobs
            .iter()
            .map(|job| job.state.status(job.periodic.name, job.periodic.lease))
            .collect();
        all.sort_by_key(|status| status.name);
        all
    }

    /// Names of the leases that this process holds, for `portico_lease_held`.
    #[must_use]
    pub fn held_leases(&self) -> Vec<String> {
        self.0.held.lock().iter().cloned().collect()
    }
}

impl Inner {
    /// Runs jobs that must be alone for as long as the lease is ours, again and again.
    async fn lead(self: &Arc<Self>, lease: &str, jobs: &[Arc<Job>], stop: &CancellationToken) {
        let leases = self.db.leases().with_timing(self.timing);
        while !stop.is_cancelled() {
            leases
                .hold(lease, &self.holder, stop, |held| {
                    let (inner, jobs) = (Arc::clone(self), jobs.to_vec());
                    async move { inner.run_group(jobs, held).await }
                })
                .await;
        }
    }

    /// The jobs are tasks of their own, so that none can keep the lease from being renewed; dropping the
    /// set ends them.
    async fn run_group(self: Arc<Self>, jobs: Vec<Arc<Job>>, held: Held) {
        let _mark = Mark::new(&self, &held.lease.name);
        let mut tasks = JoinSet::new();
        for job in jobs {
            let (inner, held) = (Arc::clone(&self), held.clone());
            tasks.spawn(async move {
                inner.repeat(&job, Some(held.lease), &held.cancel).await;
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Runs a job whenever it is due, until cancelled.
    async fn repeat(&self, job: &Job, lease: Option<Lease>, cancel: &CancellationToken) {
        loop {
            let wait = job.state.wait(self.clock.now(), job.period_at_most());
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                () = job.asked.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let began = self.clock.now();
            if let Some(outcome) = self.run(job, lease.clone(), cancel).await {
                self.note(job, began, &outcome).await;
            }
        }
    }

    /// Runs at once what somebody asks for, where it runs in this process.
    async fn hear(&self, stop: &CancellationToken) {
        let head = self.db.outbox().head().await.unwrap_or(0);
        let mut news = self.db.follow(&[ASKED], head, NOTED_EVERY);
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                told = news.next() => told,
            };
            match told {
                Ok(News::Events(events)) => {
                    for job in &self.jobs {
                        if events.iter().any(|event| event.key == job.periodic.name) {
                            job.asked.notify_waiters();
                        }
                    }
                }
                Ok(News::Reset) => {}
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Notes a run where people see it, if the last one that was noted is some time ago.
    async fn note(&self, job: &Job, began: Timestamp, outcome: &Outcome) {
        let (outcome, error, every) = match outcome {
            Outcome::Done => ("done", None, NOTED_EVERY),
            Outcome::Failed(why) => ("failed", Some(why.clone()), FAILURES_NOTED_EVERY),
            Outcome::Cancelled => return,
        };
        if job.noted_at.lock().is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let mut run = CronRun::new(began, outcome);
        run.holder = Some(self.holder.clone());
        run.error = error;
        (run.began_at, run.ended_at) = (Some(began), Some(self.clock.now()));
        let writing = async {
            let tx = self.db.begin().await?;
            runs::note(&tx, job.periodic.name, &run).await?;
            tx.commit().await
        };
        match writing.await {
            Ok(_) => *job.noted_at.lock() = Some(Instant::now()),
            Err(error) => tracing::debug!(err = %error, "a run was not noted"),
        }
    }

    /// One run. Gives nothing when one is under way already.
    async fn run(
        &self,
        job: &Job,
        lease: Option<Lease>,
        cancel: &CancellationToken,
    ) -> Option<Outcome> {
        let begun = self.clock.now();
        if !job.state.begin(begun) {
            return None;
        }
        // Dropping the future half-way (a lost lease) must not leave the job marked as running.
        let mut end = End {
            inner: self,
            job,
            started: Instant::now(),
            outcome: Outcome::Cancelled,
        };
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let request_id = format!("{}-{number}", job.periodic.name);
        let mut span = self.span(job, &request_id);
        let cx = JobCx {
            context: Context {
                caller: Caller::internal(Principal::system(), &request_id),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
            },
            cancel: cancel.child_token(),
            lease,
        };
        // The closure itself may panic as well as its future.
        let run = Arc::clone(&job.periodic.run);
        let work = AssertUnwindSafe(async move { run(cx).await }).catch_unwind();
        let limit = job.periodic.limit;
        let work = span.around(work);
        end.outcome = match tokio::time::timeout(limit, work).await {
            Ok(Ok(Ok(()))) => Outcome::Done,
            Ok(Ok(Err(_))) if cancel.is_cancelled() => Outcome::Cancelled,
            Ok(Ok(Err(error))) => Outcome::Failed(chain(&*error)),
            Ok(Err(_)) => Outcome::Failed("the job panicked".to_owned()),
            Err(_) => Outcome::Failed(format!("not done within {} s", limit.as_secs())),
        };
        if let Outcome::Failed(err) = &end.outcome {
            span.fail(err.clone());
            tracing::error!(job = job.periodic.name, request_id, err, "job failed");
        }
        Some(end.outcome.clone())
    }
}

impl Inner {
    /// A run begins a trace of its own: nobody asked for it.
    fn span(&self, job: &Job, request_id: &str) -> OpenSpan {
        let name = job.periodic.name;
        let context = LogContext {
            request_id: Some(Arc::from(request_id)),
            service: name.split('.').next().map(Arc::from),
            ..LogContext::default()
        };
        let mut span = trace::root(&self.tracer, "jobs", name, SpanKind::Internal, context);
        span.set("portico.job", name);
        span.set("portico.request_id", request_id.to_owned());
        span
    }
}

impl Job {
    fn period_at_most(&self) -> Duration {
        self.periodic.every + self.periodic.jitter
    }
}

/// Notes the end of a run, however it comes.
struct End<'a> {
    inner: &'a Inner,
    job: &'a Job,
    started: Instant,
    outcome: Outcome,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let periodic = &self.job.periodic;
        let pause = periodic.every + some_of(periodic.jitter, &*self.inner.random);
        let next = self.inner.clock.now() + pause;
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Cancelled);
        let took = self.started.elapsed();
        if let Some(observer) = self.inner.observer.get() {
            observer(periodic.name, took);
        }
        self.job.state.end(outcome, next);
    }
}

/// Notes that a lease is held, for as long as it lives.
struct Mark {
    inner: Arc<Inner>,
    name: String,
}

impl Mark {
    fn new(inner: &Arc<Inner>, name: &str) -> Self {
        inner.held.lock().insert(name.to_owned());
        Self {
            inner: Arc::clone(inner),
            name: name.to_owned(),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.inner.held.lock().remove(&self.name);
    }
}

fn seen(periodic: &[Periodic], crons: &[crate::cron::Cron]) -> Vec<Seen> {
    let periodic = periodic.iter().map(|job| Seen {
        name: job.name,
        form: Form::Interval,
        every: Some(job.every),
        alone: job.lease,
        setting: None,
    });
    let crons = crons.iter().map(|cron| Seen {
        name: cron.name(),
        form: Form::Cron,
        every: None,
        alone: true,
        setting: Some(cron.key.declaration.key),
    });
    periodic.chain(crons).collect()
}

/// A random time below `most`.
fn some_of(most: Duration, random: &dyn Random) -> Duration {
    let us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random.below(us))
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
