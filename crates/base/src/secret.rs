//! Secrets: values that cannot be printed, and comparison in constant time.

use std::fmt;

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A secret value. `Debug` and `Display` print `«masked»`; it does not implement `Serialize`.
#[derive(Clone, Default)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; the name makes every use findable.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::mask::MASKED)
    }
}

impl<T: Zeroize> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(crate::mask::MASKED)
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.0.as_ref(), other.0.as_ref())
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

impl From<String> for Secret<String> {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The library's own message would quote the value: a code sent as a number, a password in a list.
        T::deserialize(deserializer)
            .map(Self)
            .map_err(|_| serde::de::Error::custom("is not of the form that is expected here"))
    }
}

/// Compares without telling by time where the first difference is (the lengths may show).
#[must_use]
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A new token: `prefix` and 32 random bytes as base64url, 43 characters behind the prefix.
#[must_use]
pub fn new_token(prefix: &str, random: &dyn crate::Random) -> Secret<String> {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    let token = format!(
        "{prefix}{}",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    );
    bytes.zeroize();
    Secret::new(token)
}

/// SHA-256 of a token: what is stored instead of it. Tokens of [`new_token`] carry 256 random bits,
/// so that a plain hash is enough (no dictionary exists).
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "«masked» «masked»");
        assert_eq!(secret, Secret::from("hunter2"));
        assert_ne!(secret, Secret::from("hunter3"));
    }

    #[test]
    fn a_fault_does_not_quote_what_was_sent() {
        for wrong in ["731998", "[\"731998\"]", "{\"a\": \"731998\"}", "\"731998"] {
            let fault = serde_json::from_str::<Secret<String>>(wrong).unwrap_err();
            assert!(!fault.to_string().contains("731998"), "{fault}");
        }
        let read: Secret<String> = serde_json::from_str("\"731998\"").unwrap();
        assert_eq!(read, Secret::from("731998"));
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let random = crate::SeededRandom::new(3);
        let (a, b) = (new_token("prt_", &random), new_token("prt_", &random));
        assert_eq!(a.expose().len(), 47);
        assert_ne!(a, b);
        assert_ne!(token_hash(a.expose()), token_hash(b.expose()));
    }
}
