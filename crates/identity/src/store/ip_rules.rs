//! Address rules: a small table, read whole into memory.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all as rows, broken, delete_by, insert as insert_row, one};
use crate::domain::ip_rule::{IpRule, RuleKind};

const TABLE: &str = "ip_rules";
const COLUMNS: [&str; 7] = [
    "id",
    "cidr",
    "kind",
    "reason",
    "source",
    "created_at",
    "expires_at",
];

/// Adds a rule.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &IpRule) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            r.id.into(),
            r.net.to_string().into(),
            r.kind.as_str().into(),
            r.reason.clone().into(),
            r.source.clone().into(),
            r.created_at.into(),
            r.expires_at.into(),
        ],
    )
    .await
}

/// Rules that hold, newest first.
pub(crate) async fn live(
    conn: &impl ConnectionTrait,
    now: Timestamp,
) -> Result<Vec<IpRule>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(
            Expr::col("expires_at")
                .is_null()
                .or(Expr::col("expires_at").gt(now)),
        )
        .order_by("created_at", Order::Desc)
        .order_by("id", Order::Desc);
    rows(conn, &select, read).await
}

/// A rule, in force or not.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<IpRule>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id));
    one(conn, &select, read).await
}

/// Removes a rule; false when it was gone.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbError> {
    Ok(delete_by(conn, TABLE, "id", id).await? > 0)
}

/// Removes rules that ended until a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("expires_at").lte(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Addresses of live sessions with how many there are on each; at most 100,000 addresses.
pub(crate) async fn addresses_of_sessions(
    conn: &impl ConnectionTrait,
) -> Result<Vec<(String, u64)>, DbError> {
    let mut select = Query::select();
    select
        .column("ip")
        .expr_as(Expr::col("id").count(), "sessions")
        .from("sessions")
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("ip").is_not_null())
        .group_by_col("ip")
        .limit(100_000);
    rows(conn, &select, |row| {
        let sessions: i64 = row.try_get("", "sessions")?;
        Ok((row.try_get("", "ip")?, u64::try_from(sessions).unwrap_or(0)))
    })
    .await
}

fn read(row: &QueryResult) -> Result<IpRule, DbError> {
    let cidr: String = row.try_get("", "cidr")?;
    let kind: String = row.try_get("", "kind")?;
    Ok(IpRule {
        id: row.try_get("", "id")?,
        net: cidr.parse().map_err(|_| broken("network"))?,
        kind: RuleKind::parse(&kind).ok_or_else(|| broken("kind"))?,
        reason: row.try_get("", "reason")?,
        source: row.try_get("", "source")?,
        created_at: row.try_get("", "created_at")?,
        expires_at: row.try_get("", "expires_at")?,
    })
}
