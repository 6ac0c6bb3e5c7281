//! Rows of the table `cron_runs`: what became of each moment.

use portico_base::Timestamp;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, UpdateStatement};
use portico_db::{DbError, WriteTx};
use uuid::Uuid;

const TABLE: &str = "cron_runs";
const COLUMNS: &str = "name tick job_id holder outcome error began_at ended_at";

/// What became of one moment of a schedule, or one run of what is due at an interval.
#[derive(Debug, Clone, PartialEq)]
pub struct CronRun {
    /// The moment.
    pub tick: Timestamp,
    /// The job that was asked for.
    pub job_id: Option<Uuid>,
    /// The process, of runs at an interval.
    pub holder: Option<String>,
    /// waiting, done, failed, cancelled or refused.
    pub outcome: String,
    /// Why it failed or was refused.
    pub error: Option<String>,
    /// When its last try began.
    pub began_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl CronRun {
    pub(crate) fn new(tick: Timestamp, outcome: &str) -> Self {
        Self {
            tick,
            job_id: None,
            holder: None,
            outcome: outcome.to_owned(),
            error: None,
            began_at: None,
            ended_at: None,
        }
    }
}

/// Notes a moment.
pub(crate) async fn note(tx: &WriteTx, name: &str, run: &CronRun) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS.split_ascii_whitespace())
        .values_panic([
            name.into(),
            run.tick.into(),
            run.job_id.into(),
            run.holder.as_deref().into(),
            run.outcome.as_str().into(),
            run.error.as_deref().into(),
            run.began_at.into(),
            run.ended_at.into(),
        ])
        .on_conflict(OnConflict::new().do_nothing().to_owned());
    tx.execute(&insert).await?;
    Ok(())
}

/// Notes the end of a job, where it is for a moment.
///
/// # Errors
/// When the database refuses.
pub async fn closed(
    tx: &WriteTx,
    kind: &str,
    tick: Option<Timestamp>,
    began_at: Option<Timestamp>,
    outcome: &str,
    error: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let Some(tick) = tick else { return Ok(()) };
    let mut update = change(kind, tick);
    update
        .value("outcome", outcome)
        .value("error", error)
        .value("began_at", began_at)
        .value("ended_at", now);
    tx.execute(&update).await?;
    Ok(())
}

/// Notes that the job of a moment is tried again.
///
/// # Errors
/// When the database refuses.
pub async fn reopened(tx: &WriteTx, kind: &str, tick: Option<Timestamp>) -> Result<(), DbError> {
    let Some(tick) = tick else { return Ok(()) };
    let mut update = change(kind, tick);
    update
        .value("outcome", "waiting")
        .value("error", None::<String>)
        .value("ended_at", None::<Timestamp>);
    tx.execute(&update).await?;
    Ok(())
}

fn change(name: &str, tick: Timestamp) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table(TABLE)
        .and_where(Expr::col("name").eq(name))
        .and_where(Expr::col("tick").eq(tick));
    update
}

/// The last moments of a schedule, newest first.
pub(crate) async fn last(
    conn: &impl ConnectionTrait,
    name: &str,
    limit: u64,
) -> Result<Vec<CronRun>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS.split_ascii_whitespace())
        .from(TABLE)
        .and_where(Expr::col("name").eq(name))
        .order_by("tick", Order::Desc)
        .limit(limit);
    let rows = conn.query_all(&select).await?;
    rows.iter().map(from_row).collect()
}

fn from_row(row: &QueryResult) -> Result<CronRun, DbError> {
    Ok(CronRun {
        tick: row.try_get("", "tick")?,
        job_id: row.try_get("", "job_id")?,
        holder: row.try_get("", "holder")?,
        outcome: row.try_get("", "outcome")?,
        error: row.try_get("", "error")?,
        began_at: row.try_get("", "began_at")?,
        ended_at: row.try_get("", "ended_at")?,
    })
}
