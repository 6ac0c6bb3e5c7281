//! What each replica has taken over (CT-12).

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{all, from_json, to_i64, to_u64};

const TABLE: &str = "setting_applied";
const COLUMNS: [&str; 4] = ["replica", "seq", "rejected", "at"];

/// A value that a replica does not take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = SettingRejected)]
pub(crate) struct Rejected {
    pub key: String,
    /// The scope: a tenant's id, that of tenant `system` for the installation.
    pub scope: Uuid,
    pub version: u64,
    pub reason: String,
}

/// Where a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub replica: String,
    pub seq: u64,
    pub rejected: Vec<Rejected>,
    pub at: Timestamp,
}

/// Says where a replica is.
pub(crate) async fn put(conn: &impl ConnectionTrait, applied: &Applied) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS)
        .values_panic([
            applied.replica.clone().into(),
            to_i64(applied.seq).into(),
            serde_json::to_value(&applied.rejected)?.into(),
            applied.at.into(),
        ])
        .on_conflict(
            OnConflict::column("replica")
                .update_columns(["seq", "rejected", "at"])
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// All replicas that said something.
pub(crate) async fn list(conn: &impl ConnectionTrait) -> Result<Vec<Applied>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("replica", Order::Asc);
    all(conn, &select, read).await
}

/// Forgets replicas that said nothing since a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<(), DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("at").lt(before));
    conn.execute(&delete).await?;
    Ok(())
}

fn read(row: &QueryResult) -> Result<Applied, DbError> {
    Ok(Applied {
        replica: row.try_get("", "replica")?,
        seq: to_u64(row, "seq")?,
        rejected: from_json(row, "rejected")?,
        at: row.try_get("", "at")?,
    })
}
