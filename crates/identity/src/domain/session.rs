//! A session: one login on one device (words of the specification).

use portico_base::Timestamp;
use uuid::Uuid;

/// A session as stored; its id is the `sid` of tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Session {
    pub id: Uuid,
    pub tenant: Uuid,
    pub user: Uuid,
    pub device: Uuid,
    /// How the user came in: `password`, `sms`, `apple`, …
    pub method: String,
    /// RFC 8176 values: `pwd`, `sms`, `otp`, `fed`, …
    pub amr: Vec<String>,
    pub aal: u8,
    /// Last authentication, moved by a step-up.
    pub auth_time: Timestamp,
    pub ip: Option<String>,
    pub user_agent: Option<String>,
    /// Tokens live in cookies.
    pub cookie: bool,
    /// Id of the master key behind its refresh tokens.
    pub rt_kid: String,
    pub rt_counter: u32,
    pub rt_rotated_at: Timestamp,
    /// Bit 0: this generation had a late retry; bit 1: the one before.
    pub rt_retried: u8,
    pub idle_expires_at: Timestamp,
    pub abs_expires_at: Timestamp,
    pub created_at: Timestamp,
    pub last_active_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revoke_reason: Option<String>,
}
