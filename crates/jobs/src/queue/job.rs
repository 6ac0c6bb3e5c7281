//! A durable job: what is asked for, what its handler gets, and how a run can fail.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use portico_base::{Context, Timestamp};
use portico_db::{DbError, WriteTx};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::Claim;
use super::held::{Held, Progress};
use super::{ends, insert};
use crate::periodic::JobError;

/// Tries of a job that says nothing else: with the default back-off about two days.
const MAX_TRIES: u32 = 20;

/// How many runs of one kind a process does at a time, unless the kind says otherwise.
const AT_ONCE: usize = 4;

/// Longest run, unless the kind says otherwise.
const LIMIT: Duration = Duration::from_secs(300);

/// How many runs of a small kind a process does at a time.
const SMALL_AT_ONCE: usize = 64;

/// A job's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of two due jobs goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it.
    High,
    /// As they come.
    #[default]
    Normal,
    /// When nothing else is due.
    Low,
}

impl Priority {
    /// From the first to the last.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The priority of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == word)
    }

    /// As stored: the lower goes first.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The priority of a stored number.
    #[must_use]
    pub fn of(number: i32) -> Self {
        let known = Self::ALL.into_iter().find(|p| p.number() == number);
        known.unwrap_or_default()
    }
}

/// For how long a second job with the same key is the same job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Once {
    /// While the first one waits.
    Waiting(String),
    /// Until the first one has ended.
    UntilEnded(String),
}

impl Once {
    pub(crate) fn of(unique: Option<String>, exclusive: Option<String>) -> Option<Self> {
        exclusive
            .map(Self::UntilEnded)
            .or_else(|| unique.map(Self::Waiting))
    }
}

/// Work that is asked for in a transaction and done after its commit, once or more often, by any process
/// that has a handler of its kind.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) kind: Cow<'static, str>,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) payload: Value,
    pub(crate) once: Option<Once>,
    pub(crate) priority: Priority,
    pub(crate) run_at: Option<Timestamp>,
    pub(crate) max_tries: u32,
    pub(crate) tick: Option<Timestamp>,
}

impl Job {
    /// A job of the kind `service.verb`, due at once. The payload is stored as it is: what is secret is
    /// sealed before.
    ///
    /// # Errors
    /// [`DbError::Codec`] when the payload cannot be written as JSON.
    pub fn new<P: Serialize + ?Sized>(
        kind: impl Into<Cow<'static, str>>,
        payload: &P,
    ) -> Result<Self, DbError> {
        Ok(Self {
            kind: kind.into(),
            tenant: None,
            payload: serde_json::to_value(payload)?,
            once: None,
            priority: Priority::Normal,
            run_at: None,
            max_tries: MAX_TRIES,
            tick: None,
        })
    }

    /// The tenant whose data it is about.
    #[must_use]
    pub const fn tenant(mut self, tenant: Uuid) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// While a job of the same kind and key waits, a second one is the same job. The key names the thing
    /// (a user's id), so that those of two tenants never meet.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.once = Some(Once::Waiting(key.into()));
        self
    }

    /// While a job of the same kind and key waits or runs, a second one is the same job: what was asked for
    /// during a run is not done again after it.
    #[must_use]
    pub fn unique_until_ended(mut self, key: impl Into<String>) -> Self {
        self.once = Some(Once::UntilEnded(key.into()));
        self
    }

    /// Before or behind others that are due.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Not before `at`.
    #[must_use]
    pub const fn run_at(mut self, at: Timestamp) -> Self {
        self.run_at = Some(at);
        self
    }

    /// For this moment of its schedule.
    #[must_use]
    pub(crate) const fn tick(mut self, tick: Timestamp) -> Self {
        self.tick = Some(tick);
        self
    }

    /// Tried at most `tries` times (at least once), then dead.
    #[must_use]
    pub const fn max_tries(mut self, tries: u32) -> Self {
        self.max_tries = if tries == 0 { 1 } else { tries };
        self
    }
}

/// Asks for a job within a transaction: it exists when the transaction is committed, and never otherwise.
///
/// # Errors
/// When the database refuses.
pub async fn enqueue(tx: &WriteTx, cx: &Context, job: Job) -> Result<JobId, DbError> {
    insert::one(tx, cx, job).await
}

/// Asks for many jobs at once, in one statement a few hundred; those that are unique are asked for one by
/// one. Gives their ids in the same order.
///
/// # Errors
/// When the database refuses.
pub async fn enqueue_all(
    tx: &WriteTx,
    cx: &Context,
    jobs: Vec<Job>,
) -> Result<Vec<JobId>, DbError> {
    insert::all(tx, cx, jobs).await
}

/// Why a run failed, and what comes of it. Every error becomes [`Failure::Retry`] with `?`.
#[derive(Debug)]
pub enum Failure {
    /// Tried again after the kind's back-off, while tries are left.
    Retry(JobError),
    /// Tried again after this time, while tries are left.
    RetryAfter(JobError, Duration),
    /// Never tried again.
    Dead(JobError),
}

impl Failure {
    /// Trying again would not help.
    pub fn dead(why: impl Into<JobError>) -> Self {
        Self::Dead(why.into())
    }

    pub(crate) fn text(&self) -> String {
        let (Self::Retry(error) | Self::RetryAfter(error, _) | Self::Dead(error)) = self;
        crate::runner::chain(&**error)
    }
}

impl<E: Into<JobError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Retry(error.into())
    }
}

pub(crate) type HandlerFn =
    Arc<dyn Fn(JobRun) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// What does the jobs of one kind. A job may be done twice (a process dies before it can say that it is
