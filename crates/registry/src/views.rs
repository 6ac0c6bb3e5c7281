//! Services and instances as the API, watchers and Prometheus see them (the mission's shape).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use portico_base::Timestamp;
use portico_contract::directory::{InstanceState, Protocol};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::endpoint::EndpointView;
use crate::domain::instance::Instance;
use crate::domain::service::Service;
use crate::model::{InstanceEntry, ServiceEntry};

/// One running copy, with the fields of its service.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct InstanceView {
    /// Id of the instance.
    pub id: Uuid,
    /// Name of the service.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// Version of the instance.
    pub version: String,
    /// Where it is; only for services and administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its port; only for services and administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Prefix of its paths.
    pub base_path: String,
    /// Endpoints that its version declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<EndpointView>>,
    /// Pairs.
    #[schema(value_type = Object)]
    pub metadata: IndexMap<String, String>,
    /// Labels.
    pub tags: Vec<String>,
    /// It is ready, or late and not given up.
    pub is_active: bool,
    /// Last sign of life.
    #[schema(value_type = String, format = DateTime)]
    pub last_heartbeat: Timestamp,
    /// Key within its service.
    pub instance_key: String,
    /// Tenant of its service; absent for a global one.
    pub tenant_id: Option<Uuid>,
    /// Id of its service.
    pub service_id: Uuid,
    /// `starting`, `ready`, `late`, `failing`, `draining`, `maintenance`, `inactive`.
    #[schema(value_type = String)]
    pub state: InstanceState,
    /// Why.
    pub state_reason: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub state_since: Timestamp,
    /// Share of traffic.
    pub weight: u16,
    /// Zone, empty when unknown.
    pub zone: String,
    /// Machine, empty when unknown.
    pub node: String,
    /// Protocol to it.
    #[schema(value_type = String)]
    pub protocol: Protocol,
    /// Seconds between its heartbeats; absent when it owes none.
    pub heartbeat_s: Option<u32>,
    /// Load that it told with its last heartbeat, 0 to 1 and above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Figures that it told with its last heartbeat; only for services and administrators.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<String, f64>,
    /// Door through which it registered.
    pub source: &'static str,
    /// When it registered first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// How much of an instance somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Host, port, node.
    pub addresses: bool,
    /// Endpoints of its version.
    pub endpoints: bool,
}

impl InstanceView {
    pub(crate) fn new(service: &Service, i: &Instance, seen: Timestamp, sight: Sight) -> Self {
        let d = &i.definition;
        let endpoints = sight.endpoints.then(|| {
            service
                .versions
                .get(&d.version)
                .map(|v| v.endpoints.iter().map(EndpointView::from).collect())
                .unwrap_or_default()
        });
        Self {
            id: i.id,
            name: service.name.to_string(),
            display_name: service.display_name.to_string(),
            version: d.version.to_string(),
            host: sight.addresses.then(|| d.host.to_string()),
            port: sight.addresses.then_some(d.port),
            base_path: d.base_path.to_string(),
            endpoints,
            metadata: IndexMap::clone(&d.metadata),
            tags: d.tags.to_vec(),
            is_active: matches!(i.state, InstanceState::Ready | InstanceState::Late),
            last_heartbeat: seen,
            instance_key: if sight.addresses {
                i.key.to_string()
            } else {
                i.id.to_string()
            },
            tenant_id: service.tenant,
            service_id: service.id,
            state: i.state,
            state_reason: i.reason.to_string(),
            state_since: i.since,
            weight: i.effective_weight(),
            zone: d.zone.to_string(),
            node: if sight.addresses {
                d.node.to_string()
            } else {
                String::new()
            },
            protocol: d.protocol,
            heartbeat_s: d.heartbeat_s,
            load: None,
            numbers: BTreeMap::new(),
            source: i.source.as_str(),
            created_at: i.created_at,
        }
    }

