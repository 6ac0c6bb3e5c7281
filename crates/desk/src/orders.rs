//! What people do with jobs: retry, cancel, hurry, put before others, pause a kind. No rights are checked here.

use portico_base::Timestamp;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{
    Expr, ExprTrait as _, OnConflict, Order as Sort, Query, UpdateStatement,
};
use portico_db::{DbError, WriteTx};
use portico_jobs::rows::{
    CANCEL, ENQUEUED, JOBS as TABLE, PAUSES, has_twin, is, moment_closed, moment_reopened,
};
use portico_jobs::{JobId, Priority};
use serde_json::{Value, json};
use uuid::Uuid;

use super::view::{self, JobRow, JobState};

/// Most jobs that one order changes; what is left needs another.
const MOST: u64 = 10_000;

/// Why an order cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such job.
    Unknown,
    /// Its state does not allow it.
    State(JobState),
    /// The same job waits or runs already.
    Twin,
}

/// What came of an order for many jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// Jobs that were changed, or would be.
    pub count: u64,
    /// Jobs that were not: another order takes them.
    pub left: u64,
}

type Answer = Result<Result<JobRow, Refused>, DbError>;

/// Tries a job again that was given up, cancelled, or waits for its next try. Gives it as it was.
///
/// # Errors
/// When the database refuses.
pub async fn retry(tx: &WriteTx, id: JobId, tenant: Option<Uuid>, now: Timestamp) -> Answer {
    let Ok(before) = lock(tx, id, tenant).await? else {
        return Ok(Err(Refused::Unknown));
    };
    match before.state {
        JobState::Retrying => {
            let mut update = change(id, now);
            update.value("run_at", now);
            tx.execute(&update).await?;
        }
        JobState::Dead | JobState::Cancelled => {
            if has_twin(tx, id).await? {
                return Ok(Err(Refused::Twin));
            }
            let mut update = change(id, now);
            again(&mut update, now);
            tx.execute(&update).await?;
            moment_reopened(tx, &before.kind, before.tick).await?;
        }
        other => return Ok(Err(Refused::State(other))),
    }
    tx.publish(ENQUEUED, &before.kind, &Value::Null)?;
    Ok(Ok(before))
}

/// Runs a job at once that waits for its time. Gives it as it was.
///
/// # Errors
/// When the database refuses.
pub async fn run_now(tx: &WriteTx, id: JobId, tenant: Option<Uuid>, now: Timestamp) -> Answer {
    let Ok(before) = lock(tx, id, tenant).await? else {
        return Ok(Err(Refused::Unknown));
    };
    if !matches!(before.state, JobState::Ready | JobState::Retrying) {
        return Ok(Err(Refused::State(before.state)));
    }
    let mut update = change(id, now);
    update.value("run_at", now);
    tx.execute(&update).await?;
    tx.publish(ENQUEUED, &before.kind, &Value::Null)?;
    Ok(Ok(before))
}

/// Puts a waiting job before or behind others. Gives it as it was.
///
/// # Errors
/// When the database refuses.
pub async fn prioritise(
    tx: &WriteTx,
    id: JobId,
    tenant: Option<Uuid>,
    priority: Priority,
    now: Timestamp,
) -> Answer {
    let Ok(before) = lock(tx, id, tenant).await? else {
        return Ok(Err(Refused::Unknown));
    };
    if !matches!(before.state, JobState::Ready | JobState::Retrying) {
        return Ok(Err(Refused::State(before.state)));
    }
    let mut update = change(id, now);
    update.value("priority", priority.number());
    tx.execute(&update).await?;
    Ok(Ok(before))
}

