//! API keys: found by the part of their text that is no secret.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, from_json, insert as insert_row, one, to_json};
use crate::domain::api_key::{ApiKey, Wish};

const TABLE: &str = "api_keys";
const COLUMNS: [&str; 20] = [
    "id",
    "tenant_id",
    "key_id",
    "owner_user_id",
    "name",
    "secret_hash",
    "secret_hash_2",
    "secret_2_until",
    "scopes",
    "services",
    "cidrs",
    "rate_limit",
    "expires_at",
    "noticed_at",
    "last_used_at",
    "last_used_ip",
    "created_by",
    "created_at",
    "updated_at",
    "revoked_at",
];
/// What is written by others than [`put`].
const FIXED: [&str; 7] = [
    "id",
    "tenant_id",
    "key_id",
    "owner_user_id",
    "last_used_at",
    "last_used_ip",
    "created_at",
];

/// Adds a key.
pub(crate) async fn insert(conn: &impl ConnectionTrait, k: &ApiKey) -> Result<(), DbError> {
    insert_row(conn, TABLE, COLUMNS, values(k)?).await
}

/// Writes a key whole, but when it was used.
pub(crate) async fn put(conn: &impl ConnectionTrait, k: &ApiKey) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .and_where(Expr::col("id").eq(k.id))
        .and_where(Expr::col("tenant_id").eq(k.tenant));
    for (column, value) in COLUMNS.into_iter().zip(values(k)?) {
        if !FIXED.contains(&column) {
            update.value(column, value);
        }
    }
    conn.execute(&update).await?;
    Ok(())
}

/// A key of a tenant, locked until the end of the transaction.
pub(crate) async fn lock(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<ApiKey>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .lock_exclusive();
    one(conn, &select, read).await
}

/// A key of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<ApiKey>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// The tenant of a key, for administrators of all tenants.
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

/// The key that a text names, of whatever tenant: the text says of which.
pub(crate) async fn by_key_id(
    conn: &impl ConnectionTrait,
    key_id: &str,
) -> Result<Option<ApiKey>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("key_id").eq(key_id));
    one(conn, &select, read).await
}

/// Keys of a tenant that are not revoked, newest first: `limit` of them behind `after`, of one owner or of all.
pub(crate) async fn page(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    owner: Option<Uuid>,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<ApiKey>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("revoked_at").is_null())
        .order_by("id", Order::Desc)
        .limit(limit);
    if let Some(owner) = owner {
        select.and_where(Expr::col("owner_user_id").eq(owner));
    }
    if let Some(after) = after {
        select.and_where(Expr::col("id").lt(after));
    }
    all(conn, &select, read).await
}

/// How many keys of a tenant, or of one owner in it, can be used.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    owner: Option<Uuid>,
    now: Timestamp,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("expires_at").gt(now));
    if let Some(owner) = owner {
        select.and_where(Expr::col("owner_user_id").eq(owner));
    }
    let n = one(conn, &select, |row| Ok(row.try_get::<i64>("", "n")?)).await?;
    Ok(n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Keys that end before a moment and nobody was told of yet, the first to end first.
pub(crate) async fn ending(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    before: Timestamp,
    limit: u64,
) -> Result<Vec<ApiKey>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("revoked_at").is_null())
        .and_where(Expr::col("noticed_at").is_null())
        .and_where(Expr::col("expires_at").gt(now))
        .and_where(Expr::col("expires_at").lte(before))
        .order_by("expires_at", Order::Asc)
        .limit(limit);
    all(conn, &select, read).await
}

/// Remembers that somebody was told of a key's end; false when somebody was faster.
pub(crate) async fn noticed(
    conn: &impl ConnectionTrait,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("noticed_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("noticed_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Remembers the last use of a key; an older one than is known is forgotten.
pub(crate) async fn used(
    conn: &impl ConnectionTrait,
    id: Uuid,
    at: Timestamp,
    ip: Option<String>,
) -> Result<(), DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("last_used_at", at)
        .value("last_used_ip", ip)
        .and_where(Expr::col("id").eq(id))
        .and_where(
            Expr::col("last_used_at")
                .is_null()
                .or(Expr::col("last_used_at").lt(at)),
        );
    conn.execute(&update).await?;
    Ok(())
}

fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(TABLE)
        // A key without an owner would be nobody's.
        .and_where(Expr::col("owner_user_id").is_not_null())
        .take()
}

fn values(k: &ApiKey) -> Result<[Expr; 20], DbError> {
    Ok([
        k.id.into(),
        k.tenant.into(),
        k.key_id.clone().into(),
        k.owner.into(),
        k.name.clone().into(),
        k.hash.to_vec().into(),
        k.previous.map(|(hash, _)| hash.to_vec()).into(),
        k.previous.map(|(_, until)| until).into(),
        to_json(&k.wish.scopes)?.into(),
        to_json(&k.wish.services)?.into(),
        to_json(&k.wish.networks)?.into(),
        k.wish.per_s.map(serde_json::Value::from).into(),
        k.expires_at.into(),
        k.noticed_at.into(),
        k.last_used_at.into(),
        k.last_used_ip.clone().into(),
        k.created_by.clone().into(),
        k.created_at.into(),
        k.updated_at.into(),
        k.revoked_at.into(),
    ])
}

fn read(row: &QueryResult) -> Result<ApiKey, DbError> {
    let hash = |bytes: Vec<u8>| bytes.as_slice().try_into().map_err(|_| broken("hash"));
    let previous: Option<Vec<u8>> = row.try_get("", "secret_hash_2")?;
    let until: Option<Timestamp> = row.try_get("", "secret_2_until")?;
    let rate: Option<serde_json::Value> = row.try_get("", "rate_limit")?;
    Ok(ApiKey {
        id: row.try_get("", "id")?,
        key_id: row.try_get("", "key_id")?,
        tenant: row.try_get("", "tenant_id")?,
        owner: row.try_get("", "owner_user_id")?,
        name: row.try_get("", "name")?,
        hash: hash(row.try_get("", "secret_hash")?)?,
        previous: previous.map(hash).transpose()?.zip(until),
        wish: Wish {
            scopes: from_json(row, "scopes")?,
            services: from_json(row, "services")?,
            networks: from_json(row, "cidrs")?,
            per_s: rate.and_then(|r| r.as_f64()),
        },
        expires_at: row.try_get("", "expires_at")?,
        noticed_at: row.try_get("", "noticed_at")?,
        last_used_at: row.try_get("", "last_used_at")?,
        last_used_ip: row.try_get("", "last_used_ip")?,
        created_by: row.try_get("", "created_by")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
        revoked_at: row.try_get("", "revoked_at")?,
    })
}
