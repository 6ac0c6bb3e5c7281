//! Registering oneself: by user name, by e-mail address, by phone; open, by invitation, or not at all (ID-30…33).

use std::sync::Arc;

use chrono::Duration;
use portico_base::envelope::Place;
use portico_base::{Context, FieldFault, Secret, id};
use portico_contract::tenants::TenantStatus;
use portico_db::DbError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::emails;
use super::methods::Registration;
use super::one_time::{self, Holder};
use super::sms::{self, Verify};
use super::{invitations, login, methods, passwords, users};
use crate::domain::contact::{Identifier, check_email, check_username, email_key, username_key};
use crate::domain::invitation::Invitation;
use crate::domain::login::{DeviceWish, LoginResult, Proof, Transport};
use crate::domain::otp::Purpose;
use crate::domain::profile;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::notices::{Notice, Recipient};
use crate::ops::users::NewUser;
use crate::settings::password as keys;
use crate::store;
use crate::store::replies::Reply;
use crate::store::secrets::Secrets;
use crate::unit::Unit;

/// A repeated request is the same one for so long (ID-32).
const REPEATABLE: Duration = Duration::hours(24);
/// Longest `Idempotency-Key`.
const LONGEST_KEY: usize = 128;

/// By what somebody registers.
#[derive(Debug)]
pub(crate) enum By {
    Username(String),
    Email(String),
    /// A number that a code proves.
    Phone {
        transaction: Uuid,
        code: Secret<String>,
    },
}

/// Somebody who wants an account.
#[derive(Debug)]
pub(crate) struct Wish {
    pub host: Option<String>,
    /// Slug of a tenant.
    pub tenant: Option<String>,
    pub by: By,
    /// A number needs none.
    pub password: Option<Secret<String>>,
    pub display_name: String,
    pub locale: Option<String>,
    pub device: DeviceWish,
    pub transport: Transport,
    /// Whoever was invited brings the token of the link.
    pub invitation: Option<Secret<String>>,
    /// `Idempotency-Key` of the request.
    pub key: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Registered {
    /// There is an account, and its user is logged in.
    Now(Box<LoginResult>),
    /// A mail was sent; the account is made when its link is used.
    Waiting,
}

/// An account that waits for its address to be verified. No row of a user is made before, so that nobody
/// takes an address away from its owner, and each link makes the account with the password that belongs to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    email: String,
    phc: String,
    display_name: String,
    locale: Option<String>,
    /// Envelope of an invitation's token.
    invitation: Option<String>,
}

/// With whom somebody may register.
struct Joining {
    tenant: Uuid,
    invitation: Option<Invitation>,
    /// The invitation makes an administrator.
    admin: bool,
}

/// A wish whose form is right.
struct Checked {
    tenant: Uuid,
    admin: bool,
    /// The address was proved by the invitation that came to it.
    proved: bool,
    new: NewUser,
    /// Key of the name.
    key: String,
}

/// Registers.
pub(crate) async fn register(core: &Arc<Core>, cx: &Context, wish: Wish) -> Result<Registered> {
    login::refuse_faults(&wish.device)?;
    core.limits.check_address(Limit::Username, cx)?;
    let joining = joining(core, &wish).await?;
    let checked = check(core, &wish, &joining)?;
    let reply = wish
        .key
        .as_deref()
        .map(|key| reply(core, cx, &wish, &checked, key));
    if let Some(reply) = &reply
        && let Some(known) = again(core, cx, &wish, reply).await?
    {
        return Ok(known);
    }
    core.limits.check_address(Limit::Registration, cx)?;
    let reply_row = reply.as_ref();
    let done = match &wish.by {
        By::Email(_) if !checked.proved => by_email(core, cx, &wish, checked, reply_row).await,
        By::Username(_) | By::Email(_) => by_name(core, cx, &wish, checked, reply_row).await,
        By::Phone { transaction, code } => {
            let shown = (*transaction, code);
            by_phone(core, cx, &wish, checked, shown, reply_row).await
        }
    };
    match (done, &reply) {
        // Somebody with the same key was faster: then it is that one's answer.
        (Err(error), Some(reply)) if is_taken(&error) => {
            again(core, cx, &wish, reply).await?.ok_or(error)
        }
        (done, _) => done,
    }
}

/// Makes the account whose address was verified, within the unit.
pub(super) async fn verified(unit: &Unit, tenant: Uuid, waiting: Waiting) -> Result<()> {
    let invitation = match &waiting.invitation {
        Some(sealed) => Some(opened(&unit.core, &waiting.email, sealed)?),
        None => None,
    };
    let new = NewUser {
        email: Some(waiting.email),
        email_verified_at: Some(unit.now()),
        display_name: waiting.display_name,
        locale: waiting.locale,
        ..NewUser::of(tenant)
    };
    let user = create(unit, invitation.as_ref(), new).await?;
    put_password(unit, &user, Secret::new(waiting.phc)).await
}

