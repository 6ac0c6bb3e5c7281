//! What Apple signs: statements about somebody (id tokens) and notices. Every rule of P§7 that applies to a receiver.

use portico_contract::tokens::Denied;
use portico_token::{KeySet, jws};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::account::Account;
use crate::domain::identity::{AppleUser, is_relay};

/// Both names that Apple gives itself. Its discovery document named the second one for two days while tokens
/// kept the first.
const ISSUERS: [&str; 2] = ["https://appleid.apple.com", "https://account.apple.com"];
/// The one algorithm that Apple signs with.
const ALGORITHM: &str = "RS256";
/// Headers that would let a statement choose its own key, or change how it is read.
const REFUSED: [&str; 7] = ["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip"];
/// Longer ones are not looked at.
const LONGEST: usize = 8 * 1024;
const KID: usize = 200;
const SUBJECT: usize = 255;
const EMAIL: usize = 254;
/// A notice is known by it.
const JTI: usize = 255;
/// Clocks differ.
const SKEW_S: i64 = 60;

/// A notice of Apple about somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub client_id: String,
    pub id: String,
    pub subject: String,
    pub event: Event,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    ConsentRevoked,
    AccountDeleted,
    EmailDisabled,
    EmailEnabled,
    /// Something that Apple has thought of since.
    Other,
}

/// The key that a statement names. Nothing of it is verified yet.
pub(crate) fn kid(token: &str) -> Result<String, Denied> {
    if token.len() > LONGEST {
        return Err(Denied("too_long"));
    }
    let parts = jws::split(token)?;
    if REFUSED.iter().any(|name| parts.header.contains_key(*name)) {
        return Err(Denied("header"));
    }
    match parts.header.get("typ") {
        None => {}
        Some(Value::String(kind)) if kind == "JWT" => {}
        Some(_) => return Err(Denied("kind")),
    }
    if parts.header.get("alg").and_then(Value::as_str) != Some(ALGORITHM) {
        return Err(Denied("algorithm"));
    }
    match parts.header.get("kid") {
        Some(Value::String(kid)) if (1..=KID).contains(&kid.len()) => Ok(kid.clone()),
        _ => Err(Denied("kid")),
    }
}

/// What a statement says, when Apple signed it. The key says which algorithm it is for.
pub(crate) fn claims(token: &str, keys: &KeySet) -> Result<Map<String, Value>, Denied> {
    let kid = kid(token)?;
    let parts = jws::split(token)?;
    let key = keys.find(Some(&kid)).ok_or(Denied("unknown_key"))?;
    if key.alg != ALGORITHM {
        return Err(Denied("algorithm"));
    }
    key.verify(parts.signed, &parts.signature)?;
    jws::object(&parts.payload)
}

/// Who a statement is about, when it was made for us and is good now. The nonce is the caller's to compare.
pub(crate) fn user(
    claims: &Map<String, Value>,
    account: &Account,
    now_s: i64,
) -> Result<AppleUser, Denied> {
    let (client_id, issued_s) = common(claims, now_s)?;
    if !account.is_audience(client_id) {
        return Err(Denied("audience"));
    }
    let subject = text(claims, "sub", SUBJECT).ok_or(Denied("subject"))?;
    let email = match claims.get("email") {
        None | Some(Value::Null) => None,
        Some(Value::String(address)) if address.len() <= EMAIL => Some(address.clone()),
        Some(_) => return Err(Denied("email")),
    };
    let verified = flag(claims, "email_verified")?;
    let relay = email.as_deref().is_some_and(is_relay);
    Ok(AppleUser {
        team: account.team.clone(),
        client_id: client_id.to_owned(),
        subject: subject.to_owned(),
        email_verified: email.is_some() && verified,
        is_private_email: flag(claims, "is_private_email")? || relay,
        email,
        issued_s,
    })
}

/// The nonce that a statement repeats.
pub(crate) fn nonce(claims: &Map<String, Value>) -> Option<&str> {
    text(claims, "nonce", SUBJECT)
}

/// What a notice says. Whether it is for us the caller decides, who knows all tenants.
pub(crate) fn notice(claims: &Map<String, Value>, now_s: i64) -> Result<Notice, Denied> {
    #[derive(Deserialize)]
    struct Told {
        #[serde(rename = "type")]
        kind: String,
        sub: String,
        event_time: i64,
    }
    let (client_id, _) = common(claims, now_s)?;
    let id = text(claims, "jti", JTI).ok_or(Denied("jti"))?;
    // JSON in a text, as Apple documents it; an object is taken as well.
    let told: Told = match claims.get("events") {
        Some(Value::String(text)) => {
            let told = jws::object(text.as_bytes())?;
            serde_json::from_value(Value::Object(told))
        }
        Some(told @ Value::Object(_)) => serde_json::from_value(told.clone()),
        _ => return Err(Denied("events")),
    }
    .map_err(|_| Denied("events"))?;
    if told.sub.is_empty() || told.sub.len() > SUBJECT {
        return Err(Denied("subject"));
    }
    Ok(Notice {
        client_id: client_id.to_owned(),
        id: id.to_owned(),
        subject: told.sub,
        event: match told.kind.as_str() {
            "consent-revoked" => Event::ConsentRevoked,
            // The document's word, and the developer forum's.
            "account-deleted" | "account-delete" => Event::AccountDeleted,
            "email-disabled" => Event::EmailDisabled,
            "email-enabled" => Event::EmailEnabled,
            _ => Event::Other,
        },
        at_ms: told.event_time,
    })
}

/// Issuer and times; answers the audience and when it was made.
fn common(claims: &Map<String, Value>, now_s: i64) -> Result<(&str, i64), Denied> {
    let issuer = claims.get("iss").and_then(Value::as_str);
    if !issuer.is_some_and(|iss| ISSUERS.contains(&iss)) {
        return Err(Denied("issuer"));
    }
    let seconds = |name: &str| claims.get(name).and_then(Value::as_i64).filter(|s| *s > 0);
    let expires_s = seconds("exp").ok_or(Denied("expiry"))?;
    if expires_s <= now_s {
        return Err(Denied("expired"));
    }
    let issued_s = seconds("iat").ok_or(Denied("issued_at"))?;
    if issued_s > now_s + SKEW_S {
        return Err(Denied("issued_at"));
    }
    let begins = claims.contains_key("nbf").then(|| seconds("nbf"));
    if begins.is_some_and(|at| at.is_none_or(|at| at > now_s + SKEW_S)) {
        return Err(Denied("not_before"));
    }
    // One text: a list would let a statement be for somebody else as well.
    let audience = claims.get("aud").and_then(Value::as_str);
    Ok((audience.ok_or(Denied("audience"))?, issued_s))
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str, longest: usize) -> Option<&'c str> {
    let text = claims.get(name)?.as_str()?;
    (1..=longest).contains(&text.len()).then_some(text)
}

/// Apple writes its flags as texts or as booleans.
fn flag(claims: &Map<String, Value>, name: &'static str) -> Result<bool, Denied> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(_) => Err(Denied("flag")),
    }
}
