//! Copies of personal data that were asked for.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, one, to_json};
use crate::domain::personal::{Export, ExportState};

const TABLE: &str = "personal_exports";
const COLUMNS: [&str; 13] = [
    "id",
    "tenant_id",
    "user_id",
    "requester",
    "reason",
    "state",
    "object",
    "bytes",
    "sha256",
    "parts",
    "created_at",
    "ready_at",
    "expires_at",
];

/// Adds one.
pub(crate) async fn insert(conn: &impl ConnectionTrait, e: &Export) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            e.id.into(),
            e.tenant.into(),
            e.user.into(),
            e.requester.clone().into(),
            e.reason.clone().into(),
            e.state.as_str().into(),
            e.object.clone().into(),
            e.bytes.into(),
            e.sha256.clone().into(),
            to_json(&e.parts)?.into(),
            e.created_at.into(),
            e.ready_at.into(),
            e.expires_at.into(),
        ],
    )
    .await
}

/// Writes how it ended; false when it is gone or had ended before.
pub(crate) async fn end(conn: &impl ConnectionTrait, e: &Export) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("state", e.state.as_str())
        .value("bytes", e.bytes)
        .value("sha256", e.sha256.clone())
        .value("parts", to_json(&e.parts)?)
        .value("ready_at", e.ready_at)
        .value("expires_at", e.expires_at)
        .and_where(Expr::col("id").eq(e.id))
        .and_where(Expr::col("tenant_id").eq(e.tenant))
        .and_where(Expr::col("state").eq(ExportState::Waiting.as_str()));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// One of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<Export>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// One that somebody asked for, whatever the tenant of the person is.
pub(crate) async fn of_requester(
    conn: &impl ConnectionTrait,
    requester: &str,
    id: Uuid,
) -> Result<Option<Export>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("requester").eq(requester));
    one(conn, &select, read).await
}

/// The newest that somebody asked for.
pub(crate) async fn newest(
    conn: &impl ConnectionTrait,
    requester: &str,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Export>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("requester").eq(requester))
        .and_where(Expr::col("expires_at").gt(now))
        .order_by("created_at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    all(conn, &select, read).await
}

/// Those of a person since a moment.
pub(crate) async fn of_user(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
    since: Timestamp,
    limit: u64,
) -> Result<Vec<Export>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("created_at").gte(since))
        .order_by("created_at", Order::Desc)
        .limit(limit);
    all(conn, &select, read).await
}

/// Those whose time is over, of all tenants.
pub(crate) async fn expired(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Export>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("expires_at").lte(now))
        .order_by("expires_at", Order::Asc)
        .limit(limit);
    all(conn, &select, read).await
}

/// Removes one.
pub(crate) async fn delete(conn: &impl ConnectionTrait, e: &Export) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").eq(e.id))
        .and_where(Expr::col("tenant_id").eq(e.tenant));
    conn.execute(&delete).await?;
    Ok(())
}

fn select() -> SelectStatement {
    Query::select().columns(COLUMNS).from(TABLE).take()
}

fn read(row: &QueryResult) -> Result<Export, DbError> {
    let state: String = row.try_get("", "state")?;
    Ok(Export {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        requester: row.try_get("", "requester")?,
        reason: row.try_get("", "reason")?,
        state: ExportState::parse(&state).ok_or_else(|| broken("state"))?,
        object: row.try_get("", "object")?,
        bytes: row.try_get("", "bytes")?,
        sha256: row.try_get("", "sha256")?,
        parts: from_json(row, "parts")?,
        created_at: row.try_get("", "created_at")?,
        ready_at: row.try_get("", "ready_at")?,
        expires_at: row.try_get("", "expires_at")?,
    })
}
