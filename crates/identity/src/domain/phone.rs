//! Phone numbers: E.164 from what people type, by country codes of ITU-T E.164 and the lengths of national numbers.

use std::fmt;

use portico_base::mask;

/// Country codes with the least and the most digits of a national number that can get a message.
/// Codes of three digits whose plan is not listed take what E.164 leaves: 4 to 12.
const PLANS: &[(&str, usize, usize)] = &[
    ("1", 10, 10),
    ("7", 10, 10),
    ("20", 10, 10),
    ("27", 9, 9),
    ("30", 10, 10),
    ("31", 9, 9),
    ("32", 8, 9),
    ("33", 9, 9),
    ("34", 9, 9),
    ("36", 8, 9),
    ("39", 6, 12),
    ("40", 9, 9),
    ("41", 9, 9),
    ("43", 7, 13),
    ("44", 9, 10),
    ("45", 8, 8),
    ("46", 7, 10),
    ("47", 8, 8),
    ("48", 9, 9),
    ("49", 6, 13),
    ("51", 8, 9),
    ("52", 10, 11),
    ("53", 6, 8),
    ("54", 10, 11),
    ("55", 10, 11),
    ("56", 9, 9),
    ("57", 8, 10),
    ("58", 10, 10),
    ("60", 8, 10),
    ("61", 9, 9),
    ("62", 8, 12),
    ("63", 8, 10),
    ("64", 8, 10),
    ("65", 8, 8),
    ("66", 8, 9),
    ("81", 9, 10),
    ("82", 8, 10),
    ("84", 9, 10),
    ("86", 11, 11),
    ("90", 10, 10),
    ("91", 10, 10),
    ("92", 9, 10),
    ("93", 9, 9),
    ("94", 9, 9),
    ("95", 7, 10),
    ("98", 10, 10),
    ("852", 8, 8),
    ("853", 8, 8),
    ("886", 8, 9),
];

/// Assigned codes of three digits, as ranges (ITU-T list of E.164 codes).
const THREE_DIGITS: &[(u16, u16)] = &[
    (211, 213),
    (216, 216),
    (218, 218),
    (220, 258),
    (260, 269),
    (290, 291),
    (297, 299),
    (350, 359),
    (370, 378),
    (380, 383),
    (385, 387),
    (389, 389),
    (420, 421),
    (423, 423),
    (500, 509),
    (590, 599),
    (670, 670),
    (672, 683),
    (685, 692),
    (850, 850),
    (852, 853),
    (855, 856),
    (880, 880),
    (886, 886),
    (960, 968),
    (970, 977),
    (992, 996),
    (998, 998),
];

/// The country whose national numbers need no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Country {
    code: &'static str,
    trunk: &'static str,
}

impl Country {
    /// Mainland China: the default of the specification.
    pub(crate) const CN: Self = Self {
        code: "86",
        trunk: "0",
    };
}

/// A number in E.164: `+`, country code, national number.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct E164 {
    text: String,
    /// Length of the country code.
    code: usize,
}

impl E164 {
    /// A number that was stored as such.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('+')?;
        number(digits)
    }

    /// `+8613812345678`.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The same, owned.
    pub(crate) fn into_string(self) -> String {
        self.text
    }

    /// `86`.
    pub(crate) fn country_code(&self) -> &str {
        &self.text[1..=self.code]
    }

    /// `13812345678`.
    pub(crate) fn national(&self) -> &str {
        &self.text[1 + self.code..]
    }

    /// The number without its last four digits: numbers of one block share it.
    pub(crate) fn prefix(&self) -> &str {
        &self.text[..self.text.len() - 4]
    }

    /// `138****5678`, with the code for other countries than the default.
    pub(crate) fn masked(&self) -> String {
        let national = mask::phone(self.national());
        if self.country_code() == Country::CN.code {
            national
        } else {
            format!("+{} {national}", self.country_code())
        }
    }
}

/// Prints masked: a whole number has no place in a log.
impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// Reads a number: `+86 138…`, `0086 138…`, or in the form of the default country.
///
/// # Errors
/// Says that it is none.
pub(crate) fn parse_phone(text: &str, default: Country) -> Result<E164, &'static str> {
    const BAD: &str = "must be a phone number, with `+` and country code for other countries";
    let text = text.trim();
    let separator = |c: char| matches!(c, ' ' | '-' | '.' | '(' | ')' | '\u{a0}');
    let digits: String = text
        .strip_prefix(['+', '＋'])
        .unwrap_or(text)
        .chars()
        .filter(|c| !separator(*c))
        .collect();
    if digits.is_empty() || digits.len() > 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    if text.starts_with(['+', '＋']) {
        return number(&digits).ok_or(BAD);
    }
    if let Some(rest) = digits.strip_prefix("00") {
        return number(rest).ok_or(BAD);
    }
    let national = match default.trunk {
        "" => &*digits,
        trunk => digits.strip_prefix(trunk).unwrap_or(&digits),
    };
    // Of a country whose numbers can begin with the trunk prefix, the whole may be the number.
    [national, &*digits]
        .iter()
        .find_map(|n| number(&format!("{}{n}", default.code)))
        .ok_or(BAD)
}

