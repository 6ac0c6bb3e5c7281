//! Looks after messages every minute: conversion, reachability of providers that failed, old rows.

use std::sync::Arc;
use std::time::Duration as Wait;

use chrono::Duration;
use portico_base::id::TENANT_SYSTEM;

use super::limits::{LEAST_SENDS, watch_conversion};
use super::send::ALONE;
use crate::error::Result;
use crate::hub::Core;
use crate::store;
use crate::unit::Unit;

const HOUR: Duration = Duration::hours(1);
/// Sends are counted over a day at most.
const SENDS_KEPT: Duration = Duration::days(2);
/// A code that has expired long ago answers as one that never was.
const CODES_KEPT: Duration = Duration::hours(1);
const RECORDS_KEPT: Duration = Duration::days(180);
/// A provider must answer anything at all within this.
const REACH: Wait = Wait::from_secs(5);

/// Finds prefixes and countries whose codes do not come back, before the next send would, and keeps
/// people's messages away from providers that cannot even be reached.
pub(crate) async fn watch(core: &Arc<Core>) -> Result<()> {
    let cx = core.own_context("identity.sms.health");
    let now = cx.now();
    let mut busy = Vec::new();
    for column in ["prefix_hash", "country"] {
        let conn = core.db.reader();
        busy.extend(store::sms::busy(conn, column, now - HOUR, LEAST_SENDS).await?);
    }
    for dimension in busy {
        let unit = Unit::begin(core, &cx).await?;
        unit.tx.serialise(ALONE).await?;
        if watch_conversion(&unit, &dimension, now).await?.is_some() {
            unit.commit().await?;
        }
    }
    reach(core).await;
    Ok(())
}

/// An open breaker lets one message through when its time is over. When the provider cannot be reached at
/// all, nobody's message needs to find that out.
async fn reach(core: &Core) {
    let Some(sender) = core.sms.sender() else {
        return;
    };
    for link in core.sms.links(TENANT_SYSTEM) {
        let provider = &*link.provider;
        if core.sms.breakers.state(provider).open_until.is_none() {
            continue;
        }
        if !sender.reaches(provider.endpoint(), REACH).await {
            core.sms.breakers.hold(provider, core.clock.now());
        }
    }
}

/// Removes rows whose time is over.
pub(crate) async fn trim(core: &Core) -> Result<()> {
    let now = core.clock.now();
    let tx = core.db.begin().await?;
    store::otp::trim(&tx, now - CODES_KEPT).await?;
    store::sms::trim(&tx, now - SENDS_KEPT).await?;
    store::sms::trim_blocks(&tx, now).await?;
    store::sms_records::trim(&tx, now - RECORDS_KEPT).await?;
    tx.commit().await?;
    Ok(())
}
