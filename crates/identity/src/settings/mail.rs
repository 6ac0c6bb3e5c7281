//! The mail server, the sender, and changed templates.

use portico_contract::settings::{Declaration, Key, Kind, Scope};
use serde_json::Value;

pub(crate) const HOST: Key<String> = Key::new(Declaration::new(
    "mail.smtp.host",
    Kind::Text { max: 253 },
    r#""""#,
    "mail server; without one no mail is sent",
    "邮件服务器；留空则不发送邮件",
));
pub(crate) const PORT: Key<u16> = Key::new(Declaration::new(
    "mail.smtp.port",
    Kind::Integer {
        min: 1,
        max: 65_535,
    },
    "587",
    "port of the mail server",
    "邮件服务器端口",
));
pub(crate) const TLS: Key<String> = Key::new(Declaration::new(
    "mail.smtp.tls",
    Kind::Enum(&["starttls", "tls", "none"]),
    r#""starttls""#,
    "encryption to the mail server: asked for, from the start, or none (this machine only)",
    "与邮件服务器的加密方式：STARTTLS、直接 TLS，或不加密（仅限本机）",
));
pub(crate) const USER: Key<String> = Key::new(Declaration::new(
    "mail.smtp.user",
    Kind::Text { max: 254 },
    r#""""#,
    "user name at the mail server; empty for none",
    "邮件服务器用户名；留空则不登录",
));
pub(crate) const PASSWORD: Key<String> = Key::new(Declaration {
    secret: true,
    ..Declaration::new(
        "mail.smtp.password",
        Kind::Text { max: 1_024 },
        r#""""#,
        "password at the mail server",
        "邮件服务器密码",
    )
});
pub(crate) const FROM: Key<String> = Key::new(Declaration::new(
    "mail.from",
    Kind::Text { max: 320 },
    r#""""#,
    "sender of all mails, `Name <name@example.com>` or the address alone",
    "发件人，格式为“名称 <name@example.com>”或仅地址",
));
pub(crate) const TEMPLATES: Key<Value> = Key::new(
    Declaration::new(
        "mail.templates",
        Kind::Json,
        "{}",
        "changed texts of mails: by notice and language, {subject, text, html}",
        "自定义邮件内容：按通知和语言给出 {subject, text, html}",
    )
    .scope(Scope::Both),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    HOST.declaration,
    PORT.declaration,
    TLS.declaration,
    USER.declaration,
    PASSWORD.declaration,
    FROM.declaration,
    TEMPLATES.declaration,
];
