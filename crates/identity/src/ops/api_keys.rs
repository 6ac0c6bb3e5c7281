//! API keys: made, changed, rotated and revoked by people; never by another key (ID-130, ID-133, ID-136).

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, FieldFault, Permission, Secret, Timestamp};
use portico_contract::audit::Record;
use portico_db::sea_orm::ConnectionTrait;
use portico_token::api_key::{self, Realm};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{need, need_person, need_user, scope};
use crate::domain::api_key::{ApiKey, LONGEST, LONGEST_OVERLAP, NOTICE, OWN_KEYS, Wish, Written};
use crate::domain::role::Role;
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::permissions::{API_KEY_READ, API_KEY_WRITE};
use crate::settings::api_keys::DEFAULT_DAYS;
use crate::store;
use crate::store::revocations::Kind;
use crate::unit::Unit;

/// Keys that one run tells of.
const AT_ONCE: u64 = 1_000;

/// Whose keys a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The caller's.
    Own,
    /// Anybody's whom the caller administers.
    Any,
}

/// A wish for a key.
#[derive(Debug, Default)]
pub(crate) struct NewKey {
    /// Absent for the caller.
    pub owner: Option<Uuid>,
    pub name: String,
    pub written: Written,
    pub expires_at: Option<Timestamp>,
}

/// What changes of a key; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub name: Option<String>,
    pub scopes: Option<Vec<String>>,
    pub services: Option<Vec<String>>,
    pub cidrs: Option<Vec<String>>,
    /// `Some(None)` takes the limit away.
    pub per_s: Option<Option<f64>>,
    pub expires_at: Option<Timestamp>,
}

/// Which keys are listed.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Slug or id of the tenant; absent for the caller's.
    pub tenant: Option<String>,
    pub owner: Option<Uuid>,
    pub after: Option<Uuid>,
}

/// Makes a key. Its text is in the answer and nowhere else.
pub(crate) async fn create(
    core: &Arc<Core>,
    cx: &Context,
    whose: Whose,
    new: NewKey,
) -> Result<(ApiKey, Secret<String>)> {
    let caller = allowed(cx, whose, &API_KEY_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let owner = match new.owner.or(caller) {
        Some(id) => scope::user(&unit.tx, cx, id).await?,
        None => return Err(Error::field("owner_user_id", "required", "names the owner")),
    };
    let now = unit.now();
    let days = core.settings.get(owner.tenant, &DEFAULT_DAYS);
    let expires_at = new
        .expires_at
        .unwrap_or(now + Duration::days(i64::from(days)));
    let mut faults = Vec::new();
    if owner.status != UserStatus::Active {
        faults.push(FieldFault::new(
            "owner_user_id",
            "disabled",
            "is not active",
        ));
    }
    check_name(&new.name, &mut faults);
    check_end(expires_at, now, &mut faults);
    let wish = read(new.written, faults)?;
    let roles = store::roles::of_user(&unit.tx, owner.id).await?;
    grantable(cx, &wish.scopes, &roles)?;
    keep_quota(&unit, &owner, whose).await?;
    let made = api_key::make(Realm::Live, &*core.random);
    let key = ApiKey {
        id: cx.new_id(),
        key_id: made.id,
        tenant: owner.tenant,
        owner: owner.id,
        name: new.name,
        hash: made.hash,
        previous: None,
        wish,
        expires_at,
        noticed_at: None,
        last_used_at: None,
        last_used_ip: None,
        created_by: cx.principal().subject.to_string(),
        created_at: now,
        updated_at: now,
        revoked_at: None,
    };
    store::api_keys::insert(&unit.tx, &key).await?;
    unit.audit(
        record("identity.api_key.created", &key)
            .change("owner_user_id", None, Some(json!(key.owner)))
            .change("scopes", None, Some(json!(key.wish.scopes)))
            .change("expires_at", None, Some(json!(key.expires_at))),
    )
    .await?;
    unit.commit().await?;
    Ok((key, made.text))
}

/// Keys that are not revoked, newest first.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    whose: Whose,
    wanted: &Wanted,
    limit: u64,
) -> Result<Vec<ApiKey>> {
    let caller = allowed(cx, whose, &API_KEY_READ)?;
    let conn = core.db.reader();
    let (tenant, owner) = match (whose, wanted.owner) {
        (Whose::Own, _) => (cx.tenant(), caller),
        (Whose::Any, Some(owner)) => {
            let owner = scope::user(conn, cx, owner).await?;
            (owner.tenant, Some(owner.id))
        }
        (Whose::Any, None) => {
            let tenant = scope::tenant(conn, cx, wanted.tenant.as_deref()).await?;
            (tenant.id, None)
        }
    };
    Ok(store::api_keys::page(conn, tenant, owner, wanted.after, limit).await?)
}

