//! Who is at the other end: the client's address behind trusted proxies, its scheme, and the request's id.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::serve::ConnInfo;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Addresses taken from one header at most.
const MOST_HOPS: usize = 50;

/// What is known about the client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The right-most address that is not a trusted proxy.
    pub address: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The peer is a trusted proxy.
    pub proxied: bool,
    /// Over loopback without any proxy in between.
    pub direct_loopback: bool,
    pub https: bool,
}

impl Client {
    /// Finds the client of a request.
    #[must_use]
    pub fn of(conn: &ConnInfo, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let peer = canonical(conn.peer.ip());
        let proxied = is_trusted(peer, trusted);
        let address = if proxied {
            behind_proxies(peer, headers, trusted)
        } else {
            peer
        };
        let https = if proxied {
            said_https(headers).unwrap_or(conn.tls.is_some())
        } else {
            conn.tls.is_some()
        };
        let forwarded = [X_FORWARDED_FOR, X_REAL_IP, header::FORWARDED, header::VIA];
        let direct = !forwarded.iter().any(|name| headers.contains_key(name));
        Self {
            address,
            peer,
            proxied,
            direct_loopback: peer.is_loopback() && direct,
            https,
        }
    }

    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// From right to left past every trusted proxy; what cannot be read ends the walk.
fn behind_proxies(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let lines: Vec<&str> = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let hops = lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(','))
        .take(MOST_HOPS);
    let mut address = peer;
    for hop in hops {
        let Some(next) = parse_hop(hop.trim()) else {
            break;
        };
        address = next;
        if !is_trusted(next, trusted) {
            break;
        }
    }
    address
}

/// An address, also with a port or in brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|t| t.split(']').next())
        .unwrap_or(text);
    let parsed = inner.parse::<IpAddr>().ok();
    let parsed = parsed.or_else(|| {
        inner
            .rsplit_once(':')
            .and_then(|(host, _)| host.parse().ok())
    });
    parsed.map(canonical)
}

fn said_https(headers: &HeaderMap) -> Option<bool> {
    match headers.get(X_FORWARDED_PROTO)?.as_bytes() {
        b"https" | b"wss" => Some(true),
        b"http" | b"ws" => Some(false),
        _ => None,
    }
}

/// IPv4 addresses that arrive in IPv6 form are IPv4 addresses.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// An id that a trusted proxy gave, when it has the form of one (GW-20).
#[must_use]
pub fn given_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(X_REQUEST_ID)?;
    let good = (8..=64).contains(&value.len())
        && value
            .as_bytes()
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    good.then(|| value.clone())
}

/// An address as a header value, rendered without going through the formatter's slow path for IPv4.
#[must_use]
pub fn address_value(address: IpAddr) -> HeaderValue {
    let text = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) if v6 == Ipv6Addr::LOCALHOST => "::1".to_owned(),
        IpAddr::V6(v6) => v6.to_string(),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Protocol;

    fn client(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> Client {
        let peer: IpAddr = peer.parse().unwrap();
        let conn = ConnInfo {
            id: 1,
            peer: (peer, 1).into(),
            local: (peer, 2).into(),
            listener: "http",
            protocol: Protocol::Http1,
            tls: None,
        };
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|n| n.parse().unwrap()).collect();
        Client::of(&conn, &headers, &trusted)
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        for (peer, forwarded, trusted, wanted) in [
            ("10.0.0.1", &["1.2.3.4"][..], &[][..], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4"], &["10.0.0.0/8"], "1.2.3.4"),
            (
                "10.0.0.1",
                &["6.6.6.6, 1.2.3.4, 10.0.0.9"],
                &["10.0.0.0/8"],
                "1.2.3.4",
            ),
            (
                "10.0.0.1",
                &["6.6.6.6", "1.2.3.4"],
                &["10.0.0.0/8"],
                "1.2.3.4",
            ),
            (
                "10.0.0.1",
                &["6.6.6.6, rubbish"],
                &["10.0.0.0/8"],
                "10.0.0.1",
            ),
            (
                "10.0.0.1",
                &["[2001:db8::1]:80"],
                &["10.0.0.0/8"],
                "2001:db8::1",
            ),
            ("10.0.0.1", &["1.2.3.4:99"], &["10.0.0.0/8"], "1.2.3.4"),
            (
                "::ffff:10.0.0.1",
                &["10.0.0.2"],
                &["10.0.0.0/8"],
                "10.0.0.2",
            ),
        ] {
            assert_eq!(
                client(peer, forwarded, trusted).address.to_string(),
                wanted,
                "{peer} {forwarded:?}"
            );
        }
    }

    #[test]
    fn loopback_is_direct_only_without_any_sign_of_a_proxy() {
        assert!(client("127.0.0.1", &[], &[]).direct_loopback);
        assert!(!client("127.0.0.1", &["1.2.3.4"], &[]).direct_loopback);
        assert!(!client("10.0.0.1", &[], &[]).direct_loopback);
    }

    #[test]
    fn request_ids_have_a_form() {
        for (id, good) in [
            ("abcdefgh", true),
            ("abc", false),
            ("a b c d e f", false),
            ("0123456789_.-ABC", true),
        ] {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_static(id))]);
            assert_eq!(given_request_id(&headers).is_some(), good, "{id}");
        }
    }
}
