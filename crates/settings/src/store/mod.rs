//! Rows: reading and writing them, nothing else. Whoever calls has checked rights and holds the transaction.

pub(crate) mod applied;
pub(crate) mod history;
pub(crate) mod sealed;
pub(crate) mod sets;
pub(crate) mod values;

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult, StatementBuilder};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// All rows of a query, each read by `read`.
async fn all<T>(
    conn: &impl ConnectionTrait,
    select: &impl StatementBuilder,
    read: impl Fn(&QueryResult) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let rows = conn.query_all(select).await?;
    rows.iter().map(read).collect()
}

/// Positions and versions are stored as signed 64-bit numbers.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn to_u64(row: &QueryResult, column: &str) -> Result<u64, DbError> {
    let value: i64 = row.try_get("", column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

fn from_json<T: DeserializeOwned>(row: &QueryResult, column: &str) -> Result<T, DbError> {
    let value: Value = row.try_get("", column)?;
    Ok(serde_json::from_value(value)?)
}

/// JSON that may be null in JSON's own sense, apart from a column without a value: it is kept in a list.
fn boxed(value: Option<&Value>) -> Option<Value> {
    value.map(|value| Value::Array(vec![value.clone()]))
}

fn unboxed(row: &QueryResult, column: &str) -> Result<Option<Value>, DbError> {
    let value: Option<Value> = row.try_get("", column)?;
    match value {
        None => Ok(None),
        Some(Value::Array(mut list)) if list.len() == 1 => Ok(list.pop()),
        Some(_) => Err(DbError::Codec("a row holds a broken value".to_owned())),
    }
}
