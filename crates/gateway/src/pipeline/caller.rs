//! Who calls: the credential of a request, the tenant of strangers, and what a cookie needs besides (GW-21, ID-3, ID-62).

use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use portico_contract::credentials::Bounds;
use portico_contract::tenants::TenantStatus;

use super::door::{Door, Local};
use super::errand::InTheNameOf;
use super::record::Log;
use super::refusal::Refusal;
use crate::body::ReqBody;
use crate::identify::{
    BadCredential, Denied, Identity, Origin, Shown, Unidentified, has_key_in_query,
    has_refresh_cookie,
};
use crate::limit::{Limited, Subject};
use crate::objects::doc::Dimension;
use crate::route::host::without_port;

const CSRF: HeaderName = HeaderName::from_static("x-portico-csrf");

/// What is to be done with a credential that is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strange {
    /// It is refused.
    Refuse,
    /// It may be one of the service's own: the caller is nobody to us.
    Leave,
    /// The caller is nobody, and is told why where somebody is needed.
    Doubt,
}

/// Where a request goes, as far as its credential is concerned.
pub(super) struct Towards<'a> {
    /// The service, or nothing for what belongs to none.
    pub(super) service: &'a str,
    /// Lower case, with the port as sent.
    pub(super) host: &'a str,
    pub(super) strange: Strange,
}

impl Door {
    /// Who calls; the credential is good, in its tenant and within its own limits, and it was not a page of
    /// somebody else's that sent it.
    pub(super) async fn identify(
        &self,
        local: &Local,
        to: &Towards<'_>,
        request: &Request<ReqBody>,
        log: &mut Log,
    ) -> Result<Rc<Identity>, Refusal> {
        if let Some(InTheNameOf(principal)) = request.extensions().get() {
            let identity = self.identifier.of(Arc::clone(principal));
            log.identity = Some(Rc::clone(&identity));
            return Ok(identity);
        }
        let shown = match self.shown(request, log, false) {
            Err(Unidentified::Unloaded(unloaded)) => {
                if let Some(loader) = &self.gate.entrance.loader {
                    loader.load(unloaded).await.map_err(|_| busy())?;
                }
                self.shown(request, log, true)
            }
            shown => shown,
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(bad) => self.strange(to.strange, bad)?,
        };
        self.own_page(request, to.host, &shown, log)?;
        let shown = self.in_its_tenant(shown, to.host)?;
        if let Some(bounds) = &shown.bounds {
            self.within(local, bounds, to.service, &shown.identity, log)?;
        }
        self.force_trace(request.headers(), &shown.identity.principal, log);
        log.doubt = shown.doubt;
        log.identity = Some(Rc::clone(&shown.identity));
        Ok(shown.identity)
    }

    fn shown(
        &self,
        request: &Request<ReqBody>,
        log: &Log,
        loaded: bool,
    ) -> Result<Shown, Unidentified> {
        let from = Origin {
            address: Some(log.client.address),
            direct_loopback: log.client.direct_loopback,
            https: log.client.https,
        };
        let now_s = log.begun_us / 1_000_000;
        self.identifier
            .identify(request.headers(), from, now_s, loaded)
    }

    /// A credential that is not good.
    fn strange(&self, what: Strange, bad: Unidentified) -> Result<Shown, Refusal> {
        let bad = match bad {
            Unidentified::Bad(bad) => bad,
            // A source that looked and still wants to look knows nothing.
            Unidentified::Unloaded(_) => Denied("unknown").into(),
        };
        let doubt = match what {
            Strange::Refuse => return Err(refused(&bad)),
            Strange::Leave => None,
            Strange::Doubt => Some(bad),
        };
        Ok(Shown {
            identity: self.identifier.anonymous(),
            by_cookie: false,
            doubt,
            bounds: None,
        })
    }

