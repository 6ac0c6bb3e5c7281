//! Logging in with a code: the user is found by the number, or made (ID-31, ID-50).

use std::sync::Arc;

use portico_base::{Context, FieldFault, Secret, id};
use uuid::Uuid;

use super::send::{Delivery, Send, Sent, send};
use super::verify::{Verify, verify};
use crate::domain::contact::{Country, E164, Identifier, check_phone};
use crate::domain::login::{DeviceWish, LoginResult, Proof, Transport};
use crate::domain::otp::{self, Purpose};
use crate::domain::profile;
use crate::domain::user::User;
use crate::error::{Error, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::ops::login::{self, Place};
use crate::ops::methods::{self, Registration};
use crate::ops::users::{self, NewUser};
use crate::settings::sms as keys;
use crate::store;
use crate::unit::Unit;

/// As `identity.login.methods` has it.
const METHOD: &str = "sms";

/// A code with the device that shows it.
#[derive(Debug)]
pub(crate) struct Login {
    pub transaction: Uuid,
    pub code: Secret<String>,
    pub device: DeviceWish,
    pub transport: Transport,
    /// Of a user that is made.
    pub locale: Option<String>,
}

/// A wish for a code of somebody who is not logged in.
#[derive(Debug)]
pub(crate) struct Ask {
    pub phone: String,
    pub purpose: Purpose,
    /// The client's own name for its device.
    pub device: Option<String>,
    pub locale: Option<String>,
    pub transaction: Option<Uuid>,
}

/// Sends a code to log in with, or to set a new password with. Numbers that nobody has answer as others do:
/// for a login they get a code as well, because it can make a user; for a new password the same is written
/// and nothing sent, and no answer waits for a provider.
pub(crate) async fn ask(
    core: &Arc<Core>,
    cx: &Context,
    place: Option<Place>,
    wish: Ask,
) -> Result<Sent> {
    let tenant = place.map_or(id::TENANT_DEFAULT, |p| p.tenant);
    methods::need(core, tenant, METHOD)?;
    let locale = wish.locale.unwrap_or_else(|| "zh-CN".to_owned());
    let mut faults: Vec<FieldFault> = profile::locale_fault(&locale).into_iter().collect();
    let long = wish.device.as_ref().map(|id| id.chars().count());
    if long.is_some_and(|n| !(8..=64).contains(&n)) {
        let message = "must have 8 to 64 characters";
        faults.push(FieldFault::new("device_id", "length", message));
    }
    let phone = check_phone(&wish.phone, Country::CN).map_err(|fault| faults.push(fault));
    let (Ok(phone), true) = (phone, faults.is_empty()) else {
        return Err(Error::Invalid(faults));
    };
    let Some(place) = place else {
        // Of a tenant that is not there nobody has a number, which is all that anybody is told.
        return Ok(Sent {
            transaction: cx.new_id(),
            resend_after_s: 60,
            expires_in_s: core.settings.system(&keys::OTP_TTL_S),
        });
    };
    let delivery = match wish.purpose {
        Purpose::Reset if find(core, place, &phone).await?.is_none() => Delivery::Pretend,
        Purpose::Reset => Delivery::Background,
        Purpose::Login | Purpose::Bind => Delivery::Wait,
    };
    let wish = Send {
        tenant: place.tenant,
        purpose: wish.purpose,
        phone,
        device: wish.device,
        user: None,
        locale,
        transaction: wish.transaction,
        delivery,
    };
    send(core, cx, wish).await
}

/// Logs in. Only a right code tells whether there is an account, or could be.
pub(crate) async fn login(
    core: &Arc<Core>,
    cx: &Context,
    place: Option<Place>,
    wish: Login,
) -> Result<LoginResult> {
    login::refuse_faults(&wish.device)?;
    if !otp::is_code(wish.code.expose()) {
        return Err(Error::field("code", "form", "must be six digits"));
    }
    methods::need(core, place.map_or(id::TENANT_DEFAULT, |p| p.tenant), METHOD)?;
    core.limits.check_address(Limit::Otp, cx)?;
    let place = place.ok_or(reason::OTP_EXPIRED)?;
    let verified = verify(
        core,
        cx,
        Verify {
            tenant: place.tenant,
            purpose: Purpose::Login,
            transaction: wish.transaction,
            code: &wish.code,
            device: wish.device.device_id.as_deref(),
            user: None,
        },
    )
    .await?;
    let user = match find(core, place, &verified.phone).await? {
        Some(user) => user,
        None => make(core, cx, place, &verified.phone, wish.locale).await?,
    };
    let proof = Proof {
        user,
        method: METHOD,
        amr: vec!["sms".to_owned()],
        aal: 1,
        device: wish.device,
        transport: wish.transport,
    };
    Box::pin(login::finish(core, cx, proof)).await
}

async fn find(core: &Core, place: Place, phone: &E164) -> Result<Option<User>> {
    let identifier = Identifier::Phone(phone.as_str().to_owned());
    for tenant in place.tenants() {
        let found = store::users::find(core.db.reader(), tenant, &identifier).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Makes the user of a proved number where registration is open. Of two at once one is made, and both come in.
async fn make(
    core: &Arc<Core>,
    cx: &Context,
    place: Place,
    phone: &E164,
    locale: Option<String>,
) -> Result<User> {
    if methods::registration(core, place.tenant) != Registration::Open {
        return Err(reason::REGISTRATION_CLOSED.into());
    }
    let unit = Unit::begin_durable(core, cx).await?;
    let new = NewUser {
        phone: Some(phone.as_str().to_owned()),
        phone_verified_at: Some(unit.now()),
        locale,
        ..NewUser::of(place.tenant)
    };
    match users::create(&unit, new).await {
        Ok(user) => {
            unit.commit().await?;
            Ok(user)
        }
        Err(error) if error.is(reason::PHONE_TAKEN) => {
            drop(unit);
            let found = find(core, place, phone).await?;
            found.ok_or_else(|| reason::PHONE_TAKEN.into())
        }
        Err(error) => Err(error),
    }
}
