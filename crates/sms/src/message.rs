//! A code or a notice for a phone, and the texts that vendors approved for it.

use std::collections::BTreeMap;

use portico_base::Secret;
use serde::Deserialize;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// Of this send; vendors give it back in receipts.
    pub id: String,
    /// E.164.
    pub phone: String,
    /// What it says.
    pub content: Content,
    /// `zh-CN`, `en`, …
    pub locale: String,
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum Content {
    /// Six digits, leading zeros kept.
    Code(Secret<String>),
    /// News about the account.
    Notice(News),
}

/// News about an account. Nothing is filled in: vendors limit what a variable may hold, the phone shows the
/// time by itself, and a text without variables cannot carry a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// `password_changed`, …: by which templates are found.
    pub name: String,
    /// The text, for vendors that take one.
    pub text: String,
}

impl Message {
    /// On which side of the vendors' border the number is.
    #[must_use]
    pub fn region(&self) -> Region {
        // No other calling code begins so (ITU-T E.164).
        if self.phone.starts_with("+86") {
            Region::Cn
        } else {
            Region::Intl
        }
    }
}

/// Vendors approve texts for mainland China and for everywhere else separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Mainland China.
    Cn,
    /// Everywhere else.
    Intl,
}

/// Templates (a vendor's code, or a text with `{code}`) by region and locale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Templates(pub BTreeMap<Region, BTreeMap<String, String>>);

impl Templates {
    /// The template for a message: its locale, then its language, then English, then the first there is.
    #[must_use]
    pub fn pick(&self, message: &Message) -> Option<&str> {
        let of = self.0.get(&message.region())?;
        let language = message.locale.split('-').next().unwrap_or_default();
        of.get(&message.locale)
            .or_else(|| {
                of.iter()
                    .find(|(locale, _)| locale.split('-').next() == Some(language))
                    .map(|(_, template)| template)
            })
            .or_else(|| of.get("en"))
            .or_else(|| of.values().next())
            .map(String::as_str)
            .filter(|template| !template.is_empty())
    }
}

/// Templates of notices by the name of the notice; those of `any` stand for all that have none of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct NoticeTemplates(pub BTreeMap<String, Templates>);

impl NoticeTemplates {
    /// Stands for every notice without templates of its own.
    const ANY: &'static str = "any";

    fn pick(&self, news: &News, message: &Message) -> Option<&str> {
        [news.name.as_str(), Self::ANY]
            .into_iter()
            .find_map(|name| self.0.get(name)?.pick(message))
    }
}

/// The template for a message, of those for codes or of those for notices.
pub(crate) fn template<'a>(
    codes: &'a Templates,
    notices: &'a NoticeTemplates,
    message: &Message,
) -> Option<&'a str> {
    match &message.content {
        Content::Code(_) => codes.pick(message),
        Content::Notice(news) => notices.pick(news, message),
    }
}

/// Signatures (the sender's name in brackets) by region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Signs(pub BTreeMap<Region, String>);

impl Signs {
    /// The signature for a message.
    #[must_use]
    pub fn pick(&self, message: &Message) -> Option<&str> {
        self.0
            .get(&message.region())
            .map(String::as_str)
            .filter(|sign| !sign.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(phone: &str, locale: &str) -> Message {
        Message {
            id: "1".to_owned(),
            phone: phone.to_owned(),
            content: Content::Code(Secret::from("048213")),
            locale: locale.to_owned(),
        }
    }

    #[test]
    fn a_template_follows_region_and_locale() {
        let templates: Templates = serde_json::from_str(
            r#"{"cn": {"zh-CN": "SMS_1"}, "intl": {"en": "SMS_2", "zh-CN": "SMS_3"}}"#,
        )
        .unwrap();
        let cn = "+8613812345678";
        let hk = "+85291234567";
        assert_eq!(templates.pick(&to(cn, "zh-CN")), Some("SMS_1"));
        assert_eq!(templates.pick(&to(cn, "en")), Some("SMS_1"), "the only one");
        assert_eq!(templates.pick(&to(hk, "zh-TW")), Some("SMS_3"), "language");
        assert_eq!(templates.pick(&to(hk, "fr")), Some("SMS_2"), "English");
        let only_cn: Templates = serde_json::from_str(r#"{"cn": {"zh-CN": "SMS_1"}}"#).unwrap();
        assert_eq!(only_cn.pick(&to(hk, "en")), None);
        assert!(serde_json::from_str::<Templates>(r#"{"mars": {}}"#).is_err());
    }

    #[test]
    fn a_notice_has_its_own_template_or_that_of_any() {
        let notices: NoticeTemplates = serde_json::from_str(
            r#"{"password_changed": {"cn": {"zh-CN": "SMS_7"}}, "any": {"cn": {"zh-CN": "SMS_8"}}}"#,
        )
        .unwrap();
        let codes: Templates = serde_json::from_str(r#"{"cn": {"zh-CN": "SMS_1"}}"#).unwrap();
        let of = |phone: &str, name: &str| {
            let mut message = to(phone, "en");
            message.content = Content::Notice(News {
                name: name.to_owned(),
                text: String::new(),
            });
            template(&codes, &notices, &message).map(str::to_owned)
        };
        let cn = "+8613812345678";
        assert_eq!(of(cn, "password_changed").as_deref(), Some("SMS_7"));
        assert_eq!(of(cn, "new_device").as_deref(), Some("SMS_8"));
        assert_eq!(of("+85291234567", "new_device"), None, "never a code's");
        let code = to(cn, "en");
        assert_eq!(template(&codes, &notices, &code), Some("SMS_1"));
    }

    #[test]
    fn a_message_does_not_print_its_code() {
        assert!(!format!("{:?}", to("+8613812345678", "en")).contains("048213"));
    }
}
