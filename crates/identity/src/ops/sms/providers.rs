//! The chain as administrators see it, and a message to oneself that tries a provider.

use std::sync::Arc;
use std::time::Instant;

use portico_base::{Context, Timestamp};
use portico_contract::audit::Outcome;
use portico_sms::table::TABLES;
use portico_sms::{Attempt, Class, Content, Message, Stamp, Verdict};
use serde_json::{Map, json};

use super::limits::{self, Ask};
use super::send::{ALONE, row_of};
use super::{country, record};
use crate::domain::contact::{Country, E164, masked_phone, parse_phone};
use crate::domain::otp;
use crate::domain::sms::{SendStatus, SmsBlock, SmsSend};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::{need, need_user, scope};
use crate::permissions::{SMS_READ, SMS_WRITE};
use crate::settings::sms as keys;
use crate::sms::KNOWN;
use crate::store;
use crate::unit::Unit;

/// Blocks that are shown.
const BLOCKS: u64 = 200;

/// A provider of the chain, as this process knows it.
#[derive(Debug)]
pub(crate) struct Health {
    pub name: String,
    /// Why it is not used.
    pub unused: Option<&'static str>,
    /// Failures in a row.
    pub failures: u32,
    pub open_until: Option<Timestamp>,
    pub misconfigured_since: Option<Timestamp>,
    /// What its codes mean.
    pub codes: &'static [(&'static str, Class)],
}

/// The chain of a tenant.
#[derive(Debug)]
pub(crate) struct Chain {
    pub providers: Vec<Health>,
    pub countries: Vec<String>,
    /// Masked numbers that get no message, until when.
    pub test_numbers: Vec<(String, Timestamp)>,
    pub blocks: Vec<SmsBlock>,
    pub warnings: Vec<&'static str>,
}

/// What came of a try.
#[derive(Debug)]
pub(crate) struct Tested {
    pub verdict: Verdict,
    pub latency_ms: u32,
}

/// The chain of a tenant: order, health, what is blocked now.
pub(crate) async fn chain(core: &Core, cx: &Context, tenant: Option<&str>) -> Result<Chain> {
    need(cx, SMS_READ)?;
    let now = cx.now();
    let tenant = scope::tenant(core.db.reader(), cx, tenant).await?.id;
    let providers: Vec<Health> = core
        .sms
        .accounts(tenant)
        .into_iter()
        .map(|account| {
            let state = account
                .link
                .as_ref()
                .map(|link| core.sms.breakers.state(&*link.provider))
                .unwrap_or_default();
            Health {
                codes: TABLES
                    .iter()
                    .find(|table| table.provider == account.name)
                    .map_or(&[], |table| table.rows),
                name: account.name,
                unused: account.link.err(),
                failures: state.failures,
                open_until: state.open_until.filter(|until| *until > now),
                misconfigured_since: state.misconfigured_since,
            }
        })
        .collect();
    let test_numbers: Vec<(String, Timestamp)> = core
        .settings
        .get(tenant, &keys::TEST_NUMBERS)
        .into_iter()
        .filter(|test| test.until > now)
        .map(|test| (masked(&test.phone), test.until))
        .collect();
    Ok(Chain {
        warnings: warnings(&providers, !test_numbers.is_empty()),
        countries: core.settings.get(tenant, &keys::COUNTRIES),
        blocks: store::sms::blocks(core.db.reader(), now, BLOCKS).await?,
        providers,
        test_numbers,
    })
}

fn masked(number: &str) -> String {
    match parse_phone(number, Country::CN) {
        Ok(phone) => phone.masked(),
        Err(_) => masked_phone(number),
    }
}

fn warnings(providers: &[Health], tests: bool) -> Vec<&'static str> {
    let mut all = Vec::new();
    if tests {
        all.push("test numbers are set: whoever knows their fixed code can log in with them");
    }
    let console = portico_sms::Console::NAME;
    if providers
        .iter()
        .any(|p| p.name == console && p.unused.is_none())
    {
        all.push("the console provider writes codes into the log; it is for development only");
    }
    if providers.iter().all(|p| p.unused.is_some()) {
        all.push("no provider is set up: no code can be sent");
    }
    if providers.iter().any(|p| p.misconfigured_since.is_some()) {
        all.push("a provider refuses our configuration");
    }
    all
}

