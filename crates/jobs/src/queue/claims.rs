//! Taking jobs: which are due, who has them, and for how long. Ends of leases go by the database's time,
//! due times by the process's clock.

use std::time::Duration;

use portico_base::Timestamp;
use portico_db::sea_orm::{ConnectionTrait as _, QueryResult};
use portico_db::sea_query::{
    Expr, ExprTrait as _, LockBehavior, LockType, Order, Query, SelectStatement, UnionType,
};
use portico_db::{Backend, Db, DbError, WriteTx};
use serde_json::Value;
use uuid::Uuid;

use super::job::{Once, Priority};
use super::pairs::{self, Pair};
use super::{BATCH, PAUSES, TABLE, is};

/// A job that this process has taken, or is ending for one that died.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) payload: Value,
    pub(crate) once: Option<Once>,
    pub(crate) tries: u32,
    pub(crate) max_tries: u32,
    pub(crate) holder: String,
    pub(crate) fencing: i64,
    pub(crate) cancel_asked: bool,
    pub(crate) trace: Option<String>,
    pub(crate) began_at: Timestamp,
    pub(crate) tick: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

const COLUMNS: &str = "id kind tenant_id payload unique_key exclusive_key tries max_tries holder fencing \
                       cancel_asked trace began_at tick created_at";

impl Claim {
    pub(crate) fn lost(&self) -> DbError {
        DbError::LeaseLost(format!("job {}", self.id))
    }

    /// Its row, while it is in a state under this claim.
    pub(crate) fn row(&self, state: &'static str) -> SelectStatement {
        let mut select = Query::select();
        select
            .column("id")
            .from(TABLE)
            .and_where(Expr::col("id").eq(self.id))
            .and_where(is(state))
            .and_where(Expr::col("fencing").eq(self.fencing));
        select
    }

    pub(crate) const fn pair(&self) -> Pair {
        (self.id, self.fencing)
    }
}

/// The first waiting job of a kind and a priority.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Due {
    pub(crate) kind: String,
    pub(crate) priority: Priority,
    pub(crate) run_at: Timestamp,
}

/// Jobs that a worker wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want<'a> {
    pub(crate) kind: &'a str,
    pub(crate) priority: Priority,
    /// How many at most.
    pub(crate) room: usize,
    /// How many may run in all processes together.
    pub(crate) everywhere: Option<usize>,
}

/// When jobs of these kinds are due: one look into the index for each kind and priority, in one statement.
/// Paused kinds have none.
pub(crate) async fn due(db: &Db, kinds: &[&str]) -> Result<Vec<Due>, DbError> {
    let mut looks = kinds
        .iter()
        .flat_map(|kind| Priority::ALL.map(|priority| first(kind, priority)));
    let Some(mut select) = looks.next() else {
        return Ok(Vec::new());
    };
    for look in looks {
        select.union(UnionType::All, look);
    }
    let rows = db.reader().query_all(&select).await?;
    let mut due = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(run_at) = row.try_get("", "run_at")? else {
            continue;
        };
        due.push(Due {
            kind: row.try_get("", "kind")?,
            priority: Priority::of(row.try_get("", "priority")?),
            run_at,
        });
    }
    due.sort_by_key(|due| (due.priority, due.run_at));
    Ok(due)
}

fn first(kind: &str, priority: Priority) -> SelectStatement {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("kind").min(), "kind")
        .expr_as(Expr::col("priority").min(), "priority")
        .expr_as(Expr::col("run_at").min(), "run_at")
        .from_subquery(
            Query::select()
                .columns(["kind", "priority", "run_at"])
                .from(TABLE)
                .and_where(is("waiting"))
                .and_where(Expr::col("kind").eq(kind))
                .and_where(Expr::col("priority").eq(priority.number()))
                .and_where(not_paused(kind))
                .order_by("run_at", Order::Asc)
                .limit(1)
                .take(),
            "first",
        );
    select
}

fn not_paused(kind: &str) -> Expr {
    let mut pause = Query::select();
    pause
        .expr(Expr::value(1))
        .from(PAUSES)
        .and_where(Expr::col((PAUSES, "kind")).eq(kind));
    Expr::exists(pause).not()
}

