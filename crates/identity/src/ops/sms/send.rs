//! Sending a code: let through, stored as a MAC, carried by the first provider that takes it (ID-50…57).

use std::sync::Arc;

use chrono::Duration;
use portico_base::envelope::Place;
use portico_base::{Context, FieldFault, Secret, Timestamp};
use portico_contract::audit::Outcome;
use portico_sms::{Alert, Attempt, Class, Content, Ending, Message, Run};
use serde_json::{Map, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::limits::{self, Ask, Refusal};
use super::{alert, record};
use crate::domain::contact::{Country, E164, parse_phone};
use crate::domain::otp::{self, Otp, Purpose};
use crate::domain::sms::{SendStatus, SmsRecord, SmsSend};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::settings::sms as keys;
use crate::store;
use crate::store::otp::Owner;
use crate::unit::Unit;

/// Of all senders one after the other; a send is rare and paid for.
pub(super) const ALONE: &str = "identity.sms";

/// How a code goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The answer waits for the providers, and tells when none took it.
    Wait,
    /// The answer tells nothing and takes no longer for a number that exists.
    Background,
    /// As [`Delivery::Background`], and nothing is sent: nobody has this number. The rows are the same.
    Pretend,
}

/// A wish for a code.
#[derive(Debug, Clone)]
pub(crate) struct Send {
    pub tenant: Uuid,
    pub purpose: Purpose,
    pub phone: E164,
    /// What the code is bound to besides: the client's own name for its device, or a session.
    pub device: Option<String>,
    /// With [`Purpose::Bind`]: whose number it is to be.
    pub user: Option<Uuid>,
    /// `zh-CN` or `en`.
    pub locale: String,
    /// Of which another code is wanted; without it the last one of the device.
    pub transaction: Option<Uuid>,
    pub delivery: Delivery,
}

/// What the client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    pub transaction: Uuid,
    pub resend_after_s: u32,
    pub expires_in_s: u32,
}

/// What was let through and is to be carried.
struct Job {
    ask: Ask,
    otp: Otp,
    send: Uuid,
    code: Secret<String>,
    locale: String,
    status: SendStatus,
    sent: Sent,
}

/// Sends a code.
pub(crate) async fn send(core: &Arc<Core>, cx: &Context, wish: Send) -> Result<Sent> {
    let ask = Ask::new(
        core,
        cx,
        wish.tenant,
        wish.phone.clone(),
        wish.device.as_deref(),
    );
    if let Some(refusal) = limits::check(core, core.db.reader(), &ask, cx.now()).await? {
        return Err(refused(core, cx, &ask, &refusal).await?);
    }
    let job = match admit(core, cx, &wish, &ask).await? {
        Ok(job) => job,
        Err(refusal) => return Err(refused(core, cx, &ask, &refusal).await?),
    };
    let sent = job.sent;
    if job.status == SendStatus::Test {
        tracing::warn!(
            "a code was asked for a test number: nothing is sent, the code is the configured one"
        );
        return Ok(sent);
    }
    if wish.delivery == Delivery::Pretend {
        return Ok(sent);
    }
    let (tell, told) = oneshot::channel();
    let (own, context) = (Arc::clone(core), cx.clone());
    let told_to_somebody = wish.delivery == Delivery::Wait;
    // A client that hangs up must not leave a message without its record.
    core.sms.spawner.spawn("identity.sms", async move {
        let ending = carry(&own, &context, job, told_to_somebody).await;
        // Nobody waits in the background.
        let _ = tell.send(ending);
    });
    if !told_to_somebody {
        return Ok(sent);
    }
    match told.await.unwrap_or(Ending::Ambiguous) {
        Ending::Sent | Ending::Ambiguous => Ok(sent),
        Ending::Stopped => Err(reason::SMS_REFUSED.into()),
        Ending::Unavailable => {
            let members = json!({
                "transaction_id": sent.transaction,
                "expires_in_s": sent.expires_in_s,
            });
            let members: Map<_, _> = members.as_object().cloned().unwrap_or_default();
            Err(Error::With(reason::SMS_UNAVAILABLE, members))
        }
    }
}