/// One key.
pub(crate) async fn get(core: &Core, cx: &Context, id: Uuid) -> Result<ApiKey> {
    need(cx, API_KEY_READ)?;
    let conn = core.db.reader();
    let tenant = tenant_of(conn, cx, id).await?;
    store::api_keys::get(conn, tenant, id)
        .await?
        .filter(|key| key.revoked_at.is_none())
        .ok_or_else(|| reason::NOT_FOUND.into())
}

/// Changes what a key may do, until when, and what it is called.
pub(crate) async fn edit(core: &Arc<Core>, cx: &Context, id: Uuid, edit: Edit) -> Result<ApiKey> {
    let unit = Unit::begin_durable(core, cx).await?;
    let before = locked(&unit, Whose::Any, id).await?;
    let mut faults = Vec::new();
    let mut key = before.clone();
    if let Some(name) = edit.name {
        check_name(&name, &mut faults);
        key.name = name;
    }
    if let Some(end) = edit.expires_at {
        check_end(end, unit.now(), &mut faults);
        key.expires_at = end;
        key.noticed_at = None;
    }
    let texts = |of: &[Permission]| of.iter().map(|p| p.as_str().to_owned()).collect();
    let networks = || key.wish.networks.iter().map(ToString::to_string).collect();
    let written = Written {
        scopes: edit.scopes.unwrap_or_else(|| texts(&key.wish.scopes)),
        services: edit.services.unwrap_or_else(|| key.wish.services.clone()),
        cidrs: edit.cidrs.unwrap_or_else(networks),
        per_s: edit.per_s.unwrap_or(key.wish.per_s),
    };
    key.wish = read(written, faults)?;
    let roles = store::roles::of_user(&unit.tx, key.owner).await?;
    if key.wish.scopes == before.wish.scopes {
        holds(cx, &key.wish.scopes)?;
    } else {
        grantable(cx, &key.wish.scopes, &roles)?;
    }
    if key == before {
        return Ok(key);
    }
    key.updated_at = unit.now();
    store::api_keys::put(&unit.tx, &key).await?;
    forget(&unit, &key, "changed").await?;
    unit.audit(changes(
        record("identity.api_key.updated", &key),
        &before,
        &key,
    ))
    .await?;
    unit.commit().await?;
    Ok(key)
}

/// Gives a key a new secret. The old one stays good for `overlap` (ID-136).
pub(crate) async fn rotate(
    core: &Arc<Core>,
    cx: &Context,
    whose: Whose,
    id: Uuid,
    overlap: Duration,
) -> Result<(ApiKey, Secret<String>)> {
    let unit = Unit::begin_durable(core, cx).await?;
    let mut key = locked(&unit, whose, id).await?;
    if !(Duration::zero()..=LONGEST_OVERLAP).contains(&overlap) {
        let message = "must be from 0 to 604800 seconds";
        return Err(Error::field("overlap_s", "range", message));
    }
    if key.expires_at <= unit.now() {
        return Err(reason::GONE.into());
    }
    // Whoever sees the new secret has what the key may do.
    holds(cx, &key.wish.scopes)?;
    let made = api_key::with_id(Realm::Live, &key.key_id, &*core.random);
    key.previous = (overlap > Duration::zero()).then_some((key.hash, unit.now() + overlap));
    key.hash = made.hash;
    key.updated_at = unit.now();
    store::api_keys::put(&unit.tx, &key).await?;
    forget(&unit, &key, "rotated").await?;
    unit.audit(record("identity.api_key.rotated", &key).change(
        "overlap_s",
        None,
        Some(overlap.num_seconds().into()),
    ))
    .await?;
    unit.commit().await?;
    Ok((key, made.text))
}

