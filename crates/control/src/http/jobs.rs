//! `/jobs`: durable jobs of the tenant, or of all.

use axum::extract::{Path, State};
use portico_base::{Access, Timestamp};
use portico_desk::{Attempt, Filter, JobDetail, JobRow, JobState, Order};
use portico_jobs::{JobId, Priority};
use portico_web::page::limit;
use portico_web::{ApiResult, Cursor, Cx, Json, Page, Query, Routes, routes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::error::{Error, Result, reason};
use crate::ops::jobs::{self, Command};
use crate::permissions::{JOB_READ, JOB_WRITE};

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let write = Access::Permission(JOB_WRITE);
    all.add(Access::Permission(JOB_READ), routes!(list))
        .add(Access::Permission(JOB_READ), routes!(show))
        .add(write.clone(), routes!(change))
        .add(write.clone(), routes!(retry))
        .add(write.clone(), routes!(run))
        .add(write, routes!(cancel))
}

/// Which jobs.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wish {
    /// One kind, `service.verb`.
    kind: Option<String>,
    /// ready, retrying, running, done, dead or cancelled.
    state: Option<String>,
    /// One tenant, for administrators of all.
    tenant: Option<Uuid>,
    /// Items a page: 1 to 200, default 50.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A job as it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct Shown {
    id: Uuid,
    kind: String,
    /// Absent: of the installation.
    tenant_id: Option<Uuid>,
    /// ready, retrying, running, done, dead or cancelled.
    state: &'static str,
    /// high, normal or low.
    priority: &'static str,
    tries: i32,
    max_tries: i32,
    /// Not before this moment.
    #[schema(value_type = String, format = DateTime)]
    run_at: Timestamp,
    /// The process that does it.
    holder: Option<String>,
    /// It runs, and is to end.
    cancel_asked: bool,
    /// `{done, total, message}`, where its handler says so.
    progress: Option<Value>,
    last_error: Option<String>,
    /// Trace of the request that asked for it.
    trace_id: Option<String>,
    /// Trace of its last run, where it is kept.
    run_trace_id: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    began_at: Option<Timestamp>,
    /// The moment of its schedule.
    #[schema(value_type = Option<String>, format = DateTime)]
    tick: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A job with everything about it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobDetail)]
pub(super) struct Detail {
    #[serde(flatten)]
    job: Shown,
    /// What it was asked with, without secrets.
    payload: Value,
    /// Its last tries, the newest first; one that ended well at once and without a word has none.
    attempts: Vec<Try>,
}

/// One try of a job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobAttempt)]
struct Try {
    number: i32,
    #[schema(value_type = String, format = DateTime)]
    began_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    ended_at: Timestamp,
    /// done, retried, dead, cancelled, given_back or lost.
    outcome: String,
    holder: String,
    error: Option<String>,
    /// The last lines that it logged.
    logs: Vec<String>,
    trace_id: Option<String>,
}

/// A change of a waiting job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = JobChange)]
pub(super) struct Change {
    /// high, normal or low.
    priority: String,
}

/// List jobs
///
/// Newest first; those of the own tenant, or of all for administrators of all.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(Wish),
    responses((status = 200, body = Page<Shown>)))]
pub(super) async fn list(
    State(core): State<Api>,
    Cx(cx): Cx,
    Query(wish): Query<Wish>,
) -> ApiResult<Json<Page<Shown>>> {
    let most = limit(wish.limit)?;
    let after = wish.cursor.as_deref().map(Cursor::<Uuid>::decode);
    let after = after.transpose()?.map(|cursor| cursor.0);
    let state = wish.state.as_deref().map(state).transpose()?;
    let filter = Filter {
        tenant: wish.tenant,
        kind: wish.kind,
        state,
    };
    let order = Order {
        after,
        limit: most as u64 + 1,
    };
    let rows = jobs::list(&core, &cx, filter, order).await?;
    let shown = rows.into_iter().map(Shown::from).collect();
    Ok(Json(Page::cut(shown, most, |job: &Shown| job.id)))
}

/// Show a job
///
/// With its payload, where secrets are masked, and its attempts with their errors and last log lines.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "id of the job")),
    responses((status = 200, body = Detail)))]
async fn show(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Detail>> {
    let found: JobDetail = jobs::show(&core, &cx, job(&id)?).await?;
    Ok(Json(Detail {
        job: found.row.into(),
        payload: found.payload,
        attempts: found.attempts.into_iter().map(Try::from).collect(),
    }))
}

/// Change a job
///
/// Puts a waiting job before or behind others.
#[utoipa::path(patch, path = "/jobs/{id}", tag = "jobs", request_body = Change,
    params(("id" = String, Path, description = "id of the job")),
    responses((status = 200, body = Shown)))]
async fn change(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
    Json(wish): Json<Change>,
) -> ApiResult<Json<Shown>> {
    let priority = Priority::parse(&wish.priority)
        .ok_or_else(|| Error::field("priority", "unknown", "must be one of high, normal, low"))?;
    order(&core, &cx, &id, Command::Prioritise(priority)).await
}

/// Retry a job
///
/// One that was given up, cancelled, or waits for its next try.
#[utoipa::path(post, path = "/jobs/{id}/retry", tag = "jobs",
    params(("id" = String, Path, description = "id of the job")),
    responses((status = 200, body = Shown)))]
async fn retry(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    order(&core, &cx, &id, Command::Retry).await
}

/// Run a job now
///
/// One that waits for its time.
#[utoipa::path(post, path = "/jobs/{id}/run", tag = "jobs",
    params(("id" = String, Path, description = "id of the job")),
    responses((status = 200, body = Shown)))]
async fn run(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    order(&core, &cx, &id, Command::Run).await
}

/// Cancel a job
///
/// A waiting one at once; a running one is asked to end, and says when it has.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs",
    params(("id" = String, Path, description = "id of the job")),
    responses((status = 200, body = Shown)))]
async fn cancel(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(id): Path<String>,
) -> ApiResult<Json<Shown>> {
    order(&core, &cx, &id, Command::Cancel).await
}

async fn order(
    core: &Api,
    cx: &portico_base::Context,
    id: &str,
    command: Command,
) -> ApiResult<Json<Shown>> {
    let row = jobs::command(core, cx, job(id)?, command).await?;
    Ok(Json(row.into()))
}

fn job(text: &str) -> Result<JobId> {
    let id = Uuid::parse_str(text).map_err(|_| Error::from(reason::JOB_NOT_FOUND))?;
    Ok(JobId(id))
}

fn state(word: &str) -> Result<JobState> {
    JobState::parse(word).ok_or_else(|| {
        let words = JobState::ALL.map(JobState::as_str).join(", ");
        Error::field("state", "unknown", format!("must be one of {words}"))
    })
}

impl From<JobRow> for Shown {
    fn from(row: JobRow) -> Self {
        Self {
            id: row.id.0,
            kind: row.kind,
            tenant_id: row.tenant,
            state: row.state.as_str(),
            priority: row.priority.as_str(),
            tries: row.tries,
            max_tries: row.max_tries,
            run_at: row.run_at,
            holder: row.holder,
            cancel_asked: row.cancel_asked,
            progress: row.progress,
            last_error: row.last_error,
            trace_id: row.trace,
            run_trace_id: row.run_trace,
            began_at: row.began_at,
            tick: row.tick,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl From<Attempt> for Try {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            began_at: attempt.began_at,
            ended_at: attempt.ended_at,
            outcome: attempt.outcome,
            holder: attempt.holder,
            error: attempt.error,
            logs: attempt.logs,
            trace_id: attempt.trace,
        }
    }
}