/// Lets a send through, alone with whoever else sends: the transaction's new code and the row that counts.
async fn admit(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Send,
    ask: &Ask,
) -> Result<std::result::Result<Job, Refusal>> {
    let unit = Unit::begin(core, cx).await?;
    unit.tx.serialise(ALONE).await?;
    let now = unit.now();
    if let Some(refusal) = limits::check(core, &unit.tx, ask, now).await? {
        return Ok(Err(refusal));
    }
    let owner = Owner {
        tenant: wish.tenant,
        purpose: wish.purpose,
        device: wish.device.as_deref().unwrap_or_default(),
        user: wish.user,
    };
    let before = earlier(&unit, wish, ask, owner).await?;
    if let Some(wait) = before.as_ref().filter(|o| o.resend_at > now) {
        return Ok(Err(Refusal {
            dimension: "resend",
            retry_after_s: limits::seconds(wait.resend_at - now),
        }));
    }
    if let Some(refusal) = limits::guard(&unit, ask, now).await? {
        unit.commit().await?;
        return Ok(Err(refusal));
    }
    let fixed = test_code(core, wish.tenant, &wish.phone, now);
    let status = match fixed {
        Some(_) => SendStatus::Test,
        None => SendStatus::Pending,
    };
    let code = fixed.unwrap_or_else(|| otp::new_code(&*cx.random));
    let (otp, sent) = write(&unit, wish, ask, before, &code).await?;
    let send = cx.new_id();
    store::sms::insert(
        &unit.tx,
        &SmsSend {
            id: send,
            tenant: wish.tenant,
            transaction: otp.id,
            phone_hash: ask.phone_hash,
            prefix_hash: ask.prefix_hash,
            country: ask.country.clone(),
            device_hash: ask.device_hash,
            ip: ask.ip.clone(),
            net: ask.net.clone(),
            status,
            at: now,
        },
    )
    .await?;
    unit.audit(
        record("identity.sms.requested", wish.tenant, otp.id)
            .change("phone", None, Some(ask.phone.masked().into()))
            .change("purpose", None, Some(wish.purpose.as_str().into()))
            .change(
                "test_number",
                None,
                Some((status == SendStatus::Test).into()),
            ),
    )
    .await?;
    unit.commit().await?;
    Ok(Ok(Job {
        ask: ask.clone(),
        otp,
        send,
        code,
        locale: wish.locale.clone(),
        status,
        sent,
    }))
}

/// The transaction of which another code is wanted. One that is named and cannot be used is a fault.
async fn earlier(unit: &Unit, wish: &Send, ask: &Ask, owner: Owner<'_>) -> Result<Option<Otp>> {
    let Some(id) = wish.transaction else {
        // Without anything to bind them to, two requests are two transactions.
        if wish.device.is_none() && wish.user.is_none() {
            return Ok(None);
        }
        return Ok(store::otp::live(&unit.tx, owner, ask.phone_hash, unit.now()).await?);
    };
    store::otp::get(&unit.tx, owner, id)
        .await?
        .filter(|o| o.phone_hash == ask.phone_hash)
        .filter(|o| o.consumed_at.is_none() && o.expires_at > unit.now())
        .map(Some)
        .ok_or_else(|| {
            let message = "is used, expired or not of this device and number";
            Error::Invalid(vec![FieldFault::new("transaction_id", "unknown", message)])
        })
}

