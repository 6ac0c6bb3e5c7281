//! Change sets: settings that were changed together.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, from_json, to_i64, to_u64};
use crate::domain::state::Author;

const TABLE: &str = "setting_change_sets";
const COLUMNS: [&str; 7] = ["id", "seq", "scope", "comment", "actor", "at", "reverts"];

/// A change set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChangeSet {
    pub id: Uuid,
    pub seq: u64,
    pub scope: Uuid,
    pub comment: Option<String>,
    pub actor: Author,
    pub at: Timestamp,
    /// The set that this one took back.
    pub reverts: Option<Uuid>,
}

/// Adds a set.
pub(crate) async fn insert(conn: &impl ConnectionTrait, set: &ChangeSet) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert.into_table(TABLE).columns(COLUMNS).values_panic([
        set.id.into(),
        to_i64(set.seq).into(),
        set.scope.into(),
        set.comment.clone().into(),
        serde_json::to_value(&set.actor)?.into(),
        set.at.into(),
        set.reverts.into(),
    ]);
    conn.execute(&insert).await?;
    Ok(())
}

/// One set of a scope.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    scope: Uuid,
    id: Uuid,
) -> Result<Option<ChangeSet>, DbError> {
    let mut select = of_scope(scope);
    select.and_where(Expr::col("id").eq(id));
    conn.query_one(&select)
        .await?
        .as_ref()
        .map(read)
        .transpose()
}

/// Sets of a scope below a position, newest first.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    scope: Uuid,
    below: Option<u64>,
    limit: u64,
) -> Result<Vec<ChangeSet>, DbError> {
    let mut select = of_scope(scope);
    if let Some(below) = below {
        select.and_where(Expr::col("seq").lt(to_i64(below)));
    }
    select.order_by("seq", Order::Desc).limit(limit);
    all(conn, &select, read).await
}

/// Position and moment of the last set of all.
pub(crate) async fn newest(
    conn: &impl ConnectionTrait,
) -> Result<Option<(u64, Timestamp)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["seq", "at"])
        .from(TABLE)
        .order_by("seq", Order::Desc)
        .limit(1);
    conn.query_one(&select)
        .await?
        .map(|row| Ok((to_u64(&row, "seq")?, row.try_get("", "at")?)))
        .transpose()
}

/// Position of the last set of any scope that is not newer than a moment; 0 when there is none.
pub(crate) async fn position_at(
    conn: &impl ConnectionTrait,
    at: Timestamp,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .column("seq")
        .from(TABLE)
        .and_where(Expr::col("at").lte(at))
        .order_by("seq", Order::Desc)
        .limit(1);
    conn.query_one(&select)
        .await?
        .map_or(Ok(0), |row| to_u64(&row, "seq"))
}

fn of_scope(scope: Uuid) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("scope").eq(scope));
    select
}

fn read(row: &QueryResult) -> Result<ChangeSet, DbError> {
    Ok(ChangeSet {
        id: row.try_get("", "id")?,
        seq: to_u64(row, "seq")?,
        scope: row.try_get("", "scope")?,
        comment: row.try_get("", "comment")?,
        actor: from_json(row, "actor")?,
        at: row.try_get("", "at")?,
        reverts: row.try_get("", "reverts")?,
    })
}
