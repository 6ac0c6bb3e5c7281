//! Linking Apple to an account by proof of both, unlinking it unless it is the last way in, and looking at it (ID-68, ID-84).

use std::sync::Arc;

use portico_base::{Context, FieldFault, Secret};
use portico_db::DbError;
use uuid::Uuid;

use super::enter::{OFFER, Proved, add, prove, renew};
use super::web::redirect_uri;
use super::{account, faults, refresh_token, revoke};
use crate::domain::identity::{APPLE, ExternalIdentity};
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::Notice;
use crate::ops::login::Place;
use crate::ops::one_time::{self, Taken};
use crate::ops::{methods, need, need_user, scope, step_up, users};
use crate::permissions::{APPLE_READ, USER_READ};
use crate::store;
use crate::unit::Unit;

/// By what somebody shows that an Apple identity is theirs.
#[derive(Debug)]
pub(crate) enum With {
    /// A statement that an app got.
    Statement {
        id_token: Secret<String>,
        nonce: Secret<String>,
        code: Option<Secret<String>>,
    },
    /// The ticket of a login that answered `link_offered`.
    Ticket(Secret<String>),
}

/// A tenant's account with Apple as its administrators see it.
#[derive(Debug)]
pub(crate) struct Status {
    /// Apps can log in.
    pub native: bool,
    /// Browsers can log in.
    pub web: bool,
    pub faults: Vec<FieldFault>,
    /// Addresses that are entered at Apple: where browsers come back to, and where notices go.
    pub callback_url: String,
    pub notices_url: String,
}

/// Links an Apple identity to the user who calls, in a fresh session.
pub(crate) async fn link(core: &Arc<Core>, cx: &Context, with: With) -> Result<ExternalIdentity> {
    let user = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let tenant = cx.tenant();
    let account = account(core, tenant)?;
    core.limits.check_address(Limit::Apple, cx)?;
    match with {
        With::Statement {
            id_token,
            nonce,
            code,
        } => {
            let faults = faults(code.as_ref(), None, None);
            if !faults.is_empty() {
                return Err(Error::Invalid(faults));
            }
            let who = prove(core, cx, tenant, &account, &id_token, &nonce).await?;
            let refresh = refresh_token(core, cx, &account, &who, code.as_ref(), None).await;
            let place = Place {
                tenant,
                chosen: true,
            };
            let proved = Proved::new(core, place, who, None, refresh);
            to_user(core, cx, tenant, user, &proved, None).await
        }
        With::Ticket(ticket) => {
            let refused = reason::TICKET_INVALID;
            let conn = core.db.reader();
            let seen: Taken<Proved> = one_time::peek(core, conn, OFFER, &ticket, refused).await?;
            let who = &seen.payload.who;
            // An offer is for the owner of the address and for nobody else.
            let own = seen.user == Some(user) && seen.tenant == Some(tenant);
            if !own || who.team != account.team || !account.is_audience(&who.client_id) {
                return Err(refused.into());
            }
            to_user(core, cx, tenant, user, &seen.payload, Some(&ticket)).await
        }
    }
}

/// Links a proved identity to a user. Done twice, it is linked once.
pub(super) async fn to_user(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    user: Uuid,
    proved: &Proved,
    ticket: Option<&Secret<String>>,
) -> Result<ExternalIdentity> {
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, tenant, user)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    if let Some(ticket) = ticket {
        let _used: Taken<Proved> =
            one_time::take(core, &unit.tx, OFFER, ticket, reason::TICKET_INVALID).await?;
    }
    let of_user = store::identities::of_user(&unit.tx, tenant, user.id).await?;
    if let Some(mut have) = of_user.into_iter().find(|i| i.provider == APPLE) {
        if have.issuer_key != proved.who.team || have.subject != proved.who.subject {
            return Err(reason::IDENTITY_EXISTS.into());
        }
        renew(core, &mut have, proved)?;
        store::identities::put(&unit.tx, &have).await?;
        unit.commit().await?;
        return Ok(have);
    }
    let identity = match add(&unit, &user, proved).await {
        Err(Error::Db(DbError::Unique { .. })) => return Err(reason::IDENTITY_TAKEN.into()),
        added => added?,
    };
    let notice = Notice::IdentityLinked { provider: "Apple" };
    core.notices.send(&unit, &user, notice).await?;
    users::publish(&unit, "identity.user.updated", &user)?;
    unit.commit().await?;
    Ok(identity)
}

