//! Who may be sent how many codes (ID-56, ID-57). Counted over rows of the database, so that limits hold over
//! all replicas and restarts, and no flushed store lets anybody send more.

use std::net::IpAddr;

use chrono::Duration;
use ipnet::IpNet;
use portico_base::{Context, Timestamp};
use portico_db::sea_orm::ConnectionTrait;
use serde_json::json;
use uuid::Uuid;

use super::{alert, country, hashes};
use crate::domain::contact::E164;
use crate::domain::sms::{Conversion, SmsBlock};
use crate::error::Result;
use crate::hub::Core;
use crate::limits::network;
use crate::settings::limit::Rate;
use crate::settings::sms as keys;
use crate::store;
use crate::store::sms::Dimension;
use crate::unit::Unit;

const HOUR: Duration = Duration::hours(1);
const DAY: Duration = Duration::days(1);
/// A code that was sent less than this ago may be on its way.
const SETTLED: Duration = Duration::minutes(2);
/// Sends in an hour from which conversion tells something.
pub(super) const LEAST_SENDS: u32 = 30;

/// Who asks for a message to whom.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// News of the account and not a code.
    pub notice: bool,
    pub tenant: Uuid,
    pub phone: E164,
    pub phone_hash: [u8; 32],
    pub prefix_hash: [u8; 32],
    pub country: String,
    pub device_hash: Option<[u8; 32]>,
    pub ip: Option<String>,
    pub net: Option<String>,
}

/// Why not, and until when. Only the audit tells the dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub dimension: &'static str,
    pub retry_after_s: u32,
}

impl Ask {
    pub(super) fn new(
        core: &Core,
        cx: &Context,
        tenant: Uuid,
        phone: E164,
        device: Option<&str>,
    ) -> Self {
        let (phone_hash, prefix_hash) = hashes(core, &phone);
        Self {
            notice: false,
            tenant,
            country: country(&phone),
            phone,
            phone_hash,
            prefix_hash,
            device_hash: device.map(|id| core.limits.subject(&["sms.device", id])),
            ip: cx.caller.address.map(|a| network(a).to_string()),
            net: cx.caller.address.map(|a| wide(a).to_string()),
        }
    }

    /// News to a number. Nobody asks for them, so neither device nor address is counted.
    pub(super) fn of_notice(core: &Core, tenant: Uuid, phone: E164) -> Self {
        let (phone_hash, prefix_hash) = hashes(core, &phone);
        Self {
            notice: true,
            tenant,
            country: country(&phone),
            phone,
            phone_hash,
            prefix_hash,
            device_hash: None,
            ip: None,
            net: None,
        }
    }

    fn prefix_subject(&self) -> String {
        prefix_subject(&self.prefix_hash)
    }
}

/// Checks everything that needs no writing. Asked once without a lock, which refuses a flood cheaply, and
/// once alone with whoever else sends.
pub(super) async fn check(
    core: &Core,
    conn: &impl ConnectionTrait,
    ask: &Ask,
    now: Timestamp,
) -> Result<Option<Refusal>> {
    if !is_allowed(core, ask.tenant, &ask.phone) {
        return Ok(Some(Refusal {
            dimension: "country",
            retry_after_s: 86_400,
        }));
    }
    let rates = |key| core.settings.system(key);
    let mut dimensions = Vec::new();
    if let Some(ip) = &ask.ip {
        dimensions.push(("ip", Dimension::Ip(ip.clone()), rates(&keys::PER_IP)));
    }
    if let Some(net) = &ask.net {
        dimensions.push(("net", Dimension::Net(net.clone()), rates(&keys::PER_NET)));
    }
    if let Some(device) = ask.device_hash {
        dimensions.push((
            "device",
            Dimension::Device(device),
            rates(&keys::PER_DEVICE),
        ));
    }
    let phone = match ask.notice {
        true => Dimension::Told(ask.phone_hash),
        false => Dimension::Phone(ask.phone_hash),
    };
    dimensions.push(("phone", phone, rates(&keys::PER_PHONE)));
    dimensions.push((
        "prefix",
        Dimension::Prefix(ask.prefix_hash),
        rates(&keys::PER_PREFIX),
    ));
    for (name, dimension, rates) in dimensions {
        for rate in rates {
            if let Some(refusal) = over(conn, name, &dimension, rate, now).await? {
                return Ok(Some(refusal));
            }
        }
    }
    let subjects = [
        ask.prefix_subject(),
        country_subject(&ask.country),
        BUDGET_HOUR.to_owned(),
        BUDGET_DAY.to_owned(),
    ];
    if let Some(block) = store::sms::blocked(conn, &subjects, now).await? {
        return Ok(Some(Refusal {
            dimension: kind_of(&block.subject),
            retry_after_s: seconds(block.until - now),
        }));
    }
    tenant(conn, ask.tenant, now).await
}

/// Messages go to this country at all.
pub(super) fn is_allowed(core: &Core, tenant: Uuid, phone: &E164) -> bool {
    let allowed = core.settings.get(tenant, &keys::COUNTRIES);
    let phone = phone.as_str();
    allowed
        .iter()
        .any(|start| phone.starts_with(start.as_str()))
}

