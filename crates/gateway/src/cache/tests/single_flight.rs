//! One request to the origin for many misses, whatever becomes of the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn clock() -> u64 {
    START
}

/// Leads or waits; a leader fetches after `gate` has opened.
async fn request(
    cache: Cache,
    rule: Arc<RulePolicy>,
    gate: Arc<Semaphore>,
    fetches: Arc<AtomicUsize>,
    words: &'static str,
) -> (&'static str, Bytes) {
    let none = HeaderMap::new();
    let asked = view(&none);
    match cache.lookup(&asked, &rule, START) {
        Lookup::Hit(answer) => ("hit", answer.body()),
        Lookup::Miss(ticket) => match ticket.turn(&asked, &rule, WAIT, &clock).await {
            Turn::Ready(answer) => ("ready", answer.body()),
            Turn::Lead(mut leader) => {
                leader.prepare(&mut HeaderMap::new(), START);
                fetches.fetch_add(1, Ordering::SeqCst);
                let _open = gate.acquire().await.expect("open");
                let head = fields(&[("cache-control", words)]);
                match leader.fill(&asked, &rule, StatusCode::OK, &head, START) {
                    Fill::Collect(mut collector) => {
                        collector.push(&Bytes::from_static(b"an"));
                        tokio::task::yield_now().await;
                        collector.push(&Bytes::from_static(b"swer"));
                        collector.finish(START);
                        ("led", Bytes::from_static(b"answer"))
                    }
                    Fill::Through(_) => ("through", Bytes::from_static(b"answer")),
                    Fill::Answer(answer) => ("answer", answer.body()),
                }
            }
            Turn::Busy => ("busy", Bytes::new()),
            Turn::TimedOut => ("late", Bytes::new()),
        },
        _ => ("other", Bytes::new()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_misses_are_one_fetch() {
    let cache = Cache::new(CacheConfig::default());
    let rule = Arc::new(RulePolicy::default());
    let gate = Arc::new(Semaphore::new(0));
    let fetches = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..10_000)
        .map(|_| {
            tokio::spawn(request(
                cache.clone(),
                Arc::clone(&rule),
                Arc::clone(&gate),
                Arc::clone(&fetches),
                "max-age=60",
            ))
        })
        .collect();
    while cache.gauges().waiters < 9_999 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for task in join_all(tasks).await {
        let (_, body) = task.expect("joined");
        assert_eq!(body, "answer");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert_eq!(cache.stats().total(Outcome::Miss), 1);
    assert_eq!(cache.stats().total(Outcome::Collapsed), 9_999);
    assert_eq!((cache.gauges().waiters, cache.gauges().fetches), (0, 0));
}

#[tokio::test]
async fn cancelled_leaders_are_survived() {
    let cache = Cache::new(CacheConfig::default());
    let rule = Arc::new(RulePolicy::default());
    let gate = Arc::new(Semaphore::new(0));
    let fetches = Arc::new(AtomicUsize::new(0));
    let mut tasks: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(request(
                cache.clone(),
                Arc::clone(&rule),
                Arc::clone(&gate),
                Arc::clone(&fetches),
                "max-age=60",
            ))
        })
        .collect();
    for cancelled in 0..5 {
        // The next leader is under way when it is cancelled.
        while fetches.load(Ordering::SeqCst) < cancelled + 1 {
            tokio::task::yield_now().await;
        }
        let leader = tasks.remove(0);
        leader.abort();
        assert!(leader.await.is_err_and(|e| e.is_cancelled()));
    }
    gate.add_permits(1);
    let results = join_all(tasks).await;
    assert_eq!(results.len(), 95);
    for result in results {
        assert_eq!(result.expect("joined").1, "answer");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 6);
    assert_eq!(cache.gauges().fetches, 0);
}

#[tokio::test]
async fn uncacheable_answers_let_everybody_through() {
    let cache = Cache::new(CacheConfig::default());
    let rule = Arc::new(RulePolicy::default());
    let gate = Arc::new(Semaphore::new(0));
    let fetches = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            tokio::spawn(request(
                cache.clone(),
                Arc::clone(&rule),
                Arc::clone(&gate),
                Arc::clone(&fetches),
                "no-store",
            ))
        })
        .collect();
    while cache.gauges().waiters < 49 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    gate.add_permits(1);
    for result in join_all(tasks).await {
        assert_eq!(result.expect("joined").0, "through");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 50);
    // The mark: whoever comes within ten seconds does not wait for anybody.
    let none = HeaderMap::new();
    for _ in 0..2 {
        let Lookup::Miss(ticket) = cache.lookup(&view(&none), &rule, START + 9_000) else {
            panic!("a miss")
        };
        let turn = ticket
            .turn(&view(&none), &rule, Duration::ZERO, &clock)
            .await;
        assert!(matches!(turn, Turn::Lead(_)));
        std::mem::forget(turn);
    }
}

