//! A stored answer: its fields once as a map and once as text for the wire, its body, its terms; and its form for
//! the shared tier.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::key::VaryRule;
use super::policy::{Terms, age_ms};
use super::purge::{Ledger, Standing, Subject};

/// Fixed cost of an entry beyond what its buffers hold.
const OVERHEAD: usize = 512;
/// Clocks of replicas agree this well; orders within it count as later.
const SKEW_MS: u64 = 1000;
/// First bytes of a record in the shared tier; changes when the form does.
const MAGIC: &[u8; 4] = b"PGC1";

/// An answer as it is kept. Cloning the `Arc` around it is all that a hit costs.
#[derive(Debug)]
pub struct Stored {
    /// The whole key, selecting values included; its first `primary_len` bytes are the primary key.
    pub key: Box<[u8]>,
    primary_len: usize,
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `name: value\r\n` for each field of `headers`.
    pub wire: Bytes,
    pub body: Bytes,
    pub terms: Terms,
    pub vary: VaryRule,
    pub subject: Subject,
    /// When the fetch began and when it was put into this process's memory, Unix milliseconds.
    pub fetched_ms: u64,
    pub loaded_ms: u64,
    from_shared: bool,
    checked_epoch: AtomicU64,
    stale_since: AtomicU64,
    hits: AtomicU32,
}

/// What a look-up may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// For so many milliseconds more.
    Fresh(u64),
    /// For so many milliseconds already; the flags say what the terms allow.
    Stale {
        for_ms: u64,
        while_revalidate: bool,
        if_error: bool,
    },
    Gone,
}

/// The parts of an object that exist before it is sealed.
pub(super) struct Draft {
    pub key: Box<[u8]>,
    pub primary_len: usize,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub terms: Terms,
    pub vary: VaryRule,
    pub subject: Subject,
    pub fetched_ms: u64,
    pub answered_ms: u64,
}

impl Draft {
    /// Completes the object with its body: gives it `Date` and the true `Content-Length`.
    pub(super) fn seal(mut self, body: Bytes) -> Stored {
        if !self.headers.contains_key(DATE) {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.answered_ms);
            if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(at)) {
                self.headers.insert(DATE, date);
            }
        }
        if bodiless(self.status) {
            self.headers.remove(CONTENT_LENGTH);
        } else {
            self.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Stored {
            wire: wire(&self.headers),
            primary_len: self.primary_len.min(self.key.len()),
            key: self.key,
            status: self.status,
            headers: self.headers,
            body,
            terms: self.terms,
            vary: self.vary,
            subject: self.subject,
            fetched_ms: self.fetched_ms,
            loaded_ms: self.answered_ms,
            from_shared: false,
            checked_epoch: AtomicU64::new(0),
            stale_since: AtomicU64::new(0),
            hits: AtomicU32::new(0),
        }
    }
}

impl Stored {
    /// The key of the resource, whatever the variant.
    pub fn primary(&self) -> &[u8] {
        &self.key[..self.primary_len]
    }

    /// What may be done with the object at `now`, with the purges so far.
    pub fn usable(&self, ledger: &Ledger, now_ms: u64) -> Use {
        let epoch = ledger.epoch();
        if self.checked_epoch.load(Ordering::Acquire) != epoch {
            let skew = if self.from_shared { SKEW_MS } else { 0 };
            match ledger.standing(&self.subject, self.fetched_ms, skew) {
                Standing::Gone => return Use::Gone,
                Standing::StaleSince(at) => self.stale_since.store(at.max(1), Ordering::Release),
                Standing::Live => {}
            }
            self.checked_epoch.store(epoch, Ordering::Release);
        }
        let purged = self.stale_since.load(Ordering::Acquire);
        // A clock that jumped back would make everything young again; ask instead.
        let jumped = now_ms.saturating_add(SKEW_MS) < self.fetched_ms;
        let terms = &self.terms;
        let age = age_ms(terms, now_ms);
        let mut stale_ms = age.saturating_sub(terms.fresh_ms);
        if purged != 0 {
            stale_ms = stale_ms.max(now_ms.saturating_sub(purged)).max(1);
        }
        if stale_ms == 0 && age < terms.fresh_ms && !terms.always_validate && !jumped {
            return Use::Fresh(terms.fresh_ms - age);
        }
        Use::Stale {
            for_ms: stale_ms,
            while_revalidate: !jumped
                && stale_ms < terms.stale_while_revalidate_ms
                && !terms.always_validate,
            if_error: !jumped && stale_ms < terms.stale_if_error_ms && !terms.always_validate,
        }
    }

