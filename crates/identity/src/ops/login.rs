//! The end of every login: from a proof to tokens, or to the next step (ID-60).

use std::sync::Arc;

use portico_base::{Context, Secret, Timestamp, id};
use portico_contract::audit::Record;
use portico_contract::tenants::TenantStatus;
use serde_json::{Map, json};
use uuid::Uuid;

use super::apple::{self, Redeem};
use super::arrival::{self, Arrival};
use super::tokens::{self, Life};
use super::totp::{self, Factor};
use super::{devices, one_time, sessions, tickets};
use crate::domain::device::{Platform, Policy, Room, room};
use crate::domain::fingerprint::Verdict;
use crate::domain::login::{
    DeviceBrief, DeviceWish, LoginResult, LoginStatus, Proof, Transport, UserBrief,
};
use crate::domain::session::Session;
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::settings::device as keys;
use crate::store;
use crate::store::logins::LoginEvent;
use crate::unit::Unit;

/// The tenant that an unauthenticated request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub tenant: Uuid,
    /// Host or body named it. Where nobody did, super administrators are looked for in `system` first, so
    /// that an operator with one tenant never has to choose (ID-2).
    pub chosen: bool,
}

impl Place {
    /// Tenants to look for a user in, in this order.
    pub(crate) fn tenants(self) -> Vec<Uuid> {
        if self.chosen {
            vec![self.tenant]
        } else {
            vec![id::TENANT_SYSTEM, self.tenant]
        }
    }
}

/// The tenant of an unauthenticated request: the host's, else the body's, else `default` (ID-3). Nothing means
/// an unknown one, which answers as an unknown user does.
pub(crate) fn tenant_of(core: &Core, host: Option<&str>, slug: Option<&str>) -> Option<Place> {
    let chosen = |tenant| Place {
        tenant,
        chosen: true,
    };
    if let Some(bound) = host.and_then(|host| core.edge.tenant_by_host(host)) {
        return Some(chosen(bound.id));
    }
    match slug {
        Some(slug) => Some(chosen(core.edge.tenant_by_slug(slug)?.id)),
        None => Some(Place {
            tenant: id::TENANT_DEFAULT,
            chosen: false,
        }),
    }
}

/// Decides what follows a proof: a second factor, a new password, a choice of device, or tokens.
pub(crate) async fn finish(core: &Arc<Core>, cx: &Context, proof: Proof) -> Result<LoginResult> {
    measured(core, cx, proof, None).await
}

/// Goes on with a login that waits for a device to make room.
pub(crate) async fn choose(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    device_id: Option<&str>,
    log_out: Uuid,
) -> Result<LoginResult> {
    let unit = Unit::begin(core, cx).await?;
    let proof = tickets::take(core, cx, &unit.tx, tickets::DEVICE, ticket, device_id).await?;
    unit.commit().await?;
    measured(core, cx, proof, Some(log_out)).await
}

/// Redeems the code that a redirect brought (ID-66), on the device that presents it.
pub(crate) async fn redeem(
    core: &Arc<Core>,
    cx: &Context,
    wish: Redeem<'_>,
) -> Result<LoginResult> {
    refuse_faults(&wish.device)?;
    let unit = Unit::begin(core, cx).await?;
    let proof = match tickets::redeem(core, &unit.tx, wish.code).await {
        // Perhaps one that still has to find its user.
        Err(error) if error.is(reason::TICKET_INVALID) => {
            drop(unit);
            return Box::pin(apple::redeem(core, cx, wish)).await;
        }
        redeemed => redeemed?,
    };
    unit.commit().await?;
    let proof = Proof {
        device: wish.device,
        transport: wish.transport,
        ..proof
    };
    finish(core, cx, proof).await
}

/// Refuses a device whose description is not right, with all its faults.
pub(crate) fn refuse_faults(device: &DeviceWish) -> Result<()> {
    let faults = device.faults();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(faults))
    }
}

/// What is known before the user's row is locked.
struct Ready {
    proof: Proof,
    /// Names.
    roles: Vec<String>,
    life: Life,
}

