//! Signed tokens: who verifies them offline, and what a verifier found.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use portico_base::Principal;
use uuid::Uuid;

use crate::streams::StreamOwner;

/// What a verifier found in a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Who is behind it.
    pub principal: Arc<Principal>,
    /// The tenant as the token names it, when that is not an id.
    pub tenant_name: Option<Box<str>>,
    /// Further claims with short values, for limits.
    pub claims: Box<[(Box<str>, Box<str>)]>,
    /// Unix seconds at which it ends.
    pub expires_s: i64,
    /// What is compared with the revocations of this installation; absent for foreign issuers.
    pub stamp: Option<Stamp>,
}

/// The versions that a token of this installation was made under (identity-protocols §7, §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The user.
    pub user: Uuid,
    /// The user's tenant.
    pub tenant: Uuid,
    /// The session.
    pub session: Uuid,
    /// Token version of the user.
    pub tv: u32,
    /// Of the tenant.
    pub te: u32,
    /// Of the installation.
    pub ge: u32,
    /// Hash of the network that it is bound to; 0 for none.
    pub network: u64,
}

/// Why a token is refused. The word is for logs and metrics; clients get [`Denied::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied(pub &'static str);

impl Denied {
    /// Its time is over.
    pub const EXPIRED: Self = Self("expired");
    /// The user's roles changed: a refresh brings a good one.
    pub const STALE: Self = Self("stale");
    /// The session has ended.
    pub const SESSION_REVOKED: Self = Self("session_revoked");
    /// The user is disabled or gone.
    pub const ACCOUNT_DISABLED: Self = Self("account_disabled");
    /// The tenant is suspended or logged out as a whole.
    pub const TENANT_SUSPENDED: Self = Self("tenant_suspended");
    /// It is bound to another network.
    pub const IP_MISMATCH: Self = Self("ip_mismatch");
    /// The edge has not heard of revocations for too long (503).
    pub const REVOCATIONS_STALE: Self = Self("revocations_stale");

    /// The code that clients get (ID-174).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self.0.as_bytes() {
            b"expired" => "identity.token_expired",
            b"stale" => "identity.token_stale",
            b"session_revoked" => "identity.session_revoked",
            b"account_disabled" => "identity.account_disabled",
            b"tenant_suspended" => "identity.tenant_suspended",
            b"ip_mismatch" => "identity.ip_mismatch",
            b"revocations_stale" => "identity.revocations_stale",
            _ => "identity.token_invalid",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Verifies signed tokens offline: no I/O, no lock that anybody holds for long.
pub trait TokenVerifier: Send + Sync {
    /// Verifies a token's form, signature and claims.
    ///
    /// # Errors
    /// Says why it is refused; `unknown_key` when another verifier may know it.
    fn verify(&self, token: &str, now_s: i64) -> Result<Verified, Denied>;

    /// Rises when keys or the meaning of roles change: what was remembered before is verified again.
    fn epoch(&self) -> u64;

    /// Whether a token that was verified now or before still holds; asked for each request.
    ///
    /// # Errors
    /// Says why it does not.
    fn check(&self, _token: &Verified, _address: Option<IpAddr>) -> Result<(), Denied> {
        Ok(())
    }

    /// A token named a key that is not known: the keys may have changed.
    fn key_missed(&self) {}

    /// Why [`TokenVerifier::check`] said that the session has ended, in a word (`kicked`, `logout`, …), for
    /// the member `reason` of the answer (ID-123).
    fn reason(&self, _token: &Verified) -> Option<Arc<str>> {
        None
    }

    /// True when revocations could not be read for too long to let a caller through to a route (ID-112). Asked
    /// after a good check, for each request; `sensitive` for routes that need a second factor or a permission
    /// of `identity:*` or `settings:*`. The answer is then [`Denied::REVOCATIONS_STALE`] with 503.
    fn refuses_stale(&self, _sensitive: bool) -> bool {
        false
    }
}

/// Told whose credentials have just been revoked.
pub type RevocationListener = Arc<dyn Fn(&StreamOwner) + Send + Sync>;

/// Tells whose credentials were revoked, here or on another replica. Provided by identity; the gateway
/// subscribes while it is built and closes the open streams.
pub trait Revocations: Send + Sync {
    /// Calls `listener` for every revocation from now on, once the verifier refuses the credential itself and
    /// a moment later, within a second of the commit: whoever revokes his own session still gets the answer.
    /// It must not block. What was revoked while the process was down is not told: it has no streams.
    fn subscribe(&self, listener: RevocationListener);
}

/// Signs the 60-second statements `X-Portico-Identity` about a caller (ID-170), remembered for 30 s.
pub trait IdentityStatements: Send + Sync {
    /// A JWT (`typ: pi+jwt`) for the service named as its audience.
    fn statement(&self, principal: &Principal, service: &str, now_s: i64) -> Option<Arc<str>>;

    /// The `iss` of statements and tokens.
    fn issuer(&self) -> Option<Arc<str>> {
        None
    }
}

/// The `iss` of our tokens, for whoever is built before those who sign: provided empty by the registry, which
/// tells it to instances, and filled once everybody is built.
#[derive(Debug, Default)]
pub struct IssuerCell(OnceLock<Arc<str>>);

impl IssuerCell {
    /// Fills it; the first word holds.
    pub fn set(&self, issuer: Arc<str>) {
        // A second one would be the same: an issuer is fixed while a process runs.
        let _same = self.0.set(issuer);
    }

    /// The issuer, once it is known.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(|issuer| &**issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_invalid() {
        assert_eq!(Denied::EXPIRED.code(), "identity.token_expired");
        assert_eq!(Denied("signature").code(), "identity.token_invalid");
    }
}
