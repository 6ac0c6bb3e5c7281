//! One-time tokens: login tickets, links in mails, nonces, states; kept as a hash.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{insert as insert_row, one};

const TABLE: &str = "one_time_tokens";
const COLUMNS: [&str; 8] = [
    "hash",
    "kind",
    "tenant_id",
    "user_id",
    "payload",
    "created_at",
    "expires_at",
    "used_at",
];

/// A token as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OneTime {
    pub hash: [u8; 32],
    pub kind: String,
    pub tenant: Option<Uuid>,
    pub user: Option<Uuid>,
    pub payload: Value,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
}

/// Adds a token.
pub(crate) async fn insert(conn: &impl ConnectionTrait, t: &OneTime) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            t.hash.to_vec().into(),
            t.kind.clone().into(),
            t.tenant.into(),
            t.user.into(),
            t.payload.clone().into(),
            t.created_at.into(),
            t.expires_at.into(),
            t.used_at.into(),
        ],
    )
    .await
}

/// The token, used or not, expired or not.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    kind: &str,
    hash: [u8; 32],
) -> Result<Option<OneTime>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("hash").eq(hash.to_vec()))
        .and_where(Expr::col("kind").eq(kind));
    one(conn, &select, |row| {
        Ok(OneTime {
            hash,
            kind: row.try_get("", "kind")?,
            tenant: row.try_get("", "tenant_id")?,
            user: row.try_get("", "user_id")?,
            payload: row.try_get("", "payload")?,
            created_at: row.try_get("", "created_at")?,
            expires_at: row.try_get("", "expires_at")?,
            used_at: row.try_get("", "used_at")?,
        })
    })
    .await
}

/// Marks a token as used; false when somebody was faster or its time is over.
pub(crate) async fn take(
    conn: &impl ConnectionTrait,
    hash: [u8; 32],
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("used_at", now)
        .and_where(Expr::col("hash").eq(hash.to_vec()))
        .and_where(Expr::col("used_at").is_null())
        .and_where(Expr::col("expires_at").gt(now));
    Ok(conn.execute(&update).await?.rows_affected() == 1)
}

/// Makes all unused tokens of a kind and user unusable.
pub(crate) async fn cancel(
    conn: &impl ConnectionTrait,
    kind: &str,
    user: Uuid,
    now: Timestamp,
) -> Result<u64, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("used_at", now)
        .and_where(Expr::col("kind").eq(kind))
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("used_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected())
}

/// Removes what expired before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("expires_at").lt(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}
