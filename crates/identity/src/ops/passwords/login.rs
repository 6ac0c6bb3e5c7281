//! Logging in with a password: known and unknown names cost the same work and the same statements (ID-33, ID-40).

use std::sync::Arc;

use portico_base::secret::constant_time_eq;
use portico_base::{Context, Secret, id};
use serde_json::json;
use uuid::Uuid;

use crate::domain::contact::{Country, Identifier};
use crate::domain::login::{DeviceWish, LoginResult, Proof, Transport};
use crate::domain::user::User;
use crate::error::{Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::ops::guard::{self, Try, Whose};
use crate::ops::login::{self, Place};
use crate::ops::methods;
use crate::passwords::{Cost, Verdict};
use crate::settings::password as keys;
use crate::store;
use crate::unit::Unit;

/// Longest name that is looked at, in bytes.
const LONGEST_NAME: usize = 320;

/// Somebody who wants in.
#[derive(Debug)]
pub(crate) struct PasswordLogin {
    /// Host that was asked.
    pub host: Option<String>,
    /// Slug of a tenant.
    pub tenant: Option<String>,
    /// User name, e-mail address or phone number.
    pub identifier: String,
    pub password: Secret<String>,
    pub device: DeviceWish,
    pub transport: Transport,
}

/// Compares name and password and finishes the login.
pub(crate) async fn login(
    core: &Arc<Core>,
    cx: &Context,
    wish: PasswordLogin,
) -> Result<LoginResult> {
    let place = login::tenant_of(core, wish.host.as_deref(), wish.tenant.as_deref());
    methods::need(
        core,
        place.map_or(id::TENANT_DEFAULT, |p| p.tenant),
        methods::PASSWORD,
    )?;
    core.limits.check_address(Limit::Password, cx)?;
    let name = Name::of(&wish, place);
    let user = find(core, place, name.identifier.as_ref()).await?;
    let who = user.as_ref().map_or(Uuid::nil(), |u| u.id);
    let device = known_device(core, who, &wish.device).await?;
    let whose = device.map_or(Whose::Name(&name.typed), Whose::Device);
    let attempt = guard::begin(core, core.db.reader(), cx, whose).await?;
    let secrets = store::secrets::get(core.db.reader(), who).await?;
    let cost = core.settings.system(&keys::ARGON2);
    let stored = secrets.password.as_ref();
    let verdict = core.passwords.verify(stored, &wish.password, cost).await?;
    let user = match (user, verdict) {
        (Some(user), Verdict::Right | Verdict::Outdated) => user,
        (user, _) => {
            let tenant = place.map_or(id::TENANT_DEFAULT, |p| p.tenant);
            failed(core, cx, &attempt, &name, &wish.password, (tenant, user)).await?;
            return Err(reason::INVALID_CREDENTIALS.into());
        }
    };
    attempt.succeeded(core).await?;
    if let (Verdict::Outdated, Some(old)) = (verdict, stored) {
        rehash(core, who, old, &wish.password, cost).await;
    }
    let proof = Proof {
        user,
        method: "password",
        amr: vec!["pwd".to_owned()],
        aal: 1,
        device: wish.device,
        transport: wish.transport,
    };
    Box::pin(login::finish(core, cx, proof)).await
}

/// What somebody typed.
struct Name {
    /// Nothing when no account can have such a name.
    identifier: Option<Identifier>,
    /// What failures are counted by: the same for every spelling of a name.
    typed: String,
}

impl Name {
    fn of(wish: &PasswordLogin, place: Option<Place>) -> Self {
        let text = wish.identifier.trim();
        let identifier = (text.len() <= LONGEST_NAME)
            .then(|| Identifier::parse(text, Country::CN))
            .flatten();
        let key = match &identifier {
            Some(Identifier::Username(key) | Identifier::Email(key) | Identifier::Phone(key)) => {
                key.clone()
            }
            None => text.chars().take(LONGEST_NAME).collect(),
        };
        let typed = match place {
            Some(place) => guard::typed(place.chosen.then_some(place.tenant), &key),
            None => format!("{}|{key}", wish.tenant.as_deref().unwrap_or_default()),
        };
        Self { identifier, typed }
    }
}

/// The user whom a name means. Asks the same questions whether there is one or not.
pub(super) async fn find(
    core: &Core,
    place: Option<Place>,
    identifier: Option<&Identifier>,
) -> Result<Option<User>> {
    // Nobody has an empty name, and no tenant has this id.
    let nobody = Identifier::Username(String::new());
    let identifier = identifier.unwrap_or(&nobody);
    let tenants = place.map_or_else(|| vec![Uuid::nil()], Place::tenants);
    let mut found = None;
    for tenant in tenants {
        let user = store::users::find(core.db.reader(), tenant, identifier).await?;
        found = found.or(user);
    }
    Ok(found)
}

/// The device of the user that proves itself. Asks the same question for nobody.
async fn known_device(core: &Core, user: Uuid, wish: &DeviceWish) -> Result<Option<Uuid>> {
    let (Some(client), Some(shown)) = (&wish.device_id, wish.hash()) else {
        return Ok(None);
    };
    let device = store::devices::by_client(core.db.reader(), user, client).await?;
    Ok(device
        .filter(|d| d.revoked_at.is_none() && constant_time_eq(&shown, &d.secret_hash))
        .map(|d| d.id))
}

/// Counts and records a failure; the same statements for every name.
async fn failed(
    core: &Arc<Core>,
    cx: &Context,
    attempt: &Try,
    name: &Name,
    password: &Secret<String>,
    (tenant, user): (Uuid, Option<User>),
) -> Result<()> {
    let unit = Unit::begin(core, cx).await?;
    attempt.failed(&unit).await?;
    let blocked = guard::judge_pair(&unit, &name.typed, password).await?;
    let tenant = user.as_ref().map_or(tenant, |u| u.tenant);
    let user = user.map(|u| u.id);
    let code = reason::INVALID_CREDENTIALS.code;
    unit.audit(guard::login_failed(tenant, user, code)).await?;
    unit.publish(
        "identity.login.failed",
        &user.unwrap_or_default().to_string(),
        &json!({ "tenant_id": tenant, "user_id": user, "method": "password", "code": code }),
    )?;
    unit.commit().await?;
    if blocked {
        core.address_rules.load().await?;
    }
    Ok(())
}

/// Brings a hash to the present kind and cost. The login goes on when that does not work now.
async fn rehash(core: &Core, user: Uuid, old: &Secret<String>, new: &Secret<String>, cost: Cost) {
    let done = async {
        let phc = core.passwords.hash(new, cost).await?;
        let tx = core.db.begin().await?;
        store::secrets::rehash(&tx, user, old, &phc).await?;
        tx.commit().await?;
        Result::Ok(())
    };
    if let Err(error) = done.await {
        tracing::warn!(err = %error, "a password hash could not be renewed");
    }
}
