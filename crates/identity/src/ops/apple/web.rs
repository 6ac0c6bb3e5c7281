//! The way of a browser: to Apple with a state that is bound to it, and back to an allowed address with a one-time code (ID-66).

use std::sync::Arc;

use chrono::Duration;
use portico_base::secret::{constant_time_eq, new_token};
use portico_base::{Context, Secret, id};
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::enter::{Entered, More, Proved, admit, mark, pend, proof};
use super::{CODE, account, failed, link, read, refresh_token};
use crate::apple::{Account, statement};
use crate::domain::device::Platform;
use crate::domain::identity::{AppleUser, name_of};
use crate::domain::login::{DeviceWish, Transport};
use crate::error::{Error, Reason, Result, reason};
use crate::hub::Core;
use crate::limits::Limit;
use crate::ops::login::Place;
use crate::ops::one_time::{self, Holder, Kind, Taken};
use crate::ops::{need_user, step_up, tickets};
use crate::unit::Unit;

/// Where Apple sends browsers back to, below the address that they know us by.
const CALLBACK: &str = "/api/identity/login/apple/callback";

/// A browser that is with Apple.
const STATE: Kind = Kind("apple.state");
/// So long may somebody take there.
const STATE_LIFE: Duration = Duration::minutes(10);
/// Longest `state` of a client, in bytes.
const CLIENT_STATE: usize = 512;
/// Longest statement, as everywhere.
const STATEMENT: usize = 8 * 1024;
/// What we ask Apple for.
const SCOPE: &str = "name email";

/// A browser that wants to go to Apple.
#[derive(Debug)]
pub(crate) struct Start {
    pub place: Option<Place>,
    /// The host that it asked.
    pub host: Option<String>,
    /// Where it wants to end, as the tenant allows it.
    pub return_url: String,
    /// The client's own, which comes back with the code.
    pub state: Option<String>,
    /// What its cookie says.
    pub browser: Option<Secret<String>>,
    /// It links the identity to the user who calls, and logs nobody in.
    pub links: bool,
}

/// Where it goes, and what its cookie is to say.
#[derive(Debug)]
pub(crate) struct Started {
    pub location: String,
    pub browser: Secret<String>,
}

/// What Apple lets the browser post.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Form {
    #[serde(default)]
    pub state: Option<Secret<String>>,
    #[serde(default)]
    pub code: Option<Secret<String>>,
    #[serde(default)]
    pub id_token: Option<Secret<String>>,
    /// JSON with the name, at the first consent only.
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub error: Option<String>,
}

/// What is remembered of a browser while it is with Apple.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    return_url: String,
    client_state: Option<String>,
    /// As it was said to Apple, who wants it again with the code.
    redirect_uri: String,
    nonce: [u8; 32],
    browser: [u8; 32],
    /// The tenant was named.
    chosen: bool,
    links: bool,
}

