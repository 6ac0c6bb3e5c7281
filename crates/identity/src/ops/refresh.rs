//! Refreshing: one read, one compare-and-set, and the table of identity-protocols §8 (ID-100…104).

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Duration;
use portico_base::secret::{constant_time_eq, token_hash};
use portico_base::{Context, Secret};
use portico_contract::audit::{Outcome, Record};
use portico_contract::tenants::TenantStatus;
use portico_token::{access, refresh as format};
use serde_json::{Map, json};

use super::arrival::Changed;
use super::tokens::{self, Holder, Life};
use super::{devices, fingerprint, sessions};
use crate::domain::fingerprint::Verdict;
use crate::domain::login::Tokens;
use crate::domain::rotation::{self, Step, Stored};
use crate::domain::user::UserStatus;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::Notice;
use crate::store;
use crate::store::logins::LoginEvent;
use crate::store::sessions::{Rotation, Standing};
use crate::unit::Unit;

/// A device is said to have been active at most so often.
const SEEN_EVERY: Duration = Duration::hours(1);
/// Somebody else may be faster so often before this gives up: only one of them moves the counter.
const TRIES: usize = 5;

/// A refresh token with what its holder says besides.
#[derive(Debug)]
pub(crate) struct Wish {
    pub token: Secret<String>,
    pub device_secret: Option<Secret<String>>,
    /// Components of the device's fingerprint; may be empty.
    pub fingerprint: BTreeMap<String, String>,
    /// The token came in a cookie.
    pub cookie: bool,
}

/// Exchanges a refresh token for new tokens.
pub(crate) async fn refresh(core: &Arc<Core>, cx: &Context, wish: &Wish) -> Result<Tokens> {
    let result = Box::pin(go(core, cx, wish)).await;
    let word = match &result {
        Ok((_, word)) => word,
        Err(error) => error.reason().map_or("failed", |r| r.word()),
    };
    core.logins.refresh(word);
    match result {
        Ok((tokens, _)) => Ok(tokens),
        Err(error) if error.is(reason::REFRESH_INVALID) => {
            // Whoever presents bad tokens is slowed down; good ones of the same network are not.
            core.limits.check_address(Limit::RefreshInvalid, cx)?;
            Err(error)
        }
        Err(error) => Err(error),
    }
}

async fn go(core: &Arc<Core>, cx: &Context, wish: &Wish) -> Result<(Tokens, &'static str)> {
    let presented = format::decode(wish.token.expose()).ok_or(reason::REFRESH_INVALID)?;
    for attempt in 0..TRIES {
        let found = store::sessions::standing(core.db.reader(), presented.session).await?;
        let standing = found.ok_or(reason::REFRESH_INVALID)?;
        if attempt == 0 {
            if !is_genuine(core, &presented, &standing.session.rt_kid) {
                return Err(reason::REFRESH_INVALID.into());
            }
            // Behind the check of the token: else strangers could use up the session's tries.
            let session = presented.session.simple().to_string();
            core.limits.check(Limit::Refresh, &session)?;
        }
        check_standing(core, cx, wish, &standing)?;
        let step = rotation::judge(presented.counter, stored(&standing), cx.now(), {
            proved(wish, &standing)
        });
        match step {
            Step::Invalid => return Err(reason::REFRESH_INVALID.into()),
            Step::Reused => return reused(core, cx, &standing).await,
            Step::Rotate | Step::Raced | Step::Retried => {}
        }
        check_network(core, cx, &standing).await?;
        let changed = changed(core, cx, wish, &standing)?;
        if changed
            .as_ref()
            .is_some_and(|(c, _)| c.verdict == Verdict::Kill)
        {
            return jumped(core, cx, &standing, changed).await;
        }
        match step {
            Step::Rotate => {
                let next = rotated(core, cx, &standing, changed.as_ref());
                if rotate(core, cx, &standing, &next, changed).await? {
                    let standing = moved(standing, next);
                    return Ok((answer(core, cx, &standing)?, "rotated"));
                }
            }
            Step::Retried => {
                if retried(core, cx, &standing).await? {
                    return Ok((answer(core, cx, &standing)?, "retried"));
                }
            }
            _ => return Ok((answer(core, cx, &standing)?, "raced")),
        }
    }
    Err(Error::Internal(
        "a session's counter never stood still".to_owned(),
    ))
}

/// With the key that the row names; a token of the generation before may be older than the master key of now.
pub(super) fn is_genuine(core: &Core, presented: &format::Presented, kid: &str) -> bool {
    let others = core.keys.ids().filter(|other| *other != kid);
    std::iter::once(kid).chain(others).any(|kid| {
        format::session_key(&core.keys, kid, presented.session)
            .is_ok_and(|key| presented.is_genuine(&key))
    })
}

