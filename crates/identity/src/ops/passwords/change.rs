//! A new password: by its owner, by somebody who must have one before anything else, by an administrator (ID-44, ID-45).

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Access, Context, Secret, Timestamp};
use portico_contract::audit::Record;
use uuid::Uuid;

use super::{Keep, RESET, judged_hash, set};
use crate::domain::login::LoginResult;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::{Notice, Way};
use crate::ops::guard::{self, Whose};
use crate::ops::one_time::{self, Holder};
use crate::ops::{
    login, need, need_person, need_user, roles, scope, sessions, step_up, tickets, users,
};
use crate::pages;
use crate::passwords::Verdict;
use crate::permissions::USER_WRITE;
use crate::settings::password as keys;
use crate::store;
use crate::store::secrets::Secrets;
use crate::unit::Unit;

/// Life of a link for a new password (ID-140).
pub(super) const LINK_LIFE: Duration = Duration::minutes(30);
/// Letters and digits that nobody mistakes for one another.
const PLAIN: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789x";
/// Characters of a password that an administrator hands over: 5 bits each, in groups of four.
const TEMPORARY: usize = 20;

/// What a user wishes.
#[derive(Debug)]
pub(crate) struct Change {
    /// Without it a fresh session with two factors is needed.
    pub old: Option<Secret<String>>,
    pub new: Secret<String>,
    /// Other sessions go on.
    pub keep_sessions: bool,
}

/// Compares the password of a user who is logged in; wrong ones count against the user.
///
/// # Errors
/// 401 when it is wrong, 429 after too many.
pub(crate) async fn confirm(
    core: &Arc<Core>,
    cx: &Context,
    user: &User,
    password: &Secret<String>,
) -> Result<()> {
    let conn = core.db.reader();
    let attempt = guard::begin(core, conn, cx, Whose::User(user.id)).await?;
    let secrets = store::secrets::get(conn, user.id).await?;
    let cost = core.settings.system(&keys::ARGON2);
    let stored = secrets.password.as_ref();
    if core.passwords.verify(stored, password, cost).await? == Verdict::Wrong {
        let unit = Unit::begin(core, cx).await?;
        attempt.failed(&unit).await?;
        let code = reason::INVALID_CREDENTIALS.code;
        unit.audit(guard::login_failed(user.tenant, Some(user.id), code))
            .await?;
        unit.commit().await?;
        return Err(reason::INVALID_CREDENTIALS.into());
    }
    attempt.succeeded(core).await
}

/// Changes the caller's own password; other sessions end unless they are to be kept.
pub(crate) async fn change_own(core: &Arc<Core>, cx: &Context, wish: Change) -> Result<()> {
    let id = need_user(cx)?;
    let user = store::users::get(core.db.reader(), cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    match &wish.old {
        Some(old) => confirm(core, cx, &user, old).await?,
        None => need_strong(core, cx, &user).await?,
    }
    let phc = new_hash(core, &user, "new_password", &wish.new).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let keep = match sessions::session_of(cx.principal()) {
        _ if wish.keep_sessions => Keep::All,
        Some(session) => Keep::One(session),
        None => Keep::Nobody,
    };
    let user = set(&unit, &user, phc, keep).await?;
    unit.audit(users::record("identity.user.password_changed", &user))
        .await?;
    users::publish(&unit, "identity.user.updated", &user)?;
    unit.commit().await
}

/// Sets the new password that a login asked for, and finishes the login.
pub(crate) async fn change_with_ticket(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    device_id: Option<&str>,
    new: &Secret<String>,
) -> Result<LoginResult> {
    core.limits.check_address(Limit::Password, cx)?;
    let conn = core.db.reader();
    let seen = tickets::peek(core, cx, conn, tickets::PASSWORD, ticket, device_id).await?;
    let phc = new_hash(core, &seen.user, "new_password", new).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let mut proof = tickets::take(core, cx, &unit.tx, tickets::PASSWORD, ticket, device_id).await?;
    proof.user = set(&unit, &proof.user, phc, Keep::Nobody).await?;
    let record = users::record("identity.user.password_changed", &proof.user);
    unit.audit(record).await?;
    unit.commit().await?;
    Box::pin(login::finish(core, cx, proof)).await
}

/// How an administrator lets somebody have a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdminReset {
    /// A link for the administrator to hand over.
    Link,
    /// The same by mail; nobody else sees it.
    Mail,
    /// The present password opens nothing but the way to a new one.
    RequireChange,
    /// A password for one login.
    Temporary,
}

/// What the administrator is handed, once.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub link: Option<String>,
    pub password: Option<Secret<String>>,
    pub expires_at: Option<Timestamp>,
}

