//! The second factor of the house: codes of an app. Who must have one, setting it up, and removing it (ID-75, ID-76, ID-79).

use std::sync::Arc;

use portico_base::{Context, Secret, Timestamp};
use portico_contract::audit::Record;
use portico_db::sea_orm::ConnectionTrait;
use serde_json::json;
use uuid::Uuid;

use super::factors::{self, Shown, Verdict};
use super::{
    login, need, need_person, need_user, one_time, recovery, roles, scope, step_up, tickets, users,
};
use crate::domain::factor;
use crate::domain::login::{LoginResult, LoginStatus, Proof};
use crate::domain::role::Role;
use crate::domain::user::{User, UserStatus};
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::permissions::USER_WRITE;
use crate::settings::mfa;
use crate::store;
use crate::unit::Unit;

/// What a login still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Factor {
    /// Nothing.
    None,
    /// The user has a second factor and shows it.
    Verify,
    /// The user must set one up first.
    Enrol,
}

/// A factor that is being set up.
#[derive(Debug)]
pub(crate) struct Enrolment {
    /// Base32, for people who cannot scan.
    pub secret: Secret<String>,
    /// `otpauth://…`
    pub uri: Secret<String>,
    /// The same as an image.
    pub qr_svg: Secret<String>,
}

/// The factor as its user sees it.
#[derive(Debug)]
pub(crate) struct Status {
    pub confirmed_at: Option<Timestamp>,
    pub locked_until: Option<Timestamp>,
    pub recovery_codes_left: usize,
    /// The user may not be without one.
    pub required: bool,
}

/// What a user with these roles must show after the first factor (ID-76). A message to a phone does not
/// count as a second one.
pub(crate) async fn required(
    core: &Core,
    conn: &impl ConnectionTrait,
    user: &User,
    roles: &[Role],
) -> Result<Factor> {
    let totp = store::factors::get(conn, user.id).await?;
    if totp.is_some_and(|t| t.confirmed().is_some()) {
        return Ok(Factor::Verify);
    }
    let must = must_have(core, user, roles);
    Ok(if must { Factor::Enrol } else { Factor::None })
}

/// A login that waits for the second factor, or for its set-up: the ticket is in the unit, which the caller
/// commits.
pub(crate) async fn ticket(unit: &Unit, proof: &Proof, factor: Factor) -> Result<LoginResult> {
    let (kind, status) = match factor {
        Factor::Enrol => (tickets::ENROL, LoginStatus::EnrolRequired),
        _ => (tickets::MFA, LoginStatus::MfaRequired),
    };
    let ticket = tickets::issue(
        &unit.core,
        &unit.cx,
        &unit.tx,
        kind,
        proof,
        one_time::TICKET,
    )
    .await?;
    let mut result = LoginResult::step(status, ticket);
    result.methods = match factor {
        Factor::Enrol => vec!["totp".to_owned()],
        _ => factors::methods(&unit.tx, proof.user.id).await?,
    };
    Ok(result)
}

/// Goes on with a login whose second factor is shown now. A wrong code leaves the ticket as it is: the
/// factor counts them.
pub(crate) async fn finish_login(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    device_id: Option<&str>,
    shown: &Shown,
) -> Result<LoginResult> {
    let unit = Unit::begin_durable(core, cx).await?;
    let kind = tickets::MFA;
    let waiting = tickets::peek(core, cx, &unit.tx, kind, ticket, device_id).await?;
    let verdict = factors::check(&unit, &waiting.user, shown).await?;
    if let Some(fault) = verdict.fault() {
        unit.commit().await?;
        return Err(fault);
    }
    let proof = tickets::take(core, cx, &unit.tx, kind, ticket, device_id).await?;
    unit.commit().await?;
    login::finish(core, cx, strengthened(proof)).await
}

/// Begins to set up a factor that a login asks for.
pub(crate) async fn begin_at_login(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    device_id: Option<&str>,
) -> Result<Enrolment> {
    let unit = Unit::begin_durable(core, cx).await?;
    let proof = tickets::peek(core, cx, &unit.tx, tickets::ENROL, ticket, device_id).await?;
    let enrolment = begin_for(&unit, &proof.user).await?;
    unit.commit().await?;
    Ok(enrolment)
}

