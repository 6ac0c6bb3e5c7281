//! The number of one's own account: bound by a code, changed with news to the owner, given up (ID-84, ID-142).

use std::sync::Arc;

use portico_base::{Context, Secret};
use uuid::Uuid;

use super::send::{Delivery, Send, Sent, send};
use super::verify::{Verify, verify};
use crate::domain::contact::{Country, check_phone, masked_phone};
use crate::domain::otp::Purpose;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::Notice;
use crate::ops::emails::{self, Before};
use crate::ops::{need_user, one_time, step_up, users};
use crate::store;
use crate::unit::Unit;

/// Sends a code to a number that is to be one's own. Whether somebody has it already is told only to
/// whoever proves to have the number.
pub(crate) async fn begin(
    core: &Arc<Core>,
    cx: &Context,
    phone: &str,
    transaction: Option<Uuid>,
) -> Result<Sent> {
    let user = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let phone = check_phone(phone, Country::CN).map_err(|fault| Error::Invalid(vec![fault]))?;
    let row = own(core, cx, user).await?;
    let wish = Send {
        tenant: cx.tenant(),
        purpose: Purpose::Bind,
        phone,
        device: Some(session(cx)),
        user: Some(user),
        locale: row.locale,
        transaction,
        delivery: Delivery::Wait,
    };
    send(core, cx, wish).await
}

/// Binds the number whose code is shown.
pub(crate) async fn confirm(
    core: &Arc<Core>,
    cx: &Context,
    transaction: Uuid,
    code: &Secret<String>,
) -> Result<User> {
    let id = need_user(cx)?;
    core.limits.check_address(Limit::Otp, cx)?;
    let session = session(cx);
    let shown = Verify {
        tenant: cx.tenant(),
        purpose: Purpose::Bind,
        transaction,
        code,
        device: Some(&session),
        user: Some(id),
    };
    let phone = verify(core, cx, shown).await?.phone.into_string();
    let unit = Unit::begin_durable(core, cx).await?;
    let mut user = store::users::lock(&unit.tx, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let before = user.clone();
    user.phone = Some(phone);
    user.phone_verified_at = Some(unit.now());
    save(&unit, &before, &mut user).await?;
    unit.commit().await?;
    Ok(user)
}

/// Gives the number up, unless it is the last way to log in.
pub(crate) async fn remove(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let id = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut user = store::users::lock(&unit.tx, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    if user.phone.is_none() {
        return Err(reason::NOT_FOUND.into());
    }
    let named = user.username.is_some() || user.email.is_some();
    let password = named && store::secrets::get(&unit.tx, id).await?.password.is_some();
    if !password && !store::users::is_linked(&unit.tx, id).await? {
        return Err(reason::LAST_METHOD.into());
    }
    let before = user.clone();
    user.phone = None;
    user.phone_verified_at = None;
    save(&unit, &before, &mut user).await?;
    unit.commit().await
}

async fn save(unit: &Unit, before: &User, user: &mut User) -> Result<()> {
    user.updated_at = unit.now();
    users::save(unit, user).await?;
    record(unit, "identity.user.phone_changed", before, user).await?;
    let proved = before.phone_verified_at.is_some() && before.phone != user.phone;
    if let Some(old) = before.phone.as_ref().filter(|_| proved) {
        let back = Before {
            email: None,
            phone: Some(old.clone()),
        };
        let (core, holder) = (&unit.core, emails::holder(user));
        let (undo, _) = one_time::issue(
            core,
            &unit.tx,
            emails::UNDO,
            holder,
            &back,
            emails::UNDO_LIFE,
        )
        .await?;
        let notice = Notice::PhoneChanged { undo };
        core.notices.send_sms(unit, user, old, &notice).await?;
        // The link goes by mail only; the new number may be the thief's.
        let by_mail = User {
            phone: None,
            ..user.clone()
        };
        core.notices.send(unit, &by_mail, notice).await?;
    }
    Ok(())
}

async fn record(unit: &Unit, action: &'static str, before: &User, after: &User) -> Result<()> {
    let shown = |user: &User| user.phone.as_deref().map(|n| masked_phone(n).into());
    unit.audit(users::record(action, after).change("phone", shown(before), shown(after)))
        .await?;
    users::publish(unit, "identity.user.updated", after)
}

async fn own(core: &Core, cx: &Context, user: Uuid) -> Result<User> {
    let found = store::users::get(core.db.reader(), cx.tenant(), user).await?;
    found.ok_or_else(|| reason::USER_NOT_FOUND.into())
}

/// A code for the own account is good in the session that asked for it.
fn session(cx: &Context) -> String {
    cx.principal()
        .session
        .as_deref()
        .unwrap_or_default()
        .to_owned()
}
