//! W3C Baggage: only allow-listed keys pass the door, within fixed bounds (OB-10).

use std::fmt::Write as _;

const MAX_MEMBERS: usize = 64;
const MAX_BYTES: usize = 8_192;

/// The allowed members of `baggage` headers, ready to be sent on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage(Vec<(String, String)>);

impl Baggage {
    /// Reads `baggage` lines and keeps the members whose keys are in `allowed`, properties included.
    /// Malformed members are left out; beyond 64 members or 8,192 bytes reading stops.
    #[must_use]
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>, allowed: &[impl AsRef<str>]) -> Self {
        let mut members: Vec<(String, String)> = Vec::new();
        let mut bytes = 0;
        let texts = lines.filter_map(|line| std::str::from_utf8(line).ok());
        for member in texts.flat_map(|line| line.split(',')) {
            bytes += member.len() + 1;
            if bytes > MAX_BYTES || members.len() >= MAX_MEMBERS {
                break;
            }
            let Some((key, value)) = member.split_once('=') else {
                continue;
            };
            let (key, value) = (
                key.trim_matches([' ', '\t']),
                value.trim_matches([' ', '\t']),
            );
            let wanted = allowed.iter().any(|name| name.as_ref() == key);
            if wanted && is_token(key) && value.bytes().all(is_value_byte) {
                members.retain(|(known, _)| known != key);
                members.push((key.to_owned(), value.to_owned()));
            }
        }
        Self(members)
    }

    /// The header value to send on; `None` when nothing was kept.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        let mut out = String::new();
        for (key, value) in &self.0 {
            let comma = if out.is_empty() { "" } else { "," };
            let _ = write!(out, "{comma}{key}={value}");
        }
        (!out.is_empty()).then_some(out)
    }
}

/// `token` of RFC 9110 §5.6.2.
fn is_token(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `baggage-octet`, and what separates properties.
fn is_value_byte(b: u8) -> bool {
    matches!(b, 0x21 | 0x23..=0x2b | 0x2d..=0x5b | 0x5d..=0x7e | b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str, allowed: &[&str]) -> Baggage {
        Baggage::parse(std::iter::once(line.as_bytes()), allowed)
    }

    #[test]
    fn only_allowed_keys_pass() {
        let baggage = parse(
            "a=1;p=x , secret=2, b = caf%C3%A9, broken, c=\u{1}",
            &["a", "b", "c"],
        );
        assert_eq!(baggage.header().as_deref(), Some("a=1;p=x,b=caf%C3%A9"));
        assert_eq!(parse("a=1", &[]).header(), None);
        assert_eq!(parse("a=1,a=2", &["a"]).header().as_deref(), Some("a=2"));
    }

    proptest! {
        #[test]
        fn kept_text_is_bounded_and_stable(line in ".{0,300}", repeat in 1_usize..60) {
            let long = vec![line; repeat].join(",k=v,");
            let baggage = parse(&long, &["k", "a"]);
            if let Some(header) = baggage.header() {
                prop_assert!(header.len() <= MAX_BYTES);
                prop_assert_eq!(parse(&header, &["k", "a"]), baggage);
            }
        }
    }
}
