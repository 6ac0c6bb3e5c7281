//! What Apple tells of people: each notice is taken once, within its own short transactions, and answered at once (ID-69).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration as Wait;

use chrono::Duration;
use portico_base::secret::token_hash;
use portico_base::{Context, Secret};
use portico_db::DbError;
use serde_json::json;
use uuid::Uuid;

use super::{denied, link};
use crate::apple::statement::{self, Event, Notice};
use crate::domain::identity::{APPLE, ExternalIdentity};
use crate::domain::personal::Cause;
use crate::domain::user::{User, UserStatus};
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::ops::{erasure, users};
use crate::store;
use crate::store::one_time::OneTime;
use crate::unit::Unit;

/// A notice is known again for so long.
const KNOWN: Duration = Duration::days(30);
const KIND: &str = "apple.notice";
/// Apple wants its answer quickly; it asks again when there is none.
const PATIENCE: Wait = Wait::from_millis(800);
const AGAIN_S: u32 = 60;

/// Takes a notice. One that was taken before, or is about nobody here, changes nothing.
pub(crate) async fn take(core: &Arc<Core>, cx: &Context, payload: &Secret<String>) -> Result<()> {
    let token = payload.expose();
    let kid = statement::kid(token).map_err(denied)?;
    let waited = tokio::time::timeout(PATIENCE, core.apple.keys.with(&kid)).await;
    let no_keys = Error::Later(reason::APPLE_UNAVAILABLE, AGAIN_S);
    let Ok(Ok(keys)) = waited else {
        return Err(no_keys);
    };
    let claims = statement::claims(token, &keys).map_err(denied)?;
    let notice = statement::notice(&claims, cx.now().timestamp()).map_err(denied)?;
    let teams = teams(core, &notice.client_id);
    if teams.is_empty() {
        return Err(reason::APPLE_TOKEN_INVALID.into());
    }
    if notice.event == Event::Other {
        tracing::info!("apple sent a notice of a kind that is not known");
        return Ok(());
    }
    for (team, tenants) in teams {
        let conn = core.db.reader();
        let found =
            store::identities::find_in(conn, &tenants, APPLE, &team, &notice.subject).await?;
        for identity in found {
            core.db
                .retry(|| apply(core, cx, &notice, &identity))
                .await?;
        }
    }
    Ok(())
}

/// Tenants whose account has the client id, by their teams.
fn teams(core: &Core, client_id: &str) -> BTreeMap<String, Vec<Uuid>> {
    let mut teams: BTreeMap<String, Vec<Uuid>> = BTreeMap::new();
    for tenant in core.edge.tenant_ids() {
        if let Ok(account) = crate::apple::account(&core.settings, tenant)
            && account.is_audience(client_id)
        {
            teams.entry(account.team).or_default().push(tenant);
        }
    }
    teams
}

async fn apply(
    core: &Arc<Core>,
    cx: &Context,
    notice: &Notice,
    seen: &ExternalIdentity,
) -> Result<()> {
    let unit = Unit::begin_durable(core, cx).await?;
    match store::one_time::insert(&unit.tx, &known(&unit, notice, seen)).await {
        // Apple sends a notice again until it has an answer.
        Err(DbError::Unique { .. }) => return Ok(()),
        inserted => inserted?,
    }
    if seen.tenant == portico_base::id::TENANT_SYSTEM {
        unit.tx.serialise(users::ADMINS).await?;
    }
    let user = store::users::lock(&unit.tx, seen.tenant, seen.user).await?;
    let identity = store::identities::lock(&unit.tx, seen.tenant, seen.id).await?;
    let (Some(user), Some(identity)) = (user, identity) else {
        return Ok(());
    };
    // Whoever has come in with Apple since has consented again.
    if notice.at_ms < identity.proved_at.timestamp_millis() && is_end(notice.event) {
        return unit.commit().await;
    }
    match notice.event {
        Event::ConsentRevoked => {
            link::take_away(&unit, &user, &identity, "identity.apple.consent_revoked").await?;
            users::end_access(&unit, &user, "apple_consent_revoked").await?;
        }
        Event::AccountDeleted => {
            link::take_away(&unit, &user, &identity, "identity.apple.account_deleted").await?;
            end(&unit, &user).await?;
        }
        Event::EmailDisabled | Event::EmailEnabled => {
            let on = notice.event == Event::EmailEnabled;
            mail(&unit, &user, identity, on).await?;
        }
        Event::Other => {}
    }
    unit.commit().await
}

const fn is_end(event: Event) -> bool {
    matches!(event, Event::ConsentRevoked | Event::AccountDeleted)
}

/// Begins the end of the account (ID-153): at once when Apple was the only way in; whoever has another one has
/// the days of grace to come back by it. Somebody who must stay is only logged out.
async fn end(unit: &Unit, user: &User) -> Result<()> {
    if user.status == UserStatus::Deleted {
        return Ok(());
    }
    let ended = if link::has_other_way(unit, user).await? {
        erasure::schedule(unit, user.clone()).await.map(|_| ())
    } else {
        let why = "the Apple account was deleted".to_owned();
        erasure::begin(unit, user.clone(), Cause::Provider, Some(why)).await
    };
    match ended {
        Err(error) if error.is(reason::LEGAL_HOLD) || error.is(reason::LAST_ADMIN) => {
            users::end_access(unit, user, "apple_account_deleted").await
        }
        ended => ended,
    }
}

async fn mail(unit: &Unit, user: &User, mut identity: ExternalIdentity, on: bool) -> Result<()> {
    if identity.email_enabled == on {
        return Ok(());
    }
    identity.email_enabled = on;
    store::identities::put(&unit.tx, &identity).await?;
    let record = users::record("identity.apple.email_switched", user)
        .change("identity", None, Some(identity.id.to_string().into()))
        .change("email_enabled", Some((!on).into()), Some(on.into()));
    unit.audit(record).await
}

/// The row that knows a notice again, by its id and for whom it was applied.
fn known(unit: &Unit, notice: &Notice, to: &ExternalIdentity) -> OneTime {
    let text = format!("{KIND}|{}|{}|{}", to.issuer_key, notice.id, to.id);
    OneTime {
        hash: token_hash(&text),
        kind: KIND.to_owned(),
        tenant: Some(to.tenant),
        user: Some(to.user),
        payload: json!({}),
        created_at: unit.now(),
        expires_at: unit.now() + KNOWN,
        used_at: Some(unit.now()),
    }
}
