//! Which ways in a tenant offers (`identity.login.methods`).

use portico_base::id;
use uuid::Uuid;

use crate::domain::identity::APPLE;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::settings::password as keys;

/// With a password.
pub(crate) const PASSWORD: &str = "password";

/// Checks that a way in is offered.
pub(crate) fn need(core: &Core, tenant: Uuid, method: &str) -> Result<()> {
    if offers(core, tenant, method) {
        Ok(())
    } else {
        Err(reason::METHOD_OFF.into())
    }
}

/// True when a way in is offered: Apple's only where there is an account with it.
pub(crate) fn offers(core: &Core, tenant: Uuid, method: &str) -> bool {
    all(core, tenant).iter().any(|m| m == method)
        && (method != APPLE || super::apple::is_on(core, tenant))
}

/// Ways in that are offered, without those that are not there.
pub(crate) fn all(core: &Core, tenant: Uuid) -> Vec<String> {
    core.settings.get(tenant, &keys::LOGIN_METHODS)
}

/// Who may register with a tenant (ID-30). Nobody joins the super administrators without an invitation,
/// whatever is set.
pub(crate) fn registration(core: &Core, tenant: Uuid) -> Registration {
    let mode = core.settings.get(tenant, &keys::REGISTRATION_MODE);
    match mode.as_str() {
        "open" if tenant != id::TENANT_SYSTEM => Registration::Open,
        "invite" => Registration::Invite,
        _ => Registration::Off,
    }
}

/// Who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RegistrationMode)]
pub(crate) enum Registration {
    /// Nobody.
    Off,
    /// Whoever was invited.
    Invite,
    /// Everybody.
    Open,
}
