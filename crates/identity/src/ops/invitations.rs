//! Invitations: made by an administrator, sent by mail or handed over as a link, used once within seven days.

use std::sync::Arc;

use chrono::Duration;
use portico_base::secret::{new_token, token_hash};
use portico_base::{Context, FieldFault, Secret, Timestamp};
use portico_contract::audit::Record;
use portico_contract::tenants::TenantStatus;
use uuid::Uuid;

use super::{need, roles, scope, tenants, users};
use crate::domain::contact::{check_email, masked_email};
use crate::domain::invitation::Invitation;
use crate::domain::profile;
use crate::domain::role::USER;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::notices::{Notice, Recipient, Way};
use crate::ops::users::NewUser;
use crate::pages;
use crate::permissions::{ROLE_WRITE, USER_READ, USER_WRITE};
use crate::store;
use crate::unit::Unit;

/// Life of an invitation.
const LIFE: Duration = Duration::days(7);
/// Open invitations of a tenant.
const MOST: u64 = 1_000;

/// An invitation to be made.
#[derive(Debug, Clone)]
pub(crate) struct NewInvitation {
    pub tenant: Option<String>,
    /// Where it goes, and the account's address.
    pub email: Option<String>,
    /// Names of roles besides `user`.
    pub roles: Vec<String>,
    pub locale: String,
}

/// Makes an invitation. It goes by mail where an address is given and mail is on; else the link is in the
/// answer, and nowhere else.
pub(crate) async fn create(
    core: &Arc<Core>,
    cx: &Context,
    new: NewInvitation,
) -> Result<(Invitation, Option<Secret<String>>)> {
    need(cx, USER_WRITE)?;
    let mut faults: Vec<FieldFault> = profile::locale_fault(&new.locale).into_iter().collect();
    let email = match new.email.as_deref().map(check_email) {
        Some(Err(fault)) => {
            faults.push(fault);
            None
        }
        Some(Ok(address)) => Some(address),
        None => None,
    };
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let unit = Unit::begin_durable(core, cx).await?;
    let tenant = scope::tenant(&unit.tx, cx, new.tenant.as_deref()).await?;
    let wanted = roles::named(&unit.tx, tenant.id, &new.roles).await?;
    if wanted.iter().any(|role| role.name != USER) {
        need(cx, ROLE_WRITE)?;
        roles::may_grant(cx, &wanted)?;
    }
    let lock = format!("identity.invitations.{}", tenant.id);
    unit.tx.serialise(&lock).await?;
    if store::invitations::count_open(&unit.tx, tenant.id, unit.now()).await? >= MOST {
        return Err(tenants::exceeded("invitations", MOST));
    }
    let token = new_token("", &*core.random);
    let mailed = match &email {
        Some(address) => send(&unit, tenant.id, address, &new.locale, &token).await?,
        None => false,
    };
    let invitation = Invitation {
        id: cx.new_id(),
        tenant: tenant.id,
        hash: token_hash(token.expose()),
        email,
        mailed,
        roles: wanted.iter().map(|role| role.id).collect(),
        locale: new.locale,
        created_by: cx.principal().subject.to_string(),
        created_at: unit.now(),
        expires_at: unit.now() + LIFE,
        used_at: None,
        used_by: None,
        revoked_at: None,
    };
    store::invitations::insert(&unit.tx, &invitation).await?;
    let names: serde_json::Value = wanted.iter().map(|role| role.name.as_str()).collect();
    let email = invitation.email.as_deref().map(masked_email);
    unit.audit(
        record("identity.invitation.created", &invitation)
            .change("email", None, email.map(Into::into))
            .change("roles", None, Some(names)),
    )
    .await?;
    unit.commit().await?;
    let link = (!mailed).then(|| Secret::new(core.links.with_token(pages::INVITATION, &token)));
    Ok((invitation, link))
}