    /// Milliseconds after which the object is of no use to anybody.
    pub fn useful_ms(&self) -> u64 {
        let terms = &self.terms;
        let stale = terms.stale_if_error_ms.max(terms.stale_while_revalidate_ms);
        // A validator saves the body's transfer for a while even when stale use is forbidden.
        let floor = if super::conditional::validators(&self.headers).is_empty() {
            0
        } else {
            300_000
        };
        terms.fresh_ms.saturating_add(stale.max(floor))
    }

    pub fn heap_bytes(&self) -> usize {
        // The field map holds about as much as the text made of it.
        self.key.len()
            + 2 * self.wire.len()
            + self.body.len()
            + self.subject.heap_bytes()
            + OVERHEAD
    }

    /// Counts a hit; the hottest objects are what a new replica loads first.
    pub fn touch(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn hits(&self) -> u32 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The record for the shared tier.
    pub fn encode(&self) -> Bytes {
        let facts = Facts {
            status: self.status.as_u16(),
            born_ms: self.terms.born_ms,
            fresh_ms: self.terms.fresh_ms,
            swr_ms: self.terms.stale_while_revalidate_ms,
            sie_ms: self.terms.stale_if_error_ms,
            always_validate: self.terms.always_validate,
            shareable: self.terms.shareable,
            declared: self.terms.declared,
            fetched_ms: self.fetched_ms,
            primary_len: self.primary_len,
            host: Cow::Borrowed(&self.subject.host),
            path: Cow::Borrowed(&self.subject.path),
            query: self.subject.query.as_deref().map(Cow::Borrowed),
            tenant: Cow::Borrowed(&self.subject.tenant),
            service: Cow::Borrowed(&self.subject.service),
            tags: Cow::Borrowed(&self.subject.tags),
            vary: self
                .vary
                .names()
                .iter()
                .map(|name| Cow::Borrowed(name.as_str()))
                .collect(),
        };
        let facts = serde_json::to_vec(&facts).unwrap_or_default();
        let mut out = BytesMut::with_capacity(
            20 + facts.len() + self.key.len() + self.wire.len() + self.body.len(),
        );
        out.put_slice(MAGIC);
        for section in [&facts[..], &self.key, &self.wire, &self.body] {
            out.put_u32_le(u32::try_from(section.len()).unwrap_or(u32::MAX));
            out.put_slice(section);
        }
        out.freeze()
    }

    /// Reads a record; `None` when it is not one, is cut short, or belongs to another key.
    pub fn decode(record: &Bytes, key: &[u8], now_ms: u64) -> Option<Self> {
        let mut rest = record.clone();
        if rest.len() < 4 || rest.split_to(4) != MAGIC.as_slice() {
            return None;
        }
        let mut section = || -> Option<Bytes> {
            let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
            if rest.len() - 4 < length {
                return None;
            }
            let _ = rest.split_to(4);
            Some(rest.split_to(length))
        };
        let (facts, stored_key, wire, body) = (section()?, section()?, section()?, section()?);
        if !rest.is_empty() || stored_key != key {
            return None;
        }
        let facts: Facts<'_> = serde_json::from_slice(&facts).ok()?;
        let vary = facts
            .vary
            .iter()
            .map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .collect::<Option<_>>()?;
        Some(Self {
            key: key.into(),
            primary_len: facts.primary_len.min(key.len()),
            status: StatusCode::from_u16(facts.status).ok()?,
            headers: unwire(&wire)?,
            wire,
            body,
            terms: Terms {
                born_ms: facts.born_ms,
                fresh_ms: facts.fresh_ms,
                stale_while_revalidate_ms: facts.swr_ms,
                stale_if_error_ms: facts.sie_ms,
                always_validate: facts.always_validate,
                shareable: facts.shareable,
                declared: facts.declared,
            },
            vary: VaryRule::from_names(vary).ok()?,
            subject: Subject::new(
                &facts.host,
                &facts.path,
                facts.query.as_deref(),
                &facts.tenant,
                &facts.service,
                facts.tags.into_owned(),
            ),
            fetched_ms: facts.fetched_ms,
            loaded_ms: now_ms,
            from_shared: true,
            checked_epoch: AtomicU64::new(0),
            stale_since: AtomicU64::new(0),
            hits: AtomicU32::new(0),
        })
    }
}

/// Status codes whose answers have no body (RFC 9110 §6.4.1).
pub(super) fn bodiless(status: StatusCode) -> bool {
    matches!(status.as_u16(), 204 | 205 | 304)
}

/// A replica of another build reads what it knows; unknown fields are ignored.
#[derive(Serialize, Deserialize)]
struct Facts<'a> {
    status: u16,
    born_ms: u64,
    fresh_ms: u64,
    swr_ms: u64,
    sie_ms: u64,
    always_validate: bool,
    shareable: bool,
    declared: bool,
    fetched_ms: u64,
    primary_len: usize,
    host: Cow<'a, str>,
    path: Cow<'a, str>,
    query: Option<Cow<'a, str>>,
    tenant: Cow<'a, str>,
    service: Cow<'a, str>,
    tags: Cow<'a, [String]>,
    vary: Vec<Cow<'a, str>>,
}

