//! Refresh tokens: a session's id, a counter and a MAC (identity-protocols §8); the database holds nothing that could be presented.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portico_base::Secret;
use portico_base::envelope::{MasterKeys, OpenError};
use portico_base::secret::constant_time_eq;
use uuid::Uuid;

/// What every refresh token begins with.
pub const PREFIX: &str = "ptr_";
/// Characters of a refresh token.
pub const LENGTH: usize = PREFIX.len() + 55;

const VERSION: u8 = 1;
const BYTES: usize = 41;
/// Version, session and counter.
const HEAD: usize = 21;
/// Without the checksum.
const BODY: usize = 37;

/// A refresh token that somebody presented: well-formed, not yet proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The session that it names.
    pub session: Uuid,
    /// Its place in the row of tokens of the session.
    pub counter: u32,
    mac: [u8; 16],
}

/// The key of one session's tokens: HKDF of a master key.
///
/// # Errors
/// When there is no master key with that id.
pub fn session_key(
    keys: &MasterKeys,
    kid: &str,
    session: Uuid,
) -> Result<Secret<[u8; 32]>, OpenError> {
    keys.derive(
        kid,
        [b"portico/refresh/1|", session.as_bytes().as_slice()].concat(),
    )
}

/// The token of a session with a counter.
#[must_use]
pub fn encode(key: &Secret<[u8; 32]>, session: Uuid, counter: u32) -> Secret<String> {
    let head = head(session, counter);
    let mut bytes = [0; BYTES];
    bytes[..HEAD].copy_from_slice(&head);
    bytes[HEAD..BODY].copy_from_slice(&mac(key, &head));
    let sum = crc32fast::hash(&bytes[..BODY]);
    bytes[BODY..].copy_from_slice(&sum.to_be_bytes());
    let mut text = String::with_capacity(LENGTH);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
    Secret::new(text)
}

/// Takes a presented token apart. Garbage is shed here, before anything is read; whether the token is genuine
/// tells [`Presented::is_genuine`].
#[must_use]
pub fn decode(text: &str) -> Option<Presented> {
    if text.len() != LENGTH {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let (body, sum) = bytes.split_at_checked(BODY)?;
    let good = body[0] == VERSION && sum == crc32fast::hash(body).to_be_bytes();
    let (session, rest) = body[1..].split_first_chunk::<16>()?;
    let (counter, mac) = rest.split_first_chunk::<4>()?;
    good.then_some(Presented {
        session: Uuid::from_bytes(*session),
        counter: u32::from_be_bytes(*counter),
        mac: mac.try_into().ok()?,
    })
}

impl Presented {
    /// True when the token was made with the session's key. Takes the same time for every wrong one.
    #[must_use]
    pub fn is_genuine(&self, key: &Secret<[u8; 32]>) -> bool {
        constant_time_eq(&mac(key, &head(self.session, self.counter)), &self.mac)
    }
}

fn head(session: Uuid, counter: u32) -> [u8; HEAD] {
    let mut head = [VERSION; HEAD];
    head[1..17].copy_from_slice(session.as_bytes());
    head[17..].copy_from_slice(&counter.to_be_bytes());
    head
}

fn mac(key: &Secret<[u8; 32]>, head: &[u8; HEAD]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(b"portico/refresh/1");
    context.update(head);
    let tag = context.sign();
    let mut mac = [0; 16];
    mac.copy_from_slice(&tag.as_ref()[..16]);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: Uuid = Uuid::from_u128(0x0190_a2b3_c4d5_7e8f_8a1b_2c3d_4e5f_6071);
    const GOLDEN: &str = "ptr_AQGQorPE1X6PihssPU5fYHEAAAAHvxRcY6UTPKuzxURT0U1LV2gV_p0";

    fn keys() -> MasterKeys {
        MasterKeys::new("mk1", std::array::from_fn(|i| u8::try_from(i).unwrap()))
    }

    #[test]
    fn golden_value() {
        let key = session_key(&keys(), "mk1", SESSION).unwrap();
        let wanted = [
            0x11, 0xb7, 0x70, 0xdc, 0x29, 0x14, 0x18, 0x1d, 0xe8, 0xb6, 0x74, 0xa1, 0xec, 0xbd,
            0x69, 0x27, 0x6b, 0x8e, 0x48, 0x2b, 0xfb, 0x28, 0x0a, 0x6e, 0x2c, 0x7b, 0x97, 0x19,
            0x97, 0x08, 0xb5, 0x0a,
        ];
        assert_eq!(*key.expose(), wanted);
        let token = encode(&key, SESSION, 7);
        assert_eq!(token.expose(), GOLDEN);
        assert_eq!(token.expose().len(), LENGTH);
        let presented = decode(GOLDEN).unwrap();
        assert_eq!((presented.session, presented.counter), (SESSION, 7));
        assert!(presented.is_genuine(&key));
        assert!(session_key(&keys(), "mk2", SESSION).is_err());
    }

    #[test]
    fn another_session_counter_or_key_is_not_genuine() {
        let key = session_key(&keys(), "mk1", SESSION).unwrap();
        let mut presented = decode(GOLDEN).unwrap();
        presented.counter = 8;
        assert!(!presented.is_genuine(&key));
        let other = Uuid::from_u128(SESSION.as_u128() + 1);
        let presented = Presented {
            session: other,
            ..decode(GOLDEN).unwrap()
        };
        assert!(!presented.is_genuine(&key));
        let key = session_key(&keys(), "mk1", other).unwrap();
        assert!(!presented.is_genuine(&key));
    }

    proptest! {
        #[test]
        fn every_token_comes_back(session: u128, counter: u32, key: [u8; 32]) {
            let (session, key) = (Uuid::from_u128(session), Secret::new(key));
            let token = encode(&key, session, counter);
            let back = decode(token.expose()).unwrap();
            prop_assert_eq!((back.session, back.counter), (session, counter));
            prop_assert!(back.is_genuine(&key));
        }

        #[test]
        fn one_changed_character_is_refused(at in 0..LENGTH, to in "[A-Za-z0-9_=. -]") {
            let mut text = GOLDEN.to_owned();
            text.replace_range(at..=at, &to);
            prop_assert_eq!(decode(&text).is_some(), text == GOLDEN);
        }

        #[test]
        fn garbage_is_refused(text in "(ptr_)?.{0,80}") {
            prop_assert_eq!(decode(&text), None);
        }
    }
}
