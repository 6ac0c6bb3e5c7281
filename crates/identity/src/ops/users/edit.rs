//! Changing a user: by an administrator, and by the user.

use std::sync::Arc;

use portico_base::{Context, FieldFault};
use serde_json::Value;
use uuid::Uuid;

use super::new::{kept, save};
use super::query::{Found, found_in};
use super::{email_shown, life, phone_shown, publish, record};
use crate::domain::contact::{Country, check_email, check_phone, check_username, email_key};
use crate::domain::profile;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::{need, need_user};
use crate::permissions::USER_WRITE;
use crate::store;
use crate::unit::Unit;

/// What an administrator changes. An inner absence empties the field.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    pub username: Option<Option<String>>,
    pub email: Option<Option<String>>,
    pub phone: Option<Option<String>>,
    pub must_change_password: Option<bool>,
    pub legal_hold: Option<bool>,
    pub profile: SelfEdit,
}

/// What users change of themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct SelfEdit {
    pub display_name: Option<String>,
    pub locale: Option<String>,
    pub time_zone: Option<String>,
}

/// The version of a user for `If-Match`.
pub(crate) fn version(user: &User) -> i64 {
    user.updated_at.timestamp_micros()
}

/// Changes a user as an administrator. A changed address is not a verified one.
pub(crate) async fn edit(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    expected: Option<i64>,
    wish: Edit,
) -> Result<Found> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let before = life::locked(&unit, id).await?;
    if expected.is_some_and(|e| e != version(&before)) {
        return Err(reason::VERSION_MISMATCH.into());
    }
    let mut user = before.clone();
    let mut faults = Vec::new();
    names(&mut user, &wish, &mut faults);
    wish.profile.apply(&mut user, &mut faults);
    user.must_change_password = wish
        .must_change_password
        .unwrap_or(user.must_change_password);
    user.legal_hold = wish.legal_hold.unwrap_or(user.legal_hold);
    let nameless = user.username.is_none() && user.email.is_none() && user.phone.is_none();
    if faults.is_empty() && nameless && !store::users::is_linked(&unit.tx, user.id).await? {
        let message = "a user name, an e-mail address or a phone number is needed";
        faults.push(FieldFault::new("username", "required", message));
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    finish(unit, &before, user).await
}

/// Changes the profile of the user who calls.
pub(crate) async fn edit_self(
    core: &Arc<Core>,
    cx: &Context,
    expected: Option<i64>,
    wish: SelfEdit,
) -> Result<Found> {
    let id = need_user(cx)?;
    let unit = Unit::begin(core, cx).await?;
    let before = store::users::lock(&unit.tx, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    if expected.is_some_and(|e| e != version(&before)) {
        return Err(reason::VERSION_MISMATCH.into());
    }
    let mut user = before.clone();
    let mut faults = Vec::new();
    wish.apply(&mut user, &mut faults);
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    finish(unit, &before, user).await
}

async fn finish(unit: Unit, before: &User, mut user: User) -> Result<Found> {
    if user == *before {
        return found_in(&unit, user).await;
    }
    user.updated_at = unit.now();
    save(&unit, &user).await?;
    let changes = [
        (
            "username",
            text(before.username.as_deref()),
            text(user.username.as_deref()),
        ),
        ("email", email_shown(before), email_shown(&user)),
        ("phone", phone_shown(before), phone_shown(&user)),
        (
            "display_name",
            text(Some(&before.display_name)),
            text(Some(&user.display_name)),
        ),
        (
            "locale",
            text(Some(&before.locale)),
            text(Some(&user.locale)),
        ),
        (
            "time_zone",
            text(Some(&before.time_zone)),
            text(Some(&user.time_zone)),
        ),
        (
            "must_change_password",
            Some(before.must_change_password.into()),
            Some(user.must_change_password.into()),
        ),
        (
            "legal_hold",
            Some(before.legal_hold.into()),
            Some(user.legal_hold.into()),
        ),
    ];
    let changed = [
        before.username != user.username,
        before.email != user.email,
        before.phone != user.phone,
        before.display_name != user.display_name,
        before.locale != user.locale,
        before.time_zone != user.time_zone,
        before.must_change_password != user.must_change_password,
        before.legal_hold != user.legal_hold,
    ];
    let mut record = record("identity.user.updated", &user);
    for ((path, old, new), _) in changes.into_iter().zip(changed).filter(|(_, c)| *c) {
        record = record.change(path, old, new);
    }
    unit.audit(record).await?;
    publish(&unit, "identity.user.updated", &user)?;
    let found = found_in(&unit, user).await?;
    unit.commit().await?;
    Ok(found)
}

fn names(user: &mut User, wish: &Edit, faults: &mut Vec<FieldFault>) {
    if let Some(name) = &wish.username {
        user.username = kept(name.as_deref().map(check_username), faults);
    }
    if let Some(address) = &wish.email {
        let address = kept(address.as_deref().map(check_email), faults);
        if address.as_deref().map(email_key) != user.email.as_deref().map(email_key) {
            user.email_verified_at = None;
        }
        user.email = address;
    }
    if let Some(number) = &wish.phone {
        let number = kept(
            number.as_deref().map(|n| check_phone(n, Country::CN)),
            faults,
        );
        let number = number.map(|n| n.into_string());
        if number != user.phone {
            user.phone_verified_at = None;
        }
        user.phone = number;
    }
}

impl SelfEdit {
    fn apply(self, user: &mut User, faults: &mut Vec<FieldFault>) {
        if let Some(name) = self.display_name {
            user.display_name = name.trim().to_owned();
            faults.extend(profile::display_name_fault(&user.display_name));
        }
        if let Some(locale) = self.locale {
            faults.extend(profile::locale_fault(&locale));
            user.locale = locale;
        }
        if let Some(zone) = self.time_zone {
            faults.extend(profile::time_zone_fault(&zone));
            user.time_zone = zone;
        }
    }
}

fn text(text: Option<&str>) -> Option<Value> {
    text.map(Value::from)
}
