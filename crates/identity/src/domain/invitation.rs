//! An invitation: a link that makes one account with preset roles.

use portico_base::Timestamp;
use uuid::Uuid;

/// An invitation as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    pub id: Uuid,
    pub tenant: Uuid,
    /// SHA-256 of the link's token.
    pub hash: [u8; 32],
    /// The account's address.
    pub email: Option<String>,
    /// The link went to the address by mail: whoever uses it reads what is sent there.
    pub mailed: bool,
    /// Ids of roles besides `user`.
    pub roles: Vec<Uuid>,
    /// `zh-CN` or `en`.
    pub locale: String,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    pub used_by: Option<Uuid>,
    pub revoked_at: Option<Timestamp>,
}

impl Invitation {
    /// True while it can be used.
    pub(crate) fn is_open(&self, now: Timestamp) -> bool {
        self.used_at.is_none() && self.revoked_at.is_none() && now < self.expires_at
    }

    /// `open`, `used`, `revoked` or `expired`.
    pub(crate) fn state(&self, now: Timestamp) -> &'static str {
        if self.used_at.is_some() {
            "used"
        } else if self.revoked_at.is_some() {
            "revoked"
        } else if self.is_open(now) {
            "open"
        } else {
            "expired"
        }
    }
}
