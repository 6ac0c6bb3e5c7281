//! Rows: reading and writing them, nothing else. Whoever calls has checked rights and holds the transaction.

pub(crate) mod actions;
pub(crate) mod chain;
pub(crate) mod keys;
pub(crate) mod records;
pub(crate) mod search;

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult, StatementBuilder};
use portico_db::sea_query::{Expr, ExprTrait as _, IntoColumnRef, LikeExpr};

/// All rows of a query, each read by `read`.
pub(crate) async fn all<T>(
    conn: &impl ConnectionTrait,
    select: &impl StatementBuilder,
    read: impl Fn(&QueryResult) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let rows = conn.query_all(select).await?;
    rows.iter().map(read).collect()
}

/// The row of a query, if there is one.
pub(crate) async fn one<T>(
    conn: &impl ConnectionTrait,
    select: &impl StatementBuilder,
    read: impl Fn(&QueryResult) -> Result<T, DbError>,
) -> Result<Option<T>, DbError> {
    conn.query_one(select).await?.as_ref().map(read).transpose()
}

/// Sequence numbers are stored as signed 64-bit numbers.
pub(crate) fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Stored numbers are never negative, unless somebody changed them by hand.
pub(crate) fn unsigned(row: &QueryResult, column: &str) -> Result<u64, DbError> {
    let value: i64 = row.try_get("", column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

/// A text as a part of a pattern of `LIKE` with the escape character of [`like`].
pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_")
}

/// `column LIKE pattern`.
pub(crate) fn like(column: impl IntoColumnRef, pattern: &str) -> Expr {
    Expr::col(column).like(LikeExpr::new(pattern).escape('\\'))
}
