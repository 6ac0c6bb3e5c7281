//! Rows of the table `jobs`. Ends of leases go by the database's time, due times by the process's clock.

use std::time::Duration;

use portico_base::{Context, Timestamp};
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{
    Expr, ExprTrait as _, LockBehavior, LockType, OnConflict, Order, Query, SelectStatement,
    UpdateStatement,
};
use portico_db::{Backend, Db, DbError, WriteTx};
use serde_json::{Value, json};
use uuid::Uuid;

use super::job::{Job, JobId};

/// Outbox topic by which the workers of all replicas are woken.
pub(crate) const ENQUEUED: &str = "job.enqueued";
/// Told when a job is given up.
pub(crate) const DEAD: &str = "job.dead";

const TABLE: &str = "jobs";
/// Longest error text that is kept, in characters.
const ERROR_LENGTH: usize = 2_000;
/// How often a job is asked for whose twin is always just being taken.
const INSERT_TRIES: u32 = 10;
/// Most rows that one statement of the upkeep touches.
const BATCH: u64 = 500;

/// A job that this process has taken, or is ending for one that died.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) payload: Value,
    pub(crate) unique: Option<String>,
    pub(crate) tries: u32,
    pub(crate) max_tries: u32,
    pub(crate) holder: String,
    pub(crate) fencing: i64,
    pub(crate) trace: Option<String>,
    pub(crate) created_at: Timestamp,
}

const COLUMNS: [&str; 11] = [
    "id",
    "kind",
    "tenant_id",
    "payload",
    "unique_key",
    "tries",
    "max_tries",
    "holder",
    "fencing",
    "trace",
    "created_at",
];

impl Claim {
    pub(crate) fn lost(&self) -> DbError {
        DbError::LeaseLost(format!("job {}", self.id))
    }
}

/// How a run ended that did not end the job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// To be tried again then. Without an error the try does not count: the process stopped.
    Again(Timestamp, Option<String>),
    /// Given up.
    Dead(String),
}

/// Adds a job, unless the same one waits already.
pub(crate) async fn insert(tx: &WriteTx, cx: &Context, job: Job) -> Result<JobId, DbError> {
    let now = cx.now();
    let (kind, unique) = (job.kind, job.unique.clone());
    let run_at = job.run_at.unwrap_or(now);
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns([
            "id",
            "kind",
            "tenant_id",
            "payload",
            "unique_key",
            "run_at",
            "state",
            "tries",
            "max_tries",
            "fencing",
            "trace",
            "created_at",
            "updated_at",
        ])
        .values_panic([
            cx.new_id().into(),
            kind.into(),
            job.tenant.into(),
            job.payload.into(),
            job.unique.into(),
            run_at.into(),
            "waiting".into(),
            0.into(),
            to_i32(job.max_tries).into(),
            0_i64.into(),
            cx.caller.trace_id.as_deref().into(),
            now.into(),
            now.into(),
        ])
        .returning(Query::returning().column("id"));
    if unique.is_some() {
        // The key is the only thing that can be there already; the id is new.
        insert.on_conflict(OnConflict::new().do_nothing().to_owned());
    }
    for _ in 0..INSERT_TRIES {
        if let Some(row) = tx.query_one(&insert).await? {
            if run_at <= now {
                tx.publish(ENQUEUED, kind, &Value::Null)?;
            }
            return Ok(JobId(row.try_get("", "id")?));
        }
        // The one that waits may be taken at this moment (PostgreSQL): then there is room again.
        let key = unique.as_deref().unwrap_or_default();
        if let Some(row) = tx.query_one(&waiting_twin(kind, key)).await? {
            return Ok(JobId(row.try_get("", "id")?));
        }
    }
    Err(DbError::Collision(format!("the job {kind} {unique:?}")))
}

fn waiting_twin(kind: &str, key: &str) -> SelectStatement {
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("kind").eq(kind))
        .and_where(Expr::col("unique_key").eq(key))
        .and_where(Expr::col("state").eq("waiting"));
    select
}

/// The jobs of a service's queue that wait, and since when the oldest is due.
pub(crate) struct Depth {
    pub(crate) kind: String,
    pub(crate) waiting: u64,
    pub(crate) oldest: Timestamp,
}

