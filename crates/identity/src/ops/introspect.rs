//! Tokens as services ask about them: is it good, and end what is behind it (RFC 7662, RFC 7009, AuthService).

use std::sync::Arc;

use portico_base::{Context, Permission, PrincipalKind, Refusal, Secret};
use portico_contract::audit::Record;
use portico_contract::tokens::{Denied, TokenVerifier as _, Verified};
use portico_token::refresh as format;
use uuid::Uuid;

use super::sessions::{self, LogOut};
use super::{devices, need, scope};
use crate::domain::session::Session;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::permissions::{TOKEN_INTROSPECT, TOKEN_REVOKE};
use crate::store;
use crate::unit::Unit;

/// What is behind a token that is good.
#[derive(Debug)]
pub(crate) enum Good {
    Access(Verified),
    /// The newest refresh token of a session.
    Refresh(Box<Session>),
}

/// What is to be revoked.
#[derive(Debug)]
pub(crate) enum Target {
    /// An access or a refresh token, in whatever state.
    Token(Secret<String>),
    Session(Uuid),
}

/// Services of the house, plug-ins, and whoever holds the permission.
pub(crate) fn need_service(cx: &Context, permission: Permission) -> Result<()> {
    match cx.principal().kind {
        PrincipalKind::Service | PrincipalKind::Instance => Ok(()),
        PrincipalKind::User => Err(Refusal::Missing(permission).into()),
        _ => need(cx, permission),
    }
}

/// What is behind an access token that holds now; asked for another one's request, whose network nobody
/// tells here.
pub(crate) fn verify(
    core: &Core,
    cx: &Context,
    token: &str,
) -> std::result::Result<Verified, Denied> {
    let mut verified = core.edge.verify(token, cx.now().timestamp())?;
    if let Some(stamp) = &mut verified.stamp {
        stamp.network = 0;
    }
    core.edge.check(&verified, None)?;
    Ok(verified)
}

/// What is behind a token, where it is good.
pub(crate) async fn introspect(
    core: &Core,
    cx: &Context,
    token: &Secret<String>,
) -> Result<Option<Good>> {
    need_service(cx, TOKEN_INTROSPECT)?;
    if !token.expose().starts_with(format::PREFIX) {
        return Ok(verify(core, cx, token.expose()).ok().map(Good::Access));
    }
    let Some((presented, session)) = genuine(core, token).await? else {
        return Ok(None);
    };
    let newest = presented.counter == session.rt_counter;
    let good = newest && !sessions::is_over(&session, cx.now());
    Ok(good.then(|| Good::Refresh(Box::new(session))))
}

/// Ends what is behind a token or a session, or more of the same user. Done twice it is the same as once, and
/// a token that means nothing is revoked already.
pub(crate) async fn revoke(
    core: &Arc<Core>,
    cx: &Context,
    target: &Target,
    which: LogOut,
) -> Result<()> {
    need(cx, TOKEN_REVOKE)?;
    let session = match target {
        Target::Session(id) => store::sessions::get(core.db.reader(), *id).await?,
        Target::Token(token) if token.expose().starts_with(format::PREFIX) => {
            genuine(core, token).await?.map(|(_, session)| session)
        }
        Target::Token(token) => match core.edge.verify(token.expose(), cx.now().timestamp()) {
            Ok(verified) => match verified.stamp {
                Some(stamp) => store::sessions::get(core.db.reader(), stamp.session).await?,
                None => None,
            },
            Err(_) => None,
        },
    };
    let Some(session) = session else {
        return Ok(());
    };
    need_tenant(cx, session.tenant)?;
    core.db
        .retry(async || end(core, cx, &session, which).await)
        .await
}

async fn end(core: &Arc<Core>, cx: &Context, session: &Session, which: LogOut) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, session.tenant, session.user)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let ended = match which {
        LogOut::This => usize::from(sessions::end(&unit, session, "revoked").await?),
        LogOut::Others => {
            let ended = sessions::end_all(&unit, &user, Some(session.id), "revoked").await?;
            ended.len()
        }
        LogOut::All => sessions::end_all(&unit, &user, None, "revoked")
            .await?
            .len(),
    };
    if ended == 0 {
        return Ok(());
    }
    let record = Record::done(
        "identity.token.revoked",
        "session",
        session.id.to_string(),
        session.tenant,
    );
    unit.audit(record.change("sessions", None, Some(ended.into())))
        .await?;
    unit.commit().await
}

/// Ends the session of a user's device and takes the device's trust away; answers what ended. A device that
/// has gone already is no error.
pub(crate) async fn revoke_device(
    core: &Arc<Core>,
    cx: &Context,
    user: Uuid,
    device: Uuid,
) -> Result<Vec<Uuid>> {
    need(cx, TOKEN_REVOKE)?;
    let tenant = store::users::tenant_of(core.db.reader(), user)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    need_tenant(cx, tenant)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = store::users::lock(&unit.tx, tenant, user)
                .await?
                .ok_or(reason::USER_NOT_FOUND)?;
            match devices::kick(&unit, &user, device, "kicked").await {
                Ok(session) => {
                    unit.commit().await?;
                    Ok(session.into_iter().collect())
                }
                Err(error) if error.is(reason::NOT_FOUND) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
        .await
}

/// What belongs to another tenant is not a caller's to end, unless the caller acts for all of them.
fn need_tenant(cx: &Context, tenant: Uuid) -> Result<()> {
    if tenant == cx.tenant() || scope::acts_for_all(cx.principal()) {
        Ok(())
    } else {
        Err(reason::OTHER_TENANT.into())
    }
}

/// A refresh token that we made, newest or not, with its session.
async fn genuine(
    core: &Core,
    token: &Secret<String>,
) -> Result<Option<(format::Presented, Session)>> {
    let Some(presented) = format::decode(token.expose()) else {
        return Ok(None);
    };
    let session = store::sessions::get(core.db.reader(), presented.session).await?;
    Ok(session
        .filter(|s| super::refresh::is_genuine(core, &presented, &s.rt_kid))
        .map(|session| (presented, session)))
}
