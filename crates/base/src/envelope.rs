//! Envelope for secrets at rest: AES-256-GCM under a key derived for one table, row and column.
//!
//! Bytes: `0x01 ‖ len(kid) ‖ kid ‖ nonce (12) ‖ ciphertext ‖ tag (16)`; text form `penc_` and base64url.
//! The record key is HKDF-SHA256(master, salt empty, info) with
//! `info = "portico/aead/1|table|row|column"`, which is the associated data as well: a ciphertext
//! cannot be moved to another row, and no key meets the 2³² limit for random nonces (NIST SP 800-38D).

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroize;

use crate::random::Random;
use crate::secret::Secret;

const VERSION: u8 = 1;
const PREFIX: &str = "penc_";
const NONCE_LEN: usize = 12;

/// Where a secret lives; part of its key.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Table name.
    pub table: &'a str,
    /// Row key as text.
    pub row: &'a str,
    /// Column name.
    pub column: &'a str,
}

/// Something is wrong with a ciphertext or its key. No detail, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encrypted value cannot be opened")]
pub struct OpenError;

/// Id of the master key that an envelope was sealed with; nothing when it is no envelope.
#[must_use]
pub fn key_id(text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let [VERSION, len, rest @ ..] = bytes.as_slice() else {
        return None;
    };
    let kid = rest.get(..usize::from(*len))?;
    String::from_utf8(kid.to_vec()).ok()
}

/// The master keys by id: one seals, all open.
#[derive(Clone)]
pub struct MasterKeys {
    current: String,
    keys: BTreeMap<String, Secret<[u8; 32]>>,
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKeys")
            .field("current", &self.current)
            .field("ids", &self.keys.keys())
            .finish()
    }
}

impl MasterKeys {
    /// Keys with the one that seals; its id is at most 255 bytes.
    #[must_use]
    pub fn new(current: &str, key: [u8; 32]) -> Self {
        Self {
            current: current.chars().take(64).collect(),
            keys: BTreeMap::from([(current.chars().take(64).collect(), Secret::new(key))]),
        }
    }

    /// Adds a key that only opens (a previous one).
    #[must_use]
    pub fn with_previous(mut self, kid: &str, key: [u8; 32]) -> Self {
        self.keys.insert(kid.to_owned(), Secret::new(key));
        self
    }

    /// Id of the key that seals.
    #[must_use]
    pub fn current(&self) -> &str {
        &self.current
    }

    /// Ids of all keys, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// Encrypts `plaintext` for `place`, as text.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plaintext: &[u8], random: &dyn Random) -> String {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let info = info(place);
        let key = &self.keys[&self.current];
        let mut body = plaintext.to_vec();
        record_key(key, &info)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(info.as_bytes()),
                &mut body,
            )
            .expect("AES-GCM seals any text below 64 GiB");
        let mut out = vec![VERSION, u8::try_from(self.current.len()).unwrap_or(0)];
        out.extend_from_slice(self.current.as_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(out))
    }

    /// Decrypts what [`MasterKeys::seal`] made for the same place.
    ///
    /// # Errors
    /// One error without detail for a wrong form, key, place or tag.
    pub fn open(&self, place: Place<'_>, text: &str) -> Result<Secret<Vec<u8>>, OpenError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(OpenError)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| OpenError)?;
        let [VERSION, kid_len, rest @ ..] = bytes.as_slice() else {
            return Err(OpenError);
        };
        let (kid, rest) = rest
            .split_at_checked(usize::from(*kid_len))
            .ok_or(OpenError)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError)?;
        let kid = std::str::from_utf8(kid).map_err(|_| OpenError)?;
        let key = self.keys.get(kid).ok_or(OpenError)?;
        let info = info(place);
        let mut body = body.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError)?;
        let plain = record_key(key, &info)
            .open_in_place(nonce, Aad::from(info.as_bytes()), &mut body)
            .map_err(|_| OpenError)?
            .to_vec();
        body.zeroize();
        Ok(Secret::new(plain))
    }

    /// A key for another purpose than the envelope's: HKDF-SHA256 of a master key with an empty salt and
    /// `info`, which must begin with `portico/` and the purpose.
    ///
    /// # Errors
    /// When there is no master key with that id.
    pub fn derive(&self, kid: &str, info: impl AsRef<[u8]>) -> Result<Secret<[u8; 32]>, OpenError> {
        let master = self.keys.get(kid).ok_or(OpenError)?;
        let mut out = [0; 32];
        derive(master, info.as_ref(), &mut out);
        Ok(Secret::new(out))
    }

    /// A value that shows which master key an installation was made with, without telling the key.
    #[must_use]
    pub fn check_value(&self) -> String {
        check_value(&self.current, &self.keys[&self.current])
    }

    /// True when one of these keys, current or previous, has that check value.
    #[must_use]
    pub fn knows(&self, check: &str) -> bool {
        self.keys
            .iter()
            .any(|(kid, key)| check_value(kid, key) == check)
    }
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn info(place: Place<'_>) -> String {
    format!(
        "portico/aead/1|{}|{}|{}",
        place.table, place.row, place.column
    )
}

