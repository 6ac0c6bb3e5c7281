//! Who must show a second factor.

use portico_contract::settings::{Declaration, Key, Kind, Scope};

const WORDS: Kind = Kind::Enum(&["optional", "required"]);

pub(crate) const ADMIN: Key<String> = Key::new(
    Declaration::new(
        "identity.mfa.admin",
        WORDS,
        r#""required""#,
        "whether administrators must have a second factor",
        "管理员是否必须启用双重验证",
    )
    .scope(Scope::Both),
);
pub(crate) const USERS: Key<String> = Key::new(
    Declaration::new(
        "identity.mfa.users",
        WORDS,
        r#""optional""#,
        "whether everybody else must have one",
        "其他用户是否必须启用双重验证",
    )
    .scope(Scope::Both),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[ADMIN.declaration, USERS.declaration];
