//! News of an account by SMS, to people without a mail address: queued with their cause, then limited, paid for
//! and recorded as codes are (ID-44, ID-125, ID-142).

use std::sync::Arc;
use std::time::Duration;

use portico_base::envelope::Place;
use portico_base::{Context, id};
use portico_jobs::{Failure, Handler, Job, JobRun};
use portico_sms::{Content, Ending, Message, News};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::limits::{self, Ask, Refusal};
use super::send::{ALONE, refused, walk};
use crate::domain::contact::E164;
use crate::domain::sms::{SendStatus, SmsSend};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::settings::sms as keys;
use crate::sms::texts;
use crate::store;
use crate::unit::Unit;

/// Kind of the job that sends news.
pub(crate) const KIND: &str = "identity.sms.notice";
/// With waits from a minute, doubled up to an hour, the last try is some five hours after the first.
const TRIES: u32 = 10;
/// Whoever must wait longer for a message is not told by one: it would be no news.
const PATIENCE_S: u32 = 3_600;

/// News in the queue.
#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    /// Row of the envelope's place.
    row: Uuid,
    sealed: String,
}

/// What is sealed of it.
#[derive(Serialize, Deserialize)]
struct Told {
    phone: String,
    notice: String,
    locale: String,
}

/// Queues news with a unit of work. False when nobody could carry them: the notice does not go by SMS, the
/// country gets no messages, or no provider has a template for it.
pub(crate) async fn queue(
    unit: &Unit,
    tenant: Uuid,
    phone: &str,
    locale: &str,
    notice: &str,
) -> Result<bool> {
    let core = &unit.core;
    if !core.settings.get(tenant, &keys::NOTICES) {
        return Ok(false);
    }
    let Some(phone) = E164::stored(phone) else {
        return Ok(false);
    };
    let told = Told {
        phone: phone.as_str().to_owned(),
        notice: notice.to_owned(),
        locale: locale.to_owned(),
    };
    let Some(message) = told.message(String::new()) else {
        return Ok(false);
    };
    let carried = core.sms.links(tenant).iter().any(|l| l.fits(&message));
    if !carried || !limits::is_allowed(core, tenant, &phone) || is_test(core, tenant, &phone) {
        return Ok(false);
    }
    let plain = serde_json::to_vec(&told).map_err(|e| Error::Internal(e.to_string()))?;
    let row = unit.cx.new_id();
    let queued = Queued {
        row,
        sealed: core
            .keys
            .seal(place(&row.to_string()), &plain, &*core.random),
    };
    let job = Job::new(KIND, &queued)?.tenant(tenant).max_tries(TRIES);
    portico_jobs::enqueue(&unit.tx, &unit.cx, job).await?;
    Ok(true)
}

/// What sends the news of the queue.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job| {
        let core = Arc::clone(&core);
        async move { send(&core, &job).await }
    })
    .at_once(2)
    .limit(Duration::from_secs(30))
    .backoff(Duration::from_secs(60), Duration::from_secs(3_600))
}

impl Told {
    /// The message; nothing for a notice that does not go by SMS.
    fn message(&self, id: String) -> Option<Message> {
        let text = texts::text(&self.notice, &self.locale)?;
        Some(Message {
            id,
            phone: self.phone.clone(),
            content: Content::Notice(News {
                name: self.notice.clone(),
                text: text.to_owned(),
            }),
            locale: self.locale.clone(),
        })
    }
}

async fn send(core: &Arc<Core>, job: &JobRun) -> std::result::Result<(), Failure> {
    let queued: Queued = job.payload()?;
    let plain = core
        .keys
        .open(place(&queued.row.to_string()), &queued.sealed)
        .map_err(Failure::dead)?;
    let told: Told = serde_json::from_slice(plain.expose()).map_err(Failure::dead)?;
    let tenant = job.tenant().unwrap_or(id::TENANT_DEFAULT);
    let cx = &job.context;
    let send = cx.new_id();
    let (Some(phone), Some(message)) = (E164::stored(&told.phone), told.message(send.to_string()))
    else {
        return Err(Failure::dead("this notice does not go by SMS"));
    };
    let ask = Ask::of_notice(core, tenant, phone);
    if let Some(refusal) = admit(core, cx, &ask, send).await? {
        // Which limit it was is in the audit, as for codes; the answer is for nobody.
        let error = refused(core, cx, &ask, &refusal).await?;
        if refusal.retry_after_s > PATIENCE_S || job.is_last() {
            return Ok(());
        }
        let wait = Duration::from_secs(u64::from(refusal.retry_after_s));
        return Err(Failure::RetryAfter(error.into(), wait));
    }
    let (ending, provider) = walk(core, cx, &ask, send, &message).await;
    end(core, job, &ask, send, ending, provider).await
}

/// Lets a message through, alone with whoever else sends.
async fn admit(core: &Arc<Core>, cx: &Context, ask: &Ask, send: Uuid) -> Result<Option<Refusal>> {
    let unit = Unit::begin(core, cx).await?;
    unit.tx.serialise(ALONE).await?;
    let now = unit.now();
    if let Some(refusal) = limits::check(core, &unit.tx, ask, now).await? {
        return Ok(Some(refusal));
    }
    if let Some(refusal) = limits::guard(&unit, ask, now).await? {
        unit.commit().await?;
        return Ok(Some(refusal));
    }
    let row = SmsSend {
        id: send,
        tenant: ask.tenant,
        transaction: send,
        phone_hash: ask.phone_hash,
        prefix_hash: ask.prefix_hash,
        country: ask.country.clone(),
        device_hash: None,
        ip: None,
        net: None,
        status: SendStatus::Notice,
        at: now,
    };
    store::sms::insert(&unit.tx, &row).await?;
    unit.commit().await?;
    Ok(None)
}

/// How it ended, with the end of the job: what was taken by a provider is not sent again.
async fn end(
    core: &Arc<Core>,
    job: &JobRun,
    ask: &Ask,
    send: Uuid,
    ending: Ending,
    provider: Option<&'static str>,
) -> std::result::Result<(), Failure> {
    let unit = Unit::begin(core, &job.context).await?;
    let (status, topic) = match ending {
        Ending::Sent | Ending::Ambiguous => (SendStatus::Notice, "identity.sms.sent"),
        Ending::Stopped => (SendStatus::Notice, "identity.sms.failed"),
        Ending::Unavailable => (SendStatus::Failed, "identity.sms.failed"),
    };
    store::sms::end(&unit.tx, ask.tenant, send, status, provider).await?;
    let payload = json!({
        "tenant_id": ask.tenant,
        "transaction_id": send,
        "purpose": "notice",
        "status": status.as_str(),
        "provider": provider,
        "country": ask.country,
    });
    unit.publish(topic, &send.to_string(), &payload)?;
    if ending == Ending::Unavailable {
        unit.commit().await?;
        return Err(Failure::Retry("no provider took the notice".into()));
    }
    job.done(&unit.tx).await?;
    unit.commit().await?;
    Ok(())
}

/// Nobody reads what a test number gets.
fn is_test(core: &Core, tenant: Uuid, phone: &E164) -> bool {
    super::send::test_code(core, tenant, phone, core.clock.now()).is_some()
}

const fn place(row: &str) -> Place<'_> {
    Place {
        table: "jobs",
        row,
        column: "payload",
    }
}