/// By a name that needs no proof, or an address that is proved already.
async fn by_name(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Wish,
    checked: Checked,
    reply: Option<&Reply>,
) -> Result<Registered> {
    let password = needed(wish.password.as_ref())?;
    let phc = hash(core, &as_user(cx, &checked), checked.admin, password).await?;
    let unit = Unit::begin_durable(core, cx).await?;
    let user = create(&unit, wish.invitation.as_ref(), checked.new).await?;
    put_password(&unit, &user, phc).await?;
    remember(&unit, reply, Some(user.id)).await?;
    unit.commit().await?;
    finish(core, cx, wish, user, "pwd").await
}

/// The code proves the number, so whoever has an account with it already comes in to that.
async fn by_phone(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Wish,
    mut checked: Checked,
    (transaction, code): (Uuid, &Secret<String>),
    reply: Option<&Reply>,
) -> Result<Registered> {
    methods::need(core, checked.tenant, "sms")?;
    core.limits.check_address(Limit::Otp, cx)?;
    if let Some(password) = &wish.password {
        // The code is used up when it is looked at, so what can be said is said before.
        let user = as_user(cx, &checked);
        passwords::check_policy(core, &user, checked.admin, "password", password).await?;
    }
    let shown = Verify {
        tenant: checked.tenant,
        purpose: Purpose::Login,
        transaction,
        code,
        device: wish.device.device_id.as_deref(),
        user: None,
    };
    let phone = sms::verify(core, cx, shown).await?.phone.into_string();
    let known = Identifier::Phone(phone.clone());
    let found = store::users::find(core.db.reader(), checked.tenant, &known).await?;
    if let Some(user) = found {
        return finish(core, cx, wish, user, "sms").await;
    }
    checked.new.phone = Some(phone);
    checked.new.phone_verified_at = Some(cx.now());
    let phc = match &wish.password {
        Some(password) => Some(hash(core, &as_user(cx, &checked), checked.admin, password).await?),
        None => None,
    };
    let unit = Unit::begin_durable(core, cx).await?;
    let user = create(&unit, wish.invitation.as_ref(), checked.new).await?;
    if let Some(phc) = phc {
        put_password(&unit, &user, phc).await?;
    }
    remember(&unit, reply, Some(user.id)).await?;
    unit.commit().await?;
    finish(core, cx, wish, user, "sms").await
}

/// Known and unknown addresses cost the same: one hash, one token, one mail. Who has an account already is
/// told so by the mail.
async fn by_email(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Wish,
    checked: Checked,
    reply: Option<&Reply>,
) -> Result<Registered> {
    if !core.mail_on(checked.tenant) {
        return Err(reason::MAIL_OFF.into());
    }
    let account = core.limits.subject(&["email", &checked.key]);
    core.limits
        .check(Limit::ResetAccount, &hex::encode(account))?;
    let wanted = as_user(cx, &checked);
    let password = needed(wish.password.as_ref())?;
    let phc = hash(core, &wanted, checked.admin, password).await?;
    let tenant = checked.tenant;
    let email = checked.new.email.clone().unwrap_or_default();
    let unit = Unit::begin_durable(core, cx).await?;
    let owner = store::users::find(&unit.tx, tenant, &Identifier::Email(checked.key)).await?;
    let purpose = emails::Purpose::Register(Waiting {
        email: email.clone(),
        phc: phc.expose().clone(),
        display_name: checked.new.display_name.clone(),
        locale: checked.new.locale.clone(),
        invitation: wish
            .invitation
            .as_ref()
            .map(|token| sealed(core, &email, token)),
    });
    let holder = Holder {
        tenant: Some(tenant),
        user: None,
    };
    let life = emails::VERIFY_LIFE;
    let (token, _) =
        one_time::issue(core, &unit.tx, emails::VERIFY, holder, &purpose, life).await?;
    let to = Recipient::of(owner.as_ref().unwrap_or(&wanted), &email);
    let notice = match owner {
        Some(_) => Notice::AlreadyRegistered,
        None => Notice::VerifyEmail { token },
    };
    core.notices.send_to(&unit, &to, notice).await?;
    remember(&unit, reply, None).await?;
    unit.commit().await?;
    Ok(Registered::Waiting)
}

