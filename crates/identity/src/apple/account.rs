//! A tenant's account with Apple: read from its settings with every fault named, and the client secret that its key signs.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portico_base::{FieldFault, Secret};
use portico_contract::settings::{Key, Settings};
use serde_json::json;
use url::Url;
use uuid::Uuid;
use zeroize::Zeroize as _;

use super::client::Failure;
use crate::settings::apple as keys;

/// Audience of a client secret: Apple's issuer, as it has always been.
const AUDIENCE: &str = "https://appleid.apple.com";
/// Life of a client secret. Apple takes half a year; one that is used at once needs minutes.
const SECRET_LIFE_S: i64 = 300;
/// Longest client id.
const CLIENT_ID: usize = 255;

/// A tenant's account with Apple.
pub(crate) struct Account {
    pub team: String,
    key_id: String,
    /// PEM.
    key: Secret<String>,
    /// Client ids of apps.
    clients: Vec<String>,
    /// The client id of browsers.
    pub services_id: Option<String>,
    returns: Vec<Url>,
}

/// The account of a tenant, or everything that is wrong with its settings.
pub(crate) fn account(settings: &Settings, tenant: Uuid) -> Result<Account, Vec<FieldFault>> {
    let text = |key: &Key<String>| settings.get(tenant, key).trim().to_owned();
    let mut faults = Faults::default();
    if !settings.get(tenant, &keys::ENABLED) {
        faults.add(keys::ENABLED.declaration.key, "off", "is switched off");
    }
    let (team, key_id) = (text(&keys::TEAM_ID), text(&keys::KEY_ID));
    for (key, value) in [(&keys::TEAM_ID, &team), (&keys::KEY_ID, &key_id)] {
        let good = value.len() == 10 && value.bytes().all(|b| b.is_ascii_alphanumeric());
        let message = "must be ten letters and digits";
        faults.unless(good, key, value, message);
    }
    let key = Secret::new(settings.get(tenant, &keys::PRIVATE_KEY));
    let message = "must be a P-256 key in PKCS#8 as PEM, as Apple gives it";
    let good = pair(key.expose()).is_some();
    faults.unless(good, &keys::PRIVATE_KEY, key.expose(), message);
    let services_id = Some(text(&keys::SERVICES_ID)).filter(|id| !id.is_empty());
    let clients = settings.get(tenant, &keys::CLIENT_IDS);
    if clients.is_empty() && services_id.is_none() {
        let message = "neither a bundle id nor a Services ID is set";
        faults.add(keys::CLIENT_IDS.declaration.key, "required", message);
    }
    for (index, id) in clients.iter().enumerate() {
        if !is_client_id(id) {
            faults.add_at(&keys::CLIENT_IDS, index, "is no bundle id");
        }
    }
    if services_id.as_deref().is_some_and(|id| !is_client_id(id)) {
        faults.add(
            keys::SERVICES_ID.declaration.key,
            "form",
            "is no Services ID",
        );
    }
    let mut returns = Vec::new();
    for (index, address) in settings
        .get(tenant, &keys::REDIRECT_URIS)
        .iter()
        .enumerate()
    {
        match return_url(address) {
            Ok(url) => returns.push(url),
            Err(message) => faults.add_at(&keys::REDIRECT_URIS, index, message),
        }
    }
    if !faults.0.is_empty() {
        return Err(faults.0);
    }
    Ok(Account {
        team,
        key_id,
        key,
        clients,
        services_id,
        returns,
    })
}

/// What is wrong with settings, each by its key.
#[derive(Default)]
struct Faults(Vec<FieldFault>);

impl Faults {
    fn add(&mut self, key: &str, code: &str, message: &str) {
        self.0.push(FieldFault::new(key, code, message));
    }

    /// One entry of a list.
    fn add_at(&mut self, key: &Key<Vec<String>>, index: usize, message: &str) {
        let key = format!("{}[{index}]", key.declaration.key);
        self.add(&key, "form", message);
    }