    /// A host can be bound to a tenant: then strangers there are of it (ID-3).
    fn in_its_tenant(&self, shown: Shown, host: &str) -> Result<Shown, Refusal> {
        if shown.identity.principal.is_authenticated() {
            return Ok(shown);
        }
        let Some(tenant) = self.identifier.tenant_of_host(without_port(host)) else {
            return Ok(shown);
        };
        if tenant.status != TenantStatus::Active {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                Denied::TENANT_SUSPENDED.code(),
                "the tenant is suspended",
            ));
        }
        Ok(Shown {
            identity: self.identifier.anonymous_in(tenant.id),
            ..shown
        })
    }

    /// A browser sends its cookies with requests that strangers' pages make. What changes something by one of
    /// ours must come from a page of this very origin, which says so in a header that no form can set.
    fn own_page(
        &self,
        request: &Request<ReqBody>,
        host: &str,
        shown: &Shown,
        log: &Log,
    ) -> Result<(), Refusal> {
        let safe = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        if safe {
            return Ok(());
        }
        let headers = request.headers();
        let carried = shown.by_cookie
            || (!shown.identity.principal.is_authenticated() && has_refresh_cookie(headers));
        if !carried {
            return Ok(());
        }
        let origin = headers.get(header::ORIGIN);
        let own = origin.is_some_and(|o| is_same_origin(o, host, log.client.https));
        let said = headers.get(CSRF).is_some_and(|v| v == "1");
        if own && said {
            return Ok(());
        }
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "identity.csrf",
            "a change by cookie needs an Origin of this host and the header X-Portico-CSRF: 1",
        ))
    }

    /// The limits that a credential has of its own.
    fn within(
        &self,
        local: &Local,
        bounds: &Bounds,
        service: &str,
        identity: &Identity,
        log: &Log,
    ) -> Result<(), Refusal> {
        if !bounds.reaches(service) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "identity.permission_denied",
                "the key is not for this service",
            ));
        }
        let shared = local.table.values.limits_shared;
        let limited = bounds
            .per_s
            .and_then(|per_s| Limited::per_second("key", Dimension::User, per_s, None, shared));
        let Some(limited) = limited else {
            return Ok(());
        };
        let subject = Subject {
            address: log.client.address,
            principal: &identity.principal,
            service,
            route: "",
            endpoint: "",
            headers: &http::HeaderMap::new(),
            claims: &[],
        };
        match limited.key(&self.gate.hasher, &subject) {
            Some(key) => limited
                .take(&self.gate.limiter, key, self.gate.nanos(log.begun))
                .map(drop)
                .map_err(Refusal::limited),
            None => Ok(()),
        }
    }

    /// Revocations could not be read for too long to let a caller of ours through (ID-112).
    pub(super) fn fresh_enough(&self, identity: &Identity, sensitive: bool) -> Result<(), Refusal> {
        if self.identifier.refuses_stale(identity, sensitive) {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                Denied::REVOCATIONS_STALE.code(),
                "it is not known at present who was logged out",
            )
            .retry_after(1));
        }
        Ok(())
    }
}

/// 401 with the code of what is wrong (ID-174).
pub(super) fn refused(bad: &BadCredential) -> Refusal {
    tracing::debug!(reason = bad.why.0, "a credential was refused");
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, bad.why.code(), sentence(bad.why));
    match &bad.reason {
        Some(reason) => refusal.with_member("reason", (&**reason).into()),
        None => refusal,
    }
}

fn sentence(why: Denied) -> &'static str {
    match why {
        Denied::EXPIRED => "the token has expired",
        Denied::STALE => "the token is older than the user's rights: refresh it",
        Denied::SESSION_REVOKED => "the session has ended",
        Denied::ACCOUNT_DISABLED => "the account is disabled",
        Denied::TENANT_SUSPENDED => "the tenant is suspended",
        Denied::IP_MISMATCH => "the credential is not for your network",
        _ => "the credential is not valid",
    }
}

/// Too many unknown credentials are being looked for.
fn busy() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "gateway.overloaded",
        "credentials cannot be looked for at present",
    )
    .retry_after(1)
}

/// Queries end up in logs, histories and referrers: no credential may stand there (ID-131).
///
/// # Errors
/// 400 for a query with one of our tokens in it.
pub(super) fn no_key_in_query(query: Option<&str>) -> Result<(), Refusal> {
    if query.is_some_and(has_key_in_query) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "identity.key_in_query",
            "credentials belong in a header, never in the address: this one is known to logs now",
        ));
    }
    Ok(())
}

/// Same host and port, and no page without TLS speaks for one with it.
fn is_same_origin(origin: &HeaderValue, host: &str, https: bool) -> bool {
    let Some(origin) = origin.to_str().ok().map(str::to_ascii_lowercase) else {
        return false;
    };
    let (authority, secure) = match (
        origin.strip_prefix("https://"),
        origin.strip_prefix("http://"),
    ) {
        (Some(authority), _) => (authority, true),
        (None, Some(authority)) => (authority, false),
        (None, None) => return false,
    };
    let port = if secure { ":443" } else { ":80" };
    let plain = |text: &str| text.strip_suffix(port).unwrap_or(text).to_owned();
    !authority.is_empty() && plain(authority) == plain(host) && (secure || !https)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_with_scheme_and_port() {
        for (origin, host, https, same) in [
            ("https://a.example", "a.example", true, true),
            ("https://a.example:443", "a.example", true, true),
            ("https://A.example", "a.example:443", true, true),
            ("http://localhost:8080", "localhost:8080", false, true),
            // Behind a proxy that ends TLS and says nothing of it.
            ("https://a.example", "a.example", false, true),
            ("http://a.example", "a.example", true, false),
            ("https://a.example:444", "a.example", true, false),
            ("https://a.example.evil.test", "a.example", true, false),
            ("https://b.example", "a.example", true, false),
            ("null", "a.example", true, false),
            ("https://", "", true, false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!(is_same_origin(&value, host, https), same, "{origin} {host}");
        }
    }
}
