//! Services as tenants have them, for identity: which they reach, which are switched off, what they declare (ID-4).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use portico_base::{Context, Permission, Refusal};
use portico_contract::services::{SwitchError, TenantService, TenantServices};
use uuid::Uuid;

use crate::domain::service::Service;
use crate::error::Error;
use crate::hub::Core;
use crate::ops::operate;

/// Answers from the registry's memory.
pub(crate) struct Switchboard(pub Arc<Core>);

impl Switchboard {
    /// The services that a tenant reaches: its own go before global ones of the same name.
    fn reached(&self, tenant: Uuid) -> BTreeMap<Arc<str>, Arc<Service>> {
        let model = self.0.model.read();
        let mut found: BTreeMap<Arc<str>, Arc<Service>> = BTreeMap::new();
        for entry in model.services() {
            let service = &entry.service;
            let own = service.tenant == Some(tenant);
            if !service.is_routable() || !(own || service.tenant.is_none()) {
                continue;
            }
            let known = found.entry(Arc::clone(&service.name));
            let known = known.or_insert_with(|| Arc::clone(service));
            if own {
                *known = Arc::clone(service);
            }
        }
        found
    }
}

impl TenantServices for Switchboard {
    fn list(&self, tenant: Uuid) -> Vec<TenantService> {
        let reached = self.reached(tenant).into_values();
        let view = |service: Arc<Service>| TenantService {
            id: service.id,
            name: Arc::clone(&service.name),
            display_name: Arc::clone(&service.display_name),
            builtin: service.builtin,
            fixed: service.is_fixed(),
            enabled: service.enabled && !service.disabled_for.contains(&tenant),
        };
        reached.map(view).collect()
    }

    fn switch<'a>(
        &'a self,
        context: &'a Context,
        tenant: Uuid,
        name: &'a str,
        enabled: bool,
    ) -> BoxFuture<'a, Result<(), SwitchError>> {
        Box::pin(async move {
            let reached = self.reached(tenant);
            let service = reached.get(name).ok_or(SwitchError::Unknown)?;
            if service.is_fixed() {
                return Err(SwitchError::Fixed);
            }
            operate::switch(&self.0, context, service.id, Some(tenant), enabled)
                .await
                .map(drop)
                .map_err(refused)
        })
    }

    fn permissions(&self) -> Vec<(Arc<str>, Permission)> {
        let model = self.0.model.read();
        let mut all: Vec<(Arc<str>, Permission)> = Vec::new();
        for entry in model.services().filter(|e| !e.service.builtin) {
            let service = &entry.service;
            let declared = service.contributions.permissions.iter();
            let declared = declared.filter_map(|text| Permission::parse(text).ok());
            let versions = service.versions.values();
            let asked = versions
                .flat_map(|version| version.endpoints.iter())
                .flat_map(|endpoint| endpoint.required_permissions.iter().cloned());
            // What stands for several is nothing that could be granted by its name.
            let named = declared.chain(asked).filter(|p| !p.as_str().contains('*'));
            all.extend(named.map(|p| (Arc::clone(&service.name), p)));
        }
        all.sort_by(|a, b| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
        all.dedup();
        all
    }
}

fn refused(error: Error) -> SwitchError {
    match error {
        Error::UnknownService => SwitchError::Unknown,
        Error::Missing(permission) => SwitchError::Refused(Refusal::Missing(permission)),
        Error::Unauthenticated => SwitchError::Refused(Refusal::Unauthenticated),
        other => SwitchError::Failed(Box::new(other)),
    }
}
