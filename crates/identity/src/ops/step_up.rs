//! Authenticating again within a session, which then has new tokens: fresher, and perhaps stronger (ID-77).

use std::pin::Pin;
use std::sync::Arc;

use portico_base::{Context, Principal, PrincipalKind, Secret};
use portico_contract::audit::Record;
use portico_web::{Challenge, StepUp};
use serde::{Deserialize, Serialize};
use serde_json::Map;
use uuid::Uuid;

use super::factors::{self, Shown};
use super::one_time::{self, Holder, Kind};
use super::sessions::session_of;
use super::{need_user, passwords, tokens};
use crate::domain::login::{LoginResult, Transport};
use crate::domain::session::Session;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::store;
use crate::unit::Unit;

const TICKET: Kind = Kind("step_up");

/// How somebody authenticates again.
#[derive(Debug)]
pub(crate) enum Again {
    Password(Secret<String>),
    Factor(Shown),
}

/// Tells callers how their sessions become stronger.
pub(crate) struct Challenger(pub Arc<Core>);

/// Whose ticket it is.
#[derive(Serialize, Deserialize)]
struct Payload {
    session: Uuid,
}

impl StepUp for Challenger {
    fn challenge<'a>(
        &'a self,
        principal: &'a Principal,
    ) -> Pin<Box<dyn Future<Output = Option<Challenge>> + Send + 'a>> {
        // Whoever has shown two factors is only asked again; a password is no second one.
        let weak = principal.aal < 2;
        Box::pin(async move {
            challenge(&self.0, principal, weak)
                .await
                .inspect_err(|error| tracing::warn!(err = %error, "no challenge could be made"))
                .ok()
                .flatten()
        })
    }
}

/// Checks that the caller authenticated recently; tells how to do so again where not.
pub(crate) async fn need_fresh(core: &Arc<Core>, cx: &Context) -> Result<()> {
    if cx.now().timestamp() < cx.principal().fresh_until_s {
        return Ok(());
    }
    Err(asked(core, cx, false).await?)
}

/// Checks that the caller has shown every factor that they have, recently (ID-151).
pub(crate) async fn need_all_fresh(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let user = need_user(cx)?;
    let has = factors::methods(core.db.reader(), user).await?;
    if cx.principal().aal < 2 && !has.is_empty() {
        return Err(asked(core, cx, true).await?);
    }
    need_fresh(core, cx).await
}

/// The refusal that tells the caller how to authenticate again.
async fn asked(core: &Arc<Core>, cx: &Context, second: bool) -> Result<Error> {
    let Some(challenge) = challenge(core, cx.principal(), second).await? else {
        return Ok(reason::STEP_UP_REQUIRED.into());
    };
    let members = Map::from_iter([
        ("methods".to_owned(), challenge.methods.into()),
        (
            "ticket".to_owned(),
            challenge.ticket.expose().as_str().into(),
        ),
    ]);
    Ok(Error::With(reason::STEP_UP_REQUIRED, members))
}

/// Authenticates the caller again and answers new tokens of the same session. What is wrong leaves the
/// ticket as it is.
pub(crate) async fn again(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    proof: &Again,
) -> Result<LoginResult> {
    let id = need_user(cx)?;
    let session = session_of(cx.principal()).ok_or(reason::SESSION_REVOKED)?;
    let user = store::users::get(core.db.reader(), cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    if let Again::Password(password) = proof {
        passwords::confirm(core, cx, &user, password).await?;
    }
    let unit = Unit::begin_durable(core, cx).await?;
    let taken: one_time::Taken<Payload> =
        one_time::peek(core, &unit.tx, TICKET, ticket, reason::TICKET_INVALID).await?;
    if taken.user != Some(id) || taken.payload.session != session {
        return Err(reason::TICKET_INVALID.into());
    }
    if let Again::Factor(shown) = proof
        && let Some(fault) = factors::check(&unit, &user, shown).await?.fault()
    {
        unit.commit().await?;
        return Err(fault);
    }
    let _used: one_time::Taken<Payload> =
        one_time::take(core, &unit.tx, TICKET, ticket, reason::TICKET_INVALID).await?;
    let added = match proof {
        Again::Password(_) => None,
        Again::Factor(_) => Some("otp"),
    };
    let session = raise(&unit, added).await?.ok_or(reason::SESSION_REVOKED)?;
    unit.audit(
        Record::done(
            "identity.session.strengthened",
            "session",
            session.id.to_string(),
            user.tenant,
        )
        .change("aal", None, Some(session.aal.into())),
    )
    .await?;
    let tokens = tokens::again(&unit, &user, &session).await?;
    unit.commit().await?;
    let transport = if session.cookie {
        Transport::Cookie
    } else {
        Transport::Body
    };
    Ok(LoginResult::done(tokens, None, transport))
}

/// Remembers within a unit that the caller of a session authenticated now: by a second factor that `amr`
/// gets, or by the first one again. Nothing when the session has ended.
pub(super) async fn raise(unit: &Unit, factor: Option<&str>) -> Result<Option<Session>> {
    let principal = unit.cx.principal();
    let Some(id) = session_of(principal) else {
        return Ok(None);
    };
    let session = store::sessions::get(&unit.tx, id).await?;
    let own = |s: &Session| Some(s.user) == principal.id && s.tenant == principal.tenant;
    let Some(mut session) = session.filter(own) else {
        return Ok(None);
    };
    session.auth_time = unit.now();
    let shown = factor.unwrap_or("pwd");
    if !session.amr.iter().any(|have| have == shown) {
        session.amr.push(shown.to_owned());
    }
    if factor.is_some() {
        session.aal = session.aal.max(2);
    }
    let (time, amr, aal) = (session.auth_time, &session.amr, session.aal);
    let live = store::sessions::raise_aal(&unit.tx, id, time, amr, aal).await?;
    Ok(live.then_some(session))
}

/// Ways that the caller has, with a ticket. `second` leaves out what is no second factor.
async fn challenge(
    core: &Arc<Core>,
    principal: &Principal,
    second: bool,
) -> Result<Option<Challenge>> {
    let (PrincipalKind::User, Some(user), Some(session)) =
        (principal.kind, principal.id, session_of(principal))
    else {
        return Ok(None);
    };
    let conn = core.db.reader();
    let mut methods = factors::methods(conn, user).await?;
    if !second && store::secrets::get(conn, user).await?.password.is_some() {
        methods.insert(0, "password".to_owned());
    }
    let holder = Holder {
        tenant: Some(principal.tenant),
        user: Some(user),
    };
    let tx = core.db.begin().await?;
    let payload = Payload { session };
    let (ticket, _) =
        one_time::issue(core, &tx, TICKET, holder, &payload, one_time::TICKET).await?;
    tx.commit().await?;
    Ok(Some(Challenge { methods, ticket }))
}
