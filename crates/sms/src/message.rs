//! A code for a phone, and the texts that vendors approved for it.

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
    /// Six digits, leading zeros kept.
    pub code: Secret<String>,
    /// `zh-CN`, `en`, …
    pub locale: String,
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
            code: Secret::from("048213"),
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
    fn a_message_does_not_print_its_code() {
        assert!(!format!("{:?}", to("+8613812345678", "en")).contains("048213"));
    }
}
