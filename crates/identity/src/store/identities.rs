//! Identities of other providers that are linked to users.

use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query, SelectStatement};
use uuid::Uuid;

use super::{all, insert as insert_row, one};
use crate::domain::identity::ExternalIdentity;

const TABLE: &str = "identities";

const COLUMNS: [&str; 14] = [
    "id",
    "tenant_id",
    "user_id",
    "provider",
    "issuer_key",
    "subject",
    "client_id",
    "email",
    "email_verified",
    "is_private_email",
    "email_enabled",
    "refresh_token",
    "proved_at",
    "linked_at",
];

/// Identities of a user that are shown or revoked; nobody has more.
const MOST: u64 = 100;

/// Adds an identity; one that belongs to somebody already is a unique violation.
pub(crate) async fn insert(
    conn: &impl ConnectionTrait,
    i: &ExternalIdentity,
) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            i.id.into(),
            i.tenant.into(),
            i.user.into(),
            i.provider.clone().into(),
            i.issuer_key.clone().into(),
            i.subject.clone().into(),
            i.client_id.clone().into(),
            i.email.clone().into(),
            i.email_verified.into(),
            i.is_private_email.into(),
            i.email_enabled.into(),
            i.refresh_token.clone().into(),
            i.proved_at.into(),
            i.linked_at.into(),
        ],
    )
    .await
}

/// Writes what a new proof or a notice changed; false when the identity is not linked any more.
pub(crate) async fn put(
    conn: &impl ConnectionTrait,
    i: &ExternalIdentity,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("client_id", i.client_id.clone())
        .value("email", i.email.clone())
        .value("email_verified", i.email_verified)
        .value("is_private_email", i.is_private_email)
        .value("email_enabled", i.email_enabled)
        .value("refresh_token", i.refresh_token.clone())
        .value("proved_at", i.proved_at)
        .and_where(Expr::col("id").eq(i.id))
        .and_where(Expr::col("tenant_id").eq(i.tenant));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// The identity of a provider's subject in a tenant.
pub(crate) async fn find(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    provider: &str,
    issuer_key: &str,
    subject: &str,
) -> Result<Option<ExternalIdentity>, DbError> {
    one(
        conn,
        &of_subject(tenant, provider, issuer_key, subject),
        read,
    )
    .await
}

/// The identities of a provider's subject in some tenants.
pub(crate) async fn find_in(
    conn: &impl ConnectionTrait,
    tenants: &[Uuid],
    provider: &str,
    issuer_key: &str,
    subject: &str,
) -> Result<Vec<ExternalIdentity>, DbError> {
    let mut found = Vec::new();
    // Databases bound the values of a statement.
    for some in tenants.chunks(500) {
        let mut select = Query::select();
        select
            .columns(COLUMNS)
            .from(TABLE)
            .and_where(Expr::col("tenant_id").is_in(some.iter().copied()))
            .and_where(Expr::col("provider").eq(provider))
            .and_where(Expr::col("issuer_key").eq(issuer_key))
            .and_where(Expr::col("subject").eq(subject));
        found.extend(all(conn, &select, read).await?);
    }
    Ok(found)
}

/// An identity of a tenant, and its row stays locked until the end of the transaction. Whoever also locks the user does that
/// first.
pub(crate) async fn lock(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<Option<ExternalIdentity>, DbError> {
    let mut select = select(tenant);
    select.and_where(Expr::col("id").eq(id)).lock_exclusive();
    one(conn, &select, read).await
}

/// The identities of a user, oldest first.
pub(crate) async fn of_user(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    user: Uuid,
) -> Result<Vec<ExternalIdentity>, DbError> {
    let mut select = select(tenant);
    select
        .and_where(Expr::col("user_id").eq(user))
        .order_by("linked_at", Order::Asc)
        .order_by("id", Order::Asc)
        .limit(MOST);
    all(conn, &select, read).await
}

/// Removes an identity; false when it was gone.
pub(crate) async fn delete(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    id: Uuid,
) -> Result<bool, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("tenant_id").eq(tenant));
    Ok(conn.execute(&delete).await?.rows_affected() > 0)
}

fn of_subject(tenant: Uuid, provider: &str, issuer_key: &str, subject: &str) -> SelectStatement {
    let mut select = select(tenant);
    select
        .and_where(Expr::col("provider").eq(provider))
        .and_where(Expr::col("issuer_key").eq(issuer_key))
        .and_where(Expr::col("subject").eq(subject));
    select
}

fn select(tenant: Uuid) -> SelectStatement {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("tenant_id").eq(tenant));
    select
}

fn read(row: &QueryResult) -> Result<ExternalIdentity, DbError> {
    Ok(ExternalIdentity {
        id: row.try_get("", "id")?,
        tenant: row.try_get("", "tenant_id")?,
        user: row.try_get("", "user_id")?,
        provider: row.try_get("", "provider")?,
        issuer_key: row.try_get("", "issuer_key")?,
        subject: row.try_get("", "subject")?,
        client_id: row.try_get("", "client_id")?,
        email: row.try_get("", "email")?,
        email_verified: row.try_get("", "email_verified")?,
        is_private_email: row.try_get("", "is_private_email")?,
        email_enabled: row.try_get("", "email_enabled")?,
        refresh_token: row.try_get("", "refresh_token")?,
        proved_at: row.try_get("", "proved_at")?,
        linked_at: row.try_get("", "linked_at")?,
    })
}
