//! Users.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, broken, insert as insert_row, one, to_u32, update};
use crate::domain::contact::{Identifier, email_key, username_key};
use crate::domain::user::{User, UserStatus};

const TABLE: &str = "users";

const COLUMNS: [&str; 27] = [
    "id",
    "tenant_id",
    "username",
    "username_key",
    "email",
    "email_key",
    "phone",
    "display_name",
    "search_key",
    "avatar_object",
    "locale",
    "time_zone",
    "status",
    "disabled_reason",
    "disabled_until",
    "tv",
    "email_verified_at",
    "phone_verified_at",
    "must_change_password",
    "last_login_at",
    "last_login_ip",
    "last_login_method",
    "delete_at",
    "deleted_at",
    "legal_hold",
    "created_at",
    "updated_at",
];

/// A select over all columns of users.
pub(crate) fn select() -> SelectStatement {
    Query::select()
        .columns(COLUMNS.map(|column| (TABLE, column)))
        .from(TABLE)
        .take()
}

/// Adds a user. A name that is taken is a unique violation of the database.
pub(crate) async fn insert(conn: &impl ConnectionTrait, u: &User) -> Result<(), DbError> {
    insert_row(conn, TABLE, COLUMNS, values(u)).await
}

/// Writes a user whole, but its version: that only rises by [`raise`].
pub(crate) async fn put(conn: &impl ConnectionTrait, u: &User) -> Result<(), DbError> {
    let mut statement = Query::update();
    statement
        .table(TABLE)
        .and_where(Expr::col("id").eq(u.id))
        .and_where(Expr::col("tenant_id").eq(u.tenant));
    for (column, value) in COLUMNS.into_iter().zip(values(u)) {
        if !["id", "tenant_id", "tv", "created_at"].contains(&column) {
            statement.value(column, value);
        }
    }
    conn.execute(&statement).await?;
    Ok(())
}

fn values(u: &User) -> [Expr; 27] {
    let gone = u.status == UserStatus::Deleted;
    let key = |key: Option<String>| key.filter(|_| !gone);
    [
        u.id.into(),
        u.tenant.into(),
        u.username.clone().into(),
        key(u.username.as_deref().map(username_key)).into(),
        u.email.clone().into(),
        key(u.email.as_deref().map(email_key)).into(),
        key(u.phone.clone()).into(),
        u.display_name.clone().into(),
        key(Some(search_key(u))).map(String::into_bytes).into(),
        u.avatar_object.clone().into(),
        u.locale.clone().into(),
        u.time_zone.clone().into(),
        u.status.as_str().into(),
        u.disabled_reason.clone().into(),
        u.disabled_until.into(),
        i64::from(u.tv).into(),
        u.email_verified_at.into(),
        u.phone_verified_at.into(),
        u.must_change_password.into(),
        u.last_login_at.into(),
        u.last_login_ip.clone().into(),
        u.last_login_method.clone().into(),
        u.delete_at.into(),
        u.deleted_at.into(),
        u.legal_hold.into(),
        u.created_at.into(),
        u.updated_at.into(),
    ]
}

/// The beginning of what a user is found by: the user name, or the name for people.
pub(super) fn search_key(u: &User) -> String {
    username_key(u.username.as_deref().unwrap_or(&u.display_name))
}

