//! Users: made, changed, disabled, deleted, found (ID-10…15).

mod edit;
mod life;
mod new;
mod query;

pub(crate) use edit::{Edit, SelfEdit, edit, edit_self, version};
pub(crate) use life::{
    ADMINS, delete, disable, disable_in, enable, enable_due, enable_in, end_access, keep_an_admin,
    locked, reason_of,
};
pub(crate) use new::{NewUser, create, create_by_admin, save};
pub(crate) use query::{Found, Wanted, get, list, own, search};

use portico_contract::audit::Record;
use serde_json::{Value, json};

use crate::domain::contact::{masked_email, masked_phone};
use crate::domain::user::User;
use crate::error::Result;
use crate::unit::Unit;

/// A record about a user.
pub(crate) fn record(action: &'static str, user: &User) -> Record {
    Record::done(action, "user", user.id.to_string(), user.tenant)
}

/// Tells others of a change, without personal data.
pub(crate) fn publish(unit: &Unit, topic: &str, user: &User) -> Result<()> {
    let payload = json!({ "user_id": user.id, "tenant_id": user.tenant });
    unit.publish(topic, &user.id.to_string(), &payload)
}

fn email_shown(user: &User) -> Option<Value> {
    user.email.as_deref().map(|a| masked_email(a).into())
}

fn phone_shown(user: &User) -> Option<Value> {
    user.phone.as_deref().map(|n| masked_phone(n).into())
}
