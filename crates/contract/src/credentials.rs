//! Credentials: from a presented token to a principal, without any database read.

use std::sync::Arc;

use portico_base::Principal;

/// Knows one family of tokens, told by their prefix (`prt_`, `pis_`, `pop_`, `ptk_`).
///
/// Implementations keep what they need in memory (as hashes) and follow changes by feed.
pub trait CredentialSource: Send + Sync {
    /// The prefix of the tokens that it knows.
    fn prefix(&self) -> &'static str;

    /// The principal behind a token, or nothing when it is unknown, expired or revoked.
    fn find(&self, token: &str) -> Option<Arc<Principal>>;
}

/// All sources of a process.
#[derive(Clone, Default)]
pub struct Credentials(Vec<Arc<dyn CredentialSource>>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|s| s.prefix()))
            .finish()
    }
}

impl Credentials {
    /// Adds a source.
    pub fn add(&mut self, source: Arc<dyn CredentialSource>) {
        self.0.push(source);
    }

    /// The source whose prefix the token has. Nothing means: not one of our opaque tokens (a JWT, perhaps).
    #[must_use]
    pub fn source(&self, token: &str) -> Option<&Arc<dyn CredentialSource>> {
        self.0.iter().find(|s| token.starts_with(s.prefix()))
    }
}
