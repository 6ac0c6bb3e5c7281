//! Tests of the cache as a whole, against an origin made of closures.

mod isolation;
mod refresh;
mod shared_tier;
mod single_flight;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::key::tests::view;
use super::*;

/// A moment that all tests begin at.
pub(crate) const START: u64 = 1_800_000_000_000;

/// What the origin says to one request; `None` is "connection refused".
pub(crate) type Said = Option<(u16, Vec<(&'static str, String)>, &'static str)>;

/// A gateway with one cache, a clock that tests move, and an origin that they script.
pub(crate) struct Gateway {
    pub cache: Cache,
    pub rule: RulePolicy,
    pub now: Cell<u64>,
    pub fetched: Cell<u32>,
    /// The fields of the last request that the origin saw.
    pub seen: RefCell<HeaderMap>,
}

/// What the caller got.
#[derive(Debug)]
pub(crate) struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// A refresh that was handed out along with a stale answer.
    pub refreshed: bool,
}

impl Gateway {
    pub(crate) fn new(rule: RulePolicy) -> Self {
        Self::around(Cache::new(CacheConfig::default()), rule)
    }

    pub(crate) fn around(cache: Cache, rule: RulePolicy) -> Self {
        Self {
            cache,
            rule,
            now: Cell::new(START),
            fetched: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.now.set(self.now.get() + seconds * 1000);
    }

    /// One request through cache and origin, as the pipeline does it.
    pub(crate) async fn ask(
        &self,
        view: &RequestView<'_>,
        origin: impl Fn(&HeaderMap) -> Said,
    ) -> Got {
        let now = self.now.get();
        let clock = move || now;
        match self.cache.lookup(view, &self.rule, now) {
            Lookup::Hit(answer) => got(&answer, false),
            Lookup::Stale(answer, refresh) => {
                let refreshed = refresh.is_some();
                if let Some(leader) = refresh {
                    self.lead(leader, view, &origin);
                }
                got(&answer, refreshed)
            }
            Lookup::OnlyIfCached => plain(504, HeaderMap::new(), ""),
            Lookup::Bypass(refusal) => {
                let Some((status, mut headers, body)) = self.forward(view.headers, &origin) else {
                    return plain(502, HeaderMap::new(), "");
                };
                let code = StatusCode::from_u16(status).expect("status");
                self.cache
                    .after_unsafe(view, &self.rule, code, &headers, now);
                mark_forwarded(&mut headers, Forwarded::Bypassed(refusal), None);
                plain(status, headers, body)
            }
            Lookup::Miss(ticket) => match ticket
                .turn(view, &self.rule, Duration::from_secs(5), &clock)
                .await
            {
                Turn::Ready(answer) => got(&answer, false),
                Turn::Busy | Turn::TimedOut => plain(503, HeaderMap::new(), ""),
                Turn::Lead(leader) => self.lead(leader, view, &origin),
            },
        }
    }

    /// A GET of `/a` with these fields.
    pub(crate) async fn get(
        &self,
        lines: &[(&'static str, &str)],
        origin: impl Fn(&HeaderMap) -> Said,
    ) -> Got {
        let headers = fields(lines);
        self.ask(&view(&headers), origin).await
    }

    fn lead(
        &self,
        mut leader: Leader,
        view: &RequestView<'_>,
        origin: &impl Fn(&HeaderMap) -> Said,
    ) -> Got {
        let now = self.now.get();
        let mut request = view.headers.clone();
        leader.prepare(&mut request, now);
        let Some((status, mut headers, body)) = self.forward(&request, origin) else {
            return leader
                .on_error(view, now)
                .map_or_else(|| plain(502, HeaderMap::new(), ""), |a| got(&a, false));
        };
        let code = StatusCode::from_u16(status).expect("status");
        match leader.fill(view, &self.rule, code, &headers, now) {
            Fill::Answer(answer) => got(&answer, false),
            Fill::Through(refusal) => {
                mark_forwarded(&mut headers, Forwarded::Refused(refusal), None);
                plain(status, headers, body)
            }
            Fill::Collect(mut collector) => {
                for piece in body.as_bytes().chunks(3) {
                    collector.push(&Bytes::from_static(piece_of(body, piece)));
                }
                collector.finish(now);
                mark_forwarded(&mut headers, Forwarded::Stored, None);
                plain(status, headers, body)
            }
        }
    }

    fn forward(
        &self,
        request: &HeaderMap,
        origin: &impl Fn(&HeaderMap) -> Said,
    ) -> Option<(u16, HeaderMap, &'static str)> {
        self.fetched.set(self.fetched.get() + 1);
        *self.seen.borrow_mut() = request.clone();
        let (status, lines, body) = origin(request)?;
        let lines: Vec<_> = lines.iter().map(|(n, v)| (*n, v.as_str())).collect();
        Some((status, fields(&lines), body))
    }
}

pub(crate) fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).expect("value"),
        );
    }
    map
}

