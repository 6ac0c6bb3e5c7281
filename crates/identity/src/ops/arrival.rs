//! The device that a login comes from: a known one proves itself by id and secret, any other is new (ID-122).

use portico_base::secret::{constant_time_eq, new_token, token_hash};
use portico_base::{Context, Secret};
use portico_db::sea_orm::ConnectionTrait;

use super::fingerprint::{self, Judged};
use crate::domain::device::{Device, Fingerprint};
use crate::domain::fingerprint::Verdict;
use crate::domain::login::{DeviceWish, Proof};
use crate::domain::user::User;
use crate::error::Result;
use crate::hub::Core;
use crate::store;

/// A device that arrives with a login.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// As it is to be stored.
    pub device: Device,
    /// It was known and is what it was.
    pub known: bool,
    /// It has a row already.
    row: bool,
    /// Given to a new device, this once.
    pub secret: Option<Secret<String>>,
    /// How a known device has changed.
    pub changed: Option<Changed>,
}

/// How much a known device has changed.
#[derive(Debug, Clone)]
pub(crate) struct Changed {
    pub score: u32,
    pub verdict: Verdict,
    /// The device of which the secret was shown; its session ends when the verdict is [`Verdict::Kill`].
    pub device: uuid::Uuid,
}

/// Finds out which device a login comes from. Nothing is written yet.
pub(crate) async fn of(
    core: &Core,
    cx: &Context,
    conn: &impl ConnectionTrait,
    user: &User,
    proof: &Proof,
) -> Result<Arrival> {
    let wish = &proof.device;
    let row = match &wish.device_id {
        Some(id) => store::devices::by_client(conn, user.id, id).await?,
        None => None,
    };
    let agent = cx.caller.agent.as_deref();
    let mut components = fingerprint::components(&wish.fingerprint, agent);
    components
        .entry("platform".to_owned())
        .or_insert_with(|| wish.platform.as_str().to_owned());
    if !wish.model.is_empty() {
        components
            .entry("model".to_owned())
            .or_insert_with(|| wish.model.clone());
    }
    let Some(device) = row else {
        let id = wish.device_id.clone().unwrap_or_else(|| fresh_id(cx));
        return new(core, cx, user, wish, id, &components);
    };
    let right = wish
        .hash()
        .is_some_and(|shown| constant_time_eq(&shown, &device.secret_hash));
    if !right {
        // Whoever guesses an id gets a device of their own, and nobody is put out by it.
        return new(core, cx, user, wish, fresh_id(cx), &components);
    }
    if device.revoked_at.is_some() {
        return again(core, cx, device, wish, &components);
    }
    let whole = !wish.fingerprint.is_empty();
    let judged = fingerprint::judge(
        core,
        user.tenant,
        device.id,
        &device.fingerprint,
        &components,
        whole,
    )?;
    let changed = Changed {
        score: judged.score,
        verdict: judged.verdict,
        device: device.id,
    };
    if judged.verdict == Verdict::Kill {
        // The secret is in strange hands: this is another device.
        let mut arrival = new(core, cx, user, wish, fresh_id(cx), &components)?;
        arrival.changed = Some(changed);
        return Ok(arrival);
    }
    Ok(known(cx, device, wish, judged, changed))
}

/// Writes the device that arrived.
pub(crate) async fn store(conn: &impl ConnectionTrait, arrival: &Arrival) -> Result<()> {
    if arrival.row {
        return Ok(store::devices::put(conn, &arrival.device).await?);
    }
    store::devices::insert(conn, &arrival.device).await?;
    store::devices::crowd(conn, arrival.device.user).await?;
    Ok(())
}

fn fresh_id(cx: &Context) -> String {
    cx.new_id().simple().to_string()
}

fn new(
    core: &Core,
    cx: &Context,
    user: &User,
    wish: &DeviceWish,
    client_id: String,
    components: &std::collections::BTreeMap<String, String>,
) -> Result<Arrival> {
    let id = cx.new_id();
    let secret = new_token("", &*cx.random);
    let mut device = Device {
        id,
        tenant: user.tenant,
        user: user.id,
        client_id,
        secret_hash: token_hash(secret.expose()),
        platform: wish.platform,
        name: String::new(),
        model: String::new(),
        app_version: String::new(),
        os_version: String::new(),
        fingerprint: Fingerprint::new(),
        last_ip: None,
        last_place: None,
        first_seen_at: cx.now(),
        last_active_at: cx.now(),
        revoked_at: None,
    };
    describe(
        &mut device,
        cx,
        wish,
        fingerprint::hashed(core, id, components)?,
    );
    Ok(Arrival {
        device,
        known: false,
        row: false,
        secret: Some(secret),
        changed: None,
    })
}

/// A device that was logged out by somebody: the same row, a new secret, and news to its user.
fn again(
    core: &Core,
    cx: &Context,
    mut device: Device,
    wish: &DeviceWish,
    components: &std::collections::BTreeMap<String, String>,
) -> Result<Arrival> {
    let secret = new_token("", &*cx.random);
    device.secret_hash = token_hash(secret.expose());
    device.revoked_at = None;
    let print = fingerprint::hashed(core, device.id, components)?;
    describe(&mut device, cx, wish, print);
    Ok(Arrival {
        device,
        known: false,
        row: true,
        secret: Some(secret),
        changed: None,
    })
}

fn known(
    cx: &Context,
    mut device: Device,
    wish: &DeviceWish,
    judged: Judged,
    changed: Changed,
) -> Arrival {
    describe(&mut device, cx, wish, judged.now);
    Arrival {
        device,
        known: true,
        row: true,
        secret: None,
        changed: Some(changed),
    }
}

/// Takes over what the client says of itself. A name that its user gave stays.
fn describe(device: &mut Device, cx: &Context, wish: &DeviceWish, fingerprint: Fingerprint) {
    let take = |from: &str, into: &mut String| {
        if !from.is_empty() {
            from.clone_into(into);
        }
    };
    if device.name.is_empty() {
        take(&wish.name, &mut device.name);
    }
    take(&wish.model, &mut device.model);
    take(&wish.app_version, &mut device.app_version);
    take(&wish.os_version, &mut device.os_version);
    device.platform = wish.platform;
    device.fingerprint = fingerprint;
    device.last_ip = cx.caller.address.map(|a| a.to_string());
    device.last_active_at = cx.now();
}