async fn write(
    unit: &Unit,
    wish: &Send,
    ask: &Ask,
    before: Option<Otp>,
    code: &Secret<String>,
) -> Result<(Otp, Sent)> {
    let (core, now) = (&unit.core, unit.now());
    let id = before.as_ref().map_or_else(|| unit.cx.new_id(), |o| o.id);
    let resend_no = before.as_ref().map_or(0, |o| o.resend_no + 1);
    let waits = core.settings.system(&keys::RESEND_WAITS_S);
    let at = usize::try_from(resend_no).unwrap_or(usize::MAX);
    let wait = waits.get(at).or(waits.last()).copied().unwrap_or(60);
    let life = core.settings.get(wish.tenant, &keys::OTP_TTL_S);
    let row = id.to_string();
    let place = Place {
        table: "otp_transactions",
        row: &row,
        column: "phone",
    };
    let phone = wish.phone.as_str();
    let new = Otp {
        id,
        tenant: wish.tenant,
        purpose: wish.purpose,
        phone_hash: ask.phone_hash,
        phone: core.keys.seal(place, phone.as_bytes(), &*unit.cx.random),
        code_mac: otp::mac(&core.keys, wish.purpose, phone, id, code)?,
        previous_mac: before.as_ref().map(|o| o.code_mac),
        device: wish.device.clone().unwrap_or_default(),
        user: wish.user,
        ip: ask.ip.clone(),
        tries: 0,
        resend_no,
        created_at: before.as_ref().map_or(now, |o| o.created_at),
        resend_at: now + Duration::seconds(i64::from(wait)),
        expires_at: now + Duration::seconds(i64::from(life)),
        consumed_at: None,
    };
    match before {
        Some(_) => store::otp::renew(&unit.tx, &new).await?,
        None => store::otp::insert(&unit.tx, &new).await?,
    }
    let sent = Sent {
        transaction: id,
        resend_after_s: wait,
        expires_in_s: life,
    };
    Ok((new, sent))
}

/// Carries a code through the chain; every attempt leaves its row.
async fn carry(core: &Arc<Core>, cx: &Context, job: Job, told: bool) -> Ending {
    let message = Message {
        id: job.send.to_string(),
        phone: job.ask.phone.as_str().to_owned(),
        content: Content::Code(job.code.clone()),
        locale: job.locale.clone(),
    };
    let (ending, provider) = walk(core, cx, &job.ask, job.otp.id, &message).await;
    let (by, country) = (provider.unwrap_or("none"), &job.ask.country);
    match ending {
        Ending::Sent | Ending::Ambiguous => core.sms.metrics.sent(by, country),
        Ending::Stopped | Ending::Unavailable => core.sms.metrics.failed(by, country),
    }
    if let Err(error) = end(core, cx, &job, ending, provider, told).await {
        tracing::error!(err = %error, "the end of an SMS could not be recorded");
    }
    ending
}

/// Walks the chain with a message; every attempt leaves its row. Gives the provider that was asked last.
pub(super) async fn walk(
    core: &Arc<Core>,
    cx: &Context,
    ask: &Ask,
    transaction: Uuid,
    message: &Message,
) -> (Ending, Option<&'static str>) {
    let mut run = Run::new(core.sms.links(ask.tenant), core.sms.limits);
    let mut provider = None;
    if let Some(sender) = core.sms.sender() {
        while let Some(attempt) = run
            .step(
                message,
                sender,
                &core.sms.breakers,
                &*core.clock,
                &*core.random,
            )
            .await
        {
            core.sms.metrics.attempt(&attempt);
            provider = Some(attempt.provider);
            if let Err(error) = note(core, cx, ask, transaction, &attempt).await {
                tracing::error!(err = %error, "an SMS attempt could not be recorded");
            }
        }
    }
    (run.ending(), provider)
}

/// The row of an attempt, and the alert that it is reason for.
async fn note(
    core: &Arc<Core>,
    cx: &Context,
    ask: &Ask,
    transaction: Uuid,
    attempt: &Attempt,
) -> Result<()> {
    let unit = Unit::begin(core, cx).await?;
    let row = row_of(&unit, ask, transaction, attempt);
    store::sms_records::insert(&unit.tx, &row).await?;
    tell(&unit, ask.tenant, attempt)?;
    unit.commit().await
}

