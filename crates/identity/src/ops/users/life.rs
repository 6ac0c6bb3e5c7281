//! Disabling, enabling and deleting users: at once at every edge (ID-12, ID-25).

use std::sync::Arc;

use portico_base::{Context, FieldFault, Timestamp, id};
use uuid::Uuid;

use super::query::{Found, found_in};
use super::{publish, record};
use crate::domain::role::{SUPER_ADMIN, built_in_id};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::{apple, need, scope, sessions};
use crate::permissions::USER_WRITE;
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// Whoever may take a super administrator away waits for this first, and for the user's row after it.
pub(crate) const ADMINS: &str = "identity.super_admins";

/// Longest reason.
const REASON: usize = 256;
/// Users that are enabled again in one run of the job.
const AT_ONCE: u64 = 500;

/// Disables a user, perhaps until a moment. Done twice, the last reason and end hold.
pub(crate) async fn disable(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    why: Option<String>,
    until: Option<Timestamp>,
) -> Result<Found> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = locked(&unit, id).await?;
    let user = disable_in(&unit, user, why, until).await?;
    let found = found_in(&unit, user).await?;
    unit.commit().await?;
    Ok(found)
}

/// Lets a disabled user log in again. Nothing that was ended comes back.
pub(crate) async fn enable(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<Found> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = scope::user_to_change(&unit.tx, cx, id).await?;
    let user = enable_in(&unit, user).await?;
    let found = found_in(&unit, user).await?;
    unit.commit().await?;
    Ok(found)
}

/// Deletes a user: the names are free again, the row stays until it is erased.
pub(crate) async fn delete(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    why: Option<String>,
) -> Result<()> {
    need(cx, USER_WRITE)?;
    let why = reason_of(why)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut user = locked(&unit, id).await?;
    if user.legal_hold {
        return Err(reason::LEGAL_HOLD.into());
    }
    keep_an_admin(&unit, &user).await?;
    let before = user.status;
    user.status = UserStatus::Deleted;
    user.deleted_at = Some(unit.now());
    user.updated_at = unit.now();
    store::users::put(&unit.tx, &user).await?;
    end_access(&unit, &user, "deleted").await?;
    apple::revoke_all(&unit, &user).await?;
    let mut record = record("identity.user.deleted", &user).change(
        "status",
        Some(before.as_str().into()),
        Some("deleted".into()),
    );
    record.reason = why;
    unit.audit(record).await?;
    publish(&unit, "identity.user.deleted", &user)?;
    unit.commit().await
}

/// Enables users whose time is over (`identity.disabled_until`); answers how many.
pub(crate) async fn enable_due(core: &Arc<Core>) -> Result<usize> {
    let cx = core.own_context("identity.disabled_until");
    let due = store::users::disabled_until(core.db.reader(), cx.now(), AT_ONCE).await?;
    let mut done = 0;
    for (tenant, id) in due {
        let unit = Unit::begin_durable(core, &cx).await?;
        let user = store::users::lock(&unit.tx, tenant, id).await?;
        // Somebody may have disabled the user for longer meanwhile.
        let due = |u: &User| u.disabled_until.is_some_and(|until| until <= unit.now());
        let Some(user) = user.filter(|u| u.status == UserStatus::Disabled && due(u)) else {
            continue;
        };
        enable_in(&unit, user).await?;
        unit.commit().await?;
        done += 1;
    }
    Ok(done)
}

/// Refuses every token, session and API key of the user from the commit on. The raised row is the lock that
/// a login waits for, so it comes first; the log is everybody's and comes last.
pub(crate) async fn end_access(unit: &Unit, user: &User, cause: &str) -> Result<()> {
    let tv = store::users::raise(&unit.tx, user.tenant, user.id, unit.now()).await?;
    let tv = tv.ok_or(reason::USER_NOT_FOUND)?;
    sessions::end_all(unit, user, None, cause).await?;
    let subject = user.id.to_string();
    unit.revoke(Kind::User, user.tenant, &subject, tv, cause)
        .await
}

