//! SMS: login codes sent, checked, limited, counted (ID-50…59), and news of accounts.

mod health;
mod limits;
mod login;
mod news;
mod phone;
mod providers;
mod records;
mod send;
mod verify;

pub(crate) use health::{trim, watch};
pub(crate) use login::{Ask, Login, ask, login};
pub(crate) use news::{handler as notice_handler, queue as queue_notice};
pub(crate) use phone::{begin as begin_phone, confirm as confirm_phone, remove as remove_phone};
pub(crate) use providers::{Chain, chain, test};
pub(crate) use records::{Day, list, stats};
pub(crate) use send::Sent;
pub(crate) use verify::{Verify, verify};

use portico_contract::audit::Record;
use serde_json::json;
use uuid::Uuid;

use crate::domain::contact::E164;
use crate::error::Result;
use crate::hub::Core;
use crate::unit::Unit;

/// What records and transactions of a number are found by.
pub(crate) fn number_hash(core: &Core, number: &str) -> [u8; 32] {
    core.limits.subject(&["sms.phone", number])
}

/// Keyed hashes of a number: the whole, and without its last four digits.
fn hashes(core: &Core, phone: &E164) -> ([u8; 32], [u8; 32]) {
    (
        number_hash(core, phone.as_str()),
        core.limits.subject(&["sms.prefix", phone.prefix()]),
    )
}

/// The calling code as records, limits and figures write it.
fn country(phone: &E164) -> String {
    format!("+{}", phone.country_code())
}

/// A record about a transaction.
fn record(action: &'static str, tenant: Uuid, transaction: Uuid) -> Record {
    Record::done(action, "otp_transaction", transaction.to_string(), tenant)
}

/// Tells administrators of something that they must look at. Never with a number in it.
fn alert(
    unit: &Unit,
    tenant: Uuid,
    kind: &str,
    subject: &str,
    detail: &serde_json::Value,
) -> Result<()> {
    tracing::warn!(kind, subject, "SMS needs somebody's attention");
    let payload = json!({
        "tenant_id": tenant,
        "kind": kind,
        "subject": subject,
        "detail": detail,
    });
    unit.publish("identity.sms.alerted", subject, &payload)
}
