//! Passwords and second factors of users. What is a secret is a hash or an envelope.

use portico_base::{Secret, Timestamp};
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use uuid::Uuid;

use super::one;

const TABLE: &str = "user_secrets";
const COLUMNS: [&str; 6] = [
    "user_id",
    "password_phc",
    "password_changed_at",
    "totp_secret",
    "totp_last_step",
    "totp_confirmed_at",
];

/// A user's credentials as stored.
#[derive(Debug, Clone)]
pub(crate) struct Secrets {
    pub user: Uuid,
    /// PHC string.
    pub password: Option<Secret<String>>,
    pub password_changed_at: Option<Timestamp>,
    /// Envelope of the TOTP secret.
    pub totp: Option<String>,
    pub totp_last_step: i64,
    pub totp_confirmed_at: Option<Timestamp>,
}

impl Secrets {
    /// Nothing yet.
    pub(crate) const fn none(user: Uuid) -> Self {
        Self {
            user,
            password: None,
            password_changed_at: None,
            totp: None,
            totp_last_step: 0,
            totp_confirmed_at: None,
        }
    }
}

/// The credentials of a user; none at all read like empty ones.
pub(crate) async fn get(conn: &impl ConnectionTrait, user: Uuid) -> Result<Secrets, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user));
    let found = one(conn, &select, read).await?;
    Ok(found.unwrap_or_else(|| Secrets::none(user)))
}

/// Writes a password. A factor that is there stays as it is: it has its own functions in [`super::factors`],
/// so that a code which was used meanwhile stays used.
pub(crate) async fn put(conn: &impl ConnectionTrait, s: &Secrets) -> Result<(), DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(COLUMNS)
        .values_panic([
            s.user.into(),
            s.password.as_ref().map(|p| p.expose().clone()).into(),
            s.password_changed_at.into(),
            s.totp.clone().into(),
            s.totp_last_step.into(),
            s.totp_confirmed_at.into(),
        ])
        .on_conflict(
            OnConflict::column("user_id")
                .update_columns(["password_phc", "password_changed_at"])
                .to_owned(),
        );
    conn.execute(&insert).await?;
    Ok(())
}

/// Replaces a password's hash after a rehash, unless it was changed meanwhile.
pub(crate) async fn rehash(
    conn: &impl ConnectionTrait,
    user: Uuid,
    old: &Secret<String>,
    new: &Secret<String>,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("password_phc", new.expose().as_str())
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("password_phc").eq(old.expose().as_str()));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

/// Uses a TOTP step; false when it or a later one was used before.
pub(crate) async fn use_step(
    conn: &impl ConnectionTrait,
    user: Uuid,
    step: i64,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(TABLE)
        .value("totp_last_step", step)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("totp_last_step").lt(step));
    Ok(conn.execute(&update).await?.rows_affected() > 0)
}

fn read(row: &QueryResult) -> Result<Secrets, DbError> {
    let password: Option<String> = row.try_get("", "password_phc")?;
    Ok(Secrets {
        user: row.try_get("", "user_id")?,
        password: password.map(Secret::new),
        password_changed_at: row.try_get("", "password_changed_at")?,
        totp: row.try_get("", "totp_secret")?,
        totp_last_step: row.try_get("", "totp_last_step")?,
        totp_confirmed_at: row.try_get("", "totp_confirmed_at")?,
    })
}
