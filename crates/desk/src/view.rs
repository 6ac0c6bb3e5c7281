//! What people see of jobs: lists, one job with its attempts, kinds with their depths.

use portico_base::Timestamp;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order as Sort, Query, SelectStatement};
use portico_db::{Db, DbError};
use portico_jobs::rows::{JOBS as TABLE, PAUSES, is};
use portico_jobs::{JobId, Priority};
use serde_json::Value;
use uuid::Uuid;

/// Attempts of a job that are shown, the last ones.
const ATTEMPTS: u64 = 50;
const ATTEMPT: &str = "number began_at ended_at outcome holder error logs trace";

/// How a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It waits for its time, or for room.
    Ready,
    /// It waits for its next try.
    Retrying,
    /// Somebody does it.
    Running,
    /// It ended as it should.
    Done,
    /// It was given up.
    Dead,
    /// Somebody took it back, or a newer one does its work.
    Cancelled,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ready,
        Self::Retrying,
        Self::Running,
        Self::Done,
        Self::Dead,
        Self::Cancelled,
    ];

    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Retrying => "retrying",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    fn of(state: &str, tries: i32) -> Self {
        match (state, tries) {
            ("waiting", 0) => Self::Ready,
            ("waiting", _) => Self::Retrying,
            ("running", _) => Self::Running,
            ("done", _) => Self::Done,
            ("dead", _) => Self::Dead,
            _ => Self::Cancelled,
        }
    }

    /// Rows of the state.
    pub(crate) fn rows(self) -> Expr {
        match self {
            Self::Ready => is("waiting").and(Expr::col("tries").eq(0)),
            Self::Retrying => is("waiting").and(Expr::col("tries").gt(0)),
            Self::Running => is("running"),
            Self::Done => is("done"),
            Self::Dead => is("dead"),
            Self::Cancelled => is("cancelled"),
        }
    }
}

/// Which jobs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of one tenant.
    pub tenant: Option<Uuid>,
    /// Of one kind.
    pub kind: Option<String>,
    /// In one state.
    pub state: Option<JobState>,
}

/// In which order.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Those before this one.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: u64,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// `service.verb`.
    pub kind: String,
    /// The tenant that it is about.
    pub tenant: Option<Uuid>,
    /// How it is doing.
    pub state: JobState,
    /// Before or behind others.
    pub priority: Priority,
    /// Tries until now.
    pub tries: i32,
    /// Tries at most.
    pub max_tries: i32,
    /// Not before this moment.
    pub run_at: Timestamp,
    /// The process that does it.
    pub holder: Option<String>,
    /// Somebody wants it cancelled, and it runs still.
    pub cancel_asked: bool,
    /// `{done, total, message}`, where its handler says so.
    pub progress: Option<Value>,
    /// Why its last try failed.
    pub last_error: Option<String>,
    /// Trace of the request that asked for it.
    pub trace: Option<String>,
    /// Trace of its last run, where it is kept.
    pub run_trace: Option<String>,
    /// When its last run began.
    pub began_at: Option<Timestamp>,
    /// The moment of the schedule that it is for.
    pub tick: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its state changed last.
    pub updated_at: Timestamp,
}

/// One try of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// From 1; one that does not count has the number of the next.
    pub number: i32,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// done, retried, dead, cancelled, given_back or lost.
    pub outcome: String,
    /// The process that did it.
    pub holder: String,
    /// Why it failed.
    pub error: Option<String>,
    /// The last lines that it logged, masked.
    pub logs: Vec<String>,
    /// Its trace, where it is kept.
    pub trace: Option<String>,
}

/// A job with everything about it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobDetail {
    /// As it stands.
    pub row: JobRow,
    /// What it was asked with, as stored: mask before it is shown.
    pub payload: Value,
    /// Its last tries that left something, the newest first.
    pub attempts: Vec<Attempt>,
}

