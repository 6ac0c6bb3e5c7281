//! Devices of users: what is told when one arrives, listing, naming, and logging them out (ID-120…125).

use std::sync::Arc;

use portico_base::Context;
use portico_contract::audit::{Outcome, Record};
use serde_json::json;
use uuid::Uuid;

use super::arrival::{Arrival, Changed};
use super::{need, need_user, scope, sessions, stranger};
use crate::domain::device::{Device, is_text};
use crate::domain::fingerprint::Verdict;
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::{Notice, Place};
use crate::permissions::{SESSION_READ, SESSION_WRITE};
use crate::store;
use crate::store::logins::LoginEvent;
use crate::unit::Unit;

/// A device with its live session.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub device: Device,
    pub session: Option<Session>,
}

/// Tells of the device that a login came from, and of those that had to go (ID-121, ID-124, ID-125).
pub(crate) async fn tell(
    unit: &Unit,
    user: &User,
    session: &Session,
    arrival: &Arrival,
    ends: &[(Session, &'static str)],
) -> Result<()> {
    for (gone, _) in ends.iter().filter(|(_, why)| *why == "evicted") {
        publish(
            unit,
            "identity.device.evicted",
            gone.user,
            gone.device,
            gone.tenant,
        )?;
    }
    if !arrival.known {
        let device = &arrival.device;
        publish(
            unit,
            "identity.device.added",
            user.id,
            device.id,
            user.tenant,
        )?;
        // Nobody needs to be told of the login that made the account.
        if user.last_login_at.is_some() {
            let notice = Notice::NewDevice {
                place: place(device),
                stranger: stranger::link(unit, session).await?,
            };
            unit.core.notices.send(unit, user, notice).await?;
        }
    }
    match &arrival.changed {
        Some(changed) => tell_change(unit, user, session, &arrival.device, changed).await,
        None => Ok(()),
    }
}

/// What a changed device leads to, beyond what becomes of its session.
pub(crate) async fn tell_change(
    unit: &Unit,
    user: &User,
    session: &Session,
    device: &Device,
    changed: &Changed,
) -> Result<()> {
    if changed.verdict < Verdict::Note {
        return Ok(());
    }
    let event = LoginEvent {
        id: unit.cx.new_id(),
        tenant: user.tenant,
        user: user.id,
        kind: "fingerprint".to_owned(),
        method: session.method.clone(),
        ip: unit.cx.caller.address.map(|a| a.to_string()),
        user_agent: unit.cx.caller.agent.as_deref().map(str::to_owned),
        device: Some(changed.device),
        session: Some(session.id),
        detail: json!({ "score": changed.score }),
        at: unit.now(),
    };
    store::logins::insert(&unit.tx, &event).await?;
    if changed.verdict == Verdict::Kill {
        jumped(unit, user, changed).await?;
    }
    if changed.verdict >= Verdict::Mail {
        let notice = Notice::DeviceChanged {
            place: place(device),
            stranger: stranger::link(unit, session).await?,
        };
        unit.core.notices.send(unit, user, notice).await?;
    }
    Ok(())
}

/// A secret that is shown by quite another device is in strange hands: the device loses its trust.
async fn jumped(unit: &Unit, user: &User, changed: &Changed) -> Result<()> {
    store::devices::revoke(&unit.tx, user.id, changed.device, unit.now()).await?;
    let mut record = Record::done(
        "identity.fingerprint.jumped",
        "device",
        changed.device.to_string(),
        user.tenant,
    )
    .change("score", None, Some(changed.score.into()));
    record.outcome = Outcome::Denied;
    unit.audit(record).await?;
    unit.publish(
        "identity.fingerprint.jumped",
        &changed.device.to_string(),
        &json!({
            "user_id": user.id, "tenant_id": user.tenant, "device_id": changed.device,
            "score": changed.score,
        }),
    )
}

/// The caller's own devices, last active first.
pub(crate) async fn own(core: &Core, cx: &Context) -> Result<Vec<Shown>> {
    list(core, cx, cx.tenant(), need_user(cx)?).await
}

/// One of the caller's own devices.
pub(crate) async fn own_one(core: &Core, cx: &Context, id: Uuid) -> Result<Shown> {
    let user = need_user(cx)?;
    let conn = core.db.reader();
    let device = store::devices::get(conn, user, id).await?;
    let device = device
        .filter(|d| d.revoked_at.is_none() && d.tenant == cx.tenant())
        .ok_or(reason::NOT_FOUND)?;
    let session = store::sessions::on_device(conn, user, id).await?;
    let session = session.filter(|s| !sessions::is_over(s, cx.now()));
    Ok(Shown { device, session })
}

/// Devices of a user whom the caller may see.
pub(crate) async fn of_user(core: &Core, cx: &Context, user: Uuid) -> Result<Vec<Shown>> {
    need(cx, SESSION_READ)?;
    let user = scope::user(core.db.reader(), cx, user).await?;
    list(core, cx, user.tenant, user.id).await
}

async fn list(core: &Core, cx: &Context, tenant: Uuid, user: Uuid) -> Result<Vec<Shown>> {
    let conn = core.db.reader();
    let devices = store::devices::of_user(conn, tenant, user).await?;
    let live = store::sessions::live(conn, user).await?;
    let mut live: Vec<Session> = live
        .into_iter()
        .filter(|s| !sessions::is_over(s, cx.now()))
        .collect();
    Ok(devices
        .into_iter()
        .map(|device| {
            let at = live.iter().position(|s| s.device == device.id);
            Shown {
                session: at.map(|at| live.swap_remove(at)),
                device,
            }
        })
        .collect())
}

/// Names one of the caller's own devices.
pub(crate) async fn rename(core: &Arc<Core>, cx: &Context, id: Uuid, name: &str) -> Result<Shown> {
    let user = need_user(cx)?;
    let name = name.trim();
    if name.is_empty() || !is_text(name, 64) {
        return Err(Error::field(
            "name",
            "invalid",
            "must be 1 to 64 printable characters",
        ));
    }
    let unit = Unit::begin(core, cx).await?;
    if !store::devices::rename(&unit.tx, user, id, name).await? {
        return Err(reason::NOT_FOUND.into());
    }
    let record = Record::done(
        "identity.device.renamed",
        "device",
        id.to_string(),
        cx.tenant(),
    );
    unit.audit(record.change("name", None, Some(name.into())))
        .await?;
    unit.commit().await?;
    own_one(core, cx, id).await
}

/// Logs one of the caller's own devices out and forgets its secret.
pub(crate) async fn kick_own(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    let user = need_user(cx)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = store::users::lock(&unit.tx, cx.tenant(), user)
                .await?
                .ok_or(reason::USER_NOT_FOUND)?;
            kick(&unit, &user, id, "kicked").await?;
            unit.commit().await
        })
        .await
}

