//! A forgotten password: a link by mail or a code by SMS; asking tells nobody whether there is such an account (ID-141).

use std::sync::Arc;
use std::time::Duration;

use portico_base::envelope::Place;
use portico_base::{Context, Secret};
use portico_jobs::{Failure, Handler, Job, JobRun};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::change::{LINK_LIFE, issue_link, new_hash};
use super::login::find;
use super::{Keep, RESET, check_policy, set};
use crate::domain::contact::{Country, Identifier};
use crate::domain::otp::Purpose;
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::Notice;
use crate::ops::login;
use crate::ops::one_time::{self, Taken};
use crate::ops::sms::{self, Verify};
use crate::ops::users;
use crate::store;
use crate::unit::Unit;

/// Looks for the account and writes the mail, after the answer: the answer takes as long for nobody.
const KIND: &str = "identity.password_reset";
/// A link that comes after an hour helps nobody.
const TRIES: u32 = 6;

/// Somebody who forgot a password.
#[derive(Debug)]
pub(crate) struct ResetWish {
    pub host: Option<String>,
    pub tenant: Option<String>,
    pub identifier: String,
}

/// What was typed, in the queue.
#[derive(Debug, Serialize, Deserialize)]
struct Queued {
    row: Uuid,
    /// Envelope of [`Asked`].
    sealed: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    tenant: Option<Uuid>,
    chosen: bool,
    identifier: String,
}

/// Takes a wish for a link.
pub(crate) async fn request_reset(core: &Arc<Core>, cx: &Context, wish: ResetWish) -> Result<()> {
    core.limits.check_address(Limit::ResetAddress, cx)?;
    let place = login::tenant_of(core, wish.host.as_deref(), wish.tenant.as_deref());
    if !core.mail_on(place.map_or(portico_base::id::TENANT_DEFAULT, |p| p.tenant)) {
        return Err(reason::MAIL_OFF.into());
    }
    let identifier: String = wish.identifier.trim().chars().take(320).collect();
    let tenant = wish.tenant.as_deref().unwrap_or_default();
    let account = core
        .limits
        .subject(&["reset", tenant, &identifier.to_lowercase()]);
    core.limits
        .check(Limit::ResetAccount, &hex::encode(account))?;
    let asked = Asked {
        tenant: place.map(|p| p.tenant),
        chosen: place.is_some_and(|p| p.chosen),
        identifier,
    };
    let plain = serde_json::to_vec(&asked).map_err(|e| Error::Internal(e.to_string()))?;
    let row = cx.new_id();
    let queued = Queued {
        row,
        sealed: core
            .keys
            .seal(place_of(&row.to_string()), &plain, &*core.random),
    };
    let unit = Unit::begin(core, cx).await?;
    let job = Job::new(KIND, &queued)?.max_tries(TRIES);
    portico_jobs::enqueue(&unit.tx, &unit.cx, job).await?;
    unit.commit().await
}

/// What sends the links.
pub(crate) fn handler(core: &Arc<Core>) -> Handler {
    let core = Arc::clone(core);
    Handler::new(KIND, move |job| {
        let core = Arc::clone(&core);
        async move { send(&core, &job).await }
    })
    .limit(Duration::from_secs(30))
}

async fn send(core: &Arc<Core>, job: &JobRun) -> std::result::Result<(), Failure> {
    let queued: Queued = job.payload()?;
    let plain = core
        .keys
        .open(place_of(&queued.row.to_string()), &queued.sealed)
        .map_err(Failure::dead)?;
    let asked: Asked = serde_json::from_slice(plain.expose()).map_err(Failure::dead)?;
    let place = asked.tenant.map(|tenant| login::Place {
        tenant,
        chosen: asked.chosen,
    });
    let identifier = Identifier::parse(&asked.identifier, Country::CN);
    let user = find(core, place, identifier.as_ref()).await?;
    let unit = Unit::begin_durable(core, &job.context).await?;
    if let Some(user) = user.filter(may_reset) {
        let (token, _) = issue_link(&unit, &user, LINK_LIFE).await?;
        core.notices
            .send(&unit, &user, Notice::ResetLink { token })
            .await?;
        unit.audit(users::record("identity.user.password_reset_asked", &user))
            .await?;
    }
    job.done(&unit.tx).await?;
    unit.commit().await?;
    Ok(())
}