/// Ends setting it up, and the login with it. The recovery codes are shown this once.
pub(crate) async fn confirm_at_login(
    core: &Arc<Core>,
    cx: &Context,
    ticket: &Secret<String>,
    device_id: Option<&str>,
    code: &Secret<String>,
) -> Result<LoginResult> {
    let unit = Unit::begin_durable(core, cx).await?;
    let kind = tickets::ENROL;
    let waiting = tickets::peek(core, cx, &unit.tx, kind, ticket, device_id).await?;
    let codes = match confirm_for(&unit, &waiting.user, code).await? {
        Ok(codes) => codes,
        Err(verdict) => return refuse(unit, verdict).await,
    };
    let proof = tickets::take(core, cx, &unit.tx, kind, ticket, device_id).await?;
    unit.commit().await?;
    let mut result = login::finish(core, cx, strengthened(proof)).await?;
    result.recovery_codes = codes;
    Ok(result)
}

/// Begins to set up the caller's factor: whoever found an open session must not be able to.
pub(crate) async fn begin(core: &Arc<Core>, cx: &Context) -> Result<Enrolment> {
    let user = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = active(&unit, cx.tenant(), user).await?;
    let enrolment = begin_for(&unit, &user).await?;
    unit.commit().await?;
    Ok(enrolment)
}

/// Ends setting it up: the present code shows that the app has the secret. The session has two factors from
/// its next refresh on. The recovery codes are shown this once.
pub(crate) async fn confirm(
    core: &Arc<Core>,
    cx: &Context,
    code: &Secret<String>,
) -> Result<Vec<Secret<String>>> {
    let user = need_user(cx)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = active(&unit, cx.tenant(), user).await?;
    let codes = match confirm_for(&unit, &user, code).await? {
        Ok(codes) => codes,
        Err(verdict) => return refuse(unit, verdict).await,
    };
    step_up::raise(&unit, Some("otp")).await?;
    unit.commit().await?;
    Ok(codes)
}

