//! Envelopes of values and of their history, by the id of their master key (CT-21).

use std::collections::BTreeMap;

use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait;
use portico_db::sea_query::{Condition, Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all, to_i64, to_u64};
use crate::domain::secret::Sealed;

/// The two tables with envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Values,
    History,
}

impl Table {
    const fn name(self) -> &'static str {
        match self {
            Self::Values => "settings",
            Self::History => "setting_history",
        }
    }
}

/// A row with an envelope.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub scope: Uuid,
    pub key: String,
    pub version: u64,
    pub sealed: String,
}

/// Where a walk through a table is.
pub(crate) type At = (Uuid, String, u64);

/// Number of envelopes by key id.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    table: Table,
) -> Result<BTreeMap<String, u64>, DbError> {
    let mut select = Query::select();
    select
        .column("kid")
        .expr_as(Expr::col("kid").count(), "n")
        .from(table.name())
        .and_where(Expr::col("kid").is_not_null())
        .group_by_col("kid");
    let rows = all(conn, &select, |row| {
        Ok((row.try_get("", "kid")?, to_u64(row, "n")?))
    });
    Ok(rows.await?.into_iter().collect())
}

/// Rows behind a place that are not sealed with `current`.
pub(crate) async fn others(
    conn: &impl ConnectionTrait,
    table: Table,
    current: &str,
    after: Option<&At>,
    limit: u64,
) -> Result<Vec<Row>, DbError> {
    let mut select = Query::select();
    select
        .columns(["scope", "key", "version", "sealed"])
        .from(table.name())
        .and_where(Expr::col("kid").is_not_null())
        .and_where(Expr::col("kid").ne(current))
        .order_by("scope", Order::Asc)
        .order_by("key", Order::Asc)
        .order_by("version", Order::Asc)
        .limit(limit);
    if let Some((scope, key, version)) = after {
        let same_scope = Condition::all().add(Expr::col("scope").eq(*scope));
        let same_key = same_scope.clone().add(Expr::col("key").eq(key.as_str()));
        select.cond_where(
            Condition::any()
                .add(Expr::col("scope").gt(*scope))
                .add(same_scope.add(Expr::col("key").gt(key.as_str())))
                .add(same_key.add(Expr::col("version").gt(to_i64(*version)))),
        );
    }
    all(conn, &select, |row| {
        Ok(Row {
            scope: row.try_get("", "scope")?,
            key: row.try_get("", "key")?,
            version: to_u64(row, "version")?,
            sealed: row.try_get("", "sealed")?,
        })
    })
    .await
}

/// Puts a new envelope in, unless the row holds another one by now.
pub(crate) async fn replace(
    conn: &impl ConnectionTrait,
    table: Table,
    row: &Row,
    new: &Sealed,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(table.name())
        .value("sealed", new.text.as_str())
        .value("kid", new.kid.as_str())
        .and_where(Expr::col("scope").eq(row.scope))
        .and_where(Expr::col("key").eq(row.key.as_str()))
        .and_where(Expr::col("sealed").eq(row.sealed.as_str()));
    if table == Table::History {
        update.and_where(Expr::col("version").eq(to_i64(row.version)));
    }
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}
