//! The cache contract (SC-14): single-flight, ends, negative entries, and no stale value after a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portico_base::{ManualClock, SeededRandom, SystemClock, id};
use portico_state::testing::{Backend, Replica, each_backend};
use portico_state::{Cache, CacheKind, Deps, Levels};
use portico_telemetry::metrics::{Format, Registry};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::wait::until;

static USERS: CacheKind = CacheKind {
    service: "test",
    kind: "user",
    form: 1,
    ttl: Duration::from_secs(100),
    negative: Duration::from_secs(5),
    max_entries: 1_000,
    levels: Levels::Shared,
};

const T: Uuid = id::TENANT_DEFAULT;

fn users(replica: &Replica) -> Cache<String> {
    replica.state.cache(&USERS)
}

async fn load(cache: &Cache<String>, tenant: Uuid, id: &str, value: &str) -> String {
    let found = cache
        .get_or_load::<String, _, _>(tenant, id, || async { Ok(Some(value.to_owned())) })
        .await;
    found.unwrap().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_misses_load_once() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let cache = users(&replica);
        let (loads, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut tasks = Vec::new();
        for _ in 0..10_000 {
            let (cache, loads, gate) = (cache.clone(), Arc::clone(&loads), Arc::clone(&gate));
            tasks.push(tokio::spawn(async move {
                let load = || async move {
                    loads.fetch_add(1, SeqCst);
                    gate.notified().await;
                    Ok::<_, String>(Some("bob".to_owned()))
                };
                cache.get_or_load(T, "1", load).await.unwrap().unwrap()
            }));
        }
        gate.notify_one();
        for task in tasks {
            assert_eq!(*task.await.unwrap(), "bob");
        }
        assert_eq!(loads.load(SeqCst), 1, "{}", backend.name());
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_load_is_handed_over() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let cache = users(&replica);
        let begun = Arc::new(Notify::new());
        let leader = tokio::spawn({
            let (cache, begun) = (cache.clone(), Arc::clone(&begun));
            async move {
                let load = || async move {
                    begun.notify_one();
                    std::future::pending::<Result<Option<String>, String>>().await
                };
                cache.get_or_load(T, "1", load).await
            }
        });
        begun.notified().await;
        let mut waiter = Box::pin(load(&cache, T, "1", "second"));
        assert!(
            futures_util::poll!(&mut waiter).is_pending(),
            "it waits for the leader"
        );
        leader.abort();
        assert_eq!(waiter.await, "second", "{}", backend.name());
    })
    .await;
}

#[tokio::test]
async fn errors_reach_all_who_wait_and_are_not_kept() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let cache = users(&replica);
        let failing = || {
            cache.get_or_load(T, "1", || async {
                tokio::task::yield_now().await;
                Err("database is away")
            })
        };
        let (a, b) = tokio::join!(failing(), failing());
        assert_eq!(*a.unwrap_err(), "database is away");
        assert_eq!(*b.unwrap_err(), "database is away");
        assert_eq!(load(&cache, T, "1", "bob").await, "bob");
    })
    .await;
}

#[tokio::test]
async fn values_end_by_the_clock_and_nothing_is_remembered_shortly() {
    each_backend(|backend| async move {
        let registry = Registry::default();
        let clock = ManualClock::at(portico_base::Clock::now(&SystemClock));
        let deps = Deps {
            clock: Arc::new(clock.clone()),
            random: Arc::new(SeededRandom::new(1)),
            registry: registry.clone(),
        };
        let replica = backend.replica_with(&deps).await;
        let cache = users(&replica);
        assert_eq!(load(&cache, T, "1", "old").await, "old");
        let none = || async { Ok::<Option<String>, String>(None) };
        assert_eq!(cache.get_or_load(T, "2", none).await.unwrap(), None);
        assert_eq!(cache.peek(T, "2"), Some(None));
        clock.advance(chrono_seconds(6));
        assert_eq!(cache.peek(T, "2"), None, "nothing lives 5 s");
        assert!(cache.peek(T, "1").is_some());
        clock.advance(chrono_seconds(84));
        assert!(cache.peek(T, "1").is_some(), "at least 0.9 of its time");
        clock.advance(chrono_seconds(21));
        assert_eq!(cache.peek(T, "1"), None, "at most 1.1 of its time");
        let text = registry.render(Format::Prometheus);
        let line = "portico_state_cache_requests_total{name=\"test.user\",level=\"load\",result=\"negative\"} 1\n";
        assert!(text.contains(line), "{text}");
    })
    .await;
}

fn chrono_seconds(s: i64) -> chrono::Duration {
    chrono::Duration::seconds(s)
}

#[tokio::test]
async fn the_number_of_values_is_bounded() {
    let replica = Backend::local().replica().await;
    let cache = users(&replica);
    for i in 0..5_000 {
        load(&cache, T, &i.to_string(), "x").await;
    }
    assert!(cache.entries() <= 1_000, "{}", cache.entries());
}

