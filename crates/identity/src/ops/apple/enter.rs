//! Coming in with Apple: a nonce, the proof, and then the user who belongs to it, a new one, or an offer to link (ID-65, ID-68).

use std::sync::Arc;

use chrono::Duration;
use portico_base::envelope::Place as Row;
use portico_base::secret::token_hash;
use portico_base::{Context, Secret, Timestamp, id};
use portico_db::DbError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    NONCE, account, column, failed, faults, opened, read, refresh_token, sealed, suggested,
};
use crate::apple::{Account, statement};
use crate::domain::contact::{Identifier, check_email, email_key};
use crate::domain::identity::{APPLE, AppleUser, ExternalIdentity};
use crate::domain::login::{DeviceWish, LoginResult, LoginStatus, Proof, Transport};
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::ops::login::{self, Place};
use crate::ops::methods::{self, Registration};
use crate::ops::one_time::{self, Holder, Kind, Taken};
use crate::ops::users::{self, NewUser};
use crate::ops::{invitations, register};
use crate::store;
use crate::unit::Unit;

/// Life of a nonce (ID-65).
const NONCE_LIFE: Duration = Duration::minutes(10);
/// A proof that waits for the browser that comes back from Apple.
const PENDING: Kind = Kind("apple.pending");
/// Life of it, as of every exchange code.
const PENDING_LIFE: Duration = Duration::seconds(60);
/// An Apple identity that is offered to the owner of an equal address.
pub(super) const OFFER: Kind = Kind("apple.offer");

/// Somebody with a statement of Apple.
#[derive(Debug)]
pub(crate) struct Entrant {
    pub id_token: Secret<String>,
    /// Raw, as we gave it out.
    pub nonce: Secret<String>,
    /// Good for a refresh token, once.
    pub code: Option<Secret<String>>,
    /// Of a user that is made.
    pub name: Option<String>,
    /// Of a user that is made.
    pub locale: Option<String>,
    /// Whoever was invited brings the token of the link.
    pub invitation: Option<Secret<String>>,
    pub device: DeviceWish,
    pub transport: Transport,
}

/// What a browser brings back.
pub(crate) struct Redeem<'a> {
    pub code: &'a Secret<String>,
    pub invitation: Option<&'a Secret<String>>,
    pub locale: Option<String>,
    pub device: DeviceWish,
    pub transport: Transport,
}

/// A proof with what may make a user of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proved {
    pub who: AppleUser,
    pub name: Option<String>,
    /// Envelope of the refresh token.
    refresh: Option<String>,
    /// The tenant was chosen by whoever came.
    chosen: bool,
}

/// Who came in.
pub(super) enum Entered {
    User(User),
    /// Somebody has the address: the identity is offered to them.
    Offer(User),
}

/// Makes a nonce for a native login, good once.
pub(crate) async fn nonce(
    core: &Arc<Core>,
    cx: &Context,
    place: Option<Place>,
) -> Result<(Secret<String>, Timestamp)> {
    let tenant = place.map_or(id::TENANT_DEFAULT, |p| p.tenant);
    if !account(core, tenant)?.is_native() {
        return Err(reason::METHOD_OFF.into());
    }
    core.limits.check_address(Limit::Apple, cx)?;
    let holder = Holder {
        tenant: Some(tenant),
        user: None,
    };
    let unit = Unit::begin(core, cx).await?;
    let made = one_time::issue(core, &unit.tx, NONCE, holder, &(), NONCE_LIFE).await?;
    unit.commit().await?;
    Ok(made)
}

/// What the client gives to Apple instead of the raw nonce.
pub(crate) fn hashed(nonce: &str) -> String {
    hex::encode(Sha256::digest(nonce.as_bytes()))
}

