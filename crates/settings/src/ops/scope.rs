//! For whom a caller may read and change settings: the own tenant, or everybody.

use portico_base::id::TENANT_SYSTEM;
use portico_base::{Access, Context, Permission, PrincipalKind};
use uuid::Uuid;

use crate::domain::declared::Declared;
use crate::domain::plugin;
use crate::error::{Error, Result};
use crate::permissions::{SYSTEM_WRITE, VALUE_READ};

/// The word for the installation's own scope.
pub(crate) const SYSTEM: &str = "system";

/// The scope that a caller means when it names none: the own tenant's; the installation's for whoever acts
/// for all.
pub(crate) fn own(cx: &Context) -> Uuid {
    if cx.principal().may(&SYSTEM_WRITE) {
        TENANT_SYSTEM
    } else {
        cx.tenant()
    }
}

/// The scope that a caller named, if it is one of theirs.
pub(crate) fn named(cx: &Context, wanted: Option<&str>) -> Result<Uuid> {
    let scope = match wanted {
        None => return Ok(own(cx)),
        Some(SYSTEM) => TENANT_SYSTEM,
        Some(text) => Uuid::parse_str(text).map_err(|_| {
            Error::field(
                "scope",
                "invalid",
                "must be \"system\" or the id of a tenant",
            )
        })?,
    };
    if scope != cx.tenant() {
        need(cx, &SYSTEM_WRITE)?;
    }
    Ok(scope)
}

/// The scope as the API writes it.
pub(crate) fn word(scope: Uuid) -> String {
    if scope == TENANT_SYSTEM {
        SYSTEM.to_owned()
    } else {
        scope.to_string()
    }
}

/// Checks a permission.
pub(crate) fn need(cx: &Context, permission: &Permission) -> Result<()> {
    Ok(cx.authorise(&Access::Permission(permission.clone()))?)
}

/// What a reader gets to see.
#[derive(Debug, Clone)]
pub(crate) enum Sight {
    /// Everything that can be set for the scope.
    Scope(Uuid),
    /// A plug-in: its own, secrets with their values, and what is public.
    Plugin { tenant: Uuid, prefix: String },
}

impl Sight {
    /// What a caller may read of a scope.
    pub(crate) fn of(cx: &Context, wanted: Option<&str>) -> Result<Self> {
        let principal = cx.principal();
        if !principal.may(&VALUE_READ)
            && principal.kind == PrincipalKind::Instance
            && let Some(service) = &principal.service
        {
            return Ok(Self::Plugin {
                tenant: cx.tenant(),
                prefix: plugin::prefix(service),
            });
        }
        need(cx, &VALUE_READ)?;
        named(cx, wanted).map(Self::Scope)
    }

    /// The scope whose values are shown.
    pub(crate) const fn scope(&self) -> Uuid {
        match self {
            Self::Scope(scope) => *scope,
            Self::Plugin { tenant, .. } => *tenant,
        }
    }

    /// Is a setting shown at all?
    pub(crate) fn sees(&self, declared: &Declared) -> bool {
        match self {
            Self::Scope(TENANT_SYSTEM) => true,
            Self::Scope(tenant) => declared.is_for_tenant(*tenant),
            Self::Plugin { prefix, .. } => declared.public || declared.key.starts_with(prefix),
        }
    }

    /// Is the value of a secret shown, because it is the plug-in's own?
    pub(crate) fn opens(&self, declared: &Declared) -> bool {
        match self {
            Self::Scope(_) => false,
            Self::Plugin { prefix, .. } => declared.key.starts_with(prefix),
        }
    }
}
