//! The fingerprint of a device: hashed under a key of its own, and judged when the device is used (ID-124).

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::device::Fingerprint;
use crate::domain::fingerprint::{self as rules, Rules, Verdict};
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::settings::device::{THRESHOLDS, WEIGHTS};

/// What a device showed now, beside what it was.
#[derive(Debug)]
pub(crate) struct Judged {
    pub score: u32,
    pub verdict: Verdict,
    /// As it is to be stored from now on.
    pub now: Fingerprint,
}

/// What a client says of its device, with what its `User-Agent` gives away.
pub(crate) fn components(
    claimed: &BTreeMap<String, String>,
    agent: Option<&str>,
) -> BTreeMap<String, String> {
    let mut all = claimed.clone();
    if !all.contains_key("browser")
        && let Some(family) = agent.and_then(rules::family)
    {
        all.insert("browser".to_owned(), family.to_owned());
    }
    all
}

/// The stored form of a device's components.
pub(crate) fn hashed(
    core: &Core,
    device: Uuid,
    components: &BTreeMap<String, String>,
) -> Result<Fingerprint> {
    let kid = core.keys.current();
    let key = core
        .keys
        .derive(kid, rules::key_info(device))
        .map_err(|_| reason::SECRET_BROKEN)?;
    Ok(rules::hashed(components, kid, &key))
}

/// Compares what a device shows with what it was. `whole` tells that the client described itself, so that
/// what it leaves away counts.
pub(crate) fn judge(
    core: &Core,
    tenant: Uuid,
    device: Uuid,
    before: &Fingerprint,
    components: &BTreeMap<String, String>,
    whole: bool,
) -> Result<Judged> {
    let rules = Rules::of(
        &core.settings.get(tenant, &WEIGHTS),
        &core.settings.get(tenant, &THRESHOLDS),
    );
    // Compared under the key of then: an exchanged master key has not changed the device.
    let key = rules::kid(before).and_then(|kid| {
        let key = core.keys.derive(kid, rules::key_info(device)).ok()?;
        Some((kid, key))
    });
    let compared = key.map(|(kid, key)| rules::hashed(components, kid, &key));
    let score = compared
        .as_ref()
        .map_or(0, |now| rules.score(before, now, whole));
    let now = match compared {
        // A refresh says less than a login; what it does not mention stays as it was.
        Some(mut now) if !whole => {
            let mut kept = before.clone();
            kept.append(&mut now);
            kept
        }
        _ => hashed(core, device, components)?,
    };
    Ok(Judged {
        score,
        verdict: rules.verdict(score),
        now,
    })
}
