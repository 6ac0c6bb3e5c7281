//! Limits against guessing: so many tries in a window, by address and by account (ID-160…162).

use portico_contract::settings::{Declaration, Key, Kind, Scope};
use serde::Deserialize;

/// So many in a window, written `10/min`, `50/h`, `5/15min`, `30/10s`, `3/2day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Rate {
    pub count: u32,
    pub window_s: u32,
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text).ok_or_else(|| format!("`{text}` is not of the form 10/min"))
    }
}

fn parse(text: &str) -> Option<Rate> {
    let (count, window) = text.split_once('/')?;
    let unit_at = window.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = window.split_at(unit_at);
    let unit = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    let number: u32 = if number.is_empty() {
        1
    } else {
        number.parse().ok()?
    };
    let rate = Rate {
        count: count.parse().ok()?,
        window_s: number.checked_mul(unit)?,
    };
    (rate.count > 0 && (1..=31 * 86_400).contains(&rate.window_s)).then_some(rate)
}

pub(super) const fn rates(
    key: &'static str,
    default: &'static str,
    title: &'static str,
    title_zh: &'static str,
) -> Key<Vec<Rate>> {
    Key::new(Declaration::new(
        key,
        Kind::TextList { max: 4 },
        default,
        title,
        title_zh,
    ))
}

pub(crate) const PASSWORD_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.password_per_address",
    r#"["10/min", "50/h"]"#,
    "logins with a password from one address",
    "每个地址的密码登录次数",
);
pub(crate) const OTP_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.otp_per_address",
    r#"["10/10min"]"#,
    "codes tried from one address",
    "每个地址的验证码尝试次数",
);
pub(crate) const TOTP_PER_USER: Key<Vec<Rate>> = rates(
    "identity.limit.totp_per_user",
    r#"["5/15min"]"#,
    "wrong second factors of one user, after which the factor is locked for as long",
    "每个用户的二次验证错误次数，超过后锁定同样时长",
);
pub(crate) const REFRESH_PER_SESSION: Key<Vec<Rate>> = rates(
    "identity.limit.refresh_per_session",
    r#"["60/min"]"#,
    "refreshes of one session",
    "每个会话的刷新次数",
);
pub(crate) const REFRESH_INVALID_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.refresh_invalid_per_address",
    r#"["30/min"]"#,
    "refreshes with a token that is not good, from one address",
    "每个地址使用无效刷新令牌的次数",
);
pub(crate) const REGISTRATION_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.registration_per_address",
    r#"["5/h"]"#,
    "registrations from one address",
    "每个地址的注册次数",
);
pub(crate) const USERNAME_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.username_per_address",
    r#"["10/min"]"#,
    "user names asked for from one address",
    "每个地址查询用户名是否可用的次数",
);
pub(crate) const RESET_PER_ACCOUNT: Key<Vec<Rate>> = rates(
    "identity.limit.reset_per_account",
    r#"["3/h"]"#,
    "resets and verifications sent to one account",
    "每个账号的重置与验证邮件次数",
);
pub(crate) const RESET_PER_ADDRESS: Key<Vec<Rate>> = rates(
    "identity.limit.reset_per_address",
    r#"["10/h"]"#,
    "resets and verifications asked for from one address",
    "每个地址申请重置与验证的次数",
);
pub(crate) const ACCOUNT_FAILURES: Key<Rate> = Key::new(Declaration::new(
    "identity.limit.account_failures",
    Kind::Text { max: 20 },
    r#""5/15min""#,
    "wrong passwords of one account before it has to wait",
    "一个账号在需要等待之前允许的密码错误次数",
));
pub(crate) const ACCOUNT_WAITS_S: Key<Vec<u32>> = Key::new(
    Declaration::new(
        "identity.limit.account_waits_s",
        Kind::Json,
        "[60, 120, 300, 900, 3600]",
        "waits of an unknown device after too many wrong passwords, one after the other",
        "密码错误过多后未知设备的等待时间，依次递增",
    )
    .unit("s"),
);
pub(crate) const STUFFING_PAIRS: Key<u32> = Key::new(Declaration::new(
    "identity.stuffing.pairs",
    Kind::Integer { min: 3, max: 1_000 },
    "15",
    "different wrong pairs of account and password after which an address is blocked",
    "一个地址尝试多少组不同的错误账号密码后被封锁",
));
pub(crate) const STUFFING_WINDOW_S: Key<u32> = Key::new(
    Declaration::new(
        "identity.stuffing.window_s",
        Kind::Integer {
            min: 60,
            max: 604_800,
        },
        "10800",
        "time within which they are counted",
        "统计窗口",
    )
    .unit("s"),
);
pub(crate) const STUFFING_BLOCK_S: Key<u32> = Key::new(
    Declaration::new(
        "identity.stuffing.block_s",
        Kind::Integer {
            min: 60,
            max: 2_592_000,
        },
        "86400",
        "time for which the address is blocked",
        "封锁时长",
    )
    .unit("s")
    .scope(Scope::System),
);

