//! Who is behind a request: opaque tokens by their prefix, JWTs by their issuer's keys, remembered per worker (GW-21).

mod claims;
pub mod jwt;
mod remember;
pub mod source;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use portico_base::{Principal, PrincipalKind};
use portico_contract::credentials::Credentials;

pub use portico_contract::tokens::{Denied, TokenVerifier, Verified};
pub use portico_token::KeySet;

use crate::pipeline::signature::Wire;
use crate::serve::StreamKeys;
use remember::Remembered;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Longer credentials are not looked at.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The operator's token, taken from direct loopback peers only.
const OPERATOR_PREFIX: &str = "pop_";

/// A caller with everything that is rendered once.
#[derive(Debug)]
pub struct Identity {
    pub principal: Arc<Principal>,
    pub wire: Wire,
    /// By what its open streams are found (`user:…`, `tenant:…`, `session:…`); absent for nobody.
    pub keys: Option<StreamKeys>,
    pub claims: Box<[(Box<str>, Box<str>)]>,
    /// Tenant as the cache's keys and metrics write it.
    pub tenant_text: Box<str>,
    verified: Option<Arc<Verified>>,
}

impl Identity {
    fn new(principal: Arc<Principal>, verified: Option<Arc<Verified>>) -> Self {
        let tenant_name = verified.as_ref().and_then(|v| v.tenant_name.as_deref());
        let wire = Wire::of(&principal, tenant_name);
        let keys = principal.is_authenticated().then(|| {
            let mut keys: Vec<Box<str>> = vec![
                format!("user:{}", principal.subject).into(),
                format!("tenant:{}", principal.tenant).into(),
            ];
            keys.extend(
                principal
                    .session
                    .iter()
                    .map(|s| format!("session:{s}").into()),
            );
            StreamKeys::from(keys)
        });
        let claims = verified
            .as_ref()
            .map(|v| v.claims.clone())
            .unwrap_or_default();
        Self {
            tenant_text: principal.tenant.to_string().into(),
            wire,
            keys,
            claims,
            verified,
            principal,
        }
    }
}

/// Identifies callers on one worker.
pub struct Identifier {
    credentials: Credentials,
    verifier: Option<Arc<dyn TokenVerifier>>,
    remembered: Remembered,
    anonymous: Rc<Identity>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The client, right of every trusted proxy.
    pub address: Option<IpAddr>,
    /// Over loopback without any proxy in between.
    pub direct_loopback: bool,
}

/// The credential that a request brought is not good (401).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCredential(pub &'static str);

impl Identifier {
    #[must_use]
    pub fn new(credentials: Credentials, verifier: Option<Arc<dyn TokenVerifier>>) -> Self {
        Self {
            credentials,
            verifier,
            remembered: Remembered::default(),
            anonymous: Rc::new(Identity::new(Arc::new(Principal::anonymous()), None)),
        }
    }

    /// Nobody.
    #[must_use]
    pub fn anonymous(&self) -> Rc<Identity> {
        Rc::clone(&self.anonymous)
    }

    /// A caller that the house itself names.
    #[must_use]
    pub fn of(&self, principal: Arc<Principal>) -> Rc<Identity> {
        Rc::new(Identity::new(principal, None))
    }

    /// The caller behind a request's headers.
    ///
    /// # Errors
    /// When a credential is there and not good.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        from: Origin,
        now_s: i64,
    ) -> Result<Rc<Identity>, BadCredential> {
        match presented(headers)? {
            None => Ok(self.anonymous()),
            Some(token) => self.token(token, from, now_s),
        }
    }

    fn token(
        &self,
        token: &str,
        from: Origin,
        now_s: i64,
    ) -> Result<Rc<Identity>, BadCredential> {
        if token.len() > MAX_TOKEN {
            return Err(BadCredential("too_long"));
        }
        if let Some(source) = self.credentials.source(token) {
            if source.prefix() == OPERATOR_PREFIX && !from.direct_loopback {
                return Err(BadCredential("operator_not_local"));
            }
            let principal = source.find(token).ok_or(BadCredential("unknown"))?;
            if principal.kind == PrincipalKind::Operator && !from.direct_loopback {
                return Err(BadCredential("operator_not_local"));
            }
            return Ok(self.remembered.opaque(token, principal));
        }
        let verifier = self.verifier.as_ref().ok_or(BadCredential("unknown"))?;
        self.remembered
            .signed(token, &**verifier, from.address, now_s)
            .map_err(|denied| BadCredential(denied.0))
    }
}

/// The one credential of a request: `Authorization: Bearer`, else `X-Api-Key`.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, BadCredential> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else {
        let mut keys = headers.get_all(API_KEY).iter();
        let key = keys
            .next()
            .map(|k| k.to_str().map_err(|_| BadCredential("malformed")))
            .transpose()?;
        return if keys.next().is_some() {
            Err(BadCredential("several"))
        } else {
            Ok(key)
        };
    };
    if lines.next().is_some() {
        return Err(BadCredential("several"));
    }
    let line = line.to_str().map_err(|_| BadCredential("malformed"))?;
    let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
    // Other schemes are between the client and its service.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match token.trim() {
        "" => Err(BadCredential("malformed")),
        token => Ok(Some(token)),
    }
}
