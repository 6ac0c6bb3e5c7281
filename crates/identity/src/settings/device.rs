//! How many devices, and how much a device may change before it is doubted.

use portico_contract::settings::{Declaration, Key, Kind, Scope};
use serde_json::Value;

pub(crate) const MAX: Key<u32> = Key::new(
    Declaration::new(
        "identity.device.max",
        Kind::Integer { min: 1, max: 100 },
        "5",
        "devices of a user that may be logged in at once",
        "每个用户可同时登录的设备数",
    )
    .scope(Scope::Both),
);
pub(crate) const POLICY: Key<String> = Key::new(
    Declaration::new(
        "identity.device.policy",
        Kind::Enum(&["evict_oldest", "reject", "ask"]),
        r#""evict_oldest""#,
        "what happens to one login too many",
        "登录设备超限时的处理方式",
    )
    .scope(Scope::Both),
);
/// Platform to number; a platform that is not named has no quota of its own.
pub(crate) const PLATFORM_QUOTA: Key<Value> = Key::new(
    Declaration::new(
        "identity.device.platform_quota",
        Kind::Json,
        "{}",
        "devices of one platform that may be logged in at once (ios, android, web, desktop, tv, cli)",
        "各平台可同时登录的设备数",
    )
    .scope(Scope::Both),
);
pub(crate) const WEIGHTS: Key<Value> = Key::new(
    Declaration::new(
        "identity.fingerprint.weights",
        Kind::Json,
        r#"{"platform":25,"model":20,"browser":15,"os":10,"app":10,"screen":10,"language":5,"time_zone":5}"#,
        "how much a changed component of a device's fingerprint counts, of 100",
        "设备指纹各组成部分的权重",
    )
    .scope(Scope::Both),
);
pub(crate) const THRESHOLDS: Key<Value> = Key::new(
    Declaration::new(
        "identity.fingerprint.thresholds",
        Kind::Json,
        r#"{"note":30,"mail":50,"step_up":70,"kill":90}"#,
        "scores from which a changed device is noted, mailed about, asked again, logged out",
        "设备指纹变化的处理阈值",
    )
    .scope(Scope::Both),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    MAX.declaration,
    POLICY.declaration,
    PLATFORM_QUOTA.declaration,
    WEIGHTS.declaration,
    THRESHOLDS.declaration,
];
