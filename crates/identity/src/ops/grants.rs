//! Who has which role (ID-22, ID-24, ID-25).

use std::sync::Arc;

use portico_base::Context;
use serde_json::Value;
use uuid::Uuid;

use super::users::{publish, record};
use super::{need, roles, scope, users};
use crate::domain::role::{Role, SUPER_ADMIN};
use crate::domain::user::User;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::permissions::{ROLE_WRITE, USER_READ};
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// The roles of a user whom the caller may see.
pub(crate) async fn list(core: &Core, cx: &Context, user: Uuid) -> Result<Vec<Role>> {
    need(cx, USER_READ)?;
    let user = scope::user(core.db.reader(), cx, user).await?;
    roles::of(core.db.reader(), &user).await
}

/// Gives a user exactly these roles.
pub(crate) async fn set(
    core: &Arc<Core>,
    cx: &Context,
    user: Uuid,
    names: &[String],
) -> Result<Vec<Role>> {
    need(cx, ROLE_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = users::locked(&unit, user).await?;
    let wanted = roles::named(&unit.tx, user.tenant, names).await?;
    set_in(&unit, &user, wanted.clone()).await?;
    unit.commit().await?;
    Ok(wanted)
}

/// The same within a unit; the user's row is locked. Answers whether anything changed. Roles that the user
/// has and the caller does not are no question here: then the user could not be locked for change.
pub(crate) async fn set_in(unit: &Unit, user: &User, wanted: Vec<Role>) -> Result<bool> {
    let held = store::roles::of_user(&unit.tx, user.id).await?;
    let not_in = |of: &[Role], list: &[Role]| -> Vec<Role> {
        let new = |r: &&Role| !list.iter().any(|l| l.id == r.id);
        of.iter().filter(new).cloned().collect()
    };
    let added = not_in(&wanted, &held);
    let removed = not_in(&held, &wanted);
    if added.is_empty() && removed.is_empty() {
        return Ok(false);
    }
    roles::may_grant(&unit.cx, &added)?;
    if removed.iter().any(|role| role.name == SUPER_ADMIN) {
        users::keep_an_admin(unit, user).await?;
    }
    for role in &removed {
        store::roles::ungrant(&unit.tx, user.id, role.id).await?;
    }
    let by = unit.cx.principal().subject.to_string();
    for role in &added {
        store::roles::grant(&unit.tx, user.tenant, user.id, role.id, &by, unit.now()).await?;
    }
    stale(unit, user.tenant, &[user.id]).await?;
    let names = |roles: &[Role]| -> Value { roles.iter().map(|r| r.name.as_str()).collect() };
    let change = record("identity.user.roles_changed", user).change(
        "roles",
        Some(names(&held)),
        Some(names(&wanted)),
    );
    unit.audit(change).await?;
    publish(unit, "identity.user.updated", user)?;
    Ok(true)
}

/// The tokens of users say roles that are not right any more: they are refused once, and a refresh brings
/// the right ones. Rows first: the log is everybody's and comes last.
pub(crate) async fn stale(unit: &Unit, tenant: Uuid, users: &[Uuid]) -> Result<()> {
    let mut raised = Vec::with_capacity(users.len());
    for user in users {
        let tv = store::users::raise(&unit.tx, tenant, *user, unit.now()).await?;
        raised.push((user, tv.ok_or(reason::USER_NOT_FOUND)?));
    }
    for (user, tv) in raised {
        unit.revoke(Kind::User, tenant, &user.to_string(), tv, "claims")
            .await?;
    }
    Ok(())
}
