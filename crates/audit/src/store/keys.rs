//! The audit's keys and its one row of state.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{all, one};
use crate::domain::checkpoint::StoredKey;

const TABLE: &str = "audit_keys";
const STATE: &str = "audit_state";
const ID: i32 = 1;
const COLUMNS: [&str; 5] = ["key_id", "public_key", "sealed", "master_key", "created_at"];

/// The one row of state.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub installation: Uuid,
    pub key_id: String,
    /// The last verification's report.
    pub verified: Option<Value>,
    pub verified_at: Option<Timestamp>,
    pub verified_ok_at: Option<Timestamp>,
}

/// The state, once there is one.
pub(crate) async fn state(conn: &impl ConnectionTrait) -> Result<Option<State>, DbError> {
    let mut select = Query::select();
    select
        .columns([
            "installation_id",
            "key_id",
            "verified",
            "verified_at",
            "verified_ok_at",
        ])
        .from(STATE)
        .and_where(Expr::col("id").eq(ID));
    one(conn, &select, |row| {
        Ok(State {
            installation: row.try_get("", "installation_id")?,
            key_id: row.try_get("", "key_id")?,
            verified: row.try_get("", "verified")?,
            verified_at: row.try_get("", "verified_at")?,
            verified_ok_at: row.try_get("", "verified_ok_at")?,
        })
    })
    .await
}

/// Makes the state with its first key, unless another process was quicker.
pub(crate) async fn begin(
    conn: &impl ConnectionTrait,
    installation: Uuid,
    key: &StoredKey,
) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(STATE)
        .columns(["id", "installation_id", "key_id"])
        .values_panic([ID.into(), installation.into(), key.key_id.as_str().into()])
        .on_conflict(OnConflict::column("id").do_nothing().to_owned());
    if conn.execute(&insert).await?.rows_affected() == 0 {
        return Ok(());
    }
    let mut insert = Query::insert();
    insert.into_table(TABLE).columns(COLUMNS).values_panic([
        key.key_id.as_str().into(),
        key.public_key.clone().into(),
        key.sealed.as_str().into(),
        key.master_key.as_str().into(),
        key.created_at.into(),
    ]);
    conn.execute(&insert).await?;
    Ok(())
}

/// All keys, oldest first: old ones still verify.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<StoredKey>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("created_at", Order::Asc);
    all(conn, &select, read).await
}

/// Keeps a key's envelope under another master key.
pub(crate) async fn reseal(
    conn: &impl ConnectionTrait,
    key_id: &str,
    sealed: &str,
    master_key: &str,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("sealed", sealed)
        .value("master_key", master_key)
        .and_where(Expr::col("key_id").eq(key_id));
    conn.execute(&update).await?;
    Ok(())
}

/// Notes what a verification found.
pub(crate) async fn note_verification(
    conn: &impl ConnectionTrait,
    report: &Value,
    ok: bool,
    at: Timestamp,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(STATE)
        .value("verified", report.clone())
        .value("verified_at", at)
        .and_where(Expr::col("id").eq(ID));
    if ok {
        update.value("verified_ok_at", at);
    }
    conn.execute(&update).await?;
    Ok(())
}

fn read(row: &QueryResult) -> Result<StoredKey, DbError> {
    Ok(StoredKey {
        key_id: row.try_get("", "key_id")?,
        public_key: row.try_get("", "public_key")?,
        sealed: row.try_get("", "sealed")?,
        master_key: row.try_get("", "master_key")?,
        created_at: row.try_get("", "created_at")?,
    })
}
