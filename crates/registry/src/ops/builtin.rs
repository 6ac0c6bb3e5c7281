//! Built-in services: in the directory like any other, as instances of this process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use portico_base::secret::token_hash;
use portico_base::{Context, Principal};
use portico_contract::directory::{DefaultAccess, InstanceState, Protocol};
use uuid::Uuid;

use crate::domain::instance::{Definition, Instance, Source};
use crate::domain::service::{Contributions, Owner, Service, Version};
use crate::hub::Core;
use crate::model::Mutation;

/// Puts the services of this binary into the model, with an instance for those that this process runs: a
/// service whose role runs nowhere is known and has no process (OP-1). They have no rows: they end with
/// the process. `off` names the tenants for which applications among them are switched off.
pub(crate) fn announce(
    core: &Core,
    cx: &Context,
    names: &[&'static str],
    running: &[&'static str],
    version: &'static str,
    off: &HashMap<String, Vec<Uuid>>,
) {
    let (index, seq) = {
        let model = core.model.read();
        (model.index, model.seq)
    };
    let mut mutations = Vec::new();
    for name in names {
        let version: Arc<str> = Arc::from(version);
        let mut service = service(cx, name, &version, index);
        switch(&mut service, off);
        let service = Arc::new(service);
        mutations.push(Mutation::PutService(Arc::clone(&service)));
        if running.contains(name) {
            let instance = instance(core, cx, &service, version, index);
            mutations.push(Mutation::PutInstance(Arc::new(instance)));
        }
    }
    core.apply(mutations, index, seq, Vec::new());
}

/// Takes over for whom an application is switched off. What the platform stands on never is, whatever a row of
/// another version says.
pub(crate) fn switch(service: &mut Service, off: &HashMap<String, Vec<Uuid>>) {
    let off = off.get(&*service.name).filter(|_| !service.is_fixed());
    service.disabled_for = off.cloned().unwrap_or_default().into();
}

/// The same in every process, for changes are told by it.
fn id_of(name: &str) -> Uuid {
    let hash = token_hash(&format!("portico/service/{name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn service(cx: &Context, name: &'static str, version: &Arc<str>, index: u64) -> Service {
    let now = cx.now();
    Service {
        id: id_of(name),
        tenant: None,
        name: Arc::from(name),
        display_name: Arc::from(name),
        description: Arc::from("part of Portico"),
        owner: Owner::of(&Principal::system()),
        default_access: DefaultAccess::Authenticated,
        forward_credentials: true,
        identity_statement: false,
        openapi_url: None,
        settings_schema: None,
        console: None,
        contributions: Arc::new(Contributions::default()),
        enabled: true,
        disabled_for: Arc::from([]),
        versions: BTreeMap::from([(
            Arc::clone(version),
            Version {
                created_at: now,
                endpoints: Arc::from([]),
            },
        )]),
        created_at: now,
        updated_at: now,
        builtin: true,
        create_index: index,
    }
}

fn instance(
    core: &Core,
    cx: &Context,
    service: &Service,
    version: Arc<str>,
    index: u64,
) -> Instance {
    let now = cx.now();
    Instance {
        id: cx.new_id(),
        service: service.id,
        key: Arc::clone(&core.replica),
        source: Source::Builtin,
        owner: service.owner.clone(),
        definition: Definition {
            version,
            host: Arc::clone(&core.host),
            port: 0,
            base_path: Arc::from("/"),
            protocol: Protocol::Http1,
            tls_pin: None,
            weight: 100,
            zone: Arc::from(""),
            node: Arc::clone(&core.host),
            tags: Arc::from([]),
            metadata: Arc::new(IndexMap::new()),
            heartbeat_s: None,
            checks: Arc::from([]),
            consul: None,
        },
        state: InstanceState::Ready,
        reason: Arc::from(""),
        since: now,
        order: None,
        weight_override: None,
        warning: false,
        secret: None,
        last_heartbeat: now,
        created_at: now,
        updated_at: now,
        create_index: index,
        modify_index: index,
    }
}