/// A kind of jobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KindState {
    /// `service.verb`.
    pub kind: String,
    /// Jobs that wait for their first try.
    pub ready: u64,
    /// Jobs that wait for another try.
    pub retrying: u64,
    /// Jobs that run.
    pub running: u64,
    /// Jobs that were given up.
    pub dead: u64,
    /// When the first waiting one is due.
    pub oldest: Option<Timestamp>,
    /// Since when it is paused.
    pub paused_at: Option<Timestamp>,
    /// Who paused it.
    pub paused_by: Option<String>,
    /// Why.
    pub paused_reason: Option<String>,
}

const COLUMNS: &str = "id kind tenant_id state priority tries max_tries run_at holder cancel_asked progress \
                       last_error trace run_trace began_at tick created_at updated_at";

/// The jobs of the installation, for whoever looks after them.
#[derive(Clone)]
pub struct Desk(Db);

impl Desk {
    /// Over the jobs of a database.
    #[must_use]
    pub const fn new(db: Db) -> Self {
        Self(db)
    }

    /// Jobs, newest first: each state by its own index, then together.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list(&self, filter: &Filter, order: Order) -> Result<Vec<JobRow>, DbError> {
        let states = filter
            .state
            .map_or(JobState::ALL.to_vec(), |state| vec![state]);
        let mut all = Vec::new();
        for state in states {
            let select = page(filter, state, order);
            for row in self.0.reader().query_all(&select).await? {
                all.push(from_row(&row)?);
            }
        }
        all.sort_by_key(|row| std::cmp::Reverse(row.id));
        all.truncate(usize::try_from(order.limit).unwrap_or(usize::MAX));
        Ok(all)
    }

    /// A job with its payload and attempts; of this tenant, where one is named.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn detail(
        &self,
        id: JobId,
        tenant: Option<Uuid>,
    ) -> Result<Option<JobDetail>, DbError> {
        let mut select = one(id, tenant);
        select.column("payload");
        let Some(row) = self.0.reader().query_one(&select).await? else {
            return Ok(None);
        };
        let mut attempts = Query::select();
        attempts
            .columns(ATTEMPT.split_ascii_whitespace())
            .from("job_attempts")
            .and_where(Expr::col("job_id").eq(id.0))
            .order_by("fencing", Sort::Desc)
            .limit(ATTEMPTS);
        let attempts = self.0.reader().query_all(&attempts).await?;
        Ok(Some(JobDetail {
            row: from_row(&row)?,
            payload: row.try_get("", "payload")?,
            attempts: attempts.iter().map(attempt).collect::<Result<_, _>>()?,
        }))
    }

    /// Kinds that have jobs which are not over, or that are paused.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn kinds(&self) -> Result<Vec<KindState>, DbError> {
        kinds(self.0.reader()).await
    }

    /// How many jobs of a kind are in a state.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn count(&self, kind: &str, state: JobState) -> Result<u64, DbError> {
        count(self.0.reader(), kind, state).await
    }
}

/// How many jobs of a kind are in a state.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    kind: &str,
    state: JobState,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from(TABLE)
        .and_where(state.rows())
        .and_where(Expr::col("kind").eq(kind));
    let row = conn.query_one(&select).await?;
    let count: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The statement of one page of one state.
pub(crate) fn page(filter: &Filter, state: JobState, order: Order) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS.split_ascii_whitespace())
        .from(TABLE)
        .and_where(state.rows())
        .order_by("id", Sort::Desc)
        .limit(order.limit);
    if let Some(tenant) = filter.tenant {
        select.and_where(Expr::col("tenant_id").eq(tenant));
    }
    if let Some(kind) = &filter.kind {
        select.and_where(Expr::col("kind").eq(kind.as_str()));
    }
    if let Some(after) = order.after {
        select.and_where(Expr::col("id").lt(after));
    }
    select
}

