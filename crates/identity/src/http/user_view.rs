//! A user as answers show one: masked, unless it is the own profile or somebody who may asked for more.

use portico_base::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::domain::contact::{masked_address, masked_email, masked_phone};
use crate::domain::user::{User, UserStatus};

/// What of a user's personal data is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    All,
    Nothing,
}

impl Mask {
    pub(super) const fn unless(unmasked: bool) -> Self {
        if unmasked { Self::Nothing } else { Self::All }
    }

    fn apply(self, value: Option<String>, mask: fn(&str) -> String) -> Option<String> {
        match self {
            Self::All => value.as_deref().map(mask),
            Self::Nothing => value,
        }
    }
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserView {
    id: Uuid,
    tenant_id: Uuid,
    username: Option<String>,
    /// Masked: `u***@example.com`.
    email: Option<String>,
    /// Masked: `138****5678`.
    phone: Option<String>,
    /// Personal data of this answer is masked.
    masked: bool,
    display_name: String,
    avatar_object: Option<String>,
    locale: String,
    time_zone: String,
    status: UserStatus,
    disabled_reason: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    disabled_until: Option<Timestamp>,
    /// Names of roles.
    roles: Vec<String>,
    email_verified: bool,
    phone_verified: bool,
    must_change_password: bool,
    legal_hold: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_login_at: Option<Timestamp>,
    /// Masked: `203.0.*.*`.
    last_login_ip: Option<String>,
    last_login_method: Option<String>,
    /// The account will be erased then.
    #[schema(value_type = Option<String>, format = DateTime)]
    delete_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl UserView {
    pub(super) fn new(user: User, roles: Vec<String>, mask: Mask) -> Self {
        Self {
            id: user.id,
            tenant_id: user.tenant,
            username: user.username,
            email: mask.apply(user.email, masked_email),
            phone: mask.apply(user.phone, masked_phone),
            masked: mask == Mask::All,
            display_name: user.display_name,
            avatar_object: user.avatar_object,
            locale: user.locale,
            time_zone: user.time_zone,
            status: user.status,
            disabled_reason: user.disabled_reason,
            disabled_until: user.disabled_until,
            roles,
            email_verified: user.email_verified_at.is_some(),
            phone_verified: user.phone_verified_at.is_some(),
            must_change_password: user.must_change_password,
            legal_hold: user.legal_hold,
            last_login_at: user.last_login_at,
            last_login_ip: mask.apply(user.last_login_ip, masked_address),
            last_login_method: user.last_login_method,
            delete_at: user.delete_at,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}