/// A 200 with these fields.
pub(crate) fn ok(lines: &[(&'static str, &str)], body: &'static str) -> Said {
    said(200, lines, body)
}

pub(crate) fn said(status: u16, lines: &[(&'static str, &str)], body: &'static str) -> Said {
    Some((
        status,
        lines.iter().map(|(n, v)| (*n, (*v).to_owned())).collect(),
        body,
    ))
}

fn piece_of(whole: &'static str, piece: &[u8]) -> &'static [u8] {
    let at = piece.as_ptr() as usize - whole.as_ptr() as usize;
    &whole.as_bytes()[at..at + piece.len()]
}

fn got(answer: &Answer, refreshed: bool) -> Got {
    Got {
        status: answer.status().as_u16(),
        headers: answer.headers(None),
        body: answer.body(),
        refreshed,
    }
}

fn plain(status: u16, headers: HeaderMap, body: &'static str) -> Got {
    Got {
        status,
        headers,
        body: Bytes::from_static(body.as_bytes()),
        refreshed: false,
    }
}

impl Got {
    pub(crate) fn level(&self) -> &str {
        self.headers
            .get(X_CACHE)
            .map_or("", |v| v.to_str().expect("text"))
    }
}

#[tokio::test]
async fn a_hit_is_what_the_origin_said_and_its_age() {
    let gateway = Gateway::new(RulePolicy::default());
    let first = gateway
        .get(&[], |_| {
            ok(&[("cache-control", "max-age=60"), ("x", "1")], "hello")
        })
        .await;
    assert_eq!(
        (first.level(), &first.body[..]),
        ("MISS", b"hello".as_slice())
    );
    assert_eq!(
        first.headers["cache-status"],
        "portico; fwd=uri-miss; stored"
    );
    gateway.advance(7);
    let second = gateway.get(&[], |_| None).await;
    assert_eq!(
        (second.level(), &second.body[..]),
        ("L1", b"hello".as_slice())
    );
    assert_eq!(second.headers["age"], "7");
    assert_eq!(second.headers["x"], "1");
    assert_eq!(second.headers["cache-status"], "portico; hit; ttl=53");
    assert_eq!(gateway.fetched.get(), 1);
    let stats = gateway.cache.stats();
    assert_eq!(
        (stats.total(Outcome::Miss), stats.total(Outcome::HitL1)),
        (1, 1)
    );
}

#[tokio::test]
async fn methods() {
    let gateway = Gateway::new(RulePolicy::default());
    let none = HeaderMap::new();
    let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "hello");
    let head = RequestView {
        method: &Method::HEAD,
        ..view(&none)
    };
    assert_eq!(
        gateway.ask(&head, fresh).await.level(),
        "BYPASS",
        "a HEAD fills nothing"
    );
    gateway.get(&[], fresh).await;
    let from_get = gateway.ask(&head, |_| None).await;
    assert_eq!((from_get.level(), from_get.body.len()), ("L1", 0));
    assert_eq!(from_get.headers["content-length"], "5");
    let post = RequestView {
        method: &Method::POST,
        ..view(&none)
    };
    assert_eq!(
        gateway.ask(&post, |_| said(500, &[], "")).await.level(),
        "BYPASS"
    );
    assert_eq!(
        gateway.get(&[], |_| None).await.level(),
        "L1",
        "a failed POST invalidates nothing"
    );
}

#[tokio::test]
async fn unsafe_methods_invalidate() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH"] {
        let gateway = Gateway::new(RulePolicy::default());
        let none = HeaderMap::new();
        let method = Method::from_bytes(method.as_bytes()).expect("token");
        let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "hello");
        let other = RequestView {
            path: "/b",
            ..view(&none)
        };
        let third = RequestView {
            path: "/c",
            query: Some("x=1"),
            ..view(&none)
        };
        let foreign = RequestView {
            tenant: "umbrella",
            ..view(&none)
        };
        for asked in [&view(&none), &other, &third, &foreign] {
            gateway.ask(asked, fresh).await;
        }
        gateway.advance(1);
        let change = RequestView {
            method: &method,
            ..view(&none)
        };
        let created = |_: &HeaderMap| {
            said(
                201,
                &[
                    ("location", "b"),
                    ("content-location", "https://example.org/c?x=1"),
                ],
                "",
            )
        };
        gateway.ask(&change, created).await;
        gateway.advance(1);
        for asked in [&view(&none), &other, &third] {
            assert_eq!(
                gateway.ask(asked, fresh).await.level(),
                "MISS",
                "{method} {}",
                asked.path
            );
        }
        assert_eq!(
            gateway.ask(&foreign, fresh).await.level(),
            "L1",
            "another tenant's copy stays"
        );
        assert_eq!(
            gateway.ask(&view(&none), fresh).await.level(),
            "L1",
            "and is stored again"
        );
    }
}

#[tokio::test]
async fn foreign_locations_invalidate_nothing() {
    let gateway = Gateway::new(RulePolicy::default());
    let none = HeaderMap::new();
    let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "hello");
    let evil = RequestView {
        host: "evil.example",
        method: &Method::POST,
        ..view(&none)
    };
    gateway.get(&[], fresh).await;
    gateway.advance(1);
    gateway
        .ask(&evil, |_| {
            said(201, &[("location", "https://example.org/a")], "")
        })
        .await;
    assert_eq!(gateway.get(&[], fresh).await.level(), "L1");
}

