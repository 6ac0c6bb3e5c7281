//! Who may use this listener (RG-46): loopback callers without a credential, and holders of tokens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, FORWARDED, HOST, ORIGIN, VIA};
use portico_base::{Permission, Principal, PrincipalKind};

use super::reply::{Refused, denied, refuse};
use super::request::{Params, Request};
use super::state::ConsulState;
use crate::settings::ANONYMOUS;

pub(crate) const READ: Permission = Permission::new("registry:directory:read");
pub(crate) const REGISTER: Permission = Permission::new("registry:instance:register");
pub(crate) const KV_READ: Permission = Permission::new("registry:kv:read");
pub(crate) const KV_WRITE: Permission = Permission::new("registry:kv:write");
pub(crate) const SESSION_WRITE: Permission = Permission::new("registry:session:write");
pub(crate) const EVENT_WRITE: Permission = Permission::new("registry:event:write");

/// Refuses what comes from a web page: an `Origin`, or a name that is not this listener's.
pub(crate) fn same_site(
    state: &ConsulState,
    headers: &HeaderMap,
    authority: Option<&str>,
    local: Option<SocketAddr>,
) -> Result<(), Refused> {
    if headers.contains_key(ORIGIN) {
        return refuse(403, "requests of web pages are refused");
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next(), authority) {
        (Some(host), None, _) => host.to_str().unwrap_or("?"),
        (None, None, Some(authority)) => authority,
        _ => return refuse(403, "exactly one Host is needed"),
    };
    let name = host_name(host);
    let known = match name.parse::<IpAddr>() {
        Ok(ip) => {
            ip.is_loopback() || local.is_some_and(|l| l.ip().to_canonical() == ip.to_canonical())
        }
        Err(_) => {
            name.eq_ignore_ascii_case("localhost")
                || name.to_ascii_lowercase().ends_with(".localhost")
                || state
                    .options
                    .hosts
                    .iter()
                    .any(|own| own.eq_ignore_ascii_case(name))
        }
    };
    if known {
        Ok(())
    } else {
        refuse(403, "the Host is not one of this listener")
    }
}

/// The name of an authority without its port and brackets.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// The token that a request presents. `?token=` is taken on this listener alone, whose queries are never
/// logged.
fn token<'a>(headers: &'a HeaderMap, params: &'a Params) -> Option<&'a str> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .filter(|t| !t.is_empty())
    };
    let bearer = headers
        .get(AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|t| !t.is_empty());
    header("x-consul-token")
        .or(bearer)
        .or_else(|| params.get("token").filter(|t| !t.is_empty()))
}

/// Longest wait for a token that has to be read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whoever calls, unless the tenant is suspended.
pub(crate) async fn identify(
    state: &ConsulState,
    headers: &HeaderMap,
    params: &Params,
    peer: Option<SocketAddr>,
) -> Result<Arc<Principal>, Refused> {
    let who = named(state, headers, params, peer).await?;
    still_in(state, &who)?;
    Ok(who)
}

/// Nobody of a suspended tenant gets in, nor on with what waits (ID-5); the operator repairs every tenant.
pub(crate) fn still_in(state: &ConsulState, who: &Principal) -> Result<(), Refused> {
    let operator = who.kind == PrincipalKind::Operator;
    if !operator && state.tenants.is_suspended(who.tenant) {
        return refuse(403, "the tenant is suspended");
    }
    Ok(())
}

async fn named(
    state: &ConsulState,
    headers: &HeaderMap,
    params: &Params,
    peer: Option<SocketAddr>,
) -> Result<Arc<Principal>, Refused> {
    let near = peer.is_some_and(|p| p.ip().to_canonical().is_loopback());
    let forwarded = headers.contains_key(FORWARDED)
        || headers.contains_key(VIA)
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("x-forwarded-"));
    if let Some(token) = token(headers, params) {
        return match found(state, token, peer).await? {
            // The operator's token is for direct callers on this machine alone.
            Some(who) if who.kind == PrincipalKind::Operator && (!near || forwarded) => denied(),
            Some(who) => Ok(who),
            None => refuse(403, "ACL not found"),
        };
    }
    let allowed = state.options.anonymous
        && near
        && !forwarded
        && state.core.settings.system(&ANONYMOUS) == "loopback";
    if allowed {
        Ok(Arc::new(Principal::anonymous_local()))
    } else {
        denied()
    }
}

/// The principal behind a token. One that is not in memory is read, few at a time.
async fn found(
    state: &ConsulState,
    token: &str,
    peer: Option<SocketAddr>,
) -> Result<Option<Arc<Principal>>, Refused> {
    let Some(source) = state.credentials.source(token) else {
        return Ok(None);
    };
    let mut found = source.find(token);
    if found.is_none()
        && let Some(reading) = source.load(token)
    {
        let Ok(_seat) = state.reading.try_acquire() else {
            return refuse(503, "too many tokens are being looked for");
        };
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            return refuse(503, "tokens cannot be looked for at present");
        }
        found = source.find(token);
    }
    let address = peer.map(|p| p.ip().to_canonical());
    let fits = |who: &Arc<Principal>| {
        let bounds = source.bounds(who);
        bounds.is_none_or(|b| b.admits(address) && b.reaches("registry"))
    };
    let found = found.filter(fits);
    if let Some(who) = &found {
        source.used(who, address);
    }
    Ok(found)
}

/// Checks a permission of the caller.
pub(crate) fn need(r: &Request, permission: &Permission) -> Result<(), Refused> {
    if r.cx.principal().may(permission) {
        Ok(())
    } else {
        denied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_their_ports() {
        for (host, name) in [
            ("localhost:8500", "localhost"),
            ("[::1]:8500", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("evil.example:80", "evil.example"),
        ] {
            assert_eq!(host_name(host), name);
        }
    }

    #[test]
    fn tokens_by_header_bearer_and_parameter() {
        let mut headers = HeaderMap::new();
        let params = Params::parse("token=c");
        assert_eq!(token(&headers, &params), Some("c"));
        headers.insert(AUTHORIZATION, "Bearer b".parse().unwrap());
        assert_eq!(token(&headers, &params), Some("b"));
        headers.insert("x-consul-token", "a".parse().unwrap());
        assert_eq!(token(&headers, &params), Some("a"));
        headers.insert("x-consul-token", "".parse().unwrap());
        assert_eq!(token(&headers, &params), Some("b"));
    }
}
