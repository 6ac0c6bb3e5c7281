//! Who is behind a request: opaque tokens by their prefix, JWTs by their issuer's keys, remembered per worker (GW-21).

mod chain;
mod claims;
mod cookie;
pub mod jwt;
pub mod load;
mod presented;
mod remember;
pub mod source;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashMap;
use http::HeaderMap;
use portico_base::{Principal, PrincipalKind};
use portico_contract::credentials::{Bounds, CredentialSource, Credentials};
use portico_contract::tenants::{Tenant, TenantStatus, Tenants};
use uuid::Uuid;

pub(crate) use chain::Chain;
pub(crate) use cookie::{has_refresh_cookie, is_own_cookie};
pub use portico_contract::tokens::{Denied, TokenVerifier, Verified};
pub use portico_token::KeySet;
pub(crate) use presented::has_key_in_query;

use crate::pipeline::signature::Wire;
use crate::serve::StreamKeys;
use load::Unloaded;
use presented::{Presented, presented};
use remember::Remembered;

/// Longer credentials are not looked at.
pub const MAX_TOKEN: usize = 8 * 1024;
/// The operator's token, taken from direct loopback peers only.
const OPERATOR_PREFIX: &str = "pop_";
/// Tenants whose anonymous caller is kept by one worker.
const MOST_TENANTS: usize = 1_024;

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
    fn new(
        principal: Arc<Principal>,
        verified: Option<Arc<Verified>>,
        tenant_name: Option<&str>,
    ) -> Self {
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

/// What a request shows of its caller.
#[derive(Debug)]
pub struct Shown {
    pub identity: Rc<Identity>,
    /// The credential came by cookie: a page of somebody else's could have made the browser send it.
    pub by_cookie: bool,
    /// A credential was there and is not good. Whoever only carries an old cookie is nobody, and is told why
    /// where somebody is needed.
    pub doubt: Option<BadCredential>,
    /// What the credential is limited to besides its permissions (ID-130).
    pub bounds: Option<Arc<Bounds>>,
}

impl Shown {
    fn plain(identity: Rc<Identity>) -> Self {
        Self {
            identity,
            by_cookie: false,
            doubt: None,
            bounds: None,
        }
    }
}

/// Identifies callers on one worker.
pub struct Identifier {
    credentials: Credentials,
    verifier: Option<Arc<dyn TokenVerifier>>,
    tenants: Option<Arc<dyn Tenants>>,
    remembered: Remembered,
    anonymous: Rc<Identity>,
    /// Nobody, in tenants that a host is bound to.
    nobodies: RefCell<HashMap<Uuid, Rc<Identity>>>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The client, right of every trusted proxy.
    pub address: Option<IpAddr>,
    /// Over loopback without any proxy in between.
    pub direct_loopback: bool,
    /// The client speaks TLS.
    pub https: bool,
}

/// The credential that a request brought is not good (401).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCredential {
    pub why: Denied,
    /// Why the session has ended, in a word.
    pub reason: Option<Arc<str>>,
}

impl From<Denied> for BadCredential {
    fn from(why: Denied) -> Self {
        Self { why, reason: None }
    }
}

/// Why nobody could be named.
#[derive(Debug)]
pub enum Unidentified {
    Bad(BadCredential),
    /// Its source has to look somewhere slower first.
    Unloaded(Unloaded),
}

impl From<BadCredential> for Unidentified {
    fn from(bad: BadCredential) -> Self {
        Self::Bad(bad)
    }
}

impl From<Denied> for Unidentified {
    fn from(why: Denied) -> Self {
        Self::Bad(why.into())
    }
}

impl Identifier {
    #[must_use]
    pub fn new(
        credentials: Credentials,
        verifier: Option<Arc<dyn TokenVerifier>>,
        tenants: Option<Arc<dyn Tenants>>,
    ) -> Self {
        Self {
            credentials,
            verifier,
            tenants,
            remembered: Remembered::default(),
            anonymous: Rc::new(Identity::new(Arc::new(Principal::anonymous()), None, None)),
            nobodies: RefCell::default(),
        }
    }

    /// Nobody.
    #[must_use]
    pub fn anonymous(&self) -> Rc<Identity> {
        Rc::clone(&self.anonymous)
    }

    /// Nobody, in the tenant that a host is bound to (ID-3).
    #[must_use]
    pub fn anonymous_in(&self, tenant: Uuid) -> Rc<Identity> {
        if tenant == self.anonymous.principal.tenant {
            return self.anonymous();
        }
        let mut known = self.nobodies.borrow_mut();
        if known.len() >= MOST_TENANTS {
            known.clear();
        }
        let nobody = known.entry(tenant).or_insert_with(|| {
            let principal = Principal {
                tenant,
                ..Principal::anonymous()
            };
            Rc::new(Identity::new(Arc::new(principal), None, None))
        });
        Rc::clone(nobody)
    }

    /// A caller that the house itself names.
    #[must_use]
    pub fn of(&self, principal: Arc<Principal>) -> Rc<Identity> {
        let name = self.tenant_name(&principal);
        Rc::new(Identity::new(principal, None, name.as_deref()))
    }

    /// The tenant that a host is bound to.
    #[must_use]
    pub fn tenant_of_host(&self, host: &str) -> Option<Arc<Tenant>> {
        self.tenants.as_ref()?.by_host(host)
    }

