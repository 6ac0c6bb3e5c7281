//! Tokens as bytes: JWS and JWKS of anybody, and the house's own access tokens, refresh tokens and API keys.
//! No I/O and no clock; whoever calls brings both.

pub mod jwks;
pub mod jws;

pub use jwks::{BadKeys, KeySet};
