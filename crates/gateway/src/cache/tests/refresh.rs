//! Revalidation, stale use, purging, and time.

use super::*;

const TAGGED: [(&str, &str); 2] = [("cache-control", "max-age=60"), ("etag", "\"v1\"")];

#[tokio::test]
async fn a_stale_copy_is_validated_and_freshened() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| {
            ok(&[TAGGED[0], TAGGED[1], ("x", "old"), ("y", "kept")], "body")
        })
        .await;
    gateway.advance(61);
    let news = [
        ("cache-control", "max-age=30"),
        ("x", "new"),
        ("content-length", "99"),
        ("etag", "\"v1\""),
    ];
    let again = gateway
        .get(
            &[("if-none-match", "\"other\""), ("range", "bytes=0-1")],
            |_| said(304, &news, ""),
        )
        .await;
    assert_eq!(
        gateway.seen.borrow()["if-none-match"],
        "\"v1\"",
        "our validator, not the caller's"
    );
    assert!(!gateway.seen.borrow().contains_key("range"));
    assert_eq!(
        (again.status, &again.body[..]),
        (206, b"bo".as_slice()),
        "the caller's range is cut here"
    );
    assert_eq!(
        again.headers["cache-status"],
        "portico; fwd=stale; fwd-status=304; ttl=30"
    );
    let hit = gateway.get(&[], |_| None).await;
    assert_eq!((hit.level(), &hit.body[..]), ("L1", b"body".as_slice()));
    assert_eq!(hit.headers["x"], "new");
    assert_eq!(hit.headers["y"], "kept");
    assert_eq!(hit.headers["content-length"], "4");
    gateway.advance(31);
    let replaced = gateway.get(&[], |_| ok(&TAGGED, "second")).await;
    assert_eq!(
        (replaced.level(), &replaced.body[..]),
        ("MISS", b"second".as_slice())
    );
    assert_eq!(gateway.get(&[], |_| None).await.body, "second");
}

#[tokio::test]
async fn a_client_s_condition_is_judged_after_validation() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway.get(&[], |_| ok(&TAGGED, "body")).await;
    gateway.advance(61);
    let same = gateway
        .get(&[("if-none-match", "\"v1\"")], |_| said(304, &[], ""))
        .await;
    assert_eq!(same.status, 304);
}

#[tokio::test]
async fn a_304_about_something_else_updates_nothing() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway.get(&[], |_| ok(&TAGGED, "body")).await;
    gateway.advance(61);
    let odd = gateway
        .get(&[], |_| {
            said(
                304,
                &[("etag", "\"v2\""), ("cache-control", "max-age=60")],
                "",
            )
        })
        .await;
    assert_eq!(odd.headers["etag"], "\"v1\"");
    assert_eq!(
        gateway.get(&[], |_| ok(&TAGGED, "fresh")).await.level(),
        "MISS",
        "still stale"
    );
}

#[tokio::test]
async fn no_cache_asks_each_time() {
    let gateway = Gateway::new(RulePolicy::default());
    let lines = [("cache-control", "no-cache"), ("etag", "\"v1\"")];
    gateway.get(&[], |_| ok(&lines, "body")).await;
    for n in 2..5 {
        let got = gateway.get(&[], |_| said(304, &[], "")).await;
        assert_eq!(
            (&got.body[..], gateway.fetched.get()),
            (b"body".as_slice(), n)
        );
    }
    assert_eq!(
        gateway.get(&[], |_| None).await.status,
        502,
        "and never serves without consent"
    );
}

#[tokio::test]
async fn stale_while_revalidate_refreshes_once_and_only_within_its_window() {
    let gateway = Gateway::new(RulePolicy::default());
    let lines = [("cache-control", "max-age=10, stale-while-revalidate=20")];
    gateway.get(&[], |_| ok(&lines, "old")).await;
    gateway.advance(15);
    let none = HeaderMap::new();
    let now = gateway.now.get();
    let Lookup::Stale(first, Some(refresh)) =
        gateway.cache.lookup(&view(&none), &gateway.rule, now)
    else {
        panic!("stale with a refresh")
    };
    assert_eq!(first.headers(None)["x-cache"], "STALE");
    assert_eq!(first.headers(None)["age"], "15");
    let second = gateway.cache.lookup(&view(&none), &gateway.rule, now);
    assert!(
        matches!(second, Lookup::Stale(_, None)),
        "one refresh at a time"
    );
    drop(refresh);
    let got = gateway.get(&[], |_| ok(&lines, "new")).await;
    assert!(got.refreshed && got.body == "old");
    assert_eq!(gateway.get(&[], |_| None).await.body, "new");
    gateway.advance(31);
    assert_eq!(
        gateway.get(&[], |_| ok(&lines, "late")).await.level(),
        "MISS",
        "the window is over"
    );
}