/// Digits behind the `+` as a number.
fn number(digits: &str) -> Option<E164> {
    if digits.len() > 15 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (code, least, most) = plan(digits)?;
    let national = digits.get(code..)?;
    let good = (least..=most).contains(&national.len())
        // Mobile numbers of China, the only ones that get messages: 13x to 19x.
        && (&digits[..code] != "86"
            || national.starts_with('1') && !matches!(national.as_bytes()[1], b'0'..=b'2'));
    good.then(|| E164 {
        text: format!("+{digits}"),
        code,
    })
}

/// Length of the country code, and of the national numbers behind it.
fn plan(digits: &str) -> Option<(usize, usize, usize)> {
    if let Some((code, least, most)) = PLANS.iter().find(|(code, ..)| digits.starts_with(code)) {
        return Some((code.len(), *least, *most));
    }
    let code: u16 = digits.get(..3)?.parse().ok()?;
    THREE_DIGITS
        .iter()
        .any(|(from, to)| (*from..=*to).contains(&code))
        .then_some((3, 4, 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Country = Country {
        code: "1",
        trunk: "1",
    };
    const GB: Country = Country {
        code: "44",
        trunk: "0",
    };

    fn of(text: &str, country: Country) -> Option<String> {
        parse_phone(text, country).ok().map(E164::into_string)
    }

    #[test]
    fn numbers_of_other_countries() {
        assert_eq!(of("(415) 555-2671", US).as_deref(), Some("+14155552671"));
        assert_eq!(of("1 415 555 2671", US).as_deref(), Some("+14155552671"));
        assert_eq!(of("07911 123456", GB).as_deref(), Some("+447911123456"));
        assert_eq!(
            of("+852 9123 4567", Country::CN).as_deref(),
            Some("+85291234567")
        );
        assert_eq!(of("+886 912 345 678", GB).as_deref(), Some("+886912345678"));
        assert_eq!(of("+971 50 123 4567", GB).as_deref(), Some("+971501234567"));
    }

    #[test]
    fn what_is_no_number() {
        for bad in [
            "",
            "+",
            "1381234567",
            "138123456789",
            "12012345678",
            "+8612012345678",
            "02112345678",
            "+0123456789",
            "+999123456789",
            "+210123456789",
            "+1415555267",
            "1381234567a",
            "+86138123456780000000",
            "١٣٨١٢٣٤٥٦٧٨",
        ] {
            assert_eq!(of(bad, Country::CN), None, "{bad:?}");
        }
    }

    #[test]
    fn parts_of_a_number() {
        let n = parse_phone("13812345678", Country::CN).unwrap();
        assert_eq!((n.country_code(), n.national()), ("86", "13812345678"));
        assert_eq!(n.prefix(), "+861381234");
        assert_eq!(format!("{n:?}"), "138****5678");
        assert_eq!(E164::stored(n.as_str()), Some(n));
        assert!(E164::stored("13812345678").is_none());
        let n = parse_phone("+16502530000", Country::CN).unwrap();
        assert_eq!(
            (n.country_code(), n.masked().as_str()),
            ("1", "+1 65****0000")
        );
    }

    #[test]
    fn no_code_is_the_beginning_of_another() {
        for (i, (a, least, most)) in PLANS.iter().enumerate() {
            assert!(least <= most && a.len() + most <= 15, "{a}");
            for (b, ..) in &PLANS[i + 1..] {
                assert!(!b.starts_with(a) && !a.starts_with(b), "{a} {b}");
            }
            for (from, to) in THREE_DIGITS {
                let clash = (*from..=*to).any(|c| c.to_string().starts_with(a) && a.len() < 3);
                assert!(!clash, "{a}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_number_read_again_is_the_same(text in "[+0-9 ()-]{0,22}") {
            if let Ok(n) = parse_phone(&text, Country::CN) {
                proptest::prop_assert_eq!(parse_phone(n.as_str(), Country::CN), Ok(n.clone()));
                proptest::prop_assert!(n.as_str().len() <= 16);
                let shown = format!("{n:?}");
                proptest::prop_assert!(!shown.contains(n.national()));
            }
        }
    }
}
