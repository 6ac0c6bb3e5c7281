//! Access tokens of a foreign issuer, made with an Ed25519 key of the test's own.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// `iss` of the test's tokens.
pub const ISSUER: &str = "https://issuer.test";
/// `aud` of the test's tokens.
pub const AUDIENCE: &str = "portico";

/// A key pair and its JWKS document.
pub struct TestKeys {
    key: EncodingKey,
    kid: String,
    jwks: Value,
}

impl TestKeys {
    /// A new key pair with a key id.
    ///
    /// # Panics
    /// When the key cannot be made.
    #[must_use]
    pub fn new(kid: &str) -> Self {
        use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
        let pair = Ed25519KeyPair::generate().expect("a key can be generated");
        let document = pair.to_pkcs8v1().expect("a key can be written");
        let x = B64.encode(pair.public_key().as_ref());
        Self {
            key: EncodingKey::from_ed_der(document.as_ref()),
            kid: kid.to_owned(),
            jwks: json!({ "keys": [
                { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x }
            ]}),
        }
    }

    /// Writes the JWKS document.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) {
        std::fs::write(file, self.jwks.to_string()).expect("the key set can be written");
    }

    /// An access token of a user of a tenant, good for an hour from `now` (Unix seconds).
    ///
    /// # Panics
    /// When the claims cannot be signed.
    #[must_use]
    pub fn token(&self, user: &str, tenant: uuid::Uuid, roles: &[&str], now: i64) -> String {
        let claims = json!({
            "iss": ISSUER, "aud": [AUDIENCE], "sub": user, "tid": tenant, "sid": format!("session-{user}"),
            "jti": format!("{user}-{now}"), "iat": now, "nbf": now, "exp": now + 3600,
            "roles": roles, "aal": 1,
        });
        self.sign(&claims)
    }

    /// Any claims, signed.
    ///
    /// # Panics
    /// When the claims cannot be signed.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).expect("claims can be signed")
    }

    /// Any claims, signed, with a header that brings the key itself and addresses where it can be had.
    ///
    /// # Panics
    /// When the claims cannot be signed.
    #[must_use]
    pub fn sign_with_own_key(&self, claims: &Value, address: &str) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        header.jku = Some(address.to_owned());
        header.x5u = Some(address.to_owned());
        let jwk = self.jwks["keys"][0].clone();
        header.jwk = Some(serde_json::from_value(jwk).expect("our own key can be read"));
        jsonwebtoken::encode(&header, claims, &self.key).expect("claims can be signed")
    }

    /// The JWKS document.
    #[must_use]
    pub const fn jwks(&self) -> &Value {
        &self.jwks
    }
}
