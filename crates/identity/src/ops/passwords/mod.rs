//! Passwords: logging in with one, changing it, setting it for somebody (ID-40…45).

mod change;
mod login;
mod reset;

pub(crate) use change::{
    AdminReset, Change, change_own, change_with_ticket, confirm, issue_link, reset_by_admin,
};
pub(crate) use login::{PasswordLogin, login};
pub(crate) use reset::{ResetWish, Sent, confirm_reset, handler, request_reset};

use portico_base::Secret;
use uuid::Uuid;

use super::{guard, one_time, sessions, tickets};
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::passwords::policy::{Known, Rules};
use crate::settings::password as keys;
use crate::store;
use crate::store::revocations::Kind;
use crate::store::secrets::Secrets;
use crate::unit::Unit;

/// Link or code for a new password.
pub(crate) const RESET: one_time::Kind = one_time::Kind("password.reset");

/// Judges a password for a user, present or to be, and hashes it: nothing is stored that was not judged.
///
/// # Errors
/// All faults of the password, as faults of `field`.
pub(crate) async fn judged_hash(
    core: &Core,
    user: &User,
    admin: bool,
    field: &'static str,
    password: &Secret<String>,
) -> Result<Secret<String>> {
    check_policy(core, user, admin, field, password).await?;
    core.passwords
        .hash(password, core.settings.system(&keys::ARGON2))
        .await
}

/// Judges a password for a user, present or to be (ID-43).
///
/// # Errors
/// All faults of the password, as faults of `field`.
pub(crate) async fn check_policy(
    core: &Core,
    user: &User,
    admin: bool,
    field: &'static str,
    password: &Secret<String>,
) -> Result<()> {
    let min_length = if admin {
        &keys::ADMIN_MIN_LENGTH
    } else {
        &keys::MIN_LENGTH
    };
    let rules = Rules {
        min_length: core.settings.get(user.tenant, min_length),
        min_score: core.settings.get(user.tenant, &keys::MIN_ZXCVBN),
    };
    let tenant = core.edge.tenant(user.tenant);
    let known = Known::new()
        .name(user.username.as_deref())
        .name(Some(&user.display_name))
        .name(tenant.as_ref().map(|t| &*t.slug))
        .name(tenant.as_ref().map(|t| &*t.display_name))
        .email(user.email.as_deref())
        .phone(user.phone.as_deref());
    let faults = core.passwords.judge(field, password, rules, known).await?;
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(faults))
    }
}

/// Whose sessions outlive a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nobody,
    /// The session that changes it.
    One(Uuid),
    /// The user asked for it.
    All,
}

/// Puts a new password into force within the unit: every access token of the user is stale, sessions end,
/// links for a reset and waits are forgotten, the user is told. The raised row is the lock that a login waits
/// for, so it comes first.
pub(crate) async fn set(unit: &Unit, user: &User, phc: Secret<String>, keep: Keep) -> Result<User> {
    // Whoever keeps a session refreshes silently; everybody else is told that the session has ended.
    let cause = if keep == Keep::Nobody {
        "password_changed"
    } else {
        "claims"
    };
    raise(unit, user, cause).await?;
    let mut user = store::users::get(&unit.tx, user.tenant, user.id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    user.must_change_password = false;
    user.updated_at = unit.now();
    store::users::put(&unit.tx, &user).await?;
    let secrets = Secrets {
        password: Some(phc),
        password_changed_at: Some(unit.now()),
        ..Secrets::none(user.id)
    };
    store::secrets::put(&unit.tx, &secrets).await?;
    let except = match keep {
        Keep::Nobody => Some(None),
        Keep::One(session) => Some(Some(session)),
        Keep::All => None,
    };
    if let Some(except) = except {
        sessions::end_all(unit, &user, except, "password_changed").await?;
    }
    // Whoever got as far as a ticket with the old password goes no further with it.
    let tickets = [
        tickets::MFA,
        tickets::ENROL,
        tickets::DEVICE,
        tickets::PASSWORD,
    ];
    for kind in tickets.iter().chain([&RESET]) {
        store::one_time::cancel(&unit.tx, kind.0, user.id, unit.now()).await?;
    }
    guard::forget(unit, &user).await?;
    unit.core
        .notices
        .send(unit, &user, Notice::PasswordChanged)
        .await?;
    Ok(user)
}

/// Makes every access token of a user stale.
async fn raise(unit: &Unit, user: &User, cause: &str) -> Result<()> {
    let tv = store::users::raise(&unit.tx, user.tenant, user.id, unit.now()).await?;
    let tv = tv.ok_or(reason::USER_NOT_FOUND)?;
    unit.revoke(Kind::User, user.tenant, &user.id.to_string(), tv, cause)
        .await
}
