//! Orders about many users, and how each user fared.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use super::user_list::Key;
use super::{all, from_json, insert as insert_row, one, to_json};
use crate::domain::batch::Batch;

const TABLE: &str = "user_batches";
const ROWS: &str = "user_batch_rows";

const COLUMNS: [&str; 10] = [
    "id",
    "tenant_id",
    "wanted",
    "actor",
    "total",
    "done",
    "failed",
    "position",
    "created_at",
    "finished_at",
];

/// How a user fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub user: Uuid,
    /// Absent when it was done.
    pub code: Option<String>,
}

/// Adds an order.
pub(crate) async fn insert(conn: &impl ConnectionTrait, b: &Batch) -> Result<(), DbError> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            b.id.into(),
            b.tenant.into(),
            to_json(&b.wanted)?.into(),
            to_json(&b.actor)?.into(),
            count(b.total).into(),
            count(b.done).into(),
            count(b.failed).into(),
            Option::<Value>::None.into(),
            b.created_at.into(),
            b.finished_at.into(),
        ],
    )
    .await
}

/// An order of a tenant with the position of its next run.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<(Batch, Option<Key>)>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// The tenant of an order, for those who administer all tenants.
pub(crate) async fn tenant_of(
    conn: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("tenant_id")
        .from(TABLE)
        .and_where(Expr::col("id").eq(id));
    one(conn, &select, |row| Ok(row.try_get("", "tenant_id")?)).await
}

/// Notes how a user fared, and counts it.
pub(crate) async fn note(
    conn: &impl ConnectionTrait,
    batch: &Batch,
    row: &Row,
) -> Result<(), DbError> {
    insert_row(
        conn,
        ROWS,
        ["batch_id", "tenant_id", "user_id", "code"],
        [
            batch.id.into(),
            batch.tenant.into(),
            row.user.into(),
            row.code.clone().into(),
        ],
    )
    .await?;
    let column = if row.code.is_none() { "done" } else { "failed" };
    let mut update = Query::update();
    update
        .table(TABLE)
        .value(column, Expr::col(column).add(1))
        .and_where(Expr::col("id").eq(batch.id))
        .and_where(Expr::col("tenant_id").eq(batch.tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// Which of the users have been dealt with.
pub(crate) async fn noted(
    conn: &impl ConnectionTrait,
    batch: &Batch,
    users: &[Uuid],
) -> Result<Vec<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("user_id")
        .from(ROWS)
        .and_where(Expr::col("batch_id").eq(batch.id))
        .and_where(Expr::col("tenant_id").eq(batch.tenant))
        .and_where(Expr::col("user_id").is_in(users.iter().copied()));
    all(conn, &select, |row| Ok(row.try_get("", "user_id")?)).await
}

/// Remembers where the next run goes on.
pub(crate) async fn advance(
    conn: &impl ConnectionTrait,
    batch: &Batch,
    position: &Key,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("position", to_json(position)?)
        .and_where(Expr::col("id").eq(batch.id))
        .and_where(Expr::col("tenant_id").eq(batch.tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// Nothing is left to do.
pub(crate) async fn finish(
    conn: &impl ConnectionTrait,
    batch: &Batch,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("finished_at", now)
        .and_where(Expr::col("id").eq(batch.id))
        .and_where(Expr::col("tenant_id").eq(batch.tenant));
    conn.execute(&update).await?;
    Ok(())
}

/// How users fared, in the order of their ids, behind `after`.
pub(crate) async fn rows(
    conn: &impl ConnectionTrait,
    batch: &Batch,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(["user_id", "code"])
        .from(ROWS)
        .and_where(Expr::col("batch_id").eq(batch.id))
        .and_where(Expr::col("tenant_id").eq(batch.tenant))
        .order_by("user_id", Order::Asc)
        .limit(limit);
    if let Some(after) = after {
        select.and_where(Expr::col("user_id").gt(after));
    }
    all(conn, &select, |row| {
        Ok(Row {
            user: row.try_get("", "user_id")?,
            code: row.try_get("", "code")?,
        })
    })
    .await
}

fn read(row: &QueryResult) -> Result<(Batch, Option<Key>), DbError> {
    let count = |column: &str| -> Result<u64, DbError> {
        let n: i64 = row.try_get("", column)?;
        Ok(u64::try_from(n).unwrap_or(0))
    };
    let batch = Batch {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        wanted: from_json(row, "wanted")?,
        actor: from_json(row, "actor")?,
        total: count("total")?,
        done: count("done")?,
        failed: count("failed")?,
        created_at: row.try_get("", "created_at")?,
        finished_at: row.try_get("", "finished_at")?,
    };
    Ok((batch, opt_json(row, "position")?))
}

fn opt_json<T: DeserializeOwned>(row: &QueryResult, column: &str) -> Result<Option<T>, DbError> {
    let value: Option<Value> = row.try_get("", column)?;
    Ok(value.map(serde_json::from_value).transpose()?)
}
