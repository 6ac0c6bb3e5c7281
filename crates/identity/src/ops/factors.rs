//! Checking second factors: a code of the app, or a recovery code; wrong ones are counted and recorded (ID-78).

use chrono::Duration;
use portico_base::envelope::Place;
use portico_base::secret::constant_time_eq;
use portico_base::{Secret, Timestamp};
use portico_contract::audit::{Outcome, Record};
use portico_db::sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::domain::factor::{Tries, recovery_hash, step_of_code};
use crate::domain::user::User;
use crate::error::{Error, Reason, Result, reason};
use crate::settings::limit::{Rate, TOTP_PER_USER};
use crate::store;
use crate::store::factors::Totp;
use crate::unit::Unit;

/// Guessing is never free, not even where the setting is an empty list.
const RATE: Rate = Rate {
    count: 5,
    window_s: 900,
};

/// What somebody shows as a second factor.
#[derive(Debug)]
pub(crate) enum Shown {
    /// The present code of the app.
    Code(Secret<String>),
    Recovery(Secret<String>),
}

/// What came of it. The unit holds the consequences, and is committed in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    /// Not looked at: too many were wrong, for so many seconds more.
    Locked(u32),
}

impl Verdict {
    /// What the client is told when it is not right.
    pub(crate) fn fault(self) -> Option<Error> {
        match self {
            Self::Right => None,
            Self::Wrong => Some(reason::OTP_INVALID.into()),
            Self::Locked(seconds) => Some(Error::Later(reason::FACTOR_LOCKED, seconds)),
        }
    }
}

/// Ways that a user has: `totp`, `recovery_code`.
pub(crate) async fn methods(conn: &impl ConnectionTrait, user: Uuid) -> Result<Vec<String>> {
    let totp = store::factors::get(conn, user).await?;
    if totp.is_none_or(|t| t.confirmed().is_none()) {
        return Ok(Vec::new());
    }
    let mut methods = vec!["totp".to_owned()];
    if !store::factors::codes(conn, user).await?.is_empty() {
        methods.push("recovery_code".to_owned());
    }
    Ok(methods)
}

/// Looks at what a user shows, within a unit: nobody else tries a code of this user meanwhile.
pub(crate) async fn check(unit: &Unit, user: &User, shown: &Shown) -> Result<Verdict> {
    let Some(totp) = store::factors::lock(&unit.tx, user.id).await? else {
        return wrong(unit, user, None, reason::OTP_INVALID).await;
    };
    let locked = totp.tries.locked_s(unit.now());
    let right = match (shown, locked) {
        (Shown::Code(_), Some(seconds)) => {
            refused(unit, user, reason::FACTOR_LOCKED).await?;
            return Ok(Verdict::Locked(seconds));
        }
        (Shown::Code(code), None) => code_is_right(unit, user.id, &totp, code).await?,
        (Shown::Recovery(code), _) => recovery_is_right(unit, user.id, code).await?,
    };
    if !right || totp.confirmed().is_none() {
        return wrong(unit, user, Some(&totp), reason::OTP_INVALID).await;
    }
    store::factors::tried(&unit.tx, user.id, Tries::default()).await?;
    if let Shown::Recovery(_) = shown {
        unit.audit(Record::done(
            "identity.recovery_code.used",
            "user",
            user.id.to_string(),
            user.tenant,
        ))
        .await?;
    }
    Ok(Verdict::Right)
}

/// Looks at the first code of a factor that is being set up.
pub(super) async fn check_first(
    unit: &Unit,
    user: &User,
    code: &Secret<String>,
) -> Result<Verdict> {
    let totp = store::factors::lock(&unit.tx, user.id).await?;
    let Some(totp) = totp.filter(|t| t.secret.is_some()) else {
        return Err(reason::FACTOR_MISSING.into());
    };
    if totp.confirmed().is_some() {
        return Err(reason::FACTOR_EXISTS.into());
    }
    if let Some(seconds) = totp.tries.locked_s(unit.now()) {
        return Ok(Verdict::Locked(seconds));
    }
    if code_is_right(unit, user.id, &totp, code).await? {
        store::factors::tried(&unit.tx, user.id, Tries::default()).await?;
        Ok(Verdict::Right)
    } else {
        wrong(unit, user, Some(&totp), reason::OTP_INVALID).await
    }
}

/// Where the secret of a user is kept.
pub(super) fn place(row: &str) -> Place<'_> {
    Place {
        table: "user_secrets",
        row,
        column: "totp_secret",
    }
}

async fn code_is_right(
    unit: &Unit,
    user: Uuid,
    totp: &Totp,
    code: &Secret<String>,
) -> Result<bool> {
    let Some(envelope) = &totp.secret else {
        return Ok(false);
    };
    let secret = unit
        .core
        .keys
        .open(place(&user.to_string()), envelope)
        .map_err(|_| reason::SECRET_BROKEN)?;
    match step_of_code(secret.expose(), code.expose(), totp.last_step, unit.now()) {
        Some(step) => Ok(store::secrets::use_step(&unit.tx, user, step).await?),
        None => Ok(false),
    }
}

async fn recovery_is_right(unit: &Unit, user: Uuid, code: &Secret<String>) -> Result<bool> {
    let codes = store::factors::codes(&unit.tx, user).await?;
    let mut found = None;
    for one in codes {
        if constant_time_eq(&recovery_hash(&one.salt, code.expose()), &one.hash) {
            found = Some(one);
        }
    }
    match found {
        Some(found) => Ok(store::factors::use_code(&unit.tx, user, found.id, unit.now()).await?),
        None => Ok(false),
    }
}

async fn wrong(unit: &Unit, user: &User, totp: Option<&Totp>, why: Reason) -> Result<Verdict> {
    let now: Timestamp = unit.now();
    // A lock that is on is not made longer: who guesses must not be able to keep somebody out.
    if let Some(totp) = totp.filter(|t| t.tries.locked_s(now).is_none()) {
        let rates = unit.core.settings.system(&TOTP_PER_USER);
        let rate = rates.first().copied().unwrap_or(RATE);
        let span = Duration::seconds(i64::from(rate.window_s));
        let tries = totp.tries.failed(now, rate.count, span);
        store::factors::tried(&unit.tx, user.id, tries).await?;
        if tries.locked_s(now).is_some() {
            unit.core.limits.locks.factor.inc();
        }
    }
    refused(unit, user, why).await?;
    Ok(Verdict::Wrong)
}

async fn refused(unit: &Unit, user: &User, why: Reason) -> Result<()> {
    let record = Record {
        outcome: Outcome::Failed,
        code: Some(why.code),
        ..Record::done(
            "identity.factor.failed",
            "user",
            user.id.to_string(),
            user.tenant,
        )
    };
    unit.audit(record).await
}