#[tokio::test]
async fn variants_do_not_wait_for_each_other_in_vain() {
    let cache = Cache::new(CacheConfig::default());
    let rule = RulePolicy::default();
    let (one, two) = (fields(&[("foo", "1")]), fields(&[("foo", "2")]));
    let Lookup::Miss(first) = cache.lookup(&view(&one), &rule, START) else {
        panic!("a miss")
    };
    let Turn::Lead(leader) = first.turn(&view(&one), &rule, WAIT, &clock).await else {
        panic!("the lead")
    };
    let Lookup::Miss(second) = cache.lookup(&view(&two), &rule, START) else {
        panic!("a miss")
    };
    let asked = view(&two);
    let mut waiting = std::pin::pin!(second.turn(&asked, &rule, WAIT, &clock));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let head = fields(&[("cache-control", "max-age=60"), ("vary", "foo")]);
    let Fill::Collect(collector) = leader.fill(&view(&one), &rule, StatusCode::OK, &head, START)
    else {
        panic!("storable")
    };
    collector.finish(START);
    assert!(
        matches!(waiting.await, Turn::Lead(_)),
        "another variant: it fetches its own"
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_has_an_end() {
    let cache = Cache::new(CacheConfig::default());
    let rule = RulePolicy::default();
    let none = HeaderMap::new();
    let Lookup::Miss(first) = cache.lookup(&view(&none), &rule, START) else {
        panic!("a miss")
    };
    let Turn::Lead(_leader) = first.turn(&view(&none), &rule, WAIT, &clock).await else {
        panic!("the lead")
    };
    let Lookup::Miss(second) = cache.lookup(&view(&none), &rule, START) else {
        panic!("a miss")
    };
    assert!(matches!(
        second.turn(&view(&none), &rule, WAIT, &clock).await,
        Turn::TimedOut
    ));
    assert_eq!(cache.gauges().waiters, 0);
}

#[tokio::test]
async fn callers_with_credentials_do_not_queue_for_each_other() {
    let cache = Cache::new(CacheConfig::default());
    let rule = RulePolicy::default();
    let none = HeaderMap::new();
    let mut leaders = Vec::new();
    for user in ["alice", "bob"] {
        let asked = RequestView {
            principal: Some(user),
            ..view(&none)
        };
        let Lookup::Miss(ticket) = cache.lookup(&asked, &rule, START) else {
            panic!("a miss")
        };
        let turn = ticket.turn(&asked, &rule, Duration::ZERO, &clock).await;
        assert!(
            matches!(turn, Turn::Lead(_)),
            "{user} waits for a stranger's answer"
        );
        leaders.push(turn);
    }
    assert_eq!(leaders.len(), 2);
}

#[tokio::test]
async fn a_failed_origin_gives_waiters_the_stale_answer() {
    let gateway = Gateway::new(RulePolicy::default());
    gateway
        .get(&[], |_| ok(&[("cache-control", "max-age=10")], "old"))
        .await;
    let later = START + 20_000;
    let late = move || later;
    let none = HeaderMap::new();
    let asked = view(&none);
    let Lookup::Miss(first) = gateway.cache.lookup(&asked, &gateway.rule, later) else {
        panic!("stale")
    };
    let Turn::Lead(leader) = first.turn(&asked, &gateway.rule, WAIT, &late).await else {
        panic!("the lead")
    };
    let Lookup::Miss(second) = gateway.cache.lookup(&asked, &gateway.rule, later) else {
        panic!("stale")
    };
    let mut waiting = std::pin::pin!(second.turn(&asked, &gateway.rule, WAIT, &late));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(leader.on_error(&asked, later).is_some());
    let Turn::Ready(answer) = waiting.await else {
        panic!("an answer")
    };
    assert_eq!(
        (
            answer.headers(None)["x-cache"].to_str().expect("text"),
            &answer.body()[..]
        ),
        ("STALE", b"old".as_slice())
    );
}
