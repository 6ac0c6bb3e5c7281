//! Recovery codes: ten at a time, shown once, each good once (ID-75).

use std::sync::Arc;

use portico_base::{Context, Secret};
use uuid::Uuid;

use super::{need_user, totp};
use crate::domain::factor::{RECOVERY_CODES, new_recovery_code, recovery_hash};
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::store;
use crate::store::factors::RecoveryCode;
use crate::unit::Unit;

/// Makes new codes for the caller; the old ones are good no more (aal2 and fresh, which the route asks for).
pub(crate) async fn regenerate(core: &Arc<Core>, cx: &Context) -> Result<Vec<Secret<String>>> {
    let id = need_user(cx)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::get(&unit.tx, cx.tenant(), id)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let totp = store::factors::lock(&unit.tx, id).await?;
    if totp.is_none_or(|t| t.confirmed().is_none()) {
        return Err(reason::FACTOR_MISSING.into());
    }
    let codes = replace(&unit, id).await?;
    unit.audit(totp::record("identity.recovery_codes.replaced", &user))
        .await?;
    unit.commit().await?;
    Ok(codes)
}

/// New codes instead of those that a user has, within a unit.
pub(super) async fn replace(unit: &Unit, user: Uuid) -> Result<Vec<Secret<String>>> {
    let random = &*unit.core.random;
    let mut shown = Vec::with_capacity(RECOVERY_CODES);
    let mut kept = Vec::with_capacity(RECOVERY_CODES);
    for _ in 0..RECOVERY_CODES {
        let code = new_recovery_code(random);
        let mut salt = vec![0; 16];
        random.fill(&mut salt);
        kept.push(RecoveryCode {
            id: unit.cx.new_id(),
            hash: recovery_hash(&salt, code.expose()),
            salt,
        });
        shown.push(code);
    }
    store::factors::put_codes(&unit.tx, user, kept).await?;
    Ok(shown)
}
