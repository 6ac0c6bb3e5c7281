//! Where instances, checks and documents of plug-ins may live on the network (RG-10).
//!
//! The policy is asked at registration and again at each connect: DNS may answer differently the second time.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// Networks that are allowed when nothing else is set: loopback, RFC 1918, and ULA (RFC 4193).
pub const DEFAULT_NETWORKS: [&str; 6] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
];

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Link-local, where clouds keep their metadata services (RFC 3927, RFC 4291 §2.5.6).
    LinkLocal,
    /// Multicast or broadcast.
    Multicast,
    /// `0.0.0.0` or `::`.
    Unspecified,
    /// One of our own listeners: requests would go round in a loop.
    OwnListener,
    /// Outside of the allowed networks.
    NotAllowed,
}

impl Refused {
    /// True when the address leads back to ourselves.
    #[must_use]
    pub const fn is_loop(self) -> bool {
        matches!(self, Self::OwnListener)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkLocal => "link-local addresses are never allowed",
            Self::Multicast => "multicast and broadcast addresses are never allowed",
            Self::Unspecified => "the unspecified address is not an address to connect to",
            Self::OwnListener => "this is one of our own listeners",
            Self::NotAllowed => "the address is outside of `registry.allowed_networks`",
        })
    }
}

impl std::error::Error for Refused {}

/// Decides about addresses. Provided by the registry; asked by whoever connects to an instance.
pub trait AddressGuard: Send + Sync {
    /// Decides about one resolved address.
    ///
    /// # Errors
    /// Says why a connection to it is refused.
    fn check(&self, address: SocketAddr) -> Result<(), Refused>;
}

/// Shared handle.
pub type Addresses = Arc<dyn AddressGuard>;

/// The rule itself, without the list of our own listeners.
///
/// # Errors
/// Says why an address is refused.
pub fn judge(ip: IpAddr, allowed: &[IpNet]) -> Result<(), Refused> {
    let ip = canonical(ip);
    if ip.is_unspecified() {
        return Err(Refused::Unspecified);
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_multicast()),
    };
    if multicast {
        return Err(Refused::Multicast);
    }
    // AWS's metadata service over IPv6 lives inside ULA space, which is allowed by default.
    if link_local || ip == IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)) {
        return Err(Refused::LinkLocal);
    }
    if allowed.iter().any(|network| network.contains(&ip)) {
        Ok(())
    } else {
        Err(Refused::NotAllowed)
    }
}

/// IPv4 in every dress of IPv6 that a kernel or gateway would take off again: mapped (`::ffff:0:0/96`),
/// compatible (`::/96`), and NAT64 (`64:ff9b::/96`, RFC 6052).
fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let segments = v6.segments();
    let embedded = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0]
        || (segments[..6] == [0; 6] && v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED);
    if embedded {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::from([a, b, c, d]);
    }
    ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let allowed: Vec<IpNet> = DEFAULT_NETWORKS
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        assert_eq!(allowed.len(), DEFAULT_NETWORKS.len());
        let verdict = |text: &str| judge(text.parse().expect(text), &allowed).err();
        for good in [
            "127.0.0.1",
            "10.9.8.7",
            "192.168.1.1",
            "172.31.0.1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(verdict(good), None, "{good}");
        }
        for (bad, why) in [
            ("169.254.169.254", Refused::LinkLocal),
            ("::ffff:169.254.169.254", Refused::LinkLocal),
            ("::169.254.169.254", Refused::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Refused::LinkLocal),
            ("fd00:ec2::254", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("224.0.0.1", Refused::Multicast),
            ("255.255.255.255", Refused::Multicast),
            ("ff02::1", Refused::Multicast),
            ("0.0.0.0", Refused::Unspecified),
            ("::", Refused::Unspecified),
            ("::ffff:0.0.0.0", Refused::Unspecified),
            ("8.8.8.8", Refused::NotAllowed),
            ("172.32.0.1", Refused::NotAllowed),
            ("2001:db8::1", Refused::NotAllowed),
        ] {
            assert_eq!(verdict(bad), Some(why), "{bad}");
        }
        let everything = [
            "0.0.0.0/0".parse().expect("a network"),
            "::/0".parse().expect("a network"),
        ];
        assert!(judge("8.8.8.8".parse().expect("an address"), &everything).is_ok());
        assert!(judge("169.254.0.1".parse().expect("an address"), &everything).is_err());
    }
}
