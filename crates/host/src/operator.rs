//! The operator's token as a source of credentials.

use std::sync::Arc;

use portico_base::secret::constant_time_eq;
use portico_base::{Principal, Secret};
use portico_contract::credentials::CredentialSource;

/// Knows one token: the data directory's. That it came over direct loopback is the door's to check.
pub(crate) struct OperatorToken {
    token: Arc<Secret<String>>,
    principal: Arc<Principal>,
}

impl OperatorToken {
    /// The source for a token.
    pub(crate) fn new(token: Arc<Secret<String>>) -> Self {
        Self {
            token,
            principal: Arc::new(Principal::operator()),
        }
    }
}

impl CredentialSource for OperatorToken {
    fn prefix(&self) -> &'static str {
        "pop_"
    }

    fn find(&self, token: &str) -> Option<Arc<Principal>> {
        constant_time_eq(token.as_bytes(), self.token.expose().as_bytes())
            .then(|| Arc::clone(&self.principal))
    }
}
