//! Who calls, as the gateway established it.

use std::time::Instant;

/// The verified identity of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Id of the user; absent for anonymous callers.
    pub user: Option<String>,
    /// The tenant that the request acts in.
    pub tenant: Option<String>,
    /// Id of the session.
    pub session: Option<String>,
    /// Roles of the user in the tenant.
    pub roles: Vec<String>,
    /// Scopes of the token or key.
    pub scopes: Vec<String>,
    /// Level of authentication: 0 nobody, 1 one factor, 2 two.
    pub aal: u8,
    /// The request's id, for logs and problems.
    pub request_id: String,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

impl Identity {
    /// True when the caller has the role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}
