//! Sign in with Apple: native and by browser, linking and unlinking, Apple's notices, revocation (ID-65…70).

mod enter;
mod link;
mod notice;
mod revoke;
mod web;

pub(crate) use enter::{Entrant, Redeem, hashed, login, nonce, redeem};
pub(crate) use link::{With, link, of_user, own, status, unlink};
pub(crate) use notice::take as take_notice;
pub(crate) use revoke::{handler, revoke_all};
pub(crate) use web::{Form, Start, callback, start};

use std::sync::Arc;

use portico_base::envelope::Place;
use portico_base::{Context, FieldFault, Secret};
use portico_contract::tokens::Denied;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::one_time::Kind;
use super::{guard, methods};
use crate::apple::{Account, Failure, statement};
use crate::domain::identity::{APPLE, AppleUser, plain_name};
use crate::domain::profile;
use crate::error::{Error, Reason, Result, reason};
use crate::hub::Core;
use crate::unit::Unit;

/// A raw nonce of ours.
const NONCE: Kind = Kind("apple.nonce");

/// Longest code of Apple's.
const CODE: usize = 2_048;

/// The account of a tenant that can be used now.
pub(super) fn account(core: &Core, tenant: Uuid) -> Result<Account> {
    if !methods::all(core, tenant).iter().any(|m| m == APPLE) {
        return Err(reason::METHOD_OFF.into());
    }
    crate::apple::account(&core.settings, tenant).map_err(|_| reason::METHOD_OFF.into())
}

/// True when a tenant's account with Apple can be used.
pub(crate) fn is_on(core: &Core, tenant: Uuid) -> bool {
    crate::apple::account(&core.settings, tenant).is_ok()
}

/// True when browsers of a tenant can log in with Apple.
pub(crate) fn is_web(core: &Core, tenant: Uuid) -> bool {
    account(core, tenant).is_ok_and(|account| account.is_web())
}

/// Checks a statement of Apple: signature, issuer, audience, times. Its nonce is the caller's to compare.
async fn read(
    core: &Core,
    account: &Account,
    token: &Secret<String>,
    now_s: i64,
) -> Result<(AppleUser, Map<String, Value>)> {
    let kid = statement::kid(token.expose()).map_err(denied)?;
    let keys = core
        .apple
        .keys
        .with(&kid)
        .await
        .map_err(|no_keys| Error::Later(reason::APPLE_UNAVAILABLE, no_keys.retry_after_s))?;
    let claims = statement::claims(token.expose(), &keys).map_err(denied)?;
    let user = statement::user(&claims, account, now_s).map_err(denied)?;
    Ok((user, claims))
}

/// The refresh token that a code is good for. A login is proved without it, so that an Apple that does not
/// answer now costs the revocation at the account's end and not the login.
async fn refresh_token(
    core: &Core,
    cx: &Context,
    account: &Account,
    who: &AppleUser,
    code: Option<&Secret<String>>,
    redirect_uri: Option<&str>,
) -> Option<Secret<String>> {
    let shown = crate::apple::Code {
        code: code?,
        client_id: &who.client_id,
        redirect_uri,
    };
    let now_s = cx.now().timestamp();
    let (client, url) = (&core.apple.client, &core.apple.endpoints.token);
    let granted = match client.exchange(url, account, shown, now_s).await {
        Ok(granted) => granted,
        Err(error) => {
            warn_failed(&error);
            return None;
        }
    };
    // A code of somebody else would give their token to this account.
    let named = match &granted.id_token {
        Some(token) => read(core, account, token, now_s).await.ok(),
        None => None,
    };
    if named.is_none_or(|(named, _)| named.subject != who.subject) {
        tracing::warn!("a code of Apple belongs to somebody else, or to nobody");
        return None;
    }
    granted.refresh_token
}

fn warn_failed(error: &Failure) {
    tracing::warn!(err = %error, "a code of Apple was good for nothing: no refresh token is kept");
}

fn denied(why: Denied) -> Error {
    tracing::debug!(check = why.0, "a statement of Apple was refused");
    reason::APPLE_TOKEN_INVALID.into()
}

/// Counts and records a login that failed before anybody was known, and answers its error.
async fn failed(core: &Arc<Core>, cx: &Context, tenant: Uuid, error: Error) -> Error {
    let known: Option<Reason> = error.reason();
    core.logins
        .login(APPLE, known.map_or("failed", Reason::word));
    let Some(known) = known.filter(|r| r.kind == portico_base::ErrorKind::Unauthenticated) else {
        return error;
    };
    let recorded = async {
        let unit = Unit::begin(core, cx).await?;
        let record = guard::login_failed(tenant, None, known.code);
        unit.audit(record.change("method", None, Some(APPLE.into())))
            .await?;
        unit.commit().await
    };
    match recorded.await {
        Ok(()) => error,
        Err(broken) => broken,
    }
}

/// What is wrong with the parts that come from a client.
fn faults(
    code: Option<&Secret<String>>,
    name: Option<&String>,
    locale: Option<&String>,
) -> Vec<FieldFault> {
    let mut faults: Vec<FieldFault> = locale
        .and_then(|locale| profile::locale_fault(locale))
        .into_iter()
        .collect();
    if code.is_some_and(|code| !(1..=CODE).contains(&code.expose().len())) {
        let message = format!("must have 1 to {CODE} bytes");
        faults.push(FieldFault::new("code", "length", message));
    }
    if name.is_some_and(|name| name.len() > 1_024) {
        faults.push(FieldFault::new(
            "name",
            "length",
            "must have at most 1024 bytes",
        ));
    }
    faults
}

/// A suggestion for a display name.
fn suggested(name: Option<&String>) -> Option<String> {
    name.and_then(|name| plain_name(name))
}

/// Seals a refresh token for a place.
fn sealed(core: &Core, place: Place<'_>, token: &Secret<String>) -> String {
    core.keys
        .seal(place, token.expose().as_bytes(), &*core.random)
}

fn opened(core: &Core, place: Place<'_>, sealed: &str) -> Result<Secret<String>> {
    let broken = || Error::from(reason::SECRET_BROKEN);
    let plain = core.keys.open(place, sealed).map_err(|_| broken())?;
    let text = std::str::from_utf8(plain.expose()).map_err(|_| broken())?;
    Ok(Secret::from(text))
}

/// Where the refresh token of a linked identity lives.
const fn column(row: &str) -> Place<'_> {
    Place {
        table: "identities",
        row,
        column: "refresh_token",
    }
}
