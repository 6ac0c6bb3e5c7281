//! What decides who comes in, as the services built before the gateway provide it.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use portico_contract::address_rules::{AddressBlocked, AddressRules};
use portico_contract::tenants::Tenants;
use portico_contract::tokens::{IdentityStatements, TokenVerifier};
use uuid::Uuid;

use super::client::Client;
use super::refusal::Refusal;
use crate::identify::load::Loader;
use crate::route::house::HouseRoutes;

/// The name of the listener of administration.
pub(crate) const CONSOLE: &str = "console";
/// The name of the listener by which services call each other.
pub(crate) const INTERNAL: &str = "internal";

/// Everything that is asked about callers. What nobody provides is not asked.
#[derive(Clone, Default)]
pub struct Entrance {
    pub verifier: Option<Arc<dyn TokenVerifier>>,
    pub tenants: Option<Arc<dyn Tenants>>,
    pub statements: Option<Arc<dyn IdentityStatements>>,
    pub rules: Option<Arc<dyn AddressRules>>,
    /// Reads credentials that are not in memory; without it these are not known.
    pub loader: Option<Loader>,
    pub house: Arc<HouseRoutes>,
    /// Administration has a listener of its own (GW-9).
    pub own_console: bool,
    /// Told of calls between services that no rule allows; must be quick.
    pub(crate) calls: Option<CallListener>,
}

/// A call that no rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCall {
    pub caller: Arc<str>,
    pub callee: Arc<str>,
    pub tenant: Uuid,
    pub method: http::Method,
    /// Path below the callee.
    pub path: Box<str>,
    pub address: IpAddr,
    pub request_id: Box<str>,
}

/// Told of refused calls on a data thread.
pub(crate) type CallListener = Arc<dyn Fn(RefusedCall) + Send + Sync>;

impl Entrance {
    /// Addresses that get no answer (ID-162, ID-163).
    ///
    /// # Errors
    /// 403 for a blocked address.
    pub(super) fn admits(&self, address: IpAddr, now_s: i64) -> Result<(), Refusal> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        rules.check(address, now_s).map_err(|b| blocked(b, now_s))
    }

    /// Whether administration is reached this way. Asked before anybody is identified, so that the answer
    /// tells a stranger nothing.
    ///
    /// # Errors
    /// 404 where administration has a listener of its own, 403 for networks that it is not served to.
    pub(super) fn manages(
        &self,
        listener: &str,
        networks: Option<&[IpNet]>,
        client: &Client,
        now_s: i64,
    ) -> Result<(), Refusal> {
        if self.own_console && listener != CONSOLE {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "gateway.not_found",
                "there is nothing at this path",
            ));
        }
        let inside = |networks: &[IpNet]| networks.iter().any(|n| n.contains(&client.address));
        // Whoever sits at the machine repairs what shut everybody else out.
        let local = self.own_console || client.direct_loopback;
        if networks.is_some_and(|networks| !local && !inside(networks)) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "gateway.address_denied",
                "administration is not served to your network",
            ));
        }
        match &self.rules {
            Some(rules) => rules
                .check_admin(client.address, now_s)
                .map_err(|b| blocked(b, now_s)),
            None => Ok(()),
        }
    }
}

fn blocked(blocked: AddressBlocked, now_s: i64) -> Refusal {
    let refusal = Refusal::new(
        StatusCode::FORBIDDEN,
        AddressBlocked::CODE,
        "your address is blocked",
    );
    let left = blocked.until_s.map(|until| until.saturating_sub(now_s));
    match left.and_then(|s| u32::try_from(s).ok()) {
        Some(seconds) => refusal.retry_after(seconds.max(1)),
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: [u8; 4], direct_loopback: bool) -> Client {
        Client {
            address: address.into(),
            peer: address.into(),
            proxied: false,
            direct_loopback,
            https: false,
        }
    }

    #[test]
    fn administration_stays_where_it_was_put() {
        let office: [IpNet; 1] = ["203.0.113.0/24".parse().unwrap()];
        let status = |own_console, listener, networks: Option<&[IpNet]>, who: Client| {
            let entrance = Entrance {
                own_console,
                ..Entrance::default()
            };
            entrance
                .manages(listener, networks, &who, 0)
                .map_or_else(|r| r.status.as_u16(), |()| 200)
        };
        let far = client([203, 0, 113, 9], false);
        let farther = client([198, 51, 100, 1], false);
        assert_eq!(status(false, "http", None, far), 200);
        assert_eq!(status(true, "http", None, far), 404);
        assert_eq!(
            status(true, "http", None, client([127, 0, 0, 1], true)),
            404
        );
        assert_eq!(status(true, CONSOLE, None, far), 200);
        assert_eq!(status(false, "http", Some(&office), far), 200);
        assert_eq!(status(false, "http", Some(&office), farther), 403);
        assert_eq!(status(false, "http", Some(&[]), farther), 403);
        assert_eq!(
            status(false, "http", Some(&office), client([127, 0, 0, 1], true)),
            200
        );
    }
}