/// The tenant, when somebody may register with it.
async fn joining(core: &Core, wish: &Wish) -> Result<Joining> {
    let invitation = match &wish.invitation {
        Some(token) => Some(invitations::peek(core, token).await?),
        None => None,
    };
    let tenant = match &invitation {
        Some(invitation) => invitation.tenant,
        None => login::tenant_of(core, wish.host.as_deref(), wish.tenant.as_deref())
            .map(|place| place.tenant)
            .ok_or(reason::REGISTRATION_CLOSED)?,
    };
    let active = core
        .edge
        .tenant(tenant)
        .is_some_and(|t| t.status == TenantStatus::Active);
    let may = match methods::registration(core, tenant) {
        Registration::Open => true,
        Registration::Invite => invitation.is_some(),
        Registration::Off => false,
    };
    if !active || !may {
        return Err(reason::REGISTRATION_CLOSED.into());
    }
    methods::need(core, tenant, methods::PASSWORD)?;
    let admin = match &invitation {
        Some(invitation) => {
            let mut roles = store::roles::of_tenant(core.db.reader(), tenant).await?;
            roles.retain(|role| invitation.roles.contains(&role.id));
            super::roles::is_admin(core, &roles)
        }
        None => false,
    };
    Ok(Joining {
        tenant,
        invitation,
        admin,
    })
}

fn check(core: &Core, wish: &Wish, joining: &Joining) -> Result<Checked> {
    let tenant = joining.tenant;
    let bound = joining.invitation.as_ref().and_then(|i| i.email.as_deref());
    let mut faults = Vec::new();
    let mut new = NewUser {
        display_name: wish.display_name.trim().to_owned(),
        locale: wish.locale.clone(),
        ..NewUser::of(tenant)
    };
    faults.extend(profile::display_name_fault(&new.display_name));
    faults.extend(wish.locale.as_deref().and_then(profile::locale_fault));
    if wish
        .key
        .as_ref()
        .is_some_and(|k| k.is_empty() || k.len() > LONGEST_KEY)
    {
        let message = format!("must have 1 to {LONGEST_KEY} characters");
        faults.push(FieldFault::new("Idempotency-Key", "length", message));
    }
    let mut at = |fault: FieldFault| {
        faults.push(FieldFault {
            field: "identifier".to_owned(),
            ..fault
        });
    };
    match &wish.by {
        By::Username(name) => new.username = check_username(name).map_err(&mut at).ok(),
        By::Email(address) => {
            let good = check_email(address).and_then(|a| match bound {
                Some(bound) => invited(bound, a),
                None => allowed(core, tenant, a),
            });
            new.email = good.map_err(&mut at).ok();
        }
        By::Phone { .. } => {}
    }
    if !matches!(wish.by, By::Phone { .. }) && wish.password.is_none() {
        faults.push(required());
    }
    if !faults.is_empty() {
        return Err(Error::Invalid(faults));
    }
    let key = match (&new.username, &new.email) {
        (Some(name), _) => username_key(name),
        (None, address) => email_key(address.as_deref().unwrap_or_default()),
    };
    let mailed = joining.invitation.as_ref().is_some_and(|i| i.mailed);
    Ok(Checked {
        tenant,
        admin: joining.admin,
        proved: mailed && bound.is_some(),
        new,
        key,
    })
}

/// An invitation to an address is good for no other.
fn invited(bound: &str, address: String) -> std::result::Result<String, FieldFault> {
    if email_key(bound) == email_key(&address) {
        Ok(address)
    } else {
        let message = "is not the address that was invited";
        Err(FieldFault::new("email", "not_invited", message))
    }
}

/// Refuses an address that somebody else has verified, when its domain cannot register.
pub(super) fn check_domain(core: &Core, tenant: Uuid, address: Option<&str>) -> Result<()> {
    match allowed(core, tenant, address.unwrap_or_default().to_owned()) {
        Ok(_) => Ok(()),
        Err(fault) => Err(Error::Invalid(vec![fault])),
    }
}

fn allowed(core: &Core, tenant: Uuid, address: String) -> std::result::Result<String, FieldFault> {
    let domains = core.settings.get(tenant, &keys::EMAIL_DOMAINS);
    let key = email_key(&address);
    let host = key.rsplit_once('@').map_or("", |(_, host)| host);
    if domains.is_empty() || domains.iter().any(|d| d.trim().eq_ignore_ascii_case(host)) {
        Ok(address)
    } else {
        let message = "addresses of this domain cannot register here";
        Err(FieldFault::new("email", "domain_not_allowed", message))
    }
}

/// Not a user yet, but what is known about one: the password must not be near to it.
fn as_user(cx: &Context, checked: &Checked) -> User {
    let mut user = User::new(Uuid::nil(), checked.tenant, cx.now());
    user.username.clone_from(&checked.new.username);
    user.email.clone_from(&checked.new.email);
    user.phone.clone_from(&checked.new.phone);
    user.display_name.clone_from(&checked.new.display_name);
    if let Some(locale) = &checked.new.locale {
        user.locale.clone_from(locale);
    }
    user
}

async fn hash(
    core: &Core,
    user: &User,
    admin: bool,
    password: &Secret<String>,
) -> Result<Secret<String>> {
    passwords::judged_hash(core, user, admin, "password", password).await
}

