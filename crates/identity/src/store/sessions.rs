//! Sessions: one row a login, rotated in place.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, from_json, insert as insert_row, one, to_json, to_u32};
use crate::domain::session::Session;

const TABLE: &str = "sessions";
const COLUMNS: [&str; 21] = [
    "id",
    "tenant_id",
    "user_id",
    "device_id",
    "method",
    "amr",
    "aal",
    "auth_time",
    "ip",
    "user_agent",
    "cookie",
    "rt_kid",
    "rt_counter",
    "rt_rotated_at",
    "rt_retried",
    "idle_expires_at",
    "abs_expires_at",
    "created_at",
    "last_active_at",
    "revoked_at",
    "revoke_reason",
];

/// Adds a session. A device with a live one is a unique violation.
pub(crate) async fn insert(conn: &impl ConnectionTrait, s: &Session) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            s.id.into(),
            s.tenant.into(),
            s.user.into(),
            s.device.into(),
            s.method.clone().into(),
            to_json(&s.amr)?.into(),
            i32::from(s.aal).into(),
            s.auth_time.into(),
            s.ip.clone().into(),
            s.user_agent.clone().into(),
            s.cookie.into(),
            s.rt_kid.clone().into(),
            i64::from(s.rt_counter).into(),
            s.rt_rotated_at.into(),
            i32::from(s.rt_retried).into(),
            s.idle_expires_at.into(),
            s.abs_expires_at.into(),
            s.created_at.into(),
            s.last_active_at.into(),
            s.revoked_at.into(),
            s.revoke_reason.clone().into(),
        ],
    )
    .await
}

/// A session, live or not.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<Session>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("id").eq(id));
    one(conn, &select, read).await
}

/// Live sessions of a user, oldest activity first.
pub(crate) async fn live(
    conn: &impl ConnectionTrait,
    user: Uuid,
) -> Result<Vec<Session>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null())
        .order_by("last_active_at", Order::Asc)
        .order_by("id", Order::Asc);
    all(conn, &select, read).await
}

/// Ends a live session; false when it had ended before.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    id: Uuid,
    reason: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", reason)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Ends all live sessions of a user, but perhaps one, and returns their ids.
pub(crate) async fn end_all(
    conn: &impl ConnectionTrait,
    user: Uuid,
    except: Option<Uuid>,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<Uuid>, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .value("revoke_reason", reason)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("revoked_at").is_null())
        .returning_col("id");
    if let Some(id) = except {
        update.and_where(Expr::col("id").ne(id));
    }
    let rows = conn.query_all(&update).await?;
    rows.iter().map(|r| Ok(r.try_get("", "id")?)).collect()
}

/// A select over all columns of sessions.
pub(crate) fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(TABLE)
        .take()
}

/// A row as a session.
pub(crate) fn read(row: &QueryResult) -> Result<Session, DbError> {
    let aal: i32 = row.try_get("", "aal")?;
    let retried: i32 = row.try_get("", "rt_retried")?;
    Ok(Session {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        device: row.try_get("", "device_id")?,
        method: row.try_get("", "method")?,
        amr: from_json(row, "amr")?,
        aal: u8::try_from(aal).unwrap_or(0),
        auth_time: row.try_get("", "auth_time")?,
        ip: row.try_get("", "ip")?,
        user_agent: row.try_get("", "user_agent")?,
        cookie: row.try_get("", "cookie")?,
        rt_kid: row.try_get("", "rt_kid")?,
        rt_counter: to_u32(row, "rt_counter")?,
        rt_rotated_at: row.try_get("", "rt_rotated_at")?,
        rt_retried: u8::try_from(retried).unwrap_or(0),
        idle_expires_at: row.try_get("", "idle_expires_at")?,
        abs_expires_at: row.try_get("", "abs_expires_at")?,
        created_at: row.try_get("", "created_at")?,
        last_active_at: row.try_get("", "last_active_at")?,
        revoked_at: row.try_get("", "revoked_at")?,
        revoke_reason: row.try_get("", "revoke_reason")?,
    })
}