/// What is stored of an attempt.
pub(super) fn row_of(unit: &Unit, ask: &Ask, transaction: Uuid, attempt: &Attempt) -> SmsRecord {
    let verdict = &attempt.verdict;
    SmsRecord {
        id: unit.cx.new_id(),
        tenant: ask.tenant,
        transaction,
        provider: attempt.provider.to_owned(),
        attempt_no: attempt.number,
        phone_masked: ask.phone.masked(),
        phone_hash: ask.phone_hash,
        prefix_hash: ask.prefix_hash,
        country: ask.country.clone(),
        status: match verdict.class {
            Class::Sent => "sent",
            Class::Ambiguous => "ambiguous",
            Class::Next | Class::NextAlert | Class::Stop | Class::StopAlert => "failed",
        }
        .to_owned(),
        class: verdict.class.as_str().to_owned(),
        notice: ask.notice,
        provider_code: verdict.code.clone(),
        provider_message: verdict.message.clone(),
        receipt_id: verdict.receipt.clone(),
        latency_ms: u32::try_from(attempt.latency.as_millis()).unwrap_or(u32::MAX),
        segments: verdict.segments,
        cost_micro: attempt.cost_micro,
        verified_at: None,
        at: unit.cx.now(),
    }
}

/// Publishes what an attempt is reason to tell.
pub(super) fn tell(unit: &Unit, tenant: Uuid, attempt: &Attempt) -> Result<()> {
    let kind = match attempt.alert {
        None => return Ok(()),
        Some(Alert::Misconfigured) => "provider_misconfigured",
        Some(Alert::Unknown) => "provider_error_unknown",
        Some(Alert::Opened) => "provider_down",
    };
    let detail = json!({
        "code": attempt.verdict.code,
        "message": attempt.verdict.message,
    });
    alert(unit, tenant, kind, attempt.provider, &detail)
}

async fn end(
    core: &Arc<Core>,
    cx: &Context,
    job: &Job,
    ending: Ending,
    provider: Option<&'static str>,
    told: bool,
) -> Result<()> {
    let unit = Unit::begin(core, cx).await?;
    let (status, topic) = match ending {
        Ending::Sent => (SendStatus::Sent, "identity.sms.sent"),
        Ending::Ambiguous => (SendStatus::Ambiguous, "identity.sms.sent"),
        Ending::Stopped => (SendStatus::Stopped, "identity.sms.failed"),
        Ending::Unavailable => (SendStatus::Failed, "identity.sms.failed"),
    };
    // Where nothing is told, a number that exists must wait as one that does not: it stays pending.
    if told || ending != Ending::Unavailable {
        store::sms::end(&unit.tx, job.ask.tenant, job.send, status, provider).await?;
    }
    if told && ending == Ending::Unavailable {
        // Nobody was bothered: the same transaction may be tried again at once.
        store::otp::allow_resend(&unit.tx, job.ask.tenant, job.otp.id, cx.now()).await?;
    }
    let payload = json!({
        "tenant_id": job.ask.tenant,
        "transaction_id": job.otp.id,
        "purpose": job.otp.purpose,
        "status": status.as_str(),
        "provider": provider,
        "country": job.ask.country,
    });
    unit.publish(topic, &job.otp.id.to_string(), &payload)?;
    unit.commit().await
}

/// The answer to a refused wish; which limit it was is for the audit.
pub(super) async fn refused(
    core: &Arc<Core>,
    cx: &Context,
    ask: &Ask,
    refusal: &Refusal,
) -> Result<Error> {
    if core.sms.audits_refusal(cx.now().timestamp()) {
        let unit = Unit::begin(core, cx).await?;
        let mut record = record("identity.sms.limited", ask.tenant, Uuid::nil())
            .change("phone", None, Some(ask.phone.masked().into()))
            .change("dimension", None, Some(refusal.dimension.into()));
        record.outcome = Outcome::Denied;
        record.code = Some(reason::SMS_LIMITED.code);
        unit.audit(record).await?;
        unit.commit().await?;
    }
    Ok(Error::Later(reason::SMS_LIMITED, refusal.retry_after_s))
}

/// The fixed code of a test number (ID-59).
pub(super) fn test_code(
    core: &Core,
    tenant: Uuid,
    phone: &E164,
    now: Timestamp,
) -> Option<Secret<String>> {
    core.settings
        .get(tenant, &keys::TEST_NUMBERS)
        .into_iter()
        .filter(|test| test.until > now && otp::is_code(test.code.expose()))
        .find(|test| parse_phone(&test.phone, Country::CN).is_ok_and(|p| p == *phone))
        .map(|test| test.code)
}
