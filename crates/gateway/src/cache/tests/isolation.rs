//! Nobody gets another's answer: principals, tenants, cookies, and the known poisoning and deception tricks.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A thousand random users of three tenants ask for everything; each answer names its user.
#[tokio::test]
async fn a_thousand_users_find_no_foreign_byte() {
    let mut random = StdRng::seed_from_u64(7);
    for scope in [Scope::Auto, Scope::User] {
        for words in [
            "max-age=60",
            "max-age=60, stale-while-revalidate=60",
            "no-cache",
            "private",
            "max-age=1",
        ] {
            let gateway = Gateway::new(RulePolicy {
                mode: Mode::On,
                ttl_s: Some(30),
                scope,
                ..RulePolicy::default()
            });
            for _ in 0..1000 {
                let user = format!("user{}", random.random_range(0..1000u32));
                let tenant = ["acme", "umbrella", "initech"][random.random_range(0..3usize)];
                let path = ["/a", "/b", "/c.css"][random.random_range(0..3usize)];
                let token = format!("Bearer {user}@{tenant}");
                let headers = fields(&[("authorization", &token)]);
                let asked = RequestView {
                    principal: Some(&user),
                    tenant,
                    path,
                    ..view(&headers)
                };
                let own = format!("{user}@{tenant}{path}");
                let origin = |seen: &HeaderMap| {
                    let token = seen["authorization"].to_str().expect("text");
                    let mark = format!("{}{path}", token.trim_start_matches("Bearer "));
                    said(
                        200,
                        &[
                            ("cache-control", words),
                            ("etag", "\"1\""),
                            ("x-own", &mark),
                        ],
                        "",
                    )
                };
                let got = gateway.ask(&asked, origin).await;
                assert_eq!(got.headers["x-own"], own.as_str(), "{scope:?} {words}");
                if random.random_bool(0.05) {
                    gateway.advance(1);
                }
            }
        }
    }
}

#[tokio::test]
async fn what_the_origin_calls_public_is_shared_within_the_tenant() {
    let gateway = Gateway::new(RulePolicy::default());
    let headers = fields(&[("authorization", "Bearer x")]);
    let public = |_: &HeaderMap| ok(&[("cache-control", "public, max-age=60")], "all");
    let alice = RequestView {
        principal: Some("alice"),
        ..view(&headers)
    };
    let bob = RequestView {
        principal: Some("bob"),
        ..view(&headers)
    };
    gateway.ask(&alice, public).await;
    assert_eq!(gateway.ask(&bob, |_| None).await.level(), "L1");
    let elsewhere = RequestView {
        tenant: "umbrella",
        ..bob
    };
    assert_eq!(gateway.ask(&elsewhere, public).await.level(), "MISS");
}

#[tokio::test]
async fn an_anonymous_copy_is_not_for_the_identified() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| {
            ok(&[("cache-control", "max-age=60")], "hello stranger")
        })
        .await;
    let none = HeaderMap::new();
    let alice = RequestView {
        principal: Some("alice"),
        ..view(&none)
    };
    let got = gateway
        .ask(&alice, |_| {
            ok(&[("cache-control", "max-age=60")], "hello alice")
        })
        .await;
    assert_eq!(
        (got.level(), &got.body[..]),
        ("BYPASS", b"hello alice".as_slice())
    );
    assert_eq!(gateway.get(&[], |_| None).await.body, "hello stranger");
}

