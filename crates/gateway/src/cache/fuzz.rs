//! Fuzz targets of the cache's fields: plain functions over any bytes.

use http::header::{AGE, CACHE_CONTROL, PRAGMA, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directives::{RequestDirectives, ResponseDirectives, age_of, date_ms};
use super::range::{Wanted, wanted};

/// Reads `bytes` as lines of `Cache-Control`; how they are spread over lines must not matter to a caller's
/// directives.
///
/// # Panics
/// When it does: that is the finding.
pub fn fuzz_cache_control(bytes: &[u8]) {
    let fields = |name: &HeaderName, lines: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(name, value);
            }
        }
        headers
    };
    let lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').take(8).collect();
    for name in [
        &CACHE_CONTROL,
        &PRAGMA,
        &HeaderName::from_static("cdn-cache-control"),
    ] {
        let found = ResponseDirectives::of(&fields(name, &lines));
        assert!(found.withheld.len() <= bytes.len());
    }
    let spread = fields(&CACHE_CONTROL, &lines);
    // A quote that is left open would swallow the next line.
    if !bytes.contains(&b'"') && !bytes.contains(&b'\\') {
        let all: Vec<&[u8]> = spread.values().map(HeaderValue::as_bytes).collect();
        let together = all.join(&b", "[..]);
        let one: &[&[u8]] = if all.is_empty() { &[] } else { &[&together] };
        let (many, one) = (
            RequestDirectives::of(&spread),
            RequestDirectives::of(&fields(&CACHE_CONTROL, one)),
        );
        assert_eq!(many, one);
    }
    let _age = age_of(&fields(&AGE, &lines));
    let _date = date_ms(bytes);
}

/// Reads `bytes` as a `Range` of a body of `length` bytes; a part lies within the body.
///
/// # Panics
/// When it does not: that is the finding.
pub fn fuzz_range(bytes: &[u8], length: usize) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        headers.insert(RANGE, value);
    }
    if let Wanted::Part { start, end } = wanted(&headers, length) {
        assert!(start < end && end <= length, "{start}..{end} of {length}");
    }
}
