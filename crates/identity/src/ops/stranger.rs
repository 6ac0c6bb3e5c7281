//! The link "this was not me" of a notice: ends the session and makes the password worthless (ID-125).

use std::sync::Arc;

use chrono::Duration;
use portico_base::{Context, Secret};
use portico_contract::audit::Record;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::one_time::{self, Holder, Kind};
use super::{passwords, sessions, users};
use crate::domain::session::Session;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::notices::Notice;
use crate::store;
use crate::unit::Unit;

const STRANGER: Kind = Kind("login.stranger");
/// Mails are read late.
const LIFE: Duration = Duration::days(7);
/// Of the link to a new password.
const RESET_LIFE: Duration = Duration::minutes(30);

/// Whose login it was.
#[derive(Serialize, Deserialize)]
struct Payload {
    session: Uuid,
    device: Uuid,
}

/// The token of such a link.
pub(crate) async fn link(unit: &Unit, session: &Session) -> Result<Secret<String>> {
    let holder = Holder {
        tenant: Some(session.tenant),
        user: Some(session.user),
    };
    let payload = Payload {
        session: session.id,
        device: session.device,
    };
    let (token, _) =
        one_time::issue(&unit.core, &unit.tx, STRANGER, holder, &payload, LIFE).await?;
    Ok(token)
}

/// The user says that a login was a stranger's.
pub(crate) async fn report(core: &Arc<Core>, cx: &Context, token: &Secret<String>) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    let taken: one_time::Taken<Payload> =
        one_time::take(core, &unit.tx, STRANGER, token, reason::TOKEN_USED).await?;
    let (Some(tenant), Some(user)) = (taken.tenant, taken.user) else {
        return Err(reason::TOKEN_USED.into());
    };
    let user = store::users::lock(&unit.tx, tenant, user)
        .await?
        .ok_or(reason::TOKEN_USED)?;
    let payload = taken.payload;
    store::devices::revoke(&unit.tx, user.id, payload.device, unit.now()).await?;
    let session = store::sessions::on_device(&unit.tx, user.id, payload.device).await?;
    if let Some(session) = session {
        sessions::end(&unit, &session, "stranger").await?;
    }
    // Whoever knows the password could change it with a ticket, so it is made worthless at once.
    let mut secrets = store::secrets::get(&unit.tx, user.id).await?;
    let had_password = secrets.password.take().is_some();
    store::secrets::put(&unit.tx, &secrets).await?;
    if had_password {
        let (token, _) = passwords::issue_link(&unit, &user, RESET_LIFE).await?;
        let notice = Notice::ResetLink { token };
        core.notices.send(&unit, &user, notice).await?;
    }
    let record = Record::done(
        "identity.login.disowned",
        "user",
        user.id.to_string(),
        user.tenant,
    );
    unit.audit(
        record
            .change("session", Some(payload.session.to_string().into()), None)
            .change("password", Some(had_password.into()), Some(false.into())),
    )
    .await?;
    users::publish(&unit, "identity.user.updated", &user)?;
    unit.commit().await
}