/// Lets a user have a new password.
pub(crate) async fn reset_by_admin(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    how: AdminReset,
) -> Result<Handed> {
    need(cx, USER_WRITE)?;
    need_person(cx)?;
    // Hashed before the transaction, which must not wait for the pool.
    let temporary = match how {
        AdminReset::Temporary => Some(temporary(core).await?),
        _ => None,
    };
    let unit = Unit::begin_durable(core, cx).await?;
    let mut user = scope::user_to_change(&unit.tx, cx, id).await?;
    let mut handed = Handed::default();
    match how {
        AdminReset::Link => {
            let (token, ends) = issue_link(&unit, &user, LINK_LIFE).await?;
            handed.link = Some(core.links.with_token(pages::RESET, &token));
            handed.expires_at = Some(ends);
        }
        AdminReset::Mail => {
            let (token, ends) = issue_link(&unit, &user, LINK_LIFE).await?;
            let notice = Notice::ResetLink { token };
            if core.notices.send(&unit, &user, notice).await? == Way::None {
                return Err(reason::MAIL_OFF.into());
            }
            handed.expires_at = Some(ends);
        }
        AdminReset::RequireChange | AdminReset::Temporary => {
            user.must_change_password = true;
            user.updated_at = unit.now();
            store::users::put(&unit.tx, &user).await?;
            users::end_access(&unit, &user, "password_reset").await?;
        }
    }
    if let Some((password, phc)) = temporary {
        let secrets = Secrets {
            password: Some(phc),
            password_changed_at: Some(unit.now()),
            ..Secrets::none(user.id)
        };
        store::secrets::put(&unit.tx, &secrets).await?;
        guard::forget(&unit, &user).await?;
        handed.password = Some(password);
    }
    let how = match how {
        AdminReset::Link => "link",
        AdminReset::Mail => "mail",
        AdminReset::RequireChange => "require_change",
        AdminReset::Temporary => "temporary",
    };
    let record: Record = users::record("identity.user.password_reset", &user);
    unit.audit(record.change("how", None, Some(how.into())))
        .await?;
    users::publish(&unit, "identity.user.updated", &user)?;
    unit.commit().await?;
    Ok(handed)
}

/// Makes the token of a link for a new password within the unit; earlier links of the user stop working.
pub(crate) async fn issue_link(
    unit: &Unit,
    user: &User,
    life: Duration,
) -> Result<(Secret<String>, Timestamp)> {
    store::one_time::cancel(&unit.tx, RESET.0, user.id, unit.now()).await?;
    let holder = Holder {
        tenant: Some(user.tenant),
        user: Some(user.id),
    };
    one_time::issue(&unit.core, &unit.tx, RESET, holder, &(), life).await
}

/// The hash of a new password that keeps the rules and is another one than before.
pub(super) async fn new_hash(
    core: &Arc<Core>,
    user: &User,
    field: &'static str,
    new: &Secret<String>,
) -> Result<Secret<String>> {
    let conn = core.db.reader();
    let held = store::roles::of_user(conn, user.id).await?;
    let admin = roles::is_admin(core, &held);
    let phc = judged_hash(core, user, admin, field, new).await?;
    let before = store::secrets::get(conn, user.id).await?.password;
    if let Some(before) = &before {
        let cost = core.settings.system(&keys::ARGON2);
        if core.passwords.verify(Some(before), new, cost).await? != Verdict::Wrong {
            return Err(Error::field(
                field,
                "password_unchanged",
                "is the present one",
            ));
        }
    }
    Ok(phc)
}

/// Whoever does not know the old password has shown a second factor just now. Who has no password yet cannot
/// know it, and needs a fresh session only.
async fn need_strong(core: &Arc<Core>, cx: &Context, user: &User) -> Result<()> {
    let secrets = store::secrets::get(core.db.reader(), user.id).await?;
    if secrets.password.is_some() {
        cx.authorise(&Access::Authenticated.aal2())?;
    }
    step_up::need_fresh(core, cx).await
}

async fn temporary(core: &Core) -> Result<(Secret<String>, Secret<String>)> {
    let mut bytes = [0; TEMPORARY];
    core.random.fill(&mut bytes);
    let mut text = String::with_capacity(TEMPORARY + TEMPORARY / 4);
    for (at, byte) in bytes.into_iter().enumerate() {
        if at > 0 && at % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(PLAIN[usize::from(byte % 32)]));
    }
    let password = Secret::new(text);
    let cost = core.settings.system(&keys::ARGON2);
    let phc = core.passwords.hash(&password, cost).await?;
    Ok((password, phc))
}
