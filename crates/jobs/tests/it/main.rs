//! Periodic jobs on real databases: due by the clock, alone by lease, bounded, stoppable.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cron;
mod queue;
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::Duration as Span;
use portico_base::{Clock as _, SeededRandom, SystemClock};
use portico_db::testing::{TestDb, each_backend, sqlite};
use portico_db::{Db, DbError, LeaseTiming};
use portico_jobs::{JobCx, JobError, JobSet, Outcome, Periodic, Runner, ops_jobs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

fn runner(t: &TestDb, holder: &str, jobs: JobSet) -> Runner {
    let clock = Arc::new(t.clock.clone());
    Runner::new(
        t.db.clone(),
        clock,
        Arc::new(SeededRandom::new(1)),
        holder,
        jobs,
    )
    .unwrap()
}

/// A runner that goes by the wall clock.
fn live(db: &Db, holder: &str, jobs: JobSet) -> Runner {
    let random = Arc::new(SeededRandom::new(1));
    Runner::new(db.clone(), Arc::new(SystemClock), random, holder, jobs).unwrap()
}

fn counting(name: &'static str, every_s: u64, count: &Arc<AtomicU32>) -> Periodic {
    let count = Arc::clone(count);
    Periodic::new(name, Duration::from_secs(every_s), move |_| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    })
}

#[tokio::test]
async fn jobs_run_when_they_are_due() {
    let t = sqlite().await;
    let (quick, slow) = (Arc::default(), Arc::default());
    let jobs = JobSet::new()
        .with(counting("a.quick", 5, &quick).jitter(Duration::from_secs(2)))
        .with(counting("a.slow", 60, &slow));
    let runner = runner(&t, "me", jobs);
    t.clock.advance(Span::seconds(10));
    let ran = runner.run_due(t.clock.now()).await.unwrap();
    assert_eq!(ran, ["a.quick", "a.slow"]);
    assert!(runner.run_due(t.clock.now()).await.unwrap().is_empty());
    t.clock.advance(Span::seconds(4));
    assert!(runner.run_due(t.clock.now()).await.unwrap().is_empty());
    t.clock.advance(Span::seconds(3));
    assert_eq!(runner.run_due(t.clock.now()).await.unwrap(), ["a.quick"]);
    // What was missed is not made up for.
    t.clock.advance(Span::hours(1));
    assert_eq!(runner.run_due(t.clock.now()).await.unwrap().len(), 2);
    assert_eq!(quick.load(Ordering::SeqCst), 3);
    assert_eq!(slow.load(Ordering::SeqCst), 2);
    let status = runner.status();
    assert_eq!(status[0].last_outcome, Some(Outcome::Done));
    assert_eq!(status[0].last_run, Some(t.clock.now()));
    assert_eq!((status[0].done, status[0].failed), (3, 0));
}

#[tokio::test]
async fn a_clock_set_back_does_not_stop_a_job_for_long() {
    let t = sqlite().await;
    let count = Arc::default();
    let runner = runner(&t, "me", JobSet::new().with(counting("a.quick", 5, &count)));
    t.clock.advance(Span::seconds(10));
    runner.run_due(t.clock.now()).await.unwrap();
    t.clock.advance(Span::hours(-2));
    assert!(runner.run_due(t.clock.now()).await.unwrap().is_empty());
    t.clock.advance(Span::seconds(5));
    assert_eq!(runner.run_due(t.clock.now()).await.unwrap(), ["a.quick"]);
}

