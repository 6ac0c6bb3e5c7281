//! Records and those of them that wait to be sealed.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Func, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, one};
use crate::domain::record::Stored;

pub(crate) const TABLE: &str = "audit_records";
pub(crate) const PENDING: &str = "audit_pending";
const CHAIN: &str = "audit_chain";

pub(crate) const COLUMNS: [&str; 20] = [
    "id",
    "at",
    "tenant_id",
    "actor_kind",
    "actor_id",
    "action",
    "target_type",
    "target_id",
    "request_id",
    "trace_id",
    "outcome",
    "error_code",
    "public",
    "private",
    "salt",
    "private_hash",
    "batch_id",
    "ip",
    "paths",
    "redacted_at",
];

/// Adds a record, and notes that it waits to be sealed.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &Stored) -> Result<(), DbError> {
    insert_alone(conn, r).await?;
    let mut insert = Query::insert();
    insert
        .into_table(PENDING)
        .columns(["record_id"])
        .values_panic([r.id.into()]);
    conn.execute(&insert).await?;
    Ok(())
}

/// Adds a record and nothing else.
pub(crate) async fn insert_alone(conn: &impl ConnectionTrait, r: &Stored) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert.into_table(TABLE).columns(COLUMNS).values_panic([
        r.id.into(),
        r.at.into(),
        r.tenant.into(),
        r.actor_kind.as_str().into(),
        r.actor_id.as_str().into(),
        r.action.as_str().into(),
        r.target_type.as_str().into(),
        r.target_id.as_str().into(),
        r.request_id.as_str().into(),
        r.trace_id.clone().into(),
        r.outcome.as_str().into(),
        r.error_code.clone().into(),
        r.public.as_str().into(),
        r.private.clone().into(),
        r.salt.clone().into(),
        r.private_hash.as_str().into(),
        r.batch.into(),
        r.ip.clone().into(),
        r.paths.as_str().into(),
        r.redacted_at.into(),
    ]);
    conn.execute(&insert).await?;
    Ok(())
}

/// A record that waits: what its hash is made from, and what the list of actions needs.
pub(crate) struct Waiting {
    pub id: Uuid,
    pub at: Timestamp,
    pub tenant: Uuid,
    pub action: String,
    pub public: String,
}

/// Records that wait, about in the order in which they were written.
pub(crate) async fn waiting(
    conn: &impl ConnectionTrait,
    limit: u64,
) -> Result<Vec<Waiting>, DbError> {
    let mut select = Query::select();
    let of = |column: &'static str| (TABLE, column);
    select
        .columns([
            of("id"),
            of("at"),
            of("tenant_id"),
            of("action"),
            of("public"),
        ])
        .from(PENDING)
        .inner_join(
            TABLE,
            Expr::col((TABLE, "id")).equals((PENDING, "record_id")),
        )
        .order_by((PENDING, "record_id"), Order::Asc)
        .limit(limit);
    all(conn, &select, |row| {
        Ok(Waiting {
            id: row.try_get("", "id")?,
            at: row.try_get("", "at")?,
            tenant: row.try_get("", "tenant_id")?,
            action: row.try_get("", "action")?,
            public: row.try_get("", "public")?,
        })
    })
    .await
}

/// How many wait.
pub(crate) async fn count_waiting(conn: &impl ConnectionTrait) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Func::count(Expr::col("record_id")), "n")
        .from(PENDING);
    let n = one(conn, &select, |row| super::unsigned(row, "n")).await?;
    Ok(n.unwrap_or(0))
}

/// When the oldest waiting record was written.
pub(crate) async fn oldest_waiting(
    conn: &impl ConnectionTrait,
) -> Result<Option<Timestamp>, DbError> {
    Ok(waiting(conn, 1).await?.first().map(|w| w.at))
}

/// A record with its place in the chain, if it has one yet.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Option<Uuid>,
    id: Uuid,
) -> Result<Option<(Stored, Option<u64>)>, DbError> {
    let mut select = with_seq();
    select.and_where(Expr::col((TABLE, "id")).eq(id));
    if let Some(tenant) = tenant {
        select.and_where(Expr::col((TABLE, "tenant_id")).eq(tenant));
    }
    one(conn, &select, |row| Ok((read(row)?, seq(row)?))).await
}

/// A select of records with their numbers in the chain.
pub(crate) fn with_seq() -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS.map(|column| (TABLE, column)))
        .expr_as(Expr::col((CHAIN, "seq")), "chain_seq")
        .from(TABLE)
        .left_join(CHAIN, Expr::col((CHAIN, "record_id")).equals((TABLE, "id")));
    select
}

/// The number in the chain of a row of [`with_seq`].
pub(crate) fn seq(row: &QueryResult) -> Result<Option<u64>, DbError> {
    let seq: Option<i64> = row.try_get("", "chain_seq")?;
    Ok(seq.and_then(|seq| u64::try_from(seq).ok()))
}

