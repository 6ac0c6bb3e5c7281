//! Who calls: opaque tokens by their prefix, JWTs by the installation's verifier (GW-104).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use portico_base::{Principal, PrincipalKind};
use portico_contract::credentials::Credentials;
use portico_contract::tenants::{TenantStatus, Tenants};
use portico_contract::tokens::{Denied, TokenVerifier};

/// Longer credentials are not looked at.
const MAX_TOKEN: usize = 8 * 1024;
/// The operator's token, taken from direct loopback peers only.
const OPERATOR_PREFIX: &str = "pop_";
/// Longest wait for a credential that is not in memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names callers.
#[derive(Clone)]
pub(crate) struct Identifier {
    pub(crate) credentials: Credentials,
    pub(crate) verifier: Option<Arc<dyn TokenVerifier>>,
    pub(crate) tenants: Option<Arc<dyn Tenants>>,
}

/// Why nobody could be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The credential is not good.
    Bad(Denied),
    /// It could not be looked up now.
    Busy,
}

impl From<Denied> for Unknown {
    fn from(why: Denied) -> Self {
        Self::Bad(why)
    }
}

impl Identifier {
    /// The caller behind the credential of a request for a method of `service`; nobody without one.
    pub(crate) async fn identify(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        service: &str,
        now_s: i64,
    ) -> Result<Arc<Principal>, Unknown> {
        let Some(token) = presented(headers)? else {
            return Ok(Arc::new(Principal::anonymous()));
        };
        if token.len() > MAX_TOKEN {
            return Err(Denied("too_long").into());
        }
        let principal = match self.credentials.source(token) {
            Some(_) => self.opaque(token, address, service).await?,
            None => self.signed(token, address, now_s)?,
        };
        let tenant = self
            .tenants
            .as_ref()
            .and_then(|t| t.by_id(principal.tenant));
        // The operator repairs every tenant.
        let operator = principal.kind == PrincipalKind::Operator;
        if !operator && tenant.is_some_and(|t| t.status == TenantStatus::Suspended) {
            return Err(Denied::TENANT_SUSPENDED.into());
        }
        Ok(principal)
    }

    async fn opaque(
        &self,
        token: &str,
        address: Option<IpAddr>,
        service: &str,
    ) -> Result<Arc<Principal>, Unknown> {
        let unknown = Denied("unknown");
        let from_here = address.is_some_and(|ip| ip.is_loopback());
        if token.starts_with(OPERATOR_PREFIX) && !from_here {
            return Err(unknown.into());
        }
        let source = self.credentials.source(token).ok_or(unknown)?;
        let mut found = source.find(token);
        if found.is_none()
            && let Some(reading) = source.load(token)
        {
            if tokio::time::timeout(PATIENCE, reading).await.is_err() {
                return Err(Unknown::Busy);
            }
            found = source.find(token);
        }
        let principal = found.ok_or(unknown)?;
        match source.bounds(&principal) {
            Some(bounds) if !bounds.admits(address) => Err(Denied::IP_MISMATCH.into()),
            Some(bounds) if !bounds.reaches(service) => Err(Denied("service").into()),
            _ => Ok(principal),
        }
    }

    fn signed(
        &self,
        token: &str,
        address: Option<IpAddr>,
        now_s: i64,
    ) -> Result<Arc<Principal>, Unknown> {
        let verifier = self.verifier.as_ref().ok_or(Denied("no_verifier"))?;
        let verified = verifier.verify(token, now_s).inspect_err(|why| {
            if *why == Denied("unknown_key") {
                verifier.key_missed();
            }
        })?;
        match verifier.check(&verified, address) {
            Ok(()) => Ok(verified.principal),
            Err(Denied::REVOCATIONS_STALE) => Err(Unknown::Busy),
            Err(why) => Err(why.into()),
        }
    }
}

/// The one credential of a request.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let single = |name: header::HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Ok(None),
            (Some(line), None) => line.to_str().map(Some).map_err(|_| Denied("malformed")),
            (Some(_), Some(_)) => Err(Denied("several")),
        }
    };
    let key = single(header::HeaderName::from_static("x-api-key"))?;
    let Some(line) = single(header::AUTHORIZATION)? else {
        return Ok(key);
    };
    let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
    match token.trim() {
        token if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => Ok(Some(token)),
        _ => Err(Denied("malformed")),
    }
}
