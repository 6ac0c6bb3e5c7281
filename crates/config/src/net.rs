//! Types of keys that name places on a network: listeners, networks, host names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::json;

use crate::key::{Kind, Value};
use crate::raw::Raw;
use crate::types::{checked_text, items, shown, text};

/// Networks of Cloudflare as published at <https://www.cloudflare.com/ips/>, one a line.
const CLOUDFLARE: &str = include_str!("cloudflare.txt");

/// Where a listener binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Not at all.
    Off,
    /// At this address; port 0 takes a free one.
    At(SocketAddr),
}

impl Listen {
    /// The address, when the listener is on.
    #[must_use]
    pub const fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }

    /// True when nobody outside this machine reaches it.
    #[must_use]
    pub fn is_private(self) -> bool {
        self.addr().is_none_or(|addr| addr.ip().is_loopback())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(addr) => addr.fmt(f),
        }
    }
}

impl Value for Listen {
    fn kind() -> Kind {
        Kind::plain(
            "address or off",
            "an address such as 127.0.0.1:8080, [::1]:8080 or :8080 (every IPv4 address), port 0 for a free one, or off",
            json!({ "type": "string", "minLength": 3 }),
        )
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        let written = match raw {
            // YAML 1.1 tools write `off` as a boolean.
            Raw::Bool(false) => return Ok(Self::Off),
            _ => text(raw)?,
        };
        if written == "off" {
            return Ok(Self::Off);
        }
        let (host, port) = written
            .rsplit_once(':')
            .ok_or_else(|| format!("{} has no port", shown(written)))?;
        let port: u16 = port
            .parse()
            .map_err(|_| format!("{} has no port from 0 to 65535", shown(written)))?;
        let ip: IpAddr = match host {
            "" => Ipv4Addr::UNSPECIFIED.into(),
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => match host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
            {
                Some(v6) => v6.parse::<std::net::Ipv6Addr>().map(IpAddr::from),
                None => host.parse::<Ipv4Addr>().map(IpAddr::from),
            }
            .map_err(|_| format!("{} has no IP address before the port", shown(written)))?,
        };
        Ok(Self::At(SocketAddr::new(ip, port)))
    }
}

/// Networks whose `X-Forwarded-*`, `Forwarded` and request ids are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// True when an address belongs to a trusted proxy. IPv4 mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// True when nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The networks, presets written out.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }
}

impl Value for TrustedProxies {
    fn kind() -> Kind {
        Kind::plain(
            "list of networks",
            "a list of networks such as 10.0.0.0/8, of single addresses, or the word cloudflare",
            json!({ "type": "array", "items": { "type": "string", "minLength": 2 } }),
        )
    }
    fn parse(raw: &Raw) -> Result<Self, String> {
        let mut networks = Vec::new();
        let mut problems = Vec::new();
        for (at, item) in items(raw)?.iter().enumerate() {
            match text(item).and_then(ranges) {
                Ok(found) => networks.extend(found),
                Err(problem) => problems.push(format!("item {}: {problem}", at + 1)),
            }
        }
        if problems.is_empty() {
            Ok(Self(networks))
        } else {
            Err(problems.join("; "))
        }
    }
}

fn ranges(written: &str) -> Result<Vec<IpNet>, String> {
    if written == "cloudflare" {
        return Ok(CLOUDFLARE
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect());
    }
    if let Ok(ip) = written.parse::<IpAddr>() {
        return Ok(vec![ip.into()]);
    }
    let network: IpNet = written
        .parse()
        .map_err(|_| format!("{} is not a network", shown(written)))?;
    let trunc = network.trunc();
    if trunc != network {
        return Err(format!(
            "{} has bits behind its mask; the network is {trunc}",
            shown(written)
        ));
    }
    Ok(vec![network])
}

checked_text! {
    /// A host name in lower case: labels of letters, digits and hyphens (RFC 1123 §2.1).
    pub struct HostName {
        "host name",
        "a host name such as example.com, without scheme, port and path",
        { "type": "string", "minLength": 1, "maxLength": 253 },
        |written| {
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    && !(label.starts_with('-') || label.ends_with('-'))
            };
            if written.parse::<IpAddr>().is_ok() {
                return Err("is an address, not a name");
            }
            let good = written.len() <= 253 && written.split('.').all(label);
            if good { Ok(written.to_ascii_lowercase()) } else { Err("is not a host name") }
        }
    }
}

checked_text! {
    /// A name inside the installation: `[A-Za-z0-9][A-Za-z0-9._-]{0,62}`.
    pub struct Name {
        "name",
        "at most 63 letters, digits, `.`, `_` and `-`, a letter or digit first",
        { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$" },
        |written| {
            let mut bytes = written.bytes();
            let good = bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && written.starts_with(|c: char| c.is_ascii_alphanumeric());
            if good && written.len() <= 63 { Ok(written.to_owned()) } else { Err("is not a name") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listen(text: &str) -> Result<Listen, String> {
        Listen::parse(&Raw::from(text))
    }

    #[test]
    fn addresses() {
        for (text, want) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            (":8080", "0.0.0.0:8080"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:9", "[::1]:9"),
            ("off", "off"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), want);
        }
        for bad in [
            "",
            "8080",
            "127.0.0.1",
            "127.0.0.1:",
            "1.2.3:80",
            "::1:80",
            "a.b:80",
            "1.2.3.4:70000",
            "OFF",
        ] {
            assert!(listen(bad).is_err(), "{bad}");
        }
        assert!(listen("127.5.0.1:1").unwrap().is_private());
        assert!(!listen(":1").unwrap().is_private());
    }

    #[test]
    fn networks() {
        let parse = |items: &[&str]| {
            TrustedProxies::parse(&Raw::List(
                items.iter().map(|item| Raw::from(*item)).collect(),
            ))
        };
        let trusted = parse(&["10.0.0.0/8", "::1", "cloudflare"]).unwrap();
        assert_eq!(trusted.networks().len(), 2 + CLOUDFLARE.lines().count());
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "::1", "104.16.0.1"] {
            assert!(trusted.contains(inside.parse().unwrap()), "{inside}");
        }
        assert!(!trusted.contains("11.0.0.1".parse().unwrap()));
        let problem = parse(&["10.0.0.1/8", "x"]).unwrap_err();
        assert!(
            problem.contains("10.0.0.0/8") && problem.contains("item 2"),
            "{problem}"
        );
    }

    proptest! {
        #[test]
        fn every_address_round_trips(addr: SocketAddr) {
            // The scope of a link-local address has no place in the configuration.
            let addr = SocketAddr::new(addr.ip(), addr.port());
            prop_assert_eq!(listen(&addr.to_string()).unwrap(), Listen::At(addr));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let raw = Raw::Text(text);
            let _ = (Listen::parse(&raw), HostName::parse(&raw), Name::parse(&raw), TrustedProxies::parse(&raw));
        }
    }
}
