//! Validators: answering a caller's conditional request, asking the origin with our own, taking in a 304 or a HEAD.
//!
//! Sources: RFC 9110 §8.8 and §13, RFC 9111 §3.2 and §4.3.

use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use smallvec::SmallVec;

use super::directives::{date_ms, split_unquoted};

/// Request fields that the gateway must take off a request before it fetches on the cache's behalf.
pub const CONDITIONAL_FIELDS: [HeaderName; 6] = [
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_MATCH,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    RANGE,
];

/// Fields to put on a request so that the origin may say "not modified".
pub type Validators = SmallVec<[(HeaderName, HeaderValue); 2]>;

/// The validators of a stored answer, as request fields: `ETag` before `Last-Modified`, both when both are there.
pub(super) fn validators(stored: &HeaderMap) -> Validators {
    let mut found = Validators::new();
    if let Some(tag) = stored.get(ETAG) {
        found.push((IF_NONE_MATCH, tag.clone()));
    }
    if let Some(modified) = stored.get(LAST_MODIFIED) {
        found.push((IF_MODIFIED_SINCE, modified.clone()));
    }
    found
}

/// Whether the caller's own copy is the stored one (RFC 9111 §4.3.2): `If-None-Match` decides when present.
/// `received_ms` stands in for `Last-Modified` and `Date` when the answer had neither.
pub(super) fn not_modified(request: &HeaderMap, stored: &HeaderMap, received_ms: u64) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        let tag = stored.get(ETAG).map(|t| opaque(t.as_bytes()));
        return request
            .get_all(IF_NONE_MATCH)
            .iter()
            .flat_map(|line| split_unquoted(line.as_bytes()))
            .any(|asked| {
                let asked = asked.trim_ascii();
                asked == b"*" || tag.is_some_and(|tag| tag == opaque(asked))
            });
    }
    let Some(since) = request
        .get(IF_MODIFIED_SINCE)
        .and_then(|v| date_ms(v.as_bytes()))
    else {
        return false;
    };
    let of = |name: HeaderName| stored.get(name).and_then(|v| date_ms(v.as_bytes()));
    of(LAST_MODIFIED)
        .or_else(|| of(DATE))
        .unwrap_or(received_ms)
        <= since
}

/// Whether a range may be cut out of the stored answer: `If-Range` must match strongly (RFC 9110 §13.1.5).
pub(super) fn range_applies(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(condition) = request.get(IF_RANGE) else {
        return true;
    };
    let condition = condition.as_bytes().trim_ascii();
    if condition.starts_with(b"\"") {
        return stored
            .get(ETAG)
            .is_some_and(|tag| tag.as_bytes().trim_ascii() == condition);
    }
    let (Some(asked), Some(modified)) = (
        date_ms(condition),
        stored
            .get(LAST_MODIFIED)
            .and_then(|v| date_ms(v.as_bytes())),
    ) else {
        return false;
    };
    // A date is a strong validator only when the answer was made at least a second later (RFC 9110 §8.8.2.2).
    let made = stored
        .get(DATE)
        .and_then(|v| date_ms(v.as_bytes()))
        .unwrap_or(0);
    asked == modified && made >= modified + 1000
}

/// Whether a 304 is about the stored answer: a strong tag that differs says that it is not (RFC 9111 §4.3.4).
pub(super) fn identifies(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    match (not_modified.get(ETAG), stored.get(ETAG)) {
        (Some(new), Some(old)) => opaque(new.as_bytes()) == opaque(old.as_bytes()),
        (Some(new), None) => is_weak(new.as_bytes()),
        (None, _) => true,
    }
}