/// Records behind `after` that are neither sealed nor wait to be, among the next `step`; with the last id
/// that was looked at.
pub(crate) async fn strays(
    conn: &impl ConnectionTrait,
    after: Option<Uuid>,
    step: u64,
) -> Result<(Vec<Uuid>, Option<Uuid>), DbError> {
    let mut inner = Query::select();
    inner
        .column("id")
        .from(TABLE)
        .order_by("id", Order::Asc)
        .limit(step);
    if let Some(after) = after {
        inner.and_where(Expr::col("id").gt(after));
    }
    let mut select = Query::select();
    select
        .column(("r", "id"))
        .expr_as(
            Expr::col((CHAIN, "record_id"))
                .is_null()
                .and(Expr::col((PENDING, "record_id")).is_null()),
            "stray",
        )
        .from_subquery(inner, "r")
        .left_join(CHAIN, Expr::col((CHAIN, "record_id")).equals(("r", "id")))
        .left_join(
            PENDING,
            Expr::col((PENDING, "record_id")).equals(("r", "id")),
        )
        .order_by(("r", "id"), Order::Asc);
    let rows = all(conn, &select, |row| {
        Ok((row.try_get("", "id")?, row.try_get("", "stray")?))
    })
    .await?;
    let last = rows.last().map(|(id, _): &(Uuid, bool)| *id);
    let strays = { rows.into_iter() }
        .filter(|(_, stray)| *stray)
        .map(|(id, _)| id)
        .collect();
    Ok((strays, last))
}

/// Moments, targets and private parts of the records of an action of ours; few.
pub(crate) async fn told(
    conn: &impl ConnectionTrait,
    action: &str,
) -> Result<Vec<(Timestamp, String, Option<String>)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["at", "target_id", "private"])
        .from(TABLE)
        .and_where(Expr::col("action").eq(action));
    let rows = conn.query_all(&select).await?;
    // What somebody changed by hand may not even be of its type: then it says nothing.
    let read = |row: &QueryResult| -> Result<_, DbError> {
        Ok((
            row.try_get("", "at")?,
            row.try_get("", "target_id")?,
            row.try_get("", "private")?,
        ))
    };
    Ok(rows.iter().filter_map(|row| read(row).ok()).collect())
}

/// Records of a person that still have a private part: what they did, wherever, and what was done to
/// them. Ids of users are never used twice, so that none of another person is among them.
pub(crate) async fn of_person(
    conn: &impl ConnectionTrait,
    user: Uuid,
    as_actor: bool,
    limit: u64,
) -> Result<Vec<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("id")
        .from(TABLE)
        .and_where(Expr::col("redacted_at").is_null())
        .limit(limit);
    if as_actor {
        select.and_where(Expr::col("actor_id").eq(user.to_string()));
    } else {
        select
            .and_where(Expr::col("target_type").eq("user"))
            .and_where(Expr::col("target_id").eq(user.to_string()));
    }
    all(conn, &select, |row| Ok(row.try_get("", "id")?)).await
}

/// Takes the private parts of records out.
pub(crate) async fn redact(
    conn: &impl ConnectionTrait,
    ids: &[Uuid],
    at: Timestamp,
) -> Result<u64, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("private", None::<String>)
        .value("salt", None::<String>)
        .value("batch_id", None::<Uuid>)
        .value("ip", None::<String>)
        .value("paths", "")
        .value("redacted_at", at)
        .and_where(Expr::col("id").is_in(ids.iter().copied()))
        .and_where(Expr::col("redacted_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected())
}

pub(crate) fn read(row: &QueryResult) -> Result<Stored, DbError> {
    Ok(Stored {
        id: row.try_get("", "id")?,
        at: row.try_get("", "at")?,
        tenant: row.try_get("", "tenant_id")?,
        actor_kind: row.try_get("", "actor_kind")?,
        actor_id: row.try_get("", "actor_id")?,
        action: row.try_get("", "action")?,
        target_type: row.try_get("", "target_type")?,
        target_id: row.try_get("", "target_id")?,
        request_id: row.try_get("", "request_id")?,
        trace_id: row.try_get("", "trace_id")?,
        outcome: row.try_get("", "outcome")?,
        error_code: row.try_get("", "error_code")?,
        public: row.try_get("", "public")?,
        private: row.try_get("", "private")?,
        salt: row.try_get("", "salt")?,
        private_hash: row.try_get("", "private_hash")?,
        batch: row.try_get("", "batch_id")?,
        ip: row.try_get("", "ip")?,
        paths: row.try_get("", "paths")?,
        redacted_at: row.try_get("", "redacted_at")?,
    })
}
