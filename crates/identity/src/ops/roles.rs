//! Roles: what each allows, and who may say so (ID-20…24).

use std::sync::Arc;

use portico_base::{Context, FieldFault, Permission, id};
use portico_contract::audit::Record;
use portico_db::sea_orm::ConnectionTrait;
use serde_json::json;
use uuid::Uuid;

use super::{need, scope};
use crate::domain::role::{Known, Role, SUPER_ADMIN, TENANT_ADMIN, built_in_id};
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{ROLE_READ, ROLE_WRITE};
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// Roles that a tenant makes.
const MOST: usize = 100;
/// Permissions of a role.
const PERMISSIONS: usize = 500;
/// Holders of a role that can be deleted: each of them must refresh.
const HOLDERS: u64 = 1_000;

/// A role to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewRole {
    pub name: String,
    pub title_zh: String,
    pub title_en: String,
    pub permissions: Vec<String>,
}

/// What is changed of a role.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleEdit {
    pub title_zh: Option<String>,
    pub title_en: Option<String>,
    pub permissions: Option<Vec<String>>,
}

/// The roles of a user.
pub(crate) async fn of(conn: &impl ConnectionTrait, user: &User) -> Result<Vec<Role>> {
    Ok(store::roles::of_user(conn, user.id).await?)
}

/// True for whoever holds a built-in administrators' role, or a permission that is declared as one's (ID-76).
pub(crate) fn is_admin(core: &Core, roles: &[Role]) -> bool {
    let held = roles.iter().flat_map(|role| &role.permissions);
    let built_in = roles.iter().filter(|role| role.built_in);
    administers(core, built_in.map(|role| &role.name), held)
}

/// The same, where only the roles' names and what they allow are known.
pub(crate) fn administers<'a>(
    core: &Core,
    mut names: impl Iterator<Item = &'a String>,
    mut held: impl Iterator<Item = &'a Permission>,
) -> bool {
    // Nobody makes a role of these names.
    let known = core.admin_permissions.get().map_or(&[][..], |all| all);
    names.any(|name| name == SUPER_ADMIN || name == TENANT_ADMIN)
        || held.any(|permission| known.iter().any(|k| permission.covers(k)))
}

/// All known permissions.
pub(crate) async fn permissions(core: &Core, cx: &Context) -> Result<Vec<Known>> {
    need(cx, ROLE_READ)?;
    let mut known = store::roles::permissions(core.db.reader()).await?;
    // What reaches beyond a tenant concerns only those who do.
    if cx.tenant() != id::TENANT_SYSTEM && !scope::acts_for_all(cx.principal()) {
        known.retain(|k| !k.system);
    }
    Ok(known)
}

/// The roles of a tenant, and the built-in ones that can be held there.
pub(crate) async fn list(core: &Core, cx: &Context, tenant: Option<&str>) -> Result<Vec<Role>> {
    need(cx, ROLE_READ)?;
    let conn = core.db.reader();
    let tenant = scope::tenant(conn, cx, tenant).await?;
    let mut roles = store::roles::of_tenant(conn, tenant.id).await?;
    roles.retain(|role| holdable(role, tenant.id));
    Ok(roles)
}

/// A role that the caller may see.
pub(crate) async fn get(core: &Core, cx: &Context, id: Uuid) -> Result<Role> {
    need(cx, ROLE_READ)?;
    visible(core.db.reader(), cx, id).await
}

