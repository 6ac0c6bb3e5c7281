//! Names under which a listener may be called (GW-10): its own, and those that cannot be somebody else's.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// Names of this installation beside this machine's own.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// With everything below it.
    domain: Option<Box<str>>,
    exact: Vec<Box<str>>,
}

impl Hosts {
    /// A domain with its parts, and further names.
    #[must_use]
    pub fn new(domain: Option<&str>, exact: impl IntoIterator<Item = String>) -> Self {
        Self {
            domain: domain.map(|name| name.to_ascii_lowercase().into()),
            exact: exact
                .into_iter()
                .map(|name| name.to_ascii_lowercase().into())
                .collect(),
        }
    }

    /// True when a call was meant for us: exactly one name, and one of ours, `localhost` or an address.
    pub(crate) fn admit(&self, authority: Option<&Authority>, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(HOST).iter();
        let host = match (authority, lines.next(), lines.next()) {
            (Some(authority), None, None) => authority.host(),
            (None, Some(line), None) => match line.to_str() {
                Ok(text) => name_of(text),
                Err(_) => return false,
            },
            // HTTP/2 clients send the authority alone; both are allowed when they agree (RFC 9113 §8.3.1).
            (Some(authority), Some(line), None) if line == authority.as_str() => authority.host(),
            _ => return false,
        };
        self.knows(host)
    }

    fn knows(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let below = |parent: &str| {
            name.strip_suffix(parent)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        below("localhost")
            || self.domain.as_deref().is_some_and(below)
            || self.exact.iter().any(|own| **own == *name)
    }
}

/// The name of a `Host` without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_addresses_and_nothing_else() {
        let hosts = Hosts::new(Some("Example.com"), ["box.lan".to_owned()]);
        for name in [
            "127.0.0.1",
            "[::1]",
            "10.1.2.3",
            "localhost",
            "a.localhost",
            "example.com",
            "grpc.EXAMPLE.com",
            "box.lan",
            "Box.LAN.",
        ] {
            assert!(hosts.knows(name), "{name}");
        }
        for name in [
            "evil.example",
            "notexample.com",
            "xlocalhost",
            "a.box.lan",
            "",
        ] {
            assert!(!hosts.knows(name), "{name}");
        }
        assert!(!Hosts::default().knows("example.com"));
    }

    #[test]
    fn one_name_that_everybody_agrees_on() {
        let hosts = Hosts::default();
        let headers = |lines: &[&str]| {
            let mut map = HeaderMap::new();
            for line in lines {
                map.append(HOST, line.parse().unwrap());
            }
            map
        };
        let ours: Authority = "localhost:9090".parse().unwrap();
        let admit =
            |authority: Option<&Authority>, lines: &[&str]| hosts.admit(authority, &headers(lines));
        assert!(admit(Some(&ours), &[]));
        assert!(admit(None, &["localhost:9090"]) && admit(None, &["[::1]:9090"]));
        assert!(admit(Some(&ours), &["localhost:9090"]));
        assert!(!admit(Some(&ours), &["evil.example"]), "two names");
        assert!(!admit(None, &["localhost", "localhost"]) && !admit(None, &[]));
        assert!(!admit(None, &["evil.example:9090"]));
    }
}