/// Ends a key, at every edge within a second.
pub(crate) async fn revoke(core: &Arc<Core>, cx: &Context, whose: Whose, id: Uuid) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    let mut key = locked(&unit, whose, id).await?;
    key.revoked_at = Some(unit.now());
    key.updated_at = unit.now();
    store::api_keys::put(&unit.tx, &key).await?;
    forget(&unit, &key, "revoked").await?;
    unit.audit(record("identity.api_key.revoked", &key)).await?;
    unit.commit().await
}

/// Tells owners of keys that end soon, each key once (ID-136); answers how many.
pub(crate) async fn notice(core: &Arc<Core>) -> Result<usize> {
    let cx = core.own_context("identity.apikeys.notice");
    let now = cx.now();
    let keys = store::api_keys::ending(core.db.reader(), now, now + NOTICE, AT_ONCE).await?;
    let mut told = 0;
    for key in keys {
        let unit = Unit::begin(core, &cx).await?;
        if !store::api_keys::noticed(&unit.tx, key.id, now).await? {
            continue;
        }
        if let Some(owner) = store::users::get(&unit.tx, key.tenant, key.owner).await? {
            let notice = Notice::KeyExpiring {
                key_id: key.key_id.clone(),
                at: key.expires_at,
            };
            core.notices.send(&unit, &owner, notice).await?;
        }
        let payload = json!({
            "key_id": key.id,
            "tenant_id": key.tenant,
            "user_id": key.owner,
            "expires_at": key.expires_at,
        });
        unit.publish("identity.api_key.expiring", &key.id.to_string(), &payload)?;
        unit.commit().await?;
        told += 1;
    }
    Ok(told)
}

/// Who calls, once the call is allowed: a person, with the permission where it is not about their own.
fn allowed(cx: &Context, whose: Whose, permission: &Permission) -> Result<Option<Uuid>> {
    match whose {
        Whose::Own => need_user(cx).map(Some),
        Whose::Any => {
            need(cx, permission.clone())?;
            if *permission == API_KEY_WRITE {
                need_person(cx)?;
            }
            Ok(cx.principal().user())
        }
    }
}

async fn locked(unit: &Unit, whose: Whose, id: Uuid) -> Result<ApiKey> {
    let cx = &unit.cx;
    let caller = allowed(cx, whose, &API_KEY_WRITE)?;
    let tenant = match whose {
        Whose::Own => cx.tenant(),
        Whose::Any => tenant_of(&unit.tx, cx, id).await?,
    };
    store::api_keys::lock(&unit.tx, tenant, id)
        .await?
        .filter(|key| key.revoked_at.is_none())
        .filter(|key| whose == Whose::Any || Some(key.owner) == caller)
        .ok_or_else(|| reason::NOT_FOUND.into())
}

async fn tenant_of(conn: &impl ConnectionTrait, cx: &Context, id: Uuid) -> Result<Uuid> {
    if !scope::acts_for_all(cx.principal()) {
        return Ok(cx.tenant());
    }
    let tenant = store::api_keys::tenant_of(conn, id).await?;
    tenant.ok_or_else(|| reason::NOT_FOUND.into())
}

