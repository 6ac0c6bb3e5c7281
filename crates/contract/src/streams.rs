//! Open streams: lets whoever revokes a session, user or tenant close its long connections at the door.

use uuid::Uuid;

/// Whose streams are to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamOwner {
    /// Of one session.
    Session(String),
    /// Of a user or another principal, by subject.
    Subject(String),
    /// Of everybody of a tenant.
    Tenant(Uuid),
}

/// Closes streams. Provided by the gateway.
pub trait StreamCloser: Send + Sync {
    /// Closes what is open, within a second. Never blocks.
    fn close(&self, owner: &StreamOwner);
}