/// Sends a browser to Apple.
pub(crate) async fn start(core: &Arc<Core>, cx: &Context, wish: Start) -> Result<Started> {
    let (tenant, user) = if wish.links {
        let user = need_user(cx)?;
        step_up::need_fresh(core, cx).await?;
        (cx.tenant(), Some(user))
    } else {
        // A tenant that is not there has no account with Apple either.
        (wish.place.ok_or(reason::METHOD_OFF)?.tenant, None)
    };
    let account = account(core, tenant)?;
    let Some(client_id) = account.services_id.as_deref().filter(|_| account.is_web()) else {
        return Err(reason::METHOD_OFF.into());
    };
    let Some(return_url) = account.allowed_return(&wish.return_url) else {
        let message = "is not one of `identity.apple.redirect_uris`";
        return Err(Error::field("return_url", "not_allowed", message));
    };
    if wish.state.as_ref().is_some_and(|s| s.len() > CLIENT_STATE) {
        let message = format!("must have at most {CLIENT_STATE} bytes");
        return Err(Error::field("state", "length", message));
    }
    core.limits.check_address(Limit::Apple, cx)?;
    // One browser may be with Apple in two tabs, so what its cookie says stays as it is.
    let browser = wish.browser.filter(|text| text.expose().len() == 43);
    let browser = browser.unwrap_or_else(|| new_token("", &*core.random));
    let nonce = new_token("", &*core.random);
    let redirect_uri = redirect_uri(core, wish.host.as_deref());
    let kept = State {
        return_url: return_url.to_string(),
        client_state: wish.state,
        redirect_uri: redirect_uri.clone(),
        nonce: mark(nonce.expose()),
        browser: mark(browser.expose()),
        chosen: wish.place.is_none_or(|p| p.chosen),
        links: wish.links,
    };
    let holder = Holder {
        tenant: Some(tenant),
        user,
    };
    let unit = Unit::begin(core, cx).await?;
    let (state, _) = one_time::issue(core, &unit.tx, STATE, holder, &kept, STATE_LIFE).await?;
    unit.commit().await?;
    let mut location = Url::parse(&core.apple.endpoints.authorize)
        .map_err(|error| Error::Internal(error.to_string()))?;
    location
        .query_pairs_mut()
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", &redirect_uri)
        .append_pair("response_type", "code id_token")
        .append_pair("response_mode", "form_post")
        .append_pair("scope", SCOPE)
        .append_pair("state", state.expose())
        .append_pair("nonce", nonce.expose());
    Ok(Started {
        location: location.into(),
        browser,
    })
}

/// Takes what Apple let a browser post, and says where the browser goes now. Nobody is sent anywhere before
/// the state is known to be this browser's; from then on faults go to the page that the login began on.
pub(crate) async fn callback(
    core: &Arc<Core>,
    cx: &Context,
    form: Form,
    browser: Option<Secret<String>>,
) -> Result<String> {
    core.limits.check_address(Limit::Apple, cx)?;
    let taken = match take_state(core, cx, form.state.as_ref(), browser).await {
        Ok(taken) => taken,
        Err(error) => return Err(failed(core, cx, id::TENANT_DEFAULT, error).await),
    };
    let tenant = taken.tenant.ok_or(reason::TICKET_INVALID)?;
    let account = account(core, tenant)?;
    let state = &taken.payload;
    // It may have been taken from the list meanwhile.
    let allowed = account.allowed_return(&state.return_url);
    let return_url = allowed.ok_or(reason::TICKET_INVALID)?;
    let result = match form.error.as_deref() {
        None => land(core, cx, &account, &taken, &form).await,
        Some("user_cancelled_authorize") => Ok(Landing::Error("cancelled")),
        Some(_) => Ok(Landing::Error("apple_refused")),
    };
    let landing = match result {
        Ok(landing) => landing,
        Err(error) => match failed(core, cx, tenant, error).await.reason() {
            Some(reason) => Landing::Error(reason.word()),
            None => Landing::Error("internal"),
        },
    };
    Ok(landing.at(return_url, state.client_state.as_deref()))
}