/// Empties every edge's memory of a key.
async fn forget(unit: &Unit, key: &ApiKey, cause: &str) -> Result<()> {
    unit.revoke(Kind::ApiKey, key.tenant, &key.id.to_string(), 0, cause)
        .await
}

async fn keep_quota(unit: &Unit, owner: &User, whose: Whose) -> Result<()> {
    // Locked, so that two at once do not both take the last place.
    let tenant = store::tenants::lock(&unit.tx, owner.tenant)
        .await?
        .ok_or(reason::TENANT_NOT_FOUND)?;
    let full = |quota: &str, limit: u64| {
        let members = Map::from_iter([
            ("quota".to_owned(), Value::from(quota)),
            ("limit".to_owned(), limit.into()),
        ]);
        Error::With(reason::QUOTA_EXCEEDED, members)
    };
    let (tx, now) = (&unit.tx, unit.now());
    if store::api_keys::count(tx, tenant.id, None, now).await? >= tenant.quotas.api_keys {
        return Err(full("api_keys", tenant.quotas.api_keys));
    }
    // One user alone does not use up what all share.
    if whose == Whose::Own
        && store::api_keys::count(tx, tenant.id, Some(owner.id), now).await? >= OWN_KEYS
    {
        return Err(full("own_api_keys", OWN_KEYS));
    }
    Ok(())
}

/// Scopes are what the owner may do, and nobody hands out more than they have (ID-22, ID-130).
fn grantable(cx: &Context, scopes: &[Permission], roles: &[Role]) -> Result<()> {
    let owned = |scope: &Permission| {
        let mut held = roles.iter().flat_map(|r| &r.permissions);
        held.any(|own| own.covers(scope))
    };
    exceeding(scopes, |scope| owned(scope) && cx.principal().may(scope))
}

fn holds(cx: &Context, scopes: &[Permission]) -> Result<()> {
    exceeding(scopes, |scope| cx.principal().may(scope))
}

fn exceeding(scopes: &[Permission], may: impl Fn(&Permission) -> bool) -> Result<()> {
    let over: Vec<&str> = scopes
        .iter()
        .filter(|scope| !may(scope))
        .map(Permission::as_str)
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let members = Map::from_iter([("permissions".to_owned(), json!(over))]);
    Err(Error::With(reason::GRANT_EXCEEDS_OWN, members))
}

fn read(written: Written, mut faults: Vec<FieldFault>) -> Result<Wish> {
    match written.read() {
        Ok(wish) if faults.is_empty() => Ok(wish),
        Ok(_) => Err(Error::Invalid(faults)),
        Err(more) => {
            faults.extend(more);
            Err(Error::Invalid(faults))
        }
    }
}

fn check_name(name: &str, faults: &mut Vec<FieldFault>) {
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        let message = "must have 1 to 64 characters and no control characters";
        faults.push(FieldFault::new("name", "form", message));
    }
}

fn check_end(end: Timestamp, now: Timestamp, faults: &mut Vec<FieldFault>) {
    if end <= now || end > now + LONGEST {
        let message = "must be in the future and at most two years ahead";
        faults.push(FieldFault::new("expires_at", "range", message));
    }
}

fn record(action: &'static str, key: &ApiKey) -> Record {
    Record::done(action, "api_key", key.id.to_string(), key.tenant).change(
        "name",
        None,
        Some(key.name.clone().into()),
    )
}

fn changes(mut record: Record, before: &ApiKey, after: &ApiKey) -> Record {
    let of = |key: &ApiKey| {
        json!({
            "scopes": key.wish.scopes,
            "services": key.wish.services,
            "cidrs": key.wish.networks,
            "per_s": key.wish.per_s,
            "expires_at": key.expires_at,
        })
    };
    let (was, is) = (of(before), of(after));
    for (path, value) in is.as_object().into_iter().flatten() {
        if was[path] != *value {
            record = record.change(path, Some(was[path].clone()), Some(value.clone()));
        }
    }
    record
}
