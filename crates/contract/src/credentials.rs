//! Credentials: from a presented token to a principal, without any database read.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use portico_base::Principal;

/// Knows one family of tokens, told by their prefix (`prt_`, `pis_`, `pop_`, `ptk_`).
///
/// Implementations keep what they need in memory (as hashes) and follow changes by feed.
pub trait CredentialSource: Send + Sync {
    /// The prefix of the tokens that it knows.
    fn prefix(&self) -> &'static str;

    /// The principal behind a token, or nothing when it is unknown, expired or revoked.
    fn find(&self, token: &str) -> Option<Arc<Principal>>;

    /// Reads what [`CredentialSource::find`] did not find in memory, where there may be more of it than
    /// memory holds; afterwards asking again is worth it. Nothing means: what is not in memory is not.
    fn load<'a>(&'a self, _token: &'a str) -> Option<BoxFuture<'a, ()>> {
        None
    }

    /// What a credential that [`CredentialSource::find`] just answered is limited to besides its
    /// permissions; asked for each request, so answered from memory. Nothing means: no further limits.
    fn bounds(&self, _principal: &Principal) -> Option<Arc<Bounds>> {
        None
    }

    /// A request was let in with a credential that [`CredentialSource::find`] just answered. Asked for each
    /// request, so it must be quick.
    fn used(&self, _principal: &Principal, _address: Option<IpAddr>) {}
}

/// Limits of one credential, kept by whoever takes it (ID-130).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bounds {
    /// Services that it may be used at; empty for all.
    pub services: Vec<String>,
    /// Networks that it may come from; empty for all.
    pub networks: Vec<IpNet>,
    /// Requests a second; absent for the limits that hold for everybody.
    pub per_s: Option<f64>,
}

impl Bounds {
    /// May it be used at a service? The empty name stands for none in particular.
    #[must_use]
    pub fn reaches(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|own| own == service)
    }

    /// May it be used from an address? One that is not known is none of its networks.
    #[must_use]
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty()
            || address.is_some_and(|ip| self.networks.iter().any(|net| net.contains(&ip)))
    }
}

/// All sources of a process. Clones share them: a source that a later service adds is known to every
/// holder, and looking takes no lock.
#[derive(Clone, Default)]
pub struct Credentials(Arc<OnceLock<Box<Link>>>);

struct Link {
    source: Arc<dyn CredentialSource>,
    next: OnceLock<Box<Self>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.links().map(|l| l.source.prefix()))
            .finish()
    }
}

impl Credentials {
    /// Adds a source, for all clones.
    pub fn add(&self, source: Arc<dyn CredentialSource>) {
        let mut link = Box::new(Link {
            source,
            next: OnceLock::new(),
        });
        let mut end = &*self.0;
        // Somebody else may take the end at the same time: then it is the next one's.
        while let Err(refused) = end.set(link) {
            link = refused;
            match end.get() {
                Some(taken) => end = &taken.next,
                None => return,
            }
        }
    }

    /// The source whose prefix the token has. Nothing means: not one of our opaque tokens (a JWT, perhaps).
    #[must_use]
    pub fn source(&self, token: &str) -> Option<&Arc<dyn CredentialSource>> {
        self.links()
            .map(|l| &l.source)
            .find(|s| token.starts_with(s.prefix()))
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.0.get(), |l| l.next.get()).map(|l| &**l)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Knows(&'static str);

    impl CredentialSource for Knows {
        fn prefix(&self) -> &'static str {
            self.0
        }

        fn find(&self, _token: &str) -> Option<Arc<Principal>> {
            Some(Arc::new(Principal::anonymous()))
        }
    }

    #[test]
    fn bounds_are_kept() {
        let none = Bounds::default();
        assert!(none.reaches("notes") && none.admits(None));
        let some = Bounds {
            services: vec!["notes".to_owned()],
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            per_s: None,
        };
        assert!(some.reaches("notes") && !some.reaches("music"));
        assert!(some.admits(Some([10, 1, 1, 1].into())));
        assert!(!some.admits(Some([11, 1, 1, 1].into())) && !some.admits(None));
    }

    #[test]
    fn a_clone_knows_what_is_added_later() {
        let all = Credentials::default();
        all.add(Arc::new(Knows("prt_")));
        let early = all.clone();
        assert!(early.source("ptk_abc").is_none());
        all.add(Arc::new(Knows("ptk_")));
        assert_eq!(early.source("ptk_abc").map(|s| s.prefix()), Some("ptk_"));
        assert_eq!(early.source("prt_abc").map(|s| s.prefix()), Some("prt_"));
        assert_eq!(format!("{early:?}"), r#"["prt_", "ptk_"]"#);
    }

    #[test]
    fn sources_added_at_once_are_all_there() {
        let all = Credentials::default();
        let names = ["a_", "b_", "c_", "d_", "e_", "f_", "g_", "h_"];
        std::thread::scope(|scope| {
            for name in names {
                let all = &all;
                scope.spawn(move || all.add(Arc::new(Knows(name))));
            }
        });
        assert!(names.iter().all(|n| all.source(n).is_some()));
    }
}
