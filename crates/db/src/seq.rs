//! Counters that are advanced inside a transaction and keep their row locked until it ends.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use sea_orm::{ConnectionTrait, QueryResult};

use crate::error::DbError;

const TABLE: &str = "seq_counters";

/// Advances a counter by `n` and gives the new value.
pub(crate) async fn advance(
    conn: &impl ConnectionTrait,
    counter: &str,
    n: u32,
) -> Result<u64, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(["name", "value"])
        .values_panic([counter.into(), i64::from(n).into()])
        .on_conflict(
            OnConflict::column("name")
                .value("value", Expr::col((TABLE, "value")).add(i64::from(n)))
                .to_owned(),
        )
        .returning_col("value");
    let row = conn.query_one(&insert).await?;
    value_of(row)
}

/// The present value of a counter, 0 when it was never used.
pub(crate) async fn current(conn: &impl ConnectionTrait, counter: &str) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .column("value")
        .from(TABLE)
        .and_where(Expr::col("name").eq(counter));
    match conn.query_one(&select).await? {
        None => Ok(0),
        row => value_of(row),
    }
}

/// Raises a counter to at least `value`.
pub(crate) async fn raise(
    conn: &impl ConnectionTrait,
    counter: &str,
    value: u64,
) -> Result<(), DbError> {
    let value = to_i64(value);
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(["name", "value"])
        .values_panic([counter.into(), value.into()])
        .on_conflict(
            OnConflict::column("name")
                .update_column("value")
                .action_and_where(Expr::col((TABLE, "value")).lt(value))
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Sequence numbers are stored as signed 64-bit numbers.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Stored numbers are never negative.
pub(crate) fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn value_of(row: Option<QueryResult>) -> Result<u64, DbError> {
    let row = row.ok_or_else(|| DbError::Other("the counter gave no value".to_owned()))?;
    let value: i64 = row.try_get("", "value")?;
    Ok(to_u64(value))
}
