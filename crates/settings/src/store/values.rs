//! Values in force, one row a scope and key.

use std::sync::Arc;

use portico_base::Timestamp;
use portico_base::envelope::MasterKeys;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{all, boxed, from_json, to_i64, to_u64, unboxed};
use crate::domain::secret::{Row, Sealed, open};
use crate::domain::state::{Author, Stored};

const TABLE: &str = "settings";
/// Its row stays locked until the transaction ends, so that changes are alone and their numbers in the
/// order of commits.
pub(crate) const COUNTER: &str = "settings";
/// Wakes followers.
pub(crate) const TOPIC: &str = "settings.changed";

const COLUMNS: [&str; 11] = [
    "scope",
    "key",
    "value",
    "sealed",
    "kid",
    "fingerprint",
    "version",
    "seq",
    "created_seq",
    "updated_by",
    "updated_at",
];

/// What a row's value is.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// It was reset.
    Nothing,
    Plain(Arc<Value>),
    Secret {
        sealed: Sealed,
        fingerprint: String,
    },
}

impl Content {
    pub(super) fn columns(&self) -> [Expr; 4] {
        match self {
            Self::Nothing => [
                None::<Value>.into(),
                None::<String>.into(),
                None::<String>.into(),
                None::<String>.into(),
            ],
            Self::Plain(value) => [
                boxed(Some(value)).into(),
                None::<String>.into(),
                None::<String>.into(),
                None::<String>.into(),
            ],
            Self::Secret {
                sealed,
                fingerprint,
            } => [
                None::<Value>.into(),
                Some(sealed.text.clone()).into(),
                Some(sealed.kid.clone()).into(),
                Some(fingerprint.clone()).into(),
            ],
        }
    }
}

/// A row to write.
#[derive(Debug)]
pub(crate) struct NewValue<'a> {
    pub scope: Uuid,
    pub key: &'a str,
    pub content: &'a Content,
    pub version: u64,
    pub seq: u64,
    pub created_seq: u64,
    pub by: &'a Author,
    pub at: Timestamp,
}

/// Writes a value.
pub(crate) async fn put(conn: &impl ConnectionTrait, new: &NewValue<'_>) -> Result<(), DbError> {
    let [value, sealed, kid, fingerprint] = new.content.columns();
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS)
        .values_panic([
            new.scope.into(),
            new.key.into(),
            value,
            sealed,
            kid,
            fingerprint,
            to_i64(new.version).into(),
            to_i64(new.seq).into(),
            to_i64(new.created_seq).into(),
            serde_json::to_value(new.by)?.into(),
            new.at.into(),
        ])
        .on_conflict(
            OnConflict::columns(["scope", "key"])
                .update_columns(COLUMNS[2..].iter().copied())
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Rows that changed behind a position, oldest first. A secret that cannot be opened has no value.
pub(crate) async fn after(
    conn: &impl ConnectionTrait,
    keys: &MasterKeys,
    seq: u64,
) -> Result<Vec<Stored>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("seq").gt(to_i64(seq)))
        .order_by("seq", Order::Asc);
    all(conn, &select, |row| read(row, keys)).await
}

fn read(row: &QueryResult, keys: &MasterKeys) -> Result<Stored, DbError> {
    let scope: Uuid = row.try_get("", "scope")?;
    let key: String = row.try_get("", "key")?;
    let sealed: Option<String> = row.try_get("", "sealed")?;
    let value = match &sealed {
        None => unboxed(row, "value")?,
        Some(text) => open(keys, Row::Value(scope, &key), text).ok(),
    };
    let by: Author = from_json(row, "updated_by")?;
    Ok(Stored {
        scope,
        key: Arc::from(key),
        value: value.map(Arc::new),
        sealed: sealed.is_some(),
        fingerprint: row.try_get("", "fingerprint")?,
        version: to_u64(row, "version")?,
        seq: to_u64(row, "seq")?,
        created_seq: to_u64(row, "created_seq")?,
        by,
        at: row.try_get("", "updated_at")?,
    })
}
