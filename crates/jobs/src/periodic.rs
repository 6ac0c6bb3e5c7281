//! What a periodic job is, and what it gets to know when it runs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_base::Context;
use portico_db::{DbError, Lease, WriteTx};
use tokio_util::sync::CancellationToken;

use crate::cron::Cron;
use crate::queue::{Failure, Handler, JobRun};

/// Why a run failed; it is logged once with its sources.
pub type JobError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type RunFn =
    Arc<dyn Fn(JobCx) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Longest run, unless the job says otherwise.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run gets.
#[derive(Debug, Clone)]
pub struct JobCx {
    /// The platform itself as caller, time and randomness; the request id is the run's.
    pub context: Context,
    /// Cancelled when the process stops or the lease is lost.
    pub cancel: CancellationToken,
    /// The lease that the run is alone by.
    pub lease: Option<Lease>,
}

impl JobCx {
    /// Refuses to go on in a transaction when another replica has taken over. For jobs without a lease
    /// there is nothing to refuse.
    ///
    /// # Errors
    /// [`DbError::LeaseLost`], or when the database cannot be reached.
    pub async fn fence(&self, tx: &WriteTx) -> Result<(), DbError> {
        match &self.lease {
            Some(lease) => tx.fence(lease).await,
            None => Ok(()),
        }
    }
}

/// A job that runs again and again.
#[derive(Clone)]
pub struct Periodic {
    pub(crate) name: &'static str,
    pub(crate) every: Duration,
    pub(crate) jitter: Duration,
    pub(crate) limit: Duration,
    pub(crate) lease: bool,
    pub(crate) run: RunFn,
}

impl Periodic {
    /// A job named `service.verb` that each process runs every `every`.
    pub fn new<F, Fut>(name: &'static str, every: Duration, run: F) -> Self
    where
        F: Fn(JobCx) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        Self {
            name,
            every,
            jitter: Duration::ZERO,
            limit: LIMIT,
            lease: false,
            run: Arc::new(move |cx| Box::pin(run(cx))),
        }
    }

    /// Only one replica at a time runs it.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.lease = true;
        self
    }

    /// Each wait is longer by a random time up to `jitter`, so that replicas do not move in step.
    #[must_use]
    pub const fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// A run that takes longer is given up.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Name of the lease that jobs of its service share.
    pub(crate) fn lease_name(&self) -> String {
        let service = self.name.split('.').next().unwrap_or(self.name);
        format!("jobs.{service}")
    }
}

/// The jobs of a service: those that are due again and again, and what does its durable ones.
#[derive(Clone, Default)]
pub struct JobSet {
    pub(crate) periodic: Vec<Periodic>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) crons: Vec<Cron>,
}

impl JobSet {
    /// No jobs.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            periodic: Vec::new(),
            handlers: Vec::new(),
            crons: Vec::new(),
        }
    }

    /// Adds a periodic job.
    #[must_use]
    pub fn with(mut self, job: Periodic) -> Self {
        self.periodic.push(job);
        self
    }

    /// Adds what does the durable jobs of a kind, with the usual limits; see [`Self::with_handler`].
    #[must_use]
    pub fn handle<F, Fut>(self, kind: &'static str, run: F) -> Self
    where
        F: Fn(JobRun) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.with_handler(Handler::new(kind, run))
    }

    /// Adds what does the durable jobs of a kind.
    #[must_use]
    pub fn with_handler(mut self, handler: Handler) -> Self {
        self.handlers.push(handler);
        self
    }

    /// Adds a schedule.
    #[must_use]
    pub fn cron(mut self, cron: Cron) -> Self {
        self.crons.push(cron);
        self
    }

    /// Adds the jobs of another set.
    pub fn extend(&mut self, other: Self) {
        self.periodic.extend(other.periodic);
        self.handlers.extend(other.handlers);
        self.crons.extend(other.crons);
    }

    /// Names of the periodic jobs, then the kinds of the durable ones, then the schedules.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let periodic = self.periodic.iter().map(|job| job.name);
        let durable = self.handlers.iter().map(|handler| handler.kind);
        periodic
            .chain(durable)
            .chain(self.crons.iter().map(Cron::name))
    }

    /// What does its durable jobs and those of its schedules, for a [`crate::Queue`] of a test.
    #[must_use]
    pub fn into_handlers(self) -> Vec<Handler> {
        let mut handlers = self.handlers;
        handlers.extend(self.crons.into_iter().map(|cron| cron.handler));
        handlers
    }
}