/// The caller's factor.
pub(crate) async fn status(core: &Arc<Core>, cx: &Context) -> Result<Status> {
    let id = need_user(cx)?;
    let conn = core.db.reader();
    let user = store::users::get(conn, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let roles = store::roles::of_user(conn, id).await?;
    let totp = store::factors::get(conn, id).await?;
    let codes = store::factors::codes(conn, id).await?;
    let now = cx.now();
    Ok(Status {
        confirmed_at: totp.as_ref().and_then(|t| t.confirmed_at),
        locked_until: totp
            .and_then(|t| t.tries.locked_until)
            .filter(|until| *until > now),
        recovery_codes_left: codes.len(),
        required: must_have(core, &user, &roles),
    })
}

/// Removes the caller's factor (aal2 and fresh, which the route asks for).
pub(crate) async fn remove(core: &Arc<Core>, cx: &Context) -> Result<()> {
    let id = need_user(cx)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = active(&unit, cx.tenant(), id).await?;
    if !store::factors::remove(&unit.tx, id).await? {
        return Err(reason::FACTOR_MISSING.into());
    }
    unit.audit(record("identity.factor.removed", &user)).await?;
    publish(&unit, "identity.factor.removed", &user, "own")?;
    let notice = Notice::FactorRemoved { factor: "totp" };
    core.notices.send(&unit, &user, notice).await?;
    unit.commit().await
}

/// Removes the factors of another user, who is logged out everywhere (ID-79).
pub(crate) async fn reset(
    core: &Arc<Core>,
    cx: &Context,
    id: Uuid,
    why: Option<String>,
) -> Result<()> {
    need(cx, USER_WRITE)?;
    need_person(cx)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = scope::user_to_change(&unit.tx, cx, id).await?;
    store::factors::remove(&unit.tx, id).await?;
    users::end_access(&unit, &user, "factors_reset").await?;
    unit.audit(Record {
        reason: why,
        ..record("identity.factor.reset", &user)
    })
    .await?;
    publish(&unit, "identity.factor.removed", &user, "reset")?;
    core.notices
        .send(&unit, &user, Notice::FactorsReset)
        .await?;
    unit.commit().await
}

fn must_have(core: &Core, user: &User, held: &[Role]) -> bool {
    let required = |key| core.settings.get(user.tenant, key) == "required";
    required(&mfa::USERS) || (required(&mfa::ADMIN) && roles::is_admin(core, held))
}

async fn begin_for(unit: &Unit, user: &User) -> Result<Enrolment> {
    let secret = factor::new_secret(&*unit.core.random);
    let row = user.id.to_string();
    let envelope = unit
        .core
        .keys
        .seal(factors::place(&row), secret.expose(), &*unit.core.random);
    if !store::factors::begin(&unit.tx, user.id, &envelope).await? {
        return Err(reason::FACTOR_EXISTS.into());
    }
    unit.audit(record("identity.factor.begun", user)).await?;
    let tenant = store::tenants::get(&unit.tx, user.tenant)
        .await?
        .ok_or(reason::TENANT_NOT_FOUND)?;
    let uri = factor::otpauth(&tenant.display_name, account(user), secret.expose());
    let qr_svg = factor::qr_svg(uri.expose()).ok_or_else(|| {
        crate::error::Error::Internal("the address of a factor is too long for a code".to_owned())
    })?;
    Ok(Enrolment {
        secret: factor::base32(secret.expose()),
        qr_svg: Secret::new(qr_svg),
        uri,
    })
}

/// The recovery codes; or why the code is not good, which the caller commits and tells.
async fn confirm_for(
    unit: &Unit,
    user: &User,
    code: &Secret<String>,
) -> Result<std::result::Result<Vec<Secret<String>>, Verdict>> {
    let verdict = factors::check_first(unit, user, code).await?;
    if verdict != Verdict::Right {
        return Ok(Err(verdict));
    }
    store::factors::confirm(&unit.tx, user.id, unit.now()).await?;
    let codes = recovery::replace(unit, user.id).await?;
    unit.audit(record("identity.factor.added", user)).await?;
    publish(unit, "identity.factor.added", user, "own")?;
    let notice = Notice::FactorAdded { factor: "totp" };
    unit.core.notices.send(unit, user, notice).await?;
    Ok(Ok(codes))
}

async fn refuse<T>(unit: Unit, verdict: Verdict) -> Result<T> {
    unit.commit().await?;
    Err(verdict.fault().unwrap_or(reason::OTP_INVALID.into()))
}

async fn active(unit: &Unit, tenant: Uuid, user: Uuid) -> Result<User> {
    let user = store::users::get(&unit.tx, tenant, user).await?;
    user.filter(|u| u.status != UserStatus::Deleted)
        .ok_or_else(|| reason::USER_NOT_FOUND.into())
}

fn strengthened(mut proof: Proof) -> Proof {
    proof.aal = 2;
    if !proof.amr.iter().any(|have| have == "otp") {
        proof.amr.push("otp".to_owned());
    }
    proof
}

/// How the account is called in the app.
fn account(user: &User) -> &str {
    [&user.username, &user.email, &user.phone]
        .into_iter()
        .find_map(|name| name.as_deref())
        .unwrap_or(&user.display_name)
}

pub(super) fn record(action: &'static str, user: &User) -> Record {
    Record::done(action, "user", user.id.to_string(), user.tenant).change(
        "factor",
        None,
        Some("totp".into()),
    )
}

/// `by` is `own`, or `reset` when an administrator did it, which alerts.
fn publish(unit: &Unit, topic: &str, user: &User, by: &str) -> Result<()> {
    let payload = json!({
        "user_id": user.id,
        "tenant_id": user.tenant,
        "factor": "totp",
        "by": by,
        "actor": &*unit.cx.principal().subject,
        "severity": if by == "reset" { "high" } else { "info" },
    });
    unit.publish(topic, &user.id.to_string(), &payload)
}
