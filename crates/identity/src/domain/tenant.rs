//! A tenant: a world of its own, whose rows no other tenant's query reaches (ID-1).

use portico_base::Timestamp;
use portico_contract::tenants::TenantStatus;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A tenant as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tenant {
    pub id: Uuid,
    /// `[a-z0-9-]{2,40}`, never changed.
    pub slug: String,
    pub display_name: String,
    pub status: TenantStatus,
    /// Token epoch.
    pub te: u32,
    pub quotas: Quotas,
    pub delete_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// How much of something a tenant may have (ID-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = TenantQuotas)]
pub(crate) struct Quotas {
    /// Users that are not deleted; absent for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users: Option<u64>,
    /// API keys that are not revoked.
    pub api_keys: u64,
    /// Messages a day.
    pub sms_per_day: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            users: None,
            api_keys: 100,
            sms_per_day: 1_000,
        }
    }
}

/// True for `[a-z0-9-]{2,40}`.
pub(crate) fn is_slug(text: &str) -> bool {
    (2..=40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The status as rows write it.
pub(crate) const fn status_text(status: TenantStatus) -> &'static str {
    match status {
        TenantStatus::Active => "active",
        TenantStatus::Suspended => "suspended",
        TenantStatus::Deleting => "deleting",
    }
}

/// The status that a row writes.
pub(crate) fn status_of(text: &str) -> Option<TenantStatus> {
    match text {
        "active" => Some(TenantStatus::Active),
        "suspended" => Some(TenantStatus::Suspended),
        "deleting" => Some(TenantStatus::Deleting),
        _ => None,
    }
}
