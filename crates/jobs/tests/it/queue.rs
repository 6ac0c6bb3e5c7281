//! Durable jobs on both databases: one transaction with their cause, done once or again, never lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::Duration as Span;
use parking_lot::Mutex;
use portico_base::{Clock as _, SeededRandom, SystemClock};
use portico_contract::settings::Settings;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::each_backend;
use portico_jobs::{Failure, Handler, Job, JobRun, Ran, enqueue};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::rig::{
    KIND, PATIENCE, SHORT, ask, context, job, live, migrate, noting, row, start, still,
};

#[tokio::test]
async fn a_job_lives_and_dies_with_its_transaction() {
    each_backend(async |t| {
        migrate(t).await;
        let seen = Arc::default();
        let queue = still(t, noting(&seen));
        let cx = context(t.clock.clone());
        let tx = t.db.begin().await.unwrap();
        enqueue(&tx, &cx, job(1)).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(queue.work_off().await.unwrap(), []);
        let later = t.clock.now() + Span::minutes(10);
        let second = ask(t, job(2).tenant(Uuid::from_u128(9))).await;
        ask(t, job(3).run_at(later)).await;
        assert_eq!(queue.work_off().await.unwrap(), [(KIND, Ran::Done)]);
        assert_eq!(*seen.lock(), [2]);
        assert_eq!(row(t, second).await, ("done".to_owned(), 1, None));
        t.clock.advance(Span::minutes(10));
        assert_eq!(queue.work_off().await.unwrap(), [(KIND, Ran::Done)]);
        assert_eq!(*seen.lock(), [2, 3]);
        assert_eq!(queue.figures()[0].done, 2);
    })
    .await;
}

#[tokio::test]
async fn the_same_job_is_asked_for_once_while_it_waits() {
    each_backend(async |t| {
        migrate(t).await;
        let seen = Arc::default();
        let queue = still(t, noting(&seen));
        let first = ask(t, job(1).unique("anna")).await;
        assert_eq!(ask(t, job(2).unique("anna")).await, first);
        assert_ne!(ask(t, job(3).unique("berta")).await, first);
        queue.work_off().await.unwrap();
        seen.lock().sort_unstable();
        assert_eq!(*seen.lock(), [1, 3]);
        // Done is not waiting.
        assert_ne!(ask(t, job(4).unique("anna")).await, first);
        queue.work_off().await.unwrap();
        assert_eq!(*seen.lock(), [1, 3, 4]);
    })
    .await;
}

#[tokio::test]
async fn what_fails_is_tried_again_with_longer_waits_until_it_is_dead() {
    each_backend(async |t| {
        migrate(t).await;
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        let handler = Handler::new(KIND, move |run: JobRun| {
            seen.lock()
                .push((run.tries(), run.is_last(), run.context.now()));
            std::future::ready(Err("the mail server is away".into()))
        })
        .backoff(Duration::from_secs(10), Duration::from_secs(3_600));
        let queue = still(t, handler);
        let id = ask(t, job(1).max_tries(4)).await;
        for _ in 0..200 {
            queue.work_off().await.unwrap();
            t.clock.advance(Span::seconds(1));
        }
        let seen = times.lock().clone();
        let tries: Vec<_> = seen
            .iter()
            .map(|(tries, last, _)| (*tries, *last))
            .collect();
        assert_eq!(tries, [(1, false), (2, false), (3, false), (4, true)]);
        let waits = seen.windows(2).map(|w| (w[1].2 - w[0].2).num_seconds());
        for (wait, most) in waits.zip([10, 20, 40]) {
            assert!(wait >= most / 2 && wait <= most + 1, "{wait} of {most}");
        }
        let (state, tries, error) = row(t, id).await;
        assert_eq!((&*state, tries), ("dead", 4));
        assert_eq!(error.as_deref(), Some("the mail server is away"));
        let events =
            t.db.outbox()
                .read(&["job.dead".to_owned()], 0, 9)
                .await
                .unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].payload["kind"], json!(KIND));
        let figures = queue.figures();
        assert_eq!((figures[0].retried, figures[0].dead), (3, 1));
    })
    .await;
}