/// Takes due jobs, of each want the oldest first, all in one transaction.
pub(crate) async fn claim(
    db: &Db,
    wants: &[Want<'_>],
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> Result<Vec<Claim>, DbError> {
    let tx = db.begin().await?;
    let mut claims = Vec::new();
    for want in wants {
        let room = match want.everywhere {
            Some(most) => want.room.min(left_everywhere(&tx, want.kind, most).await?),
            None => want.room,
        };
        if room > 0 {
            claims.extend(take(&tx, db, want, room, holder, ttl, now).await?);
        }
    }
    tx.commit().await?;
    Ok(claims)
}

async fn take(
    tx: &WriteTx,
    db: &Db,
    want: &Want<'_>,
    room: usize,
    holder: &str,
    ttl: Duration,
    now: Timestamp,
) -> Result<Vec<Claim>, DbError> {
    let mut due = Query::select();
    due.column("id")
        .from(TABLE)
        .and_where(is("waiting"))
        .and_where(Expr::col("kind").eq(want.kind))
        .and_where(Expr::col("priority").eq(want.priority.number()))
        .and_where(Expr::col("run_at").lte(now))
        .and_where(not_paused(want.kind))
        .order_by("run_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(room as u64);
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
        .value("began_at", now)
        .value("updated_at", now)
        .and_where(Expr::col("id").in_subquery(due))
        .returning(Query::returning().columns(COLUMNS.split_ascii_whitespace()));
    let rows = tx.query_all(&update).await?;
    let mut claims: Vec<Claim> = rows.iter().map(from_row).collect::<Result<_, _>>()?;
    claims.sort_by_key(|claim| claim.id);
    Ok(claims)
}

/// How many more may run in all processes together; nobody else counts until the transaction ends.
async fn left_everywhere(tx: &WriteTx, kind: &str, most: usize) -> Result<usize, DbError> {
    tx.serialise(&format!("jobs/{kind}")).await?;
    let mut count = Query::select();
    count
        .expr_as(Expr::col("id").count(), "n")
        .from(TABLE)
        .and_where(is("running"))
        .and_where(Expr::col("kind").eq(kind));
    let row = tx.query_one(&count).await?;
    let running: i64 = row.map_or(Ok(0), |row| row.try_get("", "n"))?;
    Ok(most.saturating_sub(usize::try_from(running).unwrap_or(usize::MAX)))
}

/// Makes claims last longer. Gives those that still hold, and whether somebody wants them cancelled.
pub(crate) async fn renew(
    db: &Db,
    claims: &[Pair],
    ttl: Duration,
) -> Result<Vec<(Pair, bool)>, DbError> {
    let tx = db.begin().await?;
    let mut held = Vec::with_capacity(claims.len());
    for chunk in claims.chunks(pairs::MOST) {
        let mut update = Query::update();
        update
            .table(TABLE)
            .value("lease_until", db.ahead_expr(ttl))
            .and_where(is("running"))
            .and_where(pairs::among(chunk))
            .returning(Query::returning().columns(["id", "fencing", "cancel_asked"]));
        for row in tx.query_all(&update).await? {
            let pair = (row.try_get("", "id")?, row.try_get("", "fencing")?);
            held.push((pair, row.try_get("", "cancel_asked")?));
        }
    }
    tx.commit().await?;
    Ok(held)
}

/// Jobs whose worker died: their leases are over.
pub(crate) async fn expired(db: &Db) -> Result<Vec<Claim>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS.split_ascii_whitespace())
        .from(TABLE)
        .and_where(is("running"))
        .and_where(Expr::col("lease_until").lt(db.ahead_expr(Duration::ZERO)))
        .limit(BATCH);
    let rows = db.reader().query_all(&select).await?;
    rows.iter().map(from_row).collect()
}

/// Takes an expired job away from its worker; false when the worker has come back or another was faster.
pub(crate) async fn take_over(tx: &WriteTx, db: &Db, claim: &Claim) -> Result<bool, DbError> {
    let mut select = claim.row("running");
    select.and_where(Expr::col("lease_until").lt(db.ahead_expr(Duration::ZERO)));
    if db.backend() == Backend::Postgres {
        select.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    }
    Ok(tx.query_one(&select).await?.is_some())
}

/// Ends the leases of all running jobs: right only where nobody else can hold one.
pub(crate) async fn end_all_leases(db: &Db, now: Timestamp) -> Result<(), DbError> {
    let tx = db.begin().await?;
    free_all(&tx, now).await?;
    tx.commit().await?;
    Ok(())
}

/// Ends the leases of all running jobs; gives their number.
pub(crate) async fn free_all(tx: &WriteTx, now: Timestamp) -> Result<u64, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("lease_until", now - chrono::Duration::seconds(1))
        .and_where(is("running"));
    Ok(tx.execute(&update).await?.rows_affected())
}

fn from_row(row: &QueryResult) -> Result<Claim, DbError> {
    let holder: Option<String> = row.try_get("", "holder")?;
    let unique: Option<String> = row.try_get("", "unique_key")?;
    let exclusive: Option<String> = row.try_get("", "exclusive_key")?;
    let began_at: Option<Timestamp> = row.try_get("", "began_at")?;
    let created_at: Timestamp = row.try_get("", "created_at")?;
    Ok(Claim {
        id: row.try_get("", "id")?,
        kind: row.try_get("", "kind")?,
        tenant: row.try_get("", "tenant_id")?,
        payload: row.try_get("", "payload")?,
        once: Once::of(unique, exclusive),
        tries: u32::try_from(row.try_get::<i32>("", "tries")?).unwrap_or(0),
        max_tries: u32::try_from(row.try_get::<i32>("", "max_tries")?).unwrap_or(0),
        holder: holder.unwrap_or_default(),
        fencing: row.try_get("", "fencing")?,
        cancel_asked: row.try_get("", "cancel_asked")?,
        trace: row.try_get("", "trace")?,
        began_at: began_at.unwrap_or(created_at),
        tick: row.try_get("", "tick")?,
        created_at,
    })
}
