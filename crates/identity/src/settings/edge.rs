//! What an edge does while it cannot read revocations, and how often signing keys change.

use portico_contract::settings::{Danger, Declaration, Key, Kind};

pub(crate) const REFUSE_SENSITIVE: Key<bool> = Key::new(Declaration::new(
    "identity.revocations.refuse_sensitive",
    Kind::Bool,
    "true",
    "routes for administrators are refused while revocations cannot be read",
    "无法读取吊销记录时拒绝管理类请求",
));
pub(crate) const REFUSE_ALL: Key<bool> = Key::new(Declaration::new(
    "identity.revocations.refuse_all",
    Kind::Bool,
    "false",
    "all routes are refused to users while revocations cannot be read",
    "无法读取吊销记录时拒绝所有用户请求",
));
pub(crate) const ROTATION_DAYS: Key<u32> = Key::new(
    Declaration::new(
        "identity.keys.rotation_days",
        Kind::Integer { min: 1, max: 365 },
        "30",
        "days after which another key signs",
        "签名密钥轮换周期",
    )
    .unit("d")
    .danger(Danger::Aal2),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    REFUSE_SENSITIVE.declaration,
    REFUSE_ALL.declaration,
    ROTATION_DAYS.declaration,
];
