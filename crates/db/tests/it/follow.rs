//! The outbox and its followers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::Duration as Span;
use portico_base::Clock as _;
use portico_db::testing::{each_backend, postgres};
use portico_db::{Db, News};
use serde_json::json;

/// Long enough that no test passes by polling.
const NEVER: Duration = Duration::from_secs(3_600);

async fn publish(db: &Db, topic: &str, key: &str) -> u64 {
    let tx = db.begin().await.unwrap();
    tx.publish(topic, key, &json!({ "of": key })).unwrap();
    tx.commit().await.unwrap().last_seq.unwrap()
}

#[tokio::test]
async fn events_come_with_their_transaction_or_not_at_all() {
    each_backend(async |t| {
        let tx = t.db.begin().await.unwrap();
        tx.publish("a.thing.changed", "1", &json!({})).unwrap();
        drop(tx);
        let tx = t.db.begin().await.unwrap();
        tx.set_trace(Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        tx.publish("a.thing.changed", "2", &json!({"n": 2}))
            .unwrap();
        tx.publish("b.thing.changed", "3", &"x").unwrap();
        assert_eq!(tx.commit().await.unwrap().last_seq, Some(2));
        let rows = t.db.outbox().read(&[], 0, 10).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].seq, rows[0].key.as_str()), (1, "2"));
        assert_eq!(rows[0].payload, json!({"n": 2}));
        assert_eq!(rows[0].created_at, t.clock.now());
        assert!(rows[0].trace.as_deref().unwrap().starts_with("4bf9"));
        assert_eq!(rows[1].decode::<String>().unwrap(), "x");
        let only_b = ["b.thing.changed".to_owned()];
        assert_eq!(t.db.outbox().read(&only_b, 0, 10).await.unwrap().len(), 1);
        assert_eq!(t.db.outbox().head().await.unwrap(), 2);
    })
    .await;
}

#[tokio::test]
async fn many_events_of_one_transaction_stay_in_order() {
    each_backend(async |t| {
        let tx = t.db.begin().await.unwrap();
        for i in 0..1_234 {
            tx.publish("a", &i.to_string(), &i).unwrap();
        }
        tx.commit().await.unwrap();
        let mut follower = t.db.follow(&["a"], 0, NEVER);
        let mut seen = Vec::new();
        while seen.len() < 1_234 {
            let News::Events(rows) = follower.next().await.unwrap() else {
                panic!("nothing was removed");
            };
            seen.extend(rows.into_iter().map(|r| r.decode::<i32>().unwrap()));
        }
        assert_eq!(seen, (0..1_234).collect::<Vec<i32>>());
    })
    .await;
}

/// P§9: a number may never become visible after a higher one, or a follower skips it for good.
#[tokio::test]
async fn two_open_transactions_cannot_hide_an_event_from_a_follower() {
    let Some(t) = postgres().await else { return };
    let mut follower = t.db.follow(&["a"], 0, NEVER);
    let first = t.db.begin().await.unwrap();
    let second = t.db.begin().await.unwrap();
    // The first has published and is still open; its number is only given at its commit.
    first.publish("a", "first", &1).unwrap();
    second.publish("a", "second", &2).unwrap();
    second.commit().await.unwrap();
    let News::Events(rows) = follower.next().await.unwrap() else {
        panic!("nothing was removed");
    };
    assert_eq!(rows[0].key, "second");
    first.commit().await.unwrap();
    let News::Events(rows) = follower.next().await.unwrap() else {
        panic!("nothing was removed");
    };
    assert_eq!((rows[0].key.as_str(), rows.len()), ("first", 1));
    t.finish().await;
}

/// The same with numbers that services take early: the second waits for the first to end.
#[tokio::test]
async fn an_early_number_keeps_later_ones_waiting() {
    let Some(t) = postgres().await else { return };
    let first = t.db.begin().await.unwrap();
    let second = t.db.begin().await.unwrap();
    assert_eq!(first.next_seq("feed").await.unwrap(), 1);
    let mut waiting = Box::pin(second.next_seq("feed"));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    assert_eq!(t.db.current_seq("feed").await.unwrap(), 0);
    first.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap(), 2);
    second.commit().await.unwrap();
    assert_eq!(t.db.current_seq("feed").await.unwrap(), 2);
    t.finish().await;
}

#[tokio::test]
async fn concurrent_writers_and_a_follower_agree_on_the_order() {
    each_backend(async |t| {
        let writers = (0..30).map(|i| {
            let db = t.db.clone();
            async move { publish(&db, "a", &i.to_string()).await }
        });
        let mut follower = t.db.follow(&["a"], 0, NEVER);
        let reading = async {
            let mut seen = Vec::new();
            while seen.len() < 30 {
                if let News::Events(rows) = follower.next().await.unwrap() {
                    seen.extend(rows.into_iter().map(|r| r.seq));
                }
            }
            seen
        };
        let (mut written, seen) = tokio::join!(futures_util::future::join_all(writers), reading);
        written.sort_unstable();
        assert_eq!(seen, written);
        assert_eq!(seen, (1..=30).collect::<Vec<u64>>());
    })
    .await;
}

