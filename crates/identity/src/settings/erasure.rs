//! How long an account can be taken back.

use portico_contract::settings::{Declaration, Key, Kind};

pub(crate) const GRACE_DAYS: Key<u32> = Key::new(
    Declaration::new(
        "identity.erasure.grace_days",
        Kind::Integer { min: 0, max: 365 },
        "14",
        "days between the deletion of an account and its erasure; its owner takes it back by logging in",
        "账号删除到彻底清除之间的天数，期间本人登录即可恢复",
    )
    .unit("d"),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[GRACE_DAYS.declaration];
