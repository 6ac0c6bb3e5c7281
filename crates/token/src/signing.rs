//! The house's own keys: Ed25519 (RFC 8032, RFC 8037), named by their thumbprints, and the compact form that they sign.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portico_base::{Random, Secret};
use portico_contract::tokens::Denied;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::jws;

/// The one algorithm of our keys, as headers write it.
pub const ALGORITHM: &str = "EdDSA";
/// Longer tokens are not looked at.
pub const MAX_LENGTH: usize = 8 * 1024;

/// What a token is: tokens of one kind are none of another (RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An access token (RFC 9068).
    Access,
    /// A statement about a caller for one service (`X-Portico-Identity`).
    Statement,
}

impl Kind {
    const fn typ(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Statement => "pi+jwt",
        }
    }
}

/// A key's bytes are no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no Ed25519 key")]
pub struct BadKey;

/// A key that signs.
pub struct SigningKey {
    kid: Arc<str>,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish()
    }
}

impl SigningKey {
    /// A new key and its seed, which is all that has to be kept.
    ///
    /// # Errors
    /// Never for 32 random bytes; the library says so only at run time.
    pub fn generate(random: &dyn Random) -> Result<(Self, Secret<[u8; 32]>), BadKey> {
        let mut seed = [0; 32];
        random.fill(&mut seed);
        let seed = Secret::new(seed);
        Ok((Self::from_seed(seed.expose())?, seed))
    }

    /// The key with a seed.
    ///
    /// # Errors
    /// When there are not 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Result<Self, BadKey> {
        if seed.len() != 32 {
            return Err(BadKey);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| BadKey)?;
        let kid = thumbprint(pair.public_key().as_ref());
        Ok(Self { kid, pair })
    }

    /// Its id: the thumbprint of the public key (RFC 7638).
    #[must_use]
    pub fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// The public key as a JWK.
    #[must_use]
    pub fn public_jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": ALGORITHM,
            "use": "sig",
            "kid": &*self.kid,
            "x": URL_SAFE_NO_PAD.encode(self.pair.public_key()),
        })
    }

    /// A bare signature, for tokens that we would never make.
    #[cfg(test)]
    pub(crate) fn raw_signature(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    /// Signs claims.
    pub(crate) fn sign<T: Serialize>(
        &self,
        kind: Kind,
        claims: &T,
    ) -> serde_json::Result<Secret<String>> {
        let header = format!(
            r#"{{"alg":"{ALGORITHM}","typ":"{}","kid":"{}"}}"#,
            kind.typ(),
            self.kid
        );
        let payload = serde_json::to_vec(claims)?;
        // Three parts in base64 and two dots; one allocation.
        let mut token = String::with_capacity((header.len() + payload.len() + 64) * 4 / 3 + 8);
        URL_SAFE_NO_PAD.encode_string(header, &mut token);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(Secret::new(token))
    }
}

/// A key that verifies what one of ours signed.
#[derive(Clone)]
pub struct VerifyingKey {
    kid: Arc<str>,
    key: ParsedPublicKey,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("kid", &self.kid)
            .finish()
    }
}

impl VerifyingKey {
    /// The key of a JWK as [`SigningKey::public_jwk`] makes them.
    ///
    /// # Errors
    /// When it is none, or its id is not its thumbprint.
    pub fn from_jwk(jwk: &Value) -> Result<Self, BadKey> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        if text("kty") != Some("OKP") || text("crv") != Some("Ed25519") {
            return Err(BadKey);
        }
        let x = text("x")
            .and_then(|x| URL_SAFE_NO_PAD.decode(x).ok())
            .filter(|x| x.len() == 32)
            .ok_or(BadKey)?;
        let kid = thumbprint(&x);
        if text("kid") != Some(&*kid) {
            return Err(BadKey);
        }
        let key = ParsedPublicKey::new(&ED25519, &x).map_err(|_| BadKey)?;
        Ok(Self { kid, key })
    }

    /// Its id.
    #[must_use]
    pub fn kid(&self) -> &Arc<str> {
        &self.kid
    }

    /// True when the signature is this key's.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

/// Verifies form, header and signature, and gives the claims. The key decides about the algorithm, the header may
/// only agree (RFC 8725 §3.1); `find` knows keys by their exact id.
pub(crate) fn open<'k>(
    token: &str,
    kind: Kind,
    find: impl FnOnce(&str) -> Result<&'k VerifyingKey, Denied>,
) -> Result<Map<String, Value>, Denied> {
    if token.len() > MAX_LENGTH {
        return Err(Denied("too_long"));
    }
    let parts = jws::split(token)?;
    let key = match parts.header.get("kid") {
        Some(Value::String(kid)) => find(kid)?,
        None => return Err(Denied("unknown_key")),
        Some(_) => return Err(Denied("kid")),
    };
    let says =
        |name: &str, value: &str| parts.header.get(name).and_then(Value::as_str) == Some(value);
    if !says("alg", ALGORITHM) {
        return Err(Denied("algorithm"));
    }
    if !says("typ", kind.typ()) {
        return Err(Denied("kind"));
    }
    // Our headers hold nothing else; `jku`, `x5u`, `jwk`, `x5c`, `crit`, `b64`, `zip` would change what is read.
    if parts.header.len() != 3 {
        return Err(Denied("header"));
    }
    if !key.verify(parts.signed, &parts.signature) {
        return Err(Denied("signature"));
    }
    jws::object(&parts.payload)
}

fn thumbprint(public: &[u8]) -> Arc<str> {
    let canonical = format!(
        r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(public)
    );
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A: key, thumbprint and signature.
    #[test]
    fn rfc_8037() {
        let seed = URL_SAFE_NO_PAD
            .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(&**key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let jwk = key.public_jwk();
        assert_eq!(jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let signature = key
            .pair
            .sign(b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc");
        assert_eq!(
            URL_SAFE_NO_PAD.encode(signature),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
        assert_eq!(VerifyingKey::from_jwk(&jwk).unwrap().kid(), key.kid());
    }

    #[test]
    fn keys_of_another_form_are_refused() {
        let (key, seed) = SigningKey::generate(&portico_base::SystemRandom).unwrap();
        assert!(SigningKey::from_seed(&seed.expose()[..31]).is_err());
        assert!(!format!("{key:?}{seed:?}").contains(&format!("{:?}", seed.expose())));
        for (member, value) in [
            ("kid", "other"),
            ("kty", "EC"),
            ("crv", "X25519"),
            ("x", "AAAA"),
        ] {
            let mut jwk = key.public_jwk();
            jwk[member] = value.into();
            assert!(VerifyingKey::from_jwk(&jwk).is_err(), "{member}");
        }
    }
}
