//! Services as tenants have them: which they reach, which are switched off for them, what they declare.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Permission, Refusal};
use uuid::Uuid;

/// Services that the platform stands on: they are never switched off, for nobody could switch them on again.
/// The other built-in ones are applications.
pub const PLATFORM: [&str; 6] = [
    "registry", "gateway", "identity", "settings", "audit", "control",
];

/// A service that a tenant reaches, or would if it were on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantService {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// Name for people.
    pub display_name: Arc<str>,
    /// Runs inside this process.
    pub builtin: bool,
    /// The platform stands on it: it cannot be switched.
    pub fixed: bool,
    /// On for the tenant (and for everybody).
    pub enabled: bool,
}

/// Why a service could not be switched.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The tenant reaches no service of this name.
    #[error("there is no such service")]
    Unknown,
    /// The platform stands on it.
    #[error("the platform stands on this service; it cannot be switched")]
    Fixed,
    /// The caller may not.
    #[error("the right to do this is missing")]
    Refused(Refusal),
    /// The registry could not write it; trying again may help.
    #[error("the service could not be switched now")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Switches services for tenants (GW-17, ID-4). Provided by the registry.
pub trait TenantServices: Send + Sync {
    /// The services of a tenant, by name.
    fn list(&self, tenant: Uuid) -> Vec<TenantService>;

    /// Switches a service on or off for a tenant. Once it is answered, this process's door follows.
    fn switch<'a>(
        &'a self,
        context: &'a Context,
        tenant: Uuid,
        name: &'a str,
        enabled: bool,
    ) -> BoxFuture<'a, Result<(), SwitchError>>;

    /// Permissions that plug-ins declared or ask for at their endpoints, with the plug-in's name.
    fn permissions(&self) -> Vec<(Arc<str>, Permission)>;
}
