//! An answer out of the cache for one caller: whole, without body, a part, or "not modified"; and the fields that
//! tell what the cache did (`Age`, `X-Cache`, `Cache-Status` of RFC 9211).

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AGE, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::conditional;
use super::facts::Facts;
use super::key::RequestView;
use super::object::{Stored, bodiless};
use super::policy::{Refusal, age_ms};
use super::range::{self, Wanted};
use super::stats::Outcome;

pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Read for purging, not for clients.
pub const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// Value of `X-Cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    L1,
    L2,
    Stale,
    Miss,
    Bypass,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::Stale => "STALE",
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
        }
    }
}

/// A stored answer, cut to the request.
#[derive(Clone, Debug)]
pub struct Answer {
    object: Arc<Stored>,
    form: Form,
    outcome: Outcome,
    age_s: u64,
    ttl_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    /// The fields of the whole without its body.
    Head,
    NotModified,
    Part {
        start: usize,
        end: usize,
    },
    Unsatisfiable,
}

impl Answer {
    /// Cuts an object to a request at `now`. Preconditions come before ranges (RFC 9110 §13.2.2).
    pub(super) fn new(
        object: Arc<Stored>,
        view: &RequestView<'_>,
        facts: Facts,
        outcome: Outcome,
        now_ms: u64,
    ) -> Self {
        let age = age_ms(&object.terms, now_ms);
        let ttl_s = signed(object.terms.fresh_ms / 1000) - signed(age / 1000);
        let form = Form::of(&object, view, facts);
        Self {
            form,
            outcome,
            age_s: age / 1000,
            ttl_s,
            object,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self.form {
            Form::Whole | Form::Head => self.object.status,
            Form::NotModified => StatusCode::NOT_MODIFIED,
            Form::Part { .. } => StatusCode::PARTIAL_CONTENT,
            Form::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    /// The body to send; shares the stored bytes.
    pub fn body(&self) -> Bytes {
        match self.form {
            Form::Whole => self.object.body.clone(),
            Form::Part { start, end } => self.object.body.slice(start..end),
            Form::Head | Form::NotModified | Form::Unsatisfiable => Bytes::new(),
        }
    }

    /// How the request met the cache, for the route's counters.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Value of `X-Cache`.
    pub fn level(&self) -> Level {
        match self.outcome {
            Outcome::HitL2 => Level::L2,
            Outcome::Stale | Outcome::StaleError => Level::Stale,
            _ => Level::L1,
        }
    }

    /// The object behind the answer.
    pub fn object(&self) -> &Arc<Stored> {
        &self.object
    }

    /// All fields of the answer. `key` is shown in `Cache-Status` and must be given for administrators only.
    pub fn headers(&self, key: Option<&str>) -> HeaderMap {
        let mut headers = match self.form {
            Form::Whole | Form::Head => self.object.headers.clone(),
            Form::NotModified | Form::Unsatisfiable => self.without_content(),
            Form::Part { start, end } => {
                let mut headers = self.object.headers.clone();
                headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
                if let Ok(range) = HeaderValue::from_str(&self.content_range(start, end)) {
                    headers.insert(CONTENT_RANGE, range);
                }
                headers
            }
        };
        if self.form == Form::Unsatisfiable {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{}", self.object.body.len()))
            {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        headers.insert(AGE, HeaderValue::from(self.age_s));
        headers.insert(X_CACHE, HeaderValue::from_static(self.level().as_str()));
        if let Ok(status) = HeaderValue::from_str(&self.cache_status(key)) {
            headers.append(CACHE_STATUS, status);
        }
        headers
    }

    /// The same fields as lines of HTTP/1.1, without status line and without the empty line; `date` and
    /// `content-length` are among them and must not be added again. Copies the stored
    /// text and adds three lines; nothing is allocated when `out` has room.
    pub fn write_fields(&self, out: &mut BytesMut) {
        if !matches!(self.form, Form::Whole | Form::Head) {
            for (name, value) in &self.headers(None) {
                out.put_slice(name.as_str().as_bytes());
                out.put_slice(b": ");
                out.put_slice(value.as_bytes());
                out.put_slice(b"\r\n");
            }
            return;
        }
        out.put_slice(&self.object.wire);
        out.put_slice(b"age: ");
        out.put_slice(itoa::Buffer::new().format(self.age_s).as_bytes());
        out.put_slice(b"\r\nx-cache: ");
        out.put_slice(self.level().as_str().as_bytes());
        out.put_slice(b"\r\ncache-status: ");
        self.put_cache_status(out);
        out.put_slice(b"\r\n");
    }

    fn cache_status(&self, key: Option<&str>) -> String {
        let mut out = BytesMut::with_capacity(64);
        self.put_cache_status(&mut out);
        let mut text = String::from_utf8_lossy(&out).into_owned();
        if let Some(key) = key {
            text.push_str("; key=");
            text.push_str(&quoted(key));
        }
        text
    }

    fn put_cache_status(&self, out: &mut BytesMut) {
        out.put_slice(match self.outcome {
            Outcome::StaleError => b"portico; fwd=stale; ttl=".as_slice(),
            Outcome::Revalidated => b"portico; fwd=stale; fwd-status=304; ttl=",
            Outcome::Collapsed => b"portico; fwd=uri-miss; collapsed; ttl=",
            _ => b"portico; hit; ttl=",
        });
        out.put_slice(itoa::Buffer::new().format(self.ttl_s).as_bytes());
    }

    fn content_range(&self, start: usize, end: usize) -> String {
        format!("bytes {start}-{}/{}", end - 1, self.object.body.len())
    }

    /// A 304 or 416 has no content: fields about the content would describe nothing (RFC 9110 §15.4.5).
    fn without_content(&self) -> HeaderMap {
        let mut headers = self.object.headers.clone();
        for name in [
            "content-type",
            "content-length",
            "content-encoding",
            "content-language",
            "content-range",
        ] {
            headers.remove(name);
        }
        headers
    }
}

impl Form {
    fn of(object: &Stored, view: &RequestView<'_>, facts: Facts) -> Self {
        let head = *view.method == Method::HEAD;
        if facts.plain() {
            return if head { Self::Head } else { Self::Whole };
        }
        let request = view.headers;
        let plain = object.status == StatusCode::OK;
        let success = object.status.is_success();
        if success && conditional::not_modified(request, &object.headers, object.loaded_ms) {
            return Self::NotModified;
        }
        if head {
            return Self::Head;
        }
        if plain && !bodiless(object.status) && conditional::range_applies(request, &object.headers)
        {
            match range::wanted(request, object.body.len()) {
                Wanted::Whole => {}
                Wanted::Part { start, end } => return Self::Part { start, end },
                Wanted::Unsatisfiable => return Self::Unsatisfiable,
            }
        }
        Self::Whole
    }
}

/// Marks an answer that comes from the origin: `X-Cache`, `Cache-Status`, and `Cache-Tag` taken off.
pub fn mark_forwarded(headers: &mut HeaderMap, forwarded: Forwarded, key: Option<&str>) {
    headers.remove(CACHE_TAG);
    headers.insert(
        X_CACHE,
        HeaderValue::from_static(forwarded.level().as_str()),
    );
    let mut text = format!("portico; fwd={}", forwarded.reason());
    if forwarded == Forwarded::Stored {
        text.push_str("; stored");
    }
    if let Forwarded::Refused(refusal) | Forwarded::Bypassed(refusal) = forwarded {
        text.push_str("; detail=");
        text.push_str(refusal.as_str());
    }
    if let Some(key) = key {
        text.push_str("; key=");
        text.push_str(&quoted(key));
    }
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.append(CACHE_STATUS, value);
    }
}

/// Why an answer came from the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// A miss that is being stored.
    Stored,
    /// A miss whose answer may not be stored.
    Refused(Refusal),
    /// The cache was not asked.
    Bypassed(Refusal),
}

impl Forwarded {
    pub fn level(self) -> Level {
        match self {
            Self::Stored | Self::Refused(_) => Level::Miss,
            Self::Bypassed(_) => Level::Bypass,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Stored | Self::Refused(_) => "uri-miss",
            Self::Bypassed(Refusal::Method) => "method",
            Self::Bypassed(Refusal::RequestNoStore | Refusal::Precondition | Refusal::Body) => {
                "request"
            }
            Self::Bypassed(Refusal::RangeMiss) => "partial",
            Self::Bypassed(_) => "bypass",
        }
    }
}

/// An sf-string (RFC 9651 §3.3.3); bytes that it cannot hold become `?`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars().take(1024) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::tests::view;
    use crate::cache::object::tests::{minute, object};

    const NOW: u64 = 1_005_500;

    fn ask(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    fn answer(lines: &[(&'static str, &'static str)]) -> Answer {
        let headers = ask(lines);
        Answer::new(
            Arc::new(object(b"k", minute(), b"0123456789")),
            &view(&headers),
            Facts::of(&headers),
            Outcome::HitL1,
            NOW,
        )
    }

    #[test]
    fn a_hit_tells_its_age() {
        let hit = answer(&[]);
        let headers = hit.headers(None);
        assert_eq!(
            (hit.status(), &hit.body()[..]),
            (StatusCode::OK, b"0123456789".as_slice())
        );
        assert_eq!(headers["age"], "5");
        assert_eq!(headers["x-cache"], "L1");
        assert_eq!(headers["cache-status"], "portico; hit; ttl=55");
        assert_eq!(headers["content-length"], "10");
        let shown = hit.headers(Some("https://h/\"p\" ü"));
        assert_eq!(
            shown["cache-status"],
            "portico; hit; ttl=55; key=\"https://h/\\\"p\\\" ?\""
        );
    }

    #[test]
    fn the_wire_form_says_the_same() {
        for lines in [
            vec![],
            vec![("range", "bytes=2-3")],
            vec![("if-none-match", "\"1\"")],
        ] {
            let hit = answer(&lines);
            let mut out = BytesMut::new();
            hit.write_fields(&mut out);
            let mut from_wire: Vec<_> = out[..]
                .split(|b| *b == b'\n')
                .filter(|l| !l.is_empty())
                .map(|l| String::from_utf8_lossy(l.trim_ascii_end()).into_owned())
                .collect();
            let mut from_map: Vec<_> = hit
                .headers(None)
                .iter()
                .map(|(n, v)| {
                    format!("{n}: {}", String::from_utf8_lossy(v.as_bytes()))
                        .trim_end()
                        .to_owned()
                })
                .collect();
            from_wire.sort();
            from_map.sort();
            assert_eq!(from_wire, from_map);
        }
    }

    #[test]
    fn parts_of_the_whole() {
        let part = answer(&[("range", "bytes=2-4")]);
        assert_eq!(
            (part.status(), &part.body()[..]),
            (StatusCode::PARTIAL_CONTENT, b"234".as_slice())
        );
        assert_eq!(part.headers(None)["content-range"], "bytes 2-4/10");
        assert_eq!(part.headers(None)["content-length"], "3");
        let off = answer(&[("range", "bytes=50-")]);
        assert_eq!(off.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(off.headers(None)["content-range"], "bytes */10");
        assert!(off.body().is_empty());
        let changed = answer(&[("range", "bytes=2-4"), ("if-range", "\"2\"")]);
        assert_eq!(changed.status(), StatusCode::OK);
    }

    #[test]
    fn not_modified_has_no_content_but_its_tag() {
        let same = answer(&[("if-none-match", "\"1\""), ("range", "bytes=0-1")]);
        let headers = same.headers(None);
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert!(same.body().is_empty() && !headers.contains_key("content-length"));
        assert_eq!(headers["etag"], "\"1\"");
        assert_eq!(headers["x"], "a");
    }

    #[test]
    fn head_is_the_whole_without_body() {
        let none = HeaderMap::new();
        let asked = RequestView {
            method: &Method::HEAD,
            ..view(&none)
        };
        let head = Answer::new(
            Arc::new(object(b"k", minute(), b"0123456789")),
            &asked,
            Facts::default(),
            Outcome::HitL1,
            NOW,
        );
        assert!(head.body().is_empty());
        assert_eq!(head.headers(None)["content-length"], "10");
    }

    #[test]
    fn stale_and_forwarded_answers_say_so() {
        let none = HeaderMap::new();
        for (outcome, status) in [
            (Outcome::StaleError, "portico; fwd=stale; ttl=-10"),
            (Outcome::Stale, "portico; hit; ttl=-10"),
        ] {
            let stale = Answer::new(
                Arc::new(object(b"k", minute(), b"x")),
                &view(&none),
                Facts::default(),
                outcome,
                1_070_000,
            );
            assert_eq!(stale.headers(None)["x-cache"], "STALE");
            assert_eq!(stale.headers(None)["cache-status"], status);
        }
        for (forwarded, cache, status) in [
            (Forwarded::Stored, "MISS", "portico; fwd=uri-miss; stored"),
            (
                Forwarded::Refused(Refusal::NoStore),
                "MISS",
                "portico; fwd=uri-miss; detail=no_store",
            ),
            (
                Forwarded::Bypassed(Refusal::Method),
                "BYPASS",
                "portico; fwd=method; detail=method",
            ),
            (
                Forwarded::Bypassed(Refusal::Off),
                "BYPASS",
                "portico; fwd=bypass; detail=off",
            ),
        ] {
            let mut headers = ask(&[("cache-tag", "a"), ("cache-status", "origin; hit")]);
            mark_forwarded(&mut headers, forwarded, None);
            assert_eq!(headers["x-cache"], cache);
            let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
            assert_eq!(all, ["origin; hit", status], "nearest to the origin first");
            assert!(!headers.contains_key(CACHE_TAG));
        }
    }
}