fn check_value(kid: &str, key: &Secret<[u8; 32]>) -> String {
    let info = "portico/key-check/1";
    let mut out = [0; 16];
    derive(key, info.as_bytes(), &mut out);
    format!("{kid}:{}", URL_SAFE_NO_PAD.encode(out))
}

fn derive(master: &Secret<[u8; 32]>, info: &[u8], out: &mut [u8]) {
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(master.expose())
        .expand(&[info], Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF expands to at most 255 hashes, and 32 bytes are one");
}

fn record_key(master: &Secret<[u8; 32]>, info: &str) -> LessSafeKey {
    let mut key = [0; 32];
    derive(master, info.as_bytes(), &mut key);
    let unbound = UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes are an AES-256 key");
    key.zeroize();
    LessSafeKey::new(unbound)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;

    impl Random for Counting {
        fn fill(&self, out: &mut [u8]) {
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = u8::try_from(i).unwrap();
            }
        }
    }

    fn keys() -> MasterKeys {
        let mut key = [0; 32];
        Counting.fill(&mut key);
        MasterKeys::new("mk1", key)
    }

    const PLACE: Place<'_> = Place {
        table: "settings",
        row: "identity.sms.aliyun.access_key_secret",
        column: "value",
    };
    const GOLDEN: &str =
        "penc_AQNtazEAAQIDBAUGBwgJCgvOxjEKxAnFlAK5YPshq8RzU6bh-1Tk2DO703cjMD775L-Rqw";

    #[test]
    fn golden_value() {
        assert_eq!(
            keys().seal(PLACE, b"YourAccessKeySecret", &Counting),
            GOLDEN
        );
        assert_eq!(
            keys().open(PLACE, GOLDEN).unwrap().expose(),
            b"YourAccessKeySecret"
        );
    }

    #[test]
    fn an_envelope_names_its_key() {
        assert_eq!(key_id(GOLDEN).as_deref(), Some("mk1"));
        for broken in ["", "penc_", "penc_AQ", "penc_AQk", "x"] {
            assert_eq!(key_id(broken), None, "{broken}");
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        let bytes = URL_SAFE_NO_PAD.decode(&GOLDEN[PREFIX.len()..]).unwrap();
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bad));
            assert!(keys().open(PLACE, &text).is_err(), "byte {i}");
        }
        for cut in 0..bytes.len() {
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes[..cut]));
            assert!(keys().open(PLACE, &text).is_err(), "cut {cut}");
        }
    }

    #[test]
    fn a_ciphertext_cannot_move() {
        let other = Place {
            row: "other",
            ..PLACE
        };
        assert!(keys().open(other, GOLDEN).is_err());
    }

    #[test]
    fn previous_keys_open_and_the_check_value_tells_keys_apart() {
        let old = keys();
        let text = old.seal(PLACE, b"x", &Counting);
        let mut key = [0; 32];
        Counting.fill(&mut key);
        let new = MasterKeys::new("mk2", [7; 32]).with_previous("mk1", key);
        assert_eq!(new.open(PLACE, &text).unwrap().expose(), b"x");
        assert_ne!(new.check_value(), old.check_value());
        assert!(new.knows(&old.check_value()) && !old.knows(&new.check_value()));
    }
}
