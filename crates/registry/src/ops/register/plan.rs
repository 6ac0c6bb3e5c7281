//! What a registration changes, decided under the writer's lock.

use std::sync::Arc;

use chrono::Duration;
use portico_base::secret::new_token;
use portico_base::{Context, PrincipalKind, Timestamp};
use portico_contract::directory::{DefaultAccess, InstanceState};
use uuid::Uuid;

use super::Placed;
use crate::domain::check::{Check, CheckKey, CheckSpec, Status};
use crate::domain::instance::{Instance, InstanceSecret, Source};
use crate::domain::life::{Facts, Fate, Health, judge};
use crate::domain::node::NodeKey;
use crate::domain::service::{Contributions, Owner, Service, Version};
use crate::domain::token::{SECRET_PREFIX, Token};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::model::Model;

/// Instances of a service (RG-9).
const MOST_INSTANCES: usize = 1_000;
/// How often it is written when a token was used.
const USED_EVERY: Duration = Duration::seconds(60);

/// What is to be written.
pub(super) struct Plan {
    pub service: Arc<Service>,
    pub service_is_new: bool,
    pub service_changed: bool,
    pub version_changed: bool,
    pub instance: Instance,
    pub before: Option<Arc<Instance>>,
    /// The same Consul id lived in another service.
    pub moved: Option<(Arc<Service>, Arc<Instance>)>,
    pub checks: Vec<Check>,
    pub dropped: Vec<CheckKey>,
    pub token: Option<Arc<Token>>,
    /// It begins a new life: what was known of its health does not count.
    pub reborn: bool,
}

pub(super) fn plan(
    core: &Core,
    cx: &Context,
    model: &Model,
    p: &Placed,
    index: u64,
) -> Result<Plan> {
    let name = &p.request.registration.name;
    let known = model.service_named(p.tenant, name);
    may_use(cx, model, p, known.map(|e| &e.service))?;
    let service = Arc::new(next_service(cx, known.map(|e| &e.service), p, index));
    let before = known.and_then(|e| model.instance_keyed(e.service.id, &p.key));
    let token = counted(
        cx,
        model,
        p,
        known.map_or(0, |e| e.instances.len()),
        before.is_some(),
    )?;
    let node = NodeKey {
        tenant: p.tenant,
        name: Arc::clone(&p.definition.node),
    };
    let moved = p.definition.consul.as_ref().and_then(|c| {
        let entry = model.instance_on(&node, &c.id)?;
        let of = model.service_of(&entry.instance)?;
        (before.is_none_or(|b| b.instance.id != entry.instance.id))
            .then(|| (Arc::clone(of), Arc::clone(&entry.instance)))
    });
    let reborn = before.is_none_or(|b| {
        let (x, y) = (&b.instance.definition, &p.definition);
        (&x.host, x.port, x.protocol, &x.base_path, &x.checks)
            != (&y.host, y.port, y.protocol, &y.base_path, &y.checks)
    });
    let mut instance = next_instance(core, cx, p, &service, before.map(|b| &*b.instance), index);
    let (checks, dropped) = next_checks(model, p, &instance, &node, index, cx);
    let health = next_health(
        core,
        model,
        p,
        before.map(|b| b.instance.id),
        &checks,
        reborn,
    );
    let refused = !reborn && before.is_some_and(|b| b.live.is_refused());
    let restored = before.filter(|_| !reborn).and_then(|b| b.live.restored());
    let facts = Facts {
        order: instance.order.clone(),
        node_maintenance: model
            .node(&node)
            .is_some_and(|n| n.details.maintenance.is_some()),
        heartbeat: p
            .definition
            .heartbeat_s
            .map(|s| Duration::seconds(i64::from(s))),
        last_seen: cx.now(),
        restored,
        health,
        refused,
    };
    settle(core, &mut instance, &facts, cx.now());
    let known_service = known.map(|e| &e.service);
    Ok(Plan {
        service_is_new: known.is_none(),
        service_changed: known_service.is_none_or(|k| !k.same_content(&service)),
        version_changed: known_service.is_none_or(|k| {
            k.versions.get(&p.definition.version).map(|v| &v.endpoints)
                != service
                    .versions
                    .get(&p.definition.version)
                    .map(|v| &v.endpoints)
        }),
        before: before.map(|b| Arc::clone(&b.instance)),
        service,
        instance,
        moved,
        checks,
        dropped,
        token,
        reborn,
    })
}

