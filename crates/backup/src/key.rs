//! The key of one file: derived from the master key, or agreed with a recipient (X25519).
//!
//! Every file has 32 random bytes of salt, so every file has a key of its own and its frames may count
//! their nonces. The header that says so is open to read, and authenticated with every frame.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use portico_base::envelope::MasterKeys;
use portico_base::{Random, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use crate::error::{BackupError, Result};
use crate::recipient::{Identity, Recipient};

/// First bytes of every backup.
pub(crate) const MAGIC: &[u8; 8] = b"PORTBK\r\n";
/// Longest header.
pub(crate) const MAX_HEADER: usize = 4_096;
/// Version of the file format.
pub(crate) const FORMAT: u32 = 1;
/// Length of an authentication tag.
pub(crate) const TAG: usize = 16;
/// What the key of a file is derived for.
const PURPOSE: &str = "portico/backup/1";

/// With what a new backup is encrypted.
#[derive(Clone)]
pub enum Lock {
    /// A key derived from the master key: whoever restores needs the master key anyway.
    Master(Arc<MasterKeys>),
    /// A recipient: only the holder of its identity can read the file, this installation cannot.
    Recipient(Recipient),
}

/// What can open backups.
#[derive(Clone)]
pub struct Unlock {
    /// Master keys, present and previous.
    pub master: Arc<MasterKeys>,
    /// Identities of recipients.
    pub identities: Vec<Identity>,
}

/// The open part at the head of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) key: HeaderKey,
    /// 32 bytes, base64.
    salt: String,
}

/// Which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum HeaderKey {
    Master {
        kid: String,
    },
    X25519 {
        recipient: String,
        ephemeral: String,
    },
}

impl HeaderKey {
    /// The key's id as lists show it.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Master { kid } => kid,
            Self::X25519 { recipient, .. } => recipient,
        }
    }
}

/// The key of one file with what every frame is bound to.
pub(crate) struct FileKey {
    key: LessSafeKey,
    /// Hash of everything before the first frame.
    head: [u8; 32],
}

/// Makes the head of a new file and its key.
pub(crate) fn create(lock: &Lock, random: &dyn Random) -> Result<(Vec<u8>, FileKey, String)> {
    let mut salt = [0; 32];
    random.fill(&mut salt);
    let (key, secret) = match lock {
        Lock::Master(keys) => {
            let kid = keys.current().to_owned();
            let secret = from_master(keys, &kid, &salt)?;
            (HeaderKey::Master { kid }, secret)
        }
        Lock::Recipient(recipient) => {
            let mut seed = [0; 32];
            random.fill(&mut seed);
            let ephemeral = private(&seed);
            seed.zeroize();
            let ephemeral = ephemeral?;
            let public = public(&ephemeral)?;
            let secret = agreed(&ephemeral, recipient.bytes(), &public, recipient, &salt)?;
            let key = HeaderKey::X25519 {
                recipient: recipient.to_string(),
                ephemeral: STANDARD_NO_PAD.encode(public),
            };
            (key, secret)
        }
    };
    let id = key.id().to_owned();
    let header = Header {
        format: FORMAT,
        key,
        salt: STANDARD_NO_PAD.encode(salt),
    };
    let json = serde_json::to_vec(&header)
        .map_err(|error| BackupError::Unfit(format!("the header cannot be written: {error}")))?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&u32::try_from(json.len()).unwrap_or(0).to_le_bytes());
    head.extend_from_slice(&json);
    let key = FileKey::new(&secret, &head);
    Ok((head, key, id))
}

/// Reads the header, as far as it can be read without a key.
pub(crate) fn parse(json: &[u8]) -> Result<Header> {
    /// What every version of the header has.
    #[derive(Deserialize)]
    struct Any {
        format: u32,
    }
    let broken = |_| BackupError::damaged("its header cannot be read");
    let any: Any = serde_json::from_slice(json).map_err(broken)?;
    if any.format > FORMAT {
        return Err(BackupError::Newer {
            needs: "another release".to_owned(),
            binary: env!("CARGO_PKG_VERSION").to_owned(),
            why: format!("the file has format {}", any.format),
        });
    }
    serde_json::from_slice(json).map_err(broken)
}

