//! What the door asks for each request: is this token ours, and does it still hold (ID-91, ID-111).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use portico_base::{Permission, Principal, PrincipalKind};
use portico_contract::tenants::{Tenant, TenantStatus, Tenants};
use portico_contract::tokens::{
    Denied, IdentityStatements, RevocationListener, Revocations, Stamp, TokenVerifier, Verified,
};
use portico_token::{AccessClaims, access, statement};
use uuid::Uuid;

use super::marks::Cause;
use super::{Edge, STALE_AFTER};
use crate::settings::edge::{REFUSE_ALL, REFUSE_SENSITIVE};
use crate::settings::token::{ACCESS_TTL_S, FRESH_S};

/// A user's roles changed, nothing else: a refresh brings a good token (ID-24).
pub(crate) const CLAIMS: &str = "claims";
/// An administrator disabled the user.
pub(crate) const DISABLED: &str = "disabled";
/// The user is gone.
pub(crate) const DELETED: &str = "deleted";

impl TokenVerifier for Edge {
    fn verify(&self, token: &str, now_s: i64) -> Result<Verified, Denied> {
        let verified = self.verify_now(token, now_s);
        self.metrics.check(verified.as_ref().err().copied());
        verified
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    fn check(&self, token: &Verified, address: Option<IpAddr>) -> Result<(), Denied> {
        let Some(stamp) = &token.stamp else {
            return Ok(());
        };
        let checked = self.check_stamp(stamp, address);
        if let Err(denied) = checked {
            self.metrics.check(Some(denied));
            if denied == Denied::IP_MISMATCH {
                self.mismatches.tell(stamp, address);
            }
        }
        checked
    }

    fn reason(&self, token: &Verified) -> Option<Arc<str>> {
        let cause = self.cause(token.stamp.as_ref()?)?;
        self.marks.word(cause)
    }

    fn refuses_stale(&self, sensitive: bool) -> bool {
        self.is_stale()
            && (self.settings.system(&REFUSE_ALL)
                || (sensitive && self.settings.system(&REFUSE_SENSITIVE)))
    }
}

impl Edge {
    fn verify_now(&self, token: &str, now_s: i64) -> Result<Verified, Denied> {
        let issuer = self.issuer.get().ok_or(Denied("not_loaded"))?;
        let keys = self.keys.load();
        let claims = access::verify(token, issuer, |kid| keys.find(kid), now_s)?;
        // A life that was shortened since counts for tokens that are out already.
        let life = i64::from(self.settings.get(claims.tenant, &ACCESS_TTL_S));
        let expires_s = claims.expires_s.min(claims.issued_s + life);
        if now_s >= expires_s {
            return Err(Denied::EXPIRED);
        }
        Ok(self.verified(claims, expires_s))
    }

    fn verified(&self, claims: AccessClaims, expires_s: i64) -> Verified {
        let fresh = i64::from(self.settings.get(claims.tenant, &FRESH_S));
        let held = self.permissions(claims.tenant, &claims.roles);
        let (scopes, permissions) = narrow(claims.scope.as_deref(), held);
        let mut roles = claims.roles;
        roles.sort_unstable();
        roles.dedup();
        let principal = Principal {
            id: Some(claims.user),
            roles: roles.into(),
            scopes,
            permissions,
            session: Some(claims.session.to_string().into()),
            aal: claims.aal,
            fresh_until_s: claims.auth_time_s + fresh,
            ..Principal::new(PrincipalKind::User, claims.user.to_string(), claims.tenant)
        };
        Verified {
            principal: Arc::new(principal),
            tenant_name: None,
            claims: Box::new([("did".into(), claims.device.to_string().into())]),
            expires_s,
            stamp: Some(Stamp {
                user: claims.user,
                tenant: claims.tenant,
                session: claims.session,
                tv: claims.tv,
                te: claims.te,
                ge: claims.ge,
                network: claims.network.unwrap_or(0),
            }),
        }
    }

