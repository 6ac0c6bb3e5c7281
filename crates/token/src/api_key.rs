//! API keys as text (identity-protocols §11): an id that may be seen, a secret, and a checksum that scanners need no server for.

use portico_base::{Random, Secret};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

/// What every API key begins with.
pub const PREFIX: &str = "ptk_";
/// Characters of a key's id.
pub const ID_LENGTH: usize = 12;

const LIVE: &str = "ptk_live_";
const TEST: &str = "ptk_test_";
const SECRET_LENGTH: usize = 43;
const SUM_LENGTH: usize = 6;
const LENGTH: usize = LIVE.len() + ID_LENGTH + 1 + SECRET_LENGTH + 1 + SUM_LENGTH;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a key may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Realm {
    /// Everything that its scopes allow.
    Live,
    /// Sandbox tenants only.
    Test,
}

/// A new key: shown once, kept as id and hash.
#[derive(Debug)]
pub struct NewKey {
    /// The whole key.
    pub text: Secret<String>,
    /// Its id, which is not secret.
    pub id: String,
    /// SHA-256 of the secret's bytes: a fast hash is right for 256 random bits (ASVS 6.5.2).
    pub hash: [u8; 32],
}

/// A presented key whose form and checksum are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'t> {
    /// What it may reach.
    pub realm: Realm,
    /// Its id.
    pub id: &'t str,
    /// SHA-256 of its secret, to be compared in constant time.
    pub hash: [u8; 32],
}

/// Makes a key with an id of its own.
#[must_use]
pub fn make(realm: Realm, random: &dyn Random) -> NewKey {
    let id: String = (0..ID_LENGTH)
        .map(|_| char::from(ALPHABET[usize::try_from(random.below(62)).unwrap_or(0)]))
        .collect();
    with_id(realm, &id, random)
}

/// Makes a further secret for a key that exists (ID-136). The id is one that [`make`] gave.
#[must_use]
pub fn with_id(realm: Realm, id: &str, random: &dyn Random) -> NewKey {
    let mut secret = [0; 32];
    random.fill(&mut secret);
    let text = render(realm, id, &secret);
    let hash = Sha256::digest(secret).into();
    secret.zeroize();
    NewKey {
        text: Secret::new(text),
        id: id.to_owned(),
        hash,
    }
}

/// Takes a presented key apart; nothing when it is no key at all, or was mistyped.
#[must_use]
pub fn parse(text: &str) -> Option<Parsed<'_>> {
    if text.len() != LENGTH || !text.is_ascii() {
        return None;
    }
    let (realm, rest) = match (text.strip_prefix(LIVE), text.strip_prefix(TEST)) {
        (Some(rest), _) => (Realm::Live, rest),
        (_, Some(rest)) => (Realm::Test, rest),
        _ => return None,
    };
    let (id, rest) = rest.split_at(ID_LENGTH);
    let (secret, sum) = rest.strip_prefix('_')?.split_at(SECRET_LENGTH);
    let sum = sum.strip_prefix('_')?;
    let summed = &text.as_bytes()[..LENGTH - SUM_LENGTH - 1];
    if sum != checksum(summed) || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let mut bytes = from_base62(secret)?;
    let hash = Sha256::digest(bytes).into();
    bytes.zeroize();
    Some(Parsed { realm, id, hash })
}

fn render(realm: Realm, id: &str, secret: &[u8; 32]) -> String {
    let realm = match realm {
        Realm::Live => LIVE,
        Realm::Test => TEST,
    };
    let mut text = String::with_capacity(LENGTH);
    text.push_str(realm);
    text.push_str(id);
    text.push('_');
    text.push_str(&to_base62(secret));
    let sum = checksum(text.as_bytes());
    text.push('_');
    text.push_str(&sum);
    text
}

fn checksum(text: &[u8]) -> String {
    let mut rest = crc32fast::hash(text);
    let mut out = [b'0'; SUM_LENGTH];
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    out.iter().map(|b| char::from(*b)).collect()
}

/// A 256-bit number, most significant digit first, padded with zeros.
fn to_base62(number: &[u8; 32]) -> String {
    let mut rest = *number;
    let mut out = [b'0'; SECRET_LENGTH];
    for place in out.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut rest {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *place = ALPHABET[remainder as usize];
    }
    rest.zeroize();
    out.iter().map(|b| char::from(*b)).collect()
}

/// The number again; nothing for foreign digits, or when it has more than 256 bits.
fn from_base62(text: &str) -> Option<[u8; 32]> {
    let mut number = [0_u8; 32];
    for digit in text.bytes() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'Z' => digit - b'A' + 10,
            b'a'..=b'z' => digit - b'a' + 36,
            _ => return None,
        };
        let mut carry = u32::from(value);
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = value.to_le_bytes()[0];
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use portico_base::random::SeededRandom;
    use proptest::prelude::*;

    use super::*;

    const GOLDEN: &str = "ptk_live_k3J9vQ2mXa7B_7cMxemzhJjkW31yzTx5H07wJF2A2uBEOEec26ubYMsJ_3Ymidn";

    fn secret() -> [u8; 32] {
        std::array::from_fn(|i| u8::try_from(i + 0x20).unwrap())
    }

    #[test]
    fn golden_value() {
        assert_eq!(render(Realm::Live, "k3J9vQ2mXa7B", &secret()), GOLDEN);
        let parsed = parse(GOLDEN).unwrap();
        assert_eq!((parsed.realm, parsed.id), (Realm::Live, "k3J9vQ2mXa7B"));
        let hex: String = parsed.hash.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "72dbb7336c76780023f83da4c355f2eeea85733b13d3477697917790c1229084"
        );
    }

    #[test]
    fn made_keys_come_back_and_are_never_printed() {
        let random = SeededRandom::new(5);
        let (one, other) = (make(Realm::Live, &random), make(Realm::Test, &random));
        assert_ne!(one.id, other.id);
        for (key, realm) in [(&one, Realm::Live), (&other, Realm::Test)] {
            let parsed = parse(key.text.expose()).unwrap();
            assert_eq!(
                (parsed.realm, parsed.id, parsed.hash),
                (realm, &*key.id, key.hash)
            );
            assert!(!format!("{key:?}").contains(&key.text.expose()[22..40]));
        }
        let second = with_id(Realm::Live, &one.id, &random);
        assert_eq!(second.id, one.id);
        assert_ne!(second.hash, one.hash);
    }

    #[test]
    fn a_number_beyond_256_bits_is_refused() {
        let head = format!("ptk_live_k3J9vQ2mXa7B_{}", "z".repeat(SECRET_LENGTH));
        assert_eq!(
            parse(&format!("{head}_{}", checksum(head.as_bytes()))),
            None
        );
        assert_eq!(from_base62(&to_base62(&[0xff; 32])), Some([0xff; 32]));
    }

    proptest! {
        #[test]
        fn every_secret_comes_back(secret: [u8; 32]) {
            prop_assert_eq!(from_base62(&to_base62(&secret)), Some(secret));
        }

        #[test]
        fn one_changed_character_is_refused(at in 0..LENGTH, to in "[A-Za-z0-9_=. -]") {
            let mut text = GOLDEN.to_owned();
            text.replace_range(at..=at, &to);
            prop_assert_eq!(parse(&text).is_some(), text == GOLDEN);
        }

        #[test]
        fn garbage_is_refused(text in "(ptk_(live|test)_)?.{0,90}") {
            prop_assert_eq!(parse(&text), None);
        }
    }
}