/// The first owner keeps a name, and a global name is unique over all tenants (RG-9).
pub(super) fn may_use(
    cx: &Context,
    model: &Model,
    p: &Placed,
    known: Option<&Arc<Service>>,
) -> Result<()> {
    let name = &p.request.registration.name;
    if known.is_some_and(|s| s.builtin) {
        return Err(Error::NameOwned);
    }
    let reserved = model.reservation(name).is_some()
        || model
            .service_named(None, name)
            .is_some_and(|e| e.service.builtin);
    let owner = known.map(|s| &s.owner);
    if !p.rights.may_use(cx.principal(), name, owner, reserved) {
        return Err(Error::NameOwned);
    }
    let clash = known.is_none()
        && match p.tenant {
            None => model.anybody_named(name),
            Some(_) => model.service_named(None, name).is_some(),
        };
    if clash { Err(Error::NameOwned) } else { Ok(()) }
}

/// Bounds of a service and of a token; answers the token when its use is to be written down.
fn counted(
    cx: &Context,
    model: &Model,
    p: &Placed,
    instances: usize,
    known: bool,
) -> Result<Option<Arc<Token>>> {
    let principal = cx.principal();
    if !known {
        if instances >= MOST_INSTANCES {
            return Err(Error::Conflict(
                "the service has as many instances as it may have",
            ));
        }
        if let Some(most) = p.rights.max_instances
            && model.instances_of_owner(&Owner::of(principal)) >= most as usize
        {
            return Err(Error::TooManyInstances);
        }
    }
    if principal.kind != PrincipalKind::Registrar {
        return Ok(None);
    }
    let token = principal
        .id
        .and_then(|id| model.token(id))
        .ok_or(Error::Unauthenticated)?;
    let stale = token.used_at.is_none_or(|at| cx.now() - at >= USED_EVERY);
    Ok(stale.then(|| Arc::clone(token)))
}

pub(super) fn next_service(
    cx: &Context,
    known: Option<&Arc<Service>>,
    p: &Placed,
    index: u64,
) -> Service {
    let r = &p.request.registration;
    let now = cx.now();
    let mut service = match known {
        Some(known) => Service::clone(known),
        None => Service {
            id: cx.new_id(),
            tenant: p.tenant,
            name: Arc::from(&*r.name),
            display_name: Arc::from(&*r.name),
            description: Arc::from(""),
            owner: Owner::of(cx.principal()),
            default_access: DefaultAccess::Authenticated,
            forward_credentials: false,
            identity_statement: false,
            openapi_url: None,
            settings_schema: None,
            console: None,
            contributions: Arc::new(Contributions::default()),
            enabled: true,
            disabled_for: Arc::from([]),
            versions: std::collections::BTreeMap::new(),
            created_at: now,
            updated_at: now,
            builtin: false,
            create_index: index,
        },
    };
    let version = service
        .versions
        .entry(Arc::clone(&p.definition.version))
        .or_insert_with(|| Version {
            created_at: now,
            endpoints: Arc::from([]),
        });
    if let Some(part) = &r.service {
        if let Some(endpoints) = &part.endpoints {
            version.endpoints = endpoints
                .iter()
                .map(|e| e.endpoint(Some(&r.version)))
                .collect();
        }
        if let Some(text) = &part.display_name {
            service.display_name = Arc::from(&**text);
        }
        if let Some(text) = &part.description {
            service.description = Arc::from(&**text);
        }
        service.default_access = part.default_access;
        service.forward_credentials = part.forward_credentials;
        service.identity_statement = part.identity_statement;
        service.openapi_url = part.openapi_url.as_deref().map(Arc::from);
        service.settings_schema = part.settings_schema.clone().map(Arc::new);
        service.console = part.console.clone().map(Arc::new);
        service.contributions = Arc::new(part.contributions.clone());
    }
    service.updated_at = now;
    service
}