/// done), so a handler is idempotent, or ends its job in the transaction of its effect ([`JobRun::done`]).
#[derive(Clone)]
pub struct Handler {
    pub(crate) kind: &'static str,
    pub(crate) limit: Duration,
    pub(crate) at_once: usize,
    pub(crate) everywhere: Option<usize>,
    pub(crate) small: bool,
    pub(crate) backoff: Backoff,
    pub(crate) run: HandlerFn,
}

impl Handler {
    /// A handler of the kind `service.verb`.
    pub fn new<F, Fut>(kind: &'static str, run: F) -> Self
    where
        F: Fn(JobRun) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self {
            kind,
            limit: LIMIT,
            at_once: AT_ONCE,
            everywhere: None,
            small: false,
            backoff: Backoff {
                first: Duration::from_secs(10),
                most: Duration::from_secs(6 * 3_600),
            },
            run: Arc::new(move |job| Box::pin(run(job))),
        }
    }

    /// A run that takes longer has failed.
    #[must_use]
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// So many runs at a time in one process.
    #[must_use]
    pub const fn at_once(mut self, runs: usize) -> Self {
        self.at_once = runs;
        self
    }

    /// So many runs at a time in all processes together.
    #[must_use]
    pub const fn everywhere(mut self, runs: usize) -> Self {
        self.everywhere = Some(runs);
        self
    }

    /// Its runs take milliseconds and hold nothing dear: many of them at a time, besides those of other
    /// kinds, taken and ended together.
    #[must_use]
    pub const fn small(mut self) -> Self {
        self.small = true;
        self.at_once = SMALL_AT_ONCE;
        self
    }

    /// The wait after the first failure, doubled after each further one up to `most`. A random part of
    /// at most half is taken off, so that what failed together is not tried again together.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.backoff = Backoff { first, most };
        self
    }
}

/// Waits between tries: exponential with jitter (AWS Architecture Blog, "Exponential Backoff And
/// Jitter", 2015, its "equal jitter").
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
}

impl Backoff {
    /// The wait after try number `tries`; `random` gives a number below its argument.
    pub(crate) fn wait(self, tries: u32, random: impl FnOnce(u64) -> u64) -> Duration {
        let doubled = 1_u32
            .checked_shl(tries.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(doubled).min(self.most);
        let half = whole / 2;
        let us = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        whole - Duration::from_micros(random(us))
    }
}

/// One run of a job, as its handler gets it.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// The platform itself as caller, time and randomness; the request id is the run's.
    pub context: Context,
    /// Cancelled when somebody cancels the job, the process stops or the lease was lost; the run should
    /// then end soon.
    pub cancel: CancellationToken,
    pub(crate) claim: Arc<Claim>,
    pub(crate) held: Arc<Held>,
}

impl JobRun {
    /// The job's id.
    #[must_use]
    pub fn id(&self) -> JobId {
        JobId(self.claim.id)
    }

    /// The tenant that it is about.
    #[must_use]
    pub fn tenant(&self) -> Option<Uuid> {
        self.claim.tenant
    }

    /// Number of this try, from 1.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.claim.tries
    }

    /// True when a failure of this run is the end.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.claim.tries >= self.claim.max_tries
    }

    /// The moment of the schedule that it is for: with the kind, the key of its effect.
    #[must_use]
    pub fn tick(&self) -> Option<Timestamp> {
        self.claim.tick
    }

    /// Says how far it is. Cheap: the last word of a second is written, where people see it.
    pub fn progress(&self, done: u64, total: u64, message: &str) {
        self.held.say(Progress::new(done, total, message));
    }

    /// When the job was asked for.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.claim.created_at
    }

    /// The payload as a type. One that does not fit makes the job dead: it never will.
    ///
    /// # Errors
    /// [`Failure::Dead`].
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_value(self.claim.payload.clone()).map_err(Failure::dead)
    }

    /// Refuses to go on in a transaction when another worker has the job by now, and keeps it from being
    /// taken until the transaction ends.
    ///
    /// # Errors
    /// [`DbError::LeaseLost`], or when the database cannot be reached.
    pub async fn fence(&self, tx: &WriteTx) -> Result<(), DbError> {
        ends::fence(tx, &self.claim).await
    }

    /// Ends the job within the transaction of its effect, so that the effect happens once even when the
    /// process dies now.
    ///
    /// # Errors
    /// [`DbError::LeaseLost`] when another worker has the job by now, or when the database cannot be
    /// reached.
    pub async fn done(&self, tx: &WriteTx) -> Result<(), DbError> {
        if ends::finish(tx, &self.claim, self.context.now()).await? {
            return Ok(());
        }
        Err(self.claim.lost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_lose_at_most_half() {
        let backoff = Backoff {
            first: Duration::from_secs(10),
            most: Duration::from_secs(3_600),
        };
        let none = |_| 0;
        let all = |bound: u64| bound;
        let most: Vec<u64> = [1, 2, 3, 9, 10, 500]
            .map(|tries| backoff.wait(tries, none).as_secs())
            .into();
        assert_eq!(most, [10, 20, 40, 2_560, 3_600, 3_600]);
        assert_eq!(backoff.wait(1, all).as_secs(), 5);
        assert_eq!(backoff.wait(500, all).as_secs(), 1_800);
    }

    #[test]
    fn errors_are_tried_again_unless_they_say_otherwise() {
        fn fails() -> Result<(), Failure> {
            Err(std::io::Error::other("mail server away"))?;
            Ok(())
        }
        let failure = fails().unwrap_err();
        assert!(matches!(failure, Failure::Retry(_)));
        assert_eq!(failure.text(), "mail server away");
        assert!(matches!(Failure::dead("no such user"), Failure::Dead(_)));
    }
}
