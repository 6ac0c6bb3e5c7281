//! The second factors of users: the TOTP part of `user_secrets`, and recovery codes.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use uuid::Uuid;

use super::{all, broken, delete_by, insert as insert_row, one, update};
use crate::domain::factor::Tries;

const TABLE: &str = "user_secrets";
const COLUMNS: [&str; 7] = [
    "user_id",
    "totp_secret",
    "totp_last_step",
    "totp_confirmed_at",
    "totp_failures",
    "totp_failed_since",
    "totp_locked_until",
];
const CODES: &str = "recovery_codes";
const CODE_COLUMNS: [&str; 5] = ["id", "user_id", "hash", "salt", "used_at"];

/// A user's TOTP factor as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Totp {
    /// Envelope of the secret; it counts once it is confirmed.
    pub secret: Option<String>,
    /// Last step that a code was taken of.
    pub last_step: i64,
    pub confirmed_at: Option<Timestamp>,
    pub tries: Tries,
}

impl Totp {
    /// The envelope, once a code proved that the user has the secret.
    pub(crate) fn confirmed(&self) -> Option<&str> {
        self.confirmed_at.and(self.secret.as_deref())
    }
}

/// A recovery code as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecoveryCode {
    pub id: Uuid,
    pub hash: [u8; 32],
    pub salt: Vec<u8>,
}

/// A user's TOTP factor; nothing when there never was one nor a password.
pub(crate) async fn get(conn: &impl ConnectionTrait, user: Uuid) -> Result<Option<Totp>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .and_where(Expr::col("user_id").eq(user));
    one(conn, &select, read).await
}

/// The same, and nobody else tries a code of this user until the transaction ends.
pub(crate) async fn lock(conn: &impl ConnectionTrait, user: Uuid) -> Result<Option<Totp>, DbError> {
    let mut touch = Query::update();
    touch
        .table(TABLE)
        .value("totp_last_step", Expr::col("totp_last_step"))
        .and_where(Expr::col("user_id").eq(user))
        .returning(Query::returning().columns(COLUMNS));
    one(conn, &touch, read).await
}

/// Keeps a secret that is still to be confirmed; false when a confirmed one is there.
pub(crate) async fn begin(
    conn: &impl ConnectionTrait,
    user: Uuid,
    secret: &str,
) -> Result<bool, DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(TABLE)
        .columns(["user_id", "totp_secret", "totp_last_step"])
        .values_panic([user.into(), secret.into(), 0_i64.into()])
        .on_conflict(
            OnConflict::column("user_id")
                .update_columns(["totp_secret", "totp_last_step"])
                .action_and_where(Expr::col((TABLE, "totp_confirmed_at")).is_null())
                .to_owned(),
        );
    Ok(conn.execute(&insert).await?.rows_affected() > 0)
}

/// The secret counts from now on.
pub(crate) async fn confirm(
    conn: &impl ConnectionTrait,
    user: Uuid,
    now: Timestamp,
) -> Result<(), DbError> {
    let values = [("totp_confirmed_at", now.into())];
    update(conn, TABLE, ("user_id", user.into()), values).await?;
    Ok(())
}

/// Remembers wrong codes.
pub(crate) async fn tried(
    conn: &impl ConnectionTrait,
    user: Uuid,
    tries: Tries,
) -> Result<(), DbError> {
    let values = [
        (
            "totp_failures",
            i32::try_from(tries.failures).unwrap_or(i32::MAX).into(),
        ),
        ("totp_failed_since", tries.since.into()),
        ("totp_locked_until", tries.locked_until.into()),
    ];
    update(conn, TABLE, ("user_id", user.into()), values).await?;
    Ok(())
}

/// Removes the factor and its recovery codes; false when there was none that counted.
pub(crate) async fn remove(conn: &impl ConnectionTrait, user: Uuid) -> Result<bool, DbError> {
    let had = lock(conn, user)
        .await?
        .is_some_and(|totp| totp.confirmed().is_some());
    let values = [
        ("totp_secret", None::<String>.into()),
        ("totp_last_step", 0_i64.into()),
        ("totp_confirmed_at", None::<Timestamp>.into()),
        ("totp_failures", 0_i32.into()),
        ("totp_failed_since", None::<Timestamp>.into()),
        ("totp_locked_until", None::<Timestamp>.into()),
    ];
    update(conn, TABLE, ("user_id", user.into()), values).await?;
    Ok(delete_by(conn, CODES, "user_id", user).await? > 0 || had)
}

/// Replaces all recovery codes of a user.
pub(crate) async fn put_codes(
    conn: &impl ConnectionTrait,
    user: Uuid,
    codes: Vec<RecoveryCode>,
) -> Result<(), DbError> {
    delete_by(conn, CODES, "user_id", user).await?;
    for code in codes {
        let values = [
            code.id.into(),
            user.into(),
            code.hash.to_vec().into(),
            code.salt.into(),
            None::<Timestamp>.into(),
        ];
        insert_row(conn, CODES, CODE_COLUMNS, values).await?;
    }
    Ok(())
}

/// The recovery codes of a user that were not used.
pub(crate) async fn codes(
    conn: &impl ConnectionTrait,
    user: Uuid,
) -> Result<Vec<RecoveryCode>, DbError> {
    let mut select = Query::select();
    select
        .columns(["id", "hash", "salt"])
        .from(CODES)
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("used_at").is_null());
    all(conn, &select, |row| {
        let hash: Vec<u8> = row.try_get("", "hash")?;
        Ok(RecoveryCode {
            id: row.try_get("", "id")?,
            hash: hash.as_slice().try_into().map_err(|_| broken("hash"))?,
            salt: row.try_get("", "salt")?,
        })
    })
    .await
}

/// Uses a recovery code up; false when somebody was faster.
pub(crate) async fn use_code(
    conn: &impl ConnectionTrait,
    user: Uuid,
    id: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let mut update = Query::update();
    update
        .table(CODES)
        .value("used_at", now)
        .and_where(Expr::col("id").eq(id))
        .and_where(Expr::col("user_id").eq(user))
        .and_where(Expr::col("used_at").is_null());
    Ok(conn.execute(&update).await?.rows_affected() == 1)
}

fn read(row: &QueryResult) -> Result<Totp, DbError> {
    let failures: i32 = row.try_get("", "totp_failures")?;
    Ok(Totp {
        secret: row.try_get("", "totp_secret")?,
        last_step: row.try_get("", "totp_last_step")?,
        confirmed_at: row.try_get("", "totp_confirmed_at")?,
        tries: Tries {
            failures: u32::try_from(failures).unwrap_or(0),
            since: row.try_get("", "totp_failed_since")?,
            locked_until: row.try_get("", "totp_locked_until")?,
        },
    })
}
