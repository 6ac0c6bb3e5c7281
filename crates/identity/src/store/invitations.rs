//! Invitations.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Cond, Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, one, to_json};
use crate::domain::invitation::Invitation;

const TABLE: &str = "invitations";

const COLUMNS: [&str; 13] = [
    "id",
    "tenant_id",
    "hash",
    "email",
    "mailed",
    "roles",
    "locale",
    "created_by",
    "created_at",
    "expires_at",
    "used_at",
    "used_by",
    "revoked_at",
];

/// Adds an invitation.
pub(crate) async fn insert(conn: &impl ConnectionTrait, i: &Invitation) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            i.id.into(),
            i.tenant.into(),
            i.hash.to_vec().into(),
            i.email.clone().into(),
            i.mailed.into(),
            to_json(&i.roles)?.into(),
            i.locale.clone().into(),
            i.created_by.clone().into(),
            i.created_at.into(),
            i.expires_at.into(),
            i.used_at.into(),
            i.used_by.into(),
            i.revoked_at.into(),
        ],
    )
    .await
}

/// The invitation of a token.
pub(crate) async fn by_hash(
    conn: &impl ConnectionTrait,
    hash: [u8; 32],
) -> Result<Option<Invitation>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("hash").eq(hash.to_vec()));
    one(conn, &select, read).await
}

/// An invitation of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<Invitation>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// The tenant of an invitation, for those who administer all tenants.
pub(crate) async fn tenant_of(
    conn: &impl ConnectionTrait,
    id: Uuid,
) -> Result<Option<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("tenant_id")
        .from(TABLE)
        .and_where(Expr::col("id").eq(id));
    one(conn, &select, |row| Ok(row.try_get("", "tenant_id")?)).await
}

/// Invitations of a tenant behind `after`, newest first.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: u64,
) -> Result<Vec<Invitation>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("created_at", Order::Desc)
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some((at, id)) = after {
        select
            .and_where(Expr::col("created_at").lte(at))
            .cond_where(
                Cond::any()
                    .add(Expr::col("created_at").lt(at))
                    .add(Expr::col("id").lt(id)),
            );
    }
    all(conn, &select, read).await
}

/// How many invitations of a tenant can be used.
pub(crate) async fn count_open(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    now: Timestamp,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("used_at").is_null())
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("expires_at").gt(now));
    let count = one(conn, &select, |row| Ok(row.try_get::<i64>("", "n")?)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Uses an invitation up for a user; false when somebody was first, or it is over.
pub(crate) async fn take(
    conn: &impl ConnectionTrait,
    id: Uuid,
    user: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("used_at", now)
        .value("used_by", user)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("used_at").is_null())
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("expires_at").gt(now));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Takes an invitation back; false when it was used or taken back before.
pub(crate) async fn revoke(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("revoked_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("used_at").is_null())
        .and_where(Expr::col("revoked_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

fn select() -> SelectStatement {
    Query::select().columns(COLUMNS).from(TABLE).take()
}

fn read(row: &QueryResult) -> Result<Invitation, DbError> {
    let hash: Vec<u8> = row.try_get("", "hash")?;
    Ok(Invitation {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        hash: hash.as_slice().try_into().map_err(|_| broken("hash"))?,
        email: row.try_get("", "email")?,
        mailed: row.try_get("", "mailed")?,
        roles: from_json(row, "roles")?,
        locale: row.try_get("", "locale")?,
        created_by: row.try_get("", "created_by")?,
        created_at: row.try_get("", "created_at")?,
        expires_at: row.try_get("", "expires_at")?,
        used_at: row.try_get("", "used_at")?,
        used_by: row.try_get("", "used_by")?,
        revoked_at: row.try_get("", "revoked_at")?,
    })
}
