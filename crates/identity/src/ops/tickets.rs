//! Tickets between two steps of a login: single use, short, bound to the device and the network that began it (ID-60).

use std::net::IpAddr;

use chrono::Duration;
use portico_base::{Context, Secret, Timestamp};
use portico_db::sea_orm::ConnectionTrait;
use portico_token::access::network;
use serde::{Deserialize, Serialize};

use super::one_time::{self, Holder, Kind};
use crate::domain::kept::Kept;
use crate::domain::login::Proof;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::store;

/// A second factor must be shown.
pub(crate) const MFA: Kind = Kind("login.mfa");
/// A second factor must be set up.
pub(crate) const ENROL: Kind = Kind("login.enrol");
/// A device must be chosen that makes room.
pub(crate) const DEVICE: Kind = Kind("login.device");
/// A new password must be set.
pub(crate) const PASSWORD: Kind = Kind("login.password");
/// A login that another host, or the browser behind a redirect, takes over.
const EXCHANGE: Kind = Kind("login.exchange");

/// Life of a ticket for a new password.
pub(crate) const PASSWORD_LIFE: Duration = Duration::minutes(10);
/// Life of an exchange code.
const EXCHANGE_LIFE: Duration = Duration::seconds(60);

#[derive(Serialize, Deserialize)]
struct Payload {
    proof: Kept,
    /// Hash of the network that the login began on.
    network: Option<u64>,
}

/// Makes a ticket for the next step of a login.
pub(crate) async fn issue(
    core: &Core,
    cx: &Context,
    conn: &impl ConnectionTrait,
    kind: Kind,
    proof: &Proof,
    life: Duration,
) -> Result<(Secret<String>, Timestamp)> {
    let payload = Payload {
        proof: Kept::of(proof),
        network: cx.caller.address.map(network),
    };
    one_time::issue(core, conn, kind, holder(proof), &payload, life).await
}

/// Uses a ticket up and gives the proof back, of the user as they are now. `device_id` is the client's own
/// name for itself, which must be the one that began the login where it named one.
pub(crate) async fn take(
    core: &Core,
    cx: &Context,
    conn: &impl ConnectionTrait,
    kind: Kind,
    ticket: &Secret<String>,
    device_id: Option<&str>,
) -> Result<Proof> {
    let taken: one_time::Taken<Payload> =
        one_time::take(core, conn, kind, ticket, reason::TICKET_INVALID).await?;
    check(&taken.payload, cx.caller.address, device_id)?;
    restore(conn, taken.payload.proof).await
}

/// The same without using it up, for a step that may be tried again.
pub(crate) async fn peek(
    core: &Core,
    cx: &Context,
    conn: &impl ConnectionTrait,
    kind: Kind,
    ticket: &Secret<String>,
    device_id: Option<&str>,
) -> Result<Proof> {
    let taken: one_time::Taken<Payload> =
        one_time::peek(core, conn, kind, ticket, reason::TICKET_INVALID).await?;
    check(&taken.payload, cx.caller.address, device_id)?;
    restore(conn, taken.payload.proof).await
}

/// Makes the code that ends a redirect: whoever redeems it at `/login/exchange` finishes the login (ID-66).
/// It is bound to nothing but its minute, because the browser may come back on another address.
pub(crate) async fn exchange_code(
    core: &Core,
    conn: &impl ConnectionTrait,
    proof: &Proof,
) -> Result<(Secret<String>, Timestamp)> {
    let payload = Payload {
        proof: Kept::of(proof),
        network: None,
    };
    one_time::issue(core, conn, EXCHANGE, holder(proof), &payload, EXCHANGE_LIFE).await
}

/// Redeems such a code.
pub(crate) async fn redeem(
    core: &Core,
    conn: &impl ConnectionTrait,
    code: &Secret<String>,
) -> Result<Proof> {
    let taken: one_time::Taken<Payload> =
        one_time::take(core, conn, EXCHANGE, code, reason::TICKET_INVALID).await?;
    restore(conn, taken.payload.proof).await
}

fn holder(proof: &Proof) -> Holder {
    Holder {
        tenant: Some(proof.user.tenant),
        user: Some(proof.user.id),
    }
}

fn check(payload: &Payload, address: Option<IpAddr>, device_id: Option<&str>) -> Result<()> {
    let net = payload
        .network
        .is_none_or(|n| address.map(network) == Some(n));
    let device = payload
        .proof
        .device_id()
        .is_none_or(|d| device_id == Some(d));
    if net && device {
        Ok(())
    } else {
        Err(reason::TICKET_INVALID.into())
    }
}

async fn restore(conn: &impl ConnectionTrait, kept: Kept) -> Result<Proof> {
    let user = store::users::get(conn, kept.tenant, kept.user).await?;
    user.and_then(|user| kept.restore(user))
        .ok_or_else(|| reason::TICKET_INVALID.into())
}
