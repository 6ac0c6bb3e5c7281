//! A copy of the master keys under a passphrase, to be kept where the backups are not (BK-3).

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use portico_base::{Random, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// Shortest passphrase, in characters: whoever has the copy may try as long as they like.
const SHORTEST: usize = 12;
/// Argon2id with 256 MiB and three passes: about a second, once.
const MEMORY_KIB: u32 = 256 * 1024;
const PASSES: u32 = 3;
/// What a copy may ask for, so that opening a strange one is bounded.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 10;
const AAD: &[u8] = b"portico/key-copy/1";

/// Why a copy could not be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// The passphrase is too short.
    #[error("the passphrase needs at least 12 characters")]
    Short,
    /// The passphrase is wrong, or the copy was changed.
    #[error("the passphrase is wrong, or the copy was changed")]
    Wrong,
    /// The text is no copy of keys.
    #[error("this is no copy of master keys")]
    Form,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    portico_key_copy: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    sealed: String,
}

/// Seals keys under a passphrase, the present one first. Takes about a second of one core.
///
/// # Errors
/// When the passphrase is too short.
pub fn seal_copy(
    passphrase: &Secret<String>,
    keys: &[Secret<[u8; 32]>],
    random: &dyn Random,
) -> Result<String, CopyError> {
    seal_with(passphrase, keys, random, MEMORY_KIB)
}

fn seal_with(
    passphrase: &Secret<String>,
    keys: &[Secret<[u8; 32]>],
    random: &dyn Random,
    memory_kib: u32,
) -> Result<String, CopyError> {
    if passphrase.expose().chars().count() < SHORTEST {
        return Err(CopyError::Short);
    }
    let mut salt = [0; 32];
    random.fill(&mut salt);
    let key = stretched(passphrase, &salt, memory_kib, PASSES)?;
    let mut sealed: Vec<u8> = keys.iter().flat_map(|key| *key.expose()).collect();
    key.seal_in_place_append_tag(nonce(), Aad::from(AAD), &mut sealed)
        .expect("AES-GCM seals any text below 64 GiB");
    let copy = Copy {
        portico_key_copy: 1,
        kdf: "argon2id".to_owned(),
        memory_kib,
        passes: PASSES,
        salt: STANDARD_NO_PAD.encode(salt),
        sealed: STANDARD_NO_PAD.encode(sealed),
    };
    serde_json::to_string_pretty(&copy).map_err(|_| CopyError::Form)
}

/// Opens a copy: the keys in their order.
///
/// # Errors
/// When the text is no copy, or the passphrase is wrong.
pub fn open_copy(
    passphrase: &Secret<String>,
    text: &str,
) -> Result<Vec<Secret<[u8; 32]>>, CopyError> {
    let copy: Copy = serde_json::from_str(text).map_err(|_| CopyError::Form)?;
    let bounded = copy.memory_kib <= MOST_MEMORY_KIB && (1..=MOST_PASSES).contains(&copy.passes);
    if copy.portico_key_copy != 1 || copy.kdf != "argon2id" || !bounded || text.len() > 65_536 {
        return Err(CopyError::Form);
    }
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| CopyError::Form);
    let (salt, mut sealed) = (decode(&copy.salt)?, decode(&copy.sealed)?);
    let key = stretched(passphrase, &salt, copy.memory_kib, copy.passes)?;
    let plain = key
        .open_in_place(nonce(), Aad::from(AAD), &mut sealed)
        .map_err(|_| CopyError::Wrong)?;
    let keys = plain.chunks_exact(32).filter_map(|key| key.try_into().ok());
    let keys = keys.map(Secret::new).collect();
    sealed.zeroize();
    Ok(keys)
}

fn stretched(
    passphrase: &Secret<String>,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Result<LessSafeKey, CopyError> {
    let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(|_| CopyError::Form)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose().as_bytes(), salt, &mut key)
        .map_err(|_| CopyError::Form)?;
    let unbound = UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes are an AES-256 key");
    key.zeroize();
    Ok(LessSafeKey::new(unbound))
}

/// The key belongs to one salt, and seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use portico_base::SeededRandom;

    use super::*;

    #[test]
    fn a_copy_opens_with_its_passphrase_alone() {
        let keys = [Secret::new([7; 32]), Secret::new([9; 32])];
        let passphrase = Secret::from("correct horse battery");
        let random = SeededRandom::new(1);
        let text = seal_with(&passphrase, &keys, &random, 64).unwrap();
        assert_eq!(open_copy(&passphrase, &text).unwrap(), keys);
        let other = Secret::from("correct horse batterz");
        assert_eq!(open_copy(&other, &text), Err(CopyError::Wrong));
        let weaker = text.replace("\"passes\": 3", "\"passes\": 2");
        assert_eq!(open_copy(&passphrase, &weaker), Err(CopyError::Wrong));
        let greedy = text.replace("\"memory_kib\": 64", "\"memory_kib\": 4000000000");
        assert_eq!(open_copy(&passphrase, &greedy), Err(CopyError::Form));
        assert_eq!(open_copy(&passphrase, "{}"), Err(CopyError::Form));
        let short = seal_with(&Secret::from("short"), &keys, &random, 64);
        assert_eq!(short, Err(CopyError::Short));
    }
}
