//! What the gateway sees: the contract's types, built from ours.

use std::sync::Arc;

use portico_contract::directory::{self, Directory, Endpoint, ServiceKey};
use uuid::Uuid;

use super::{Model, ServiceEntry};
use crate::domain::instance::Instance;

/// An instance as the data plane needs it.
pub(super) fn instance(i: &Instance) -> Arc<directory::Instance> {
    let d = &i.definition;
    Arc::new(directory::Instance {
        id: i.id,
        version: Arc::clone(&d.version),
        host: Arc::clone(&d.host),
        port: d.port,
        base_path: Arc::clone(&d.base_path),
        protocol: d.protocol,
        tls_pin: d.tls_pin,
        state: i.state,
        state_reason: Arc::clone(&i.reason),
        state_since: i.since,
        weight: i.effective_weight(),
        zone: Arc::clone(&d.zone),
        node: Arc::clone(&d.node),
        tags: Arc::clone(&d.tags),
        metadata: Arc::clone(&d.metadata),
        secret: i.secret.as_ref().map(|s| Arc::clone(&s.current)),
        created_at: i.created_at,
    })
}

impl Model {
    /// A service as the gateway sees it.
    fn service_view(&self, entry: &ServiceEntry) -> Arc<directory::Service> {
        let s = &entry.service;
        let endpoints: Vec<Endpoint> = s
            .versions
            .values()
            .flat_map(|v| v.endpoints.iter().cloned())
            .collect();
        Arc::new(directory::Service {
            id: s.id,
            key: ServiceKey {
                tenant: s.tenant,
                name: Arc::clone(&s.name),
            },
            display_name: Arc::clone(&s.display_name),
            description: Arc::clone(&s.description),
            builtin: s.builtin,
            enabled: s.enabled,
            disabled_for: Arc::clone(&s.disabled_for),
            default_access: s.default_access,
            forward_credentials: s.forward_credentials,
            identity_statement: s.identity_statement,
            endpoints: endpoints.into(),
            openapi_url: s.openapi_url.clone(),
            instances: entry
                .instances
                .iter()
                .filter_map(|id| self.instances.get(id))
                // An address that Consul's API took without looking at it cannot be connected to.
                .filter(|e| {
                    s.builtin || e.view.port > 0 || e.view.protocol == directory::Protocol::Unix
                })
                .map(|e| Arc::clone(&e.view))
                .collect(),
        })
    }

    /// The directory after a change of some services: everything else is shared with the one before.
    pub(crate) fn directory(
        &self,
        before: &Directory,
        changed: impl IntoIterator<Item = (Uuid, ServiceKey)>,
    ) -> Directory {
        let mut services = before.services.clone();
        for (id, key) in changed {
            let entry = self.services.get(&id).filter(|e| e.service.is_routable());
            match entry {
                Some(entry) => {
                    services.insert(key, self.service_view(entry));
                }
                // Another service may have the key by now; it is in the list of changes itself.
                None if services.get(&key).is_some_and(|s| s.id == id) => {
                    services.remove(&key);
                }
                None => {}
            }
        }
        Directory {
            seq: self.seq,
            services,
        }
    }

    /// Keys of all services, for a directory built from nothing.
    pub(crate) fn all_keys(&self) -> Vec<(Uuid, ServiceKey)> {
        self.services
            .values()
            .map(|e| (e.service.id, key_of(e)))
            .collect()
    }
}

/// The contract's key of a service.
pub(super) fn key_of(entry: &ServiceEntry) -> ServiceKey {
    ServiceKey {
        tenant: entry.service.tenant,
        name: Arc::clone(&entry.service.name),
    }
}
