//! Sign in with Apple: the team's account, the client ids, and where a browser may end.
//!
//! Apple's addresses are constants and no settings: whoever could change them could log in as anybody.

use portico_contract::settings::{Danger, Declaration, Key, Kind, Scope};

use super::limit::{Rate, rates};

const fn text(
    key: &'static str,
    max: usize,
    title: &'static str,
    title_zh: &'static str,
) -> Declaration {
    Declaration::new(key, Kind::Text { max }, r#""""#, title, title_zh).scope(Scope::Both)
}

const fn list(
    key: &'static str,
    max: usize,
    title: &'static str,
    title_zh: &'static str,
) -> Key<Vec<String>> {
    Key::new(
        Declaration::new(key, Kind::TextList { max }, "[]", title, title_zh).scope(Scope::Both),
    )
}

pub(crate) const ENABLED: Key<bool> = Key::new(
    Declaration::new(
        "identity.apple.enabled",
        Kind::Bool,
        "true",
        "Sign in with Apple is used when its account is set",
        "配置账号后启用“通过 Apple 登录”",
    )
    .scope(Scope::Both),
);
pub(crate) const TEAM_ID: Key<String> = Key::new(text(
    "identity.apple.team_id",
    32,
    "team at Apple, ten characters",
    "Apple 开发者团队编号（十位）",
));
pub(crate) const KEY_ID: Key<String> = Key::new(text(
    "identity.apple.key_id",
    32,
    "id of the key for Sign in with Apple, ten characters",
    "“通过 Apple 登录”密钥编号（十位）",
));
pub(crate) const PRIVATE_KEY: Key<String> = Key::new(Declaration {
    secret: true,
    danger: Danger::Aal2,
    ..text(
        "identity.apple.private_key",
        4_096,
        "the key itself, as in the file `AuthKey_….p8`",
        "密钥内容，即 AuthKey_….p8 文件的文本",
    )
});
pub(crate) const CLIENT_IDS: Key<Vec<String>> = list(
    "identity.apple.client_ids",
    20,
    "bundle ids of the apps that log in natively",
    "原生登录的应用 Bundle ID",
);
pub(crate) const SERVICES_ID: Key<String> = Key::new(text(
    "identity.apple.services_id",
    255,
    "Services ID, with which browsers log in",
    "网页登录使用的 Services ID",
));
pub(crate) const REDIRECT_URIS: Key<Vec<String>> = list(
    "identity.apple.redirect_uris",
    50,
    "whole addresses to which a browser may come back after the login",
    "登录完成后允许浏览器返回的完整地址",
);
pub(crate) const PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.apple_per_address",
    r#"["20/min", "100/h"]"#,
    "steps of Sign in with Apple from one address; a login takes two",
    "每个地址“通过 Apple 登录”的步骤数（一次登录计两步）",
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    ENABLED.declaration,
    TEAM_ID.declaration,
    KEY_ID.declaration,
    PRIVATE_KEY.declaration,
    CLIENT_IDS.declaration,
    SERVICES_ID.declaration,
    REDIRECT_URIS.declaration,
    PER_ADDRESS.declaration,
];

#[cfg(test)]
mod tests {
    use portico_contract::settings::Settings;

    use super::*;

    #[test]
    fn defaults_fit_their_types() {
        let settings = Settings::defaults();
        assert!(settings.system(&ENABLED));
        for key in [&TEAM_ID, &KEY_ID, &PRIVATE_KEY, &SERVICES_ID] {
            assert_eq!(settings.system(key), "");
        }
        assert!(settings.system(&CLIENT_IDS).is_empty());
        assert!(settings.system(&REDIRECT_URIS).is_empty());
        let rates = settings.system(&PER_ADDRESS);
        let rates: Vec<_> = rates.iter().map(|r| (r.count, r.window_s)).collect();
        assert_eq!(rates, [(20, 60), (100, 3_600)]);
        let secret: Vec<&str> = ALL.iter().filter(|d| d.secret).map(|d| d.key).collect();
        assert_eq!(secret, ["identity.apple.private_key"]);
    }
}