/// All of them.
pub(super) const ALL: &[Declaration] = &[
    PASSWORD_PER_ADDRESS.declaration,
    OTP_PER_ADDRESS.declaration,
    TOTP_PER_USER.declaration,
    REFRESH_PER_SESSION.declaration,
    REFRESH_INVALID_PER_ADDRESS.declaration,
    REGISTRATION_PER_ADDRESS.declaration,
    USERNAME_PER_ADDRESS.declaration,
    RESET_PER_ACCOUNT.declaration,
    RESET_PER_ADDRESS.declaration,
    ACCOUNT_FAILURES.declaration,
    ACCOUNT_WAITS_S.declaration,
    STUFFING_PAIRS.declaration,
    STUFFING_WINDOW_S.declaration,
    STUFFING_BLOCK_S.declaration,
];

#[cfg(test)]
mod tests {
    use portico_contract::settings::Settings;

    use super::*;

    #[test]
    fn defaults_fit_their_types() {
        let settings = Settings::defaults();
        let rates = |key: &Key<Vec<Rate>>| -> Vec<(u32, u32)> {
            let all = settings.system(key);
            all.iter().map(|r| (r.count, r.window_s)).collect()
        };
        assert_eq!(rates(&PASSWORD_PER_ADDRESS), [(10, 60), (50, 3_600)]);
        assert_eq!(rates(&OTP_PER_ADDRESS), [(10, 600)]);
        assert_eq!(rates(&TOTP_PER_USER), [(5, 900)]);
        assert_eq!(rates(&REFRESH_PER_SESSION), [(60, 60)]);
        assert_eq!(rates(&REFRESH_INVALID_PER_ADDRESS), [(30, 60)]);
        assert_eq!(rates(&REGISTRATION_PER_ADDRESS), [(5, 3_600)]);
        assert_eq!(rates(&USERNAME_PER_ADDRESS), [(10, 60)]);
        assert_eq!(rates(&RESET_PER_ACCOUNT), [(3, 3_600)]);
        assert_eq!(rates(&RESET_PER_ADDRESS), [(10, 3_600)]);
        let failures = settings.system(&ACCOUNT_FAILURES);
        assert_eq!((failures.count, failures.window_s), (5, 900));
        assert_eq!(
            settings.system(&ACCOUNT_WAITS_S),
            [60, 120, 300, 900, 3_600]
        );
        assert_eq!(settings.system(&STUFFING_PAIRS), 15);
        assert_eq!(settings.system(&STUFFING_WINDOW_S), 10_800);
        assert_eq!(settings.system(&STUFFING_BLOCK_S), 86_400);
    }

    #[test]
    fn rates_are_read() {
        for (text, wanted) in [
            ("10/min", Some((10, 60))),
            ("5/15min", Some((5, 900))),
            ("50/h", Some((50, 3_600))),
            ("1/30s", Some((1, 30))),
            ("3/2day", Some((3, 172_800))),
            ("0/min", None),
            ("5/0s", None),
            ("5/min15", None),
            ("5", None),
            ("-1/min", None),
            ("5/99999999999h", None),
        ] {
            let rate = parse(text).map(|r| (r.count, r.window_s));
            assert_eq!(rate, wanted, "{text}");
        }
    }
}