/// Logs in with a statement that an app got from Apple.
pub(crate) async fn login(
    core: &Arc<Core>,
    cx: &Context,
    place: Option<Place>,
    wish: Entrant,
) -> Result<LoginResult> {
    let mut all = wish.device.faults();
    all.extend(faults(
        wish.code.as_ref(),
        wish.name.as_ref(),
        wish.locale.as_ref(),
    ));
    if !all.is_empty() {
        return Err(Error::Invalid(all));
    }
    let tenant = place.map_or(id::TENANT_DEFAULT, |p| p.tenant);
    let account = account(core, tenant)?;
    core.limits.check_address(Limit::Apple, cx)?;
    let proof = match place {
        Some(place) => prove(
            core,
            cx,
            place.tenant,
            &account,
            &wish.id_token,
            &wish.nonce,
        )
        .await
        .map(|who| (place, who)),
        // Of a tenant that is not there nobody can have a nonce.
        None => Err(reason::APPLE_TOKEN_INVALID.into()),
    };
    let (place, who) = match proof {
        Ok(proof) => proof,
        Err(error) => return Err(failed(core, cx, tenant, error).await),
    };
    let refresh = refresh_token(core, cx, &account, &who, wish.code.as_ref(), None).await;
    let proved = Proved::new(core, place, who, suggested(wish.name.as_ref()), refresh);
    let more = More {
        locale: wish.locale,
        invitation: wish.invitation.as_ref(),
    };
    match admit(core, cx, place.tenant, &proved, more).await {
        Ok(entered) => finish(core, cx, entered, &proved, wish.device, wish.transport).await,
        Err(error) => Err(failed(core, cx, tenant, error).await),
    }
}

/// Ends the login of a browser that came back from Apple without a user: it may bring an invitation, or it is
/// offered to link.
pub(crate) async fn redeem(
    core: &Arc<Core>,
    cx: &Context,
    wish: Redeem<'_>,
) -> Result<LoginResult> {
    let faults = faults(None, None, wish.locale.as_ref());
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let unit = Unit::begin(core, cx).await?;
    let taken: Taken<Proved> =
        one_time::take(core, &unit.tx, PENDING, wish.code, reason::TICKET_INVALID).await?;
    unit.commit().await?;
    let tenant = taken.tenant.ok_or(reason::TICKET_INVALID)?;
    let more = More {
        locale: wish.locale,
        invitation: wish.invitation,
    };
    let proved = taken.payload;
    match admit(core, cx, tenant, &proved, more).await {
        Ok(entered) => finish(core, cx, entered, &proved, wish.device, wish.transport).await,
        Err(error) => Err(failed(core, cx, tenant, error).await),
    }
}

/// Checks a statement and uses its nonce up.
pub(super) async fn prove(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    account: &Account,
    token: &Secret<String>,
    nonce: &Secret<String>,
) -> Result<AppleUser> {
    let (who, claims) = read(core, account, token, cx.now().timestamp()).await?;
    let said = statement::nonce(&claims).unwrap_or_default();
    if !portico_base::secret::constant_time_eq(said.as_bytes(), hashed(nonce.expose()).as_bytes()) {
        return Err(reason::APPLE_TOKEN_INVALID.into());
    }
    let refused = reason::APPLE_TOKEN_INVALID;
    let unit = Unit::begin(core, cx).await?;
    let taken: Taken<()> = one_time::take(core, &unit.tx, NONCE, nonce, refused).await?;
    // One of another tenant stays good there: this unit is undone.
    if taken.tenant != Some(tenant) {
        return Err(refused.into());
    }
    unit.commit().await?;
    Ok(who)
}

/// The ticket with which the owner of an equal address links the identity, once they have proved to be that.
pub(super) async fn offer(
    core: &Core,
    unit: &Unit,
    owner: &User,
    proved: &Proved,
) -> Result<(Secret<String>, Timestamp)> {
    let holder = Holder {
        tenant: Some(owner.tenant),
        user: Some(owner.id),
    };
    one_time::issue(core, &unit.tx, OFFER, holder, proved, one_time::TICKET).await
}

/// Makes the code of a browser whose login is not decided yet.
pub(super) async fn pend(
    core: &Core,
    unit: &Unit,
    tenant: Uuid,
    proved: &Proved,
) -> Result<Secret<String>> {
    let holder = Holder {
        tenant: Some(tenant),
        user: None,
    };
    let (code, _) = one_time::issue(core, &unit.tx, PENDING, holder, proved, PENDING_LIFE).await?;
    Ok(code)
}

