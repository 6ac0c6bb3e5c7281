//! Reading: instances, services, catalogue, history.

use std::collections::BTreeMap;
use std::sync::Arc;

use portico_base::{Context, Permission, PrincipalKind};
use portico_contract::directory::InstanceState;
use uuid::Uuid;

use super::{is_own, need, sees};
use crate::domain::instance::Source;
use crate::domain::rights::READ_INSTANCES;
use crate::domain::service::Service;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::model::{InstanceEntry, Model, ServiceEntry};
use crate::store;
use crate::store::events::HistoryRow;
use crate::views::{CatalogView, InstanceView, ServiceView, Sight};

/// Steps of an instance's history that are kept and told (RG-23).
pub(crate) const HISTORY: u64 = 200;

/// Which instances are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub name: Option<String>,
    pub tag: Option<String>,
    pub version: Option<String>,
    pub zone: Option<String>,
    pub state: States,
}

/// Which states are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum States {
    /// Ready, late, draining (RG-2).
    #[default]
    Listed,
    All,
    One(InstanceState),
}

/// Where a page of instances ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(crate) struct After {
    pub name: String,
    pub tenant: Option<Uuid>,
    pub id: Uuid,
}

/// What the caller may see of a service's instances: those of its own service whole.
fn sight(cx: &Context, of: &Service) -> Sight {
    let principal = cx.principal();
    let own = principal.kind == PrincipalKind::Instance
        && principal.service.as_deref() == Some(&*of.name)
        && of.tenant.is_none_or(|tenant| tenant == principal.tenant);
    Sight {
        addresses: own || principal.may(&READ_INSTANCES),
        endpoints: true,
    }
}

/// Instances in the order of service name and id, from behind `after`, at most `limit`.
pub(crate) fn instances(
    core: &Core,
    cx: &Context,
    filter: &Filter,
    after: Option<&After>,
    limit: usize,
) -> Vec<InstanceView> {
    let model = core.model.read();
    let mut services: Vec<&ServiceEntry> = model
        .services()
        .filter(|e| sees(cx.principal(), &e.service) && !e.service.builtin)
        .filter(|e| filter.name.as_deref().is_none_or(|n| *e.service.name == *n))
        .collect();
    services.sort_by(|a, b| {
        (&a.service.name, a.service.tenant).cmp(&(&b.service.name, b.service.tenant))
    });
    let mut out = Vec::new();
    for entry in services {
        let sight = sight(cx, &entry.service);
        for id in &entry.instances {
            let place = After {
                name: entry.service.name.to_string(),
                tenant: entry.service.tenant,
                id: *id,
            };
            if after.is_some_and(|a| place <= *a) {
                continue;
            }
            let Some(instance) = model.instance(*id).filter(|i| matches(i, filter)) else {
                continue;
            };
            out.push(InstanceView::of(&entry.service, instance, sight));
            if out.len() >= limit {
                return out;
            }
        }
    }
    out
}

fn matches(entry: &InstanceEntry, filter: &Filter) -> bool {
    let i = &entry.instance;
    let d = &i.definition;
    let state = match filter.state {
        States::Listed => i.is_listed(),
        States::All => true,
        States::One(state) => i.state == state,
    };
    state
        && filter
            .tag
            .as_deref()
            .is_none_or(|t| d.tags.iter().any(|own| own == t))
        && filter.version.as_deref().is_none_or(|v| *d.version == *v)
        && filter.zone.as_deref().is_none_or(|z| *d.zone == *z)
}

/// One thing by instance id, service id, or service name.
pub(crate) enum Found {
    Instance(Box<InstanceView>),
    Service(Box<ServiceView>),
}

/// Finds an instance or a service.
pub(crate) fn find(core: &Core, cx: &Context, what: &str) -> Result<Found> {
    let model = core.model.read();
    if let Ok(id) = Uuid::parse_str(what) {
        if let Some(entry) = model.instance(id)
            && let Some(service) = model
                .service_of(&entry.instance)
                .filter(|s| sees(cx.principal(), s))
        {
            let mut view = InstanceView::of(service, entry, sight(cx, service));
            view.instance_key = if is_own(core, cx, service, &entry.instance) {
                entry.instance.key.to_string()
            } else {
                view.instance_key
            };
            return Ok(Found::Instance(Box::new(view)));
        }
        let entry = model
            .service(id)
            .filter(|e| sees(cx.principal(), &e.service));
        return entry
            .map(|e| service(&model, cx, e))
            .ok_or(Error::UnknownInstance);
    }
    let named = model.service_for(cx.tenant(), what).or_else(|| {
        model
            .services()
            .find(|e| *e.service.name == *what && sees(cx.principal(), &e.service))
    });
    named
        .map(|e| service(&model, cx, e))
        .ok_or(Error::UnknownService)
}

fn service(model: &Model, cx: &Context, entry: &ServiceEntry) -> Found {
    let instances: Vec<&InstanceEntry> = entry
        .instances
        .iter()
        .filter_map(|id| model.instance(*id))
        .collect();
    Found::Service(Box::new(ServiceView::new(
        entry,
        &instances,
        sight(cx, &entry.service),
    )))
}

