//! Durations in Go's syntax (`1m30s`, `500ms`), read and written as Consul does (C§1).

use std::time::Duration;

/// Units with their nanoseconds, longer names first where one begins with the other.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration in nanoseconds.
///
/// # Errors
/// Go's own sentence.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        let after = &rest[whole..];
        let fraction = after.strip_prefix('.').map_or("", |f| &f[..digits(f)]);
        let used = whole
            + if after.starts_with('.') {
                1 + fraction.len()
            } else {
                0
            };
        if whole == 0 && fraction.is_empty() {
            return Err(invalid());
        }
        let number: u64 = if whole == 0 {
            0
        } else {
            rest[..whole].parse().map_err(|_| invalid())?
        };
        let tail = &rest[used..];
        let end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let name = &tail[..end];
        if name.is_empty() {
            return Err(format!("time: missing unit in duration {}", quoted(text)));
        }
        let unit = UNITS
            .iter()
            .find(|(unit, _)| *unit == name)
            .map(|(_, ns)| *ns);
        let unit = unit.ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                quoted(name),
                quoted(text)
            )
        })?;
        let part = number
            .checked_mul(unit)
            .and_then(|ns| ns.checked_add(part_of(fraction, unit)))
            .and_then(|ns| i64::try_from(ns).ok())
            .ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = &tail[end..];
    }
    Ok(if negative { -total } else { total })
}

/// A duration that is not negative, for waiting.
pub(crate) fn parse_wait(text: &str) -> Option<Duration> {
    parse(text)
        .ok()
        .and_then(|ns| u64::try_from(ns).ok())
        .map(Duration::from_nanos)
}

/// Go's text of a duration: `1m30s`, `500ms`, `0s`.
pub(crate) fn format(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let total = ns.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, name) = match total {
            1_000_000.. => (1_000_000, "ms"),
            1_000.. => (1_000, "µs"),
            _ => (1, "ns"),
        };
        return format!("{sign}{}{name}", decimal(total, unit));
    }
    let hours = total / 3_600_000_000_000;
    let minutes = total / 60_000_000_000 % 60;
    let seconds = decimal(total % 60_000_000_000, 1_000_000_000);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

fn decimal(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Nanoseconds of the digits behind the point.
fn part_of(fraction: &str, unit: u64) -> u64 {
    let mut scale = unit;
    let mut out = 0_u64;
    let mut left = 0_u64;
    for digit in fraction.bytes() {
        // What does not fit whole nanoseconds goes on to the next digit's place.
        left = left * 10 + u64::from(digit - b'0') * (scale % 10);
        scale /= 10;
        out += u64::from(digit - b'0') * scale;
        if scale == 0 {
            break;
        }
    }
    out + left / 10
}

/// Go's `%q` of a short text.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_as_go_does() {
        for (text, ns) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            ("-1s", -1_000_000_000),
            ("+5s", 5_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("2us", 2_000),
            ("2µs", 2_000),
            ("1h0m1s", 3_601_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(ns), "{text}");
        }
        for (text, error) in [
            ("zz", "time: invalid duration \"zz\""),
            ("", "time: invalid duration \"\""),
            ("10", "time: missing unit in duration \"10\""),
            ("3x", "time: unknown unit \"x\" in duration \"3x\""),
            ("10000000000h", "time: invalid duration \"10000000000h\""),
            (".s", "time: invalid duration \".s\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn writes_as_go_does() {
        for (ns, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (90_000_000_000, "1m30s"),
            (86_400_000_000_000, "24h0m0s"),
            (1_500_000_000, "1.5s"),
            (-60_000_000_000, "-1m0s"),
        ] {
            assert_eq!(format(ns), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(ns in any::<i64>()) {
            // Go has the same hole: the smallest number has no positive twin.
            prop_assume!(ns != i64::MIN);
            prop_assert_eq!(parse(&format(ns)), Ok(ns));
        }

        #[test]
        fn nothing_panics(text in "[-+0-9.a-zµ]{0,30}|\\PC{0,20}") {
            let _ = parse(&text);
        }
    }
}