#[tokio::test]
async fn a_load_that_began_before_a_change_does_not_bring_the_old_value_back() {
    each_backend(|backend| async move {
        let replica = backend.replica().await;
        let cache = users(&replica);
        for whole_tenant in [false, true] {
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let slow = tokio::spawn({
                let (cache, begun, go) = (cache.clone(), Arc::clone(&begun), Arc::clone(&go));
                async move {
                    let load = || async move {
                        begun.notify_one();
                        go.notified().await;
                        Ok::<_, String>(Some("old".to_owned()))
                    };
                    cache.get_or_load(T, "1", load).await.unwrap().unwrap()
                }
            });
            begun.notified().await;
            // The change is committed here; its event removes the value.
            if whole_tenant {
                cache.remove_tenant(T).await;
            } else {
                cache.remove(T, "1").await;
            }
            // Whoever asks after the event must not wait for the load from before it.
            assert_eq!(
                load(&cache, T, "1", "new").await,
                "new",
                "{}",
                backend.name()
            );
            go.notify_one();
            assert_eq!(*slow.await.unwrap(), "old", "it asked before the change");
            assert_eq!(load(&cache, T, "1", "wrong").await, "new");
            let second = backend.replica().await;
            if backend.name() == "redis" {
                assert_eq!(load(&users(&second), T, "1", "wrong").await, "new");
            }
            cache.remove(T, "1").await;
        }
    })
    .await;
}

/// A transaction that changes nothing but runs what waits for its commit.
#[derive(Default)]
struct Change(std::sync::Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl portico_base::Tx for Change {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn after_commit(&self, f: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(f);
    }
}

impl Change {
    fn commit(self) {
        for callback in self.0.into_inner().unwrap() {
            callback();
        }
    }
}

#[tokio::test]
async fn no_read_after_the_commit_is_stale() {
    each_backend(|backend| async move {
        let (one, two) = (backend.replica().await, backend.replica().await);
        let (a, b) = (users(&one), users(&two));
        assert_eq!(load(&a, T, "1", "old").await, "old");
        let both = backend.name() == "redis";
        if both {
            assert_eq!(load(&b, T, "1", "loaded twice").await, "old");
        }
        let change = Change::default();
        a.remove_on_commit(&change, T, "1");
        assert_eq!(
            load(&a, T, "1", "not yet").await,
            "old",
            "nothing is committed"
        );
        change.commit();
        assert_eq!(a.peek(T, "1"), None);
        assert_eq!(load(&a, T, "1", "new").await, "new");
        if both {
            until("the other replica hears of it", async || {
                load(&b, T, "1", "new").await == "new"
            })
            .await;
        }
        drop(Change::default());
        assert_eq!(
            load(&a, T, "1", "wrong").await,
            "new",
            "a rollback removes nothing"
        );
        a.clear();
        assert_eq!(a.peek(T, "1"), None);
    })
    .await;
}

#[tokio::test]
async fn replicas_share_values_and_removals() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let (one, two) = (backend.replica().await, backend.replica().await);
    let (a, b) = (users(&one), users(&two));
    let other = id::TENANT_SYSTEM;
    assert_eq!(load(&a, T, "1", "v1").await, "v1");
    assert_eq!(load(&a, other, "1", "o1").await, "o1");
    assert_eq!(load(&b, T, "1", "loaded twice").await, "v1");
    assert_eq!(load(&b, other, "1", "loaded twice").await, "o1");
    // The removal reaches the other's first level over the bus.
    let mut heard = two.state.bus().subscribe("state.cache");
    a.remove(T, "1").await;
    heard.recv().await;
    // The follower got the message at the same time as this subscriber; wait until it has acted.
    until("the removal", async || b.peek(T, "1").is_none()).await;
    assert_eq!(load(&b, T, "1", "v2").await, "v2");
    assert_eq!(load(&a, T, "1", "wrong").await, "v2");
    a.remove_tenant(T).await;
    heard.recv().await;
    until("the removal", async || b.peek(T, "1").is_none()).await;
    assert_eq!(load(&b, T, "1", "v3").await, "v3");
    assert_eq!(
        *b.peek(other, "1").unwrap().unwrap(),
        "o1",
        "other tenants keep theirs"
    );
}

#[tokio::test]
async fn a_removal_that_redis_did_not_hear_is_repeated() {
    let Some(backend) = Backend::redis() else {
        return;
    };
    let server = backend.server().unwrap();
    let (one, two) = (backend.replica().await, backend.replica().await);
    let (a, b) = (users(&one), users(&two));
    assert_eq!(load(&a, T, "1", "old").await, "old");
    server.freeze();
    a.remove(T, "1").await;
    assert_eq!(
        load(&a, T, "1", "new").await,
        "new",
        "Redis is not asked meanwhile"
    );
    server.thaw();
    one.state.connected().await;
    two.state.connected().await;
    // It may find the old value in Redis until Redis has heard; then it is told to forget it.
    until("the removal", async || {
        load(&b, T, "1", "new").await == "new"
    })
    .await;
    assert_eq!(load(&a, T, "1", "wrong").await, "new");
}
