//! The addresses that this process listens on, so that nobody registers us behind ourselves (RG-10).

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;

/// Filled while listeners are bound; read at each registration. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses(Arc<RwLock<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// Adds a bound listener.
    pub fn add(&self, address: SocketAddr) {
        self.0.write().push(address);
    }

    /// True when a connection to `address` would reach one of our listeners.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.read().iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || (own.ip().is_unspecified() && own.is_ipv4() == address.is_ipv4()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_listeners_cover_every_address_of_their_family() {
        let own = OwnAddresses::default();
        own.add("0.0.0.0:8080".parse().unwrap());
        own.add("127.0.0.1:8500".parse().unwrap());
        assert!(own.contains("10.0.0.1:8080".parse().unwrap()));
        assert!(own.contains("127.0.0.1:8500".parse().unwrap()));
        assert!(!own.contains("10.0.0.1:8500".parse().unwrap()));
        assert!(!own.contains("[::1]:8080".parse().unwrap()));
    }
}
