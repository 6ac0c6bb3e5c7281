//! The text that explains a copy, in both languages.

use std::fmt::Write as _;

use crate::domain::personal::Export;

/// The files of identity: name, and what is in it in English and Chinese.
const FILES: &[(&str, &str, &str)] = &[
    (
        "profile",
        "name, addresses, language and state of the account",
        "账号的名称、联系方式、语言和状态",
    ),
    ("roles", "roles of the account", "账号的角色"),
    (
        "credentials",
        "which ways to log in are set up; never the secrets themselves",
        "已设置的登录方式，不含任何密钥本身",
    ),
    (
        "identities",
        "linked accounts of other providers",
        "关联的第三方账号",
    ),
    ("devices", "devices that logged in", "登录过的设备"),
    ("sessions", "sessions, live and ended", "当前和已结束的会话"),
    ("logins", "history of logins", "登录历史"),
    (
        "consents",
        "terms that were agreed to; empty: none were asked for",
        "同意过的条款，空表示从未要求过",
    ),
    (
        "api_keys",
        "API keys without their secrets",
        "API 密钥（不含密钥内容）",
    ),
    ("invitations", "invitations that were made", "发出的邀请"),
    (
        "messages",
        "text messages that were sent to the present number; mails are not kept after they were sent",
        "发送到当前号码的短信；邮件发送后不保留",
    ),
];

/// The text. `others` are the files of other services.
pub(super) fn text(export: &Export, made_at: &str, others: &[String]) -> String {
    let mut text = String::new();
    let mut both = |english: bool| {
        let (title, made, user, tenant, files, service) = if english {
            (
                "Copy of your personal data",
                "Made at",
                "User",
                "Tenant",
                "Files (JSON, UTF-8, times in UTC)",
                "what this service keeps about you",
            )
        } else {
            (
                "您的个人数据副本",
                "生成时间",
                "用户",
                "租户",
                "文件（JSON，UTF-8，时间为 UTC）",
                "该服务保存的与您有关的数据",
            )
        };
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{title}\n\n{made}: {made_at}\n{user}: {}\n{tenant}: {}\n\n{files}:",
            export.user, export.tenant
        );
        for (name, en, zh) in FILES {
            let _ = writeln!(
                text,
                "  identity/{name}.json  {}",
                if english { en } else { zh }
            );
        }
        for name in others {
            let _ = writeln!(text, "  {name}  {service}");
        }
        text.push('\n');
    };
    both(true);
    both(false);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_explained_in_both_languages() {
        for (name, en, zh) in FILES {
            assert!(en.is_ascii() && !zh.is_ascii(), "{name}");
        }
        for part in crate::store::personal::PARTS {
            assert!(FILES.iter().any(|(name, ..)| *name == part.file));
        }
    }
}
