//! A device: a client installation of a user, which outlives its sessions (ID-120).

use std::collections::BTreeMap;

use portico_base::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Kind of client.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = DevicePlatform)]
pub(crate) enum Platform {
    Ios,
    Android,
    Web,
    Desktop,
    Tv,
    Cli,
}

impl Platform {
    pub(crate) const ALL: [Self; 6] = [
        Self::Ios,
        Self::Android,
        Self::Web,
        Self::Desktop,
        Self::Tv,
        Self::Cli,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ios => "ios",
            Self::Android => "android",
            Self::Web => "web",
            Self::Desktop => "desktop",
            Self::Tv => "tv",
            Self::Cli => "cli",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }
}

/// Keyed hashes of a fingerprint's components by their names, in hex (ID-124).
pub(crate) type Fingerprint = BTreeMap<String, String>;

/// A device as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Device {
    pub id: Uuid,
    pub tenant: Uuid,
    pub user: Uuid,
    /// What the client calls itself; proved by the device's secret.
    pub client_id: String,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    pub platform: Platform,
    pub name: String,
    pub model: String,
    pub app_version: String,
    pub os_version: String,
    pub fingerprint: Fingerprint,
    pub last_ip: Option<String>,
    pub last_place: Option<String>,
    pub first_seen_at: Timestamp,
    pub last_active_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
}