/// The id of a service by id or name, for operations on it.
pub(crate) fn service_id(core: &Core, cx: &Context, what: &str) -> Result<Uuid> {
    let model = core.model.read();
    let entry = match Uuid::parse_str(what) {
        Ok(id) => model.service(id),
        Err(_) => model.service_for(cx.tenant(), what),
    };
    entry
        .filter(|e| sees(cx.principal(), &e.service))
        .map(|e| e.service.id)
        .ok_or(Error::UnknownService)
}

/// All services that the caller may see, in the order of their names.
pub(crate) fn catalog(core: &Core, cx: &Context) -> Vec<CatalogView> {
    let model = core.model.read();
    let tenant = cx.tenant();
    let mut out: Vec<CatalogView> = model
        .services()
        .filter(|e| sees(cx.principal(), &e.service))
        .map(|e| catalog_line(&model, e, tenant))
        .collect();
    out.sort_by(|a, b| (&a.name, a.tenant_id).cmp(&(&b.name, b.tenant_id)));
    out
}

fn catalog_line(model: &Model, entry: &ServiceEntry, tenant: Uuid) -> CatalogView {
    let s = &entry.service;
    let mut states: BTreeMap<&'static str, u32> = BTreeMap::new();
    for instance in entry.instances.iter().filter_map(|id| model.instance(*id)) {
        *states.entry(instance.instance.state.as_str()).or_default() += 1;
    }
    let all: u32 = states.values().sum();
    let ready = states
        .get(InstanceState::Ready.as_str())
        .copied()
        .unwrap_or(0);
    let health = match (ready, all) {
        (0, _) => "down",
        (ready, all) if ready == all => "up",
        _ => "degraded",
    };
    CatalogView {
        id: s.id,
        name: s.name.to_string(),
        display_name: s.display_name.to_string(),
        description: s.description.to_string(),
        tenant_id: s.tenant,
        builtin: s.builtin,
        enabled: s.enabled && !s.disabled_for.contains(&tenant),
        versions: s.versions.keys().map(ToString::to_string).collect(),
        instances: states,
        health,
    }
}

/// The last steps of an instance's life, newest first.
pub(crate) async fn history(core: &Core, cx: &Context, id: Uuid) -> Result<Vec<HistoryRow>> {
    let known = {
        let model = core.model.read();
        model.instance(id).map(|e| {
            let service = model.service_of(&e.instance);
            service.is_some_and(|s| is_own(core, cx, s, &e.instance) && sees(cx.principal(), s))
        })
    };
    match known {
        Some(true) => {}
        // What is gone belongs to nobody any more: only for administrators.
        Some(false) | None => need(cx, Permission::new("registry:instance:write"))?,
    }
    let rows = store::events::history(core.db.reader(), id, HISTORY).await?;
    if rows.is_empty() && known.is_none() {
        return Err(Error::UnknownInstance);
    }
    Ok(rows)
}

/// A target of Prometheus' `http_sd_configs`.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct TargetGroup {
    /// `host:port`, one.
    pub targets: Vec<String>,
    /// `__meta_portico_…`.
    pub labels: BTreeMap<String, String>,
}

/// Every listed instance with an address, as targets (RG-55).
pub(crate) fn targets(core: &Core, cx: &Context, filter: &Filter) -> Result<Vec<TargetGroup>> {
    need(cx, READ_INSTANCES)?;
    let model = core.model.read();
    let mut found: Vec<(&Arc<Service>, &InstanceEntry)> = model
        .instances()
        .filter(|e| e.instance.source != Source::Builtin && e.instance.definition.port > 0)
        .filter(|e| matches(e, filter))
        .filter_map(|e| model.service_of(&e.instance).map(|s| (s, e)))
        .filter(|(s, _)| sees(cx.principal(), s))
        .filter(|(s, _)| filter.name.as_deref().is_none_or(|n| *s.name == *n))
        .collect();
    found.sort_by(|a, b| (&a.0.name, a.1.instance.id).cmp(&(&b.0.name, b.1.instance.id)));
    Ok(found
        .into_iter()
        .map(|(service, entry)| target(service, entry))
        .collect())
}

fn target(service: &Service, entry: &InstanceEntry) -> TargetGroup {
    let d = &entry.instance.definition;
    let mut labels = BTreeMap::from([
        (
            "__meta_portico_service".to_owned(),
            service.name.to_string(),
        ),
        ("__meta_portico_version".to_owned(), d.version.to_string()),
        ("__meta_portico_zone".to_owned(), d.zone.to_string()),
        ("__meta_portico_node".to_owned(), d.node.to_string()),
        (
            "__meta_portico_instance".to_owned(),
            entry.instance.id.to_string(),
        ),
        (
            "__meta_portico_state".to_owned(),
            entry.instance.state.as_str().to_owned(),
        ),
        (
            "__meta_portico_base_path".to_owned(),
            d.base_path.to_string(),
        ),
    ]);
    for tag in d.tags.iter() {
        labels.insert(
            format!("__meta_portico_tag_{}", label(tag)),
            "true".to_owned(),
        );
    }
    for (key, value) in d.metadata.iter() {
        labels.insert(format!("__meta_portico_meta_{}", label(key)), value.clone());
    }
    TargetGroup {
        targets: vec![crate::domain::instance::authority(&d.host, d.port)],
        labels,
    }
}

/// A part of a label's name: Prometheus takes letters, digits and underscores.
fn label(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
