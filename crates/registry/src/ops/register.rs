//! Registering an instance (RG-1, RG-5, RG-9, RG-10, RG-11, PL-2, PL-3).

use std::sync::Arc;

use chrono::Duration;
use portico_base::secret::new_token;
use portico_base::{Context, FieldFault, Permission, PrincipalKind, Secret, Timestamp, id};
use portico_contract::directory::{DefaultAccess, InstanceState, Protocol};
use uuid::Uuid;

use super::{audited, need, rights};
use crate::core::Core;
use crate::domain::check::{Check, CheckKey, CheckSpec, Status};
use crate::domain::event::EventKind;
use crate::domain::instance::{Definition, Instance, InstanceSecret, Source, default_key};
use crate::domain::life::{Facts, Fate, Health, judge};
use crate::domain::node::NodeKey;
use crate::domain::registration::{Host, Registration};
use crate::domain::rights::{Rights, Tenants};
use crate::domain::service::{Contributions, Owner, Service, Version};
use crate::domain::token::{SECRET_PREFIX, Token};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::resolve::resolve;
use crate::writer::Writer;

/// Instances of a service (RG-9).
const MOST_INSTANCES: usize = 1_000;
/// How often it is written when a token was used.
const USED_EVERY: Duration = Duration::seconds(60);

/// A check that comes with a registration and stands on its own (Consul's API).
#[derive(Debug, Clone)]
pub(crate) struct NewCheck {
    pub id: String,
    pub name: String,
    pub notes: String,
    pub spec: CheckSpec,
    pub status: Status,
}

/// What to register.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub registration: Registration,
    pub source: Source,
    pub checks: Vec<NewCheck>,
    /// Drops stored checks that `checks` lacks.
    pub replace_checks: bool,
}

