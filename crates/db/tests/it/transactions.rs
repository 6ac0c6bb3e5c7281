//! Transactions: all or nothing, callbacks, durability, collisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use portico_base::{ErrorKind, Fault as _, Tx};
use portico_db::metrics::{Observed, Op};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::testing::each_backend;
use portico_db::{Backend, DbError, WriteTx};

use crate::{add, get, put, words};

#[tokio::test]
async fn what_is_not_committed_is_not_there() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let tx = t.db.begin().await.unwrap();
        put(&tx, "kept", 1).await.unwrap();
        assert_eq!(get(t.db.reader(), "kept").await.unwrap(), None);
        tx.commit().await.unwrap();
        assert_eq!(get(t.db.reader(), "kept").await.unwrap(), Some(1));

        let tx = t.db.begin().await.unwrap();
        put(&tx, "dropped", 1).await.unwrap();
        assert_eq!(get(&tx, "dropped").await.unwrap(), Some(1));
        drop(tx);
        let tx = t.db.begin_durable().await.unwrap();
        assert_eq!(get(&tx, "dropped").await.unwrap(), None);
        put(&tx, "rolled back", 1).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(get(t.db.reader(), "rolled back").await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn callbacks_run_after_the_commit_and_only_then() {
    each_backend(async |t| {
        let ran = Arc::new(AtomicU32::new(0));
        let count = |by: u32| {
            let ran = Arc::clone(&ran);
            Box::new(move || {
                ran.fetch_add(by, Ordering::SeqCst);
            })
        };
        let tx = t.db.begin().await.unwrap();
        tx.after_commit(count(1));
        drop(tx);
        let tx = t.db.begin().await.unwrap();
        tx.after_commit(count(10));
        // Contracts see the border type only.
        let border: &dyn Tx = &tx;
        border.after_commit(count(100));
        assert!(WriteTx::of(border).is_ok());
        assert_eq!(ran.load(Ordering::SeqCst), 0);
        tx.commit().await.unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 110);
    })
    .await;
}

