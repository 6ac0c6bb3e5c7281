//! From a host to addresses that may be connected to, at registration and again at each connect (RG-10).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portico_base::FieldFault;
use portico_contract::address::{AddressGuard, Refused};

/// Time for a name to resolve.
const LIMIT: Duration = Duration::from_secs(2);
/// Addresses of a name that are looked at.
const MOST: usize = 16;

/// Why a host cannot be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("the name does not resolve")]
    Unknown,
    #[error("{0}")]
    Refused(Refused),
}

impl Unreachable {
    /// The fault of a registration's field.
    pub(crate) fn fault(&self, field: &str) -> FieldFault {
        let code = match self {
            Self::Unknown => "unresolvable",
            Self::Refused(refused) if refused.is_loop() => "loop",
            Self::Refused(_) => "address_not_allowed",
        };
        FieldFault::new(field, code, self.to_string())
    }
}

/// The addresses of a host. One refused address refuses the host: a name that points inside and outside
/// is a trick more often than a need.
pub(crate) async fn resolve(
    guard: &dyn AddressGuard,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, Unreachable> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => match tokio::time::timeout(LIMIT, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(found)) => found.take(MOST).collect(),
            _ => Vec::new(),
        },
    };
    if addresses.is_empty() {
        return Err(Unreachable::Unknown);
    }
    for address in &addresses {
        guard.check(*address).map_err(Unreachable::Refused)?;
    }
    Ok(addresses)
}
