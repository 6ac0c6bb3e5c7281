//! The deadline that a client sets: ours in milliseconds, or gRPC's (GW-27).

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, StatusCode};

use super::refusal::Refusal;

pub(super) const DEADLINE: HeaderName = HeaderName::from_static("x-portico-deadline-ms");
pub(super) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The moment by which the client wants its answer (GW-27).
pub(super) fn deadline(headers: &HeaderMap, begun: Instant) -> Result<Option<Instant>, Refusal> {
    let ms = headers
        .get(DEADLINE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse::<u64>().ok());
    let grpc = headers
        .get(GRPC_TIMEOUT)
        .and_then(|v| v.to_str().ok())
        .and_then(grpc_timeout);
    let Some(left) = ms.map(Duration::from_millis).into_iter().chain(grpc).min() else {
        return Ok(None);
    };
    if left.is_zero() {
        return Err(Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "gateway.deadline_exceeded",
            "the request's deadline has passed",
        ));
    }
    Ok(begun.checked_add(left))
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2).
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = (1..=8)
        .contains(&digits.len())
        .then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn deadlines_are_read() {
        for (text, wanted) in [
            ("100m", Some(100)),
            ("2S", Some(2_000)),
            ("1H", Some(3_600_000)),
            ("1x", None),
            ("123456789m", None),
            ("S", None),
            ("", None),
        ] {
            assert_eq!(
                grpc_timeout(text),
                wanted.map(Duration::from_millis),
                "{text}"
            );
        }
        let now = Instant::now();
        let with = |value| HeaderMap::from_iter([(DEADLINE, HeaderValue::from_static(value))]);
        assert_eq!(
            deadline(&with("250"), now).unwrap(),
            Some(now + Duration::from_millis(250))
        );
        assert_eq!(
            deadline(&with("0"), now).unwrap_err().code,
            "gateway.deadline_exceeded"
        );
        assert_eq!(deadline(&with("soon"), now).unwrap(), None);
    }
}
