//! When a certificate ends, read out of its DER form (RFC 5280 §4.1): the one field that a metric needs.

use chrono::{NaiveDate, NaiveDateTime};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of a certificate's validity in Unix seconds; nothing when it is not a certificate.
pub(super) fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = skip(rest)?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = skip(rest)?;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (tag, end, _) = element(skip(validity)?)?;
    time(tag, std::str::from_utf8(end).ok()?)
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn expect(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    element(der).map(|(_, _, rest)| rest)
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` after (RFC 5280 §4.1.2.5).
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short: i32 = digits[..2].parse().ok()?;
            let century = if short < 50 { 2000 } else { 1900 };
            (century + short, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at * 2..at * 2 + 2].parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(year, part(0)?, part(1)?)?;
    let at: NaiveDateTime = date.and_hms_opt(part(2)?, part(3)?, part(4)?.min(59))?;
    Some(at.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn ending(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 3, 4);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        assert_eq!(not_after(&ending(2027)), Some(1_804_118_400));
        assert_eq!(not_after(&ending(2060)), Some(2_845_584_000));
        assert_eq!(not_after(b"no certificate"), None);
        assert_eq!(not_after(&[]), None);
    }

    proptest! {
        #[test]
        fn broken_certificates_do_no_harm(cut in 0_usize..300, at in 0_usize..300, byte: u8) {
            let mut der = ending(2030);
            der[at] = byte;
            let _nothing = not_after(&der[..der.len().min(cut)]);
            let _whatever = not_after(&der);
        }

        #[test]
        fn neither_does_noise(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _nothing = not_after(&noise);
        }
    }
}