/// The same for a user whom the caller may administer.
pub(crate) async fn kick_by_admin(
    core: &Arc<Core>,
    cx: &Context,
    user: Uuid,
    id: Uuid,
) -> Result<()> {
    need(cx, SESSION_WRITE)?;
    core.db
        .retry(async || {
            let unit = Unit::begin_durable(core, cx).await?;
            let user = scope::user_to_change(&unit.tx, cx, user).await?;
            kick(&unit, &user, id, "admin").await?;
            unit.commit().await
        })
        .await
}

/// Ends a device's session and takes its trust away; answers the session. The user's row is locked.
pub(crate) async fn kick(unit: &Unit, user: &User, id: Uuid, reason: &str) -> Result<Option<Uuid>> {
    if !store::devices::revoke(&unit.tx, user.id, id, unit.now()).await? {
        return Err(reason::NOT_FOUND.into());
    }
    let session = store::sessions::on_device(&unit.tx, user.id, id).await?;
    if let Some(session) = &session {
        sessions::end(unit, session, reason).await?;
    }
    let record = Record::done(
        "identity.device.kicked",
        "device",
        id.to_string(),
        user.tenant,
    );
    unit.audit(record.change("user", Some(user.id.to_string().into()), None))
        .await?;
    publish(unit, "identity.device.kicked", user.id, id, user.tenant)?;
    Ok(session.map(|s| s.id))
}

fn publish(unit: &Unit, topic: &str, user: Uuid, device: Uuid, tenant: Uuid) -> Result<()> {
    unit.publish(
        topic,
        &device.to_string(),
        &json!({ "device_id": device, "user_id": user, "tenant_id": tenant }),
    )
}

fn place(device: &Device) -> Place {
    Place {
        platform: device.platform,
        ip: device.last_ip.clone(),
        place: device.last_place.clone(),
    }
}