#[tokio::test]
async fn request_directives_count_for_the_trusted_only() {
    let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60"), ("age", "10")], "hello");
    for (directive, forces) in [
        ("no-cache", true),
        ("max-age=0", true),
        ("max-age=5", true),
        ("max-age=30", false),
        ("min-fresh=55", true),
        ("min-fresh=5", false),
        ("no-store", true),
    ] {
        let gateway = Gateway::new(RulePolicy::default());
        gateway.get(&[], fresh).await;
        let headers = fields(&[("cache-control", directive)]);
        let anonymous = gateway.ask(&view(&headers), fresh).await;
        assert_eq!(
            anonymous.level(),
            "L1",
            "ignored from strangers: {directive}"
        );
        let trusted = RequestView {
            trusted: true,
            ..view(&headers)
        };
        let level = gateway.ask(&trusted, fresh).await.level().to_owned();
        assert_eq!(level != "L1", forces, "{directive} {level}");
    }
    let gateway = Gateway::new(RulePolicy {
        honour_request: Honour::Everyone,
        ..RulePolicy::default()
    });
    gateway.get(&[], fresh).await;
    assert_eq!(
        gateway.get(&[("pragma", "no-cache")], fresh).await.level(),
        "MISS"
    );
}

#[tokio::test]
async fn only_if_cached_never_reaches_the_origin() {
    let gateway = Gateway::new(RulePolicy::default());
    let lines = [("cache-control", "only-if-cached")];
    assert_eq!(gateway.get(&lines, |_| ok(&[], "x")).await.status, 504);
    assert_eq!(gateway.fetched.get(), 0);
    gateway
        .get(&[], |_| ok(&[("cache-control", "max-age=60")], "x"))
        .await;
    assert_eq!(gateway.get(&lines, |_| None).await.level(), "L1");
}

#[tokio::test]
async fn conditional_requests_and_ranges_are_answered_here() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| {
            ok(
                &[("cache-control", "max-age=60"), ("etag", "\"v1\"")],
                "0123456789",
            )
        })
        .await;
    let same = gateway
        .get(&[("if-none-match", "\"v0\", W/\"v1\"")], |_| None)
        .await;
    assert_eq!(
        (same.status, same.body.len(), &same.headers["etag"]),
        (304, 0, &HeaderValue::from_static("\"v1\""))
    );
    let part = gateway.get(&[("range", "bytes=2-3")], |_| None).await;
    assert_eq!((part.status, &part.body[..]), (206, b"23".as_slice()));
    assert_eq!(
        gateway
            .get(&[("if-match", "\"v1\"")], |_| ok(&[], ""))
            .await
            .level(),
        "BYPASS"
    );
    assert_eq!(gateway.fetched.get(), 2);
}

