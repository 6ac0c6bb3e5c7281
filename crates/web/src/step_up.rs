//! What a caller is told whose session is too weak for a route (ID-77).

use std::pin::Pin;

use portico_base::{Principal, Secret};

/// How a session can become stronger (ID-77).
#[derive(Debug, Clone)]
pub struct Challenge {
    /// Ways that the caller has: `password`, `totp`, `recovery_code`, `passkey`.
    pub methods: Vec<String>,
    /// Single-use ticket for `POST /api/identity/step-up`.
    pub ticket: Secret<String>,
}

/// Tells how a session can become stronger. Provided by identity.
pub trait StepUp: Send + Sync {
    /// The challenge for a caller whose session is too weak; nothing for one that cannot become stronger,
    /// as an API key.
    fn challenge<'a>(
        &'a self,
        principal: &'a Principal,
    ) -> Pin<Box<dyn Future<Output = Option<Challenge>> + Send + 'a>>;
}