/// Cancels a waiting job, or asks the run of one to end. Gives it as it was.
///
/// # Errors
/// When the database refuses.
pub async fn cancel(tx: &WriteTx, id: JobId, tenant: Option<Uuid>, now: Timestamp) -> Answer {
    let Ok(before) = lock(tx, id, tenant).await? else {
        return Ok(Err(Refused::Unknown));
    };
    match before.state {
        JobState::Ready | JobState::Retrying => {
            let mut update = change(id, now);
            update.value("state", "cancelled");
            tx.execute(&update).await?;
            let kind = &before.kind;
            moment_closed(
                tx,
                kind,
                before.tick,
                before.began_at,
                "cancelled",
                None,
                now,
            )
            .await?;
        }
        JobState::Running => {
            let mut update = change(id, now);
            update.value("cancel_asked", true);
            tx.execute(&update).await?;
            tx.publish(CANCEL, &id.to_string(), &json!({ "kind": before.kind }))?;
        }
        other => return Ok(Err(Refused::State(other))),
    }
    Ok(Ok(before))
}

/// Tries all jobs of a kind again that were given up, the oldest first.
///
/// # Errors
/// When the database refuses.
pub async fn retry_dead(tx: &WriteTx, kind: &str, now: Timestamp) -> Result<Bulk, DbError> {
    let mut free = Query::select();
    free.column("id")
        .from(TABLE)
        .and_where(is("dead"))
        .and_where(Expr::col("kind").eq(kind))
        .and_where(Expr::col("unique_key").is_null())
        .and_where(Expr::col("exclusive_key").is_null())
        .order_by("id", Sort::Asc)
        .limit(MOST);
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("updated_at", now)
        .and_where(is("dead"))
        .and_where(Expr::col("id").in_subquery(free));
    again(&mut update, now);
    let mut count = tx.execute(&update).await?.rows_affected();
    // Those with a key may meet each other, or one that waits: one by one.
    let mut keyed = Query::select();
    keyed
        .column("id")
        .from(TABLE)
        .and_where(is("dead"))
        .and_where(Expr::col("kind").eq(kind))
        .and_where(
            Expr::col("unique_key")
                .is_not_null()
                .or(Expr::col("exclusive_key").is_not_null()),
        )
        .order_by("id", Sort::Desc)
        .limit(1_000);
    for row in tx.query_all(&keyed).await? {
        if retry(tx, JobId(row.try_get("", "id")?), None, now)
            .await?
            .is_ok()
        {
            count += 1;
        }
    }
    if count > 0 {
        tx.publish(ENQUEUED, kind, &Value::Null)?;
    }
    let left = view::count(tx, kind, JobState::Dead).await?;
    Ok(Bulk { count, left })
}

/// Pauses a kind: its jobs wait. False when it is paused already.
///
/// # Errors
/// When the database refuses.
pub async fn pause(
    tx: &WriteTx,
    kind: &str,
    by: &str,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(PAUSES)
        .columns(["kind", "paused_by", "reason", "paused_at"])
        .values_panic([kind.into(), by.into(), reason.into(), now.into()])
        .on_conflict(OnConflict::new().do_nothing().to_owned());
    Ok(tx.execute(&insert).await?.rows_affected() == 1)
}

/// Lets a paused kind go on. False when it is not paused.
///
/// # Errors
/// When the database refuses.
pub async fn resume(tx: &WriteTx, kind: &str) -> Result<bool, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(PAUSES)
        .and_where(Expr::col("kind").eq(kind));
    let was = tx.execute(&delete).await?.rows_affected() == 1;
    tx.publish(ENQUEUED, kind, &Value::Null)?;
    Ok(was)
}

async fn lock(tx: &WriteTx, id: JobId, tenant: Option<Uuid>) -> Answer {
    let mut select = view::one(id, tenant);
    select.lock_exclusive();
    match tx.query_one(&select).await? {
        Some(row) => Ok(Ok(view::from_row(&row)?)),
        None => Ok(Err(Refused::Unknown)),
    }
}

fn change(id: JobId, now: Timestamp) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("updated_at", now)
        .and_where(Expr::col("id").eq(id.0));
    update
}

fn again(update: &mut UpdateStatement, now: Timestamp) {
    update
        .value("state", "waiting")
        .value("tries", 0)
        .value("run_at", now)
        .value("cancel_asked", false)
        .value("progress", None::<Value>);
}