pub(crate) fn one(id: JobId, tenant: Option<Uuid>) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS.split_ascii_whitespace())
        .from(TABLE)
        .and_where(Expr::col("id").eq(id.0));
    if let Some(tenant) = tenant {
        select.and_where(Expr::col("tenant_id").eq(tenant));
    }
    select
}

/// All kinds that have jobs which are not over, or that are paused.
pub(crate) async fn kinds(conn: &impl ConnectionTrait) -> Result<Vec<KindState>, DbError> {
    let mut kinds: Vec<KindState> = Vec::new();
    for state in [
        JobState::Ready,
        JobState::Retrying,
        JobState::Running,
        JobState::Dead,
    ] {
        let mut select = Query::select();
        select
            .column("kind")
            .expr_as(Expr::col("id").count(), "n")
            .expr_as(Expr::col("run_at").min(), "oldest")
            .from(TABLE)
            .and_where(state.rows())
            .group_by_col("kind");
        for row in conn.query_all(&select).await? {
            let count = u64::try_from(row.try_get::<i64>("", "n")?).unwrap_or(0);
            let oldest: Option<Timestamp> = row.try_get("", "oldest")?;
            let kind = named(&mut kinds, row.try_get("", "kind")?);
            match state {
                JobState::Ready => kind.ready = count,
                JobState::Retrying => kind.retrying = count,
                JobState::Running => kind.running = count,
                _ => kind.dead = count,
            }
            if matches!(state, JobState::Ready | JobState::Retrying) {
                kind.oldest = kind.oldest.into_iter().chain(oldest).min();
            }
        }
    }
    let mut select = Query::select();
    select
        .columns(["kind", "paused_at", "paused_by", "reason"])
        .from(PAUSES);
    for row in conn.query_all(&select).await? {
        let kind = named(&mut kinds, row.try_get("", "kind")?);
        kind.paused_at = row.try_get("", "paused_at")?;
        kind.paused_by = row.try_get("", "paused_by")?;
        kind.paused_reason = row.try_get("", "reason")?;
    }
    kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(kinds)
}

fn named(kinds: &mut Vec<KindState>, name: String) -> &mut KindState {
    let known = kinds.iter().position(|kind| kind.kind == name);
    let at = known.unwrap_or_else(|| {
        kinds.push(KindState {
            kind: name,
            ..KindState::default()
        });
        kinds.len() - 1
    });
    &mut kinds[at]
}

pub(crate) fn from_row(row: &QueryResult) -> Result<JobRow, DbError> {
    let (state, tries): (String, i32) = (row.try_get("", "state")?, row.try_get("", "tries")?);
    Ok(JobRow {
        id: JobId(row.try_get("", "id")?),
        kind: row.try_get("", "kind")?,
        tenant: row.try_get("", "tenant_id")?,
        state: JobState::of(&state, tries),
        priority: Priority::of(row.try_get("", "priority")?),
        tries,
        max_tries: row.try_get("", "max_tries")?,
        run_at: row.try_get("", "run_at")?,
        holder: row.try_get("", "holder")?,
        cancel_asked: row.try_get("", "cancel_asked")?,
        progress: row.try_get("", "progress")?,
        last_error: row.try_get("", "last_error")?,
        trace: row.try_get("", "trace")?,
        run_trace: row.try_get("", "run_trace")?,
        began_at: row.try_get("", "began_at")?,
        tick: row.try_get("", "tick")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}

fn attempt(row: &QueryResult) -> Result<Attempt, DbError> {
    let logs: Value = row.try_get("", "logs")?;
    Ok(Attempt {
        number: row.try_get("", "number")?,
        began_at: row.try_get("", "began_at")?,
        ended_at: row.try_get("", "ended_at")?,
        outcome: row.try_get("", "outcome")?,
        holder: row.try_get("", "holder")?,
        error: row.try_get("", "error")?,
        logs: serde_json::from_value(logs)?,
        trace: row.try_get("", "trace")?,
    })
}
