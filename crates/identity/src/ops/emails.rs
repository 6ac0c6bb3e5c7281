//! E-mail addresses: verified before they count, told to the old one when they change, and changed back by its link (ID-140, ID-142).

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, Secret};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::one_time::{self, Holder, Kind, Taken};
use super::{need_user, register, step_up, users};
use crate::domain::contact::{Identifier, check_email, email_key, masked_email, masked_phone};
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::{Notice, Recipient};
use crate::store;
use crate::store::secrets::Secrets;
use crate::unit::Unit;

/// Link to a page that confirms an address.
pub(super) const VERIFY: Kind = Kind("email.verify");
/// Link to a page that takes a change back.
pub(super) const UNDO: Kind = Kind("contact.undo");
/// Life of a link that verifies (ID-140).
pub(super) const VERIFY_LIFE: Duration = Duration::hours(24);
/// Life of a link that takes a change back (ID-142).
pub(super) const UNDO_LIFE: Duration = Duration::hours(72);

/// What a verified address is for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Purpose {
    /// A user is made with it.
    Register(register::Waiting),
    /// It becomes the address of the token's user.
    Change { email: String },
}

/// What a change is taken back to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Before {
    pub email: Option<String>,
    pub phone: Option<String>,
}

/// Begins a change: the new address gets a link. Whether somebody else has it is told to its owner only.
pub(crate) async fn change(core: &Arc<Core>, cx: &Context, address: &str) -> Result<()> {
    let id = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let email = check_email(address).map_err(|fault| Error::Invalid(vec![fault]))?;
    if !core.mail_on(cx.tenant()) {
        return Err(reason::MAIL_OFF.into());
    }
    core.limits.check_address(Limit::ResetAddress, cx)?;
    core.limits
        .check(Limit::ResetAccount, &format!("email|{id}"))?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let same = user.email.as_deref().map(email_key) == Some(email_key(&email));
    if same && user.email_verified_at.is_some() {
        return Err(Error::field("email", "unchanged", "is the present one"));
    }
    let taken = Identifier::Email(email_key(&email));
    let owner = store::users::find(&unit.tx, user.tenant, &taken)
        .await?
        .filter(|owner| owner.id != user.id);
    store::one_time::cancel(&unit.tx, VERIFY.0, user.id, unit.now()).await?;
    let purpose = Purpose::Change {
        email: email.clone(),
    };
    let (token, _) =
        one_time::issue(core, &unit.tx, VERIFY, holder(&user), &purpose, VERIFY_LIFE).await?;
    let notice = match owner {
        Some(_) => Notice::AlreadyRegistered,
        None => Notice::VerifyEmail { token },
    };
    let to = Recipient::of(owner.as_ref().unwrap_or(&user), &email);
    core.notices.send_to(&unit, &to, notice).await?;
    let record = users::record("identity.user.email_change_asked", &user);
    unit.audit(record.change("email", None, Some(masked_email(&email).into())))
        .await?;
    unit.commit().await
}

/// Takes a verified address into use. `own` is the user who must be the one that asked for it.
pub(crate) async fn verify(
    core: &Arc<Core>,
    cx: &Context,
    token: &Secret<String>,
    own: Option<Uuid>,
) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    let taken: Taken<Purpose> =
        one_time::take(core, &unit.tx, VERIFY, token, reason::TOKEN_USED).await?;
    if own.is_some() && own != taken.user {
        return Err(reason::TOKEN_USED.into());
    }
    let tenant = taken.tenant.ok_or(reason::TOKEN_USED)?;
    match taken.payload {
        Purpose::Register(waiting) => register::verified(&unit, tenant, waiting).await?,
        Purpose::Change { email } => {
            let user = taken.user.ok_or(reason::TOKEN_USED)?;
            changed(&unit, tenant, user, email).await?;
        }
    }
    unit.commit().await
}

async fn changed(unit: &Unit, tenant: Uuid, user: Uuid, email: String) -> Result<()> {
    let before = live(unit, tenant, user).await?;
    let mut user = before.clone();
    user.email = Some(email);
    user.email_verified_at = Some(unit.now());
    user.updated_at = unit.now();
    users::save(unit, &user).await?;
    // A link for a new password that went to the old address opens nothing any more.
    store::one_time::cancel(&unit.tx, super::passwords::RESET.0, user.id, unit.now()).await?;
    if let Some(old) = before
        .email
        .as_deref()
        .filter(|_| before.email_verified_at.is_some())
    {
        let undo = Before {
            email: Some(old.to_owned()),
            phone: None,
        };
        let core = &unit.core;
        let (undo, _) =
            one_time::issue(core, &unit.tx, UNDO, holder(&user), &undo, UNDO_LIFE).await?;
        let to = Recipient::of(&before, old);
        core.notices
            .send_to(unit, &to, Notice::EmailChanged { undo })
            .await?;
    }
    let shown = |user: &User| user.email.as_deref().map(|a| masked_email(a).into());
    let record = users::record("identity.user.email_changed", &user);
    unit.audit(record.change("email", shown(&before), shown(&user)))
        .await?;
    users::publish(unit, "identity.user.updated", &user)
}

/// Takes a change of an address or a number back: the old one holds again, all sessions end, and the way to a
/// new password goes to the old address.
pub(crate) async fn undo(core: &Arc<Core>, cx: &Context, token: &Secret<String>) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    let taken: Taken<Before> =
        one_time::take(core, &unit.tx, UNDO, token, reason::TOKEN_USED).await?;
    let (Some(tenant), Some(user)) = (taken.tenant, taken.user) else {
        return Err(reason::TOKEN_USED.into());
    };
    let mut user = live(&unit, tenant, user).await?;
    let before = user.clone();
    if let Some(email) = taken.payload.email {
        user.email = Some(email);
        user.email_verified_at = Some(unit.now());
    }
    if let Some(phone) = taken.payload.phone {
        user.phone = Some(phone);
        user.phone_verified_at = Some(unit.now());
    }
    user.updated_at = unit.now();
    users::save(&unit, &user).await?;
    // Whoever made the change may know the password, so it opens nothing any more.
    store::secrets::put(&unit.tx, &Secrets::none(user.id)).await?;
    // Whoever made the change holds links of the address that they changed it to.
    for kind in [UNDO, VERIFY, super::passwords::RESET] {
        store::one_time::cancel(&unit.tx, kind.0, user.id, unit.now()).await?;
    }
    users::end_access(&unit, &user, "change_undone").await?;
    let (reset, _) = super::passwords::issue_link(&unit, &user, VERIFY_LIFE).await?;
    core.notices
        .send(&unit, &user, Notice::ResetLink { token: reset })
        .await?;
    let mail = |user: &User| user.email.as_deref().map(|a| masked_email(a).into());
    let phone = |user: &User| user.phone.as_deref().map(|n| masked_phone(n).into());
    let record = users::record("identity.user.change_undone", &user)
        .change("email", mail(&before), mail(&user))
        .change("phone", phone(&before), phone(&user));
    unit.audit(record).await?;
    users::publish(&unit, "identity.user.updated", &user)?;
    unit.commit().await
}

async fn live(unit: &Unit, tenant: Uuid, user: Uuid) -> Result<User> {
    store::users::lock(&unit.tx, tenant, user)
        .await?
        .filter(|u| u.status != UserStatus::Deleted)
        .ok_or_else(|| reason::TOKEN_USED.into())
}

pub(super) fn holder(user: &User) -> Holder {
    Holder {
        tenant: Some(user.tenant),
        user: Some(user.id),
    }
}
