//! Access tokens of the house: minted with its active key, verified by the rules of RFC 8725 and RFC 9068.

use std::net::IpAddr;
use std::sync::Arc;

use portico_base::Secret;
use portico_contract::tokens::Denied;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::signing::{Kind, SigningKey, VerifyingKey, open};

/// Clocks of replicas may differ by so much.
const SKEW_S: i64 = 60;
/// Later times are no times: JSON numbers are exact up to here.
const LAST_S: i64 = 1 << 53;

/// What every token of an installation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`: the public address, or `urn:portico:{installation}`.
    pub issuer: Arc<str>,
    /// The installation, as tokens name it in `aud`.
    pub audience: Arc<str>,
}

/// What a token says about a session (identity-protocols §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// The user.
    pub user: Uuid,
    /// The user's tenant.
    pub tenant: Uuid,
    /// The session.
    pub session: Uuid,
    /// The device that the session is on.
    pub device: Uuid,
    /// Unix seconds.
    pub issued_s: i64,
    /// Unix seconds at which it ends.
    pub expires_s: i64,
    /// Its own id.
    pub id: Uuid,
    /// Token version of the user.
    pub tv: u32,
    /// Token epoch of the tenant.
    pub te: u32,
    /// Token epoch of the installation.
    pub ge: u32,
    /// Names of the user's roles.
    pub roles: Vec<String>,
    /// Narrows what the roles allow; absent for everything.
    pub scope: Option<String>,
    /// How the user authenticated (RFC 8176).
    pub amr: Vec<String>,
    /// Assurance: 1 for one factor, 2 for two.
    pub aal: u8,
    /// Unix seconds of the last authentication.
    pub auth_time_s: i64,
    /// Hash of the network that it is bound to ([`network`]).
    pub network: Option<u64>,
    /// Further audiences besides the installation: plug-ins that verify it themselves.
    pub audiences: Vec<String>,
}

/// The claims as bytes.
#[derive(Serialize, Deserialize)]
struct Wire {
    iss: String,
    aud: Vec<String>,
    sub: Uuid,
    tid: Uuid,
    sid: Uuid,
    did: Uuid,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    jti: Uuid,
    tv: u32,
    te: u32,
    ge: u32,
    roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    amr: Vec<String>,
    aal: u8,
    auth_time: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ipb: Option<String>,
}

/// Makes a token. With five roles it has at most 1 KiB.
///
/// # Errors
/// When the claims cannot be written as JSON, which texts and numbers can.
pub fn mint(
    key: &SigningKey,
    issuer: &Issuer,
    claims: &AccessClaims,
) -> serde_json::Result<Secret<String>> {
    let mut aud = Vec::with_capacity(1 + claims.audiences.len());
    aud.push(issuer.audience.to_string());
    aud.extend(claims.audiences.iter().cloned());
    let wire = Wire {
        iss: issuer.issuer.to_string(),
        aud,
        sub: claims.user,
        tid: claims.tenant,
        sid: claims.session,
        did: claims.device,
        iat: claims.issued_s,
        exp: claims.expires_s,
        nbf: None,
        jti: claims.id,
        tv: claims.tv,
        te: claims.te,
        ge: claims.ge,
        roles: claims.roles.clone(),
        scope: claims.scope.clone(),
        amr: claims.amr.clone(),
        aal: claims.aal,
        auth_time: claims.auth_time_s,
        ipb: claims.network.map(|n| format!("{n:016x}")),
    };
    key.sign(Kind::Access, &wire)
}

/// Verifies a token's form, signature, kind, issuer, audience and time; versions are the caller's to compare.
///
/// # Errors
/// Says why it is refused.
pub fn verify<'k>(
    token: &str,
    issuer: &Issuer,
    find: impl FnOnce(&str) -> Result<&'k VerifyingKey, Denied>,
    now_s: i64,
) -> Result<AccessClaims, Denied> {
    let claims = open(token, Kind::Access, find)?;
    check_times(&claims, now_s)?;
    let wire: Wire = serde_json::from_value(Value::Object(claims)).map_err(|_| Denied("claims"))?;
    if *wire.iss != *issuer.issuer {
        return Err(Denied("issuer"));
    }
    let mut audiences = wire.aud;
    let ours = audiences
        .iter()
        .position(|a| **a == *issuer.audience)
        .ok_or(Denied("audience"))?;
    audiences.remove(ours);
    if !(1..=3).contains(&wire.aal) {
        return Err(Denied("claims"));
    }
    let network = match wire.ipb {
        None => None,
        // A sign would be read as well.
        Some(text) if text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Some(u64::from_str_radix(&text, 16).map_err(|_| Denied("claims"))?)
        }
        Some(_) => return Err(Denied("claims")),
    };
    Ok(AccessClaims {
        user: wire.sub,
        tenant: wire.tid,
        session: wire.sid,
        device: wire.did,
        issued_s: wire.iat,
        expires_s: wire.exp,
        id: wire.jti,
        tv: wire.tv,
        te: wire.te,
        ge: wire.ge,
        roles: wire.roles,
        scope: wire.scope,
        amr: wire.amr,
        aal: wire.aal,
        auth_time_s: wire.auth_time,
        network,
        audiences,
    })
}

/// Hash of the network that an address belongs to (/24, or /56 of IPv6): what a token is bound to, since exact
/// addresses of mobile clients change all day (ID-95). Never 0.
#[must_use]
pub fn network(address: IpAddr) -> u64 {
    let mut bytes = [0; 8];
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[1..4].copy_from_slice(&v4.octets()[..3]);
        }
        IpAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[1..].copy_from_slice(&v6.octets()[..7]);
        }
    }
    let digest = Sha256::digest([b"portico/network/1|".as_slice(), &bytes].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first).max(1)
}

/// Times are whole numbers (RFC 7519 §2), the end is exact, the others may be a little in the future.
fn check_times(claims: &Map<String, Value>, now_s: i64) -> Result<(), Denied> {
    for name in ["exp", "iat", "nbf", "auth_time"] {
        let Some(value) = claims.get(name) else {
            continue;
        };
        let seconds = value
            .as_i64()
            .filter(|s| (0..LAST_S).contains(s))
            .ok_or(Denied("time_form"))?;
        match name {
            "exp" if now_s >= seconds => return Err(Denied::EXPIRED),
            "iat" if seconds > now_s + SKEW_S => return Err(Denied("issued_later")),
            "nbf" if seconds > now_s + SKEW_S => return Err(Denied("not_yet")),
            _ => {}
        }
    }
    Ok(())
}
