//! Rows: reading and writing them, nothing else. Whoever calls has checked rights and holds the transaction.

pub(crate) mod api_keys;
pub(crate) mod batches;
pub(crate) mod devices;
pub(crate) mod erasures;
pub(crate) mod exports;
pub(crate) mod factors;
pub(crate) mod identities;
pub(crate) mod invitations;
pub(crate) mod ip_rules;
pub(crate) mod keys;
pub(crate) mod locks;
pub(crate) mod logins;
pub(crate) mod one_time;
pub(crate) mod otp;
pub(crate) mod personal;
pub(crate) mod replies;
pub(crate) mod revocations;
pub(crate) mod roles;
pub(crate) mod secrets;
pub(crate) mod sessions;
pub(crate) mod sms;
pub(crate) mod sms_records;
pub(crate) mod tenants;
pub(crate) mod user_list;
pub(crate) mod users;

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult, StatementBuilder};
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

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

/// Inserts a row.
pub(crate) async fn insert<const N: usize>(
    conn: &impl ConnectionTrait,
    table: &'static str,
    columns: [&'static str; N],
    values: [Expr; N],
) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(table)
        .columns(columns)
        .values_panic(values);
    conn.execute(&insert).await?;
    Ok(())
}

/// Writes columns of the row with a key; true when there is one.
pub(crate) async fn update<const N: usize>(
    conn: &impl ConnectionTrait,
    table: &'static str,
    key: (&'static str, Expr),
    values: [(&'static str, Expr); N],
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update.table(table).and_where(Expr::col(key.0).eq(key.1));
    for (column, value) in values {
        update.value(column, value);
    }
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Deletes the rows of a table by one column.
pub(crate) async fn delete_by(
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

pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Value, DbError> {
    Ok(serde_json::to_value(value)?)
}

pub(crate) fn from_json<T: DeserializeOwned>(
    row: &QueryResult,
    column: &str,
) -> Result<T, DbError> {
    let value: Value = row.try_get("", column)?;
    Ok(serde_json::from_value(value)?)
}

/// Versions and counters are stored as signed 64-bit numbers.
pub(crate) fn to_u32(row: &QueryResult, column: &str) -> Result<u32, DbError> {
    let value: i64 = row.try_get("", column)?;
    u32::try_from(value).map_err(|_| broken(column))
}

pub(crate) fn broken(what: &str) -> DbError {
    DbError::Codec(format!("a row holds an unknown {what}"))
}