fn wire(headers: &HeaderMap) -> Bytes {
    let length = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let mut out = BytesMut::with_capacity(length);
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.freeze()
}

fn unwire(text: &Bytes) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut at = 0;
    while at < text.len() {
        let end = at + memchr::memchr(b'\r', &text[at..])?;
        if text.get(end + 1) != Some(&b'\n') {
            return None;
        }
        let colon = at + memchr::memchr(b':', &text[at..end])?;
        let name = HeaderName::from_bytes(&text[at..colon]).ok()?;
        let value = text.slice((colon + 2).min(end)..end);
        headers
            .try_append(name, HeaderValue::from_maybe_shared(value).ok()?)
            .ok()?;
        at = end + 2;
    }
    Some(headers)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cache::purge::{By, PurgeOrder};
    use proptest::prelude::*;

    /// An object of a minute, born at 1,000,000.
    pub(crate) fn object(key: &[u8], terms: Terms, body: &'static [u8]) -> Stored {
        let mut headers = HeaderMap::new();
        headers.insert("etag", HeaderValue::from_static("\"1\""));
        headers.append("x", HeaderValue::from_static("a"));
        headers.append("x", HeaderValue::from_bytes(b"\xfc\t").expect("obs-text"));
        Draft {
            key: key.into(),
            primary_len: key.len(),
            status: StatusCode::OK,
            headers,
            terms,
            vary: VaryRule::default(),
            subject: Subject::new("h", "/p", Some("q"), "acme", "demo", vec!["red".to_owned()]),
            fetched_ms: 1_000_000,
            answered_ms: 1_000_000,
        }
        .seal(Bytes::from_static(body))
    }

    /// One variant of a resource.
    pub(crate) fn variant(
        primary: &[u8],
        key: &[u8],
        vary: VaryRule,
        body: &'static [u8],
    ) -> Stored {
        Stored {
            vary,
            primary_len: primary.len(),
            ..object(key, minute(), body)
        }
    }

    pub(crate) fn minute() -> Terms {
        Terms {
            born_ms: 1_000_000,
            fresh_ms: 60_000,
            stale_while_revalidate_ms: 10_000,
            stale_if_error_ms: 100_000,
            declared: true,
            ..Terms::default()
        }
    }

    #[test]
    fn use_over_time() {
        let stored = object(b"k", minute(), b"x");
        let ledger = Ledger::default();
        let stale = |for_ms, while_revalidate, if_error| Use::Stale {
            for_ms,
            while_revalidate,
            if_error,
        };
        assert_eq!(stored.usable(&ledger, 1_000_000), Use::Fresh(60_000));
        assert_eq!(stored.usable(&ledger, 1_059_999), Use::Fresh(1));
        assert_eq!(stored.usable(&ledger, 1_060_000), stale(0, true, true));
        assert_eq!(stored.usable(&ledger, 1_069_999), stale(9_999, true, true));
        assert_eq!(
            stored.usable(&ledger, 1_070_000),
            stale(10_000, false, true)
        );
        assert_eq!(
            stored.usable(&ledger, 1_160_000),
            stale(100_000, false, false)
        );
        assert!(
            matches!(stored.usable(&ledger, 500_000), Use::Stale { .. }),
            "the clock jumped back"
        );
        let strict = object(
            b"k",
            Terms {
                always_validate: true,
                ..minute()
            },
            b"x",
        );
        assert_eq!(strict.usable(&ledger, 1_000_000), stale(0, false, false));
    }

    #[test]
    fn purges_reach_an_object_that_was_live_before() {
        let stored = object(b"k", minute(), b"x");
        let ledger = Ledger::default();
        assert_eq!(stored.usable(&ledger, 1_001_000), Use::Fresh(59_000));
        let soft = PurgeOrder {
            by: By::Tag,
            value: "red".to_owned(),
            tenant: None,
            soft: true,
            at_ms: 1_002_000,
        };
        ledger.apply(&soft);
        assert_eq!(
            stored.usable(&ledger, 1_005_000),
            Use::Stale {
                for_ms: 3000,
                while_revalidate: true,
                if_error: true
            }
        );
        ledger.apply(&PurgeOrder {
            by: By::Service,
            value: "demo".to_owned(),
            soft: false,
            ..soft
        });
        assert_eq!(stored.usable(&ledger, 1_005_000), Use::Gone);
        assert_eq!(stored.usable(&ledger, 1_005_000), Use::Gone, "for good");
    }

    #[test]
    fn sealing_sets_length_and_date() {
        let stored = object(b"k", minute(), b"hello");
        assert_eq!(stored.headers["content-length"], "5");
        assert_eq!(stored.headers["date"], "Thu, 01 Jan 1970 00:16:40 GMT");
        let text = String::from_utf8_lossy(&stored.wire).into_owned();
        assert!(
            text.contains("content-length: 5\r\n") && text.contains("x: a\r\nx: "),
            "{text}"
        );
    }

    #[test]
    fn records_survive_the_shared_tier() {
        let stored = object(b"key", minute(), b"hello");
        let record = stored.encode();
        let back = Stored::decode(&record, b"key", 1_001_000).expect("own record");
        assert_eq!(
            (back.status, &back.headers, &back.body),
            (stored.status, &stored.headers, &stored.body)
        );
        assert_eq!((back.terms, &back.subject), (stored.terms, &stored.subject));
        assert_eq!(back.loaded_ms, 1_001_000);
        assert!(
            Stored::decode(&record, b"other", 0).is_none(),
            "another key's record"
        );
        for cut in 0..record.len() {
            assert!(
                Stored::decode(&record.slice(..cut), b"key", 0).is_none(),
                "cut at {cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn decoding_anything_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..400, to in any::<u8>()) {
            let _ = Stored::decode(&Bytes::from(bytes), b"key", 0);
            let mut record = object(b"key", minute(), b"hello").encode().to_vec();
            let at = at % record.len();
            record[at] = to;
            if let Some(read) = Stored::decode(&Bytes::from(record), b"key", 0) {
                prop_assert_eq!(&*read.key, b"key");
            }
        }
    }
}