    pub(crate) fn of(service: &Service, entry: &InstanceEntry, sight: Sight) -> Self {
        let mut view = Self::new(service, &entry.instance, entry.live.seen(), sight);
        let report = entry.live.report.lock();
        view.load = report.load;
        if sight.addresses {
            view.numbers = report.numbers.iter().cloned().collect();
        }
        view
    }
}

/// A version of a service.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct VersionView {
    /// The version.
    pub version: String,
    /// When it registered first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Its declared endpoints.
    pub endpoints: Vec<EndpointView>,
    /// Its instances by state.
    pub instances: BTreeMap<&'static str, u32>,
}

/// A service with everything below it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ServiceView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// A sentence for people.
    pub description: String,
    /// The tenant that it belongs to; absent for a global service.
    pub tenant_id: Option<Uuid>,
    /// Runs inside this process.
    pub builtin: bool,
    /// Switched on.
    pub enabled: bool,
    /// What holds for undeclared paths: `authenticated` or `public`.
    #[schema(value_type = String)]
    pub default_access: portico_contract::directory::DefaultAccess,
    /// It gets the callers' `Authorization`.
    pub forward_credentials: bool,
    /// It gets a signed statement about the caller.
    pub identity_statement: bool,
    /// Whoever registered it first; only for services and administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerView>,
    /// Its versions.
    pub versions: Vec<VersionView>,
    /// Its instances.
    pub instances: Vec<InstanceView>,
    /// Permissions that it declares.
    pub permissions: Vec<String>,
    /// Event types that it publishes.
    pub events: Vec<String>,
    /// Schema of its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub settings_schema: Option<Value>,
    /// Its console pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub console: Option<Value>,
    /// Where its OpenAPI document is.
    pub openapi_url: Option<String>,
    /// When it registered first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Whoever registered a name first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct OwnerView {
    /// Kind of principal.
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl ServiceView {
    pub(crate) fn new(entry: &ServiceEntry, instances: &[&InstanceEntry], sight: Sight) -> Self {
        let s = &entry.service;
        let versions = s
            .versions
            .iter()
            .map(|(version, of)| {
                let mut states = BTreeMap::new();
                for e in instances
                    .iter()
                    .filter(|e| e.instance.definition.version == *version)
                {
                    *states.entry(e.instance.state.as_str()).or_default() += 1;
                }
                VersionView {
                    version: version.to_string(),
                    created_at: of.created_at,
                    endpoints: of.endpoints.iter().map(EndpointView::from).collect(),
                    instances: states,
                }
            })
            .collect();
        let below = Sight {
            endpoints: false,
            ..sight
        };
        Self {
            id: s.id,
            name: s.name.to_string(),
            display_name: s.display_name.to_string(),
            description: s.description.to_string(),
            tenant_id: s.tenant,
            builtin: s.builtin,
            enabled: s.enabled,
            default_access: s.default_access,
            forward_credentials: s.forward_credentials,
            identity_statement: s.identity_statement,
            owner: sight.addresses.then(|| OwnerView {
                kind: s.owner.kind.clone(),
                id: s.owner.id.clone(),
            }),
            versions,
            instances: instances
                .iter()
                .map(|e| InstanceView::of(s, e, below))
                .collect(),
            permissions: s.contributions.permissions.clone(),
            events: s.contributions.events.clone(),
            settings_schema: s.settings_schema.as_deref().cloned(),
            console: s.console.as_deref().cloned(),
            openapi_url: s.openapi_url.as_deref().map(str::to_owned),
            created_at: s.created_at,
        }
    }
}

/// One line of the catalogue.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct CatalogView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Name for people.
    pub display_name: String,
    /// A sentence for people.
    pub description: String,
    /// The tenant that it belongs to; absent for a global service.
    pub tenant_id: Option<Uuid>,
    /// Runs inside this process.
    pub builtin: bool,
    /// Switched on for the caller.
    pub enabled: bool,
    /// Its versions.
    pub versions: Vec<String>,
    /// Its instances by state.
    pub instances: BTreeMap<&'static str, u32>,
    /// `up`, `degraded` (some are not ready), or `down`.
    pub health: &'static str,
}
