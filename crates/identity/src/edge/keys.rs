//! The signing keys in memory: one signs, several verify, and what is published of them.

use std::sync::Arc;

use bytes::Bytes;
use foldhash::{HashMap, HashSet};
use portico_base::Timestamp;
use portico_base::envelope::{MasterKeys, Place};
use portico_contract::tokens::Denied;
use portico_token::{SigningKey, VerifyingKey};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::store::keys::{KeyState, SigningKeyRow};

/// A snapshot of the keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    active: Option<SigningKey>,
    active_since: Option<Timestamp>,
    verifying: HashMap<Box<str>, VerifyingKey>,
    dropped: HashSet<Box<str>>,
    jwks: Bytes,
}

/// Where the seed of a key is kept.
pub(crate) const fn place(kid: &str) -> Place<'_> {
    Place {
        table: "signing_keys",
        row: kid,
        column: "private",
    }
}

impl Keys {
    /// Opens what the rows hold. A key that cannot be opened (a replica without the new master key) is told of
    /// and left out: it must not keep revocations from being followed.
    pub(super) fn open(rows: &[SigningKeyRow], master: &MasterKeys) -> Self {
        let mut keys = Self::default();
        let mut published: Vec<&Value> = Vec::new();
        for row in rows {
            if row.state == KeyState::Dropped {
                keys.dropped.insert(row.kid.as_str().into());
                continue;
            }
            let Ok(key) = VerifyingKey::from_jwk(&row.public_jwk) else {
                tracing::error!(kid = row.kid, "a signing key's public half is broken");
                continue;
            };
            keys.verifying.insert(row.kid.as_str().into(), key);
            published.push(&row.public_jwk);
            if row.state == KeyState::Active {
                keys.active = signing(row, master);
                keys.active_since = row.activated_at;
            }
        }
        keys.jwks = json!({ "keys": published }).to_string().into();
        keys
    }

    /// The key that signs.
    pub(super) fn active(&self) -> Result<&SigningKey> {
        self.active
            .as_ref()
            .ok_or_else(|| Error::Internal("there is no signing key that can be opened".to_owned()))
    }

    pub(super) const fn active_since(&self) -> Option<Timestamp> {
        self.active_since
    }

    /// A key by its exact id. What a dropped key signed asks for a refresh, which makes a token of a good key.
    pub(super) fn find(&self, kid: &str) -> std::result::Result<&VerifyingKey, Denied> {
        match self.verifying.get(kid) {
            Some(key) => Ok(key),
            None if self.dropped.contains(kid) => Err(Denied::STALE),
            None => Err(Denied("unknown_key")),
        }
    }

    /// The JWKS document.
    pub(super) fn jwks(&self) -> Bytes {
        self.jwks.clone()
    }

    /// True when both know the same keys in the same states.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let kid = |keys: &Self| keys.active.as_ref().map(|k| Arc::clone(k.kid()));
        self.jwks == other.jwks && self.dropped == other.dropped && kid(self) == kid(other)
    }
}

fn signing(row: &SigningKeyRow, master: &MasterKeys) -> Option<SigningKey> {
    let seed = master.open(place(&row.kid), &row.private).ok();
    let key = seed.and_then(|seed| SigningKey::from_seed(seed.expose()).ok());
    let key = key.filter(|key| **key.kid() == row.kid);
    if key.is_none() {
        tracing::error!(kid = row.kid, "the active signing key cannot be opened");
    }
    key
}