/// The key of a file that is there already.
pub(crate) fn open(unlock: &Unlock, header: &Header, head: &[u8]) -> Result<FileKey> {
    let salt = bytes32(&header.salt)?;
    let secret = match &header.key {
        HeaderKey::Master { kid } => from_master(&unlock.master, kid, &salt)?,
        HeaderKey::X25519 {
            recipient,
            ephemeral,
        } => {
            let ephemeral = bytes32(ephemeral)?;
            let mine = unlock
                .identities
                .iter()
                .find(|identity| identity.recipient().to_string() == *recipient)
                .ok_or_else(|| BackupError::Identity(shown(recipient)))?;
            let key = private(mine.secret())?;
            agreed(&key, &ephemeral, &ephemeral, &mine.recipient(), &salt)?
        }
    };
    Ok(FileKey::new(&secret, head))
}

impl FileKey {
    fn new(secret: &Secret<[u8; 32]>, head: &[u8]) -> Self {
        let unbound =
            UnboundKey::new(&AES_256_GCM, secret.expose()).expect("32 bytes are an AES-256 key");
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, head).as_ref());
        Self {
            key: LessSafeKey::new(unbound),
            head: hash,
        }
    }

    /// Encrypts a frame in place and appends its tag. Number and end are part of the nonce, so that frames
    /// can be neither moved nor cut off (STREAM: Hoang, Reyhanitabar, Rogaway, Vizár 2015).
    pub(crate) fn seal(&self, number: u64, last: bool, frame: &mut Vec<u8>) {
        self.key
            .seal_in_place_append_tag(nonce(number, last), Aad::from(self.head), frame)
            .expect("AES-GCM seals any text below 64 GiB");
    }

    /// Decrypts a frame; gives the plain text, or nothing when it is not this frame of this file.
    pub(crate) fn open<'a>(
        &self,
        number: u64,
        last: bool,
        frame: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.key
            .open_in_place(nonce(number, last), Aad::from(self.head), frame)
            .ok()
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

fn from_master(keys: &MasterKeys, kid: &str, salt: &[u8; 32]) -> Result<Secret<[u8; 32]>> {
    let mut info = format!("{PURPOSE}|").into_bytes();
    info.extend_from_slice(salt);
    keys.derive(kid, info)
        .map_err(|_| BackupError::Key(shown(kid)))
}

fn private(seed: &[u8; 32]) -> Result<PrivateKey> {
    PrivateKey::from_private_key(&X25519, seed)
        .map_err(|_| BackupError::BadKey("the identity is not an X25519 key".to_owned()))
}

pub(crate) fn public_of(seed: &[u8; 32]) -> Result<[u8; 32]> {
    public(&private(seed)?)
}

fn public(key: &PrivateKey) -> Result<[u8; 32]> {
    let bad = || BackupError::BadKey("the identity has no public key".to_owned());
    let key = key.compute_public_key().map_err(|_| bad())?;
    key.as_ref().try_into().map_err(|_| bad())
}

/// The key that both sides can compute; bound to both public keys and the salt.
fn agreed(
    mine: &PrivateKey,
    theirs: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &Recipient,
    salt: &[u8; 32],
) -> Result<Secret<[u8; 32]>> {
    let weak = || BackupError::BadKey("the recipient's key cannot be used".to_owned());
    let theirs = UnparsedPublicKey::new(&X25519, theirs.as_slice());
    agreement::agree(mine, theirs, weak(), |shared| {
        let info = [
            PURPOSE.as_bytes(),
            b"|x25519|",
            ephemeral.as_slice(),
            recipient.bytes().as_slice(),
        ];
        let mut out = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(shared)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .map_err(|_| weak())?;
        Ok(Secret::new(out))
    })
}

fn bytes32(text: &str) -> Result<[u8; 32]> {
    STANDARD_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| BackupError::damaged("its header cannot be read"))
}

/// What a file says, cut to what a message may hold.
fn shown(text: &str) -> String {
    text.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(80)
        .collect()
}