/// Makes the user, with what an invitation gives.
async fn create(unit: &Unit, invitation: Option<&Secret<String>>, new: NewUser) -> Result<User> {
    match invitation {
        Some(token) => Ok(invitations::accept(unit, token, new).await?.0),
        None => users::create(unit, new).await,
    }
}

fn sealed(core: &Core, email: &str, token: &Secret<String>) -> String {
    let plain = token.expose().as_bytes();
    core.keys.seal(place_of(email), plain, &*core.random)
}

fn opened(core: &Core, email: &str, sealed: &str) -> Result<Secret<String>> {
    let broken = || Error::from(reason::SECRET_BROKEN);
    let plain = core
        .keys
        .open(place_of(email), sealed)
        .map_err(|_| broken())?;
    let text = std::str::from_utf8(plain.expose()).map_err(|_| broken())?;
    Ok(Secret::from(text))
}

const fn place_of(email: &str) -> Place<'_> {
    Place {
        table: "one_time_tokens",
        row: email,
        column: "payload",
    }
}

async fn put_password(unit: &Unit, user: &User, phc: Secret<String>) -> Result<()> {
    let secrets = Secrets {
        password: Some(phc),
        password_changed_at: Some(unit.now()),
        ..Secrets::none(user.id)
    };
    Ok(store::secrets::put(&unit.tx, &secrets).await?)
}

async fn finish(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Wish,
    user: User,
    shown: &str,
) -> Result<Registered> {
    let proof = Proof {
        user,
        method: "registration",
        amr: vec![shown.to_owned()],
        aal: 1,
        device: wish.device.clone(),
        transport: wish.transport,
    };
    let result = Box::pin(login::finish(core, cx, proof)).await?;
    Ok(Registered::Now(Box::new(result)))
}

/// The row that remembers a request. The password is not part of its hash: whoever repeats the request shows
/// it again, and it is compared as at a login.
fn reply(core: &Core, cx: &Context, wish: &Wish, checked: &Checked, key: &str) -> Reply {
    let (by, name) = match &wish.by {
        By::Username(_) => ("username", checked.key.clone()),
        By::Email(_) => ("email", checked.key.clone()),
        // Nothing else is shown again, so the code is part of it.
        By::Phone { transaction, code } => ("phone", format!("{transaction}|{}", code.expose())),
    };
    let locale = wish.locale.as_deref().unwrap_or_default();
    let parts = ["register", by, &name, &checked.new.display_name, locale];
    Reply {
        scope: format!("register|{}", checked.tenant),
        key: key.to_owned(),
        request: core.limits.subject(&parts),
        user: None,
        expires_at: cx.now() + REPEATABLE,
    }
}

async fn remember(unit: &Unit, reply: Option<&Reply>, user: Option<Uuid>) -> Result<()> {
    let Some(reply) = reply else {
        return Ok(());
    };
    store::replies::forget_old(&unit.tx, &reply.scope, &reply.key, unit.now()).await?;
    let reply = Reply {
        user,
        ..reply.clone()
    };
    Ok(store::replies::insert(&unit.tx, &reply).await?)
}

/// The answer to a request that was made before: the same user, with new tokens.
async fn again(
    core: &Arc<Core>,
    cx: &Context,
    wish: &Wish,
    asked: &Reply,
) -> Result<Option<Registered>> {
    let conn = core.db.reader();
    let Some(known) = store::replies::get(conn, &asked.scope, &asked.key, cx.now()).await? else {
        return Ok(None);
    };
    if known.request != asked.request {
        return Err(reason::KEY_REUSED.into());
    }
    let Some(user) = known.user else {
        return Ok(Some(Registered::Waiting));
    };
    let tenant = asked
        .scope
        .rsplit('|')
        .next()
        .and_then(|t| Uuid::parse_str(t).ok());
    let user = store::users::get(conn, tenant.unwrap_or(id::TENANT_DEFAULT), user)
        .await?
        .ok_or(reason::INVALID_CREDENTIALS)?;
    let shown = match (&wish.by, &wish.password) {
        (By::Phone { .. }, _) => "sms",
        (_, password) => {
            passwords::confirm(core, cx, &user, needed(password.as_ref())?).await?;
            "pwd"
        }
    };
    Ok(Some(finish(core, cx, wish, user, shown).await?))
}

fn needed(password: Option<&Secret<String>>) -> Result<&Secret<String>> {
    password.ok_or_else(|| Error::Invalid(vec![required()]))
}

fn required() -> FieldFault {
    FieldFault::new("password", "required", "is needed")
}

fn is_taken(error: &Error) -> bool {
    error.is(reason::USERNAME_TAKEN) || matches!(error, Error::Db(DbError::Unique { .. }))
}