async fn measured(
    core: &Arc<Core>,
    cx: &Context,
    proof: Proof,
    log_out: Option<Uuid>,
) -> Result<LoginResult> {
    let (method, began) = (proof.method, std::time::Instant::now());
    let result = Box::pin(go(core, cx, proof, log_out)).await;
    core.logins.took(method, began.elapsed());
    let word = match &result {
        Ok(result) => result.status.as_str(),
        Err(error) => error.reason().map_or("failed", |r| r.word()),
    };
    core.logins.login(method, word);
    result
}

async fn go(
    core: &Arc<Core>,
    cx: &Context,
    proof: Proof,
    log_out: Option<Uuid>,
) -> Result<LoginResult> {
    refuse_faults(&proof.device)?;
    check_standing(core, cx, &proof.user)?;
    let conn = core.db.reader();
    let roles = store::roles::of_user(conn, proof.user.id).await?;
    if proof.aal < 2 {
        let factor = totp::required(core, conn, &proof.user, &roles).await?;
        if factor != Factor::None {
            let unit = Unit::begin(core, cx).await?;
            let result = totp::ticket(&unit, &proof, factor).await?;
            unit.commit().await?;
            return Ok(result);
        }
    }
    if proof.user.must_change_password {
        return wait(core, cx, &proof, LoginStatus::PasswordChangeRequired).await;
    }
    let roles: Vec<String> = roles.into_iter().map(|role| role.name).collect();
    let tenant = proof.user.tenant;
    let ready = Ready {
        life: Life::of(core, tenant, tokens::is_admin(core, tenant, &roles)),
        proof,
        roles,
    };
    core.db.retry(|| attempt(core, cx, &ready, log_out)).await
}

/// A login that waits for something that is not shown here.
async fn wait(
    core: &Arc<Core>,
    cx: &Context,
    proof: &Proof,
    status: LoginStatus,
) -> Result<LoginResult> {
    let (kind, life) = match status {
        LoginStatus::PasswordChangeRequired => (tickets::PASSWORD, tickets::PASSWORD_LIFE),
        _ => (tickets::DEVICE, one_time::TICKET),
    };
    let unit = Unit::begin(core, cx).await?;
    let ticket = tickets::issue(core, cx, &unit.tx, kind, proof, life).await?;
    unit.commit().await?;
    Ok(LoginResult::step(status, ticket))
}

/// Whether the user may log in at all. Told only to whoever has proved to be that user.
fn check_standing(core: &Core, cx: &Context, user: &User) -> Result<()> {
    let tenant = core.edge.tenant(user.tenant);
    if tenant.is_none_or(|t| t.status != TenantStatus::Active) {
        return Err(reason::TENANT_SUSPENDED.into());
    }
    match user.status {
        UserStatus::Active if user.delete_at.is_none_or(|at| cx.now() < at) => Ok(()),
        UserStatus::Active | UserStatus::Disabled => Err(reason::ACCOUNT_DISABLED.into()),
        UserStatus::Pending => Err(reason::ACCOUNT_PENDING.into()),
        UserStatus::Deleted => Err(reason::INVALID_CREDENTIALS.into()),
    }
}

