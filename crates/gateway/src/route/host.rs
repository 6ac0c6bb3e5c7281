//! Host names: their form, the split of a domain into parts, and which names are ours (GW-10).

use std::net::IpAddr;

use foldhash::HashMap;

/// What a host name of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostKind {
    /// One host does everything.
    Whole,
    /// `auth.`: identity alone.
    Auth,
    /// `api.`: services, also without the prefix `/api`.
    Api,
    /// `admin.`: the console and the API it needs.
    Admin,
    /// `static.`: sites.
    Static,
    /// `oss.` and `oss-{region}.`: objects.
    Oss,
    /// Known only because routes or documents name it.
    Foreign,
}

impl HostKind {
    /// True when a root path of a built-in service is for this part of the installation (GW-10). Pages and
    /// objects of strangers share no origin with ours.
    pub(super) fn shows(self, root: &str) -> bool {
        let everywhere = root == "/healthz";
        match self {
            Self::Whole => true,
            Self::Auth => everywhere || ["/auth", "/.well-known"].contains(&root),
            Self::Api => !["/auth", "/console", "/static", "/oss"].contains(&root),
            Self::Admin => {
                let of_it = ["/console", "/docs", "/openapi.json", "/.well-known"];
                everywhere || of_it.contains(&root)
            }
            Self::Static | Self::Oss => everywhere,
            Self::Foreign => false,
        }
    }
}

/// The names that this installation answers to.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    exact: HashMap<Box<str>, HostKind>,
    /// Suffixes with their leading dot, longest first.
    suffixes: Vec<(Box<str>, HostKind)>,
    domain: Option<Box<str>>,
}

impl Hosts {
    /// Names of the configuration: a domain with its parts, and further hosts.
    #[must_use]
    pub fn new(domain: Option<&str>, hosts: impl IntoIterator<Item = String>) -> Self {
        let mut this = Self {
            domain: domain.map(|d| d.to_ascii_lowercase().into()),
            ..Self::default()
        };
        if let Some(domain) = this.domain.clone() {
            let parts = [
                ("auth.", HostKind::Auth),
                ("api.", HostKind::Api),
                ("admin.", HostKind::Admin),
                ("static.", HostKind::Static),
                ("oss.", HostKind::Oss),
            ];
            this.exact.insert(domain.clone(), HostKind::Whole);
            for (part, kind) in parts {
                this.exact.insert(format!("{part}{domain}").into(), kind);
            }
        }
        for host in hosts {
            this.exact
                .entry(host.to_ascii_lowercase().into())
                .or_insert(HostKind::Whole);
        }
        this
    }

    /// Adds a name of a route or document; one of our own names keeps its kind.
    pub fn add(&mut self, pattern: &str) {
        match pattern.strip_prefix('*') {
            Some(suffix) => {
                let suffix: Box<str> = suffix.to_ascii_lowercase().into();
                if !self.suffixes.iter().any(|(have, _)| *have == suffix) {
                    self.suffixes.push((suffix, HostKind::Foreign));
                    self.suffixes
                        .sort_by_key(|(have, _)| std::cmp::Reverse(have.len()));
                }
            }
            None => {
                self.exact
                    .entry(pattern.to_ascii_lowercase().into())
                    .or_insert(HostKind::Foreign);
            }
        }
    }

    /// True for names of the configuration whose pages are ours: not sites, objects, or a route's host.
    #[must_use]
    pub fn is_house(&self, host: &str) -> bool {
        let kind = self.exact.get(host);
        matches!(
            kind,
            Some(HostKind::Whole | HostKind::Auth | HostKind::Api | HostKind::Admin)
        )
    }

    /// The kind of a host without its port, in lower case; nothing for a stranger's name.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<HostKind> {
        if let Some(kind) = self.exact.get(host) {
            return Some(*kind);
        }
        if host == "localhost" || host.ends_with(".localhost") || is_address(host) {
            return Some(HostKind::Whole);
        }
        if let Some(domain) = self.domain.as_deref()
            && let Some(region) = host.strip_suffix(domain).and_then(|h| h.strip_suffix('.'))
            && region.starts_with("oss-")
            && !region.contains('.')
        {
            return Some(HostKind::Oss);
        }
        let found = self
            .suffixes
            .iter()
            .find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        found.map(|(_, kind)| *kind)
    }
}

fn is_address(host: &str) -> bool {
    let inner = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    inner.parse::<IpAddr>().is_ok()
}

/// The host of a `Host` value without its port.
#[must_use]
pub fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// True for a host name, or `*.` and one.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_shows_its_own_paths() {
        use HostKind::{Admin, Api, Auth, Foreign, Oss, Static, Whole};
        for (root, wanted) in [
            ("/healthz", &[Whole, Auth, Api, Admin, Static, Oss][..]),
            ("/.well-known", &[Whole, Auth, Api, Admin]),
            ("/auth", &[Whole, Auth]),
            ("/console", &[Whole, Admin]),
            ("/docs", &[Whole, Api, Admin]),
            ("/openapi.json", &[Whole, Api, Admin]),
            ("/socket.io", &[Whole, Api]),
            ("/static", &[Whole]),
        ] {
            for kind in [Whole, Auth, Api, Admin, Static, Oss, Foreign] {
                assert_eq!(kind.shows(root), wanted.contains(&kind), "{root} {kind:?}");
            }
        }
    }

    #[test]
    fn a_domain_is_split_and_strangers_are_not_known() {
        let mut hosts = Hosts::new(Some("Example.com"), ["box.lan".to_owned()]);
        hosts.add("*.shop.example");
        hosts.add("api.example.com");
        for (host, kind) in [
            ("example.com", Some(HostKind::Whole)),
            ("api.example.com", Some(HostKind::Api)),
            ("auth.example.com", Some(HostKind::Auth)),
            ("oss-shenzhen.example.com", Some(HostKind::Oss)),
            ("oss-a.b.example.com", None),
            ("box.lan", Some(HostKind::Whole)),
            ("a.shop.example", Some(HostKind::Foreign)),
            ("shop.example", None),
            (".shop.example", None),
            ("localhost", Some(HostKind::Whole)),
            ("127.0.0.1", Some(HostKind::Whole)),
            ("[::1]", Some(HostKind::Whole)),
            ("evil.test", None),
            ("example.com.evil.test", None),
            ("", None),
        ] {
            assert_eq!(hosts.find(host), kind, "{host}");
        }
    }

    #[test]
    fn ports_are_cut() {
        for (host, wanted) in [
            ("a:80", "a"),
            ("a", "a"),
            ("[::1]:8080", "[::1]"),
            ("[::1]", "[::1]"),
            ("1.2.3.4:1", "1.2.3.4"),
        ] {
            assert_eq!(without_port(host), wanted);
        }
        assert!(
            is_pattern("a.b")
                && is_pattern("*.a.b")
                && !is_pattern("*.*.a")
                && !is_pattern("A.b")
                && !is_pattern("a..b")
        );
    }
}