#[tokio::test]
async fn a_cookie_is_a_credential_unless_the_origin_declares_a_lifetime() {
    let rule = RulePolicy {
        mode: Mode::On,
        ttl_s: Some(60),
        ..RulePolicy::default()
    };
    let gateway = Gateway::new(rule);
    assert_eq!(
        gateway
            .get(&[("cookie", "sid=1")], |_| ok(&[], "mine"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(
        gateway
            .get(&[("cookie", "sid=2")], |_| ok(&[], "yours"))
            .await
            .body,
        "yours"
    );
    gateway.get(&[], |_| ok(&[], "anybody's")).await;
    assert_eq!(
        gateway
            .get(&[("cookie", "sid=2")], |_| ok(&[], "yours"))
            .await
            .body,
        "yours"
    );
    assert_eq!(gateway.get(&[], |_| None).await.body, "anybody's");
    let declared = Gateway::new(RulePolicy::default());
    declared
        .get(&[], |_| ok(&[("cache-control", "max-age=60")], "all"))
        .await;
    assert_eq!(
        declared.get(&[("cookie", "a=b")], |_| None).await.level(),
        "L1"
    );
}

#[tokio::test]
async fn unknown_credentials_never_share_a_users_copy() {
    let rule = RulePolicy {
        mode: Mode::On,
        ttl_s: Some(60),
        scope: Scope::User,
        ..RulePolicy::default()
    };
    let gateway = Gateway::new(rule);
    for token in ["Basic a", "Basic b"] {
        let echo = |seen: &HeaderMap| {
            said(
                200,
                &[("x-own", seen["authorization"].to_str().expect("text"))],
                "",
            )
        };
        let got = gateway.get(&[("authorization", token)], echo).await;
        assert_eq!(got.headers["x-own"], token);
    }
    let first = gateway.get(&[("x-api-key", "1")], |_| ok(&[], "one")).await;
    let second = gateway.get(&[("x-api-key", "2")], |_| ok(&[], "two")).await;
    assert_eq!(
        (&first.body[..], &second.body[..]),
        (b"one".as_slice(), b"two".as_slice())
    );
}

/// Web-cache deception: a personal page under a name that looks static.
#[tokio::test]
async fn names_that_look_static_change_nothing() {
    for path in [
        "/account/x.css",
        "/account%2fx.css",
        "/account;.js",
        "/account/..%2fstatic/a.png",
        "/account/.jpg",
    ] {
        let gateway = Gateway::new(RulePolicy {
            mode: Mode::On,
            ttl_s: Some(60),
            content_types: vec!["text/css".to_owned(), "image/*".to_owned()],
            ..RulePolicy::default()
        });
        let none = HeaderMap::new();
        let page = |_: &HeaderMap| ok(&[("content-type", "text/html")], "secret of alice");
        let victim = RequestView {
            path,
            ..view(&none)
        };
        gateway.ask(&victim, page).await;
        let attacker = gateway
            .ask(&victim, |_| ok(&[("content-type", "text/html")], "log in"))
            .await;
        assert_eq!(attacker.body, "log in", "{path}");
    }
}

/// Poisoning: what is not in the key must not get an answer stored that differs by it.
#[tokio::test]
async fn poisoned_answers_stay_with_who_made_them() {
    let poisons: [(&str, Said); 6] = [
        (
            "set-cookie",
            ok(
                &[("cache-control", "max-age=60"), ("set-cookie", "sid=evil")],
                "x",
            ),
        ),
        (
            "vary star",
            ok(&[("cache-control", "max-age=60"), ("vary", "*")], "x"),
        ),
        (
            "identity in vary",
            ok(
                &[("cache-control", "max-age=60"), ("vary", "X-Portico-Roles")],
                "x",
            ),
        ),
        (
            "partial",
            said(
                206,
                &[
                    ("cache-control", "max-age=60"),
                    ("content-range", "bytes 0-0/9"),
                ],
                "x",
            ),
        ),
        ("error without lifetime", said(400, &[], "x")),
        (
            "not modified",
            said(304, &[("cache-control", "max-age=60")], ""),
        ),
    ];
    for (what, poison) in poisons {
        let rule = RulePolicy {
            mode: Mode::On,
            ttl_s: Some(60),
            ..RulePolicy::default()
        };
        let gateway = Gateway::new(rule);
        gateway.get(&[], move |_| poison.clone()).await;
        let victim = gateway
            .get(&[], |_| ok(&[("cache-control", "max-age=60")], "good"))
            .await;
        assert_eq!(
            (victim.status, &victim.body[..]),
            (200, b"good".as_slice()),
            "{what}"
        );
    }
}

/// A GET with content: the origin may answer by the content, which no key holds.
#[tokio::test]
async fn fat_gets_go_around() {
    let gateway = Gateway::new(RulePolicy::default());
    let fresh = |body| move |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], body);
    for line in [
        ("content-length", "9"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
    ] {
        assert_eq!(
            gateway.get(&[line], fresh("evil")).await.level(),
            "BYPASS",
            "{line:?}"
        );
    }
    assert_eq!(
        gateway
            .get(&[("content-length", "0")], fresh("good"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(gateway.get(&[], |_| None).await.body, "good");
}

#[tokio::test]
async fn hosts_and_schemes_do_not_mix() {
    let gateway = Gateway::new(RulePolicy::default());
    let none = HeaderMap::new();
    let named = |host: &'static str, scheme: &'static str| RequestView {
        host,
        scheme,
        ..view(&none)
    };
    let fresh = |body| move |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], body);
    gateway
        .ask(&named("a.example", "http"), fresh("redirect"))
        .await;
    assert_eq!(
        gateway
            .ask(&named("a.example", "https"), fresh("page"))
            .await
            .body,
        "page"
    );
    assert_eq!(
        gateway
            .ask(&named("b.example", "http"), fresh("other"))
            .await
            .body,
        "other"
    );
}

proptest! {
    /// Whatever the origin declares: two identified callers share an answer only if it was declared shareable.
    #[test]
    fn sharing_needs_the_origins_word(
        words in proptest::collection::vec(
            prop_oneof![
                Just("public"), Just("private"), Just("no-store"), Just("no-cache"), Just("must-revalidate"),
                Just("proxy-revalidate"), Just("max-age=60"), Just("s-maxage=60"), Just("max-age=0"),
                Just("immutable"), Just("stale-while-revalidate=60"), Just("stale-if-error=60"), Just("junk=\"a,b\""),
            ],
            0..5,
        ),
        cookie in any::<bool>(),
        ttl in proptest::option::of(1u64..100),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        runtime.block_on(async {
            let gateway = Gateway::new(RulePolicy { mode: Mode::On, ttl_s: ttl, ..RulePolicy::default() });
            let headers = if cookie { fields(&[("cookie", "a=b")]) } else { HeaderMap::new() };
            let text = words.join(", ");
            let lines = [("cache-control", text.as_str()), ("etag", "\"1\"")];
            let alice = RequestView { principal: Some("alice"), ..view(&headers) };
            let bob = RequestView { principal: Some("bob"), ..view(&headers) };
            gateway.ask(&alice, |_| ok(&lines, "alice")).await;
            let got = gateway.ask(&bob, |seen| {
                if seen.contains_key("if-none-match") { said(304, &[], "") } else { ok(&lines, "bob") }
            }).await;
            let declared = words.iter().any(|w| matches!(*w, "public" | "must-revalidate" | "s-maxage=60"));
            let forbidden = words.iter().any(|w| matches!(*w, "private" | "no-store"));
            if got.body == "alice" {
                prop_assert!(declared && !forbidden, "{}", text);
            }
            Ok(())
        })?;
    }
}
