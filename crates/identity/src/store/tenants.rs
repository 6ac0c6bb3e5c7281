//! Tenants and the hosts bound to them.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all as rows, broken, from_json, insert as insert_row, one, to_json, to_u32, update};
use crate::domain::tenant::{Tenant, status_of, status_text};

const TABLE: &str = "tenants";
const HOSTS: &str = "tenant_hosts";

const COLUMNS: [&str; 9] = [
    "id",
    "slug",
    "display_name",
    "status",
    "te",
    "quotas",
    "delete_at",
    "created_at",
    "updated_at",
];

/// Adds a tenant.
pub(crate) async fn insert(conn: &impl ConnectionTrait, t: &Tenant) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            t.id.into(),
            t.slug.clone().into(),
            t.display_name.clone().into(),
            status_text(t.status).into(),
            i64::from(t.te).into(),
            to_json(&t.quotas)?.into(),
            t.delete_at.into(),
            t.created_at.into(),
            t.updated_at.into(),
        ],
    )
    .await
}

/// Writes a tenant, but its epoch: that only rises by [`raise`].
pub(crate) async fn put(conn: &impl ConnectionTrait, t: &Tenant) -> Result<(), DbError> {
    update(
        conn,
        TABLE,
        ("id", t.id.into()),
        [
            ("display_name", t.display_name.clone().into()),
            ("status", status_text(t.status).into()),
            ("quotas", to_json(&t.quotas)?.into()),
            ("delete_at", t.delete_at.into()),
            ("updated_at", t.updated_at.into()),
        ],
    )
    .await?;
    Ok(())
}

/// Raises a tenant's epoch by one and returns the new one.
pub(crate) async fn raise(
    conn: &impl ConnectionTrait,
    id: Uuid,
    now: Timestamp,
) -> Result<Option<u32>, DbError> {
    let mut statement = Query::update();
    statement
        .table(TABLE)
        .value("te", Expr::col("te").add(1))
        .value("updated_at", now)
        .and_where(Expr::col("id").eq(id))
        .returning_col("te");
    one(conn, &statement, |row| to_u32(row, "te")).await
}

/// A tenant.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Tenant>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id));
    one(conn, &select, read).await
}

/// The tenant with a slug.
pub(crate) async fn by_slug(
    conn: &impl ConnectionTrait,
    slug: &str,
) -> Result<Option<Tenant>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("slug").eq(slug));
    one(conn, &select, read).await
}

/// A tenant, locked until the end of the transaction.
pub(crate) async fn lock(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Tenant>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("id").eq(id))
        .lock_exclusive();
    one(conn, &select, read).await
}

/// The hosts of one tenant.
pub(crate) async fn hosts_of(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
) -> Result<Vec<String>, DbError> {
    let mut select = Query::select();
    select
        .column("host")
        .from(HOSTS)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("host", Order::Asc);
    rows(conn, &select, |row| Ok(row.try_get("", "host")?)).await
}

/// All tenants, in the order of their slugs.
pub(crate) async fn all(conn: &impl ConnectionTrait) -> Result<Vec<Tenant>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("slug", Order::Asc);
    rows(conn, &select, read).await
}

/// Binds a host to a tenant.
pub(crate) async fn insert_host(
    conn: &impl ConnectionTrait,
    host: &str,
    tenant: Uuid,
    now: Timestamp,
) -> Result<(), DbError> {
    insert_row(
        conn,
        HOSTS,
        ["host", "tenant_id", "created_at"],
        [host.into(), tenant.into(), now.into()],
    )
    .await
}

/// Frees a host; true when it was bound to the tenant.
pub(crate) async fn delete_host(
    conn: &impl ConnectionTrait,
    host: &str,
    tenant: Uuid,
) -> Result<bool, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(HOSTS)
        .and_where(Expr::col("host").eq(host))
        .and_where(Expr::col("tenant_id").eq(tenant));
    Ok(conn.execute(&delete).await?.rows_affected() > 0)
}

/// All bound hosts with their tenants.
pub(crate) async fn hosts(conn: &impl ConnectionTrait) -> Result<Vec<(String, Uuid)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["host", "tenant_id"])
        .from(HOSTS)
        .order_by("host", Order::Asc);
    rows(conn, &select, |row| {
        Ok((row.try_get("", "host")?, row.try_get("", "tenant_id")?))
    })
    .await
}

fn read(row: &QueryResult) -> Result<Tenant, DbError> {
    let status: String = row.try_get("", "status")?;
    Ok(Tenant {
        id: row.try_get("", "id")?,
        slug: row.try_get("", "slug")?,
        display_name: row.try_get("", "display_name")?,
        status: status_of(&status).ok_or_else(|| broken("status"))?,
        te: to_u32(row, "te")?,
        quotas: from_json(row, "quotas")?,
        delete_at: row.try_get("", "delete_at")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}