/// What was sent to somebody who forgot a password.
#[derive(Debug)]
pub(crate) enum Sent {
    /// In a link.
    Token(Secret<String>),
    Code {
        host: Option<String>,
        tenant: Option<String>,
        transaction: Uuid,
        code: Secret<String>,
        /// As it was when the code was asked for.
        device: Option<String>,
    },
}

/// Puts the new password into force: all sessions end, a second factor stays and is still asked for.
pub(crate) async fn confirm_reset(
    core: &Arc<Core>,
    cx: &Context,
    sent: &Sent,
    password: &Secret<String>,
) -> Result<()> {
    match sent {
        Sent::Token(token) => with_token(core, cx, token, password).await,
        Sent::Code { .. } => with_code(core, cx, sent, password).await,
    }
}

async fn with_token(
    core: &Arc<Core>,
    cx: &Context,
    token: &Secret<String>,
    password: &Secret<String>,
) -> Result<()> {
    core.limits.check_address(Limit::Password, cx)?;
    let conn = core.db.reader();
    let seen: Taken<()> = one_time::peek(core, conn, RESET, token, reason::TOKEN_USED).await?;
    let user = holder(core, &seen).await?;
    let phc = new_hash(core, &user, "password", password).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let _used: Taken<()> = one_time::take(core, &unit.tx, RESET, token, reason::TOKEN_USED).await?;
    put(unit, &user, phc).await
}

/// The code proves the number and is used up by it, so what can be said about the password without knowing
/// its owner is said before.
async fn with_code(
    core: &Arc<Core>,
    cx: &Context,
    sent: &Sent,
    password: &Secret<String>,
) -> Result<()> {
    let Sent::Code {
        host,
        tenant,
        transaction,
        code,
        device,
    } = sent
    else {
        return Err(reason::OTP_EXPIRED.into());
    };
    core.limits.check_address(Limit::Otp, cx)?;
    let place = login::tenant_of(core, host.as_deref(), tenant.as_deref());
    let place = place.ok_or(reason::OTP_EXPIRED)?;
    let nobody = User::new(Uuid::nil(), place.tenant, cx.now());
    check_policy(core, &nobody, false, "password", password).await?;
    let shown = Verify {
        tenant: place.tenant,
        purpose: Purpose::Reset,
        transaction: *transaction,
        code,
        device: device.as_deref(),
        user: None,
    };
    let phone = sms::verify(core, cx, shown).await?.phone.into_string();
    let user = find(core, Some(place), Some(&Identifier::Phone(phone)))
        .await?
        .filter(may_reset)
        .ok_or(reason::OTP_EXPIRED)?;
    let phc = new_hash(core, &user, "password", password).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    put(unit, &user, phc).await
}

async fn put(unit: Unit, user: &User, phc: Secret<String>) -> Result<()> {
    let user = set(&unit, user, phc, Keep::Nobody).await?;
    if !may_reset(&user) {
        return Err(reason::TOKEN_USED.into());
    }
    finish(unit, &user).await
}

async fn finish(unit: Unit, user: &User) -> Result<()> {
    unit.audit(
        users::record("identity.user.password_changed", user).change(
            "how",
            None,
            Some("reset".into()),
        ),
    )
    .await?;
    users::publish(&unit, "identity.user.updated", user)?;
    unit.commit().await
}

async fn holder(core: &Core, taken: &Taken<()>) -> Result<User> {
    let (Some(tenant), Some(user)) = (taken.tenant, taken.user) else {
        return Err(reason::TOKEN_USED.into());
    };
    store::users::get(core.db.reader(), tenant, user)
        .await?
        .filter(may_reset)
        .ok_or_else(|| reason::TOKEN_USED.into())
}

fn may_reset(user: &User) -> bool {
    user.status == UserStatus::Active
}

const fn place_of(row: &str) -> Place<'_> {
    Place {
        table: "jobs",
        row,
        column: "payload",
    }
}