/// Unlinks an identity of the user who calls, unless nothing else would let them in. Apple is told by a job.
pub(crate) async fn unlink(core: &Arc<Core>, cx: &Context, id: Uuid) -> Result<()> {
    let user = need_user(cx)?;
    step_up::need_fresh(core, cx).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = store::users::lock(&unit.tx, cx.tenant(), user)
        .await?
        .ok_or(reason::USER_NOT_FOUND)?;
    let all = store::identities::of_user(&unit.tx, user.tenant, user.id).await?;
    let Some(identity) = all.iter().find(|i| i.id == id) else {
        return Err(reason::NOT_FOUND.into());
    };
    if all.len() == 1 && !has_other_way(&unit, &user).await? {
        return Err(reason::LAST_METHOD.into());
    }
    revoke::enqueue(&unit, identity).await?;
    take_away(&unit, &user, identity, "identity.apple.unlinked").await?;
    unit.commit().await
}

/// Removes a linked identity within the unit, with record and news.
pub(super) async fn take_away(
    unit: &Unit,
    user: &User,
    identity: &ExternalIdentity,
    action: &'static str,
) -> Result<()> {
    store::identities::delete(&unit.tx, user.tenant, identity.id).await?;
    let record = users::record(action, user);
    unit.audit(record.change("identity", Some(identity.id.to_string().into()), None))
        .await?;
    let notice = Notice::IdentityUnlinked { provider: "Apple" };
    unit.core.notices.send(unit, user, notice).await?;
    users::publish(unit, "identity.user.updated", user)
}

/// The identities of the user who calls.
pub(crate) async fn own(core: &Core, cx: &Context) -> Result<Vec<ExternalIdentity>> {
    let user = need_user(cx)?;
    Ok(store::identities::of_user(core.db.reader(), cx.tenant(), user).await?)
}

/// The identities of a user whom the caller may see.
pub(crate) async fn of_user(
    core: &Core,
    cx: &Context,
    user: Uuid,
) -> Result<Vec<ExternalIdentity>> {
    need(cx, USER_READ)?;
    let conn = core.db.reader();
    let user = scope::user(conn, cx, user).await?;
    Ok(store::identities::of_user(conn, user.tenant, user.id).await?)
}

/// How far a tenant's account with Apple is set up.
pub(crate) async fn status(core: &Core, cx: &Context, tenant: Option<&str>) -> Result<Status> {
    need(cx, APPLE_READ)?;
    let tenant = scope::tenant(core.db.reader(), cx, tenant).await?.id;
    let (native, web, faults) = match crate::apple::account(&core.settings, tenant) {
        Ok(account) => (account.is_native(), account.is_web(), Vec::new()),
        Err(faults) => (false, false, faults),
    };
    Ok(Status {
        native,
        web,
        faults,
        callback_url: redirect_uri(core, None),
        notices_url: format!("{}/api/identity/webhooks/apple", core.links.base()),
    })
}

/// True when the user can log in without any linked identity: by a password with a name, or by a number that
/// gets codes.
pub(super) async fn has_other_way(unit: &Unit, user: &User) -> Result<bool> {
    let core = &unit.core;
    let named = user.username.is_some() || user.email.is_some() || user.phone.is_some();
    if named && methods::offers(core, user.tenant, methods::PASSWORD) {
        let secrets = store::secrets::get(&unit.tx, user.id).await?;
        if secrets.password.is_some() {
            return Ok(true);
        }
    }
    let codes =
        methods::offers(core, user.tenant, "sms") && !core.sms.links(user.tenant).is_empty();
    Ok(codes && user.phone_verified_at.is_some())
}
