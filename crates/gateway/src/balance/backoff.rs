//! How long a retry waits: exponential with full jitter (GW-37), and what `Retry-After` asks for.

use std::time::Duration;

use http::HeaderValue;

use super::Dice;

const LONGEST_MS: u64 = 250;

/// The wait before the retry after `failed` attempts: anything up to `base × 2ⁿ`, at most 250 ms.
#[must_use]
pub fn pause(failed: u32, base_ms: u32, dice: &Dice) -> Duration {
    let most = u64::from(base_ms)
        .saturating_mul(1 << failed.saturating_sub(1).min(16))
        .min(LONGEST_MS);
    Duration::from_millis((dice.unit() * (most + 1) as f64) as u64)
}

/// What an instance asks for, in milliseconds: seconds or a date (RFC 9110 §10.2.3).
#[must_use]
pub fn retry_after_ms(value: &HeaderValue, now_unix_s: i64) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let then = httpdate::parse_http_date(text)
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?
        .as_secs();
    let wait = i64::try_from(then).ok()?.saturating_sub(now_unix_s).max(0);
    Some(u64::try_from(wait).unwrap_or(0) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_full_jitter_and_are_bounded() {
        let dice = Dice::new(3);
        let longest = |failed| {
            (0..2_000)
                .map(|_| pause(failed, 25, &dice).as_millis())
                .max()
                .unwrap()
        };
        assert_eq!((longest(1), longest(2), longest(20)), (25, 50, 250));
        assert!(
            (0..2_000).any(|_| pause(3, 25, &dice).as_millis() < 10),
            "full jitter begins at zero"
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let header = |text| HeaderValue::from_static(text);
        assert_eq!(retry_after_ms(&header("2"), 0), Some(2_000));
        assert_eq!(
            retry_after_ms(&header("Thu, 01 Jan 1970 00:01:00 GMT"), 50),
            Some(10_000)
        );
        assert_eq!(
            retry_after_ms(&header("Thu, 01 Jan 1970 00:01:00 GMT"), 90),
            Some(0)
        );
        assert_eq!(retry_after_ms(&header("soon"), 0), None);
    }
}
