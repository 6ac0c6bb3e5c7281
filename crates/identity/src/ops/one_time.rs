//! Single-use tokens with an end: tickets between two steps of a login, links in mails, nonces and states.

use chrono::Duration;
use portico_base::secret::{new_token, token_hash};
use portico_base::{Secret, Timestamp};
use portico_db::sea_orm::ConnectionTrait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::{Error, Reason, Result};
use crate::hub::Core;
use crate::store::one_time::{self, OneTime};

/// Life of a ticket between two steps of a login.
pub(crate) const TICKET: Duration = Duration::minutes(5);

/// What a token is for. A token of one kind is none of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub &'static str);

/// For whom a token is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holder {
    pub tenant: Option<Uuid>,
    pub user: Option<Uuid>,
}

/// A token that was taken.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub tenant: Option<Uuid>,
    pub user: Option<Uuid>,
    pub payload: T,
}

/// Makes a token: 32 random bytes as base64url, stored as a hash.
pub(crate) async fn issue<T: Serialize + Sync>(
    core: &Core,
    conn: &impl ConnectionTrait,
    kind: Kind,
    holder: Holder,
    payload: &T,
    life: Duration,
) -> Result<(Secret<String>, Timestamp)> {
    let now = core.clock.now();
    let token = new_token("", &*core.random);
    let row = OneTime {
        hash: token_hash(token.expose()),
        kind: kind.0.to_owned(),
        tenant: holder.tenant,
        user: holder.user,
        payload: serde_json::to_value(payload).map_err(|e| Error::Internal(e.to_string()))?,
        created_at: now,
        expires_at: now + life,
        used_at: None,
    };
    one_time::insert(conn, &row).await?;
    Ok((token, row.expires_at))
}

/// Uses a token up. Somebody who comes second, or too late, gets `refused`, and so does everybody whose
/// transaction is rolled back and tries again.
pub(crate) async fn take<T: DeserializeOwned>(
    core: &Core,
    conn: &impl ConnectionTrait,
    kind: Kind,
    token: &Secret<String>,
    refused: Reason,
) -> Result<Taken<T>> {
    let hash = token_hash(token.expose());
    let row = one_time::get(conn, kind.0, hash).await?.ok_or(refused)?;
    if !one_time::take(conn, hash, core.clock.now()).await? {
        return Err(refused.into());
    }
    read(row)
}

/// Looks at a token without using it up.
pub(crate) async fn peek<T: DeserializeOwned>(
    core: &Core,
    conn: &impl ConnectionTrait,
    kind: Kind,
    token: &Secret<String>,
    refused: Reason,
) -> Result<Taken<T>> {
    let row = one_time::get(conn, kind.0, token_hash(token.expose()))
        .await?
        .filter(|row| row.used_at.is_none() && row.expires_at > core.clock.now())
        .ok_or(refused)?;
    read(row)
}

fn read<T: DeserializeOwned>(row: OneTime) -> Result<Taken<T>> {
    Ok(Taken {
        tenant: row.tenant,
        user: row.user,
        payload: serde_json::from_value(row.payload).map_err(|e| Error::Internal(e.to_string()))?,
    })
}
