//! Verifies access tokens by an issuer's keys; every rule of RFC 8725 that applies to a receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::Notify;

pub use super::claims::Expected;
use portico_token::{KeySet, jws};

use super::{Denied, MAX_TOKEN, TokenVerifier, Verified};

/// Headers that would let the token choose its own key, or change how it is read.
const REFUSED: [&str; 7] = ["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip"];
/// Kinds of token that are access tokens (RFC 9068 §2.1); many issuers write the plain `JWT`.
const KINDS: [&str; 3] = ["at+jwt", "application/at+jwt", "JWT"];
const MAX_KID: usize = 200;

/// Verifies tokens of one issuer.
#[derive(Debug)]
pub struct JwtVerifier {
    expected: Expected,
    keys: ArcSwap<KeySet>,
    epoch: AtomicU64,
    missed: Arc<Notify>,
}

impl JwtVerifier {
    #[must_use]
    pub fn new(expected: Expected, keys: KeySet) -> Self {
        Self {
            expected,
            keys: ArcSwap::from_pointee(keys),
            epoch: AtomicU64::new(1),
            missed: Arc::default(),
        }
    }

    /// Takes new keys; tokens of keys that are gone are refused from now on.
    pub fn set_keys(&self, keys: KeySet) {
        if !self.keys.load().same_as(&keys) {
            self.keys.store(Arc::new(keys));
            self.epoch.fetch_add(1, Relaxed);
        }
    }

    /// Told when a token names a key that is not known.
    #[must_use]
    pub fn missed(&self) -> Arc<Notify> {
        Arc::clone(&self.missed)
    }
}

impl TokenVerifier for JwtVerifier {
    fn verify(&self, token: &str, now_s: i64) -> Result<Verified, Denied> {
        if token.len() > MAX_TOKEN {
            return Err(Denied("too_long"));
        }
        let parts = jws::split(token)?;
        let kid = check_header(&parts.header)?;
        let keys = self.keys.load();
        let Some(key) = keys.find(kid) else {
            self.key_missed();
            return Err(Denied("unknown_key"));
        };
        // The key says which algorithm it is for; the header may only agree.
        if parts.header.get("alg").and_then(Value::as_str) != Some(key.alg) {
            return Err(Denied("algorithm"));
        }
        key.verify(parts.signed, &parts.signature)?;
        let claims = jws::object(&parts.payload)?;
        let expires_s = self.expected.check(&claims, now_s)?;
        self.expected.principal(&claims, expires_s)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    fn key_missed(&self) {
        self.missed.notify_one();
    }
}

fn check_header(header: &Map<String, Value>) -> Result<Option<&str>, Denied> {
    if REFUSED.iter().any(|name| header.contains_key(*name)) {
        return Err(Denied("header"));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if KINDS.contains(&kind.as_str()) => {}
        Some(_) => return Err(Denied("kind")),
    }
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if kid.len() <= MAX_KID => Ok(Some(kid)),
        Some(_) => Err(Denied("kid")),
    }
}
