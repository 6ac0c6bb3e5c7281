//! User names, e-mail addresses and phone numbers: their form, and the key that makes them unique (ID-11).

use std::net::IpAddr;

use portico_base::{FieldFault, mask};
use unicode_normalization::UnicodeNormalization as _;
use unicode_security::{
    GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _,
};

pub(crate) use super::phone::{Country, E164, parse_phone};

/// What somebody types to say who they are. The three forms do not overlap: an address has an `@`, a
/// user name a letter, a number neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identifier {
    /// Its key.
    Username(String),
    /// In lower case.
    Email(String),
    /// E.164.
    Phone(String),
}

impl Identifier {
    /// Reads what somebody typed; nothing when no account can have such a name.
    pub(crate) fn parse(text: &str, default: Country) -> Option<Self> {
        let text = text.trim();
        if text.contains('@') {
            return check_email(text).ok().map(|a| Self::Email(email_key(&a)));
        }
        if let Ok(number) = parse_phone(text, default) {
            return Some(Self::Phone(number.into_string()));
        }
        check_username(text)
            .ok()
            .map(|name| Self::Username(username_key(&name)))
    }
}

/// What makes a user name unique: NFKC and case folding, by way of upper case, so that `ß` meets `ss` and
/// both small sigmas meet.
pub(crate) fn username_key(name: &str) -> String {
    name.nfkc()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .nfkc()
        .collect()
}

/// What makes an e-mail address unique: lower case, and a domain as the DNS has it.
pub(crate) fn email_key(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, host)) => {
            let host = domain(host).unwrap_or_else(|| host.to_lowercase());
            format!("{}@{host}", local.to_lowercase())
        }
        None => address.to_lowercase(),
    }
}

/// A user name in its stored form.
///
/// # Errors
/// Names the rule that it breaks.
pub(crate) fn check_username(name: &str) -> Result<String, FieldFault> {
    let fault = |code, message| Err(FieldFault::new("username", code, message));
    let name: String = name.trim().nfkc().collect();
    if !(3..=32).contains(&name.chars().count()) {
        return fault("length", "must have 3 to 32 characters");
    }
    let good =
        |c: char| c.is_alphanumeric() && c.identifier_allowed() || matches!(c, '_' | '-' | '.');
    let inner = |c: char| good(c) || is_mark(c) && c.identifier_allowed();
    if !name.starts_with(|c: char| c.is_alphanumeric()) || !name.chars().all(inner) {
        let message = "must be letters, digits, `_`, `-` and `.`, a letter or digit first";
        return fault("form", message);
    }
    if !name.chars().any(char::is_alphabetic) {
        return fault("form", "must have a letter, else it looks like a number");
    }
    // Unicode UTS 39: one script, or one of the mixes that people of East Asia write with Latin letters.
    if name.detect_restriction_level() > RestrictionLevel::HighlyRestrictive {
        return fault("mixed_scripts", "mixes letters of scripts that look alike");
    }
    Ok(name)
}

/// An e-mail address in its stored form.
///
/// # Errors
/// Says that it is none.
pub(crate) fn check_email(address: &str) -> Result<String, FieldFault> {
    let address = address.trim();
    let good = address.len() <= 254
        && address
            .rsplit_once('@')
            .is_some_and(|(local, host)| is_local_part(local) && domain(host).is_some());
    if good {
        Ok(address.to_owned())
    } else {
        let message = "must be an address like name@example.com";
        Err(FieldFault::new("email", "form", message))
    }
}

/// A phone number in its stored form.
///
/// # Errors
/// Says that it is none.
pub(crate) fn check_phone(number: &str, default: Country) -> Result<E164, FieldFault> {
    parse_phone(number, default).map_err(|message| FieldFault::new("phone", "form", message))
}

/// An address as people see it who may not see addresses (ID-15).
pub(crate) fn masked_email(address: &str) -> String {
    mask::email(address)
}

/// A stored number as people see it who may not see numbers (ID-15).
pub(crate) fn masked_phone(number: &str) -> String {
    E164::stored(number).map_or_else(|| mask::phone(number), |n| n.masked())
}

/// A network address as people see it who may not see addresses: its first half, as far as a region.
pub(crate) fn masked_address(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V4(v4)) => {
            let [a, b, ..] = v4.octets();
            format!("{a}.{b}.*.*")
        }
        Ok(IpAddr::V6(v6)) => {
            let [a, b, ..] = v6.segments();
            format!("{a:x}:{b:x}:*")
        }
        Err(_) => "*".to_owned(),
    }
}

/// RFC 5322 dot-atom of at most 64 bytes (RFC 5321 §4.5.3.1.1): quoted parts exist on paper only.
fn is_local_part(local: &str) -> bool {
    let atom = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    local.len() <= 64 && local.split('.').all(atom)
}

