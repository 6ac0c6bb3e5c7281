//! The use-cases: each checks rights, opens the transaction, writes, audits and commits.

pub(crate) mod builtin;
pub(crate) mod checks;
pub(crate) mod deregister;
pub(crate) mod heartbeat;
pub(crate) mod names;
pub(crate) mod nodes;
pub(crate) mod operate;
pub(crate) mod query;
pub(crate) mod register;
pub(crate) mod rotate;
pub(crate) mod settle;
pub(crate) mod tokens;
pub(crate) mod versions;

use portico_base::{Access, Context, Permission, Principal, PrincipalKind};
use portico_contract::audit::Record;
use uuid::Uuid;

use crate::domain::instance::Instance;
use crate::domain::rights::{Rights, WRITE_INSTANCES};
use crate::domain::service::Service;
use crate::error::{Error, Result};
use crate::hub::Core;

/// Whose permission is asked for an audit record without a tenant: the installation's.
pub(crate) fn audited(
    action: &'static str,
    kind: &'static str,
    target: impl Into<String>,
    tenant: Option<Uuid>,
) -> Record {
    Record::done(
        action,
        kind,
        target,
        tenant.unwrap_or(portico_base::id::TENANT_SYSTEM),
    )
}

/// Checks a permission of the caller.
pub(crate) fn need(cx: &Context, permission: Permission) -> Result<()> {
    Ok(cx.authorise(&Access::Permission(permission))?)
}

/// What the caller may do when it registers.
pub(crate) fn rights(core: &Core, principal: &Principal) -> Result<Rights> {
    match (principal.kind, principal.id) {
        (PrincipalKind::Registrar, Some(id)) => {
            // Callers may hold the model already; a second plain read would wait for a writer that waits for
            // the first one.
            let model = core.model.read_recursive();
            model
                .token(id)
                .map(|t| Rights::of_token(t))
                .ok_or(Error::Unauthenticated)
        }
        _ => Ok(Rights::of_principal(principal)),
    }
}

/// True when an instance is the caller's own: it is the instance, it registered it, its token covers
/// exactly the name, or it is an administrator.
pub(crate) fn is_own(core: &Core, cx: &Context, service: &Service, instance: &Instance) -> bool {
    let principal = cx.principal();
    if manages(principal, service) {
        return true;
    }
    match principal.kind {
        PrincipalKind::Instance => principal.id == Some(instance.id),
        PrincipalKind::Registrar => {
            instance.owner.is(principal)
                || rights(core, principal).is_ok_and(|r| {
                    r.names.as_ref().is_some_and(|p| p.grants(&service.name))
                        && r.tenants == crate::domain::rights::Tenants::Fixed(service.tenant)
                })
        }
        _ => instance.owner.is(principal),
    }
}

/// True when the caller may know of a service: its tenant's own, global, or everything for those who act
/// for the whole installation.
pub(crate) fn sees(principal: &Principal, service: &Service) -> bool {
    service
        .tenant
        .is_none_or(|tenant| tenant == principal.tenant)
        || acts_for_all(principal)
}

/// An administrator of the service: of its tenant, or of the whole installation for a global one.
pub(crate) fn manages(principal: &Principal, service: &Service) -> bool {
    manages_tenant(principal, service.tenant)
}

/// An administrator of a tenant's instances (absent: the installation's).
pub(crate) fn manages_tenant(principal: &Principal, tenant: Option<Uuid>) -> bool {
    principal.may(&WRITE_INSTANCES) && (tenant == Some(principal.tenant) || acts_for_all(principal))
}

/// The operator and the platform itself act for the whole installation.
pub(crate) fn acts_for_all(principal: &Principal) -> bool {
    principal.may(&crate::domain::rights::ANY_TENANT)
}
