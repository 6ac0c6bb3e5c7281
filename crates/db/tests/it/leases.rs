//! Leases: one holder at a time, and late writes of a paused one are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::Duration as Span;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, Query};
use portico_db::testing::{TestDb, each_backend};
use portico_db::{Backend, DbError, LeaseTiming, Leases};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{get, put, words};

/// Lets the time of all leases pass: the clock on SQLite, the rows on PostgreSQL, whose own time counts.
async fn pass(t: &TestDb, seconds: i64) {
    t.clock.advance(Span::seconds(seconds));
    if t.backend() == Backend::Postgres {
        let tx = t.db.begin().await.unwrap();
        let mut update = Query::update();
        update.table("leases").value(
            "expires_at",
            Expr::cust(format!("expires_at - interval '{seconds} seconds'")),
        );
        tx.execute(&update).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn only_one_holds_and_each_holder_has_its_number() {
    each_backend(async |t| {
        let leases = t.db.leases();
        let first = leases.acquire("cron", "a").await.unwrap().unwrap();
        assert_eq!(first.fencing, 1);
        assert_eq!(leases.acquire("cron", "b").await.unwrap(), None);
        assert_eq!(leases.acquire("cron", "a").await.unwrap(), None);
        assert!(leases.acquire("other", "b").await.unwrap().is_some());
        pass(t, 14).await;
        let renewed = leases.renew(&first).await.unwrap().unwrap();
        assert!(renewed.expires_at > first.expires_at - Span::seconds(1));
        pass(t, 14).await;
        assert_eq!(leases.acquire("cron", "b").await.unwrap(), None);
        pass(t, 2).await;
        let second = leases.acquire("cron", "b").await.unwrap().unwrap();
        assert_eq!((second.fencing, second.holder.as_str()), (2, "b"));
        assert_eq!(leases.renew(&first).await.unwrap(), None);
        assert!(!leases.release(&first).await.unwrap());
        let names: Vec<String> = leases
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|l| l.name)
            .collect();
        assert_eq!(names, ["cron"]);
        assert!(leases.release(&second).await.unwrap());
        assert!(leases.list().await.unwrap().is_empty());
        let third = leases.acquire("cron", "a").await.unwrap().unwrap();
        assert_eq!(third.fencing, 3);
        assert!(leases.take_away("cron").await.unwrap());
        assert_eq!(leases.renew(&third).await.unwrap(), None);
        assert!(!leases.take_away("cron").await.unwrap());
        let killed = leases.acquire("cron", "a").await.unwrap().unwrap();
        leases.end_all().await.unwrap();
        assert!(leases.list().await.unwrap().is_empty());
        assert_eq!(leases.renew(&killed).await.unwrap(), None);
        assert!(leases.acquire("cron", "b").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn of_many_at_once_one_wins() {
    each_backend(async |t| {
        let asking = (0..10).map(|i| {
            let leases = t.db.leases();
            async move { leases.acquire("cron", &i.to_string()).await.unwrap() }
        });
        let won = futures_util::future::join_all(asking).await;
        assert_eq!(won.iter().flatten().count(), 1);
    })
    .await;
}

/// A holder that slept through the end of its lease writes late: never are two numbers accepted.
#[tokio::test]
async fn the_late_write_of_a_paused_holder_is_refused() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let leases = t.db.leases();
        let paused = leases.acquire("cron", "a").await.unwrap().unwrap();
        pass(t, 30).await;
        let next = leases.acquire("cron", "b").await.unwrap().unwrap();
        let tx = t.db.begin().await.unwrap();
        tx.fence(&next).await.unwrap();
        put(&tx, "by b", 1).await.unwrap();
        tx.commit().await.unwrap();
        let tx = t.db.begin().await.unwrap();
        put(&tx, "by a", 1).await.unwrap();
        let error = tx.fence(&paused).await.unwrap_err();
        assert!(matches!(error, DbError::LeaseLost(name) if name == "cron"));
        drop(tx);
        assert_eq!(get(t.db.reader(), "by a").await.unwrap(), None);
        assert_eq!(get(t.db.reader(), "by b").await.unwrap(), Some(1));
    })
    .await;
}

/// While a fenced transaction is open nobody else gets the lease, even after its end.
#[tokio::test]
async fn a_fence_holds_until_the_transaction_ends() {
    let Some(t) = portico_db::testing::postgres().await else {
        return;
    };
    let leases = t.db.leases();
    let lease = leases.acquire("cron", "a").await.unwrap().unwrap();
    pass(&t, 30).await;
    let tx = t.db.begin().await.unwrap();
    tx.fence(&lease).await.unwrap();
    let mut taking = Box::pin(leases.acquire("cron", "b"));
    // It needs several answers of the server, so it is looked at more than once.
    for _ in 0..20 {
        assert!(futures_util::poll!(taking.as_mut()).is_pending());
        t.db.ping().await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(taking.await.unwrap().unwrap().fencing, 2);
    t.finish().await;
}

fn quick(leases: Leases) -> Leases {
    leases.with_timing(LeaseTiming {
        ttl: Duration::from_secs(30),
        renew: Duration::from_millis(50),
        stop: Duration::from_millis(600),
    })
}

#[tokio::test]
async fn work_runs_under_its_lease_and_gives_it_back() {
    each_backend(async |t| {
        let leases = quick(t.db.leases());
        let stop = CancellationToken::new();
        let seen = leases
            .hold("cron", "a", &stop, |held| {
                let leases = leases.clone();
                async move {
                    assert_eq!(leases.acquire("cron", "b").await.unwrap(), None);
                    held.lease.fencing
                }
            })
            .await;
        assert_eq!(seen, Some(1));
        assert!(leases.acquire("cron", "b").await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_changes_hands_is_news() {
    each_backend(async |t| {
        let leases = quick(t.db.leases());
        let first = leases.acquire("cron", "a").await.unwrap().unwrap();
        assert!(leases.release(&first).await.unwrap());
        let stop = CancellationToken::new();
        let db = t.db.clone();
        // The work sees the news of its own beginning.
        let held = leases.hold("cron", "b", &stop, |_| {
            let (db, topics) = (db.clone(), ["system.lease_moved".to_owned()]);
            async move {
                loop {
                    let rows = db.outbox().read(&topics, 0, 100).await.unwrap();
                    if let Some(row) = rows.into_iter().next() {
                        return row;
                    }
                    tokio::task::yield_now().await;
                }
            }
        });
        let row = held.await.unwrap();
        assert_eq!(
            (row.key.as_str(), &row.payload["holder"]),
            ("cron", &"b".into())
        );
        assert_eq!(row.payload["fencing"], 2);
    })
    .await;
}

#[tokio::test]
async fn a_stop_cancels_the_work_and_frees_the_lease() {
    each_backend(async |t| {
        let leases = quick(t.db.leases());
        let stop = CancellationToken::new();
        let ended = leases
            .hold("cron", "a", &stop, |held| {
                let stop = stop.clone();
                async move {
                    stop.cancel();
                    held.cancel.cancelled().await;
                    "ended by itself"
                }
            })
            .await;
        assert_eq!(ended, Some("ended by itself"));
        assert!(leases.acquire("cron", "b").await.unwrap().is_some());
        let never = leases.hold("cron", "a", &stop, |_| async { 1 }).await;
        assert_eq!(never, None);
    })
    .await;
}

/// The holder's database connections die: its work ends before the lease does, and another takes over.
#[tokio::test]
async fn work_ends_before_its_lease_when_the_database_is_gone() {
    each_backend(async |t| {
        let cut_off = t.another().await;
        let holder = quick(cut_off.leases());
        let stop = CancellationToken::new();
        let (running, started) = oneshot::channel();
        let running = std::sync::Mutex::new(Some(running));
        let (cancelled, told) = oneshot::channel();
        let cancelled = std::sync::Mutex::new(Some(cancelled));
        let work = holder.hold("cron", "a", &stop, |held| {
            let running = running.lock().unwrap().take();
            let cancelled = cancelled.lock().unwrap().take();
            async move {
                let _ = running.unwrap().send(held.lease.clone());
                held.cancel.cancelled().await;
                let _ = cancelled.unwrap().send(std::time::Instant::now());
            }
        });
        let other = async {
            let lease = started.await.unwrap();
            let cut = std::time::Instant::now();
            cut_off.close().await;
            // The lease is still held while the work is told to end.
            let ended = told.await.unwrap();
            assert!(ended - cut < Duration::from_secs(20));
            assert_eq!(t.db.leases().acquire("cron", "b").await.unwrap(), None);
            pass(t, 40).await;
            let next = t.db.leases().acquire("cron", "b").await.unwrap().unwrap();
            assert_eq!(next.fencing, lease.fencing + 1);
        };
        let (done, ()) = tokio::join!(work, other);
        assert_eq!(done, Some(()));
    })
    .await;
}

/// A lease taken away while the holder works: the work is cancelled at the next renewal and, once the
/// lease is free again, begins anew under a higher number.
#[tokio::test]
async fn lost_work_that_does_not_listen_is_dropped_and_begins_anew() {
    each_backend(async |t| {
        let leases = t.db.leases().with_timing(LeaseTiming {
            ttl: Duration::from_millis(400),
            renew: Duration::from_millis(20),
            stop: Duration::from_millis(340),
        });
        let stop = CancellationToken::new();
        let dropped = Arc::new(AtomicI64::new(0));
        struct Deaf(Arc<AtomicI64>, i64);
        impl Drop for Deaf {
            fn drop(&mut self) {
                self.0.store(self.1, Ordering::SeqCst);
            }
        }
        let second = leases
            .hold("cron", "a", &stop, |held| {
                let (leases, dropped) = (leases.clone(), Arc::clone(&dropped));
                async move {
                    if held.lease.fencing > 1 {
                        return held.lease.fencing;
                    }
                    let _deaf = Deaf(dropped, held.lease.fencing);
                    leases.take_away("cron").await.unwrap();
                    std::future::pending().await
                }
            })
            .await;
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        // Taking away raised it to 2, taking again to 3.
        assert_eq!(second, Some(3));
    })
    .await;
}