    /// A text that is needed and has a form.
    fn unless(&mut self, good: bool, key: &Key<String>, value: &str, message: &str) {
        match value.trim() {
            "" => self.add(key.declaration.key, "required", "is not set"),
            _ if good => {}
            _ => self.add(key.declaration.key, "form", message),
        }
    }
}

impl Account {
    /// True for a client id of ours: a statement that was made for another one says nothing to us.
    pub(crate) fn is_audience(&self, client_id: &str) -> bool {
        self.clients.iter().any(|own| own == client_id)
            || self.services_id.as_deref() == Some(client_id)
    }

    /// Apps can log in.
    pub(crate) fn is_native(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Browsers can log in: there is a client id for them, and somewhere to come back to.
    pub(crate) fn is_web(&self) -> bool {
        self.services_id.is_some() && !self.returns.is_empty()
    }

    /// The address as it was allowed, when it was: equal as a parsed address, not by its beginning.
    pub(crate) fn allowed_return(&self, address: &str) -> Option<&Url> {
        let wanted = Url::parse(address).ok()?;
        self.returns.iter().find(|allowed| **allowed == wanted)
    }

    /// A client secret: a short statement of ours that Apple checks with the public key (ES256, RFC 7515).
    pub(super) fn client_secret(
        &self,
        client_id: &str,
        now_s: i64,
    ) -> Result<Secret<String>, Failure> {
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(json!({ "alg": "ES256", "kid": self.key_id }));
        let claims = encode(json!({
            "iss": self.team,
            "iat": now_s,
            "exp": now_s + SECRET_LIFE_S,
            "aud": AUDIENCE,
            "sub": client_id,
        }));
        let signed = format!("{head}.{claims}");
        let pair = pair(self.key.expose()).ok_or(Failure::Key)?;
        let signature = pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| Failure::Key)?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(Secret::new(format!("{signed}.{signature}")))
    }
}

/// The key of a PEM text.
fn pair(pem: &str) -> Option<EcdsaKeyPair> {
    let body = pem
        .trim()
        .strip_prefix("-----BEGIN PRIVATE KEY-----")?
        .strip_suffix("-----END PRIVATE KEY-----")?;
    let mut text: String = body.split_ascii_whitespace().collect();
    let decoded = STANDARD.decode(&text);
    text.zeroize();
    let mut der = decoded.ok()?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok();
    der.zeroize();
    pair
}

fn is_client_id(id: &str) -> bool {
    (1..=CLIENT_ID).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// An address to which a browser may come back: a page over TLS, one of a developer's own machine, or an app's
/// own scheme, which has a dot in it so that nobody means `javascript:`.
fn return_url(address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address).map_err(|_| "is no whole address")?;
    if url.fragment().is_some() {
        return Err("must not have a fragment");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not have a user name in it");
    }
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        "http" => Err("must be an https address"),
        own if own.contains('.') => Ok(url),
        _ => Err("must be an https address, or of an app's own scheme like com.example.app:/login"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_come_back_to() {
        for good in [
            "https://app.example.com/login?x=1",
            "http://localhost:5173/login",
            "http://127.0.0.1/",
            "http://[::1]:3000/x",
            "com.example.app:/login",
        ] {
            assert!(return_url(good).is_ok(), "{good}");
        }
        for bad in [
            "app.example.com/login",
            "/login",
            "http://app.example.com/login",
            "http://localhost.example.com/",
            "https://me@app.example.com/",
            "https://app.example.com/#x",
            "javascript:alert(1)",
            "data:text/html,x",
            "app:/login",
        ] {
            assert!(return_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_set_is_named_thing_by_thing() {
        let Err(faults) = account(&Settings::defaults(), portico_base::id::TENANT_DEFAULT) else {
            panic!("an account without settings");
        };
        let named: Vec<(&str, &str)> = faults
            .iter()
            .map(|f| (f.field.as_str(), f.code.as_str()))
            .collect();
        assert_eq!(
            named,
            [
                ("identity.apple.team_id", "required"),
                ("identity.apple.key_id", "required"),
                ("identity.apple.private_key", "required"),
                ("identity.apple.client_ids", "required"),
            ]
        );
    }
}
