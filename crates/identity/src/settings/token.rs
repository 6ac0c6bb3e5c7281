//! Lifetimes and binding of tokens.

use portico_contract::settings::{Danger, Declaration, Key, Kind, Scope};

/// The longest life that an access token may be given.
pub(crate) const ACCESS_TTL_MAX_S: i64 = 86_400;

const fn seconds(
    key: &'static str,
    (min, max): (i64, i64),
    default: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<u32> {
    Key::new(
        Declaration::new(key, Kind::Integer { min, max }, default, title, title_zh)
            .unit("s")
            .scope(Scope::Both)
            .danger(Danger::Aal2),
    )
}

pub(crate) const ACCESS_TTL_S: Key<u32> = seconds(
    "identity.token.access_ttl_s",
    (60, ACCESS_TTL_MAX_S),
    "1800",
    "life of an access token",
    "访问令牌有效期",
);
pub(crate) const REFRESH_IDLE_S: Key<u32> = seconds(
    "identity.token.refresh_idle_s",
    (300, 31_536_000),
    "604800",
    "a session ends when it is not refreshed for so long",
    "会话多久未刷新即结束",
);
pub(crate) const REFRESH_ABSOLUTE_S: Key<u32> = seconds(
    "identity.token.refresh_absolute_s",
    (3_600, 63_072_000),
    "7776000",
    "a session ends after so long, used or not",
    "会话最长有效期",
);
pub(crate) const ADMIN_IDLE_S: Key<u32> = seconds(
    "identity.token.admin_idle_s",
    (300, 2_592_000),
    "28800",
    "the same for administrators",
    "管理员会话多久未刷新即结束",
);
pub(crate) const ADMIN_ABSOLUTE_S: Key<u32> = seconds(
    "identity.token.admin_absolute_s",
    (3_600, 2_592_000),
    "86400",
    "the same for administrators",
    "管理员会话最长有效期",
);
pub(crate) const IP_BINDING: Key<String> = Key::new(
    Declaration::new(
        "identity.token.ip_binding",
        Kind::Enum(&["off", "admins", "all"]),
        r#""off""#,
        "whose tokens are bound to the network of their login",
        "哪些令牌绑定登录网络",
    )
    .scope(Scope::Both)
    .danger(Danger::Aal2),
);
pub(crate) const FRESH_S: Key<u32> = seconds(
    "identity.fresh_s",
    (30, 86_400),
    "300",
    "an authentication counts as fresh for so long",
    "身份验证在多久内视为新近",
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    ACCESS_TTL_S.declaration,
    REFRESH_IDLE_S.declaration,
    REFRESH_ABSOLUTE_S.declaration,
    ADMIN_IDLE_S.declaration,
    ADMIN_ABSOLUTE_S.declaration,
    IP_BINDING.declaration,
    FRESH_S.declaration,
];