    /// Whether sensitive routes, or all of them, wait until revocations can be read again (ID-112).
    #[must_use]
    pub fn refuses_stale(&self, identity: &Identity, sensitive: bool) -> bool {
        let ours = identity
            .verified
            .as_ref()
            .is_some_and(|v| v.stamp.is_some());
        ours && self
            .verifier
            .as_ref()
            .is_some_and(|v| v.refuses_stale(sensitive))
    }

    /// The caller behind a request's headers. `loaded` when a source has looked already.
    ///
    /// # Errors
    /// When a credential is there and not good, or not in memory.
    pub fn identify(
        &self,
        headers: &HeaderMap,
        from: Origin,
        now_s: i64,
        loaded: bool,
    ) -> Result<Shown, Unidentified> {
        match presented(headers, from)? {
            Presented::Nothing => Ok(Shown::plain(self.anonymous())),
            Presented::Token(token) => self.token(token, from, now_s, loaded),
            Presented::Cookie(token) => match self.signed(token, from, now_s) {
                Ok(identity) => Ok(Shown {
                    by_cookie: true,
                    ..Shown::plain(identity)
                }),
                Err(bad) => Ok(Shown {
                    doubt: Some(bad),
                    ..Shown::plain(self.anonymous())
                }),
            },
        }
    }

    fn token(
        &self,
        token: &str,
        from: Origin,
        now_s: i64,
        loaded: bool,
    ) -> Result<Shown, Unidentified> {
        if token.len() > MAX_TOKEN {
            return Err(Denied("too_long").into());
        }
        let Some(source) = self.credentials.source(token) else {
            return Ok(Shown::plain(self.signed(token, from, now_s)?));
        };
        if source.prefix() == OPERATOR_PREFIX && !from.direct_loopback {
            return Err(Denied("operator_not_local").into());
        }
        let Some(principal) = source.find(token) else {
            return Err(if loaded || source.load(token).is_none() {
                Denied("unknown").into()
            } else {
                Unidentified::Unloaded(Unloaded::new(source, token))
            });
        };
        if principal.kind == PrincipalKind::Operator && !from.direct_loopback {
            return Err(Denied("operator_not_local").into());
        }
        self.tenant_stands(&principal)?;
        let bounds = bounds(&**source, &principal, from)?;
        source.used(&principal, from.address);
        let name = || self.tenant_name(&principal);
        let identity = self.remembered.opaque(token, &principal, name);
        Ok(Shown {
            bounds,
            ..Shown::plain(identity)
        })
    }

    fn signed(&self, token: &str, from: Origin, now_s: i64) -> Result<Rc<Identity>, BadCredential> {
        if token.len() > MAX_TOKEN {
            return Err(Denied("too_long").into());
        }
        let verifier = self.verifier.as_ref().ok_or(Denied("unknown"))?;
        let known = self
            .remembered
            .signed(token, &**verifier, from.address, now_s)?;
        if let Some(identity) = known {
            if identity
                .verified
                .as_ref()
                .is_some_and(|v| v.stamp.is_none())
            {
                self.tenant_stands(&identity.principal)?;
            }
            return Ok(identity);
        }
        let verified = verifier.verify(token, now_s)?;
        let verified = Arc::new(self.at_home(verified));
        remember::check(&**verifier, &verified, from.address)?;
        self.tenant_stands(&verified.principal)?;
        let name = match &verified.tenant_name {
            Some(name) => Some(Arc::from(&**name)),
            None => self.tenant_name(&verified.principal),
        };
        let principal = Arc::clone(&verified.principal);
        let expires_s = verified.expires_s;
        let identity = Identity::new(principal, Some(verified), name.as_deref());
        Ok(self.remembered.keep(token, identity, expires_s, now_s))
    }

    /// A foreign issuer names tenants by their slugs: one of ours is meant where there is one.
    fn at_home(&self, mut verified: Verified) -> Verified {
        let named = verified.tenant_name.as_deref();
        let ours = named.and_then(|name| self.tenants.as_ref()?.by_slug(name));
        if let Some(tenant) = ours.filter(|_| verified.stamp.is_none()) {
            let principal = Principal {
                tenant: tenant.id,
                ..(*verified.principal).clone()
            };
            verified.principal = Arc::new(principal);
        }
        verified
    }

    /// Nobody of a tenant that is suspended gets in (ID-5). The operator repairs every tenant.
    fn tenant_stands(&self, principal: &Principal) -> Result<(), Denied> {
        if matches!(
            principal.kind,
            PrincipalKind::Operator | PrincipalKind::System
        ) {
            return Ok(());
        }
        let tenant = self
            .tenants
            .as_ref()
            .and_then(|t| t.by_id(principal.tenant));
        match tenant {
            Some(tenant) if tenant.status != TenantStatus::Active => Err(Denied::TENANT_SUSPENDED),
            _ => Ok(()),
        }
    }

    /// The slug of a tenant of ours, which is how services are told of it.
    fn tenant_name(&self, principal: &Principal) -> Option<Arc<str>> {
        let tenant = self.tenants.as_ref()?.by_id(principal.tenant)?;
        Some(Arc::clone(&tenant.slug))
    }
}

/// What a credential is limited to; refused from networks that are not its own.
fn bounds(
    source: &dyn CredentialSource,
    principal: &Principal,
    from: Origin,
) -> Result<Option<Arc<Bounds>>, Denied> {
    let bounds = source.bounds(principal);
    match &bounds {
        Some(bounds) if !bounds.admits(from.address) => Err(Denied::IP_MISMATCH),
        _ => Ok(bounds),
    }
}
