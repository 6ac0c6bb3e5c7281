//! Every version of every value, kept for ever (CT-7).

use std::sync::Arc;

use portico_base::Timestamp;
use portico_base::envelope::MasterKeys;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use serde_json::Value;
use uuid::Uuid;

use super::values::Content;
use super::{all, from_json, to_i64, to_u64, unboxed};
use crate::domain::secret::{Row, open};
use crate::domain::state::Author;

const TABLE: &str = "setting_history";

const COLUMNS: [&str; 16] = [
    "id",
    "scope",
    "key",
    "version",
    "seq",
    "secret",
    "value",
    "sealed",
    "kid",
    "fingerprint",
    "change_set_id",
    "actor",
    "ip",
    "comment",
    "request_id",
    "at",
];

/// A version to write.
#[derive(Debug)]
pub(crate) struct NewVersion<'a> {
    pub id: Uuid,
    pub scope: Uuid,
    pub key: &'a str,
    pub version: u64,
    pub seq: u64,
    pub secret: bool,
    pub content: &'a Content,
    pub change_set: Uuid,
    pub actor: &'a Author,
    pub ip: Option<String>,
    pub comment: Option<&'a str>,
    pub request_id: &'a str,
    pub at: Timestamp,
    pub rolled_back_from: Option<u64>,
}

/// A version as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Version {
    pub scope: Uuid,
    pub key: String,
    pub version: u64,
    pub seq: u64,
    pub secret: bool,
    /// Nothing when the value was reset with this version, or is a secret that cannot be opened any more.
    pub value: Option<Arc<Value>>,
    pub sealed: bool,
    pub fingerprint: Option<String>,
    pub change_set: Uuid,
    pub actor: Author,
    pub ip: Option<String>,
    pub comment: Option<String>,
    pub request_id: String,
    pub at: Timestamp,
    pub rolled_back_from: Option<u64>,
}

impl Version {
    /// True when a value is set with this version.
    pub(crate) fn is_set(&self) -> bool {
        self.value.is_some() || self.sealed
    }
}

/// Adds a version.
pub(crate) async fn insert(conn: &impl ConnectionTrait, v: &NewVersion<'_>) -> Result<(), DbError> {
    let [value, sealed, kid, fingerprint] = v.content.columns();
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS.into_iter().chain(["rolled_back_from"]))
        .values_panic([
            v.id.into(),
            v.scope.into(),
            v.key.into(),
            to_i64(v.version).into(),
            to_i64(v.seq).into(),
            v.secret.into(),
            value,
            sealed,
            kid,
            fingerprint,
            v.change_set.into(),
            serde_json::to_value(v.actor)?.into(),
            v.ip.clone().into(),
            v.comment.map(str::to_owned).into(),
            v.request_id.into(),
            v.at.into(),
            v.rolled_back_from.map(to_i64).into(),
        ]);
    conn.execute(&insert).await?;
    Ok(())
}

/// One version of a key.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    keys: &MasterKeys,
    scope: Uuid,
    key: &str,
    version: u64,
) -> Result<Option<Version>, DbError> {
    let mut select = of_key(scope, key);
    select.and_where(Expr::col("version").eq(to_i64(version)));
    conn.query_one(&select)
        .await?
        .map(|row| read(&row, keys))
        .transpose()
}

/// Versions of a key below one, newest first.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    keys: &MasterKeys,
    (scope, key): (Uuid, &str),
    below: Option<u64>,
    limit: u64,
) -> Result<Vec<Version>, DbError> {
    let mut select = of_key(scope, key);
    if let Some(below) = below {
        select.and_where(Expr::col("version").lt(to_i64(below)));
    }
    select.order_by("version", Order::Desc).limit(limit);
    all(conn, &select, |row| read(row, keys)).await
}

/// The version of a key at a position: the last one that is not behind it.
pub(crate) async fn at_position(
    conn: &impl ConnectionTrait,
    keys: &MasterKeys,
    (scope, key): (Uuid, &str),
    seq: u64,
) -> Result<Option<Version>, DbError> {
    let mut select = of_key(scope, key);
    select
        .and_where(Expr::col("seq").lte(to_i64(seq)))
        .order_by("version", Order::Desc)
        .limit(1);
    conn.query_one(&select)
        .await?
        .map(|row| read(&row, keys))
        .transpose()
}

/// What one change set wrote.
pub(crate) async fn of_set(
    conn: &impl ConnectionTrait,
    keys: &MasterKeys,
    scope: Uuid,
    set: Uuid,
) -> Result<Vec<Version>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("scope").eq(scope))
        .and_where(Expr::col("change_set_id").eq(set))
        .order_by("key", Order::Asc);
    all(conn, &select, |row| read(row, keys)).await
}

/// Keys of a scope that changed behind a position, each once.
pub(crate) async fn changed_since(
    conn: &impl ConnectionTrait,
    scope: Uuid,
    seq: u64,
) -> Result<Vec<String>, DbError> {
    let mut select = Query::select();
    select
        .distinct()
        .column("key")
        .from(TABLE)
        .and_where(Expr::col("scope").eq(scope))
        .and_where(Expr::col("seq").gt(to_i64(seq)))
        .order_by("key", Order::Asc);
    all(conn, &select, |row| Ok(row.try_get("", "key")?)).await
}

fn of_key(scope: Uuid, key: &str) -> SelectStatement {
    let mut select = select();
    select
        .and_where(Expr::col("scope").eq(scope))
        .and_where(Expr::col("key").eq(key));
    select
}

fn select() -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .column("rolled_back_from")
        .from(TABLE);
    select
}

fn read(row: &QueryResult, keys: &MasterKeys) -> Result<Version, DbError> {
    let scope: Uuid = row.try_get("", "scope")?;
    let key: String = row.try_get("", "key")?;
    let version = to_u64(row, "version")?;
    let sealed: Option<String> = row.try_get("", "sealed")?;
    let value = match &sealed {
        None => unboxed(row, "value")?,
        Some(text) => open(keys, Row::History(scope, &key, version), text).ok(),
    };
    let actor: Author = from_json(row, "actor")?;
    let from: Option<i64> = row.try_get("", "rolled_back_from")?;
    Ok(Version {
        scope,
        key,
        version,
        seq: to_u64(row, "seq")?,
        secret: row.try_get("", "secret")?,
        value: value.map(Arc::new),
        sealed: sealed.is_some(),
        fingerprint: row.try_get("", "fingerprint")?,
        change_set: row.try_get("", "change_set_id")?,
        actor,
        ip: row.try_get("", "ip")?,
        comment: row.try_get("", "comment")?,
        request_id: row.try_get("", "request_id")?,
        at: row.try_get("", "at")?,
        rolled_back_from: from.and_then(|v| u64::try_from(v).ok()),
    })
}
