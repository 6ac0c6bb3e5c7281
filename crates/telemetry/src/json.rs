//! Writing JSON by hand: the two streams that are written per request do not go through a serializer.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Appends a string with its quotes, escaped as RFC 8259 §7 asks.
pub(crate) fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escaped(out, value);
    out.push(b'"');
}

/// Appends the inside of a string, escaped.
pub(crate) fn escaped(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    let mut copied = 0;
    let mut i = 0;
    while i < bytes.len() {
        if let Some(chunk) = bytes.get(i..i + 8).and_then(|c| c.first_chunk::<8>())
            && !needs_escape(u64::from_ne_bytes(*chunk))
        {
            i += 8;
            continue;
        }
        let end = bytes.len().min(i + 8);
        for at in i..end {
            if bytes[at] < 0x20 || matches!(bytes[at], b'"' | b'\\') {
                out.extend_from_slice(&bytes[copied..at]);
                copied = at + 1;
                escape(out, bytes[at]);
            }
        }
        i = end;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// True when one of eight bytes is a control character, a quote or a backslash (Bit Twiddling Hacks,
/// "Determine if a word has a byte less than n" and "… equal to n").
const fn needs_escape(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    const fn zero(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
    let below = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    below | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64)) != 0
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        control => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(control >> 4)]);
            out.push(HEX[usize::from(control & 15)]);
        }
    }
}

/// Appends `"name":` with a comma before it.
pub(crate) fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    escaped(out, name);
    out.extend_from_slice(b"\":");
}

/// Appends an unsigned number.
pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a fraction; what JSON has no word for becomes `null`.
pub(crate) fn float(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        let _ = write!(Text(out), "{value}");
    } else {
        out.extend_from_slice(b"null");
    }
}

/// Appends an address without quotes.
pub(crate) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => {
            let _ = write!(Text(out), "{v6}");
        }
    }
}

/// RFC 3339 in UTC with microseconds; keeps the text of the present second.
#[derive(Debug, Default)]
pub(crate) struct Stamp {
    second: i64,
    text: Vec<u8>,
}

impl Stamp {
    /// Appends the moment `unix_us` microseconds after the epoch, without quotes.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, unix_us: i64) {
        let second = unix_us.div_euclid(1_000_000);
        if self.text.is_empty() || second != self.second {
            self.second = second;
            let time = chrono::DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.text.clear();
            let _ = write!(
                Text(&mut self.text),
                "{}",
                time.format("%Y-%m-%dT%H:%M:%S.")
            );
        }
        out.extend_from_slice(&self.text);
        let mut micros = unix_us.rem_euclid(1_000_000);
        let mut digits = [b'0'; 7];
        digits[6] = b'Z';
        for digit in digits[..6].iter_mut().rev() {
            *digit = b'0' + u8::try_from(micros % 10).unwrap_or(0);
            micros /= 10;
        }
        out.extend_from_slice(&digits);
    }
}

/// Lets `write!` append to bytes.
pub(crate) struct Text<'a>(pub(crate) &'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stamps() {
        let mut stamp = Stamp::default();
        let mut out = Vec::new();
        for us in [0, 1_700_000_000_123_456, 1_700_000_000_000_007, -1] {
            stamp.write(&mut out, us);
            out.push(b' ');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000000Z 2023-11-14T22:13:20.123456Z 2023-11-14T22:13:20.000007Z 1969-12-31T23:59:59.999999Z "
        );
    }

    proptest! {
        #[test]
        fn strings_read_back(value in "\\PC*|[\u{0}-\u{7f}]*") {
            let mut out = Vec::new();
            string(&mut out, &value);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), value);
        }

        #[test]
        fn addresses_are_written_as_usual(bits: u128, v4: u32) {
            for a in [IpAddr::from(bits.to_be_bytes()), IpAddr::from(v4.to_be_bytes())] {
                let mut out = Vec::new();
                address(&mut out, a);
                prop_assert_eq!(String::from_utf8(out).unwrap(), a.to_string());
            }
        }
    }
}
