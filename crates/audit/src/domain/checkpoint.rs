//! Signed points of the chain: whoever has the database but not the master key cannot make them (CT-35).

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use portico_base::envelope::{MasterKeys, OpenError, Place};
use portico_base::{Random, Secret, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::chain::Head;
use super::jcs;
use super::record::{Hash, moment};

/// A signed point of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub seq: u64,
    pub link: Vec<u8>,
    /// Links since the checkpoint before.
    pub count: u64,
    pub at: Timestamp,
    pub key_id: String,
    pub signature: Vec<u8>,
}

/// The key that signs, as its row holds it.
#[derive(Debug, Clone)]
pub(crate) struct StoredKey {
    pub key_id: String,
    pub public_key: Vec<u8>,
    pub sealed: String,
    /// Id of the master key that sealed it.
    pub master_key: String,
    pub created_at: Timestamp,
}

/// Public keys by id, and the installation whose chain they sign.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    installation: Uuid,
    by_id: BTreeMap<String, Vec<u8>>,
}

impl Keys {
    pub(crate) fn new(
        installation: Uuid,
        keys: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Self {
        Self {
            installation,
            // A key that is not the one of its id proves nothing.
            by_id: { keys.into_iter() }
                .filter(|(id, key)| *id == key_id(key))
                .collect(),
        }
    }

    /// True when one of the keys signed exactly this checkpoint.
    pub(crate) fn verifies(&self, checkpoint: &Checkpoint) -> bool {
        let Some(key) = self.by_id.get(&checkpoint.key_id) else {
            return false;
        };
        let text = signed_text(self.installation, checkpoint);
        UnparsedPublicKey::new(&ED25519, key)
            .verify(text.as_bytes(), &checkpoint.signature)
            .is_ok()
    }
}

/// The key that signs, opened.
pub(crate) struct Signer {
    pub key_id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// A new key, and its row: sealed by the master key.
    pub(crate) fn make(
        master: &MasterKeys,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<StoredKey, OpenError> {
        let mut fresh = vec![0; 32];
        random.fill(&mut fresh);
        let seed = Secret::new(fresh);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| OpenError)?;
        let public_key = pair.public_key().as_ref().to_vec();
        let key_id = key_id(&public_key);
        Ok(StoredKey {
            sealed: master.seal(place(&key_id), seed.expose(), random),
            master_key: master.current().to_owned(),
            key_id,
            public_key,
            created_at: now,
        })
    }

    /// Opens a stored key.
    pub(crate) fn open(master: &MasterKeys, stored: &StoredKey) -> Result<Self, OpenError> {
        let seed = master.open(place(&stored.key_id), &stored.sealed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| OpenError)?;
        // A public key that somebody put there would make every later verification theirs.
        if pair.public_key().as_ref() != stored.public_key {
            return Err(OpenError);
        }
        Ok(Self {
            key_id: stored.key_id.clone(),
            pair,
        })
    }

    /// Signs a point of the chain.
    pub(crate) fn sign(
        &self,
        installation: Uuid,
        head: &Head,
        count: u64,
        at: Timestamp,
    ) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            seq: head.seq,
            link: head.link.to_vec(),
            count,
            at,
            key_id: self.key_id.clone(),
            signature: Vec::new(),
        };
        let text = signed_text(installation, &checkpoint);
        checkpoint.signature = self.pair.sign(text.as_bytes()).as_ref().to_vec();
        checkpoint
    }
}

impl Checkpoint {
    /// Where a verification that begins behind it stands.
    pub(crate) fn head(&self) -> Option<Head> {
        Some(Head {
            seq: self.seq,
            link: Hash::try_from(&*self.link).ok()?,
        })
    }
}

/// Where the key's envelope lives.
pub(crate) const fn place(key_id: &str) -> Place<'_> {
    Place {
        table: "audit_keys",
        row: key_id,
        column: "sealed",
    }
}

/// A key's id: the first sixteen hex digits of its hash, so that the same key has the same id everywhere.
fn key_id(public_key: &[u8]) -> String {
    hex::encode(&Sha256::digest(public_key)[..8])
}

/// What is signed (P§14).
fn signed_text(installation: Uuid, c: &Checkpoint) -> String {
    jcs::text(&json!({
        "v": 1,
        "installation_id": installation,
        "seq": c.seq,
        "link": hex::encode(&c.link),
        "at": moment(c.at),
        "count": c.count,
    }))
}