#[tokio::test]
async fn errors_panics_and_long_runs_end_the_run_and_not_the_job() {
    let t = sqlite().await;
    let every = Duration::from_secs(1);
    let jobs = JobSet::new()
        .with(Periodic::new("a.error", every, |_| async {
            Err(JobError::from(DbError::Other("broken".to_owned())))
        }))
        .with(Periodic::new("a.hang", every, |_| std::future::pending()).limit(Duration::ZERO))
        .with(Periodic::new("a.panic", every, |cx: JobCx| async move {
            assert_eq!(cx.context.caller.request_id.as_ref(), "nonsense");
            Ok(())
        }));
    let runner = runner(&t, "me", jobs);
    for round in 1..=2 {
        t.clock.advance(Span::seconds(2));
        assert_eq!(runner.run_due(t.clock.now()).await.unwrap().len(), 3);
        let status = runner.status();
        let text = |i: usize| match &status[i].last_outcome {
            Some(Outcome::Failed(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        assert!(text(0).contains("broken"));
        assert!(text(1).contains("not done"));
        assert!(text(2).contains("panicked"));
        assert!(status.iter().all(|s| s.failed == round && !s.running));
    }
}

#[tokio::test]
async fn names_are_unique() {
    let t = sqlite().await;
    let count = Arc::default();
    let jobs = JobSet::new()
        .with(counting("a.b", 1, &count))
        .with(counting("a.b", 2, &count));
    let random = Arc::new(SeededRandom::new(1));
    let made = Runner::new(t.db.clone(), Arc::new(SystemClock), random, "x", jobs);
    assert_eq!(made.err().unwrap().0, "a.b");
}

#[tokio::test]
async fn a_job_that_wants_to_be_alone_waits_for_its_lease() {
    each_backend(async |t| {
        let count = Arc::default();
        let jobs = || {
            JobSet::new()
                .with(counting("a.alone", 1, &count).alone())
                .with(counting("a.each", 1, &count))
        };
        let (one, two) = (runner(t, "one", jobs()), runner(t, "two", jobs()));
        t.clock.advance(Span::seconds(2));
        let lease =
            t.db.leases()
                .acquire("jobs.a", "three")
                .await
                .unwrap()
                .unwrap();
        assert_eq!(one.run_due(t.clock.now()).await.unwrap(), ["a.each"]);
        t.db.leases().release(&lease).await.unwrap();
        assert_eq!(one.run_due(t.clock.now()).await.unwrap(), ["a.alone"]);
        assert_eq!(
            two.run_due(t.clock.now()).await.unwrap(),
            ["a.alone", "a.each"]
        );
        assert_eq!(two.run_now("a.alone").await.unwrap(), Some(Outcome::Done));
        assert_eq!(two.run_now("a.unknown").await.unwrap(), None);
        assert!(t.db.leases().list().await.unwrap().is_empty());
    })
    .await;
}

/// Two processes, one job: at any moment one of them runs it, and when it stops the other takes over.
#[tokio::test]
async fn another_process_takes_over_after_a_stop() {
    each_backend(async |t| {
        let other = t.another().await;
        let (ran, mut runs) = mpsc::unbounded_channel();
        let jobs = |who: &'static str| {
            let ran = ran.clone();
            JobSet::new().with(
                Periodic::new("a.alone", Duration::from_millis(1), move |cx: JobCx| {
                    let ran = ran.clone();
                    async move {
                        ran.send((who, cx.lease.unwrap().fencing)).unwrap();
                        Ok(())
                    }
                })
                .alone(),
            )
        };
        let timing = LeaseTiming {
            renew: Duration::from_millis(20),
            ..LeaseTiming::default()
        };
        let one = live(&t.db, "one", jobs("one")).with_lease_timing(timing);
        let two = live(&other, "two", jobs("two")).with_lease_timing(timing);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        one.start(&tracker, &stop);
        for _ in 0..3 {
            assert_eq!(runs.recv().await.unwrap(), ("one", 1));
        }
        assert_eq!(one.held_leases(), ["jobs.a"]);
        let (other_tracker, other_stop) = (TaskTracker::new(), CancellationToken::new());
        two.start(&other_tracker, &other_stop);
        for _ in 0..3 {
            assert_eq!(runs.recv().await.unwrap().0, "one");
        }
        stop.cancel();
        tracker.close();
        tracker.wait().await;
        assert!(one.held_leases().is_empty());
        assert!(!one.status()[0].running);
        let (who, fencing) = loop {
            let run = runs.recv().await.unwrap();
            if run.0 == "two" {
                break run;
            }
        };
        assert_eq!((who, fencing), ("two", 2));
        other_stop.cancel();
        other_tracker.close();
        other_tracker.wait().await;
        other.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_stop_cancels_the_run_under_way() {
    let t = sqlite().await;
    let (begun, mut waiting) = mpsc::unbounded_channel();
    let jobs = JobSet::new().with(Periodic::new(
        "a.long",
        Duration::from_millis(1),
        move |cx: JobCx| {
            let begun = begun.clone();
            async move {
                begun.send(()).unwrap();
                cx.cancel.cancelled().await;
                Err("stopped half-way".into())
            }
        },
    ));
    let runner = live(&t.db, "me", jobs);
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    runner.start(&tracker, &stop);
    waiting.recv().await.unwrap();
    assert!(runner.status()[0].running);
    // It is not run twice at a time.
    assert_eq!(runner.run_now("a.long").await.unwrap(), None);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    let status = &runner.status()[0];
    assert_eq!((status.cancelled, status.running), (1, false));
}

/// A run that finds out too late that its lease is gone changes nothing.
#[tokio::test]
async fn late_writes_of_a_run_are_refused() {
    each_backend(async |t| {
        let db = t.db.clone();
        let jobs = JobSet::new().with(
            Periodic::new("a.late", Duration::from_secs(1), move |cx: JobCx| {
                let db = db.clone();
                async move {
                    db.leases().take_away("jobs.a").await?;
                    let tx = db.begin().await?;
                    tx.publish("a.thing.done", "1", &1)?;
                    cx.fence(&tx).await?;
                    tx.commit().await?;
                    Ok(())
                }
            })
            .alone(),
        );
        let runner = runner(t, "me", jobs);
        let outcome = runner.run_now("a.late").await.unwrap();
        assert!(matches!(outcome, Some(Outcome::Failed(text)) if text.contains("is lost")));
        assert_eq!(t.db.outbox().head().await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn the_platform_keeps_its_own_tables_small() {
    each_backend(async |t| {
        let tables = [("jobs", portico_jobs::migrations())];
        t.db.migrate(&tables).await.unwrap();
        let runner = runner(
            t,
            "me",
            ops_jobs(&t.db, &portico_contract::settings::Settings::defaults()),
        );
        let tx = t.db.begin().await.unwrap();
        tx.publish("a.thing.done", "1", &1).unwrap();
        tx.commit().await.unwrap();
        t.clock.advance(Span::hours(23));
        assert_eq!(runner.run_due(t.clock.now()).await.unwrap().len(), 4);
        assert_eq!(t.db.outbox().trimmed().await.unwrap(), 0);
        t.clock.advance(Span::hours(2));
        assert_eq!(runner.run_due(t.clock.now()).await.unwrap().len(), 4);
        assert_eq!(t.db.outbox().trimmed().await.unwrap(), 1);
        assert!(runner.status().iter().all(|s| s.failed == 0 && s.done == 2));
    })
    .await;
}