impl Request {
    /// A registration of the native API.
    pub(crate) const fn native(registration: Registration) -> Self {
        Self {
            registration,
            source: Source::Native,
            checks: Vec::new(),
            replace_checks: false,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    pub service: Arc<Service>,
    pub instance: Arc<Instance>,
    /// It was not known before.
    pub new: bool,
    pub seq: u64,
    pub secret: Option<Arc<Secret<String>>>,
}

/// A registration whose place is known.
struct Placed {
    request: Request,
    rights: Rights,
    tenant: Option<Uuid>,
    key: Arc<str>,
    definition: Definition,
}

/// Registers an instance, or does nothing when it is registered with the same content.
pub(crate) async fn register(
    core: &Arc<Core>,
    cx: &Context,
    request: Request,
) -> Result<Registered> {
    if cx.principal().kind != PrincipalKind::Instance {
        need(cx, Permission::new("registry:instance:register"))?;
    }
    let rights = rights_for(core, cx, &request)?;
    let placed = place(core, cx, request, rights).await?;
    if let Some(same) = unchanged(core, cx, &placed) {
        return Ok(same);
    }
    let mut writer = Writer::begin(core, cx).await?;
    let plan = {
        let model = core.model.read();
        plan(core, cx, &model, &placed, writer.index())?
    };
    let mut registered = write(core, &mut writer, &placed, plan).await?;
    registered.seq = writer.commit().await?.seq;
    Ok(registered)
}

/// An instance may only register itself again, under the name that it has.
fn rights_for(core: &Core, cx: &Context, request: &Request) -> Result<Rights> {
    let principal = cx.principal();
    let mut found = rights(core, principal)?;
    if principal.kind == PrincipalKind::Instance {
        let model = core.model.read();
        let own = principal
            .id
            .and_then(|id| model.instance(id))
            .and_then(|e| model.service_of(&e.instance))
            .filter(|s| *s.name == *request.registration.name)
            .ok_or(Error::NameOwned)?;
        found.names = crate::domain::token::NamePattern::parse(&own.name).ok();
        found.tenants = Tenants::Fixed(own.tenant);
        found.public = own.default_access == DefaultAccess::Public;
        found.credentials = own.forward_credentials;
    }
    Ok(found)
}

/// Everything that can be checked without the writer's lock.
async fn place(core: &Core, cx: &Context, request: Request, rights: Rights) -> Result<Placed> {
    let r = &request.registration;
    allowed(&rights, r)?;
    let mut faults = Vec::new();
    let tenant = tenant(&rights, r.tenant.as_deref()).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let host = match host(core, cx, r).await {
        Ok(host) => host,
        Err(fault) => {
            faults.push(fault);
            String::new()
        }
    };
    if !faults.is_empty() {
        return Err(invalid(faults));
    }
    let key = r
        .key
        .clone()
        .unwrap_or_else(|| default_key(&host, r.port, &r.base_path));
    let definition = definition(core, r, &host, rights.foreign_checks);
    Ok(Placed {
        tenant,
        key: key.into(),
        definition,
        rights,
        request,
    })
}

/// A single fault of the address is the problem's own code; several share the general one.
fn invalid(faults: Vec<FieldFault>) -> Error {
    let code = match faults.as_slice() {
        [one] if one.code == "loop" => "registry.loop",
        [one] if one.code == "address_not_allowed" => "registry.address_not_allowed",
        _ => "registry.invalid",
    };
    Error::Invalid { code, faults }
}

fn allowed(rights: &Rights, r: &Registration) -> Result<()> {
    let mut faults = Vec::new();
    if rights.names.as_ref().is_some_and(|p| !p.covers(&r.name)) {
        faults.push(FieldFault::new(
            "name",
            "not_allowed",
            "the token is not for this name",
        ));
    }
    if let Some(service) = &r.service {
        if service.default_access == DefaultAccess::Public && !rights.public {
            faults.push(FieldFault::new(
                "default_access",
                "not_allowed",
                "the token does not allow `public`",
            ));
        }
        if service.forward_credentials && !rights.credentials {
            let message = "the token does not allow the callers' credentials";
            faults.push(FieldFault::new(
                "forward_credentials",
                "not_allowed",
                message,
            ));
        }
    }
    if r.protocol == Protocol::Unix && !rights.admin {
        faults.push(FieldFault::new(
            "protocol",
            "not_allowed",
            "sockets of this machine are for administrators",
        ));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let reason = "the credential does not allow this registration".to_owned();
    Err(Error::NotAllowed { reason, faults })
}

/// The tenant of the service: the wished one where the caller may choose, else its own.
pub(crate) fn tenant(
    rights: &Rights,
    wish: Option<&str>,
) -> std::result::Result<Option<Uuid>, FieldFault> {
    let wished = match wish {
        None => None,
        Some("global") => Some(None),
        Some("default") => Some(Some(id::TENANT_DEFAULT)),
        Some("system") => Some(Some(id::TENANT_SYSTEM)),
        Some(text) => match Uuid::parse_str(text) {
            Ok(id) if !id.is_nil() => Some(Some(id)),
            _ => {
                return Err(FieldFault::new(
                    "tenant",
                    "unknown",
                    "there is no such tenant",
                ));
            }
        },
    };
    match (rights.tenants, wished) {
        (Tenants::Fixed(own) | Tenants::Any(own), None) => Ok(own),
        (Tenants::Any(_), Some(tenant)) => Ok(tenant),
        (Tenants::Fixed(own), Some(tenant)) if own == tenant => Ok(own),
        (Tenants::Fixed(_), Some(_)) => Err(FieldFault::new(
            "tenant",
            "not_allowed",
            "the credential belongs to another tenant",
        )),
    }
}

async fn host(
    core: &Core,
    cx: &Context,
    r: &Registration,
) -> std::result::Result<String, FieldFault> {
    let host = match &r.host {
        Host::Named(host) => host.clone(),
        Host::Auto => match cx.caller.address {
            Some(ip) => ip.to_canonical().to_string(),
            None if cx.caller.direct_loopback => "127.0.0.1".to_owned(),
            None => {
                return Err(FieldFault::new(
                    "host",
                    "required",
                    "the caller's address is not known",
                ));
            }
        },
    };
    // Consul's API takes services without a port, and names that nobody routes to.
    let connectable = r.protocol != Protocol::Unix && (r.port > 0 || r.consul.is_none());
    if connectable {
        match resolve(&*core.addresses, &host, r.port).await {
            // A name that does not resolve today is kept for Consul's clients, and fails at connect.
            Err(crate::resolve::Unreachable::Unknown) if r.consul.is_some() => {}
            Err(error) => return Err(error.fault("host")),
            Ok(_) => {}
        }
    }
    Ok(host)
}

fn definition(core: &Core, r: &Registration, host: &str, foreign: bool) -> Definition {
    let node = if !r.node.is_empty() {
        r.node.clone()
    } else if host
        .parse()
        .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        || r.protocol == Protocol::Unix
    {
        core.host.to_string()
    } else {
        host.to_owned()
    };
    let checks = r
        .checks
        .iter()
        .map(|c| CheckSpec {
            foreign,
            ..c.clone()
        })
        .collect();
    Definition {
        version: Arc::from(&*r.version),
        host: Arc::from(host),
        port: r.port,
        base_path: Arc::from(&*r.base_path),
        protocol: r.protocol,
        tls_pin: r.tls_pin,
        weight: r.weight,
        zone: Arc::from(&*r.zone),
        node: node.into(),
        tags: r.tags.clone().into(),
        metadata: Arc::new(r.metadata.clone()),
        heartbeat_s: r.heartbeat_s,
        checks,
        consul: r.consul.clone(),
    }
}

/// The answer for content that is known already: nothing is written and nobody is woken (RG-5).
fn unchanged(core: &Core, cx: &Context, p: &Placed) -> Option<Registered> {
    let model = core.model.read();
    let entry = model.service_named(p.tenant, &p.request.registration.name)?;
    let known = model.instance_keyed(entry.service.id, &p.key)?;
    let service = next_service(cx, Some(&entry.service), p, 0);
    let owned = may_use(cx, &model, p, Some(&entry.service)).is_ok();
    let same = owned
        && p.request.checks.is_empty()
        && !p.request.replace_checks
        && known.instance.source == p.request.source
        && known.instance.definition == p.definition
        && known.instance.order.is_none()
        && (known.instance.secret.is_some() || p.request.source != Source::Native)
        && p.request.registration.secret.as_ref().is_none_or(|given| {
            known
                .instance
                .secret
                .as_ref()
                .is_some_and(|s| *s.current == **given)
        })
        && service.same_content(&entry.service);
    if !same {
        return None;
    }
    known.live.see(cx.now());
    let verdict = model.judge(known.instance.id, cx.now(), core.tunables.get().policy)?;
    if Model::differs(known, &verdict) {
        // It comes back from silence: that is a change of state, with everything that belongs to one.
        return None;
    }
    Some(Registered {
        service: Arc::clone(&entry.service),
        instance: Arc::clone(&known.instance),
        new: false,
        seq: model.seq,
        secret: known
            .instance
            .secret
            .as_ref()
            .map(|s| Arc::clone(&s.current)),
    })
}

/// What is to be written.
struct Plan {
    service: Arc<Service>,
    service_is_new: bool,
    service_changed: bool,
    version_changed: bool,
    instance: Instance,
    before: Option<Arc<Instance>>,
    /// The same Consul id lived in another service.
    moved: Option<(Arc<Service>, Arc<Instance>)>,
    checks: Vec<Check>,
    dropped: Vec<CheckKey>,
    token: Option<Arc<Token>>,
    /// It begins a new life: what was known of its health does not count.
    reborn: bool,
}

fn plan(core: &Core, cx: &Context, model: &Model, p: &Placed, index: u64) -> Result<Plan> {
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
fn may_use(cx: &Context, model: &Model, p: &Placed, known: Option<&Arc<Service>>) -> Result<()> {
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
        let kind = principal.kind.as_str();
        if let Some(most) = p.rights.max_instances
            && model.instances_of_owner(kind, &principal.subject) >= most as usize
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

fn next_service(cx: &Context, known: Option<&Arc<Service>>, p: &Placed, index: u64) -> Service {
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

async fn write(core: &Core, w: &mut Writer, p: &Placed, plan: Plan) -> Result<Registered> {
    if let Some((service, instance)) = &plan.moved {
        w.drop_instance(instance).await?;
        w.instance_event(EventKind::InstanceRemoved, service, instance);
    }
    if plan.service_is_new || plan.service_changed {
        let version = if plan.version_changed {
            vec![&*p.definition.version]
        } else {
            Vec::new()
        };
        w.put_service(&plan.service, &version).await?;
        let kind = if plan.service_is_new {
            EventKind::ServiceRegistered
        } else {
            EventKind::ServiceChanged
        };
        w.service_event(kind, &plan.service);
    }
    let from = plan.before.as_ref().map(|b| b.state);
    if plan.reborn
        && let Some(before) = &plan.before
        && let Some(entry) = core.model.read().instance(before.id)
    {
        entry.live.renew();
    }
    let instance = w.put_instance(plan.instance).await?;
    for key in &plan.dropped {
        w.drop_check(key).await?;
    }
    for check in plan.checks {
        w.put_check(check).await?;
    }
    let action = match from {
        None => {
            w.instance_event(EventKind::InstanceRegistered, &plan.service, &instance);
            w.remember(&instance, "", instance.state.as_str(), "registered");
            "registry.instance.registered"
        }
        Some(from) => {
            w.instance_event(EventKind::InstanceChanged, &plan.service, &instance);
            if from != instance.state {
                w.state_event(&plan.service, &instance, from);
            }
            "registry.instance.changed"
        }
    };
    if let Some(token) = &plan.token {
        w.use_token(token).await?;
    }
    let record = audited(
        action,
        "instance",
        instance.id.to_string(),
        plan.service.tenant,
    )
    .change("service", None, Some(plan.service.name.to_string().into()))
    .change(
        "host",
        plan.before
            .as_ref()
            .map(|b| b.definition.host.to_string().into()),
        Some(instance.definition.host.to_string().into()),
    )
    .change(
        "port",
        plan.before.as_ref().map(|b| b.definition.port.into()),
        Some(instance.definition.port.into()),
    )
    .change(
        "version",
        plan.before
            .as_ref()
            .map(|b| b.definition.version.to_string().into()),
        Some(instance.definition.version.to_string().into()),
    );
    w.audit(record).await?;
    Ok(Registered {
        secret: instance.secret.as_ref().map(|s| Arc::clone(&s.current)),
        service: plan.service,
        new: plan.before.is_none(),
        instance,
        seq: 0,
    })
}
