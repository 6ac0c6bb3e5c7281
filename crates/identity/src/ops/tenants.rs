//! Tenants: made, changed, suspended, resumed, logged out as a whole (ID-1…6).

use std::sync::Arc;

use portico_base::{Context, FieldFault, id};
use portico_contract::audit::Record;
use portico_contract::services::TenantService;
use portico_contract::tenants::TenantStatus;
use portico_db::DbError;
use portico_db::sea_orm::ConnectionTrait;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{need, scope, users};
use crate::domain::tenant::{Quotas, Tenant, is_slug, status_text};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::permissions::{TENANT_MANAGE, TENANT_READ, TENANT_WRITE};
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// Tenants of an installation.
const MOST: usize = 10_000;
/// Hosts of a tenant.
const HOSTS: usize = 50;

/// A tenant with its hosts.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub tenant: Tenant,
    pub hosts: Vec<String>,
}

/// A tenant to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewTenant {
    pub slug: String,
    pub display_name: String,
    pub quotas: Option<Quotas>,
    pub hosts: Vec<String>,
}

/// What is changed of a tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct TenantEdit {
    pub display_name: Option<String>,
    pub quotas: Option<Quotas>,
    pub hosts: Option<Vec<String>>,
}

/// The tenants that the caller administers.
pub(crate) async fn list(core: &Core, cx: &Context) -> Result<Vec<Shown>> {
    need(cx, TENANT_READ)?;
    let conn = core.db.reader();
    if !scope::acts_for_all(cx.principal()) {
        return Ok(vec![
            shown(conn, scope::tenant(conn, cx, None).await?).await?,
        ]);
    }
    let mut hosts = store::tenants::hosts(conn).await?;
    let of = |id: Uuid, hosts: &mut Vec<(String, Uuid)>| {
        hosts
            .extract_if(.., |(_, tenant)| *tenant == id)
            .map(|(host, _)| host)
            .collect()
    };
    let tenants = store::tenants::all(conn).await?;
    Ok(tenants
        .into_iter()
        .map(|tenant| Shown {
            hosts: of(tenant.id, &mut hosts),
            tenant,
        })
        .collect())
}

/// A tenant by id or slug.
pub(crate) async fn get(core: &Core, cx: &Context, wanted: &str) -> Result<Shown> {
    need(cx, TENANT_READ)?;
    let conn = core.db.reader();
    shown(conn, scope::tenant(conn, cx, Some(wanted)).await?).await
}

/// Makes a tenant.
pub(crate) async fn create(core: &Arc<Core>, cx: &Context, new: NewTenant) -> Result<Shown> {
    need(cx, TENANT_MANAGE)?;
    let mut faults = Vec::new();
    if !is_slug(&new.slug) {
        let message = "must be 2 to 40 of a-z, 0-9 and `-`";
        faults.push(FieldFault::new("slug", "form", message));
    }
    faults.extend(name_fault(&new.display_name));
    let hosts = checked_hosts(&new.hosts, &mut faults);
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let unit = Unit::begin_durable(core, cx).await?;
    unit.tx.serialise("identity.tenants").await?;
    if store::tenants::all(&unit.tx).await?.len() >= MOST {
        return Err(exceeded("tenants", MOST as u64));
    }
    let tenant = Tenant {
        id: cx.new_id(),
        slug: new.slug,
        display_name: new.display_name.trim().to_owned(),
        status: TenantStatus::Active,
        te: 1,
        quotas: new.quotas.unwrap_or_default(),
        delete_at: None,
        created_at: unit.now(),
        updated_at: unit.now(),
    };
    store::tenants::insert(&unit.tx, &tenant)
        .await
        .map_err(taken)?;
    bind(&unit, &tenant, &[], &hosts).await?;
    unit.audit(
        record("identity.tenant.created", &tenant)
            .change("slug", None, Some(tenant.slug.as_str().into()))
            .change("hosts", None, Some(hosts.clone().into())),
    )
    .await?;
    changed(&unit, &tenant, "created").await?;
    publish(&unit, "identity.tenant.created", &tenant)?;
    unit.commit().await?;
    Ok(Shown { tenant, hosts })
}

