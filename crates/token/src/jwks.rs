//! An issuer's public keys (RFC 7517, RFC 7518, RFC 8037): which algorithm a key is for is the key's own word.

use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use foldhash::HashMap;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use portico_contract::tokens::Denied;

/// Most keys of one set.
const MOST: usize = 100;

/// Keys by their id.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: HashMap<String, PublicKey>,
}

/// A key and the one algorithm that it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The name that a token's header must have.
    pub alg: &'static str,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Ed25519(Vec<u8>),
    /// Uncompressed point.
    Ec(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

/// Why a document is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    #[error("is not a JSON document with a list `keys`")]
    Form,
    #[error("holds no key that verifies signatures")]
    Empty,
    #[error("holds more than {MOST} keys")]
    TooMany,
}

impl KeySet {
    /// Reads a JWKS document. Keys that cannot be used (symmetric, for encryption, unknown curves) are left out.
    ///
    /// # Errors
    /// When it is no such document, or none of its keys can be used.
    pub fn parse(document: &[u8]) -> Result<Self, BadKeys> {
        let document: Value = serde_json::from_slice(document).map_err(|_| BadKeys::Form)?;
        let list = document
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(BadKeys::Form)?;
        if list.len() > MOST {
            return Err(BadKeys::TooMany);
        }
        let keys: HashMap<String, PublicKey> = list.iter().filter_map(read).collect();
        if keys.is_empty() {
            Err(BadKeys::Empty)
        } else {
            Ok(Self { keys })
        }
    }

    /// The key that a token names; the only key when it names none.
    pub fn find(&self, kid: Option<&str>) -> Option<&PublicKey> {
        match kid {
            Some(kid) => self.keys.get(kid),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        }
    }

    /// True when both hold the same keys.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

fn read(jwk: &Value) -> Option<(String, PublicKey)> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
    if text("use").is_some_and(|u| u != "sig") {
        return None;
    }
    if let Some(operations) = jwk.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|o| o == "verify")
    {
        return None;
    }
    let (alg, material, canonical) = match (text("kty")?, text("crv")) {
        ("OKP", Some("Ed25519")) => {
            let x = bytes("x").filter(|x| x.len() == 32)?;
            (
                "EdDSA",
                Material::Ed25519(x),
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text("x")?),
            )
        }
        ("EC", Some(curve)) => {
            let (alg, size) = match curve {
                "P-256" => ("ES256", 32),
                "P-384" => ("ES384", 48),
                "P-521" => ("ES512", 66),
                _ => return None,
            };
            let (x, y) = (
                bytes("x").filter(|x| x.len() == size)?,
                bytes("y").filter(|y| y.len() == size)?,
            );
            let canonical = format!(
                r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#,
                text("x")?,
                text("y")?
            );
            (alg, Material::Ec([&[4], &*x, &*y].concat()), canonical)
        }
        ("RSA", _) => {
            let alg = match text("alg") {
                None | Some("RS256") => "RS256",
                Some("RS384") => "RS384",
                Some("RS512") => "RS512",
                Some("PS256") => "PS256",
                Some("PS384") => "PS384",
                Some("PS512") => "PS512",
                Some(_) => return None,
            };
            let (n, e) = (
                bytes("n").filter(|n| n.len() >= 256)?,
                bytes("e").filter(|e| e.len() <= 8)?,
            );
            (
                alg,
                Material::Rsa { n, e },
                format!(
                    r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                    text("e")?,
                    text("n")?
                ),
            )
        }
        // Symmetric keys too: whoever verifies with one can also sign.
        _ => return None,
    };
    if text("alg").is_some_and(|said| said != alg) {
        return None;
    }
    // RFC 7638: a key without an id is known by its thumbprint.
    let kid = text("kid").map_or_else(
        || URL_SAFE_NO_PAD.encode(Sha256::digest(canonical)),
        str::to_owned,
    );
    (kid.len() <= 200).then_some((kid, PublicKey { alg, material }))
}

impl PublicKey {
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Denied> {
        let verified = match &self.material {
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signature)
            }
            Material::Ec(point) => {
                let algorithm: &EcdsaVerificationAlgorithm = match self.alg {
                    "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
                    "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => &signature::ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signature)
            }
            Material::Rsa { n, e } => {
                let algorithm: &RsaParameters = match self.alg {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    _ => &signature::RSA_PSS_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature)
            }
        };
        verified.map_err(|_| Denied("signature"))
    }
}
