//! Passwords and registration.

use portico_contract::settings::{Declaration, Key, Kind, Scope};

use crate::passwords::Cost;

pub(crate) const ARGON2: Key<Cost> = Key::new(Declaration::new(
    "identity.password.argon2",
    Kind::Json,
    r#"{"m_kib": 19456, "t": 2, "p": 1}"#,
    "cost of a password hash: memory in KiB, passes, lanes",
    "密码散列的开销：内存（KiB）、遍数、并行度",
));
pub(crate) const MIN_LENGTH: Key<usize> = Key::new(
    Declaration::new(
        "identity.password.min_length",
        Kind::Integer { min: 8, max: 64 },
        "8",
        "shortest password, in characters",
        "密码最少字符数",
    )
    .scope(Scope::Both),
);
pub(crate) const ADMIN_MIN_LENGTH: Key<usize> = Key::new(
    Declaration::new(
        "identity.password.admin_min_length",
        Kind::Integer { min: 8, max: 64 },
        "10",
        "shortest password of an administrator",
        "管理员密码最少字符数",
    )
    .scope(Scope::Both),
);
pub(crate) const MIN_ZXCVBN: Key<u8> = Key::new(
    Declaration::new(
        "identity.password.min_zxcvbn",
        Kind::Integer { min: 0, max: 4 },
        "2",
        "lowest strength of a password, estimated by zxcvbn from 0 to 4",
        "密码强度下限（zxcvbn 估计，0 至 4）",
    )
    .scope(Scope::Both),
);
pub(crate) const LOGIN_METHODS: Key<Vec<String>> = Key::new(
    Declaration::new(
        "identity.login.methods",
        Kind::TextList { max: 10 },
        r#"["password", "sms", "apple"]"#,
        "ways in that are offered: password, sms, apple",
        "提供的登录方式：password、sms、apple",
    )
    .scope(Scope::Both),
);
pub(crate) const REGISTRATION_MODE: Key<String> = Key::new(
    Declaration::new(
        "identity.registration.mode",
        Kind::Enum(&["off", "invite", "open"]),
        r#""open""#,
        "who may register; never open for the tenant `system`",
        "谁可以注册（租户 system 从不开放）",
    )
    .scope(Scope::Both),
);
pub(crate) const EMAIL_DOMAINS: Key<Vec<String>> = Key::new(
    Declaration::new(
        "identity.registration.email_domains",
        Kind::TextList { max: 200 },
        "[]",
        "domains whose addresses may register; empty for all",
        "允许注册的邮箱域名（空为不限）",
    )
    .scope(Scope::Both),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    ARGON2.declaration,
    MIN_LENGTH.declaration,
    ADMIN_MIN_LENGTH.declaration,
    MIN_ZXCVBN.declaration,
    LOGIN_METHODS.declaration,
    REGISTRATION_MODE.declaration,
    EMAIL_DOMAINS.declaration,
];

#[cfg(test)]
mod tests {
    use portico_contract::settings::Settings;

    use super::*;

    #[test]
    fn defaults_fit_their_types() {
        let settings = Settings::defaults();
        assert_eq!(settings.system(&ARGON2), Cost::DEFAULT);
        assert_eq!(settings.system(&MIN_LENGTH), 8);
        assert_eq!(settings.system(&ADMIN_MIN_LENGTH), 10);
        assert_eq!(settings.system(&MIN_ZXCVBN), 2);
        assert_eq!(
            settings.system(&LOGIN_METHODS),
            ["password", "sms", "apple"]
        );
        assert_eq!(settings.system(&REGISTRATION_MODE), "open");
        assert!(settings.system(&EMAIL_DOMAINS).is_empty());
    }
}
