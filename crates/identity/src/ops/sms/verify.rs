//! Checking a code: five tries, once, by whom it was sent for (ID-51).

use std::sync::Arc;

use portico_base::envelope::Place;
use portico_base::{Context, Secret};
use portico_contract::audit::Outcome;
use uuid::Uuid;

use super::record;
use crate::domain::contact::E164;
use crate::domain::otp::{self, Guess, Otp, Purpose};
use crate::error::{Error, Reason, Result, reason};
use crate::hub::Core;
use crate::settings::sms as keys;
use crate::store;
use crate::store::otp::Owner;
use crate::unit::Unit;

/// A code that somebody shows.
#[derive(Debug)]
pub(crate) struct Verify<'a> {
    pub tenant: Uuid,
    pub purpose: Purpose,
    pub transaction: Uuid,
    pub code: &'a Secret<String>,
    /// As it was with the wish.
    pub device: Option<&'a str>,
    /// As it was with the wish.
    pub user: Option<Uuid>,
}

/// The number that is proved to be in somebody's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    pub phone: E164,
}

/// Uses a try up and, when the code is right, the transaction. The try is counted and committed before
/// anything is answered, so that guesses at the same moment, a crash, or whatever fails afterwards give
/// nobody a sixth. A transaction that is not there answers as one that has expired.
pub(crate) async fn verify(core: &Arc<Core>, cx: &Context, shown: Verify<'_>) -> Result<Verified> {
    let most = core.settings.get(shown.tenant, &keys::OTP_TRIES);
    let owner = Owner {
        tenant: shown.tenant,
        purpose: shown.purpose,
        device: shown.device.unwrap_or_default(),
        user: shown.user,
    };
    let unit = Unit::begin(core, cx).await?;
    let now = unit.now();
    let taken = store::otp::take_try(&unit.tx, owner, shown.transaction, most, now).await?;
    let Some(otp) = taken else {
        let found = store::otp::get(&unit.tx, owner, shown.transaction).await?;
        return Err(why_not(found.as_ref(), most).into());
    };
    let phone = open(core, &otp)?;
    let mac = otp::mac(&core.keys, otp.purpose, phone.as_str(), otp.id, shown.code)?;
    let guess = otp.judge(&mac);
    if guess == Guess::Right && store::otp::consume(&unit.tx, otp.tenant, otp.id, now).await? {
        came_back(&unit, &otp).await?;
        unit.commit().await?;
        return Ok(Verified { phone });
    }
    let refused = match guess {
        _ if otp.tries >= most => reason::OTP_EXHAUSTED,
        Guess::Wrong => reason::OTP_INVALID,
        Guess::Replaced | Guess::Right => reason::OTP_EXPIRED,
    };
    failed(&unit, &otp, &phone, refused).await?;
    unit.commit().await?;
    Err(refused.into())
}

fn why_not(found: Option<&Otp>, most: u32) -> Reason {
    match found {
        Some(otp) if otp.consumed_at.is_none() && otp.tries >= most => reason::OTP_EXHAUSTED,
        _ => reason::OTP_EXPIRED,
    }
}

/// A code that came back is what conversion counts.
async fn came_back(unit: &Unit, otp: &Otp) -> Result<()> {
    let (tx, now) = (&unit.tx, unit.now());
    let Some((send, provider, country)) = store::sms::last_of(tx, otp.tenant, otp.id).await? else {
        return Ok(());
    };
    store::sms::verified(tx, otp.tenant, send, now).await?;
    if let Some(provider) = &provider {
        store::sms_records::verified(tx, otp.tenant, otp.id, provider, now).await?;
        unit.core.sms.metrics.verified(provider, &country);
    }
    Ok(())
}

async fn failed(unit: &Unit, otp: &Otp, phone: &E164, refused: Reason) -> Result<()> {
    if let Some((_, provider, country)) = store::sms::last_of(&unit.tx, otp.tenant, otp.id).await? {
        let provider = provider.as_deref().unwrap_or("none");
        unit.core.sms.metrics.failed(provider, &country);
    }
    let mut record = record("identity.sms.code_refused", otp.tenant, otp.id)
        .change("phone", None, Some(phone.masked().into()))
        .change("tries", None, Some(otp.tries.into()));
    record.outcome = Outcome::Failed;
    record.code = Some(refused.code);
    unit.audit(record).await
}

/// The number of a transaction.
fn open(core: &Core, otp: &Otp) -> Result<E164> {
    let row = otp.id.to_string();
    let place = Place {
        table: "otp_transactions",
        row: &row,
        column: "phone",
    };
    let broken = || Error::from(reason::SECRET_BROKEN);
    let bytes = core.keys.open(place, &otp.phone).map_err(|_| broken())?;
    std::str::from_utf8(bytes.expose())
        .ok()
        .and_then(E164::stored)
        .ok_or_else(broken)
}
