//! Identity's background work: what is due again and again, and what does its durable jobs.

use std::sync::Arc;
use std::time::Duration;

use portico_jobs::{JobSet, Periodic};

use crate::hub::Core;
use crate::mail;
use crate::ops;

/// A key must be published for ten minutes before it signs, so a shorter step would change nothing.
const KEYS_EVERY: Duration = Duration::from_secs(600);

/// A key's end is told of days ahead: an hour sooner or later does not matter.
const KEY_NOTICES_EVERY: Duration = Duration::from_secs(3_600);

/// A prefix that is pumped costs money until it is found.
const SMS_EVERY: Duration = Duration::from_secs(60);

/// What is over is refused anyway; this only keeps tables small.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Whoever is disabled until a moment waits a minute longer at most.
const ENABLED_EVERY: Duration = Duration::from_secs(60);

/// The days of grace are over to the hour.
const ERASE_EVERY: Duration = Duration::from_secs(3_600);

/// All of it.
pub(crate) fn all(core: &Arc<Core>) -> JobSet {
    let rotated = Arc::clone(core);
    let noticed = Arc::clone(core);
    let swept = Arc::clone(core);
    let watched = Arc::clone(core);
    let enabled = Arc::clone(core);
    let erased = Arc::clone(core);
    let copied = Arc::clone(core);
    JobSet::new()
        .with(
            Periodic::new("identity.keys.rotate", KEYS_EVERY, move |_| {
                let core = Arc::clone(&rotated);
                async move { Ok(ops::keys::keep(&core).await?) }
            })
            .alone(),
        )
        .with(
            Periodic::new("identity.sweep", SWEEP_EVERY, move |_| {
                let core = Arc::clone(&swept);
                async move { Ok(ops::sweep::sweep(&core).await?) }
            })
            .alone(),
        )
        // Each process has breakers of its own, so each looks after them.
        .with(Periodic::new("identity.sms.health", SMS_EVERY, move |_| {
            let core = Arc::clone(&watched);
            async move { Ok(ops::sms::watch(&core).await?) }
        }))
        .with(
            Periodic::new("identity.disabled_until", ENABLED_EVERY, move |_| {
                let core = Arc::clone(&enabled);
                async move { Ok(ops::users::enable_due(&core).await.map(|_| ())?) }
            })
            .alone(),
        )
        .with(
            Periodic::new("identity.apikeys.notice", KEY_NOTICES_EVERY, move |_| {
                let core = Arc::clone(&noticed);
                async move { Ok(ops::api_keys::notice(&core).await.map(|_| ())?) }
            })
            .alone(),
        )
        .with(
            Periodic::new("identity.erase", ERASE_EVERY, move |_| {
                let core = Arc::clone(&erased);
                async move { Ok(ops::erasure::start_due(&core).await?) }
            })
            .alone(),
        )
        .with(
            Periodic::new("identity.export.sweep", SWEEP_EVERY, move |_| {
                let core = Arc::clone(&copied);
                async move { Ok(ops::export::sweep(&core).await?) }
            })
            .alone(),
        )
        .with_handler(ops::export::handler(core))
        .with_handler(ops::erasure::handler(core))
        .with_handler(mail::handler(core))
        .with_handler(ops::sms::notice_handler(core))
        .with_handler(ops::bulk::handler(core))
        .with_handler(ops::passwords::handler(core))
        .with_handler(ops::apple::handler(core))
}