/// Raises a user's token version by one and returns the new one. The row stays locked until the end.
pub(crate) async fn raise(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<Option<u32>, DbError> {
    let mut statement = Query::update();
    statement
        .table(TABLE)
        .value("tv", Expr::col("tv").add(1))
        .value("updated_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .returning_col("tv");
    one(conn, &statement, |row| to_u32(row, "tv")).await
}

/// Remembers a login (ID-63).
pub(crate) async fn logged_in(
    conn: &impl ConnectionTrait,
    id: Uuid,
    now: Timestamp,
    ip: Option<&str>,
    method: &str,
) -> Result<(), DbError> {
    update(
        conn,
        TABLE,
        ("id", id.into()),
        [
            ("last_login_at", now.into()),
            ("last_login_ip", ip.map(str::to_owned).into()),
            ("last_login_method", method.into()),
        ],
    )
    .await?;
    Ok(())
}

/// A user of a tenant.
pub(crate) async fn get(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<User>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    one(conn, &select, read).await
}

/// The same, and the row stays locked until the end of the transaction: whoever writes a user whole reads it
/// so, else a change by somebody else would be undone.
pub(crate) async fn lock(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<User>, DbError> {
    let mut select = select();
    select
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant))
        .lock_exclusive();
    one(conn, &select, read).await
}

/// The tenant of a user, for those who administer all tenants.
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

/// True when an identity of another provider is linked to the user.
pub(crate) async fn is_linked(conn: &impl ConnectionTrait, user: Uuid) -> Result<bool, DbError> {
    let mut select = Query::select();
    select
        .column("id")
        .from("identities")
        .and_where(Expr::col("user_id").eq(user))
        .limit(1);
    Ok(conn.query_one(&select).await?.is_some())
}

/// Users of a tenant that are not deleted, counted up to `most`.
pub(crate) async fn count(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    most: u64,
) -> Result<u64, DbError> {
    let mut some = Query::select();
    some.column("id")
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col("status").ne(UserStatus::Deleted.as_str()))
        .limit(most);
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from_subquery(some, "some");
    let count = one(conn, &select, |row| Ok(row.try_get::<i64>("", "n")?)).await?;
    Ok(count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// Disabled users whose time is over, of all tenants.
pub(crate) async fn disabled_until(
    conn: &impl ConnectionTrait,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    let mut select = Query::select();
    select
        .columns(["tenant_id", "id"])
        .from(TABLE)
        .and_where(Expr::col("disabled_until").lte(now))
        .and_where(Expr::col("status").eq(UserStatus::Disabled.as_str()))
        .order_by("disabled_until", Order::Asc)
        .limit(limit);
    all(conn, &select, |row| {
        Ok((row.try_get("", "tenant_id")?, row.try_get("", "id")?))
    })
    .await
}

/// The user of a tenant that somebody named; a deleted one is nobody.
pub(crate) async fn find(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    identifier: &Identifier,
) -> Result<Option<User>, DbError> {
    let mut select = select();
    let (column, key) = match identifier {
        Identifier::Username(key) => ("username_key", key),
        Identifier::Email(key) => ("email_key", key),
        Identifier::Phone(number) => ("phone", number),
    };
    select
        .and_where(Expr::col("tenant_id").eq(tenant))
        .and_where(Expr::col(column).eq(key.as_str()));
    one(conn, &select, read).await
}

/// A row as a user.
pub(crate) fn read(row: &QueryResult) -> Result<User, DbError> {
    let status: String = row.try_get("", "status")?;
    Ok(User {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        username: row.try_get("", "username")?,
        email: row.try_get("", "email")?,
        phone: row.try_get("", "phone")?,
        display_name: row.try_get("", "display_name")?,
        avatar_object: row.try_get("", "avatar_object")?,
        locale: row.try_get("", "locale")?,
        time_zone: row.try_get("", "time_zone")?,
        status: UserStatus::parse(&status).ok_or_else(|| broken("status"))?,
        disabled_reason: row.try_get("", "disabled_reason")?,
        disabled_until: row.try_get("", "disabled_until")?,
        tv: to_u32(row, "tv")?,
        email_verified_at: row.try_get("", "email_verified_at")?,
        phone_verified_at: row.try_get("", "phone_verified_at")?,
        must_change_password: row.try_get("", "must_change_password")?,
        last_login_at: row.try_get("", "last_login_at")?,
        last_login_ip: row.try_get("", "last_login_ip")?,
        last_login_method: row.try_get("", "last_login_method")?,
        delete_at: row.try_get("", "delete_at")?,
        deleted_at: row.try_get("", "deleted_at")?,
        legal_hold: row.try_get("", "legal_hold")?,
        created_at: row.try_get("", "created_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}