/// Changes name, quotas and hosts. A tenant's own administrator changes the name; how much a tenant may
/// have, and which hosts lead to it, is for those who administer all.
pub(crate) async fn update(
    core: &Arc<Core>,
    cx: &Context,
    wanted: &str,
    wish: TenantEdit,
) -> Result<Shown> {
    need(cx, TENANT_WRITE)?;
    if wish.quotas.is_some() || wish.hosts.is_some() {
        need(cx, TENANT_MANAGE)?;
    }
    let unit = Unit::begin_durable(core, cx).await?;
    let before = locked(&unit, wanted).await?;
    let mut tenant = before.tenant.clone();
    let mut faults = Vec::new();
    if let Some(name) = &wish.display_name {
        faults.extend(name_fault(name));
        name.trim().clone_into(&mut tenant.display_name);
    }
    tenant.quotas = wish.quotas.unwrap_or(tenant.quotas);
    let hosts = wish
        .hosts
        .map_or_else(|| before.hosts.clone(), |h| checked_hosts(&h, &mut faults));
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    if tenant == before.tenant && hosts == before.hosts {
        return Ok(before);
    }
    tenant.updated_at = unit.now();
    store::tenants::put(&unit.tx, &tenant).await?;
    bind(&unit, &tenant, &before.hosts, &hosts).await?;
    let quotas = |t: &Tenant| serde_json::to_value(t.quotas).ok();
    let old = &before.tenant;
    unit.audit(
        record("identity.tenant.updated", &tenant)
            .change(
                "display_name",
                Some(old.display_name.as_str().into()),
                Some(tenant.display_name.as_str().into()),
            )
            .change("quotas", quotas(old), quotas(&tenant))
            .change(
                "hosts",
                Some(before.hosts.into()),
                Some(hosts.clone().into()),
            ),
    )
    .await?;
    changed(&unit, &tenant, "changed").await?;
    unit.commit().await?;
    Ok(Shown { tenant, hosts })
}

/// Nobody of the tenant gets in until it is resumed: every token, key and connection is refused (ID-5).
pub(crate) async fn suspend(
    core: &Arc<Core>,
    cx: &Context,
    wanted: &str,
    why: Option<String>,
) -> Result<Shown> {
    need(cx, TENANT_MANAGE)?;
    let why = users::reason_of(why)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut shown = locked(&unit, wanted).await?;
    if shown.tenant.id == id::TENANT_SYSTEM {
        return Err(reason::BUILT_IN.into());
    }
    if shown.tenant.status == TenantStatus::Active {
        shown.tenant = turn(&unit, shown.tenant, TenantStatus::Suspended, why).await?;
        unit.commit().await?;
    }
    Ok(shown)
}