/// Makes a role.
pub(crate) async fn create(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Option<&str>,
    new: NewRole,
) -> Result<Role> {
    need(cx, ROLE_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let tenant = scope::tenant(&unit.tx, cx, tenant).await?.id;
    unit.tx
        .serialise(&format!("identity.roles.{tenant}"))
        .await?;
    let known = store::roles::permissions(&unit.tx).await?;
    let mut faults = Vec::new();
    faults.extend(name_fault(&new.name));
    faults.extend(title_fault("title_zh", &new.title_zh));
    faults.extend(title_fault("title_en", &new.title_en));
    let permissions = permission_set(&new.permissions, tenant, &known, &mut faults);
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    may_hand_out(cx, &permissions)?;
    let rows = store::roles::of_tenant(&unit.tx, tenant).await?;
    if rows.iter().any(|r| r.name == new.name) {
        return Err(reason::ROLE_TAKEN.into());
    }
    if rows.iter().filter(|r| !r.built_in).count() >= MOST {
        return Err(super::tenants::exceeded("roles", MOST as u64));
    }
    let role = Role {
        id: cx.new_id(),
        tenant: Some(tenant),
        name: new.name,
        title_zh: new.title_zh,
        title_en: new.title_en,
        permissions,
        built_in: false,
        created_at: unit.now(),
        updated_at: unit.now(),
    };
    store::roles::insert(&unit.tx, &role).await?;
    unit.audit(record("identity.role.created", &role).change(
        "permissions",
        None,
        Some(texts(&role)),
    ))
    .await?;
    changed(&unit, &role, "created").await?;
    unit.commit().await?;
    Ok(role)
}

/// Changes titles and permissions of a role; edges follow within a second (ID-24).
pub(crate) async fn update(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    wish: RoleEdit,
) -> Result<Role> {
    need(cx, ROLE_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let before = own(&unit, cx, id).await?;
    let tenant = before.tenant.unwrap_or_default();
    let known = store::roles::permissions(&unit.tx).await?;
    // Whoever cannot grant the role as it is must not empty it either.
    may_hand_out(cx, &before.permissions)?;
    let mut role = before.clone();
    let mut faults = Vec::new();
    if let Some(title) = wish.title_zh {
        faults.extend(title_fault("title_zh", &title));
        role.title_zh = title;
    }
    if let Some(title) = wish.title_en {
        faults.extend(title_fault("title_en", &title));
        role.title_en = title;
    }
    if let Some(wanted) = &wish.permissions {
        role.permissions = permission_set(wanted, tenant, &known, &mut faults);
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    may_hand_out(cx, &role.permissions)?;
    if role == before {
        return Ok(role);
    }
    role.updated_at = unit.now();
    store::roles::put(&unit.tx, &role).await?;
    let record = record("identity.role.changed", &role).change(
        "permissions",
        Some(texts(&before)),
        Some(texts(&role)),
    );
    unit.audit(record).await?;
    changed(&unit, &role, "changed").await?;
    unit.commit().await?;
    Ok(role)
}

/// Deletes a role; whoever had it must refresh.
pub(crate) async fn delete(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    need(cx, ROLE_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let role = own(&unit, cx, id).await?;
    let tenant = role.tenant.unwrap_or_default();
    may_hand_out(cx, &role.permissions)?;
    let holders = store::roles::holders(&unit.tx, tenant, id, HOLDERS + 1).await?;
    if holders.len() as u64 > HOLDERS {
        return Err(reason::ROLE_IN_USE.into());
    }
    for user in &holders {
        store::roles::ungrant(&unit.tx, *user, id).await?;
    }
    store::roles::delete(&unit.tx, id).await?;
    super::grants::stale(&unit, tenant, &holders).await?;
    let record = record("identity.role.deleted", &role)
        .change("permissions", Some(texts(&role)), None)
        .change("holders", Some(holders.len().into()), None);
    unit.audit(record).await?;
    changed(&unit, &role, "deleted").await?;
    unit.commit().await
}

/// Roles of a tenant by their names; a fault for each that is not there or cannot be held there.
pub(crate) async fn named(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    names: &[String],
) -> Result<Vec<Role>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = store::roles::of_tenant(conn, tenant).await?;
    let mut found: Vec<Role> = Vec::new();
    let mut faults = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let field = format!("roles[{i}]");
        match rows.iter().find(|role| role.name == *name) {
            None => faults.push(FieldFault::new(field, "unknown", "there is no such role")),
            Some(role) if !holdable(role, tenant) => {
                let message = "can be held in the tenant `system` only";
                faults.push(FieldFault::new(field, "not_here", message));
            }
            Some(role) if found.iter().any(|f| f.id == role.id) => {}
            Some(role) => found.push(role.clone()),
        }
    }
    if faults.is_empty() {
        Ok(found)
    } else {
        Err(Error::Invalid(faults))
    }
}

/// Refuses to give what the caller does not hold (ID-22).
pub(crate) fn may_grant(cx: &Context, roles: &[Role]) -> Result<()> {
    if scope::covers(cx.principal(), roles) {
        Ok(())
    } else {
        Err(reason::GRANT_EXCEEDS_OWN.into())
    }
}

/// Super administrators exist in the tenant `system` only (ID-21).
fn holdable(role: &Role, tenant: Uuid) -> bool {
    tenant == id::TENANT_SYSTEM || Some(role.id) != built_in_id(SUPER_ADMIN)
}

async fn visible(conn: &impl ConnectionTrait, cx: &Context, id: Uuid) -> Result<Role> {
    store::roles::get(conn, id)
        .await?
        .filter(|r| {
            r.tenant.is_none_or(|t| t == cx.tenant()) || scope::acts_for_all(cx.principal())
        })
        .ok_or_else(|| reason::ROLE_NOT_FOUND.into())
}

/// A role that can be changed, locked.
async fn own(unit: &Unit, cx: &Context, id: Uuid) -> Result<Role> {
    let role = visible(&unit.tx, cx, id).await?;
    let Some(tenant) = role.tenant else {
        return Err(reason::BUILT_IN.into());
    };
    unit.tx
        .serialise(&format!("identity.roles.{tenant}"))
        .await?;
    // What stood there while we waited may have changed.
    visible(&unit.tx, cx, id).await
}

/// Every edge reads roles again, and others hear of it.
async fn changed(unit: &Unit, role: &Role, cause: &str) -> Result<()> {
    let tenant = role.tenant.unwrap_or_default();
    let subject = role.id.to_string();
    unit.revoke(Kind::Roles, tenant, &subject, 0, cause).await?;
    let payload = json!({ "role_id": role.id, "tenant_id": tenant, "name": role.name });
    unit.publish("identity.role.changed", &subject, &payload)
}

/// Refuses permissions that the caller does not hold (ID-22).
fn may_hand_out(cx: &Context, wanted: &[Permission]) -> Result<()> {
    if wanted
        .iter()
        .all(|permission| cx.principal().may(permission))
    {
        Ok(())
    } else {
        Err(reason::GRANT_EXCEEDS_OWN.into())
    }
}

/// Permissions as people write them: `music:*` is short for `music:*:*`.
fn permission_set(
    texts: &[String],
    tenant: Uuid,
    known: &[Known],
    faults: &mut Vec<FieldFault>,
) -> Vec<Permission> {
    let mut set: Vec<Permission> = Vec::new();
    if texts.len() > PERMISSIONS {
        let message = format!("must be at most {PERMISSIONS}");
        faults.push(FieldFault::new("permissions", "too_many", message));
        return set;
    }
    for (i, text) in texts.iter().enumerate() {
        let field = format!("permissions[{i}]");
        let whole = match text.strip_suffix(":*") {
            Some(service) if !service.contains(':') => format!("{service}:*:*"),
            _ => text.clone(),
        };
        match grantable(&whole, tenant, known) {
            Ok(permission) if set.contains(&permission) => {}
            Ok(permission) => set.push(permission),
            Err((code, message)) => faults.push(FieldFault::new(field, code, message)),
        }
    }
    set.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    set
}

/// A permission that a role of a tenant can have.
fn grantable(
    text: &str,
    tenant: Uuid,
    known: &[Known],
) -> std::result::Result<Permission, (&'static str, &'static str)> {
    let permission = Permission::parse(text)
        .map_err(|_| ("form", "must be of the form service:resource:action"))?;
    let parts: Vec<&str> = text.split(':').collect();
    let whole = |part: &str| part == "*";
    let starred = |part: &str| part.contains('*');
    let form = !starred(parts[0])
        && (!starred(parts[1]) || whole(parts[1]) && whole(parts[2]))
        && (!starred(parts[2]) || whole(parts[2]));
    if !form {
        return Err((
            "wildcard",
            "a wildcard stands for a whole service or resource",
        ));
    }
    let mut all = known
        .iter()
        .filter(|k| k.is_covered_by(&permission))
        .peekable();
    if all.peek().is_none() {
        return Err(("unknown", "no service declares it"));
    }
    if tenant != id::TENANT_SYSTEM && all.any(|k| k.system) {
        return Err(("not_here", "reaches beyond the tenant"));
    }
    Ok(permission)
}

fn name_fault(name: &str) -> Option<FieldFault> {
    let good = (2..=40).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    (!good).then(|| {
        let message = "must be 2 to 40 of a-z, 0-9 and `_`, a letter first";
        FieldFault::new("name", "form", message)
    })
}

fn title_fault(field: &str, title: &str) -> Option<FieldFault> {
    let good = !title.trim().is_empty()
        && title.chars().count() <= 64
        && !title.chars().any(char::is_control);
    (!good).then(|| {
        let message = "must have 1 to 64 characters without control characters";
        FieldFault::new(field, "form", message)
    })
}

fn record(action: &'static str, role: &Role) -> Record {
    let tenant = role.tenant.unwrap_or_default();
    Record::done(action, "role", role.id.to_string(), tenant).change(
        "name",
        None,
        Some(role.name.as_str().into()),
    )
}

fn texts(role: &Role) -> serde_json::Value {
    role.permissions.iter().map(Permission::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Known> {
        let one = |name: &'static str, system| Known {
            name: Permission::new(name),
            service: "music".to_owned(),
            title_zh: String::new(),
            title_en: String::new(),
            admin: false,
            system,
            plugin: false,
        };
        vec![
            one("music:playlist:read", false),
            one("music:playlist:write", false),
            one("music:cache:write", true),
        ]
    }

    #[test]
    fn only_known_permissions_and_whole_wildcards_can_be_granted() {
        let code = |text: &str, tenant| grantable(text, tenant, &known()).err().map(|e| e.0);
        assert_eq!(code("music:playlist:read", id::TENANT_DEFAULT), None);
        assert_eq!(code("music:playlist:*", id::TENANT_DEFAULT), None);
        assert_eq!(code("music:*:*", id::TENANT_DEFAULT), Some("not_here"));
        assert_eq!(
            code("music:cache:write", id::TENANT_DEFAULT),
            Some("not_here")
        );
        assert_eq!(code("music:*:*", id::TENANT_SYSTEM), None);
        for bad in [
            "*:*:*",
            "*:playlist:read",
            "music:*:read",
            "mu*:playlist:read",
            "music:play*:*",
        ] {
            assert_eq!(code(bad, id::TENANT_SYSTEM), Some("wildcard"), "{bad}");
        }
        assert_eq!(code("music:album:read", id::TENANT_SYSTEM), Some("unknown"));
        assert_eq!(code("music:album:*", id::TENANT_SYSTEM), Some("unknown"));
        assert_eq!(code("music:playlist", id::TENANT_SYSTEM), Some("form"));
        let mut faults = Vec::new();
        let set = permission_set(
            &["music:*".to_owned()],
            id::TENANT_SYSTEM,
            &known(),
            &mut faults,
        );
        assert_eq!((set[0].as_str(), faults.len()), ("music:*:*", 0));
    }
}