#[tokio::test]
async fn poison_is_given_up_and_hurts_nobody_else() {
    each_backend(async |t| {
        migrate(t).await;
        let handler = Handler::new(KIND, |run: JobRun| async move {
            match run.payload::<u32>()? {
                1 => panic!("poison"),
                2 => Err(Failure::dead("no such user")),
                3 => std::future::pending().await,
                _ => Ok(()),
            }
        })
        .limit(Duration::from_millis(20));
        let queue = still(t, handler);
        let panics = ask(t, job(1).max_tries(1)).await;
        let hopeless = ask(t, job(2)).await;
        let hangs = ask(t, job(3).max_tries(1)).await;
        let unreadable = ask(t, Job::new(KIND, "a text").unwrap()).await;
        let good = ask(t, job(4)).await;
        queue.work_off().await.unwrap();
        let error = async |id| row(t, id).await.2.unwrap();
        assert_eq!(error(panics).await, "the job panicked");
        assert_eq!(error(hopeless).await, "no such user");
        assert_eq!(error(hangs).await, "not done within 0 s");
        assert!(error(unreadable).await.contains("invalid type"));
        for dead in [panics, hopeless, hangs, unreadable] {
            assert_eq!(row(t, dead).await.0, "dead");
        }
        assert_eq!(row(t, good).await.0, "done");
    })
    .await;
}

