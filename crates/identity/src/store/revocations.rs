//! The revocation log (identity-protocols §9): written with its cause, followed by every edge.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use uuid::Uuid;

use super::{all, broken, insert as insert_row, to_u32};

const TABLE: &str = "revocations";
/// Its counter stays locked until the transaction ends, so that the order of numbers is the order of commits.
pub(crate) const COUNTER: &str = "identity.revocations";
/// Wakes followers.
pub(crate) const TOPIC: &str = "identity.revocation.added";

const COLUMNS: [&str; 8] = [
    "seq",
    "kind",
    "tenant_id",
    "subject",
    "min",
    "cause",
    "at",
    "until",
];

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Tokens of a user below a version; `min` is the new one.
    User,
    /// Tokens of a tenant below an epoch.
    Tenant,
    /// Tokens of the installation below an epoch.
    Global,
    /// One session.
    Session,
    /// One API key: empties caches.
    ApiKey,
    /// A signing key: keys are read again.
    SigningKey,
    /// A role's permissions: roles are read again.
    Roles,
    /// A tenant's status, hosts or name: tenants are read again.
    Tenants,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::User,
        Self::Tenant,
        Self::Global,
        Self::Session,
        Self::ApiKey,
        Self::SigningKey,
        Self::Roles,
        Self::Tenants,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tenant => "tenant",
            Self::Global => "global",
            Self::Session => "session",
            Self::ApiKey => "api_key",
            Self::SigningKey => "signing_key",
            Self::Roles => "roles",
            Self::Tenants => "tenants",
        }
    }
}

/// A row of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Revocation {
    pub seq: u64,
    pub kind: Kind,
    pub tenant: Uuid,
    /// Id of the user, session, key …
    pub subject: String,
    /// Lowest version that is still good.
    pub min: u32,
    /// `claims` when only roles changed; else why (`disabled`, `logout`, `kicked`, `password_changed`, …).
    pub cause: String,
    pub at: Timestamp,
    /// After this it means nothing for tokens.
    pub until: Timestamp,
}

/// Adds a row.
pub(crate) async fn insert(conn: &impl ConnectionTrait, r: &Revocation) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            i64::try_from(r.seq).unwrap_or(i64::MAX).into(),
            r.kind.as_str().into(),
            r.tenant.into(),
            r.subject.clone().into(),
            i64::from(r.min).into(),
            r.cause.clone().into(),
            r.at.into(),
            r.until.into(),
        ],
    )
    .await
}

/// Rows behind `after` that still mean something, oldest first, at most `limit`.
pub(crate) async fn after(
    conn: &impl ConnectionTrait,
    after: u64,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Revocation>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("seq").gt(i64::try_from(after).unwrap_or(i64::MAX)))
        .and_where(Expr::col("until").gt(now))
        .order_by("seq", Order::Asc)
        .limit(limit);
    all(conn, &select, read).await
}

/// Removes rows that mean nothing any more.
pub(crate) async fn trim(conn: &impl ConnectionTrait, now: Timestamp) -> Result<u64, DbError> {
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("until").lte(now));
    Ok(conn.execute(&delete).await?.rows_affected())
}

fn read(row: &QueryResult) -> Result<Revocation, DbError> {
    let kind: String = row.try_get("", "kind")?;
    let seq: i64 = row.try_get("", "seq")?;
    Ok(Revocation {
        seq: u64::try_from(seq).unwrap_or(0),
        kind: Kind::ALL
            .into_iter()
            .find(|k| k.as_str() == kind)
            .ok_or_else(|| broken("kind"))?,
        tenant: row.try_get("", "tenant_id")?,
        subject: row.try_get("", "subject")?,
        min: to_u32(row, "min")?,
        cause: row.try_get("", "cause")?,
        at: row.try_get("", "at")?,
        until: row.try_get("", "until")?,
    })
}
