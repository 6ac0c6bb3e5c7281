//! Roles, who has them, and the permissions that are known.

use portico_base::{Permission, Timestamp};
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all as rows, delete_by, from_json, insert as insert_row, to_json, update};
use crate::domain::role::Role;

const TABLE: &str = "roles";
const GRANTS: &str = "user_roles";

const COLUMNS: [&str; 10] = [
    "id",
    "tenant_id",
    "scope",
    "name",
    "title_zh",
    "title_en",
    "permissions",
    "built_in",
    "created_at",
    "updated_at",
];

/// Adds a role.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &Role) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            r.id.into(),
            r.tenant.into(),
            r.tenant.unwrap_or(Uuid::nil()).into(),
            r.name.clone().into(),
            r.title_zh.clone().into(),
            r.title_en.clone().into(),
            to_json(&r.permissions)?.into(),
            r.built_in.into(),
            r.created_at.into(),
            r.updated_at.into(),
        ],
    )
    .await
}

/// Writes titles and permissions.
pub(crate) async fn put(conn: &impl ConnectionTrait, r: &Role) -> Result<(), DbError> {
    update(
        conn,
        TABLE,
        ("id", r.id.into()),
        [
            ("title_zh", r.title_zh.clone().into()),
            ("title_en", r.title_en.clone().into()),
            ("permissions", to_json(&r.permissions)?.into()),
            ("updated_at", r.updated_at.into()),
        ],
    )
    .await?;
    Ok(())
}

/// Removes a role and its grants.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbError> {
    delete_by(conn, TABLE, "id", id).await?;
    Ok(())
}

/// All roles of all tenants and the built-in ones.
pub(crate) async fn all(conn: &impl ConnectionTrait) -> Result<Vec<Role>, DbError> {
    rows(conn, &select(), read).await
}

/// The roles of a tenant, and the built-in ones.
pub(crate) async fn of_tenant(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
) -> Result<Vec<Role>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("scope").is_in([tenant, Uuid::nil()]));
    rows(conn, &select, read).await
}

/// The roles of a user.
pub(crate) async fn of_user(conn: &impl ConnectionTrait, user: Uuid) -> Result<Vec<Role>, DbError> {
    let mut granted = Query::select();
    granted
        .column("role_id")
        .from(GRANTS)
        .and_where(Expr::col("user_id").eq(user));
    let mut select = select();
    select.and_where(Expr::col("id").in_subquery(granted.take()));
    rows(conn, &select, read).await
}

/// Gives a user a role.
pub(crate) async fn grant(
    conn: &impl ConnectionTrait,
    user: Uuid,
    role: Uuid,
    by: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    insert_row(
        conn,
        GRANTS,
        ["user_id", "role_id", "scope", "granted_by", "granted_at"],
        [
            user.into(),
            role.into(),
            "tenant".into(),
            by.into(),
            now.into(),
        ],
    )
    .await
}

/// Takes a role from a user; true when there was one to take.
pub(crate) async fn ungrant(
    conn: &impl ConnectionTrait,
    user: Uuid,
    role: Uuid,
) -> Result<bool, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(GRANTS)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("role_id").eq(role));
    Ok(conn.execute(&delete).await?.rows_affected() > 0)
}

fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("name", Order::Asc)
        .take()
}

fn read(row: &QueryResult) -> Result<Role, DbError> {
    let permissions: Vec<Permission> = from_json(row, "permissions")?;
    Ok(Role {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        name: row.try_get("", "name")?,
        title_zh: row.try_get("", "title_zh")?,
        title_en: row.try_get("", "title_en")?,
        permissions,
        built_in: row.try_get("", "built_in")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}