fn next_instance(
    core: &Core,
    cx: &Context,
    p: &Placed,
    service: &Service,
    before: Option<&Instance>,
    index: u64,
) -> Instance {
    let now = cx.now();
    let secret = (p.request.source == Source::Native).then(|| {
        let given = p.request.registration.secret.clone();
        let kept = before
            .and_then(|b| b.secret.clone())
            .filter(|s| given.as_ref().is_none_or(|g| **g == *s.current));
        kept.unwrap_or_else(|| InstanceSecret {
            given: given.is_some(),
            current: given.unwrap_or_else(|| Arc::new(new_token(SECRET_PREFIX, &*core.random))),
            issued_at: now,
            next: None,
            previous: None,
        })
    });
    // Whoever registers again ends its own drain; what an operator took out stays out.
    let order = before
        .and_then(|b| b.order.clone())
        .filter(|o| matches!(o, crate::domain::life::Order::Maintenance { .. }));
    Instance {
        id: before.map_or_else(|| cx.new_id(), |b| b.id),
        service: service.id,
        key: Arc::clone(&p.key),
        source: p.request.source,
        owner: before.map_or_else(|| Owner::of(cx.principal()), |b| b.owner.clone()),
        definition: p.definition.clone(),
        state: before.map_or(InstanceState::Starting, |b| b.state),
        reason: before.map_or_else(|| Arc::from(""), |b| Arc::clone(&b.reason)),
        since: before.map_or(now, |b| b.since),
        order,
        weight_override: before.and_then(|b| b.weight_override),
        warning: before.is_some_and(|b| b.warning),
        secret,
        last_heartbeat: now,
        created_at: before.map_or(now, |b| b.created_at),
        updated_at: now,
        create_index: before.map_or(index, |b| b.create_index),
        modify_index: index,
    }
}

/// Checks that stand on their own: new ones, those kept with their status, those to drop.
fn next_checks(
    model: &Model,
    p: &Placed,
    instance: &Instance,
    node: &NodeKey,
    index: u64,
    cx: &Context,
) -> (Vec<Check>, Vec<CheckKey>) {
    let put: Vec<Check> = p
        .request
        .checks
        .iter()
        .map(|new| {
            let key = CheckKey {
                node: node.clone(),
                id: Arc::from(&*new.id),
            };
            let known = model
                .check(&key)
                .filter(|c| c.instance == Some(instance.id));
            let same_kind = known.is_some_and(|k| k.spec.probe.kind() == new.spec.probe.kind());
            let kept = known.filter(|_| same_kind);
            Check {
                instance: Some(instance.id),
                name: Arc::from(&*new.name),
                notes: Arc::from(&*new.notes),
                spec: Arc::new(CheckSpec {
                    foreign: p.rights.foreign_checks,
                    ..new.spec.clone()
                }),
                status: kept.map_or(new.status, |k| k.status),
                answered: true,
                output: kept.map_or_else(|| Arc::from(""), |k| Arc::clone(&k.output)),
                since: kept.map_or_else(|| cx.now(), |k| k.since),
                stored: true,
                create_index: known.map_or(index, |k| k.create_index),
                modify_index: index,
                key,
            }
        })
        .collect();
    let dropped = if p.request.replace_checks {
        model
            .checks_of(instance.id)
            .filter(|c| c.stored && put.iter().all(|n| n.key != c.key))
            .map(|c| c.key.clone())
            .collect()
    } else {
        Vec::new()
    };
    (put, dropped)
}

/// What its checks will say together right after the registration.
fn next_health(
    core: &Core,
    model: &Model,
    p: &Placed,
    before: Option<Uuid>,
    checks: &[Check],
    reborn: bool,
) -> Health {
    let kept = before
        .into_iter()
        .flat_map(|id| model.checks_of(id))
        .filter(|c| c.stored && !p.request.replace_checks && checks.iter().all(|n| n.key != c.key));
    let node = NodeKey {
        tenant: p.tenant,
        name: Arc::clone(&p.definition.node),
    };
    let stored = kept.map(|c| c.status);
    let of_node = model.node_checks(&node).map(|c| c.status);
    let mut worst = checks
        .iter()
        .map(|c| c.status)
        .chain(stored)
        .chain(of_node)
        .max();
    let mut silent = false;
    if !reborn {
        for check in before
            .into_iter()
            .flat_map(|id| model.checks_of(id))
            .filter(|c| !c.stored)
        {
            silent |= !check.answered;
            worst = worst.max(check.answered.then_some(check.status));
        }
    } else if !p.definition.checks.is_empty()
        || (p.request.source == Source::Native && core.tunables.get().probe_on_register)
    {
        silent = true;
    }
    match worst {
        Some(Status::Critical) => Health::Known(Status::Critical),
        _ if silent => Health::Unknown,
        worst => Health::Known(worst.unwrap_or(Status::Passing)),
    }
}

/// Gives the instance the state that its facts ask for.
fn settle(core: &Core, instance: &mut Instance, facts: &Facts, now: Timestamp) {
    if let Fate::Lives {
        state,
        reason,
        warning,
    } = judge(facts, now, core.tunables.get().policy).fate
    {
        if instance.state != state {
            instance.since = now;
        }
        instance.state = state;
        instance.reason = Arc::from(reason);
        instance.warning = warning;
    }
}
