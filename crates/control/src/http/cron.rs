//! `/cron`: what is due again and again.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use portico_base::{Access, Timestamp};
use portico_jobs::{CronEntry, CronRun, Form};
use portico_web::{ApiResult, Cx, Json, Routes, routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use crate::ops::cron;
use crate::permissions::JOB_ALL;

pub(super) fn add(all: Routes<Api>) -> Routes<Api> {
    let access = Access::Permission(JOB_ALL);
    all.add(access.clone(), routes!(list))
        .add(access.clone(), routes!(show))
        .add(access.clone(), routes!(change))
        .add(access, routes!(run))
}

/// Everything that is due again and again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CronEntries)]
struct Entries {
    items: Vec<Entry>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CronEntry)]
struct Entry {
    name: String,
    /// `cron`: at moments of a calendar, once in the installation. `interval`: every `every_s`.
    form: &'static str,
    every_s: Option<f64>,
    /// One process runs it for all; otherwise each for itself.
    alone: bool,
    /// The setting that holds the expression: change it there.
    setting: Option<String>,
    /// The expression in force.
    expression: Option<String>,
    time_zone: Option<String>,
    /// False: its moments pass.
    enabled: bool,
    /// Why the value of the setting is not in force.
    fault: Option<String>,
    /// The next five moments; about, for what is due at an interval.
    #[schema(value_type = Vec<String>)]
    next: Vec<Timestamp>,
    /// What became of the last one.
    last: Option<Run>,
    /// What became of the last twenty, newest first; of what is due at an interval only some are noted.
    runs: Vec<Run>,
}

/// What became of one moment.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = CronRun)]
struct Run {
    #[schema(value_type = String, format = DateTime)]
    tick: Timestamp,
    job_id: Option<Uuid>,
    holder: Option<String>,
    /// waiting, done, failed, cancelled or refused.
    outcome: String,
    error: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    began_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    took_ms: Option<i64>,
}

/// A change of a schedule.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CronChange)]
struct Change {
    /// On or off.
    enabled: bool,
}

/// What was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CronAsked)]
struct Asked {
    /// The job that does it; absent for what is due at an interval.
    job_id: Option<Uuid>,
}

/// List schedules
///
/// Schedules and what is due at an interval, with the next moments and what became of the last ones.
#[utoipa::path(get, path = "/cron", tag = "jobs", responses((status = 200, body = Entries)))]
async fn list(State(core): State<Api>, Cx(cx): Cx) -> ApiResult<Json<Entries>> {
    let items = cron::list(&core, &cx).await?;
    Ok(Json(Entries {
        items: items.into_iter().map(Entry::from).collect(),
    }))
}

/// Show a schedule
///
/// With the next moments and what became of the last ones.
#[utoipa::path(get, path = "/cron/{name}", tag = "jobs",
    params(("name" = String, Path, description = "name of the schedule")),
    responses((status = 200, body = Entry)))]
async fn show(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
) -> ApiResult<Json<Entry>> {
    Ok(Json(cron::show(&core, &cx, &name).await?.into()))
}

/// Switch a schedule
///
/// On or off; moments that pass while it is off are not made up. Its expression is a setting.
#[utoipa::path(patch, path = "/cron/{name}", tag = "jobs", request_body = Change,
    params(("name" = String, Path, description = "name of the schedule")),
    responses((status = 200, body = Entry), (status = 409)))]
async fn change(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
    Json(wish): Json<Change>,
) -> ApiResult<Json<Entry>> {
    let entry = cron::switch(&core, &cx, &name, wish.enabled).await?;
    Ok(Json(entry.into()))
}

/// Run a schedule now
///
/// Refused while its last run has not ended.
#[utoipa::path(post, path = "/cron/{name}/run", tag = "jobs",
    params(("name" = String, Path, description = "name of the schedule")),
    responses((status = 202, body = Asked)))]
async fn run(
    State(core): State<Api>,
    Cx(cx): Cx,
    Path(name): Path<String>,
) -> ApiResult<(StatusCode, Json<Asked>)> {
    let job_id = cron::run(&core, &cx, &name).await?;
    Ok((StatusCode::ACCEPTED, Json(Asked { job_id })))
}

impl From<CronEntry> for Entry {
    fn from(entry: CronEntry) -> Self {
        let runs: Vec<Run> = entry.runs.into_iter().map(Run::from).collect();
        Self {
            name: entry.name,
            form: match entry.form {
                Form::Cron => "cron",
                Form::Interval => "interval",
            },
            every_s: entry.every.map(|every| every.as_secs_f64()),
            alone: entry.alone,
            setting: entry.setting,
            expression: entry.expression,
            time_zone: entry.zone,
            enabled: entry.enabled,
            fault: entry.fault,
            next: entry.next,
            last: runs.first().cloned(),
            runs,
        }
    }
}

impl From<CronRun> for Run {
    fn from(run: CronRun) -> Self {
        let took = run.began_at.zip(run.ended_at);
        Self {
            tick: run.tick,
            job_id: run.job_id,
            holder: run.holder,
            outcome: run.outcome,
            error: run.error,
            began_at: run.began_at,
            ended_at: run.ended_at,
            took_ms: took.map(|(began, ended)| (ended - began).num_milliseconds().max(0)),
        }
    }
}