#[tokio::test]
async fn errors_are_bridged_with_stale_answers_as_far_as_allowed() {
    let gone = |_: &HeaderMap| None;
    let broken = |status| move |_: &HeaderMap| said(status, &[], "broken");
    for (words, after_s, bridged) in [
        ("max-age=10", 20, true),
        ("max-age=10", 86_500, false),
        ("max-age=10, stale-if-error=60", 20, true),
        ("max-age=10, stale-if-error=60", 80, false),
        ("max-age=10, must-revalidate", 20, false),
        ("max-age=10, proxy-revalidate", 20, false),
        ("s-maxage=10", 20, false),
        ("s-maxage=10, stale-if-error=60", 20, true),
        ("max-age=10, no-cache", 20, false),
    ] {
        let gateway = Gateway::new(RulePolicy::default());
        gateway
            .get(&[], |_| {
                ok(&[("cache-control", words), ("etag", "\"1\"")], "old")
            })
            .await;
        gateway.advance(after_s);
        let got = gateway.get(&[], gone).await;
        assert_eq!(got.status == 200, bridged, "{words} after {after_s} s");
        if bridged {
            assert_eq!((got.level(), &got.body[..]), ("STALE", b"old".as_slice()));
            assert!(
                got.headers["cache-status"]
                    .to_str()
                    .expect("text")
                    .starts_with("portico; fwd=stale")
            );
            for status in [500, 502, 503, 504] {
                assert_eq!(
                    gateway.get(&[], broken(status)).await.body,
                    "old",
                    "{status}"
                );
            }
            assert_eq!(
                gateway.get(&[], broken(501)).await.status,
                501,
                "not a passing error"
            );
        }
    }
}

#[tokio::test]
async fn a_new_refusal_takes_the_old_copy_away() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway.get(&[], |_| ok(&TAGGED, "public")).await;
    gateway.advance(61);
    gateway.get(&[], |_| said(404, &[], "gone")).await;
    gateway.advance(11);
    assert_eq!(
        gateway.get(&[], |_| None).await.status,
        502,
        "the deleted page does not come back"
    );
}

#[tokio::test]
async fn purges_soft_and_hard() {
    let order = |by, value: &str, soft, at_ms| PurgeOrder {
        by,
        value: value.to_owned(),
        tenant: None,
        soft,
        at_ms,
    };
    for (by, value) in [
        (By::Url, "https://example.org/a"),
        (By::Prefix, "/"),
        (By::Tag, "news"),
        (By::Service, "demo"),
        (By::Tenant, "default"),
    ] {
        let gateway = Gateway::new(RulePolicy::default());
        let lines = [TAGGED[0], TAGGED[1], ("cache-tag", "news, sports")];
        let first = gateway.get(&[], |_| ok(&lines, "body")).await;
        assert!(!first.headers.contains_key("cache-tag"));
        gateway.advance(1);
        gateway
            .cache
            .purge(&order(by, value, true, gateway.now.get()));
        gateway.advance(1);
        let validated = gateway.get(&[], |_| said(304, &[], "")).await;
        assert_eq!(
            gateway.seen.borrow()["if-none-match"],
            "\"v1\"",
            "soft keeps the validator: {by:?}"
        );
        assert_eq!(validated.body, "body");
        assert_eq!(
            gateway.get(&[], |_| None).await.level(),
            "L1",
            "good again after validation: {by:?}"
        );
        gateway.advance(1);
        gateway
            .cache
            .purge(&order(by, value, true, gateway.now.get()));
        assert_eq!(
            gateway.get(&[], |_| None).await.level(),
            "STALE",
            "and still helps in need: {by:?}"
        );
        gateway
            .cache
            .purge(&order(by, value, false, gateway.now.get()));
        assert_eq!(
            gateway.get(&[], |_| None).await.status,
            502,
            "hard is gone for good: {by:?}"
        );
        assert_eq!(
            gateway.cache.sweep(gateway.now.get()),
            0,
            "the look-up has removed it"
        );
    }
}