impl Proved {
    pub(super) fn new(
        core: &Core,
        place: Place,
        who: AppleUser,
        name: Option<String>,
        refresh: Option<Secret<String>>,
    ) -> Self {
        let refresh = refresh.map(|token| sealed(core, carried(&who.subject), &token));
        Self {
            who,
            name,
            refresh,
            chosen: place.chosen,
        }
    }

    fn place(&self, tenant: Uuid) -> Place {
        Place {
            tenant,
            chosen: self.chosen,
        }
    }

    /// The refresh token, sealed for the row of an identity.
    pub(super) fn refresh_for(&self, core: &Core, row: Uuid) -> Result<Option<String>> {
        let Some(sealed_text) = &self.refresh else {
            return Ok(None);
        };
        let token = opened(core, carried(&self.who.subject), sealed_text)?;
        Ok(Some(sealed(core, column(&row.to_string()), &token)))
    }
}

/// Where a refresh token lives between two steps.
const fn carried(subject: &str) -> Row<'_> {
    Row {
        table: "one_time_tokens",
        row: subject,
        column: "payload",
    }
}

/// What may make a user of a proof.
pub(super) struct More<'a> {
    pub locale: Option<String>,
    pub invitation: Option<&'a Secret<String>>,
}

/// The user of a proof: the one it is linked to, or a new one where somebody may register. An equal verified
/// address links nothing by itself.
pub(super) async fn admit(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    proved: &Proved,
    more: More<'_>,
) -> Result<Entered> {
    let place = proved.place(tenant);
    if let Some(user) = linked(core, cx, place, proved).await? {
        return Ok(Entered::User(user));
    }
    if let Some(owner) = owner(core, place, &proved.who).await? {
        // Perhaps the same person, made by a login on another device since the first look.
        let linked = linked(core, cx, place, proved).await?;
        return Ok(linked.map_or(Entered::Offer(owner), Entered::User));
    }
    match make(core, cx, tenant, proved, &more).await {
        Ok(user) => Ok(Entered::User(user)),
        // Somebody was faster: the same person on another device, or the owner of the address.
        Err(error) if is_lost_race(&error) => {
            if let Some(user) = linked(core, cx, place, proved).await? {
                return Ok(Entered::User(user));
            }
            let owner = owner(core, place, &proved.who).await?;
            owner.map(Entered::Offer).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

async fn finish(
    core: &Arc<Core>,
    cx: &Context,
    entered: Entered,
    proved: &Proved,
    device: DeviceWish,
    transport: Transport,
) -> Result<LoginResult> {
    match entered {
        Entered::User(user) => {
            let proof = proof(user, device, transport);
            Box::pin(login::finish(core, cx, proof)).await
        }
        Entered::Offer(owner) => {
            let unit = Unit::begin(core, cx).await?;
            let ticket = offer(core, &unit, &owner, proved).await?;
            unit.commit().await?;
            core.logins.login(APPLE, LoginStatus::LinkOffered.as_str());
            Ok(LoginResult::step(LoginStatus::LinkOffered, ticket))
        }
    }
}

/// The proof of a login with Apple.
pub(super) fn proof(user: User, device: DeviceWish, transport: Transport) -> Proof {
    Proof {
        user,
        method: APPLE,
        amr: vec![APPLE.to_owned()],
        aal: 1,
        device,
        transport,
    }
}

/// The user whom the identity is linked to, after what is new in the proof was written.
async fn linked(
    core: &Arc<Core>,
    cx: &Context,
    place: Place,
    proved: &Proved,
) -> Result<Option<User>> {
    let who = &proved.who;
    for tenant in place.tenants() {
        // Where a tenant has an account of its own, Apple speaks to that and to no other.
        let own = crate::apple::account(&core.settings, tenant);
        if !own.is_ok_and(|a| a.team == who.team && a.is_audience(&who.client_id)) {
            continue;
        }
        let conn = core.db.reader();
        let found = store::identities::find(conn, tenant, APPLE, &who.team, &who.subject).await?;
        let Some(found) = found else { continue };
        let unit = Unit::begin(core, cx).await?;
        let Some(mut identity) = store::identities::lock(&unit.tx, tenant, found.id).await? else {
            continue;
        };
        renew(core, &mut identity, proved)?;
        store::identities::put(&unit.tx, &identity).await?;
        let user = store::users::get(&unit.tx, tenant, identity.user).await?;
        unit.commit().await?;
        return Ok(user);
    }
    Ok(None)
}

/// Takes over what a new proof says; what it leaves out stays.
pub(super) fn renew(core: &Core, identity: &mut ExternalIdentity, proved: &Proved) -> Result<()> {
    let who = &proved.who;
    if who.email.is_some() {
        identity.email.clone_from(&who.email);
        identity.email_verified = who.email_verified;
        identity.is_private_email = who.is_private_email;
    }
    identity.proved_at = identity.proved_at.max(who.issued_at());
    if let Some(token) = proved.refresh_for(core, identity.id)? {
        identity.refresh_token = Some(token);
        // A token is revoked with the client id that got it.
        identity.client_id.clone_from(&who.client_id);
    }
    Ok(())
}

/// Whoever has the address that Apple has verified.
async fn owner(core: &Core, place: Place, who: &AppleUser) -> Result<Option<User>> {
    let Some(address) = who.verified_email() else {
        return Ok(None);
    };
    let key = Identifier::Email(email_key(address));
    for tenant in place.tenants() {
        let found = store::users::find(core.db.reader(), tenant, &key).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn make(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    proved: &Proved,
    more: &More<'_>,
) -> Result<User> {
    let may = match methods::registration(core, tenant) {
        Registration::Open => true,
        Registration::Invite => more.invitation.is_some(),
        Registration::Off => false,
    };
    if !may {
        return Err(reason::REGISTRATION_CLOSED.into());
    }
    if let Some(token) = more.invitation {
        if invitations::peek(core, token).await?.tenant != tenant {
            return Err(reason::TOKEN_USED.into());
        }
    } else {
        register::check_domain(core, tenant, proved.who.verified_email())?;
    }
    let unit = Unit::begin_durable(core, cx).await?;
    let email = proved.who.verified_email();
    // An address that our own rules do not take stays with the identity.
    let email = email.and_then(|address| check_email(address).ok());
    let new = NewUser {
        email_verified_at: email.as_ref().map(|_| unit.now()),
        email,
        display_name: proved.name.clone().unwrap_or_default(),
        locale: more.locale.clone(),
        linked: true,
        ..NewUser::of(tenant)
    };
    let user = match more.invitation {
        Some(token) => invitations::accept(&unit, token, new).await?.0,
        None => users::create(&unit, new).await?,
    };
    add(&unit, &user, proved).await?;
    unit.commit().await?;
    Ok(user)
}

/// Links the identity to a user within the unit; one that belongs to somebody is a unique violation.
pub(super) async fn add(unit: &Unit, user: &User, proved: &Proved) -> Result<ExternalIdentity> {
    let who = &proved.who;
    let row = unit.cx.new_id();
    let identity = ExternalIdentity {
        id: row,
        tenant: user.tenant,
        user: user.id,
        provider: APPLE.to_owned(),
        issuer_key: who.team.clone(),
        subject: who.subject.clone(),
        client_id: who.client_id.clone(),
        email: who.email.clone(),
        email_verified: who.email_verified,
        is_private_email: who.is_private_email,
        email_enabled: true,
        refresh_token: proved.refresh_for(&unit.core, row)?,
        proved_at: who.issued_at(),
        linked_at: unit.now(),
    };
    store::identities::insert(&unit.tx, &identity).await?;
    let record = users::record("identity.apple.linked", user)
        .change("identity", None, Some(row.to_string().into()))
        .change("private_email", None, Some(who.is_private_email.into()));
    unit.audit(record).await?;
    Ok(identity)
}

fn is_lost_race(error: &Error) -> bool {
    error.is(reason::EMAIL_TAKEN) || matches!(error, Error::Db(DbError::Unique { .. }))
}

/// Hash of what a browser or a statement must repeat.
pub(super) fn mark(text: &str) -> [u8; 32] {
    token_hash(text)
}