/// What a browser is sent home with.
enum Landing {
    /// Good at `/login/exchange`.
    Code(Secret<String>),
    Linked,
    Error(&'static str),
}

impl Landing {
    fn at(&self, url: &Url, client_state: Option<&str>) -> String {
        let mut url = url.clone();
        {
            let mut query = url.query_pairs_mut();
            match self {
                Self::Code(code) => query.append_pair("code", code.expose()),
                Self::Linked => query.append_pair("linked", "apple"),
                Self::Error(word) => query.append_pair("error", word),
            };
            if let Some(state) = client_state {
                query.append_pair("state", state);
            }
        }
        url.into()
    }
}

async fn land(
    core: &Arc<Core>,
    cx: &Context,
    account: &Account,
    taken: &Taken<State>,
    form: &Form,
) -> Result<Landing> {
    let tenant = taken.tenant.ok_or(reason::TICKET_INVALID)?;
    let state = &taken.payload;
    let who = proved(core, cx, account, state, form).await?;
    let code = form.code.as_ref().filter(|c| c.expose().len() <= CODE);
    let redirect_uri = Some(state.redirect_uri.as_str());
    let refresh = refresh_token(core, cx, account, &who, code, redirect_uri).await;
    let name = form.user.as_deref().and_then(name_of);
    let place = Place {
        tenant,
        chosen: state.chosen,
    };
    let proved = Proved::new(core, place, who, name, refresh);
    if state.links {
        let user = taken.user.ok_or(reason::TICKET_INVALID)?;
        link::to_user(core, cx, tenant, user, &proved, None).await?;
        return Ok(Landing::Linked);
    }
    enter(core, cx, tenant, &proved).await.map(Landing::Code)
}

/// The code of a login: with its user where there is one, else with what may make one.
async fn enter(
    core: &Arc<Core>,
    cx: &Context,
    tenant: Uuid,
    proved: &Proved,
) -> Result<Secret<String>> {
    let more = More {
        locale: None,
        invitation: None,
    };
    let entered = admit(core, cx, tenant, proved, more).await;
    let unit = Unit::begin(core, cx).await?;
    let code = match entered {
        Ok(Entered::User(user)) => {
            let proof = proof(user, unknown_device(), Transport::Body);
            tickets::exchange_code(core, &unit.tx, &proof).await?.0
        }
        // Whoever was invited says so when the code is redeemed, and offers are made there.
        Ok(Entered::Offer(_)) => pend(core, &unit, tenant, proved).await?,
        Err(error) if error.is(reason::REGISTRATION_CLOSED) => {
            pend(core, &unit, tenant, proved).await?
        }
        Err(error) => return Err(error),
    };
    unit.commit().await?;
    Ok(code)
}

/// Who came back, when the statement repeats the nonce of the state.
async fn proved(
    core: &Core,
    cx: &Context,
    account: &Account,
    state: &State,
    form: &Form,
) -> Result<AppleUser> {
    let token = form.id_token.as_ref();
    let token = token.filter(|t| t.expose().len() <= STATEMENT);
    let token = token.ok_or(reason::APPLE_TOKEN_INVALID)?;
    let (who, claims) = read(core, account, token, cx.now().timestamp()).await?;
    let said = statement::nonce(&claims).map(mark);
    // What an app got is not for browsers.
    let own = account.services_id.as_deref() == Some(&*who.client_id);
    if own && said.is_some_and(|said| constant_time_eq(&said, &state.nonce)) {
        Ok(who)
    } else {
        Err(reason::APPLE_TOKEN_INVALID.into())
    }
}

/// Uses a state up, when it is this browser's. Somebody else's stays good for its owner.
async fn take_state(
    core: &Arc<Core>,
    cx: &Context,
    state: Option<&Secret<String>>,
    browser: Option<Secret<String>>,
) -> Result<Taken<State>> {
    const REFUSED: Reason = reason::TICKET_INVALID;
    let state = state.ok_or(REFUSED)?;
    let unit = Unit::begin(core, cx).await?;
    let seen: Taken<State> = one_time::peek(core, &unit.tx, STATE, state, REFUSED).await?;
    let browser = browser.map(|text| mark(text.expose()));
    if !browser.is_some_and(|own| constant_time_eq(&own, &seen.payload.browser)) {
        return Err(REFUSED.into());
    }
    let taken = one_time::take(core, &unit.tx, STATE, state, REFUSED).await?;
    unit.commit().await?;
    Ok(taken)
}

/// Our address at Apple: of the host that a tenant is bound to, else the public one. Both are configured; what
/// a request says its host is makes no address.
pub(super) fn redirect_uri(core: &Core, host: Option<&str>) -> String {
    match host.filter(|host| core.edge.tenant_by_host(host).is_some()) {
        Some(host) => format!("https://{host}{CALLBACK}"),
        None => format!("{}{CALLBACK}", core.links.base()),
    }
}

/// The device is whatever redeems the code.
fn unknown_device() -> DeviceWish {
    DeviceWish {
        device_id: None,
        device_secret: None,
        secret_hash: None,
        platform: Platform::Web,
        name: String::new(),
        model: String::new(),
        app_version: String::new(),
        os_version: String::new(),
        fingerprint: std::collections::BTreeMap::new(),
    }
}
