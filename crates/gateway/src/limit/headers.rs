//! What clients are told of limits: `RateLimit`, `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers) and `X-RateLimit-*`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Refused, Tightest};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Puts a limit's state into an answer.
pub fn write(headers: &mut HeaderMap, tightest: &Tightest) {
    let state = format!(
        "\"{}\";r={};t={}",
        tightest.name, tightest.remaining, tightest.reset_s
    );
    if let Ok(state) = HeaderValue::try_from(state) {
        headers.insert(RATELIMIT, state);
    }
    headers.insert(POLICY, tightest.policy.clone());
    headers.insert(X_LIMIT, HeaderValue::from(tightest.limit));
    headers.insert(X_REMAINING, HeaderValue::from(tightest.remaining));
    headers.insert(X_RESET, HeaderValue::from(tightest.reset_s));
}

/// The same for a refusal.
pub fn write_refused(headers: &mut HeaderMap, refused: &Refused) {
    write(headers, &refused.tightest);
    headers.insert(
        header::RETRY_AFTER,
        HeaderValue::from(refused.retry_after_s),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_agree() {
        let tightest = Tightest {
            policy: HeaderValue::from_static("\"a\";q=5;w=1"),
            name: "a".into(),
            limit: 5,
            remaining: 0,
            reset_s: 2,
        };
        let mut headers = HeaderMap::new();
        write_refused(
            &mut headers,
            &Refused {
                tightest,
                retry_after_s: 1,
                dimension: "user",
            },
        );
        let got = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(got("ratelimit"), "\"a\";r=0;t=2");
        assert_eq!(
            [
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "retry-after"
            ]
            .map(got),
            ["5", "0", "2", "1"]
        );
    }
}