/// Puts a 304's fields over the stored ones, except those that describe the stored bytes.
pub(super) fn freshen(stored: &HeaderMap, news: &HeaderMap, keep_set_cookie: bool) -> HeaderMap {
    let mut merged = stored.clone();
    let news = storable_fields(news, &[], keep_set_cookie);
    for name in news.keys() {
        if fixed_by_body(name) {
            continue;
        }
        merged.remove(name);
        for value in news.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    merged
}

/// The fields of an answer that may be stored (RFC 9111 §3.1): no connection fields, none that `Connection` or a
/// qualified `no-cache` names.
pub(super) fn storable_fields(
    headers: &HeaderMap,
    withheld: &[HeaderName],
    keep_set_cookie: bool,
) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.keys_len() + 2);
    let named: SmallVec<[&[u8]; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    for (name, value) in headers {
        let dropped = hop_by_hop(name)
            || withheld.contains(name)
            || named
                .iter()
                .any(|n| n.eq_ignore_ascii_case(name.as_str().as_bytes()))
            || (*name == SET_COOKIE && !keep_set_cookie);
        if !dropped {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn hop_by_hop(name: &HeaderName) -> bool {
    const KNOWN: [HeaderName; 7] = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    KNOWN.contains(name)
        || matches!(
            name.as_str(),
            "keep-alive"
                | "proxy-connection"
                | "proxy-authentication-info"
                | "age"
                | "x-cache"
                | "cache-tag"
        )
}

fn fixed_by_body(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE].contains(name)
        || matches!(
            name.as_str(),
            "content-md5" | "content-digest" | "repr-digest" | "digest"
        )
}

fn is_weak(tag: &[u8]) -> bool {
    tag.trim_ascii().starts_with(b"W/") || tag.trim_ascii().starts_with(b"w/")
}

/// A tag for weak comparison: without its weakness mark. Tags without quotes are compared as they are.
fn opaque(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    if is_weak(tag) { &tag[2..] } else { tag }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        map
    }

    const EARLY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATE: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    #[test]
    fn if_none_match() {
        let stored = map(&[("etag", "\"abc\""), ("last-modified", LATE)]);
        for (asked, same) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\", \"y\"", true),
            ("\"x,\", \"abc\"", true),
            ("*", true),
            ("\"abd\"", false),
            ("abc", false),
            ("", false),
        ] {
            assert_eq!(
                not_modified(&map(&[("if-none-match", asked)]), &stored, 0),
                same,
                "{asked}"
            );
        }
        let both = map(&[("if-none-match", "\"other\""), ("if-modified-since", LATE)]);
        assert!(!not_modified(&both, &stored, 0), "the tag takes precedence");
        assert!(!not_modified(
            &map(&[("if-none-match", "\"abc\"")]),
            &map(&[]),
            0
        ));
    }

    #[test]
    fn if_modified_since() {
        let stored = map(&[("last-modified", EARLY), ("date", LATE)]);
        assert!(not_modified(
            &map(&[("if-modified-since", EARLY)]),
            &stored,
            0
        ));
        assert!(not_modified(
            &map(&[("if-modified-since", LATE)]),
            &stored,
            0
        ));
        assert!(not_modified(
            &map(&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")]),
            &stored,
            0
        ));
        assert!(!not_modified(
            &map(&[("if-modified-since", EARLY)]),
            &map(&[("date", LATE)]),
            0
        ));
        assert!(not_modified(
            &map(&[("if-modified-since", LATE)]),
            &map(&[("date", LATE)]),
            0
        ));
        assert!(!not_modified(
            &map(&[("if-modified-since", "yesterday")]),
            &stored,
            0
        ));
        assert!(!not_modified(&map(&[]), &stored, 0));
    }

    #[test]
    fn if_range_is_strong() {
        let stored = map(&[
            ("etag", "\"abc\""),
            ("last-modified", EARLY),
            ("date", LATE),
        ]);
        for (asked, applies) in [
            ("\"abc\"", true),
            ("W/\"abc\"", false),
            ("\"x\"", false),
            (EARLY, true),
            (LATE, false),
        ] {
            assert_eq!(
                range_applies(&map(&[("if-range", asked)]), &stored),
                applies,
                "{asked}"
            );
        }
        assert!(range_applies(&map(&[]), &stored));
        let weak = map(&[("etag", "W/\"abc\"")]);
        assert!(!range_applies(&map(&[("if-range", "W/\"abc\"")]), &weak));
        let instant = map(&[("last-modified", EARLY), ("date", EARLY)]);
        assert!(
            !range_applies(&map(&[("if-range", EARLY)]), &instant),
            "could have changed in the same second"
        );
    }

    #[test]
    fn asking_the_origin() {
        let asked = validators(&map(&[("etag", "W/\"a\""), ("last-modified", EARLY)]));
        assert_eq!(
            asked[0],
            (IF_NONE_MATCH, HeaderValue::from_static("W/\"a\""))
        );
        assert_eq!(asked[1].0, IF_MODIFIED_SINCE);
        assert!(validators(&map(&[("x", "y")])).is_empty());
    }

    #[test]
    fn a_304_updates_what_it_may() {
        let stored = map(&[
            ("etag", "\"a\""),
            ("content-length", "5"),
            ("content-encoding", "gzip"),
            ("content-range", "x"),
            ("content-md5", "x"),
            ("x-old", "1"),
            ("x-both", "1"),
            ("content-type", "text/plain"),
        ]);
        let news = map(&[
            ("content-length", "10"),
            ("content-encoding", "br"),
            ("content-range", "y"),
            ("content-md5", "y"),
            ("x-both", "2"),
            ("x-both", "3"),
            ("x-new", "4"),
            ("content-type", "text/html"),
            ("connection", "x-hop"),
            ("x-hop", "5"),
            ("keep-alive", "6"),
            ("set-cookie", "a=b"),
        ]);
        let merged = freshen(&stored, &news, false);
        let all = |name: &str| {
            merged
                .get_all(name)
                .iter()
                .map(|v| v.to_str().expect("text"))
                .collect::<Vec<_>>()
        };
        assert_eq!(all("content-length"), ["5"]);
        assert_eq!(all("content-encoding"), ["gzip"]);
        assert_eq!(all("content-range"), ["x"]);
        assert_eq!(all("content-md5"), ["x"]);
        assert_eq!(all("x-old"), ["1"]);
        assert_eq!(all("x-both"), ["2", "3"]);
        assert_eq!(all("x-new"), ["4"]);
        assert_eq!(all("content-type"), ["text/html"]);
        for gone in ["x-hop", "keep-alive", "connection", "set-cookie"] {
            assert!(!merged.contains_key(gone), "{gone}");
        }
        assert!(identifies(&stored, &map(&[("etag", "\"a\"")])));
        assert!(identifies(&stored, &map(&[])));
        assert!(!identifies(&stored, &map(&[("etag", "\"b\"")])));
    }

    #[test]
    fn stored_fields() {
        let kept = storable_fields(
            &map(&[
                ("connection", "a, B"),
                ("a", "1"),
                ("b", "2"),
                ("c", "3"),
                ("d", "4"),
                ("te", "x"),
                ("upgrade", "y"),
            ]),
            &[HeaderName::from_static("d")],
            false,
        );
        assert_eq!(
            kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["c"]
        );
    }
}