/// Sends a code that opens nothing through one provider to the caller's own number. It is counted and recorded
/// as every other message, and teaches the breaker nothing.
pub(crate) async fn test(core: &Arc<Core>, cx: &Context, name: &str) -> Result<Tested> {
    need(cx, SMS_WRITE)?;
    let id = need_user(cx)?;
    let tenant = cx.tenant();
    let known = KNOWN.contains(&name);
    let accounts = core.sms.accounts(tenant);
    let account = accounts.into_iter().find(|a| known && a.name == name);
    let account = account.ok_or(reason::NOT_FOUND)?;
    let not_set = |why: &str| {
        Error::With(
            reason::PROVIDER_NOT_SET,
            Map::from_iter([("why".to_owned(), why.into())]),
        )
    };
    let link = account.link.map_err(not_set)?;
    let sender = core.sms.sender().ok_or(reason::SMS_UNAVAILABLE)?;
    let user = store::users::get(core.db.reader(), tenant, id).await?;
    let user = user.ok_or(reason::USER_NOT_FOUND)?;
    let phone = user
        .phone
        .as_deref()
        .filter(|_| user.phone_verified_at.is_some())
        .and_then(E164::stored)
        .ok_or(reason::PHONE_MISSING)?;
    let ask = Ask::new(core, cx, tenant, phone, None);
    let message = Message {
        id: cx.new_id().to_string(),
        phone: ask.phone.as_str().to_owned(),
        content: Content::Code(otp::new_code(&*cx.random)),
        locale: user.locale.clone(),
    };
    if !link.provider.serves(&message) {
        return Err(not_set("it has no template for this number"));
    }
    let send = admit(core, cx, &ask).await?;
    let stamp = Stamp::new(cx.now(), &*cx.random);
    let began = Instant::now();
    let limit = core.sms.limits.attempt;
    let verdict = link.provider.send(sender, &message, &stamp, limit).await;
    let attempt = Attempt {
        provider: link.provider.name(),
        number: 1,
        latency: began.elapsed(),
        cost_micro: match verdict.class {
            Class::Sent | Class::Ambiguous => link.cost_micro * i64::from(verdict.segments.max(1)),
            _ => 0,
        },
        verdict,
        alert: None,
    };
    note(core, cx, &ask, &send, &attempt).await?;
    Ok(Tested {
        latency_ms: u32::try_from(attempt.latency.as_millis()).unwrap_or(u32::MAX),
        verdict: attempt.verdict,
    })
}

async fn admit(core: &Arc<Core>, cx: &Context, ask: &Ask) -> Result<SmsSend> {
    let unit = Unit::begin(core, cx).await?;
    unit.tx.serialise(ALONE).await?;
    if limits::tenant(&unit.tx, ask.tenant, unit.now())
        .await?
        .is_some()
    {
        let limit = store::tenants::get(&unit.tx, ask.tenant)
            .await?
            .map_or(0, |t| t.quotas.sms_per_day);
        let members = json!({ "quota": "sms_per_day", "limit": limit });
        let members = members.as_object().cloned().unwrap_or_default();
        return Err(Error::With(reason::QUOTA_EXCEEDED, members));
    }
    if let Some(refusal) = limits::check(core, &unit.tx, ask, unit.now()).await? {
        return Err(Error::Later(reason::SMS_LIMITED, refusal.retry_after_s));
    }
    let send = SmsSend {
        id: cx.new_id(),
        tenant: ask.tenant,
        transaction: cx.new_id(),
        phone_hash: ask.phone_hash,
        prefix_hash: ask.prefix_hash,
        country: country(&ask.phone),
        device_hash: None,
        ip: ask.ip.clone(),
        net: ask.net.clone(),
        status: SendStatus::Pending,
        at: unit.now(),
    };
    store::sms::insert(&unit.tx, &send).await?;
    unit.commit().await?;
    Ok(send)
}

async fn note(
    core: &Arc<Core>,
    cx: &Context,
    ask: &Ask,
    send: &SmsSend,
    attempt: &Attempt,
) -> Result<()> {
    core.sms.metrics.attempt(attempt);
    let class = attempt.verdict.class;
    let unit = Unit::begin(core, cx).await?;
    let row = row_of(&unit, ask, send.transaction, attempt);
    store::sms_records::insert(&unit.tx, &row).await?;
    // Nobody types this code in: conversion does not count it, budgets do.
    let mut record = record("identity.sms.provider_tested", ask.tenant, send.transaction)
        .change("provider", None, Some(attempt.provider.into()))
        .change("class", None, Some(class.as_str().into()));
    if class != Class::Sent {
        record.outcome = Outcome::Failed;
    }
    unit.audit(record).await?;
    unit.commit().await
}
