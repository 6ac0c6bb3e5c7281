//! Registering an instance (RG-1, RG-5, RG-9, RG-10, RG-11, PL-2, PL-3).

mod place;
mod plan;

use std::sync::Arc;

use portico_base::{Context, Permission, PrincipalKind, Secret};
use portico_contract::audit::Record;
use portico_contract::directory::DefaultAccess;
use serde_json::Value;
use uuid::Uuid;

use super::{audited, need, rights};
use crate::domain::check::{CheckSpec, Status};
use crate::domain::event::EventKind;
use crate::domain::instance::{Definition, Instance, Source};
use crate::domain::registration::Registration;
use crate::domain::rights::{Rights, Tenants};
use crate::domain::service::Service;
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::model::Model;
use crate::writer::Writer;

pub(crate) use place::tenant;
use plan::Plan;

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
    crate::plugin_settings::check(core, &request.registration)?;
    let rights = rights_for(core, cx, &request)?;
    let placed = place::place(core, cx, request, rights).await?;
    if let Some(same) = unchanged(core, cx, &placed) {
        return Ok(same);
    }
    let mut writer = Writer::begin(core, cx).await?;
    let plan = {
        let model = core.model.read();
        plan::plan(core, cx, &model, &placed, writer.index())?
    };
    let mut registered = write(core, &mut writer, &placed, plan).await?;
    registered.seq = writer.commit().await?.seq;
    Ok(registered)
}

/// A registration whose rights and address were looked at, to be carried out inside a larger unit of work.
pub(crate) struct Prepared(Placed);

/// Looks at everything that needs no lock.
pub(crate) async fn prepare(core: &Arc<Core>, cx: &Context, request: Request) -> Result<Prepared> {
    need(cx, Permission::new("registry:instance:register"))?;
    let rights = rights_for(core, cx, &request)?;
    Ok(Prepared(place::place(core, cx, request, rights).await?))
}

/// Registers inside a unit of work. What the unit has written before is not in the model yet: whoever calls
/// sees to it that no name that is new, and no instance, comes twice.
pub(crate) async fn carry_out(
    core: &Arc<Core>,
    cx: &Context,
    writer: &mut Writer,
    Prepared(placed): &Prepared,
) -> Result<Registered> {
    let plan = {
        let model = core.model.read();
        plan::plan(core, cx, &model, placed, writer.index())?
    };
    write(core, writer, placed, plan).await
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

/// The answer for content that is known already: nothing is written and nobody is woken (RG-5).
fn unchanged(core: &Core, cx: &Context, p: &Placed) -> Option<Registered> {
    let model = core.model.read();
    let entry = model.service_named(p.tenant, &p.request.registration.name)?;
    let known = model.instance_keyed(entry.service.id, &p.key)?;
    let service = plan::next_service(cx, Some(&entry.service), p, 0);
    let owned = plan::may_use(cx, &model, p, Some(&entry.service)).is_ok();
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
    let record = record(action, &plan.service, &instance, plan.before.as_deref());
    w.audit(record).await?;
    Ok(Registered {
        secret: instance.secret.as_ref().map(|s| Arc::clone(&s.current)),
        service: plan.service,
        new: plan.before.is_none(),
        instance,
        seq: 0,
    })
}

/// What the audit keeps of a registration: who it is and where.
fn record(
    action: &'static str,
    service: &Service,
    now: &Instance,
    before: Option<&Instance>,
) -> Record {
    let text = |of: &Arc<str>| Some(Value::from(of.to_string()));
    let (is, was) = (&now.definition, before.map(|b| &b.definition));
    audited(action, "instance", now.id.to_string(), service.tenant)
        .change("service", None, text(&service.name))
        .change("host", was.and_then(|d| text(&d.host)), text(&is.host))
        .change("port", was.map(|d| d.port.into()), Some(is.port.into()))
        .change(
            "version",
            was.and_then(|d| text(&d.version)),
            text(&is.version),
        )
}