#[tokio::test]
async fn tags_survive_validation() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| {
            ok(&[TAGGED[0], TAGGED[1], ("cache-tag", "news")], "body")
        })
        .await;
    gateway.advance(61);
    gateway.get(&[], |_| said(304, &[], "")).await;
    gateway.advance(1);
    let at_ms = gateway.now.get();
    gateway.cache.purge(&PurgeOrder {
        by: By::Tag,
        value: "news".to_owned(),
        tenant: None,
        soft: false,
        at_ms,
    });
    assert_eq!(gateway.get(&[], |_| None).await.status, 502);
}

#[tokio::test]
async fn five_minutes_in_l1_and_then_a_question() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| {
            ok(
                &[("cache-control", "max-age=3600"), ("etag", "\"v1\"")],
                "body",
            )
        })
        .await;
    gateway.advance(300);
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
    gateway.advance(1);
    assert_eq!(
        gateway.get(&[], |_| None).await.level(),
        "STALE",
        "fresh by its terms, so it bridges an error"
    );
    gateway.get(&[], |_| said(304, &[], "")).await;
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
}

#[tokio::test]
async fn a_clock_that_jumps_makes_nothing_younger() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway.get(&[], |_| ok(&TAGGED, "body")).await;
    gateway.now.set(START - 3_600_000);
    assert_eq!(
        gateway.get(&[], |_| ok(&TAGGED, "asked")).await.body,
        "asked"
    );
    gateway.now.set(START + 3_600_000);
    assert_eq!(
        gateway.get(&[], |_| ok(&TAGGED, "again")).await.body,
        "again"
    );
}

#[tokio::test]
async fn set_cookie_is_kept_only_where_the_route_says_so() {
    let rule = RulePolicy {
        store_set_cookie: true,
        ..RulePolicy::default()
    };
    let gateway = Gateway::new(rule);
    gateway
        .get(&[], |_| ok(&[TAGGED[0], ("set-cookie", "a=b")], "x"))
        .await;
    let hit = gateway.get(&[], |_| None).await;
    assert_eq!(
        (hit.level(), &hit.headers["set-cookie"]),
        ("L1", &HeaderValue::from_static("a=b"))
    );
}

#[tokio::test]
async fn the_cache_explains_itself_without_counting() {
    let gateway = Gateway::new(RulePolicy::default());
    let none = HeaderMap::new();
    let asked = view(&none);
    let told = |gateway: &Gateway| {
        gateway
            .cache
            .explain(&asked, &gateway.rule, gateway.now.get())
    };
    assert_eq!(told(&gateway).state, "absent");
    let lines = [TAGGED[0], TAGGED[1], ("cache-tag", "news"), ("vary", "foo")];
    gateway.get(&[], |_| ok(&lines, "body")).await;
    gateway.advance(20);
    let fresh = told(&gateway);
    let stored = fresh.stored.as_ref().expect("stored");
    assert_eq!((fresh.state, stored.age_s, stored.ttl_s), ("fresh", 20, 40));
    assert_eq!(
        (stored.bytes, &stored.vary[..], &stored.tags[..]),
        (4, &["foo".to_owned()][..], &["news".to_owned()][..])
    );
    assert!(fresh.key.contains("https://example.org/a"));
    gateway.advance(60);
    assert_eq!(told(&gateway).state, "stale");
    let alice = RequestView {
        principal: Some("alice"),
        ..asked
    };
    assert_eq!(
        gateway
            .cache
            .explain(&alice, &gateway.rule, gateway.now.get())
            .reason,
        Some("credentials")
    );
    assert_eq!(
        gateway
            .cache
            .explain(&asked, &RulePolicy::off(), START)
            .reason,
        Some("off")
    );
    gateway
        .get(&[], |_| ok(&[("cache-control", "no-store")], "x"))
        .await;
    assert_eq!(told(&gateway).state, "pass");
    assert_eq!(gateway.cache.stats().total(Outcome::HitL1), 0);
}
