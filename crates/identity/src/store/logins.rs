//! What happened at logins of a user: shown to the user, exported with their data.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{all, insert as insert_row};

const TABLE: &str = "login_events";
const COLUMNS: [&str; 11] = [
    "id",
    "tenant_id",
    "user_id",
    "kind",
    "method",
    "ip",
    "user_agent",
    "device_id",
    "session_id",
    "detail",
    "at",
];

/// Something that happened at a login or a refresh.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LoginEvent {
    pub id: Uuid,
    pub tenant: Uuid,
    pub user: Uuid,
    /// `login`, `refresh_retried`, `refresh_reused`, `fingerprint`, …
    pub kind: String,
    pub method: String,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    pub device: Option<Uuid>,
    pub session: Option<Uuid>,
    pub detail: Value,
    pub at: Timestamp,
}

/// Adds an event.
pub(crate) async fn insert(conn: &impl ConnectionTrait, e: &LoginEvent) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            e.id.into(),
            e.tenant.into(),
            e.user.into(),
            e.kind.clone().into(),
            e.method.clone().into(),
            e.ip.clone().into(),
            e.user_agent.clone().into(),
            e.device.into(),
            e.session.into(),
            e.detail.clone().into(),
            e.at.into(),
        ],
    )
    .await
}

/// Events of a user, newest first, behind `after`.
pub(crate) async fn of_user(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: u64,
) -> Result<Vec<LoginEvent>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some((at, id)) = after {
        let key = Expr::tuple([Expr::col("at"), Expr::col("id")]);
        select.and_where(key.lt(Expr::tuple([Expr::value(at), Expr::value(id)])));
    }
    all(conn, &select, read).await
}

/// Removes events from before a moment, at most `limit`.
pub(crate) async fn trim(
    conn: &impl ConnectionTrait,
    before: Timestamp,
    limit: u64,
) -> Result<u64, DbError> {
    let mut over = Query::select();
    over.column("id")
        .from(TABLE)
        .and_where(Expr::col("at").lt(before))
        .limit(limit);
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").in_subquery(over));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn read(row: &QueryResult) -> Result<LoginEvent, DbError> {
    Ok(LoginEvent {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        kind: row.try_get("", "kind")?,
        method: row.try_get("", "method")?,
        ip: row.try_get("", "ip")?,
        user_agent: row.try_get("", "user_agent")?,
        device: row.try_get("", "device_id")?,
        session: row.try_get("", "session_id")?,
        detail: row.try_get("", "detail")?,
        at: row.try_get("", "at")?,
    })
}