async fn attempt(
    core: &Arc<Core>,
    cx: &Context,
    ready: &Ready,
    log_out: Option<Uuid>,
) -> Result<LoginResult> {
    let proof = &ready.proof;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, proof.user.tenant, proof.user.id)
        .await?
        .ok_or(reason::INVALID_CREDENTIALS)?;
    check_standing(core, cx, &user)?;
    if user.tv != proof.user.tv {
        // Between the proof and here a password or a role was changed: what was proved does not hold any more.
        return Err(reason::INVALID_CREDENTIALS.into());
    }
    let arrival = arrival::of(core, cx, &unit.tx, &user, proof).await?;
    let ends = match plan(&unit, &user, &arrival, log_out).await? {
        Plan::Ends(ends) => ends,
        Plan::Ask(devices) => {
            drop(unit);
            let mut result = wait(core, cx, proof, LoginStatus::DeviceLimit).await?;
            result.devices = devices;
            return Ok(result);
        }
    };
    sessions::end_each(&unit, &ends).await?;
    arrival::store(&unit.tx, &arrival).await?;
    let session = session(cx, core, ready, &arrival);
    store::sessions::insert(&unit.tx, &session).await?;
    restore(&unit, &user).await?;
    let ip = session.ip.as_deref();
    store::users::logged_in(&unit.tx, user.id, unit.now(), ip, proof.method).await?;
    record(&unit, &user, &session, &arrival).await?;
    devices::tell(&unit, &user, &session, &arrival, &ends).await?;
    unit.commit().await?;
    core.logins
        .evicted(ends.iter().filter(|(_, why)| *why == "evicted").count());
    let holder = tokens::Holder {
        session: &session,
        tv: user.tv,
        roles: &ready.roles,
        client_id: &arrival.device.client_id,
        cx,
    };
    let mut made = tokens::of(core, &holder)?;
    made.device_secret = arrival.secret;
    Ok(LoginResult::done(
        made,
        Some(brief(user, &ready.roles)),
        proof.transport,
    ))
}