#[tokio::test]
async fn two_workers_share_the_jobs_and_each_is_done_once() {
    each_backend(async |t| {
        migrate(t).await;
        let (done, mut all) = mpsc::unbounded_channel();
        let handler = |who: &'static str| {
            let done = done.clone();
            Handler::new(KIND, move |run: JobRun| {
                let done = done.clone();
                async move {
                    done.send((who, run.payload::<u32>()?))?;
                    Ok(())
                }
            })
        };
        let (one, one_db) = live(t, "one", handler("one")).await;
        let (two, two_db) = live(t, "two", handler("two")).await;
        let (stop_one, worker_one) = start(&one);
        let (stop_two, worker_two) = start(&two);
        for n in 0..60 {
            let tx = one_db.begin().await.unwrap();
            enqueue(&tx, &context(SystemClock), job(n)).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut seen = Vec::new();
        while seen.len() < 60 {
            let next = tokio::time::timeout(PATIENCE, all.recv()).await;
            seen.push(next.unwrap().unwrap().1);
        }
        stop_one.cancel();
        stop_two.cancel();
        worker_one.await.unwrap();
        worker_two.await.unwrap();
        assert!(all.try_recv().is_err(), "a job was done twice");
        seen.sort_unstable();
        assert_eq!(seen, (0..60).collect::<Vec<u32>>());
        one_db.close().await;
        two_db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_killed_workers_job_is_taken_over_and_its_late_writes_are_refused() {
    each_backend(async |t| {
        migrate(t).await;
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let hanging = {
            let begun = begun.clone();
            Handler::new(KIND, move |run: JobRun| {
                begun.send(("one", run)).ok();
                std::future::pending::<Result<(), Failure>>()
            })
        };
        let working = Handler::new(KIND, move |run: JobRun| {
            begun.send(("two", run)).ok();
            std::future::ready(Ok(()))
        });
        let (one, one_db) = live(t, "one", hanging).await;
        let (_stop, worker) = start(&one);
        let tx = one_db.begin().await.unwrap();
        let id = enqueue(&tx, &context(SystemClock), job(1)).await.unwrap();
        tx.commit().await.unwrap();
        let (_, late) = beginnings.recv().await.unwrap();
        // Dropped half-way, as by kill -9: nothing is written, nothing is renewed.
        worker.abort();
        assert!(worker.await.unwrap_err().is_cancelled());
        let (two, two_db) = live(t, "two", working).await;
        let (stop, worker) = start(&two);
        let next = tokio::time::timeout(PATIENCE, beginnings.recv()).await;
        let (who, run) = next.unwrap().unwrap();
        assert_eq!((who, run.id(), run.tries()), ("two", id, 2));
        let tx = one_db.begin().await.unwrap();
        let refused = [late.fence(&tx).await, late.done(&tx).await];
        assert!(refused.iter().all(|r| {
            matches!(r, Err(portico_db::DbError::LeaseLost(what)) if what.contains(&id.to_string()))
        }));
        tx.rollback().await.unwrap();
        stop.cancel();
        worker.await.unwrap();
        assert_eq!(row(t, id).await.0, "done");
        one_db.close().await;
        two_db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_long_run_keeps_its_lease_and_a_lost_one_is_cancelled() {
    each_backend(async |t| {
        migrate(t).await;
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let (go, wait) = watch::channel(false);
        let handler = Handler::new(KIND, move |run: JobRun| {
            begun.send(run.clone()).ok();
            let mut wait = wait.clone();
            async move {
                tokio::select! {
                    () = run.cancel.cancelled() => Err("cancelled".into()),
                    _ = wait.wait_for(|go| *go) => Ok(()),
                }
            }
        });
        let (one, one_db) = live(t, "one", handler.clone()).await;
        let (two, two_db) = live(t, "two", handler).await;
        let (stop, worker) = start(&one);
        let tx = one_db.begin().await.unwrap();
        let id = enqueue(&tx, &context(SystemClock), job(1)).await.unwrap();
        tx.commit().await.unwrap();
        let first = beginnings.recv().await.unwrap();
        // Three lives of a lease long nobody else gets it.
        let until = tokio::time::Instant::now() + SHORT.ttl * 3;
        while tokio::time::Instant::now() < until {
            assert_eq!(two.work_off().await.unwrap(), []);
        }
        assert!(!first.cancel.is_cancelled());
        // Somebody takes it by force: the next renewal tells the holder.
        let mut update = Query::update();
        update
            .table("jobs")
            .value("fencing", Expr::col("fencing").add(1))
            .and_where(Expr::col("id").eq(id.0));
        let tx = two_db.begin().await.unwrap();
        tx.execute(&update).await.unwrap();
        tx.commit().await.unwrap();
        tokio::time::timeout(PATIENCE, first.cancel.cancelled())
            .await
            .unwrap();
        let second = tokio::time::timeout(PATIENCE, beginnings.recv()).await;
        assert_eq!(second.unwrap().unwrap().tries(), 2);
        go.send(true).unwrap();
        let is_done = async {
            while row(t, id).await.0 != "done" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, is_done).await.unwrap();
        stop.cancel();
        worker.await.unwrap();
        one_db.close().await;
        two_db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_stop_gives_jobs_back_without_counting_the_try() {
    each_backend(async |t| {
        migrate(t).await;
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let handler = Handler::new(KIND, move |run: JobRun| {
            begun.send(()).ok();
            async move {
                run.cancel.cancelled().await;
                Err("stopped".into())
            }
        });
        let (queue, db) = live(t, "one", handler).await;
        let (stop, worker) = start(&queue);
        let tx = db.begin().await.unwrap();
        let id = enqueue(&tx, &context(SystemClock), job(1).unique("anna"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        beginnings.recv().await.unwrap();
        stop.cancel();
        worker.await.unwrap();
        assert_eq!(row(t, id).await, ("waiting".to_owned(), 0, None));
        assert_eq!(queue.figures()[0].cancelled, 1);
        // A second one that was asked for meanwhile does its work.
        let (stop, worker) = start(&queue);
        beginnings.recv().await.unwrap();
        let tx = db.begin().await.unwrap();
        let twin = enqueue(&tx, &context(SystemClock), job(2).unique("anna"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_ne!(twin, id);
        beginnings.recv().await.unwrap();
        stop.cancel();
        worker.await.unwrap();
        let mut states = [row(t, id).await.0, row(t, twin).await.0];
        states.sort();
        assert_eq!(states, ["cancelled", "waiting"]);
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_wakes_the_workers() {
    each_backend(async |t| {
        migrate(t).await;
        let (done, mut all) = mpsc::unbounded_channel();
        let handler = Handler::new(KIND, move |run: JobRun| {
            let done = done.clone();
            async move { Ok(done.send(run.payload::<u32>()?)?) }
        });
        let (queue, db) = live(t, "one", handler).await;
        let (stop, worker) = start(&queue);
        for n in 0..5 {
            let began = std::time::Instant::now();
            let tx = db.begin().await.unwrap();
            enqueue(&tx, &context(SystemClock), job(n)).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(all.recv().await, Some(n));
            assert!(
                began.elapsed() < Duration::from_secs(4),
                "only the poll found it"
            );
        }
        stop.cancel();
        worker.await.unwrap();
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_effect_in_the_jobs_own_transaction_happens_once() {
    each_backend(async |t| {
        migrate(t).await;
        let count = Arc::new(AtomicU32::new(0));
        let (effects, db) = (Arc::clone(&count), t.db.clone());
        let handler = Handler::new(KIND, move |run: JobRun| {
            let (effects, db) = (Arc::clone(&effects), db.clone());
            async move {
                let tx = db.begin().await?;
                run.done(&tx).await?;
                tx.commit().await?;
                effects.fetch_add(1, Ordering::SeqCst);
                // What goes wrong afterwards does not bring the job back.
                Err("after the commit".into())
            }
        });
        let queue = still(t, handler);
        let id = ask(t, job(1)).await;
        queue.work_off().await.unwrap();
        t.clock.advance(Span::days(1));
        assert_eq!(queue.work_off().await.unwrap(), []);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(row(t, id).await.0, "done");
    })
    .await;
}

#[tokio::test]
async fn old_jobs_are_removed_and_due_ones_are_found_by_an_index() {
    each_backend(async |t| {
        migrate(t).await;
        let seen = Arc::default();
        let queue = still(t, noting(&seen));
        let done = ask(t, job(1)).await;
        queue.work_off().await.unwrap();
        let waiting = ask(t, job(2).run_at(t.clock.now() + Span::days(300))).await;
        let jobs = portico_jobs::Runner::new(
            t.db.clone(),
            Arc::new(t.clock.clone()),
            Arc::new(SeededRandom::new(1)),
            "me",
            portico_jobs::ops_jobs(&t.db, &Settings::defaults()),
        )
        .unwrap();
        let count = async || {
            let mut all = Query::select();
            all.column("id").from("jobs");
            t.db.reader().query_all(&all).await.unwrap().len()
        };
        // Its own first moment is asked for later.
        jobs.look_at_schedules().await.unwrap();
        let sweep = async |days| {
            t.clock.advance(Span::days(days));
            jobs.look_at_schedules().await.unwrap();
            let ran = jobs.queue().work_off().await.unwrap();
            assert_eq!(ran, [("ops.jobs_sweep", Ran::Done)]);
        };
        sweep(6).await;
        assert_eq!(count().await, 3);
        sweep(2).await;
        // The first job is gone; both sweeps are younger than a week.
        assert_eq!(count().await, 3);
        assert_eq!(row(t, waiting).await.0, "waiting");
        assert_ne!(waiting, done);
        let mut first = Query::select();
        first
            .column("id")
            .from("jobs")
            .and_where(Expr::col("id").eq(done.0));
        assert!(t.db.reader().query_one(&first).await.unwrap().is_none());
        let mut due = Query::select();
        due.column("run_at")
            .from("jobs")
            .and_where(Expr::col("state").eq("waiting"))
            .and_where(Expr::col("kind").eq(KIND))
            .order_by("run_at", portico_db::sea_query::Order::Asc)
            .limit(1);
        let plan = t.db.explain(&due).await.unwrap();
        assert!(plan.contains("ix_jobs_due"), "{plan}");
    })
    .await;
}
