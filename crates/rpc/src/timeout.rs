//! The header `grpc-timeout` (gRPC over HTTP/2, "Timeout").

use std::time::Duration;

use http::HeaderMap;

/// The time that the client gives; nothing when it does not say, or not in the right form.
pub(crate) fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The header's value for a time; at most 8 digits, rounded up.
pub(crate) fn text(time: Duration) -> String {
    let us = time.as_micros();
    if us < 100_000_000 {
        return format!("{us}u");
    }
    let ms = time.as_millis();
    if ms < 100_000_000 {
        return format!("{ms}m");
    }
    format!("{}S", time.as_secs().min(99_999_999))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        parse(&headers)
    }

    #[test]
    fn all_units_and_nothing_else() {
        assert_eq!(of("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(of("3M"), Some(Duration::from_secs(180)));
        assert_eq!(of("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(of("10m"), Some(Duration::from_millis(10)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("5n"), Some(Duration::from_nanos(5)));
        for bad in ["", "S", "1", "-1S", "1.5S", "123456789S", "5x", "5ü", "+5S"] {
            let header = http::HeaderValue::from_bytes(bad.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", header);
            assert_eq!(parse(&headers), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for time in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_secs(30),
            Duration::from_secs(99_999),
            Duration::from_secs(10_000_000),
        ] {
            assert_eq!(of(&text(time)), Some(time));
        }
    }
}
