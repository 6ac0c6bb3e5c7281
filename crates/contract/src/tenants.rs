//! Tenants as every service sees them: a snapshot in memory.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// State of a tenant (ID-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// In use.
    Active,
    /// Nobody of it gets in.
    Suspended,
    /// Will be removed.
    Deleting,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: Uuid,
    /// Its name in addresses and configuration.
    pub slug: Arc<str>,
    /// Its name for people.
    pub display_name: Arc<str>,
    /// Its state.
    pub status: TenantStatus,
}

/// Looks tenants up. Provided by identity; answered from memory.
pub trait Tenants: Send + Sync {
    /// The tenant with an id.
    fn by_id(&self, id: Uuid) -> Option<Arc<Tenant>>;

    /// The tenant with a slug.
    fn by_slug(&self, slug: &str) -> Option<Arc<Tenant>>;

    /// The tenant that a host is bound to.
    fn by_host(&self, host: &str) -> Option<Arc<Tenant>>;
}

/// The tenants, for whoever is built before those who know them: provided empty by the registry and filled by
/// identity. Where it stays empty there are no tenants that could be suspended.
#[derive(Default)]
pub struct TenantsCell(OnceLock<Arc<dyn Tenants>>);

impl TenantsCell {
    /// Fills it; the first word holds.
    pub fn set(&self, tenants: Arc<dyn Tenants>) {
        // A process builds identity once.
        let _same = self.0.set(tenants);
    }

    /// True when nobody of a tenant gets in.
    #[must_use]
    pub fn is_suspended(&self, tenant: Uuid) -> bool {
        let found = self.0.get().and_then(|tenants| tenants.by_id(tenant));
        found.is_some_and(|t| t.status == TenantStatus::Suspended)
    }
}