/// Invitations of a tenant behind `after`, newest first.
pub(crate) async fn list(
    core: &Core,
    cx: &Context,
    tenant: Option<&str>,
    after: Option<(Timestamp, Uuid)>,
    limit: usize,
) -> Result<Vec<Invitation>> {
    need(cx, USER_READ)?;
    let conn = core.db.reader();
    let tenant = scope::tenant(conn, cx, tenant).await?;
    let most = u64::try_from(limit + 1).unwrap_or(u64::MAX);
    Ok(store::invitations::page(conn, tenant.id, after, most).await?)
}

/// Takes an invitation back.
pub(crate) async fn revoke(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    need(cx, USER_WRITE)?;
    let unit = Unit::begin_durable(core, cx).await?;
    let tenant = if scope::acts_for_all(cx.principal()) {
        store::invitations::tenant_of(&unit.tx, id).await?
    } else {
        Some(cx.tenant())
    };
    let tenant = tenant.ok_or(reason::NOT_FOUND)?;
    let invitation = store::invitations::get(&unit.tx, tenant, id).await?;
    let invitation = invitation.ok_or(reason::NOT_FOUND)?;
    if store::invitations::revoke(&unit.tx, tenant, id, unit.now()).await? {
        unit.audit(record("identity.invitation.revoked", &invitation))
            .await?;
        unit.commit().await?;
    }
    Ok(())
}

/// An invitation that can be used now, looked at without using it up: registration shows its form by it.
pub(crate) async fn peek(core: &Core, token: &Secret<String>) -> Result<Invitation> {
    let conn = core.db.reader();
    let found = store::invitations::by_hash(conn, token_hash(token.expose())).await?;
    let found = found.filter(|i| i.is_open(core.clock.now()));
    let invitation = found.ok_or(reason::TOKEN_USED)?;
    let tenant = store::tenants::get(conn, invitation.tenant).await?;
    if tenant.is_none_or(|t| t.status != TenantStatus::Active) {
        return Err(reason::TOKEN_USED.into());
    }
    Ok(invitation)
}

/// Makes the account of an invitation within the unit and uses the invitation up. Tenant and roles are the
/// invitation's, and so is the address where it names one; who comes second, or too late, is refused.
pub(crate) async fn accept(
    unit: &Unit,
    token: &Secret<String>,
    mut new: NewUser,
) -> Result<(User, Invitation)> {
    let found = store::invitations::by_hash(&unit.tx, token_hash(token.expose())).await?;
    let invitation = found.ok_or(reason::TOKEN_USED)?;
    new.tenant = invitation.tenant;
    if let Some(address) = &invitation.email {
        new.email = Some(address.clone());
        new.email_verified_at = invitation.mailed.then(|| unit.now());
    }
    new.locale = new.locale.or_else(|| Some(invitation.locale.clone()));
    // A role that was deleted meanwhile is not there to be given.
    let known = store::roles::of_tenant(&unit.tx, invitation.tenant).await?;
    let still = |id: &Uuid| known.iter().any(|role| role.id == *id);
    new.roles = invitation.roles.iter().copied().filter(still).collect();
    let user = users::create(unit, new).await?;
    if !store::invitations::take(&unit.tx, invitation.id, user.id, unit.now()).await? {
        return Err(reason::TOKEN_USED.into());
    }
    let accepted = record("identity.invitation.accepted", &invitation);
    unit.audit(accepted.change("user", None, Some(user.id.to_string().into())))
        .await?;
    Ok((user, invitation))
}

async fn send(
    unit: &Unit,
    tenant: Uuid,
    address: &str,
    locale: &str,
    token: &Secret<String>,
) -> Result<bool> {
    let to = Recipient {
        tenant,
        email: address.to_owned(),
        name: String::new(),
        locale: locale.to_owned(),
    };
    let notice = Notice::Invitation {
        token: token.clone(),
    };
    let way = unit.core.notices.send_to(unit, &to, notice).await?;
    Ok(way == Way::Mail)
}

fn record(action: &'static str, of: &Invitation) -> Record {
    Record::done(action, "invitation", of.id.to_string(), of.tenant)
}
