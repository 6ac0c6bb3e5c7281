//! Where a vendor is asked: https, or a stand-in on this machine.

use std::net::IpAddr;

use url::{Host, Url};

/// Address of a vendor's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    base: String,
    authority: String,
}

/// An address that no message is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an https address of a host, without path, query and user; plain http only on loopback"
)]
pub struct EndpointError;

impl Endpoint {
    /// Reads `https://host[:port]`.
    ///
    /// # Errors
    /// For anything that would carry credentials in the clear, or is more than a host.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(text).map_err(|_| EndpointError)?;
        let loopback = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(EndpointError),
        };
        let plain = url.scheme() == "http" && loopback;
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare || !(url.scheme() == "https" || plain) {
            return Err(EndpointError);
        }
        let host = url.host_str().ok_or(EndpointError)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            base: format!("{}://{authority}", url.scheme()),
            authority,
        })
    }

    /// `scheme://host[:port]`, without a slash.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The `Host` header that a request to it has.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_leave_in_the_clear() {
        let good = Endpoint::parse("https://dysmsapi.aliyuncs.com").unwrap();
        assert_eq!(good.authority(), "dysmsapi.aliyuncs.com");
        assert_eq!(good.base(), "https://dysmsapi.aliyuncs.com");
        let near = Endpoint::parse("http://127.0.0.1:8081/").unwrap();
        assert_eq!(near.authority(), "127.0.0.1:8081");
        for bad in [
            "http://dysmsapi.aliyuncs.com",
            "https://user@host",
            "https://host/path",
            "https://host/?a=b",
            "ftp://host",
            "host",
            "",
        ] {
            assert_eq!(Endpoint::parse(bad), Err(EndpointError), "{bad}");
        }
    }
}