/// Whether user, tenant, device and session still are what they must be (ID-103).
fn check_standing(core: &Core, cx: &Context, wish: &Wish, standing: &Standing) -> Result<()> {
    let session = &standing.session;
    if standing.status != UserStatus::Active {
        return Err(reason::ACCOUNT_DISABLED.into());
    }
    let tenant = core.edge.tenant(session.tenant);
    if tenant.is_none_or(|t| t.status != TenantStatus::Active) {
        return Err(reason::TENANT_SUSPENDED.into());
    }
    let now = cx.now();
    // Somebody may have become an administrator since the login.
    let longest = life(core, standing).absolute_end(session.created_at);
    let over = sessions::is_over(session, now) || now >= session.abs_expires_at.min(longest);
    if over || standing.device_revoked {
        let why = session.revoke_reason.as_deref().unwrap_or("expired");
        let members = Map::from_iter([("reason".to_owned(), why.into())]);
        return Err(Error::With(reason::REFRESH_INVALID, members));
    }
    // A token that scripts cannot read does not come from a script.
    if session.cookie != wish.cookie {
        return Err(reason::REFRESH_INVALID.into());
    }
    Ok(())
}

fn life(core: &Core, standing: &Standing) -> Life {
    let tenant = standing.session.tenant;
    Life::of(
        core,
        tenant,
        tokens::is_admin(core, tenant, &standing.roles),
    )
}

const fn stored(standing: &Standing) -> Stored {
    Stored {
        counter: standing.session.rt_counter,
        rotated_at: standing.session.rt_rotated_at,
        retried: standing.session.rt_retried,
    }
}

fn proved(wish: &Wish, standing: &Standing) -> bool {
    wish.device_secret
        .as_ref()
        .is_some_and(|s| constant_time_eq(&token_hash(s.expose()), &standing.secret_hash))
}

/// A session that is bound to its network ends nowhere else, but it is not refreshed from there (ID-95).
async fn check_network(core: &Arc<Core>, cx: &Context, standing: &Standing) -> Result<()> {
    let session = &standing.session;
    let admin = tokens::is_admin(core, session.tenant, &standing.roles);
    let login = session.ip.as_deref().and_then(|ip| ip.parse().ok());
    let (Some(login), Some(now)) = (login, cx.caller.address) else {
        return Ok(());
    };
    if !tokens::is_bound(core, session.tenant, admin)
        || access::network(login) == access::network(now)
    {
        return Ok(());
    }
    let unit = Unit::begin(core, cx).await?;
    let mut record = record("identity.session.ip_mismatch", standing);
    record.outcome = Outcome::Denied;
    record.code = Some(reason::IP_MISMATCH.code);
    unit.audit(record).await?;
    unit.commit().await?;
    Err(reason::IP_MISMATCH.into())
}

type Seen = (Changed, crate::domain::device::Fingerprint);

/// How the device has changed since it was seen last.
fn changed(core: &Core, cx: &Context, wish: &Wish, standing: &Standing) -> Result<Option<Seen>> {
    let whole = !wish.fingerprint.is_empty();
    let components = fingerprint::components(&wish.fingerprint, cx.caller.agent.as_deref());
    if !whole && !standing.fingerprint.contains_key("browser") {
        return Ok(None);
    }
    let session = &standing.session;
    let before = &standing.fingerprint;
    let judged = fingerprint::judge(
        core,
        session.tenant,
        session.device,
        before,
        &components,
        whole,
    )?;
    if judged.now == *before {
        return Ok(None);
    }
    let changed = Changed {
        score: judged.score,
        verdict: judged.verdict,
        device: session.device,
    };
    Ok(Some((changed, judged.now)))
}

/// The row as it is after the rotation.
fn rotated(core: &Core, cx: &Context, standing: &Standing, changed: Option<&Seen>) -> Rotation {
    let (now, session) = (cx.now(), &standing.session);
    Rotation {
        kid: core.keys.current().to_owned(),
        stored: Stored {
            counter: session.rt_counter.saturating_add(1),
            rotated_at: now,
            retried: rotation::rotated(session.rt_retried),
        },
        idle_expires_at: life(core, standing)
            .idle_end(now)
            .min(session.abs_expires_at),
        weakened: changed.is_some_and(|(c, _)| c.verdict == Verdict::StepUp),
    }
}

/// Writes the rotation, safe on the disk before it is answered; false when somebody was faster.
async fn rotate(
    core: &Arc<Core>,
    cx: &Context,
    standing: &Standing,
    next: &Rotation,
    changed: Option<Seen>,
) -> Result<bool> {
    let (now, session) = (cx.now(), &standing.session);
    let ip = cx.caller.address.map(|a| a.to_string());
    let due = now - standing.device_active_at >= SEEN_EVERY || ip != standing.device_ip;
    let noted = changed.as_ref().filter(|(c, _)| c.verdict >= Verdict::Note);
    let Some((noted, _)) = noted else {
        // The way that nearly all take: nothing but the row.
        let tx = core.db.begin_durable().await?;
        let won = store::sessions::rotate(&tx, session.id, session.rt_counter, next).await?;
        if won && (due || changed.is_some()) {
            let print = changed.as_ref().map(|(_, print)| print);
            store::devices::seen(&tx, session.device, ip, now, print).await?;
        }
        tx.commit().await?;
        return Ok(won);
    };
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, session.tenant, session.user).await?;
    let device = store::devices::get(&unit.tx, session.user, session.device).await?;
    let (Some(user), Some(mut device)) = (user, device) else {
        return Err(reason::REFRESH_INVALID.into());
    };
    if !store::sessions::rotate(&unit.tx, session.id, session.rt_counter, next).await? {
        return Ok(false);
    }
    let print = changed.as_ref().map(|(_, print)| print);
    store::devices::seen(&unit.tx, session.device, ip.clone(), now, print).await?;
    device.last_ip = ip;
    devices::tell_change(&unit, &user, session, &device, noted).await?;
    unit.commit().await?;
    Ok(true)
}

