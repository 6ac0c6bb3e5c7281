//! Roles, who has them, and the permissions that are known.

use portico_base::{Permission, Timestamp};
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{
    all as rows, broken, delete_by, from_json, insert as insert_row, one, to_json, update,
};
use crate::domain::role::{Known, Role};

const TABLE: &str = "roles";
const GRANTS: &str = "user_roles";
const PERMISSIONS: &str = "permissions";

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

const KNOWN: [&str; 7] = [
    "name", "service", "title_zh", "title_en", "admin", "scope", "plugin",
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

/// Removes a role that nobody has.
pub(crate) async fn delete(conn: &impl ConnectionTrait, id: Uuid) -> Result<(), DbError> {
    delete_by(conn, TABLE, "id", id).await?;
    Ok(())
}

/// A role of any tenant, or a built-in one.
pub(crate) async fn get(conn: &impl ConnectionTrait, id: Uuid) -> Result<Option<Role>, DbError> {
    let mut select = select();
    select.and_where(Expr::col("id").eq(id));
    one(conn, &select, read).await
}

/// Users of a tenant who have a role, at most `limit`.
pub(crate) async fn holders(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    role: Uuid,
    limit: u64,
) -> Result<Vec<Uuid>, DbError> {
    let mut select = Query::select();
    select
        .column("user_id")
        .from(GRANTS)
        .and_where(Expr::col("role_id").eq(role))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .order_by("user_id", Order::Asc)
        .limit(limit);
    rows(conn, &select, |row| Ok(row.try_get("", "user_id")?)).await
}

/// The roles of several users of a tenant, by name.
pub(crate) async fn of_users(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    users: &[Uuid],
) -> Result<Vec<(Uuid, String)>, DbError> {
    let mut select = Query::select();
    select
        .column((GRANTS, "user_id"))
        .column((TABLE, "name"))
        .from(GRANTS)
        .inner_join(TABLE, Expr::col((TABLE, "id")).equals((GRANTS, "role_id")))
        .and_where(Expr::col((GRANTS, "tenant_id")).eq(tenant))
        .and_where(Expr::col((GRANTS, "user_id")).is_in(users.iter().copied()))
        .order_by((TABLE, "name"), Order::Asc);
    rows(conn, &select, |row| {
        Ok((row.try_get("", "user_id")?, row.try_get("", "name")?))
    })
    .await
}

/// How many users of a tenant with a status have a role, without those who asked to be deleted.
pub(crate) async fn count_holders(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    role: Uuid,
    status: &str,
) -> Result<u64, DbError> {
    let mut select = Query::select();
    select
        .expr_as(Expr::col((GRANTS, "user_id")).count(), "n")
        .from(GRANTS)
        .inner_join(
            "users",
            Expr::col(("users", "id")).equals((GRANTS, "user_id")),
        )
        .and_where(Expr::col((GRANTS, "role_id")).eq(role))
        .and_where(Expr::col((GRANTS, "tenant_id")).eq(tenant))
        .and_where(Expr::col(("users", "tenant_id")).eq(tenant))
        .and_where(Expr::col(("users", "status")).eq(status))
        .and_where(Expr::col(("users", "delete_at")).is_null());
    let count = one(conn, &select, |row| Ok(row.try_get::<i64>("", "n")?)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// All known permissions, by name.
pub(crate) async fn permissions(conn: &impl ConnectionTrait) -> Result<Vec<Known>, DbError> {
    let mut select = Query::select();
    select
        .columns(KNOWN)
        .from(PERMISSIONS)
        .order_by("name", Order::Asc);
    rows(conn, &select, |row| {
        let scope: String = row.try_get("", "scope")?;
        let name: String = row.try_get("", "name")?;
        Ok(Known {
            name: Permission::parse(&name).map_err(|_| broken("permission"))?,
            service: row.try_get("", "service")?,
            title_zh: row.try_get("", "title_zh")?,
            title_en: row.try_get("", "title_en")?,
            admin: row.try_get("", "admin")?,
            system: scope == "system",
            plugin: row.try_get("", "plugin")?,
        })
    })
    .await
}

/// Adds a known permission, or says it anew.
pub(crate) async fn put_permission(conn: &impl ConnectionTrait, p: &Known) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(PERMISSIONS)
        .columns(KNOWN)
        .values_panic([
            p.name.to_string().into(),
            p.service.clone().into(),
            p.title_zh.clone().into(),
            p.title_en.clone().into(),
            p.admin.into(),
            if p.system { "system" } else { "tenant" }.into(),
            p.plugin.into(),
        ])
        .on_conflict(
            OnConflict::column("name")
                .update_columns(KNOWN.into_iter().skip(1))
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Forgets a permission.
pub(crate) async fn drop_permission(
    conn: &impl ConnectionTrait,
    name: &str,
) -> Result<(), DbError> {
    delete_by(conn, PERMISSIONS, "name", name).await?;
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
    tenant: Uuid,
    user: Uuid,
    role: Uuid,
    by: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    insert_row(
        conn,
        GRANTS,
        [
            "tenant_id",
            "user_id",
            "role_id",
            "scope",
            "granted_by",
            "granted_at",
        ],
        [
            tenant.into(),
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
