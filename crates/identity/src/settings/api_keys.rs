//! API keys.

use portico_contract::settings::{Declaration, Key, Kind, Scope};

pub(crate) const DEFAULT_DAYS: Key<u32> = Key::new(
    Declaration::new(
        "identity.api_key.default_days",
        Kind::Integer { min: 1, max: 730 },
        "90",
        "life of an API key that asks for none",
        "API 密钥默认有效期",
    )
    .unit("d")
    .scope(Scope::Both),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[DEFAULT_DAYS.declaration];