/// People of the tenant can log in again; nothing is lost.
pub(crate) async fn resume(core: &Arc<Core>, cx: &Context, wanted: &str) -> Result<Shown> {
    need(cx, TENANT_MANAGE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut shown = locked(&unit, wanted).await?;
    if shown.tenant.status == TenantStatus::Suspended {
        shown.tenant = turn(&unit, shown.tenant, TenantStatus::Active, None).await?;
        unit.commit().await?;
    }
    Ok(shown)
}

/// Logs everybody of the tenant out (ID-94).
pub(crate) async fn log_out_all(core: &Arc<Core>, cx: &Context, wanted: &str) -> Result<()> {
    need(cx, TENANT_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let tenant = locked(&unit, wanted).await?.tenant;
    // Rows first: the log is everybody's and comes last.
    let ended = Some(tenant.id);
    store::sessions::end_everywhere(&unit.tx, ended, "tenant_logout", unit.now()).await?;
    let te = raise(&unit, &tenant, "logout").await?;
    let record = record("identity.tenant.logged_out", &tenant).change(
        "te",
        Some(tenant.te.into()),
        Some(te.into()),
    );
    unit.audit(record).await?;
    unit.commit().await
}

/// The services of a tenant, by name.
pub(crate) async fn services(
    core: &Core,
    cx: &Context,
    wanted: &str,
) -> Result<Vec<TenantService>> {
    need(cx, TENANT_READ)?;
    let tenant = scope::tenant(core.db.reader(), cx, Some(wanted)).await?;
    let services = core.services.as_ref();
    Ok(services.map_or_else(Vec::new, |s| s.list(tenant.id)))
}

/// Switches services on and off for a tenant (ID-4). The registry writes each with its record, and asks for
/// the right to it; what is wrong is told before the first one is switched.
pub(crate) async fn switch_services(
    core: &Core,
    cx: &Context,
    wanted: &str,
    wish: &[(String, bool)],
) -> Result<Vec<TenantService>> {
    need(cx, TENANT_WRITE)?;
    let tenant = scope::tenant(core.db.reader(), cx, Some(wanted)).await?.id;
    let services = core.services.as_ref().ok_or(reason::NOT_FOUND)?;
    let known = services.list(tenant);
    let mut faults = Vec::new();
    for (i, (name, _)) in wish.iter().enumerate() {
        let field = format!("services[{i}].name");
        match known.iter().find(|s| *s.name == **name) {
            None => faults.push(FieldFault::new(
                field,
                "unknown",
                "there is no such service",
            )),
            Some(s) if s.fixed => {
                let message = "the platform stands on this service; it cannot be switched";
                faults.push(FieldFault::new(field, "fixed", message));
            }
            Some(_) => {}
        }
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    for (name, enabled) in wish {
        services.switch(cx, tenant, name, *enabled).await?;
    }
    Ok(services.list(tenant))
}

/// Quotas of a tenant.
pub(crate) async fn quotas(conn: &impl ConnectionTrait, tenant: Uuid) -> Result<Quotas> {
    let tenant = store::tenants::get(conn, tenant).await?;
    Ok(tenant.ok_or(reason::TENANT_NOT_FOUND)?.quotas)
}

/// Refuses when the tenant may not have another user. Whoever passes makes the next one alone, so that the
/// quota holds when several come at once.
pub(crate) async fn room_for_user(unit: &Unit, tenant: Uuid) -> Result<()> {
    let Some(most) = quotas(&unit.tx, tenant).await?.users else {
        return Ok(());
    };
    unit.tx
        .serialise(&format!("identity.users.{tenant}"))
        .await?;
    if store::users::count(&unit.tx, tenant, most).await? >= most {
        return Err(exceeded("users", most));
    }
    Ok(())
}

/// 409 that names quota and limit (ID-6).
pub(crate) fn exceeded(quota: &str, limit: u64) -> Error {
    let members = Map::from_iter([
        ("quota".to_owned(), Value::from(quota)),
        ("limit".to_owned(), Value::from(limit)),
    ]);
    Error::With(reason::QUOTA_EXCEEDED, members)
}

async fn locked(unit: &Unit, wanted: &str) -> Result<Shown> {
    let found = scope::tenant(&unit.tx, &unit.cx, Some(wanted)).await?;
    let tenant = store::tenants::lock(&unit.tx, found.id).await?;
    shown(&unit.tx, tenant.ok_or(reason::TENANT_NOT_FOUND)?).await
}

async fn shown(conn: &impl ConnectionTrait, tenant: Tenant) -> Result<Shown> {
    let hosts = store::tenants::hosts_of(conn, tenant.id).await?;
    Ok(Shown { tenant, hosts })
}

/// Changes the status; a suspended tenant's epoch rises, so that nothing of before is good afterwards.
async fn turn(
    unit: &Unit,
    mut tenant: Tenant,
    status: TenantStatus,
    why: Option<String>,
) -> Result<Tenant> {
    let before = tenant.status;
    tenant.status = status;
    tenant.updated_at = unit.now();
    store::tenants::put(&unit.tx, &tenant).await?;
    let (action, cause) = match status {
        TenantStatus::Active => ("identity.tenant.resumed", "resumed"),
        _ => ("identity.tenant.suspended", "suspended"),
    };
    if status == TenantStatus::Suspended {
        tenant.te = raise(unit, &tenant, cause).await?;
    }
    let mut record = record(action, &tenant).change(
        "status",
        Some(status_text(before).into()),
        Some(status_text(status).into()),
    );
    record.reason = why;
    unit.audit(record).await?;
    changed(unit, &tenant, cause).await?;
    publish(unit, action, &tenant)?;
    Ok(tenant)
}

async fn raise(unit: &Unit, tenant: &Tenant, cause: &str) -> Result<u32> {
    let te = store::tenants::raise(&unit.tx, tenant.id, unit.now()).await?;
    let te = te.ok_or(reason::TENANT_NOT_FOUND)?;
    let subject = tenant.id.to_string();
    unit.revoke(Kind::Tenant, tenant.id, &subject, te, cause)
        .await?;
    Ok(te)
}

/// Every edge reads the tenants again.
async fn changed(unit: &Unit, tenant: &Tenant, cause: &str) -> Result<()> {
    let subject = tenant.id.to_string();
    unit.revoke(Kind::Tenants, tenant.id, &subject, 0, cause)
        .await
}

async fn bind(unit: &Unit, tenant: &Tenant, before: &[String], after: &[String]) -> Result<()> {
    for host in before.iter().filter(|host| !after.contains(host)) {
        store::tenants::delete_host(&unit.tx, host, tenant.id).await?;
    }
    for host in after.iter().filter(|host| !before.contains(host)) {
        store::tenants::insert_host(&unit.tx, host, tenant.id, unit.now())
            .await
            .map_err(taken)?;
    }
    Ok(())
}

/// Hosts in the form in which requests name them: lower case, without port.
fn checked_hosts(hosts: &[String], faults: &mut Vec<FieldFault>) -> Vec<String> {
    if hosts.len() > HOSTS {
        let message = format!("must be at most {HOSTS}");
        faults.push(FieldFault::new("hosts", "too_many", message));
        return Vec::new();
    }
    let mut good: Vec<String> = Vec::new();
    for (i, host) in hosts.iter().enumerate() {
        match url::Host::parse(host.trim()) {
            Ok(url::Host::Domain(name)) if name.len() <= 253 && !name.is_empty() => good.push(name),
            _ => {
                let field = format!("hosts[{i}]");
                faults.push(FieldFault::new(field, "form", "must be a host name"));
            }
        }
    }
    good.sort();
    good.dedup();
    good
}

fn name_fault(name: &str) -> Option<FieldFault> {
    let good = !name.trim().is_empty()
        && name.chars().count() <= 64
        && !name.chars().any(char::is_control);
    (!good).then(|| {
        let message = "must have 1 to 64 characters without control characters";
        FieldFault::new("display_name", "form", message)
    })
}

fn taken(error: DbError) -> Error {
    match &error {
        DbError::Unique { constraint } if constraint.contains("slug") => reason::SLUG_TAKEN.into(),
        DbError::Unique { constraint } if constraint.contains("host") => reason::HOST_TAKEN.into(),
        _ => error.into(),
    }
}

fn record(action: &'static str, tenant: &Tenant) -> Record {
    Record::done(action, "tenant", tenant.id.to_string(), tenant.id)
}

fn publish(unit: &Unit, topic: &str, tenant: &Tenant) -> Result<()> {
    let payload = json!({ "tenant_id": tenant.id, "slug": tenant.slug });
    unit.publish(topic, &tenant.id.to_string(), &payload)
}