/// What a login means for the user's other sessions.
enum Plan {
    /// These end, each for its reason.
    Ends(Vec<(Session, &'static str)>),
    /// The user says which.
    Ask(Vec<DeviceBrief>),
}

/// Finds out which sessions end so that the arriving device has room (ID-121).
async fn plan(unit: &Unit, user: &User, arrival: &Arrival, log_out: Option<Uuid>) -> Result<Plan> {
    let now = unit.now();
    let mut ends: Vec<(Session, &'static str)> = Vec::new();
    let mut live: Vec<Session> = Vec::new();
    let doubted = arrival.changed.as_ref();
    let doubted = doubted
        .filter(|c| c.verdict == Verdict::Kill)
        .map(|c| c.device);
    for session in store::sessions::live(&unit.tx, user.id).await? {
        let why = match session.device {
            _ if session.idle_expires_at <= now => "expired",
            device if device == arrival.device.id => "replaced",
            device if Some(device) == doubted => "fingerprint_jumped",
            device if Some(device) == log_out => "evicted",
            _ => {
                live.push(session);
                continue;
            }
        };
        ends.push((session, why));
    }
    let core = &unit.core;
    let platform = arrival.device.platform;
    let max = core.settings.get(user.tenant, &keys::MAX);
    let quotas = core.settings.get(user.tenant, &keys::PLATFORM_QUOTA);
    let quota = quotas
        .get(platform.as_str())
        .and_then(serde_json::Value::as_u64);
    let quota = quota.map(|q| usize::try_from(q).unwrap_or(usize::MAX));
    if live.len() < max as usize && quota.is_none() {
        return Ok(Plan::Ends(ends));
    }
    let ids: Vec<Uuid> = live.iter().map(|s| s.device).collect();
    let devices = store::devices::some(&unit.tx, user.id, &ids).await?;
    let of = |id: Uuid| devices.iter().find(|d| d.id == id);
    let platforms: Vec<Platform> = live
        .iter()
        .map(|s| of(s.device).map_or(Platform::Web, |d| d.platform))
        .collect();
    let go = match room(&platforms, platform, max as usize, quota) {
        Room::Enough => return Ok(Plan::Ends(ends)),
        Room::After(go) => go,
        Room::Never => return Err(full(0)),
    };
    match Policy::of(&core.settings.get(user.tenant, &keys::POLICY)) {
        Policy::EvictOldest => {
            ends.extend(go.into_iter().map(|i| (live[i].clone(), "evicted")));
            Ok(Plan::Ends(ends))
        }
        Policy::Reject => Err(full(quota.map_or(max as usize, |q| q.min(max as usize)))),
        Policy::Ask => {
            // Where the platform's own quota is used up, only one of that platform makes room.
            let crowded =
                quota.is_some_and(|q| platforms.iter().filter(|p| **p == platform).count() >= q);
            let brief = |s: &Session| of(s.device).map(|d| DeviceBrief::of(d, s.last_active_at));
            let choices = live.iter().filter_map(brief);
            Ok(Plan::Ask(
                choices
                    .filter(|d| !crowded || d.platform == platform)
                    .collect(),
            ))
        }
    }
}

fn full(limit: usize) -> Error {
    let members = Map::from_iter([("limit".to_owned(), limit.into())]);
    Error::With(reason::DEVICE_LIMIT, members)
}

fn session(cx: &Context, core: &Core, ready: &Ready, arrival: &Arrival) -> Session {
    let now = cx.now();
    let proof = &ready.proof;
    let abs_expires_at = ready.life.absolute_end(now);
    let doubted = arrival.changed.as_ref();
    let doubted = doubted.is_some_and(|c| c.verdict >= Verdict::StepUp) && proof.aal < 2;
    Session {
        id: cx.new_id(),
        tenant: proof.user.tenant,
        user: proof.user.id,
        device: arrival.device.id,
        method: proof.method.to_owned(),
        amr: proof.amr.clone(),
        aal: proof.aal,
        // Known by its secret and yet much changed: whatever asks for a fresh login asks again.
        auth_time: if doubted { Timestamp::default() } else { now },
        ip: cx.caller.address.map(|a| a.to_string()),
        user_agent: cx.caller.agent.as_deref().map(str::to_owned),
        cookie: proof.transport == Transport::Cookie,
        rt_kid: core.keys.current().to_owned(),
        rt_counter: 1,
        rt_rotated_at: now,
        rt_retried: 0,
        idle_expires_at: ready.life.idle_end(now).min(abs_expires_at),
        abs_expires_at,
        created_at: now,
        last_active_at: now,
        revoked_at: None,
        revoke_reason: None,
    }
}

/// Whoever logs in within the days of grace keeps the account (ID-151).
pub(crate) async fn restore(unit: &Unit, user: &User) -> Result<()> {
    if user.delete_at.is_none() {
        return Ok(());
    }
    let kept = User {
        delete_at: None,
        updated_at: unit.now(),
        ..user.clone()
    };
    store::users::put(&unit.tx, &kept).await?;
    unit.audit(Record::done(
        "identity.user.restored",
        "user",
        user.id.to_string(),
        user.tenant,
    ))
    .await
}

/// The login in the user's history, in the audit, and as events.
async fn record(unit: &Unit, user: &User, session: &Session, arrival: &Arrival) -> Result<()> {
    let method = session.method.as_str();
    let event = LoginEvent {
        id: unit.cx.new_id(),
        tenant: user.tenant,
        user: user.id,
        kind: "login".to_owned(),
        method: method.to_owned(),
        ip: session.ip.clone(),
        user_agent: session.user_agent.clone(),
        device: Some(session.device),
        session: Some(session.id),
        detail: json!({ "new_device": !arrival.known, "aal": session.aal }),
        at: unit.now(),
    };
    store::logins::insert(&unit.tx, &event).await?;
    let record = Record::done(
        "identity.login.succeeded",
        "user",
        user.id.to_string(),
        user.tenant,
    );
    unit.audit(
        record
            .change("session", None, Some(session.id.to_string().into()))
            .change("device", None, Some(session.device.to_string().into()))
            .change("method", None, Some(method.into())),
    )
    .await?;
    let payload = json!({
        "user_id": user.id, "tenant_id": user.tenant, "session_id": session.id,
        "device_id": session.device, "method": method,
    });
    unit.publish("identity.login.succeeded", &user.id.to_string(), &payload)?;
    unit.publish(
        "identity.session.started",
        &session.id.to_string(),
        &payload,
    )
}

/// The user with the login before this one (ID-63).
fn brief(user: User, roles: &[String]) -> UserBrief {
    UserBrief {
        id: user.id,
        tenant_id: user.tenant,
        username: user.username,
        display_name: user.display_name,
        locale: user.locale,
        roles: roles.to_vec(),
        last_login_at: user.last_login_at,
        last_login_ip: user.last_login_ip,
        last_login_method: user.last_login_method,
    }
}
