//! What was answered to a request that may be repeated (ID-32): which user it made.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use uuid::Uuid;

use super::{broken, insert as insert_row, one};

const TABLE: &str = "identity_replies";
const COLUMNS: [&str; 5] = ["scope", "key", "request_hash", "user_id", "expires_at"];

/// A remembered answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// What was asked for, with its tenant.
    pub scope: String,
    /// The client's `Idempotency-Key`.
    pub key: String,
    /// Hash of the request.
    pub request: [u8; 32],
    pub user: Option<Uuid>,
    pub expires_at: Timestamp,
}

/// Adds an answer; a second one of the same key is a unique violation.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &Reply) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            r.scope.clone().into(),
            r.key.clone().into(),
            r.request.to_vec().into(),
            r.user.into(),
            r.expires_at.into(),
        ],
    )
    .await
}

/// The answer of a key, unless it is too old.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    scope: &str,
    key: &str,
    now: Timestamp,
) -> Result<Option<Reply>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("scope").eq(scope))
        .and_where(Expr::col("key").eq(key))
        .and_where(Expr::col("expires_at").gt(now));
    one(conn, &select, read).await
}

/// Forgets the answer of a key that is too old, so that the key can be used again.
pub(crate) async fn forget_old(
    conn: &impl ConnectionTrait,
    scope: &str,
    key: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("scope").eq(scope))
        .and_where(Expr::col("key").eq(key))
        .and_where(Expr::col("expires_at").lte(now));
    conn.execute(&delete).await?;
    Ok(())
}

/// Removes answers that ended until a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("expires_at").lte(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn read(row: &QueryResult) -> Result<Reply, DbError> {
    let request: Vec<u8> = row.try_get("", "request_hash")?;
    Ok(Reply {
        scope: row.try_get("", "scope")?,
        key: row.try_get("", "key")?,
        request: request.as_slice().try_into().map_err(|_| broken("hash"))?,
        user: row.try_get("", "user_id")?,
        expires_at: row.try_get("", "expires_at")?,
    })
}
