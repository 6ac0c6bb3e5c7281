//! Rows: reading and writing them, nothing else. Whoever calls has checked rights and holds the transaction.

pub(crate) mod checks;
pub(crate) mod events;
pub(crate) mod instances;
pub(crate) mod kv;
pub(crate) mod names;
pub(crate) mod services;
pub(crate) mod sessions;

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query, SelectStatement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

/// Rows of one bulk statement; with 36 columns this stays far below both databases' limits.
pub(crate) const CHUNK: usize = 400;

/// All rows of a query, each read by `read`.
async fn all<T>(
    conn: &impl ConnectionTrait,
    select: &SelectStatement,
    read: impl Fn(&QueryResult) -> Result<T, DbError>,
) -> Result<Vec<T>, DbError> {
    let rows = conn.query_all(select).await?;
    rows.iter().map(read).collect()
}

/// Inserts a row, or replaces everything but the key columns and those of the creation.
async fn upsert<const N: usize>(
    conn: &impl ConnectionTrait,
    table: &'static str,
    key: &[&'static str],
    columns: [&'static str; N],
    values: [Expr; N],
) -> Result<(), DbError> {
    const KEPT: [&str; 2] = ["created_at", "create_index"];
    let replaced = columns
        .into_iter()
        .filter(|c| !key.contains(c) && !KEPT.contains(c));
    let mut insert = Query::insert();
    insert
        .into_table(table)
        .columns(columns)
        .values_panic(values)
        .on_conflict(
            OnConflict::columns(key.iter().copied())
                .update_columns(replaced)
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Deletes the rows of a table by one column.
async fn delete_by(
    conn: &impl ConnectionTrait,
    table: &'static str,
    column: &'static str,
    value: impl Into<Expr>,
) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(table)
        .and_where(Expr::col(column).eq(value.into()));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// The tenant as a column without NULLs.
pub(crate) fn scope(tenant: Option<Uuid>) -> Uuid {
    tenant.unwrap_or(Uuid::nil())
}

/// The tenant behind a scope.
pub(crate) fn tenant(scope: Uuid) -> Option<Uuid> {
    (!scope.is_nil()).then_some(scope)
}

fn to_json<T: Serialize>(value: &T) -> Result<Value, DbError> {
    Ok(serde_json::to_value(value)?)
}

fn opt_json<T: Serialize>(value: Option<&T>) -> Result<Option<Value>, DbError> {
    value.map(to_json).transpose()
}

fn from_json<T: DeserializeOwned>(row: &QueryResult, column: &str) -> Result<T, DbError> {
    let value: Value = row.try_get("", column)?;
    Ok(serde_json::from_value(value)?)
}

fn from_opt_json<T: DeserializeOwned>(
    row: &QueryResult,
    column: &str,
) -> Result<Option<T>, DbError> {
    let value: Option<Value> = row.try_get("", column)?;
    Ok(value.map(serde_json::from_value).transpose()?)
}

/// Numbers of the index and the sequence are stored as signed 64-bit numbers.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn to_u64(row: &QueryResult, column: &str) -> Result<u64, DbError> {
    let value: i64 = row.try_get("", column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

fn broken(what: &str) -> DbError {
    DbError::Codec(format!("a row holds an unknown {what}"))
}
