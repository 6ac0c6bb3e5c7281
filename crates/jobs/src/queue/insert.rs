//! New rows of the table `jobs`.

use portico_base::Context;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{
    Expr, ExprTrait as _, InsertStatement, OnConflict, Query, SelectStatement,
};
use portico_db::{DbError, WriteTx};
use serde_json::Value;
use uuid::Uuid;

use super::job::{Job, JobId, Once};
use super::{ENQUEUED, TABLE, is};

/// How often a job is asked for whose twin is always just being taken.
const TRIES: u32 = 10;
/// Most rows of one statement: PostgreSQL takes 65,535 values.
const CHUNK: usize = 500;

const COLUMNS: &str = "id kind tenant_id payload unique_key exclusive_key priority run_at state tries \
                       max_tries fencing cancel_asked trace tick created_at updated_at";

/// Adds a job, unless the same one is there already.
pub(crate) async fn one(tx: &WriteTx, cx: &Context, job: Job) -> Result<JobId, DbError> {
    let (kind, once) = (job.kind.clone(), job.once.clone());
    let due = job.run_at.is_none_or(|at| at <= cx.now());
    let mut insert = insert();
    let id = add(&mut insert, cx, job);
    insert.returning(Query::returning().column("id"));
    let Some(once) = once else {
        tx.query_one(&insert).await?;
        tell(tx, &kind, due)?;
        return Ok(id);
    };
    // The key is the only thing that can be there already; the id is new.
    insert.on_conflict(OnConflict::new().do_nothing().to_owned());
    for _ in 0..TRIES {
        if tx.query_one(&insert).await?.is_some() {
            tell(tx, &kind, due)?;
            return Ok(id);
        }
        // The one that waits may be taken at this moment (PostgreSQL): then there is room again.
        if let Some(row) = tx.query_one(&twin(&kind, &once)).await? {
            return Ok(JobId(row.try_get("", "id")?));
        }
    }
    Err(DbError::Collision(format!("the job {kind} {once:?}")))
}

/// Adds many.
pub(crate) async fn all(tx: &WriteTx, cx: &Context, jobs: Vec<Job>) -> Result<Vec<JobId>, DbError> {
    let mut ids = Vec::with_capacity(jobs.len());
    let mut told = Vec::new();
    let mut rest = jobs.into_iter().peekable();
    while let Some(first) = rest.next_if(|job| job.once.is_some()) {
        ids.push(one(tx, cx, first).await?);
    }
    while rest.peek().is_some() {
        let mut statement = insert();
        let mut rows = 0;
        while rows < CHUNK
            && let Some(job) = rest.next_if(|job| job.once.is_none())
        {
            rows += 1;
            if !told.contains(&job.kind) {
                told.push(job.kind.clone());
            }
            ids.push(add(&mut statement, cx, job));
        }
        tx.execute(&statement).await?;
        while let Some(unique) = rest.next_if(|job| job.once.is_some()) {
            ids.push(one(tx, cx, unique).await?);
        }
    }
    for kind in told {
        tell(tx, &kind, true)?;
    }
    Ok(ids)
}

/// The job that a second one with the same key is.
pub(crate) fn twin(kind: &str, once: &Once) -> SelectStatement {
    let (column, key, live) = match once {
        Once::Waiting(key) => ("unique_key", key, is("waiting")),
        Once::UntilEnded(key) => ("exclusive_key", key, is("waiting").or(is("running"))),
    };
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("kind").eq(kind))
        .and_where(Expr::col(column).eq(key.as_str()))
        .and_where(live);
    select
}

fn insert() -> InsertStatement {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS.split_ascii_whitespace());
    insert
}

fn add(insert: &mut InsertStatement, cx: &Context, job: Job) -> JobId {
    let (id, now): (Uuid, _) = (cx.new_id(), cx.now());
    let (unique, exclusive) = match job.once {
        None => (None, None),
        Some(Once::Waiting(key)) => (Some(key), None),
        Some(Once::UntilEnded(key)) => (None, Some(key)),
    };
    insert.values_panic([
        id.into(),
        job.kind.as_ref().into(),
        job.tenant.into(),
        job.payload.into(),
        unique.into(),
        exclusive.into(),
        job.priority.number().into(),
        job.run_at.unwrap_or(now).into(),
        "waiting".into(),
        0.into(),
        i32::try_from(job.max_tries).unwrap_or(i32::MAX).into(),
        0_i64.into(),
        false.into(),
        cx.caller.trace_id.as_deref().into(),
        job.tick.into(),
        now.into(),
        now.into(),
    ]);
    JobId(id)
}

fn tell(tx: &WriteTx, kind: &str, due: bool) -> Result<(), DbError> {
    if due {
        tx.publish(ENQUEUED, kind, &Value::Null)?;
    }
    Ok(())
}
