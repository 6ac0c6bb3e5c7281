//! Credentials: from a presented token to a principal, without any database read.

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
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
