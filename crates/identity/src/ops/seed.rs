//! The rows that every installation has: two tenants, the built-in roles, the known permissions (ID-2, ID-20, ID-21).

use std::sync::Arc;

use portico_base::{Permission, Timestamp, id};
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::tenants::TenantStatus;
use uuid::Uuid;

use crate::domain::role::{
    AUDITOR, Known, Role, SUPER_ADMIN, TENANT_ADMIN, USER, built_in_id, narrowed, within_tenant,
};
use crate::domain::tenant::{Quotas, Tenant};
use crate::error::Result;
use crate::hub::Core;
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// What a service declares.
pub(crate) type Declared = (&'static str, &'static [PermissionDeclaration]);

/// What an auditor reads; some of it belongs to services that this release may not have.
const AUDITOR_READS: [&str; 6] = [
    "audit:record:read",
    "control:stats:read",
    "gateway:topology:read",
    "identity:role:read",
    "identity:tenant:read",
    "settings:value:read",
];

/// Writes what is missing, and takes over what a release or a plug-in declares anew. Done twice, and by
/// several processes at once, it does the same as once.
pub(crate) async fn seed(core: &Arc<Core>, declared: &[Declared]) -> Result<()> {
    let all = declared.iter().flat_map(|(_, list)| list.iter());
    let admin = all.filter(|d| d.admin).map(|d| Permission::new(d.name));
    // A second seeding of one process declares the same.
    let _first = core.admin_permissions.set(admin.collect());
    let known = declared
        .iter()
        .flat_map(|(service, list)| list.iter().map(|d| Known::declared(service, d)))
        .collect();
    sync(core, Scope::BuiltIn, known).await
}

/// Takes over what plug-ins declare now: their permissions can be granted from then on.
pub(crate) async fn plugins(core: &Arc<Core>, known: Vec<Known>) -> Result<()> {
    sync(core, Scope::Plugins, known).await
}

/// Whose declarations are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    BuiltIn,
    Plugins,
}

async fn sync(core: &Arc<Core>, scope: Scope, declared: Vec<Known>) -> Result<()> {
    let cx = core.own_context("identity.seed");
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, &cx).await?;
            unit.tx.serialise("identity.seed").await?;
            let mut changed = false;
            if scope == Scope::BuiltIn {
                changed |= tenants(&unit).await?;
            }
            changed |= permissions(&unit, scope, &declared).await?;
            changed |= roles(&unit).await?;
            if changed {
                for kind in [Kind::Roles, Kind::Tenants] {
                    unit.revoke(kind, id::TENANT_SYSTEM, "built-in", 0, "declared")
                        .await?;
                }
                unit.commit().await
            } else {
                Ok(())
            }
        })
        .await
}

async fn tenants(unit: &Unit) -> Result<bool> {
    let mut changed = false;
    for (id, slug, name) in [
        (id::TENANT_SYSTEM, "system", "System"),
        (id::TENANT_DEFAULT, "default", "Default"),
    ] {
        if store::tenants::get(&unit.tx, id).await?.is_none() {
            store::tenants::insert(&unit.tx, &first(id, slug, name, unit.now())).await?;
            changed = true;
        }
    }
    Ok(changed)
}

fn first(id: Uuid, slug: &str, name: &str, now: Timestamp) -> Tenant {
    Tenant {
        id,
        slug: slug.to_owned(),
        display_name: name.to_owned(),
        status: TenantStatus::Active,
        te: 1,
        quotas: Quotas::default(),
        delete_at: None,
        created_at: now,
        updated_at: now,
    }
}

/// Rows of built-in services are replaced by what this release declares. Those of plug-ins only grow: a
/// plug-in that is away for an hour must not lose what was granted for it.
async fn permissions(unit: &Unit, scope: Scope, declared: &[Known]) -> Result<bool> {
    let rows = store::roles::permissions(&unit.tx).await?;
    let mut changed = false;
    for known in declared {
        let row = rows.iter().find(|row| row.name == known.name);
        let taken = row.is_some_and(|row| row.plugin != known.plugin);
        if row != Some(known) && !(taken && known.plugin) {
            store::roles::put_permission(&unit.tx, known).await?;
            changed = true;
        }
    }
    if scope == Scope::BuiltIn {
        for row in rows.iter().filter(|row| !row.plugin) {
            if !declared.iter().any(|known| known.name == row.name) {
                store::roles::drop_permission(&unit.tx, row.name.as_str()).await?;
                changed = true;
            }
        }
    }
    Ok(changed)
}

async fn roles(unit: &Unit) -> Result<bool> {
    let known = store::roles::permissions(&unit.tx).await?;
    let mut changed = false;
    for role in built_in(&known, unit.now()) {
        match store::roles::get(&unit.tx, role.id).await? {
            None => store::roles::insert(&unit.tx, &role).await?,
            Some(row) if row.permissions == role.permissions => continue,
            Some(_) => store::roles::put(&unit.tx, &role).await?,
        }
        changed = true;
    }
    for mut role in store::roles::all(&unit.tx).await? {
        if role.tenant.is_none_or(|tenant| tenant == id::TENANT_SYSTEM) {
            continue;
        }
        let narrowed = narrowed(&role.permissions, &known);
        if narrowed != role.permissions {
            role.permissions = narrowed;
            role.updated_at = unit.now();
            store::roles::put(&unit.tx, &role).await?;
            changed = true;
        }
    }
    Ok(changed)
}

fn built_in(known: &[Known], now: Timestamp) -> [Role; 4] {
    let role = |name: &str, title_zh: &str, title_en: &str, permissions| Role {
        id: built_in_id(name).expect("the four names of this function are built in"),
        tenant: None,
        name: name.to_owned(),
        title_zh: title_zh.to_owned(),
        title_en: title_en.to_owned(),
        permissions,
        built_in: true,
        created_at: now,
        updated_at: now,
    };
    let auditor = AUDITOR_READS
        .into_iter()
        .map(Permission::new)
        .filter(|p| known.iter().any(|k| k.name == *p))
        .collect();
    [
        role(
            SUPER_ADMIN,
            "超级管理员",
            "Super administrator",
            vec![Permission::new("*:*:*")],
        ),
        role(
            TENANT_ADMIN,
            "租户管理员",
            "Tenant administrator",
            within_tenant(known),
        ),
        role(USER, "用户", "User", Vec::new()),
        role(AUDITOR, "审计员", "Auditor", auditor),
    ]
}
