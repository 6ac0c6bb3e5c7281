//! SMS: the chain of providers, their accounts, what may be sent to whom, and how much of it.

use portico_contract::settings::{Declaration, Key, Kind, Scope};
use portico_sms::{NoticeTemplates, Signs, Templates};
use serde::Deserialize;

use super::limit::{Rate, rates};

const fn text(
    key: &'static str,
    max: usize,
    default: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Declaration {
    Declaration::new(key, Kind::Text { max }, default, title, title_zh).scope(Scope::Both)
}

const fn plain(key: &'static str, title: &'static str, title_zh: &'static str) -> Key<String> {
    Key::new(text(key, 128, r#""""#, title, title_zh))
}

const fn secret(key: &'static str, title: &'static str, title_zh: &'static str) -> Key<String> {
    Key::new(Declaration {
        secret: true,
        ..text(key, 256, r#""""#, title, title_zh)
    })
}

const fn endpoint(key: &'static str, default: &'static str) -> Key<String> {
    // For the installation only: a tenant must not send the installation's messages to a host of its own.
    Key::new(Declaration::new(
        key,
        Kind::Text { max: 253 },
        default,
        "address of the provider",
        "服务商接口地址",
    ))
}

const fn enabled(key: &'static str) -> Key<bool> {
    Key::new(
        Declaration::new(
            key,
            Kind::Bool,
            "true",
            "the provider is used when its account is set",
            "配置账号后启用该服务商",
        )
        .scope(Scope::Both),
    )
}

const fn countries(key: &'static str) -> Key<Vec<String>> {
    Key::new(
        Declaration::new(
            key,
            Kind::TextList { max: 300 },
            "[]",
            "beginnings of the numbers it is used for (`+86`); empty for all",
            "适用的号码前缀（如 +86）；留空为全部",
        )
        .scope(Scope::Both),
    )
}

const fn templates(
    key: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<Templates> {
    Key::new(Declaration::new(key, Kind::Json, "{}", title, title_zh).scope(Scope::Both))
}

const fn notices(
    key: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<NoticeTemplates> {
    Key::new(Declaration::new(key, Kind::Json, "{}", title, title_zh).scope(Scope::Both))
}

const fn signs(key: &'static str) -> Key<Signs> {
    Key::new(
        Declaration::new(
            key,
            Kind::Json,
            "{}",
            "approved signatures by region: {\"cn\": …, \"intl\": …}",
            "已审核的签名，按地区：{\"cn\": …, \"intl\": …}",
        )
        .scope(Scope::Both),
    )
}

const fn cost(key: &'static str) -> Key<i64> {
    Key::new(
        Declaration::new(
            key,
            Kind::Integer {
                min: 0,
                max: 100_000_000,
            },
            "0",
            "price of a segment in millionths of the account's currency",
            "每条短信单价（账户币种的百万分之一）",
        )
        .scope(Scope::Both),
    )
}

const fn number(
    key: &'static str,
    (min, max): (i64, i64),
    default: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<u32> {
    Key::new(Declaration::new(
        key,
        Kind::Integer { min, max },
        default,
        title,
        title_zh,
    ))
}

const TEMPLATES_TITLE: (&str, &str) = (
    "codes of approved templates with the one variable `code`, by region and language",
    "已审核的模板编号（唯一变量为 code），按地区和语言",
);

const NOTICES_TITLE: (&str, &str) = (
    "codes of approved templates without variables, by notice (`any` for all others), region and language",
    "已审核的无变量通知模板编号，按通知（any 表示其余全部）、地区和语言",
);

pub(crate) const CHAIN: Key<Vec<String>> = Key::new(
    Declaration::new(
        "identity.sms.chain",
        Kind::TextList { max: 8 },
        r#"["aliyun", "tencent", "twilio"]"#,
        "providers in the order in which they are asked",
        "短信服务商的调用顺序",
    )
    .scope(Scope::Both),
);
pub(crate) const COUNTRIES: Key<Vec<String>> = Key::new(
    Declaration::new(
        "identity.sms.countries",
        Kind::TextList { max: 300 },
        r#"["+86"]"#,
        "beginnings of the numbers that get messages",
        "允许发送短信的号码前缀",
    )
    .scope(Scope::Both),
);
pub(crate) const OTP_TTL_S: Key<u32> = Key::new(
    Declaration::new(
        "identity.sms.otp_ttl_s",
        Kind::Integer { min: 60, max: 600 },
        "300",
        "life of a code",
        "验证码有效期",
    )
    .unit("s")
    .scope(Scope::Both),
);
pub(crate) const OTP_TRIES: Key<u32> = Key::new(
    Declaration::new(
        "identity.sms.otp_tries",
        Kind::Integer { min: 1, max: 10 },
        "5",
        "wrong tries that kill a code",
        "验证码允许的错误次数",
    )
    .scope(Scope::Both),
);
pub(crate) const RESEND_WAITS_S: Key<Vec<u32>> = Key::new(
    Declaration::new(
        "identity.sms.resend_waits_s",
        Kind::Json,
        "[60, 120, 300]",
        "waits before another code is sent, one after the other",
        "再次发送验证码前的等待时间，依次递增",
    )
    .unit("s"),
);
pub(crate) const NOTICES: Key<bool> = Key::new(
    Declaration::new(
        "identity.sms.notices",
        Kind::Bool,
        "true",
        "people without a verified e-mail address are told of changes of their account by SMS",
        "没有已验证邮箱的用户通过短信接收账号变更通知",
    )
    .scope(Scope::Both),
);
pub(crate) const TEST_NUMBERS: Key<Vec<TestNumber>> = Key::new(Declaration {
    secret: true,
    ..Declaration::new(
        "identity.sms.test_numbers",
        Kind::Json,
        "[]",
        "numbers with a fixed code that get no message: [{phone, code, until}]",
        "固定验证码的测试号码，不发送短信：[{phone, code, until}]",
    )
    .scope(Scope::Both)
});

pub(crate) const PER_PHONE: Key<Vec<Rate>> = rates(
    "identity.sms.limit.phone",
    r#"["1/min", "5/h", "10/day"]"#,
    "messages to one number",
    "每个号码的短信数",
);
pub(crate) const PER_DEVICE: Key<Vec<Rate>> = rates(
    "identity.sms.limit.device",
    r#"["5/h"]"#,
    "messages that one device asks for",
    "每台设备请求的短信数",
);
pub(crate) const PER_IP: Key<Vec<Rate>> = rates(
    "identity.sms.limit.ip",
    r#"["10/h", "30/day"]"#,
    "messages that one address asks for",
    "每个地址请求的短信数",
);
pub(crate) const PER_NET: Key<Vec<Rate>> = rates(
    "identity.sms.limit.net",
    r#"["60/h"]"#,
    "messages that one network (/24, /64) asks for",
    "每个网段（/24、/64）请求的短信数",
);
pub(crate) const PER_PREFIX: Key<Vec<Rate>> = rates(
    "identity.sms.limit.prefix",
    r#"["30/h"]"#,
    "messages to numbers that differ in the last four digits only",
    "仅末四位不同的号码的短信数",
);
pub(crate) const BUDGET_HOUR: Key<u32> = number(
    "identity.sms.budget.hour",
    (0, 1_000_000),
    "500",
    "messages of the installation in an hour",
    "全站每小时短信数",
);
pub(crate) const BUDGET_DAY: Key<u32> = number(
    "identity.sms.budget.day",
    (0, 10_000_000),
    "3000",
    "messages of the installation in a day",
    "全站每天短信数",
);
pub(crate) const MIN_CONVERSION_PERCENT: Key<u32> = number(
    "identity.sms.min_conversion_percent",
    (0, 100),
    "15",
    "codes that must come back of 30 or more sent to a prefix or country in an hour; 0 for no watch",
    "同一号段或国家一小时内发送满 30 条后的最低验证率；0 为不检查",
);

pub(crate) const ALIYUN_ENABLED: Key<bool> = enabled("identity.sms.aliyun.enabled");
pub(crate) const ALIYUN_ID: Key<String> = plain(
    "identity.sms.aliyun.access_key_id",
    "AccessKey id",
    "AccessKey ID",
);
pub(crate) const ALIYUN_SECRET: Key<String> = secret(
    "identity.sms.aliyun.access_key_secret",
    "AccessKey secret",
    "AccessKey Secret",
);
pub(crate) const ALIYUN_TOKEN: Key<String> = Key::new(Declaration {
    secret: true,
    ..text(
        "identity.sms.aliyun.security_token",
        4_096,
        r#""""#,
        "security token of temporary credentials",
        "临时凭证的 SecurityToken",
    )
});
pub(crate) const ALIYUN_SIGNS: Key<Signs> = signs("identity.sms.aliyun.signs");
pub(crate) const ALIYUN_TEMPLATES: Key<Templates> = templates(
    "identity.sms.aliyun.templates",
    TEMPLATES_TITLE.0,
    TEMPLATES_TITLE.1,
);
pub(crate) const ALIYUN_NOTICES: Key<NoticeTemplates> = notices(
    "identity.sms.aliyun.notices",
    NOTICES_TITLE.0,
    NOTICES_TITLE.1,
);
pub(crate) const ALIYUN_COUNTRIES: Key<Vec<String>> = countries("identity.sms.aliyun.countries");
pub(crate) const ALIYUN_COST: Key<i64> = cost("identity.sms.aliyun.cost_micro");
pub(crate) const ALIYUN_ENDPOINT: Key<String> = endpoint(
    "identity.sms.aliyun.endpoint",
    r#""https://dysmsapi.aliyuncs.com""#,
);

pub(crate) const TENCENT_ENABLED: Key<bool> = enabled("identity.sms.tencent.enabled");
pub(crate) const TENCENT_ID: Key<String> =
    plain("identity.sms.tencent.secret_id", "SecretId", "SecretId");
pub(crate) const TENCENT_SECRET: Key<String> =
    secret("identity.sms.tencent.secret_key", "SecretKey", "SecretKey");
pub(crate) const TENCENT_APP: Key<String> = plain(
    "identity.sms.tencent.sdk_app_id",
    "id of the SMS application",
    "短信应用 SDK AppID",
);
pub(crate) const TENCENT_REGION: Key<String> = Key::new(text(
    "identity.sms.tencent.region",
    64,
    r#""ap-guangzhou""#,
    "region of the service",
    "服务地域",
));
pub(crate) const TENCENT_SIGNS: Key<Signs> = signs("identity.sms.tencent.signs");
pub(crate) const TENCENT_TEMPLATES: Key<Templates> = templates(
    "identity.sms.tencent.templates",
    TEMPLATES_TITLE.0,
    TEMPLATES_TITLE.1,
);
pub(crate) const TENCENT_NOTICES: Key<NoticeTemplates> = notices(
    "identity.sms.tencent.notices",
    NOTICES_TITLE.0,
    NOTICES_TITLE.1,
);
pub(crate) const TENCENT_COUNTRIES: Key<Vec<String>> = countries("identity.sms.tencent.countries");
pub(crate) const TENCENT_COST: Key<i64> = cost("identity.sms.tencent.cost_micro");
pub(crate) const TENCENT_ENDPOINT: Key<String> = endpoint(
    "identity.sms.tencent.endpoint",
    r#""https://sms.tencentcloudapi.com""#,
);

pub(crate) const TWILIO_ENABLED: Key<bool> = enabled("identity.sms.twilio.enabled");
pub(crate) const TWILIO_ACCOUNT: Key<String> = plain(
    "identity.sms.twilio.account_sid",
    "Account SID",
    "Account SID",
);
pub(crate) const TWILIO_KEY: Key<String> = plain(
    "identity.sms.twilio.api_key",
    "API key that is used instead of the account; empty for none",
    "代替账号使用的 API Key；留空则不使用",
);
pub(crate) const TWILIO_SECRET: Key<String> = secret(
    "identity.sms.twilio.secret",
    "auth token of the account, or secret of the API key",
    "账号的 Auth Token 或 API Key 的 Secret",
);
pub(crate) const TWILIO_FROM: Key<String> = plain(
    "identity.sms.twilio.from",
    "number of the sender",
    "发送号码",
);
pub(crate) const TWILIO_SERVICE: Key<String> = plain(
    "identity.sms.twilio.messaging_service_sid",
    "messaging service, which goes before the number",
    "Messaging Service SID（优先于发送号码）",
);
pub(crate) const TWILIO_TEXTS: Key<Templates> = templates(
    "identity.sms.twilio.texts",
    "texts with `{code}` by region and language; without one a built-in text",
    "含 {code} 的短信正文，按地区和语言；留空用内置正文",
);
pub(crate) const TWILIO_NOTICES: Key<NoticeTemplates> = notices(
    "identity.sms.twilio.notices",
    "texts of notices by notice, region and language; without one a built-in text",
    "通知正文，按通知、地区和语言；留空用内置正文",
);
pub(crate) const TWILIO_COUNTRIES: Key<Vec<String>> = countries("identity.sms.twilio.countries");
pub(crate) const TWILIO_COST: Key<i64> = cost("identity.sms.twilio.cost_micro");
pub(crate) const TWILIO_ENDPOINT: Key<String> = endpoint(
    "identity.sms.twilio.endpoint",
    r#""https://api.twilio.com""#,
);

/// A number that gets no message (ID-59).
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestNumber {
    /// E.164.
    pub phone: String,
    /// Six digits.
    pub code: portico_base::Secret<String>,
    pub until: portico_base::Timestamp,
}

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    CHAIN.declaration,
    COUNTRIES.declaration,
    OTP_TTL_S.declaration,
    OTP_TRIES.declaration,
    RESEND_WAITS_S.declaration,
    NOTICES.declaration,
    TEST_NUMBERS.declaration,
    PER_PHONE.declaration,
    PER_DEVICE.declaration,
    PER_IP.declaration,
    PER_NET.declaration,
    PER_PREFIX.declaration,
    BUDGET_HOUR.declaration,
    BUDGET_DAY.declaration,
    MIN_CONVERSION_PERCENT.declaration,
    ALIYUN_ENABLED.declaration,
    ALIYUN_ID.declaration,
    ALIYUN_SECRET.declaration,
    ALIYUN_TOKEN.declaration,
    ALIYUN_SIGNS.declaration,
    ALIYUN_TEMPLATES.declaration,
    ALIYUN_NOTICES.declaration,
    ALIYUN_COUNTRIES.declaration,
    ALIYUN_COST.declaration,
    ALIYUN_ENDPOINT.declaration,
    TENCENT_ENABLED.declaration,
    TENCENT_ID.declaration,
    TENCENT_SECRET.declaration,
    TENCENT_APP.declaration,
    TENCENT_REGION.declaration,
    TENCENT_SIGNS.declaration,
    TENCENT_TEMPLATES.declaration,
    TENCENT_NOTICES.declaration,
    TENCENT_COUNTRIES.declaration,
    TENCENT_COST.declaration,
    TENCENT_ENDPOINT.declaration,
    TWILIO_ENABLED.declaration,
    TWILIO_ACCOUNT.declaration,
    TWILIO_KEY.declaration,
    TWILIO_SECRET.declaration,
    TWILIO_FROM.declaration,
    TWILIO_SERVICE.declaration,
    TWILIO_TEXTS.declaration,
    TWILIO_NOTICES.declaration,
    TWILIO_COUNTRIES.declaration,
    TWILIO_COST.declaration,
    TWILIO_ENDPOINT.declaration,
];

#[cfg(test)]
mod tests {
    use portico_contract::settings::Settings;

    use super::*;

    #[test]
    fn every_default_is_allowed_and_fits_its_type() {
        for declaration in ALL {
            let value = serde_json::from_str(declaration.default).unwrap();
            assert_eq!(declaration.check(&value), Ok(()), "{}", declaration.key);
            let credential = ["secret", "token", "secret_key", "test_numbers"]
                .iter()
                .any(|word| declaration.key.ends_with(word));
            assert_eq!(declaration.secret, credential, "{}", declaration.key);
        }
        let settings = Settings::defaults();
        assert_eq!(settings.system(&CHAIN), ["aliyun", "tencent", "twilio"]);
        assert_eq!(settings.system(&PER_PHONE).len(), 3);
        assert!(settings.system(&TEST_NUMBERS).is_empty());
        assert_eq!(settings.system(&ALIYUN_TEMPLATES), Templates::default());
        assert_eq!(settings.system(&RESEND_WAITS_S), [60, 120, 300]);
        for key in [&ALIYUN_ENDPOINT, &TENCENT_ENDPOINT, &TWILIO_ENDPOINT] {
            assert!(portico_sms::Endpoint::parse(&settings.system(key)).is_ok());
        }
    }
}
