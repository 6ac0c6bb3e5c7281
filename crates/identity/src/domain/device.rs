//! A device: a client installation of a user, which outlives its sessions (ID-120).

use std::collections::BTreeMap;

use portico_base::{FieldFault, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fingerprint::COMPONENTS;
use super::login::DeviceWish;

/// Most characters of a name or version.
const TEXT_MAX: usize = 64;
/// Most characters of a component of the fingerprint.
const COMPONENT_MAX: usize = 128;

/// Kind of client.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
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

/// What happens to one login too many (ID-121).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    EvictOldest,
    Reject,
    Ask,
}

impl Policy {
    /// The policy that a setting names.
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "reject" => Self::Reject,
            "ask" => Self::Ask,
            _ => Self::EvictOldest,
        }
    }
}

/// Whether one more device has room beside those that are logged in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It has.
    Enough,
    /// These must go, the oldest first.
    After(Vec<usize>),
    /// No device of this platform may log in.
    Never,
}

/// Who must go so that a device of `platform` has room. `live` are the platforms of the devices that are
/// logged in, the one that was active least recently first.
pub(crate) fn room(
    live: &[Platform],
    platform: Platform,
    max: usize,
    quota: Option<usize>,
) -> Room {
    if quota == Some(0) {
        return Room::Never;
    }
    let mut go: Vec<usize> = Vec::new();
    if let Some(quota) = quota {
        let alike = (0..live.len()).filter(|i| live[*i] == platform);
        let alike: Vec<usize> = alike.collect();
        let surplus = (alike.len() + 1).saturating_sub(quota);
        go.extend(&alike[..surplus]);
    }
    let surplus = (live.len() - go.len() + 1).saturating_sub(max);
    let oldest: Vec<usize> = (0..live.len())
        .filter(|i| !go.contains(i))
        .take(surplus)
        .collect();
    go.extend(oldest);
    go.sort_unstable();
    if go.is_empty() {
        Room::Enough
    } else {
        Room::After(go)
    }
}

impl DeviceWish {
    /// What is wrong with it, each fault under `device.`.
    pub(crate) fn faults(&self) -> Vec<FieldFault> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            faults.push(FieldFault::new(
                format!("device.{field}"),
                "invalid",
                message,
            ));
        };
        let is_id = |id: &str| {
            (8..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'))
        };
        if !self.device_id.as_deref().is_none_or(is_id) {
            fault(
                "device_id",
                "must be 8 to 64 letters, digits, `-`, `_`, `.` or `~`".to_owned(),
            );
        }
        if self
            .device_secret
            .as_ref()
            .is_some_and(|s| s.expose().len() > 128)
        {
            fault("device_secret", "is too long".to_owned());
        }
        for (field, text) in [
            ("name", &self.name),
            ("model", &self.model),
            ("app_version", &self.app_version),
            ("os_version", &self.os_version),
        ] {
            if !is_text(text, TEXT_MAX) {
                fault(
                    field,
                    format!("must be at most {TEXT_MAX} printable characters"),
                );
            }
        }
        for (name, value) in &self.fingerprint {
            if !COMPONENTS.iter().any(|(known, _)| known == name) {
                fault(
                    "fingerprint",
                    "has a component that is not known".to_owned(),
                );
            } else if !is_text(value, COMPONENT_MAX) {
                fault(
                    &format!("fingerprint.{name}"),
                    format!("must be at most {COMPONENT_MAX} printable characters"),
                );
            }
        }
        faults
    }
}

/// True for a short text without control characters.
pub(crate) fn is_text(text: &str, max: usize) -> bool {
    text.chars().count() <= max && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::Platform::{Ios, Tv, Web};
    use super::*;

    #[test]
    fn the_oldest_goes_and_a_platform_keeps_to_its_quota() {
        let of = |live: &[Platform], platform, max, quota| room(live, platform, max, quota);
        assert_eq!(of(&[], Ios, 5, None), Room::Enough);
        assert_eq!(of(&[Ios; 4], Ios, 5, None), Room::Enough);
        assert_eq!(of(&[Ios; 5], Ios, 5, None), Room::After(vec![0]));
        // The setting was lowered meanwhile.
        assert_eq!(of(&[Ios; 5], Ios, 3, None), Room::After(vec![0, 1, 2]));
        assert_eq!(of(&[Web, Tv, Ios], Tv, 5, Some(1)), Room::After(vec![1]));
        assert_eq!(of(&[Web, Tv, Ios], Tv, 3, Some(1)), Room::After(vec![1]));
        assert_eq!(of(&[Web, Tv, Ios], Tv, 2, Some(1)), Room::After(vec![0, 1]));
        assert_eq!(of(&[Web, Tv, Ios], Tv, 3, Some(2)), Room::After(vec![0]));
        assert_eq!(of(&[], Tv, 5, Some(0)), Room::Never);
    }

    #[test]
    fn every_fault_of_a_wish_is_told() {
        let wish: DeviceWish = serde_json::from_str(
            "{\"device_id\": \"short\", \"platform\": \"ios\", \"name\": \"a\\u0007b\",
              \"model\": \"ok\", \"fingerprint\": {\"soul\": \"x\", \"os\": \"18\"}}",
        )
        .unwrap();
        let fields: Vec<String> = wish.faults().into_iter().map(|f| f.field).collect();
        assert_eq!(
            fields,
            ["device.device_id", "device.name", "device.fingerprint"]
        );
    }
}
