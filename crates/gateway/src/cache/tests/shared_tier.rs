//! Two replicas around one shared tier, and a tier that is down.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::*;

/// The shared tier as a map, with a switch for "down".
#[derive(Default)]
struct MapTier {
    values: Mutex<HashMap<String, Bytes>>,
    lists: Mutex<HashMap<String, Vec<Bytes>>>,
    down: AtomicBool,
}

impl MapTier {
    fn up<T: Send>(&self, value: T) -> Result<T, TierError> {
        if self.down.load(Ordering::SeqCst) {
            Err(TierError("down".to_owned()))
        } else {
            Ok(value)
        }
    }
}

impl SharedTier for MapTier {
    fn get<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Option<Bytes>, TierError>> {
        Box::pin(async move { self.up(self.values.lock().get(name).cloned()) })
    }

    fn put<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        _ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move {
            self.up(())?;
            self.values.lock().insert(name.to_owned(), value);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move {
            self.values.lock().remove(name);
            self.up(())
        })
    }

    fn append<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        _most: usize,
        _ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move {
            self.lists
                .lock()
                .entry(name.to_owned())
                .or_default()
                .push(value);
            self.up(())
        })
    }

    fn list<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Vec<Bytes>, TierError>> {
        Box::pin(async move { self.up(self.lists.lock().get(name).cloned().unwrap_or_default()) })
    }

    fn trim(&self, most_bytes: u64) -> TierFuture<'_, Result<TierUse, TierError>> {
        Box::pin(async move {
            self.up(())?;
            let mut values = self.values.lock();
            let bytes = |values: &HashMap<String, Bytes>| -> u64 {
                values.values().map(|v| v.len() as u64).sum()
            };
            let before = values.len() as u64;
            while bytes(&values) > most_bytes {
                let first = values.keys().next().cloned().expect("not empty");
                values.remove(&first);
            }
            Ok(TierUse {
                entries: values.len() as u64,
                bytes: bytes(&values),
                evicted: before - values.len() as u64,
            })
        })
    }
}

fn replica(tier: &Arc<MapTier>) -> Gateway {
    let (cache, writer) = Cache::with_shared(
        CacheConfig::default(),
        Arc::clone(tier) as Arc<dyn SharedTier>,
    );
    tokio::spawn(writer.run());
    Gateway::around(cache, RulePolicy::default())
}

/// Lets the writers work off what is queued.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_one_replica_stores_the_other_serves() {
    let tier = Arc::new(MapTier::default());
    let (first, second) = (replica(&tier), replica(&tier));
    first
        .get(&[], |_| ok(&[("cache-control", "max-age=60")], "body"))
        .await;
    settle().await;
    second.advance(5);
    let got = second.get(&[], |_| None).await;
    assert_eq!((got.level(), &got.body[..]), ("L2", b"body".as_slice()));
    assert_eq!(got.headers["age"], "5");
    assert_eq!(second.get(&[], |_| None).await.level(), "L1");
    assert_eq!(second.fetched.get(), 0);
    assert_eq!(second.cache.stats().total(Outcome::HitL2), 1);
}

#[tokio::test]
async fn variants_travel_too() {
    let tier = Arc::new(MapTier::default());
    let (first, second) = (replica(&tier), replica(&tier));
    let by =
        |body| move |_: &HeaderMap| ok(&[("cache-control", "max-age=60"), ("vary", "foo")], body);
    first.get(&[("foo", "1")], by("one")).await;
    first.get(&[("foo", "2")], by("two")).await;
    settle().await;
    assert_eq!(second.get(&[("foo", "2")], |_| None).await.body, "two");
    assert_eq!(second.get(&[("foo", "1")], |_| None).await.body, "one");
    assert_eq!(
        second.get(&[("foo", "3")], by("three")).await.level(),
        "MISS"
    );
}

#[tokio::test]
async fn a_stale_record_is_validated_or_bridges_an_error() {
    let tier = Arc::new(MapTier::default());
    let (first, second) = (replica(&tier), replica(&tier));
    first
        .get(&[], |_| {
            ok(
                &[("cache-control", "max-age=60"), ("etag", "\"v1\"")],
                "body",
            )
        })
        .await;
    settle().await;
    second.advance(61);
    assert_eq!(second.get(&[], |_| None).await.level(), "STALE");
    let got = second.get(&[], |_| said(304, &[], "")).await;
    assert_eq!(second.seen.borrow()["if-none-match"], "\"v1\"");
    assert_eq!(got.body, "body");
}