/// Depth of every kind that has waiting jobs.
pub(crate) async fn depths(db: &Db) -> Result<Vec<Depth>, DbError> {
    let mut select = Query::select();
    select
        .column("kind")
        .expr_as(Expr::col("id").count(), "waiting")
        .expr_as(Expr::col("run_at").min(), "oldest")
        .from(TABLE)
        .and_where(Expr::col("state").eq("waiting"))
        .group_by_col("kind");
    let rows = db.reader().query_all(&select).await?;
    rows.iter()
        .map(|row| {
            let waiting: i64 = row.try_get("", "waiting")?;
            Ok(Depth {
                kind: row.try_get("", "kind")?,
                waiting: u64::try_from(waiting).unwrap_or(0),
                oldest: row.try_get("", "oldest")?,
            })
        })
        .collect()
}

/// When the first waiting job of a kind is due.
pub(crate) async fn next_due(db: &Db, kind: &str) -> Result<Option<Timestamp>, DbError> {
    let mut select = Query::select();
    select
        .column("run_at")
        .from(TABLE)
        .and_where(Expr::col("state").eq("waiting"))
        .and_where(Expr::col("kind").eq(kind))
        .order_by("run_at", Order::Asc)
        .limit(1);
    let row = db.reader().query_one(&select).await?;
    Ok(row.map(|row| row.try_get("", "run_at")).transpose()?)
}

/// Takes up to `limit` due jobs of a kind, the oldest first.
pub(crate) async fn claim(
    db: &Db,
    kind: &str,
    limit: usize,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> Result<Vec<Claim>, DbError> {
    let mut due = Query::select();
    due.column("id")
        .from(TABLE)
        .and_where(Expr::col("state").eq("waiting"))
        .and_where(Expr::col("kind").eq(kind))
        .and_where(Expr::col("run_at").lte(now))
        .order_by("run_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(limit as u64);
    if db.backend() == Backend::Postgres {
        due.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("state", "running")
        .value("holder", holder)
        .value("lease_until", db.ahead_expr(ttl))
        .value("tries", Expr::col("tries").add(1))
        .value("fencing", Expr::col("fencing").add(1))
        .value("updated_at", now)
        .and_where(Expr::col("id").in_subquery(due))
        .returning(Query::returning().columns(COLUMNS));
    let tx = db.begin().await?;
    let rows = tx.query_all(&update).await?;
    tx.commit().await?;
    let mut claims: Vec<Claim> = rows.iter().map(from_row).collect::<Result<_, _>>()?;
    claims.sort_by_key(|claim| claim.id);
    Ok(claims)
}

/// Makes a claim last longer; false when it is lost.
pub(crate) async fn renew(db: &Db, claim: &Claim, ttl: Duration) -> Result<bool, DbError> {
    let mut update = mine(claim);
    update.value("lease_until", db.ahead_expr(ttl));
    let tx = db.begin().await?;
    let held = tx.execute(&update).await?.rows_affected() == 1;
    tx.commit().await?;
    Ok(held)
}

/// Refuses to go on when the claim is lost, and keeps it until the transaction ends.
pub(crate) async fn fence(tx: &WriteTx, claim: &Claim) -> Result<(), DbError> {
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("id").eq(claim.id))
        .and_where(Expr::col("state").eq("running"))
        .and_where(Expr::col("fencing").eq(claim.fencing));
    if tx.get_database_backend() == portico_db::sea_orm::DbBackend::Postgres {
        select.lock(LockType::Share);
    }
    match tx.query_one(&select).await? {
        Some(_) => Ok(()),
        None => Err(claim.lost()),
    }
}

/// Notes that the job is done; false when the claim was lost.
pub(crate) async fn finish(tx: &WriteTx, claim: &Claim, now: Timestamp) -> Result<bool, DbError> {
    let mut update = mine(claim);
    update.value("state", "done");
    end_lease(&mut update, now);
    Ok(tx.execute(&update).await?.rows_affected() == 1)
}

/// True when the job was done under this claim already.
pub(crate) async fn is_done(tx: &WriteTx, claim: &Claim) -> Result<bool, DbError> {
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("id").eq(claim.id))
        .and_where(Expr::col("state").eq("done"))
        .and_where(Expr::col("fencing").eq(claim.fencing));
    Ok(tx.query_one(&select).await?.is_some())
}

/// Notes how a run ended that did not end as it should; false when the claim was lost.
pub(crate) async fn end(
    tx: &WriteTx,
    claim: &Claim,
    ended: &Ended,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = mine(claim);
    end_lease(&mut update, now);
    match ended {
        Ended::Dead(error) => {
            update
                .value("state", "dead")
                .value("last_error", shortened(error));
            let payload = json!({ "id": claim.id, "kind": claim.kind, "tenant_id": claim.tenant });
            let ended = tx.execute(&update).await?.rows_affected() == 1;
            if ended {
                tx.publish(DEAD, &claim.id.to_string(), &payload)?;
            }
            return Ok(ended);
        }
        Ended::Again(at, error) => {
            // Somebody asked for the same while this one ran: that one does its work.
            if let Some(key) = &claim.unique
                && tx
                    .query_one(&waiting_twin(&claim.kind, key))
                    .await?
                    .is_some()
            {
                update.value("state", "cancelled");
            } else {
                update.value("state", "waiting").value("run_at", *at);
            }
            match error {
                Some(error) => update.value("last_error", shortened(error)),
                None => update.value("tries", Expr::col("tries").sub(1)),
            };
        }
    }
    Ok(tx.execute(&update).await?.rows_affected() == 1)
}

/// Jobs whose worker died: their leases are over.
pub(crate) async fn expired(db: &Db) -> Result<Vec<Claim>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("state").eq("running"))
        .and_where(Expr::col("lease_until").lt(db.ahead_expr(Duration::ZERO)))
        .limit(BATCH);
    let rows = db.reader().query_all(&select).await?;
    rows.iter().map(from_row).collect()
}

