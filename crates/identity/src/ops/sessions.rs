//! Sessions: ending them by row, revocation and event in one unit (ID-110), and listing them.

use std::sync::Arc;

use portico_base::{Context, Principal, Timestamp};
use portico_contract::audit::Record;
use serde_json::json;
use uuid::Uuid;

use super::{need, need_user, scope};
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::permissions::{SESSION_READ, SESSION_WRITE};
use crate::store;
use crate::store::logins::LoginEvent;
use crate::store::revocations::Kind;
use crate::store::sessions::Filter;
use crate::unit::Unit;

/// Most live sessions of a user that are shown.
const SHOWN: u64 = 200;

/// Which sessions a user logs out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogOut {
    /// The one that asks.
    #[default]
    This,
    /// All but that one.
    Others,
    All,
}

/// Ends a live session within the unit: its row, its revocation and `identity.session.revoked`. False when
/// it had ended before. `reason` is what the client is told: `logout`, `kicked`, `evicted`, `replaced`,
/// `password_changed`, `disabled`, `refresh_reused`, …
pub(crate) async fn end(unit: &Unit, session: &Session, reason: &str) -> Result<bool> {
    if !store::sessions::end(&unit.tx, session.id, reason, unit.now()).await? {
        return Ok(false);
    }
    tell(unit, session.tenant, session.user, session.id, reason).await?;
    Ok(true)
}

/// Ends some sessions, each for its reason. First all rows, then the log: whoever ends one of them meanwhile
/// locks in the same order.
pub(crate) async fn end_each(unit: &Unit, sessions: &[(Session, &'static str)]) -> Result<()> {
    let mut ended = Vec::with_capacity(sessions.len());
    for (session, reason) in sessions {
        if store::sessions::end(&unit.tx, session.id, reason, unit.now()).await? {
            ended.push((session, reason));
        }
    }
    for (session, reason) in ended {
        // Its tokens ended with it.
        if *reason != "expired" {
            tell(unit, session.tenant, session.user, session.id, reason).await?;
        }
    }
    Ok(())
}

/// Ends all live sessions of a user, but perhaps one, within the unit; answers their ids. Whoever means that
/// the user stays out raises the user's version first: the raised row is the lock that a login waits for.
pub(crate) async fn end_all(
    unit: &Unit,
    user: &User,
    except: Option<Uuid>,
    reason: &str,
) -> Result<Vec<Uuid>> {
    let ended = store::sessions::end_all(&unit.tx, user.id, except, reason, unit.now()).await?;
    for session in &ended {
        tell(unit, user.tenant, user.id, *session, reason).await?;
    }
    Ok(ended)
}

async fn tell(unit: &Unit, tenant: Uuid, user: Uuid, session: Uuid, reason: &str) -> Result<()> {
    let subject = session.to_string();
    unit.revoke(Kind::Session, tenant, &subject, 0, reason)
        .await?;
    unit.publish(
        "identity.session.revoked",
        &subject,
        &json!({ "session_id": session, "user_id": user, "tenant_id": tenant, "reason": reason }),
    )
}

/// The session that a principal came with.
pub(crate) fn session_of(principal: &Principal) -> Option<Uuid> {
    principal
        .session
        .as_deref()
        .and_then(|text| Uuid::parse_str(text).ok())
}

/// Logs the caller out: here, elsewhere, or everywhere.
pub(crate) async fn log_out(core: &Arc<Core>, cx: &Context, which: LogOut) -> Result<()> {
    let user = need_user(cx)?;
    let own = session_of(cx.principal()).ok_or(reason::SESSION_REVOKED)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            // The row is the lock that a login waits for, so that none slips in between.
            let user = store::users::lock(&unit.tx, cx.tenant(), user)
                .await?
                .ok_or(reason::USER_NOT_FOUND)?;
            match which {
                LogOut::This => {
                    let session = store::sessions::of_tenant(&unit.tx, cx.tenant(), own).await?;
                    if let Some(session) = session.filter(|s| s.user == user.id) {
                        end(&unit, &session, "logout").await?;
                    }
                }
                LogOut::Others => {
                    end_all(&unit, &user, Some(own), "logout").await?;
                }
                LogOut::All => {
                    end_all(&unit, &user, None, "logout").await?;
                }
            }
            let record = Record::done(
                "identity.session.ended",
                "user",
                user.id.to_string(),
                user.tenant,
            );
            let which = format!("{which:?}").to_lowercase();
            unit.audit(record.change("sessions", None, Some(which.into())))
                .await?;
            unit.commit().await
        })
        .await
}