fn moved(mut standing: Standing, next: Rotation) -> Standing {
    let session = &mut standing.session;
    session.rt_kid = next.kid;
    session.rt_counter = next.stored.counter;
    session.rt_rotated_at = next.stored.rotated_at;
    session.rt_retried = next.stored.retried;
    session.idle_expires_at = next.idle_expires_at;
    if next.weakened {
        session.aal = 1;
        session.auth_time = portico_base::Timestamp::default();
    }
    standing
}

/// The answer was lost, and its receiver asks again: once a generation, and never in two that follow each
/// other.
async fn retried(core: &Arc<Core>, cx: &Context, standing: &Standing) -> Result<bool> {
    let session = &standing.session;
    let unit = Unit::begin_durable(core, cx).await?;
    let marked = session.rt_retried | rotation::THIS;
    if !store::sessions::retried(&unit.tx, session.id, session.rt_counter, marked).await? {
        return Ok(false);
    }
    store::logins::insert(&unit.tx, &event(&unit, standing, "refresh_retried")).await?;
    unit.audit(record("identity.refresh.retried", standing))
        .await?;
    unit.commit().await?;
    Ok(true)
}

/// A token that was used up before: two hold it, and nobody knows which is the thief (ID-102).
async fn reused<T>(core: &Arc<Core>, cx: &Context, standing: &Standing) -> Result<T> {
    let session = &standing.session;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            // First the user's row, as everybody does who ends sessions.
            let user = store::users::lock(&unit.tx, session.tenant, session.user).await?;
            if !sessions::end(&unit, session, "refresh_reused").await? {
                return Ok(());
            }
            store::logins::insert(&unit.tx, &event(&unit, standing, "refresh_reused")).await?;
            let mut record = record("identity.refresh.reused", standing);
            record.outcome = Outcome::Denied;
            unit.audit(record).await?;
            let payload = json!({
                "session_id": session.id, "user_id": session.user, "tenant_id": session.tenant,
                "device_id": session.device, "severity": "high",
            });
            unit.publish("identity.refresh.reused", &session.id.to_string(), &payload)?;
            if let Some(user) = user {
                core.notices
                    .send(&unit, &user, Notice::RefreshReused)
                    .await?;
            }
            unit.commit().await
        })
        .await?;
    Err(reason::REFRESH_INVALID.into())
}

/// Quite another device holds the token (ID-124).
async fn jumped<T>(
    core: &Arc<Core>,
    cx: &Context,
    standing: &Standing,
    changed: Option<Seen>,
) -> Result<T> {
    let session = &standing.session;
    let Some((changed, _)) = changed else {
        return Err(reason::REFRESH_INVALID.into());
    };
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = store::users::lock(&unit.tx, session.tenant, session.user).await?;
            let device = store::devices::get(&unit.tx, session.user, session.device).await?;
            if !sessions::end(&unit, session, "fingerprint_jumped").await? {
                return Ok(());
            }
            if let (Some(user), Some(mut device)) = (user, device) {
                device.last_ip = cx.caller.address.map(|a| a.to_string());
                devices::tell_change(&unit, &user, session, &device, &changed).await?;
            }
            unit.commit().await
        })
        .await?;
    let members = Map::from_iter([("reason".to_owned(), "fingerprint_jumped".into())]);
    Err(Error::With(reason::SESSION_REVOKED, members))
}

fn answer(core: &Core, cx: &Context, standing: &Standing) -> Result<Tokens> {
    let holder = Holder {
        session: &standing.session,
        tv: standing.tv,
        roles: &standing.roles,
        client_id: &standing.client_id,
        cx,
    };
    tokens::of(core, &holder)
}

fn record(action: &'static str, standing: &Standing) -> Record {
    let session = &standing.session;
    Record::done(action, "session", session.id.to_string(), session.tenant).change(
        "user",
        Some(session.user.to_string().into()),
        None,
    )
}

fn event(unit: &Unit, standing: &Standing, kind: &str) -> LoginEvent {
    let session = &standing.session;
    LoginEvent {
        id: unit.cx.new_id(),
        tenant: session.tenant,
        user: session.user,
        kind: kind.to_owned(),
        method: session.method.clone(),
        ip: unit.cx.caller.address.map(|a| a.to_string()),
        user_agent: unit.cx.caller.agent.as_deref().map(str::to_owned),
        device: Some(session.device),
        session: Some(session.id),
        detail: json!({}),
        at: unit.now(),
    }
}