/// The same as [`disable`] within a unit; the user's row is locked.
pub(crate) async fn disable_in(
    unit: &Unit,
    mut user: User,
    why: Option<String>,
    until: Option<Timestamp>,
) -> Result<User> {
    let why = reason_of(why)?;
    if until.is_some_and(|until| until <= unit.now()) {
        return Err(Error::field("until", "past", "must be in the future"));
    }
    keep_an_admin(unit, &user).await?;
    let before = user.status;
    user.status = UserStatus::Disabled;
    user.disabled_reason.clone_from(&why);
    user.disabled_until = until;
    user.updated_at = unit.now();
    store::users::put(&unit.tx, &user).await?;
    if before != UserStatus::Disabled {
        end_access(unit, &user, "disabled").await?;
    }
    let mut record = record("identity.user.disabled", &user)
        .change(
            "status",
            Some(before.as_str().into()),
            Some("disabled".into()),
        )
        .change("until", None, until.map(|t| t.to_rfc3339().into()));
    record.reason = why;
    unit.audit(record).await?;
    publish(unit, "identity.user.disabled", &user)?;
    Ok(user)
}

/// The same as [`enable`] within a unit; the user's row is locked.
pub(crate) async fn enable_in(unit: &Unit, mut user: User) -> Result<User> {
    if user.status != UserStatus::Disabled {
        return Ok(user);
    }
    user.status = UserStatus::Active;
    user.disabled_reason = None;
    user.disabled_until = None;
    user.updated_at = unit.now();
    store::users::put(&unit.tx, &user).await?;
    unit.audit(record("identity.user.enabled", &user).change(
        "status",
        Some("disabled".into()),
        Some("active".into()),
    ))
    .await?;
    publish(unit, "identity.user.enabled", &user)?;
    Ok(user)
}

/// The user's row locked, behind the lock of super administrators where that may be needed: always in this
/// order, so that nobody waits in a circle.
pub(crate) async fn locked(unit: &Unit, id: Uuid) -> Result<User> {
    if scope::acts_for_all(unit.cx.principal()) || unit.cx.tenant() == id::TENANT_SYSTEM {
        let tenant = store::users::tenant_of(&unit.tx, id).await?;
        if tenant == Some(id::TENANT_SYSTEM) {
            unit.tx.serialise(ADMINS).await?;
        }
    }
    scope::user_to_change(&unit.tx, &unit.cx, id).await
}

/// Refuses when nobody could administer the installation without this user (ID-25). Whoever asks holds the
/// lock of super administrators.
pub(crate) async fn keep_an_admin(unit: &Unit, user: &User) -> Result<()> {
    // Whoever has asked to be deleted is not counted any more.
    if user.tenant != id::TENANT_SYSTEM
        || user.status != UserStatus::Active
        || user.delete_at.is_some()
    {
        return Ok(());
    }
    let role = built_in_id(SUPER_ADMIN).expect("super administrators are built in");
    let roles = store::roles::of_user(&unit.tx, user.id).await?;
    if !roles.iter().any(|r| r.id == role) {
        return Ok(());
    }
    let active = UserStatus::Active.as_str();
    let left = store::roles::count_holders(&unit.tx, id::TENANT_SYSTEM, role, active).await?;
    if left <= 1 {
        return Err(reason::LAST_ADMIN.into());
    }
    Ok(())
}

/// A reason as people give it.
pub(crate) fn reason_of(why: Option<String>) -> Result<Option<String>> {
    let why = why.filter(|text| !text.trim().is_empty());
    match &why {
        Some(text) if text.len() > REASON || text.chars().any(char::is_control) => {
            let message = "must be at most 256 bytes without control characters";
            Err(Error::Invalid(vec![FieldFault::new(
                "reason", "form", message,
            )]))
        }
        _ => Ok(why),
    }
}