/// The tenant's messages of a day.
pub(super) async fn tenant(
    conn: &impl ConnectionTrait,
    tenant: Uuid,
    now: Timestamp,
) -> Result<Option<Refusal>> {
    let quota = store::tenants::get(conn, tenant)
        .await?
        .map_or(0, |t| t.quotas.sms_per_day);
    let rate = Rate {
        count: u32::try_from(quota).unwrap_or(u32::MAX),
        window_s: 86_400,
    };
    over(conn, "tenant", &Dimension::Tenant(tenant), rate, now).await
}

/// The checks that block something when they fail: conversion and budgets. Whoever asks is alone; after a
/// refusal the unit is to be committed, because the block and the alert are in it.
pub(super) async fn guard(unit: &Unit, ask: &Ask, now: Timestamp) -> Result<Option<Refusal>> {
    for dimension in [
        Dimension::Prefix(ask.prefix_hash),
        Dimension::Country(ask.country.clone()),
    ] {
        if let Some(block) = watch_conversion(unit, &dimension, now).await? {
            return Ok(Some(Refusal {
                dimension: "conversion",
                retry_after_s: seconds(block.until - now),
            }));
        }
    }
    for (subject, window, key) in [
        (BUDGET_HOUR, HOUR, &keys::BUDGET_HOUR),
        (BUDGET_DAY, DAY, &keys::BUDGET_DAY),
    ] {
        let budget = unit.core.settings.system(key);
        let rate = Rate {
            count: budget,
            window_s: u32::try_from(window.num_seconds()).unwrap_or(u32::MAX),
        };
        let over = over(&unit.tx, "budget", &Dimension::All, rate, now).await?;
        if let Some(refusal) = over {
            let until = now + Duration::seconds(i64::from(refusal.retry_after_s));
            let block = SmsBlock {
                subject: subject.to_owned(),
                reason: "budget".to_owned(),
                sent: budget,
                verified: 0,
                at: now,
                until,
            };
            store::sms::block(&unit.tx, &block).await?;
            alert(
                unit,
                ask.tenant,
                "budget_used_up",
                subject,
                &json!({ "budget": budget }),
            )?;
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

/// Blocks a prefix or country for an hour when too few of its codes come back (ID-57); nothing when it does
/// well, or is blocked already.
pub(super) async fn watch_conversion(
    unit: &Unit,
    dimension: &Dimension,
    now: Timestamp,
) -> Result<Option<SmsBlock>> {
    let percent = unit.core.settings.system(&keys::MIN_CONVERSION_PERCENT);
    let Conversion { sent, verified } =
        store::sms::conversion(&unit.tx, dimension, now - HOUR, now - SETTLED).await?;
    if !(Conversion { sent, verified }).is_bad(LEAST_SENDS, percent) {
        return Ok(None);
    }
    let subject = match dimension {
        Dimension::Prefix(hash) => prefix_subject(hash),
        Dimension::Country(code) => country_subject(code),
        _ => return Ok(None),
    };
    if store::sms::blocked(&unit.tx, std::slice::from_ref(&subject), now)
        .await?
        .is_some()
    {
        return Ok(None);
    }
    let block = SmsBlock {
        subject,
        reason: "conversion".to_owned(),
        sent,
        verified,
        at: now,
        until: now + HOUR,
    };
    store::sms::block(&unit.tx, &block).await?;
    let detail = json!({ "sent": sent, "verified": verified, "until": block.until });
    alert(
        unit,
        portico_base::id::TENANT_SYSTEM,
        "conversion_too_low",
        &block.subject,
        &detail,
    )?;
    Ok(Some(block))
}

/// The refusal of a dimension that has had all it may have.
async fn over(
    conn: &impl ConnectionTrait,
    name: &'static str,
    dimension: &Dimension,
    rate: Rate,
    now: Timestamp,
) -> Result<Option<Refusal>> {
    let window = Duration::seconds(i64::from(rate.window_s));
    if rate.count == 0 {
        return Ok(Some(Refusal {
            dimension: name,
            retry_after_s: rate.window_s,
        }));
    }
    let oldest = store::sms::nth_newest(conn, dimension, now - window, rate.count).await?;
    Ok(oldest.map(|at| Refusal {
        dimension: name,
        retry_after_s: seconds(at + window - now),
    }))
}

const BUDGET_HOUR: &str = "budget:hour";
const BUDGET_DAY: &str = "budget:day";

fn prefix_subject(hash: &[u8; 32]) -> String {
    format!("prefix:{}", hex::encode(&hash[..16]))
}

fn country_subject(code: &str) -> String {
    format!("country:{code}")
}

fn kind_of(subject: &str) -> &'static str {
    if subject.starts_with("budget") {
        "budget"
    } else {
        "conversion"
    }
}

/// Whole seconds, at least one.
pub(super) fn seconds(span: Duration) -> u32 {
    let whole = (span.num_milliseconds().max(1) + 999) / 1_000;
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// The /24 of an IPv4 address, the /64 of an IPv6 address.
fn wide(address: IpAddr) -> IpNet {
    let one = network(address);
    let prefix = if one.addr().is_ipv4() { 24 } else { 64 };
    IpNet::new(one.addr(), prefix).map_or(one, |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let of = |text: &str| wide(text.parse().unwrap()).to_string();
        assert_eq!(of("203.0.113.7"), "203.0.113.0/24");
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.0/24");
        assert_eq!(of("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
    }

    #[test]
    fn waits_are_whole_seconds() {
        assert_eq!(seconds(Duration::milliseconds(1)), 1);
        assert_eq!(seconds(Duration::milliseconds(1_001)), 2);
        assert_eq!(seconds(Duration::milliseconds(-5)), 1);
    }
}
