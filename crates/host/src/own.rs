//! The addresses that this process listens on, so that nobody registers us behind ourselves (RG-10).

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;

/// Filled while listeners are bound; read at each registration. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses(Arc<RwLock<Own>>);

#[derive(Debug, Default)]
struct Own {
    addresses: Vec<SocketAddr>,
    /// URL by the listener's name.
    urls: Vec<(String, String)>,
}

impl OwnAddresses {
    /// Adds a bound listener.
    pub fn add(&self, address: SocketAddr) {
        self.0.write().addresses.push(address);
    }

    /// Notes the URL of a bound listener under its name (`http`, `https`, `grpc`).
    pub fn name(&self, listener: &str, url: &str) {
        let mut own = self.0.write();
        own.urls.push((listener.to_owned(), url.to_owned()));
    }

    /// URL of a listener, once it is bound.
    #[must_use]
    pub fn url(&self, listener: &str) -> Option<String> {
        let own = self.0.read();
        let found = own.urls.iter().find(|(name, _)| name == listener);
        found.map(|(_, url)| url.clone())
    }

    /// True when a connection to `address` would reach one of our listeners.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.0.read().addresses.iter().any(|own| {
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