#[tokio::test]
async fn a_panicking_callback_does_not_undo_the_commit() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let tx = t.db.begin().await.unwrap();
        put(&tx, "a", 1).await.unwrap();
        tx.after_commit(Box::new(|| panic!("on purpose")));
        tx.commit().await.unwrap();
        assert_eq!(get(t.db.reader(), "a").await.unwrap(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_interrupt_its_commit() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let (told, heard) = tokio::sync::oneshot::channel();
        let tx = t.db.begin_durable().await.unwrap();
        put(&tx, "a", 1).await.unwrap();
        tx.after_commit(Box::new(move || {
            let _ = told.send(());
        }));
        // One poll begins the commit, then the caller is gone.
        let mut commit = Box::pin(tx.commit());
        assert!(futures_util::poll!(commit.as_mut()).is_pending());
        drop(commit);
        heard.await.unwrap();
        assert_eq!(get(t.db.reader(), "a").await.unwrap(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn durable_writers_share_the_database_without_losing_updates() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let tx = t.db.begin().await.unwrap();
        put(&tx, "sum", 0).await.unwrap();
        tx.commit().await.unwrap();
        let commits = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&commits);
        t.db.metrics().observe(move |what, _| {
            if what == Observed::Query(Op::Commit) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let work = (0..40).map(|i| {
            let db = t.db.clone();
            async move {
                let tx = if i % 2 == 0 {
                    db.begin_durable().await?
                } else {
                    db.begin().await?
                };
                add(&tx, "sum", 1).await?;
                tx.commit().await
            }
        });
        for result in futures_util::future::join_all(work).await {
            result.unwrap();
        }
        assert_eq!(get(t.db.reader(), "sum").await.unwrap(), Some(40));
        assert!(commits.load(Ordering::SeqCst) >= 40);
        if t.backend() == Backend::Sqlite {
            assert!(t.db.wal_bytes().unwrap() > 0);
            t.db.checkpoint().await.unwrap();
            assert_eq!(t.db.wal_bytes(), Some(0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_unique_key_is_a_conflict() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        let tx = t.db.begin().await.unwrap();
        put(&tx, "a", 1).await.unwrap();
        let error = put(&tx, "a", 2).await.unwrap_err();
        assert!(error.is_unique_violation(), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let errors = t.db.metrics().errors();
        assert!(errors.contains(&("unique", 1)), "{errors:?}");
    })
    .await;
}

#[tokio::test]
async fn the_reader_cannot_write_on_sqlite() {
    let t = portico_db::testing::sqlite()
        .await
        .with("test", words())
        .await;
    let error = put(t.db.reader(), "a", 1).await.unwrap_err();
    assert!(matches!(error, DbError::ReadOnly(_)), "{error}");
}

#[tokio::test]
async fn a_deadlock_is_run_again() {
    let Some(t) = portico_db::testing::postgres().await else {
        return;
    };
    let t = t.with("test", words()).await;
    let tx = t.db.begin().await.unwrap();
    put(&tx, "a", 0).await.unwrap();
    put(&tx, "b", 0).await.unwrap();
    tx.commit().await.unwrap();
    // Both have their first row before either asks for its second; in later tries they do not wait.
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let cross = |first: &'static str, second: &'static str| {
        let (db, both) = (t.db.clone(), Arc::clone(&both));
        let first_try = AtomicU32::new(0);
        async move {
            let first_try = &first_try;
            let (inner, both) = (db.clone(), &both);
            db.retry(move || {
                let db = inner.clone();
                async move {
                    let tx = db.begin().await?;
                    add(&tx, first, 1).await?;
                    if first_try.fetch_add(1, Ordering::SeqCst) == 0 {
                        both.wait().await;
                    }
                    add(&tx, second, 1).await?;
                    tx.commit().await
                }
            })
            .await
        }
    };
    let (x, y) = tokio::join!(cross("a", "b"), cross("b", "a"));
    x.unwrap();
    y.unwrap();
    assert_eq!(get(t.db.reader(), "a").await.unwrap(), Some(2));
    assert_eq!(get(t.db.reader(), "b").await.unwrap(), Some(2));
    assert_eq!(t.db.metrics().retries_total(), 1);
    assert_eq!(t.db.metrics().busy_total(), 1);
    t.finish().await;
}

#[tokio::test]
async fn counters_have_no_gaps_and_no_doubles() {
    each_backend(async |t| {
        let work = (0..20).map(|i| {
            let db = t.db.clone();
            async move {
                let tx = db.begin().await.unwrap();
                let n = tx.next_seq("test").await.unwrap();
                if i % 4 == 0 {
                    tx.rollback().await.unwrap();
                    return None;
                }
                tx.commit().await.unwrap();
                Some(n)
            }
        });
        let mut seen: Vec<u64> = futures_util::future::join_all(work)
            .await
            .into_iter()
            .flatten()
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=15).collect::<Vec<u64>>());
        assert_eq!(t.db.current_seq("test").await.unwrap(), 15);
        assert_eq!(t.db.current_seq("unused").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn one_at_a_time_passes_a_named_section() {
    each_backend(async |t| {
        t.db.migrate(&[("test", words())]).await.unwrap();
        // "At most three rows" is a rule that no unique key can keep.
        let work = (0..8).map(|i| {
            let db = t.db.clone();
            async move {
                let tx = db.begin().await.unwrap();
                tx.serialise("words").await.unwrap();
                let mut count = portico_db::sea_query::Query::select();
                count.column("word").from("words");
                if tx.query_all(&count).await.unwrap().len() < 3 {
                    put(&tx, &format!("w{i}"), i).await.unwrap();
                    tx.commit().await.unwrap();
                    return 1;
                }
                0
            }
        });
        let made: i32 = futures_util::future::join_all(work).await.into_iter().sum();
        assert_eq!(made, 3);
    })
    .await;
}

#[tokio::test]
async fn slow_statements_are_remembered_without_their_values() {
    let t = portico_db::testing::sqlite().await;
    let mut options = t.options.clone();
    options.slow = std::time::Duration::ZERO;
    let db = portico_db::Db::connect(&options, Arc::new(t.clock.clone()))
        .await
        .unwrap();
    db.migrate(&[("test", words())]).await.unwrap();
    let tx = db.begin().await.unwrap();
    put(&tx, "secret word", 1).await.unwrap();
    tx.commit().await.unwrap();
    get(db.reader(), "secret word").await.unwrap();
    let worst = db
        .slow_statements()
        .worst(portico_base::Clock::now(&t.clock), 50);
    assert!(
        worst
            .iter()
            .any(|s| s.sql.starts_with("INSERT INTO \"words\"") && s.rows == 1)
    );
    assert!(worst.iter().all(|s| !s.sql.contains("secret")));
}
