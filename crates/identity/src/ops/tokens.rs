//! Tokens of a session: an access token for some minutes, a refresh token for as long as the session may be idle (ID-61, ID-90).

use chrono::Duration;
use portico_base::{Context, Secret, Timestamp, id};
use portico_token::{AccessClaims, access, refresh};

use super::roles;
use crate::domain::login::Tokens;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::settings::token as keys;
use crate::store;
use crate::unit::Unit;

/// Whose token it is, and under which versions it is made.
#[derive(Debug)]
pub(crate) struct Holder<'a> {
    pub session: &'a Session,
    pub tv: u32,
    /// Names of the user's roles.
    pub roles: &'a [String],
    /// The client's own name for its device.
    pub client_id: &'a str,
    /// Where the request comes from.
    pub cx: &'a Context,
}

/// How long sessions of a user may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    idle: Duration,
    absolute: Duration,
}

impl Life {
    /// By the tenant's settings; administrators' sessions are shorter (ID-104).
    pub(crate) fn of(core: &Core, tenant: uuid::Uuid, admin: bool) -> Self {
        let seconds = |key| Duration::seconds(i64::from(core.settings.get::<u32>(tenant, key)));
        let (idle, absolute) = (
            seconds(&keys::REFRESH_IDLE_S),
            seconds(&keys::REFRESH_ABSOLUTE_S),
        );
        if !admin {
            return Self { idle, absolute };
        }
        Self {
            idle: idle.min(seconds(&keys::ADMIN_IDLE_S)),
            absolute: absolute.min(seconds(&keys::ADMIN_ABSOLUTE_S)),
        }
    }

    /// When a session ends that is used now.
    pub(crate) fn idle_end(self, now: Timestamp) -> Timestamp {
        now + self.idle
    }

    /// When a session ends that began then, used or not.
    pub(crate) fn absolute_end(self, began: Timestamp) -> Timestamp {
        began + self.absolute
    }
}

/// True when tokens of a user are bound to the network that they are made on (ID-95).
pub(crate) fn is_bound(core: &Core, tenant: uuid::Uuid, admin: bool) -> bool {
    match core.settings.get(tenant, &keys::IP_BINDING).as_str() {
        "all" => true,
        "admins" => admin,
        _ => false,
    }
}

/// True when roles make an administrator, by their names alone: what they allow is in the edge's memory.
pub(crate) fn is_admin(core: &Core, tenant: uuid::Uuid, names: &[String]) -> bool {
    let held = core.edge.permissions(tenant, names);
    roles::administers(core, names.iter(), held.iter())
}

/// Both tokens of a session as its row is now.
pub(crate) fn of(core: &Core, holder: &Holder<'_>) -> Result<Tokens> {
    let session = holder.session;
    let now = holder.cx.now();
    let ends = session.idle_expires_at.min(session.abs_expires_at);
    let key = refresh::session_key(&core.keys, &session.rt_kid, session.id)
        .map_err(|_| reason::SECRET_BROKEN)?;
    let (access_token, expires_in) = access(core, holder, now, ends)?;
    Ok(Tokens {
        access_token,
        token_type: "Bearer",
        expires_in,
        refresh_token: refresh::encode(&key, session.id, session.rt_counter),
        refresh_expires_in: seconds(ends - now),
        session_id: session.id,
        device_id: holder.client_id.to_owned(),
        device_secret: None,
    })
}

/// New tokens of a session that goes on, after a stronger authentication: the refresh token stays what it is.
pub(crate) async fn again(unit: &Unit, user: &User, session: &Session) -> Result<Tokens> {
    let device = store::devices::get(&unit.tx, user.id, session.device)
        .await?
        .ok_or(reason::SESSION_REVOKED)?;
    let roles = store::roles::of_user(&unit.tx, user.id).await?;
    let roles: Vec<String> = roles.into_iter().map(|role| role.name).collect();
    let holder = Holder {
        session,
        tv: user.tv,
        roles: &roles,
        client_id: &device.client_id,
        cx: &unit.cx,
    };
    of(&unit.core, &holder)
}

fn access(
    core: &Core,
    holder: &Holder<'_>,
    now: Timestamp,
    ends: Timestamp,
) -> Result<(Secret<String>, u32)> {
    let session = holder.session;
    let tenant = core
        .edge
        .tenant(session.tenant)
        .ok_or(reason::TENANT_NOT_FOUND)?;
    let ttl = Duration::seconds(i64::from(
        core.settings
            .get::<u32>(session.tenant, &keys::ACCESS_TTL_S),
    ));
    let expires = (now + ttl).min(ends);
    let bound = is_bound(
        core,
        session.tenant,
        is_admin(core, session.tenant, holder.roles),
    );
    let address = holder.cx.caller.address.filter(|_| bound);
    let claims = AccessClaims {
        user: session.user,
        tenant: session.tenant,
        session: session.id,
        device: session.device,
        issued_s: now.timestamp(),
        expires_s: expires.timestamp(),
        id: id::new_id(&*holder.cx.clock, &*holder.cx.random),
        tv: holder.tv,
        te: tenant.te,
        ge: core.edge.ge(),
        roles: holder.roles.to_vec(),
        scope: None,
        amr: session.amr.clone(),
        aal: session.aal,
        auth_time_s: session.auth_time.timestamp(),
        network: address.map(access::network),
        audiences: Vec::new(),
    };
    let token = core.edge.sign(&claims)?;
    let left = claims.expires_s - claims.issued_s;
    let expires_in = u32::try_from(left.max(0))
        .map_err(|_| Error::Internal("a token lives longer than 100 years".to_owned()))?;
    Ok((token, expires_in))
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.num_seconds().max(0)).unwrap_or(u32::MAX)
}