/// The domain as the DNS has it (IDNA), when it is one that mail can go to.
fn domain(host: &str) -> Option<String> {
    let url::Host::Domain(host) = url::Host::parse(host).ok()? else {
        return None;
    };
    let label = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let (_, top) = host.rsplit_once('.')?;
    let good =
        host.split('.').all(label) && top.len() >= 2 && !top.bytes().all(|b| b.is_ascii_digit());
    good.then_some(host)
}

/// Marks that stand on letters: scripts of South Asia cannot be written without.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_types_is_one_of_three() {
        let of = |text: &str| Identifier::parse(text, Country::CN);
        let name = |key: &str| Some(Identifier::Username(key.to_owned()));
        assert_eq!(of(" Li.Lei "), name("li.lei"));
        assert_eq!(of("李雷-2"), name("李雷-2"));
        assert_eq!(of("ﬁona"), name("fiona"));
        assert_eq!(
            of("Me+News@Example.COM"),
            Some(Identifier::Email("me+news@example.com".to_owned()))
        );
        let phone = Some(Identifier::Phone("+8613812345678".to_owned()));
        for text in [
            "13812345678",
            "138 1234 5678",
            "+86 138-1234-5678",
            "0086 13812345678",
        ] {
            assert_eq!(of(text), phone, "{text}");
        }
        for nobody in [
            "",
            "ab",
            "12345",
            "a@b",
            "a b c",
            "x\u{202e}yz",
            &"a".repeat(33),
        ] {
            assert_eq!(of(nobody), None, "{nobody:?}");
        }
    }

    #[test]
    fn user_names_that_look_alike_are_one_or_refused() {
        assert_eq!(username_key("STRASSE"), username_key("straße"));
        assert_eq!(username_key("ΟΔΟΣ"), username_key("οδος"));
        assert_eq!(username_key("Ａｄｍｉｎ"), "admin");
        let code = |name: &str| check_username(name).err().map(|f| f.code);
        // A Cyrillic letter in a Latin word.
        assert_eq!(code("p\u{430}ypal"), Some("mixed_scripts".to_owned()));
        assert_eq!(code("ab"), Some("length".to_owned()));
        assert_eq!(code("-abc"), Some("form".to_owned()));
        assert_eq!(code("a/b/c"), Some("form".to_owned()));
        assert_eq!(code("ad\u{200b}min"), Some("form".to_owned()));
        assert_eq!(code("123-456"), Some("form".to_owned()));
        assert_eq!(code("пользователь"), None);
        assert_eq!(code("ユーザーabc漢字"), None);
        assert_eq!(code("हिन्दी"), None);
    }

    #[test]
    fn addresses() {
        for good in [
            "a@b.cn",
            "first.last+tag@sub.example.museum",
            "o'neill@example.ie",
            "x@例子.中国",
        ] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        assert_eq!(email_key("A.B@Bücher.Example"), "a.b@xn--bcher-kva.example");
        for bad in [
            "a",
            "@b.cn",
            "a@",
            "a@b",
            "a@@b.cn",
            "a b@c.de",
            ".a@b.cn",
            "a..b@c.de",
            "a@-b.cn",
            "a@b.1",
            "a@127.0.0.1",
            "a@[::1]",
            "a@b..cn",
            "\"a b\"@c.de",
            "a@b.cn\nbcc:x@y.de",
            "a\0@b.cn",
        ] {
            assert!(check_email(bad).is_err(), "{bad:?}");
        }
        assert!(check_email(&format!("{}@b.cn", "a".repeat(65))).is_err());
    }

    #[test]
    fn masked() {
        assert_eq!(masked_phone("+8613812345678"), "138****5678");
        assert_eq!(masked_phone("+14155552671"), "+1 41****2671");
        assert_eq!(masked_email("user@example.com"), "u***@example.com");
        assert_eq!(masked_address("203.0.113.7"), "203.0.*.*");
        assert_eq!(masked_address("2001:db8::1"), "2001:db8:*");
        assert_eq!(masked_address("nonsense"), "*");
    }

    proptest::proptest! {
        #[test]
        fn keys_are_stable(text in "\\PC{0,40}") {
            if let Ok(name) = check_username(&text) {
                let key = username_key(&name);
                proptest::prop_assert_eq!(&username_key(&key), &key);
                proptest::prop_assert!(!matches!(
                    Identifier::parse(&name, Country::CN),
                    Some(Identifier::Email(_) | Identifier::Phone(_))
                ));
            }
            if let Some(Identifier::Email(key)) = Identifier::parse(&text, Country::CN) {
                proptest::prop_assert_eq!(email_key(&key), key);
            }
        }
    }
}
