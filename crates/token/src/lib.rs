//! Tokens as bytes: JWS and JWKS of anybody, and the house's own access tokens, refresh tokens and API keys.
//! No I/O and no clock; whoever calls brings both.

pub mod access;
pub mod api_key;
#[cfg(test)]
mod attacks;
pub mod jwks;
pub mod jws;
pub mod refresh;
pub mod signing;
pub mod statement;

pub use access::{AccessClaims, Issuer};
pub use jwks::{BadKeys, KeySet};
pub use signing::{SigningKey, VerifyingKey};
