//! Signing keys of tokens, and the one row with the installation's epoch and id.

use portico_base::Timestamp;
use portico_db::DbError;
use portico_db::sea_orm::{ConnectionTrait, QueryResult};
use portico_db::sea_query::{Expr, ExprTrait as _, Order, Query};
use serde_json::Value;
use uuid::Uuid;

use super::{all as rows, broken, insert as insert_row, one, to_u32, update};

const TABLE: &str = "signing_keys";
const STATE: &str = "identity_state";
const STATE_ID: i32 = 1;

const COLUMNS: [&str; 9] = [
    "kid",
    "alg",
    "public_jwk",
    "private",
    "state",
    "not_before",
    "activated_at",
    "retired_at",
    "created_at",
];

/// What a key is used for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// Published, so that everybody knows it before it signs.
    Next,
    /// Signs.
    Active,
    /// Verifies what it signed.
    Retired,
    /// Nothing: what it signed is refused.
    Dropped,
}

impl KeyState {
    const ALL: [Self; 4] = [Self::Next, Self::Active, Self::Retired, Self::Dropped];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Dropped => "dropped",
        }
    }
}

/// A key as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SigningKeyRow {
    pub kid: String,
    pub alg: String,
    pub public_jwk: Value,
    /// Envelope of the seed; empty once the key never signs again.
    pub private: String,
    pub state: KeyState,
    /// It signs from then on at the earliest.
    pub not_before: Timestamp,
    pub activated_at: Option<Timestamp>,
    /// Since when it does not sign any more.
    pub retired_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// The installation as tokens know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// Epoch.
    pub ge: u32,
    /// Its id; absent before the first start is over.
    pub installation: Option<Uuid>,
}

/// Adds a key. A second active one is a unique violation.
pub(crate) async fn insert(conn: &impl ConnectionTrait, k: &SigningKeyRow) -> Result<(), DbError> {
    insert_row(
        conn,
        TABLE,
        COLUMNS,
        [
            k.kid.clone().into(),
            k.alg.clone().into(),
            k.public_jwk.clone().into(),
            k.private.clone().into(),
            k.state.as_str().into(),
            k.not_before.into(),
            k.activated_at.into(),
            k.retired_at.into(),
            k.created_at.into(),
        ],
    )
    .await
}

/// All keys, newest first.
pub(crate) async fn all(conn: &impl ConnectionTrait) -> Result<Vec<SigningKeyRow>, DbError> {
    let mut select = Query::select();
    select
        .columns(COLUMNS)
        .from(TABLE)
        .order_by("created_at", Order::Desc)
        .order_by("kid", Order::Asc);
    rows(conn, &select, read).await
}

/// Lets a published key sign.
pub(crate) async fn activate(
    conn: &impl ConnectionTrait,
    kid: &str,
    now: Timestamp,
) -> Result<(), DbError> {
    let values = [
        ("state", KeyState::Active.as_str().into()),
        ("activated_at", now.into()),
    ];
    update(conn, TABLE, ("kid", kid.into()), values).await?;
    Ok(())
}

/// Ends a key's signing, and forgets its private half.
pub(crate) async fn end(
    conn: &impl ConnectionTrait,
    kid: &str,
    state: KeyState,
    now: Timestamp,
) -> Result<(), DbError> {
    let values = [
        ("state", state.as_str().into()),
        ("private", "".into()),
        ("retired_at", now.into()),
    ];
    update(conn, TABLE, ("kid", kid.into()), values).await?;
    Ok(())
}

/// Removes keys that ended before a moment.
pub(crate) async fn trim(conn: &impl ConnectionTrait, before: Timestamp) -> Result<u64, DbError> {
    let ended = [KeyState::Retired.as_str(), KeyState::Dropped.as_str()];
    let mut delete = Query::delete();
    delete
        .from_table(TABLE)
        .and_where(Expr::col("state").is_in(ended))
        .and_where(Expr::col("retired_at").lte(before));
    Ok(conn.execute(&delete).await?.rows_affected())
}

/// Epoch and id of the installation.
pub(crate) async fn state(conn: &impl ConnectionTrait) -> Result<State, DbError> {
    let mut select = Query::select();
    select
        .columns(["ge", "installation"])
        .from(STATE)
        .and_where(Expr::col("id").eq(STATE_ID));
    let state = one(conn, &select, |row| {
        Ok(State {
            ge: to_u32(row, "ge")?,
            installation: row.try_get("", "installation")?,
        })
    })
    .await?;
    state.ok_or_else(|| broken("state"))
}

/// Raises the installation's epoch by one and returns the new one.
pub(crate) async fn raise_epoch(conn: &impl ConnectionTrait) -> Result<u32, DbError> {
    let mut statement = Query::update();
    statement
        .table(STATE)
        .value("ge", Expr::col("ge").add(1))
        .and_where(Expr::col("id").eq(STATE_ID))
        .returning_col("ge");
    one(conn, &statement, |row| to_u32(row, "ge"))
        .await?
        .ok_or_else(|| broken("state"))
}

/// Raises the installation's epoch by one, or to `least` if that is more, and returns the new one.
pub(crate) async fn raise_epoch_to(
    conn: &impl ConnectionTrait,
    least: u32,
) -> Result<u32, DbError> {
    let ge = raise_epoch(conn).await?;
    if ge >= least {
        return Ok(ge);
    }
    let mut statement = Query::update();
    statement
        .table(STATE)
        .value("ge", i64::from(least))
        .and_where(Expr::col("id").eq(STATE_ID));
    conn.execute(&statement).await?;
    Ok(least)
}

/// Names the installation, once and for ever.
pub(crate) async fn name_installation(
    conn: &impl ConnectionTrait,
    installation: Uuid,
) -> Result<(), DbError> {
    let mut statement = Query::update();
    statement
        .table(STATE)
        .value("installation", installation)
        .and_where(Expr::col("id").eq(STATE_ID))
        .and_where(Expr::col("installation").is_null());
    conn.execute(&statement).await?;
    Ok(())
}

fn read(row: &QueryResult) -> Result<SigningKeyRow, DbError> {
    let state: String = row.try_get("", "state")?;
    Ok(SigningKeyRow {
        kid: row.try_get("", "kid")?,
        alg: row.try_get("", "alg")?,
        public_jwk: row.try_get("", "public_jwk")?,
        private: row.try_get("", "private")?,
        state: KeyState::ALL
            .into_iter()
            .find(|s| s.as_str() == state)
            .ok_or_else(|| broken("state"))?,
        not_before: row.try_get("", "not_before")?,
        activated_at: row.try_get("", "activated_at")?,
        retired_at: row.try_get("", "retired_at")?,
        created_at: row.try_get("", "created_at")?,
    })
}
