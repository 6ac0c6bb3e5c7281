//! Texts of notices for vendors that take one, in both languages; nothing is ever filled in.

use crate::mail::templates::locale_of;

const EN: &str = include_str!("../../assets/sms/en.txt");
const ZH: &str = include_str!("../../assets/sms/zh-CN.txt");

/// The text of a notice in the user's language; nothing for notices that do not go by SMS.
pub(crate) fn text(notice: &str, locale: &str) -> Option<&'static str> {
    let all = if locale_of(locale) == "zh-CN" { ZH } else { EN };
    all.lines()
        .filter_map(|line| line.split_once(" = "))
        .find_map(|(name, text)| (name == notice).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notices::Notice;

    /// What carries a link or a token goes by mail or not at all.
    const BY_MAIL_ONLY: [&str; 6] = [
        "email_changed",
        "already_registered",
        "reset_link",
        "verify_email",
        "invitation",
        "test",
    ];

    #[test]
    fn both_languages_have_every_notice_that_holds_no_secret() {
        let now = "2026-11-21T12:00:00Z".parse().unwrap();
        for notice in Notice::samples(now) {
            let name = notice.template();
            let by_mail = BY_MAIL_ONLY.contains(&name);
            for locale in ["en", "zh-CN"] {
                assert_eq!(text(name, locale).is_none(), by_mail, "{name} {locale}");
            }
        }
    }

    #[test]
    fn texts_are_short_and_hold_neither_digits_nor_links() {
        for (all, most) in [(EN, 160), (ZH, 70)] {
            for line in all.lines() {
                let (name, text) = line.split_once(" = ").unwrap();
                assert!(text.chars().count() <= most, "{name} is one message");
                let plain = !text
                    .chars()
                    .any(|c| c.is_ascii_digit() || "{}/@".contains(c));
                assert!(plain, "{name}: {text}");
            }
        }
        assert!(
            EN.is_ascii(),
            "a message of the plain alphabet holds 160 characters"
        );
    }
}