/// Takes an expired job away from its worker; false when the worker has come back or another was faster.
pub(crate) async fn take_over(tx: &WriteTx, db: &Db, claim: &Claim) -> Result<bool, DbError> {
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("id").eq(claim.id))
        .and_where(Expr::col("state").eq("running"))
        .and_where(Expr::col("fencing").eq(claim.fencing))
        .and_where(Expr::col("lease_until").lt(db.ahead_expr(Duration::ZERO)));
    if db.backend() == Backend::Postgres {
        select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    Ok(tx.query_one(&select).await?.is_some())
}

/// Ends the leases of all running jobs: right only where nobody else can hold one.
pub(crate) async fn end_all_leases(db: &Db, now: Timestamp) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("lease_until", now - chrono::Duration::seconds(1))
        .and_where(Expr::col("state").eq("running"));
    let tx = db.begin().await?;
    tx.execute(&update).await?;
    tx.commit().await?;
    Ok(())
}

/// Removes up to a batch of jobs that ended in one of the states before a moment; gives their number.
pub(crate) async fn trim(db: &Db, states: &[&str], before: Timestamp) -> Result<u64, DbError> {
    let mut old = Query::select();
    old.column("id")
        .from(TABLE)
        .and_where(Expr::col("state").is_in(states.iter().copied()))
        .and_where(Expr::col("updated_at").lt(before))
        .limit(BATCH);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").in_subquery(old));
    let tx = db.begin().await?;
    let gone = tx.execute(&delete).await?.rows_affected();
    tx.commit().await?;
    Ok(gone)
}

/// A change of the row while the claim holds.
fn mine(claim: &Claim) -> UpdateStatement {
    let mut update = Query::update();
    update
        .table(TABLE)
        .and_where(Expr::col("id").eq(claim.id))
        .and_where(Expr::col("state").eq("running"))
        .and_where(Expr::col("fencing").eq(claim.fencing));
    update
}

fn end_lease(update: &mut UpdateStatement, now: Timestamp) {
    update
        .value("holder", None::<String>)
        .value("lease_until", None::<Timestamp>)
        .value("updated_at", now);
}

fn shortened(error: &str) -> String {
    error
        .chars()
        .filter(|c| *c != '\0')
        .take(ERROR_LENGTH)
        .collect()
}

fn from_row(row: &QueryResult) -> Result<Claim, DbError> {
    let holder: Option<String> = row.try_get("", "holder")?;
    Ok(Claim {
        id: row.try_get("", "id")?,
        kind: row.try_get("", "kind")?,
        tenant: row.try_get("", "tenant_id")?,
        payload: row.try_get("", "payload")?,
        unique: row.try_get("", "unique_key")?,
        tries: to_u32(row.try_get("", "tries")?),
        max_tries: to_u32(row.try_get("", "max_tries")?),
        holder: holder.unwrap_or_default(),
        fencing: row.try_get("", "fencing")?,
        trace: row.try_get("", "trace")?,
        created_at: row.try_get("", "created_at")?,
    })
}

fn to_i32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn to_u32(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