    /// Versions are compared, not times: there is no race of clocks (identity-protocols §9).
    fn check_stamp(&self, stamp: &Stamp, address: Option<IpAddr>) -> Result<(), Denied> {
        if stamp.ge < self.ge.load(Acquire) {
            return Err(Denied::STALE);
        }
        {
            let tenants = self.tenants.load();
            // A tenant that was made on another replica a moment ago is one that a refresh finds.
            let tenant = tenants.by_id(stamp.tenant).ok_or(Denied::STALE)?;
            if tenant.view.status != TenantStatus::Active {
                return Err(Denied::TENANT_SUSPENDED);
            }
            if stamp.te < tenant.tenant.te {
                return Err(Denied::STALE);
            }
        }
        if let Some(cause) = self.cause(stamp) {
            return Err(match self.marks.word(cause).as_deref() {
                Some(CLAIMS) => Denied::STALE,
                Some(DISABLED | DELETED) => Denied::ACCOUNT_DISABLED,
                _ => Denied::SESSION_REVOKED,
            });
        }
        if stamp.network != 0 && address.map(access::network) != Some(stamp.network) {
            return Err(Denied::IP_MISMATCH);
        }
        Ok(())
    }

    /// Why a user's or a session's tokens are refused. A session that is over says more than changed roles.
    fn cause(&self, stamp: &Stamp) -> Option<Cause> {
        let user = self.marks.of_user(stamp.user).filter(|m| stamp.tv < m.min);
        let session = self.marks.of_session(stamp.session);
        match (user, session) {
            (Some(user), Some(session)) => {
                let stale = self.marks.word(user.cause).as_deref() == Some(CLAIMS);
                Some(if stale { session.cause } else { user.cause })
            }
            (Some(user), None) => Some(user.cause),
            (None, session) => session.map(|m| m.cause),
        }
    }

    /// True when the log could not be read for too long (ID-112).
    pub(crate) fn is_stale(&self) -> bool {
        self.lag_us() > STALE_AFTER.num_microseconds().unwrap_or(0)
    }

    /// Microseconds since the log was read last.
    pub(super) fn lag_us(&self) -> i64 {
        self.clock.now().timestamp_micros() - self.heard_us.load(Relaxed)
    }
}

impl Tenants for Edge {
    fn by_id(&self, id: Uuid) -> Option<Arc<Tenant>> {
        self.tenants.load().by_id(id).map(|t| Arc::clone(&t.view))
    }

    fn by_slug(&self, slug: &str) -> Option<Arc<Tenant>> {
        self.tenants
            .load()
            .by_slug(slug)
            .map(|t| Arc::clone(&t.view))
    }

    fn by_host(&self, host: &str) -> Option<Arc<Tenant>> {
        self.tenants
            .load()
            .by_host(host)
            .map(|t| Arc::clone(&t.view))
    }
}

impl IdentityStatements for Edge {
    fn statement(&self, principal: &Principal, service: &str, now_s: i64) -> Option<Arc<str>> {
        let issuer = self.issuer.get()?;
        self.statements.get(principal, service, now_s, || {
            let keys = self.keys.load();
            let signed = statement::sign(keys.active().ok()?, issuer, principal, service, now_s);
            self.metrics.issued("statement");
            signed.ok().map(|text| text.expose().as_str().into())
        })
    }

    fn issuer(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.issuer.get()?.issuer))
    }
}

impl Revocations for Edge {
    fn subscribe(&self, listener: RevocationListener) {
        self.closing.subscribe(listener);
    }
}

/// A token's scope narrows what its roles allow; it never widens it.
fn narrow(scope: Option<&str>, held: Arc<[Permission]>) -> (Arc<[String]>, Arc<[Permission]>) {
    let Some(scope) = scope else {
        return (Arc::from([]), held);
    };
    let mut scopes: Vec<String> = scope.split_ascii_whitespace().map(str::to_owned).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let permissions = scopes
        .iter()
        .filter_map(|s| Permission::parse(s).ok())
        .filter(|wanted| held.iter().any(|h| h.covers(wanted)))
        .collect();
    (scopes.into(), permissions)
}
