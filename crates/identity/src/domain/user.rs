//! A user of a tenant (ID-10).

use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// State of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = UserStatus)]
pub(crate) enum UserStatus {
    /// Invited or registered, not yet proved.
    Pending,
    /// May log in.
    Active,
    /// May not.
    Disabled,
    /// Gone; the row is a tombstone.
    Deleted,
}

impl UserStatus {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Disabled, Self::Deleted]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// A user as stored, without credentials.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct User {
    pub id: Uuid,
    pub tenant: Uuid,
    /// As the user writes it; unique by its key ([`super::contact::username_key`]).
    pub username: Option<String>,
    /// As the user writes it; unique in lower case.
    pub email: Option<String>,
    /// E.164.
    pub phone: Option<String>,
    pub display_name: String,
    pub avatar_object: Option<String>,
    /// `zh-CN` or `en`.
    pub locale: String,
    /// IANA name.
    pub time_zone: String,
    pub status: UserStatus,
    pub disabled_reason: Option<String>,
    pub disabled_until: Option<Timestamp>,
    /// Token version.
    pub tv: u32,
    pub email_verified_at: Option<Timestamp>,
    pub phone_verified_at: Option<Timestamp>,
    pub must_change_password: bool,
    pub last_login_at: Option<Timestamp>,
    pub last_login_ip: Option<String>,
    pub last_login_method: Option<String>,
    pub delete_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub legal_hold: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl User {
    /// A new active user without any way to log in.
    pub(crate) fn new(id: Uuid, tenant: Uuid, now: Timestamp) -> Self {
        Self {
            id,
            tenant,
            username: None,
            email: None,
            phone: None,
            display_name: String::new(),
            avatar_object: None,
            locale: "zh-CN".to_owned(),
            time_zone: "Asia/Shanghai".to_owned(),
            status: UserStatus::Active,
            disabled_reason: None,
            disabled_until: None,
            tv: 1,
            email_verified_at: None,
            phone_verified_at: None,
            must_change_password: false,
            last_login_at: None,
            last_login_ip: None,
            last_login_method: None,
            delete_at: None,
            deleted_at: None,
            legal_hold: false,
            created_at: now,
            updated_at: now,
        }
    }
}