#[tokio::test]
async fn a_commit_wakes_the_follower_of_its_topic() {
    each_backend(async |t| {
        let mut follower = t.db.follow(&["a"], 0, NEVER);
        let mut next = Box::pin(follower.next());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        publish(&t.db, "a", "1").await;
        assert!(matches!(next.await.unwrap(), News::Events(rows) if rows.len() == 1));
    })
    .await;
}

#[tokio::test]
async fn a_commit_elsewhere_is_heard_of_by_wake_or_poll() {
    each_backend(async |t| {
        let other = t.another().await;
        let mut follower = t.db.follow(&["a"], 0, NEVER);
        let mut next = Box::pin(follower.next());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        let seq = publish(&other, "a", "1").await;
        // What the host does when the bus brings the news.
        t.db.wake("a", seq);
        assert!(matches!(next.await.unwrap(), News::Events(_)));
        let mut polling = t.db.follow(&["a"], seq, Duration::from_millis(1));
        let mut next = Box::pin(polling.next());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        publish(&other, "a", "2").await;
        assert!(matches!(next.await.unwrap(), News::Events(rows) if rows[0].key == "2"));
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_was_away_too_long_reads_everything_anew() {
    each_backend(async |t| {
        publish(&t.db, "a", "old").await;
        publish(&t.db, "b", "old too").await;
        let mut late = t.db.follow(&["a"], 0, NEVER);
        let mut quiet = t.db.follow(&["c"], 0, NEVER);
        assert_eq!(quiet.poll().await.unwrap(), None);
        assert_eq!(quiet.position(), 2);
        t.clock.advance(Span::hours(25));
        publish(&t.db, "a", "new").await;
        let before = t.clock.now() - portico_db::KEPT;
        assert_eq!(t.db.outbox().trim(before).await.unwrap(), 2);
        assert_eq!(t.db.outbox().trim(before).await.unwrap(), 0);
        assert_eq!(t.db.outbox().trimmed().await.unwrap(), 2);
        assert_eq!(late.next().await.unwrap(), News::Reset);
        assert_eq!(late.position(), 3);
        // A topic on which nothing happened is not late.
        assert_eq!(quiet.poll().await.unwrap(), None);
        // A database restored from a backup is behind its followers.
        let mut ahead = t.db.follow(&["a"], 900, NEVER);
        assert_eq!(ahead.poll().await.unwrap(), Some(News::Reset));
        assert_eq!(ahead.position(), 3);
    })
    .await;
}

#[tokio::test]
async fn wakers_hear_the_topic_and_the_number() {
    each_backend(async |t| {
        let last = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&last);
        let subscription = t.db.on_commit(Some("a"), move |_, seq| {
            heard.store(seq, Ordering::SeqCst);
        });
        publish(&t.db, "b", "1").await;
        assert_eq!(last.load(Ordering::SeqCst), 0);
        let seq = publish(&t.db, "a", "2").await;
        assert_eq!(last.load(Ordering::SeqCst), seq);
        drop(subscription);
        publish(&t.db, "a", "3").await;
        assert_eq!(last.load(Ordering::SeqCst), seq);
    })
    .await;
}

/// SC-2: without Redis the replicas wake each other through PostgreSQL.
#[tokio::test]
async fn replicas_wake_each_other_by_notify() {
    let Some(t) = postgres().await else { return };
    let other = t.another().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut follower = t.db.follow(&["a"], 0, NEVER);
    let heard = async {
        // Listening begins with a wake-up for all, so the first event comes by it or by its own message.
        for key in ["1", "2", "3"] {
            let mut next = Box::pin(follower.next());
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            publish(&other, "a", key).await;
            assert!(matches!(next.await.unwrap(), News::Events(rows) if rows[0].key == key));
        }
        stop.cancel();
    };
    tokio::join!(t.db.relay_wakes(&stop), other.relay_wakes(&stop), heard);
    other.close().await;
    t.finish().await;
}

/// What `Db::wake` brings in is not told to others again, or it would go round for ever.
#[tokio::test]
async fn news_from_others_are_not_passed_on() {
    each_backend(async |t| {
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        let _subscription = t.db.on_commit(None, move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        t.db.wake("a", 7);
        assert_eq!(told.load(Ordering::SeqCst), 0);
        publish(&t.db, "a", "1").await;
        assert_eq!(told.load(Ordering::SeqCst), 1);
    })
    .await;
}