/// The caller's own live sessions, newest first.
pub(crate) async fn own(core: &Core, cx: &Context) -> Result<Vec<Session>> {
    let user = need_user(cx)?;
    live_of(core, cx, cx.tenant(), user).await
}

/// The live sessions of a user whom the caller may see.
pub(crate) async fn of_user(core: &Core, cx: &Context, user: Uuid) -> Result<Vec<Session>> {
    need(cx, SESSION_READ)?;
    let user = scope::user(core.db.reader(), cx, user).await?;
    live_of(core, cx, user.tenant, user.id).await
}

async fn live_of(core: &Core, cx: &Context, tenant: Uuid, user: Uuid) -> Result<Vec<Session>> {
    let filter = Filter {
        user: Some(user),
        ..Filter::default()
    };
    let conn = core.db.reader();
    Ok(store::sessions::list(conn, tenant, &filter, cx.now(), SHOWN).await?)
}

/// Logins of a user whom the caller may see, and what was odd about refreshes; newest first.
pub(crate) async fn events(
    core: &Core,
    cx: &Context,
    user: Uuid,
    after: Option<(Timestamp, Uuid)>,
    limit: usize,
) -> Result<Vec<LoginEvent>> {
    need(cx, SESSION_READ)?;
    let conn = core.db.reader();
    let user = scope::user(conn, cx, user).await?;
    Ok(store::logins::of_user(conn, user.tenant, user.id, after, limit as u64).await?)
}

/// Sessions of a tenant, newest first.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    tenant: Option<&str>,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Session>> {
    need(cx, SESSION_READ)?;
    let conn = core.db.reader();
    let tenant = scope::tenant(conn, cx, tenant).await?;
    Ok(store::sessions::list(conn, tenant.id, filter, cx.now(), limit as u64).await?)
}

/// Ends anybody's session whom the caller may administer.
pub(crate) async fn end_by_admin(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    need(cx, SESSION_WRITE)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let session = store::sessions::get(&unit.tx, id)
                .await?
                .ok_or(reason::NOT_FOUND)?;
            // Whoever may not change the user may not log them out: to others the session is not there.
            let user = scope::user_to_change(&unit.tx, cx, session.user).await;
            let user = user.map_err(|error| match error.is(reason::USER_NOT_FOUND) {
                true => reason::NOT_FOUND.into(),
                false => error,
            })?;
            if !end(&unit, &session, "admin").await? {
                return Err(reason::NOT_FOUND.into());
            }
            unit.audit(ended(&session, &user)).await?;
            unit.commit().await
        })
        .await
}

/// Logs a user out everywhere.
pub(crate) async fn log_user_out(core: &Arc<Core>, cx: &Context, user: Uuid) -> Result<usize> {
    need(cx, SESSION_WRITE)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = scope::user_to_change(&unit.tx, cx, user).await?;
            let ended = end_all(&unit, &user, None, "admin").await?;
            let record = Record::done(
                "identity.user.logged_out",
                "user",
                user.id.to_string(),
                user.tenant,
            );
            unit.audit(record.change("sessions", None, Some(ended.len().into())))
                .await?;
            unit.commit().await?;
            Ok(ended.len())
        })
        .await
}

fn ended(session: &Session, user: &User) -> Record {
    Record::done(
        "identity.session.ended",
        "session",
        session.id.to_string(),
        user.tenant,
    )
    .change("user", Some(user.id.to_string().into()), None)
}

/// True for a session that has ended, by somebody or by time.
pub(crate) fn is_over(session: &Session, now: Timestamp) -> bool {
    session.revoked_at.is_some() || session.idle_expires_at <= now
}