#[tokio::test]
async fn a_tier_that_is_down_costs_nothing_but_its_hits() {
    let tier = Arc::new(MapTier::default());
    let gateway = replica(&tier);
    tier.down.store(true, Ordering::SeqCst);
    assert_eq!(
        gateway
            .get(&[], |_| ok(&[("cache-control", "max-age=60")], "body"))
            .await
            .level(),
        "MISS"
    );
    settle().await;
    assert_eq!(gateway.get(&[], |_| None).await.level(), "L1");
    assert_eq!(
        gateway.cache.stats().shared_errors.load(Ordering::SeqCst),
        2,
        "one read, one write"
    );
    assert!(gateway.cache.follow_purges().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_hangs_is_not_waited_for() {
    struct Hanging;
    impl SharedTier for Hanging {
        fn get<'a>(&'a self, _: &'a str) -> TierFuture<'a, Result<Option<Bytes>, TierError>> {
            Box::pin(std::future::pending())
        }
        fn put<'a>(
            &'a self,
            _: &'a str,
            _: Bytes,
            _: u64,
        ) -> TierFuture<'a, Result<(), TierError>> {
            Box::pin(std::future::pending())
        }
        fn remove<'a>(&'a self, _: &'a str) -> TierFuture<'a, Result<(), TierError>> {
            Box::pin(std::future::pending())
        }
        fn append<'a>(
            &'a self,
            _: &'a str,
            _: Bytes,
            _: usize,
            _: u64,
        ) -> TierFuture<'a, Result<(), TierError>> {
            Box::pin(std::future::pending())
        }
        fn list<'a>(&'a self, _: &'a str) -> TierFuture<'a, Result<Vec<Bytes>, TierError>> {
            Box::pin(std::future::pending())
        }
        fn trim(&self, _: u64) -> TierFuture<'_, Result<TierUse, TierError>> {
            Box::pin(std::future::pending())
        }
    }
    let (cache, writer) = Cache::with_shared(CacheConfig::default(), Arc::new(Hanging));
    tokio::spawn(writer.run());
    let gateway = Gateway::around(cache, RulePolicy::default());
    let before = tokio::time::Instant::now();
    assert_eq!(
        gateway
            .get(&[], |_| ok(&[("cache-control", "max-age=60")], "body"))
            .await
            .level(),
        "MISS"
    );
    assert_eq!(before.elapsed(), CacheConfig::default().shared_timeout);
}

#[tokio::test]
async fn purges_reach_the_other_replica_and_one_that_starts_later() {
    let tier = Arc::new(MapTier::default());
    let (first, second) = (replica(&tier), replica(&tier));
    let fresh = |_: &HeaderMap| {
        ok(
            &[("cache-control", "max-age=60"), ("cache-tag", "news")],
            "old",
        )
    };
    first.get(&[], fresh).await;
    settle().await;
    second.get(&[], |_| None).await;
    first.advance(5);
    let order = PurgeOrder {
        by: By::Tag,
        value: "news".to_owned(),
        tenant: None,
        soft: false,
        at_ms: first.now.get(),
    };
    first.cache.purge(&order);
    first.cache.publish_purge(&order).await.expect("up");
    assert_eq!(
        second.get(&[], |_| None).await.level(),
        "L1",
        "has not heard of it yet"
    );
    assert_eq!(second.cache.follow_purges().await, Ok(1));
    let third = replica(&tier);
    assert_eq!(third.cache.follow_purges().await, Ok(1));
    for gateway in [&first, &second, &third] {
        gateway.now.set(first.now.get() + 2000);
        assert_eq!(
            gateway.get(&[], |_| None).await.status,
            502,
            "neither memory nor shared tier serves it"
        );
    }
}

#[tokio::test]
async fn a_new_replica_starts_with_the_hottest() {
    let tier = Arc::new(MapTier::default());
    let first = replica(&tier);
    let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "body");
    let none = HeaderMap::new();
    for path in ["/hot", "/cold"] {
        first
            .ask(
                &RequestView {
                    path,
                    ..view(&none)
                },
                fresh,
            )
            .await;
    }
    first
        .ask(
            &RequestView {
                path: "/hot",
                ..view(&none)
            },
            fresh,
        )
        .await;
    settle().await;
    assert_eq!(first.cache.publish_hot().await, Ok(1));
    let second = replica(&tier);
    assert_eq!(second.cache.load_hot(second.now.get()).await, Ok(1));
    assert_eq!(
        second
            .ask(
                &RequestView {
                    path: "/hot",
                    ..view(&none)
                },
                |_| None
            )
            .await
            .level(),
        "L1"
    );
}

#[tokio::test]
async fn another_replicas_answer_is_only_for_those_who_may() {
    let tier = Arc::new(MapTier::default());
    let (first, second) = (replica(&tier), replica(&tier));
    first
        .get(&[], |_| {
            ok(&[("cache-control", "max-age=60")], "stranger's")
        })
        .await;
    settle().await;
    let none = HeaderMap::new();
    let alice = RequestView {
        principal: Some("alice"),
        ..view(&none)
    };
    let got = second
        .ask(&alice, |_| {
            ok(&[("cache-control", "max-age=60")], "alice's")
        })
        .await;
    assert_eq!(
        (got.level(), &got.body[..]),
        ("MISS", b"alice's".as_slice())
    );
}

#[tokio::test]
async fn the_shared_tier_is_kept_within_its_bound() {
    let tier = Arc::new(MapTier::default());
    let gateway = replica(&tier);
    for path in ["/1", "/2", "/3", "/4"] {
        let none = HeaderMap::new();
        let asked = RequestView {
            path,
            ..view(&none)
        };
        let fresh = |_: &HeaderMap| ok(&[("cache-control", "max-age=60")], "body");
        gateway.ask(&asked, fresh).await;
    }
    settle().await;
    let all = gateway.cache.sweep_shared().await.expect("up");
    assert_eq!((all.entries, all.evicted), (4, 0));
    let config = CacheConfig {
        l2_bytes: all.bytes / 2,
        ..CacheConfig::default()
    };
    gateway.cache.tune(&config);
    let rest = gateway.cache.sweep_shared().await.expect("up");
    assert_eq!((rest.entries, rest.evicted), (2, 2));
    let gauges = gateway.cache.gauges();
    assert_eq!((gauges.l2_entries, gauges.l2_bytes), (2, rest.bytes));
    assert!(
        Cache::new(config)
            .sweep_shared()
            .await
            .expect("none")
            .entries
            == 0
    );
}
