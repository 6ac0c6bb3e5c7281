//! New secrets for instances every 24 hours, with overlap (PL-3).
//!
//! A new secret is made beside the present one and handed out with heartbeats; only when it was handed
//! out twice does it become the one that signs, and the one before stays accepted as a credential for a
//! while. So neither a lost answer nor a slow instance breaks anything.

use std::sync::Arc;

use chrono::Duration;
use portico_base::Context;
use portico_base::secret::{new_token, token_hash};
use uuid::Uuid;

use super::heartbeat::Rotation;
use crate::domain::event::EventKind;
use crate::domain::instance::{Instance, InstanceSecret};
use crate::domain::token::SECRET_PREFIX;
use crate::error::Result;
use crate::hub::Core;
use crate::writer::Writer;

/// Age at which a secret gets a successor.
const AGE: Duration = Duration::hours(24);
/// Time for which the one before is accepted.
const OVERLAP: Duration = Duration::hours(24);
/// Heartbeats that carry a new secret before it signs.
const HANDED_OUT: u8 = 2;
/// Secrets of one transaction.
const BATCH: usize = 200;

/// Gives a successor to every secret that is old enough, among the instances that this process watches
/// over. Answers how many there were.
pub(crate) async fn rotate(core: &Arc<Core>, cx: &Context) -> Result<usize> {
    let now = cx.now();
    let old: Vec<Uuid> = core
        .model
        .read()
        .instances()
        .filter(|e| core.owns(e.instance.id))
        .filter(|e| {
            e.instance
                .secret
                .as_ref()
                .is_some_and(|s| !s.given && s.next.is_none() && now - s.issued_at >= AGE)
        })
        .map(|e| e.instance.id)
        .collect();
    for chunk in old.chunks(BATCH) {
        let mut w = Writer::begin(core, cx).await?;
        for id in chunk {
            let Some(mut instance) = instance(core, *id) else {
                continue;
            };
            if let Some(secret) = instance.secret.as_mut().filter(|s| s.next.is_none()) {
                secret.next = Some(Arc::new(new_token(SECRET_PREFIX, &*core.random)));
            }
            put(core, &mut w, instance).await?;
        }
        w.commit().await?;
    }
    Ok(old.len())
}

/// The secret that a heartbeat's answer carries, if there is a new one.
pub(crate) async fn hand_out(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<Option<Rotation>> {
    let Some((secret, times)) = waiting(core, id) else {
        return Ok(None);
    };
    let until = cx.now() + OVERLAP;
    if times >= HANDED_OUT {
        let mut w = Writer::begin(core, cx).await?;
        if let Some(mut instance) = instance(core, id)
            && let Some(known) = instance.secret.take()
            && let Some(next) = known.next
        {
            instance.secret = Some(InstanceSecret {
                given: false,
                previous: Some((token_hash(known.current.expose()), until)),
                current: next,
                issued_at: w.now(),
                next: None,
            });
            put(core, &mut w, instance).await?;
            w.commit().await?;
        }
    }
    Ok(Some(Rotation {
        secret,
        previous_until: until,
    }))
}

fn waiting(core: &Core, id: Uuid) -> Option<(Arc<portico_base::Secret<String>>, u8)> {
    let model = core.model.read();
    let entry = model.instance(id)?;
    let next = entry.instance.secret.as_ref()?.next.as_ref()?;
    Some((Arc::clone(next), entry.live.hand_out()))
}

fn instance(core: &Core, id: Uuid) -> Option<Instance> {
    let model = core.model.read();
    let entry = model.instance(id)?;
    let mut instance = Instance::clone(&entry.instance);
    instance.last_heartbeat = entry.live.seen();
    Some(instance)
}

async fn put(core: &Core, w: &mut Writer, instance: Instance) -> Result<()> {
    if let Some(entry) = core.model.read().instance(instance.id) {
        entry.live.forget_handed_out();
    }
    let written = w.put_instance(instance).await?;
    w.quiet_event(EventKind::SecretRotated, &written);
    Ok(())
}
