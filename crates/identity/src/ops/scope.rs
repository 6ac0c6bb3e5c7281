//! Whom a caller may administer: the own tenant, or all of them. What is another's is not there (ID-1).

use portico_base::{Context, Permission, Principal, id};
use portico_db::sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::domain::role::Role;
use crate::domain::tenant::Tenant;
use crate::domain::user::{User, UserStatus};
use crate::error::{Result, reason};
use crate::permissions::TENANT_MANAGE;
use crate::store;

/// True for administrators of all tenants.
pub(crate) fn acts_for_all(principal: &Principal) -> bool {
    principal.may(&TENANT_MANAGE)
}

/// The tenant that a call is about: named by slug or id, else the caller's own. Administrators of the
/// installation mean `default` when they name none, so that nobody ever has to choose (ID-2).
pub(crate) async fn tenant(
    conn: &impl ConnectionTrait,
    cx: &Context,
    wanted: Option<&str>,
) -> Result<Tenant> {
    let own = cx.tenant();
    let for_all = acts_for_all(cx.principal());
    let found = match wanted {
        None if for_all && own == id::TENANT_SYSTEM => {
            store::tenants::get(conn, id::TENANT_DEFAULT).await?
        }
        None => store::tenants::get(conn, own).await?,
        Some(text) => match Uuid::parse_str(text) {
            Ok(id) => store::tenants::get(conn, id).await?,
            Err(_) => store::tenants::by_slug(conn, text).await?,
        },
    };
    found
        .filter(|t| for_all || t.id == own)
        .ok_or_else(|| reason::TENANT_NOT_FOUND.into())
}

/// A user whom the caller may see.
pub(crate) async fn user(conn: &impl ConnectionTrait, cx: &Context, id: Uuid) -> Result<User> {
    let tenant = tenant_of_user(conn, cx, id).await?;
    store::users::get(conn, tenant, id)
        .await?
        .filter(|u| u.status != UserStatus::Deleted)
        .ok_or_else(|| reason::USER_NOT_FOUND.into())
}

/// A user whom the caller may change, locked until the end of the transaction: nobody administers somebody
/// who may do more than they may themselves.
pub(crate) async fn user_to_change(
    conn: &impl ConnectionTrait,
    cx: &Context,
    id: Uuid,
) -> Result<User> {
    let tenant = tenant_of_user(conn, cx, id).await?;
    let user = store::users::lock(conn, tenant, id)
        .await?
        .filter(|u| u.status != UserStatus::Deleted)
        .ok_or(reason::USER_NOT_FOUND)?;
    let roles = store::roles::of_user(conn, user.id).await?;
    if !covers(cx.principal(), &roles) {
        return Err(reason::GRANT_EXCEEDS_OWN.into());
    }
    Ok(user)
}

/// True when the caller may do everything that the roles allow.
pub(crate) fn covers(principal: &Principal, roles: &[Role]) -> bool {
    let mut all = roles.iter().flat_map(|role| &role.permissions);
    all.all(|permission: &Permission| principal.may(permission))
}

/// The tenant in which the caller may look for a user, deleted or not.
pub(crate) async fn tenant_of_user(
    conn: &impl ConnectionTrait,
    cx: &Context,
    id: Uuid,
) -> Result<Uuid> {
    if !acts_for_all(cx.principal()) {
        return Ok(cx.tenant());
    }
    let tenant = store::users::tenant_of(conn, id).await?;
    tenant.ok_or_else(|| reason::USER_NOT_FOUND.into())
}