#[tokio::test]
async fn a_range_that_misses_passes_as_it_is() {
    let gateway = Gateway::new(RulePolicy::default());
    let partial = |_: &HeaderMap| {
        said(
            206,
            &[
                ("cache-control", "max-age=60"),
                ("content-range", "bytes 0-1/9"),
            ],
            "ab",
        )
    };
    assert_eq!(
        gateway
            .get(&[("range", "bytes=0-1")], partial)
            .await
            .level(),
        "BYPASS"
    );
    assert_eq!(gateway.seen.borrow()["range"], "bytes=0-1");
    assert_eq!(
        gateway
            .get(&[], |_| ok(&[("cache-control", "max-age=60")], "abcdefghi"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(
        gateway
            .get(&[("range", "bytes=0-1")], |_| None)
            .await
            .level(),
        "L1"
    );
}

#[tokio::test]
async fn variants_are_kept_apart_and_together() {
    let gateway = Gateway::new(RulePolicy::default());
    let by =
        |body| move |_: &HeaderMap| ok(&[("cache-control", "max-age=60"), ("vary", "Foo")], body);
    gateway.get(&[("foo", "1")], by("one")).await;
    assert_eq!(
        gateway.get(&[("foo", "2")], by("two")).await.level(),
        "MISS"
    );
    assert_eq!(gateway.get(&[], by("none")).await.level(), "MISS");
    for (value, body) in [("1", "one"), ("2", "two")] {
        let hit = gateway
            .get(&[("foo", value), ("other", "x")], |_| None)
            .await;
        assert_eq!((hit.level(), &hit.body[..]), ("L1", body.as_bytes()));
    }
    // A later answer that varies by more widens the key and never serves across it.
    let wider = |_: &HeaderMap| ok(&[("cache-control", "max-age=60"), ("vary", "Bar")], "wide");
    gateway.get(&[("foo", "3"), ("bar", "a")], wider).await;
    assert_eq!(
        gateway
            .get(&[("foo", "3"), ("bar", "b")], by("x"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(
        gateway
            .get(&[("foo", "4"), ("bar", "a")], by("x"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(
        gateway
            .get(&[("foo", "3"), ("bar", "a")], |_| None)
            .await
            .level(),
        "L1"
    );
}

#[tokio::test]
async fn incomplete_bodies_are_never_stored() {
    let gateway = Gateway::new(RulePolicy::default());
    let short = |_: &HeaderMap| {
        ok(
            &[("cache-control", "max-age=60"), ("content-length", "10")],
            "hello",
        )
    };
    gateway.get(&[], short).await;
    assert_eq!(
        gateway.get(&[], short).await.level(),
        "MISS",
        "shorter than announced"
    );
    let none = HeaderMap::new();
    let Lookup::Miss(ticket) = gateway.cache.lookup(&view(&none), &gateway.rule, START) else {
        panic!("a miss")
    };
    let turn = ticket
        .turn(&view(&none), &gateway.rule, Duration::from_secs(1), &|| {
            START
        })
        .await;
    let Turn::Lead(mut leader) = turn else {
        panic!("the lead")
    };
    leader.prepare(&mut HeaderMap::new(), START);
    let head = fields(&[("cache-control", "max-age=60")]);
    let fill = leader.fill(&view(&none), &gateway.rule, StatusCode::OK, &head, START);
    let Fill::Collect(mut collector) = fill else {
        panic!("storable")
    };
    collector.push(&Bytes::from_static(b"half"));
    drop(collector);
    assert!(
        matches!(
            gateway.cache.lookup(&view(&none), &gateway.rule, START),
            Lookup::Miss(_)
        ),
        "aborted"
    );
    assert_eq!(
        gateway.cache.gauges().fetches,
        0,
        "nothing is left under way"
    );
}

#[tokio::test]
async fn what_is_too_large_is_given_up_while_it_streams() {
    let gateway = Gateway::new(RulePolicy {
        max_object_bytes: 4,
        ..RulePolicy::default()
    });
    let announced = |_: &HeaderMap| {
        ok(
            &[("cache-control", "max-age=60"), ("content-length", "5")],
            "hello",
        )
    };
    assert_eq!(
        gateway.get(&[], announced).await.headers["cache-status"],
        "portico; fwd=uri-miss; detail=too_large"
    );
    gateway.advance(11);
    let unannounced = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "hello");
    gateway.get(&[], unannounced).await;
    assert_eq!(gateway.get(&[], unannounced).await.level(), "MISS");
    let exact = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "four");
    gateway.get(&[], exact).await;
    assert_eq!(
        gateway.get(&[], |_| None).await.level(),
        "L1",
        "and stored as soon as it fits"
    );
}

#[tokio::test]
async fn all_collectors_together_have_a_budget() {
    let config = CacheConfig {
        collecting_bytes: 8,
        ..CacheConfig::default()
    };
    let gateway = Gateway::around(Cache::new(config), RulePolicy::default());
    let none = HeaderMap::new();
    let collect = |path: &'static str| {
        let gateway = &gateway;
        let none = &none;
        async move {
            let asked = RequestView { path, ..view(none) };
            let Lookup::Miss(ticket) = gateway.cache.lookup(&asked, &gateway.rule, START) else {
                panic!("a miss")
            };
            let turn = ticket
                .turn(&asked, &gateway.rule, Duration::from_secs(1), &|| START)
                .await;
            let Turn::Lead(leader) = turn else {
                panic!("the lead")
            };
            let head = fields(&[("cache-control", "max-age=60")]);
            match leader.fill(&asked, &gateway.rule, StatusCode::OK, &head, START) {
                Fill::Collect(collector) => collector,
                _ => panic!("storable"),
            }
        }
    };
    let (mut first, mut second) = (collect("/1").await, collect("/2").await);
    first.push(&Bytes::from_static(b"12345"));
    second.push(&Bytes::from_static(b"12345"));
    assert!(second.finish(START).is_none(), "no room for it");
    assert!(first.finish(START).is_some());
    let mut third = collect("/3").await;
    third.push(&Bytes::from_static(b"12345678"));
    assert!(third.finish(START).is_some(), "the room was given back");
}

#[tokio::test]
async fn a_route_that_is_off_is_left_alone() {
    let gateway = Gateway::new(RulePolicy::off());
    for _ in 0..2 {
        let got = gateway
            .get(&[], |_| ok(&[("cache-control", "max-age=60")], "x"))
            .await;
        assert_eq!(got.level(), "BYPASS");
    }
}

#[tokio::test]
async fn uncacheable_keys_pass_with_the_callers_own_conditions() {
    let gateway = Gateway::new(RulePolicy {
        mode: Mode::On,
        ..RulePolicy::default()
    });
    gateway
        .get(&[("if-none-match", "\"x\"")], |_| {
            ok(&[("cache-control", "no-store")], "a")
        })
        .await;
    assert!(
        gateway.seen.borrow().get("if-none-match").is_none(),
        "asked for the whole to store it"
    );
    gateway
        .get(&[("if-none-match", "\"x\"")], |_| said(304, &[], ""))
        .await;
    assert_eq!(
        gateway.seen.borrow()["if-none-match"],
        "\"x\"",
        "known as uncacheable"
    );
    assert_eq!(gateway.cache.stats().total(Outcome::Pass), 1);
    gateway.advance(30);
    gateway
        .get(&[("if-none-match", "\"x\"")], |_| {
            ok(&[("cache-control", "max-age=60")], "b")
        })
        .await;
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
}

#[tokio::test]
async fn a_pass_mark_ends_when_the_answer_becomes_storable() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway.get(&[], |_| ok(&[], "a")).await;
    gateway
        .get(&[], |_| ok(&[("cache-control", "max-age=60")], "b"))
        .await;
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
}

#[tokio::test]
async fn an_answer_overtaken_by_an_unsafe_request_is_not_used() {
    for (fetch_s, known) in [(5, true), (61, false)] {
        let gateway = Gateway::new(RulePolicy::default());
        let none = HeaderMap::new();
        let asked = view(&none);
        let Lookup::Miss(ticket) = gateway.cache.lookup(&asked, &gateway.rule, START) else {
            panic!("a miss")
        };
        let turn = ticket
            .turn(&asked, &gateway.rule, Duration::from_secs(1), &|| START)
            .await;
        let Turn::Lead(mut leader) = turn else {
            panic!("the lead")
        };
        leader.prepare(&mut HeaderMap::new(), START);
        let change = RequestView {
            method: &Method::PUT,
            ..asked
        };
        gateway.cache.after_unsafe(
            &change,
            &gateway.rule,
            StatusCode::OK,
            &none,
            START + fetch_s * 500,
        );
        let head = fields(&[("cache-control", "max-age=600")]);
        let done = START + fetch_s * 1000;
        let Fill::Collect(collector) =
            leader.fill(&asked, &gateway.rule, StatusCode::OK, &head, done)
        else {
            panic!("storable")
        };
        assert_eq!(collector.finish(done).is_some(), known);
        let again = gateway.cache.lookup(&asked, &gateway.rule, done);
        assert!(
            matches!(again, Lookup::Miss(_)),
            "read before the change, after {fetch_s} s"
        );
    }
}

/// Traffic of unsafe requests to addresses that nobody stores must not wear the cache down.
#[tokio::test]
async fn unsafe_requests_elsewhere_leave_the_cache_alone() {
    let gateway = Gateway::new(RulePolicy::default());
    let none = HeaderMap::new();
    gateway
        .get(&[], |_| ok(&[("cache-control", "max-age=600")], "body"))
        .await;
    for n in 0..20_000u64 {
        let path = format!("/orders/{n}");
        let change = RequestView {
            method: &Method::POST,
            path: &path,
            ..view(&none)
        };
        gateway.cache.after_unsafe(
            &change,
            &gateway.rule,
            StatusCode::CREATED,
            &none,
            START + 1 + n,
        );
    }
    gateway.advance(20);
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
}
