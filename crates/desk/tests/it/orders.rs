//! What people do with jobs, on both databases: retry, cancel, priorities, pauses, limits, progress, logs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::Duration as Span;
use parking_lot::Mutex;
use portico_base::{Clock as _, SystemClock};
use portico_db::testing::each_backend;
use portico_desk::{Desk, Filter, JobDetail, JobState, Order, Refused};
use portico_jobs::{Failure, Handler, Job, JobId, JobRun, Priority, Ran, enqueue, enqueue_all};
use tokio::sync::{mpsc, watch};

use crate::rig::{KIND, PATIENCE, ask, context, job, live, migrate, noting, start, still};

const ALL: Order = Order {
    after: None,
    limit: 100,
};

/// Runs an order in a transaction of its own.
macro_rules! order {
    ($t:expr, $what:ident, $($arguments:expr),*) => {{
        let tx = $t.db.begin().await.unwrap();
        let done = portico_desk::$what(&tx, $($arguments),*).await.unwrap();
        tx.commit().await.unwrap();
        done
    }};
}

#[tokio::test]
async fn jobs_go_by_priority_then_by_age_and_may_be_hurried() {
    each_backend(async |t| {
        migrate(t).await;
        let seen = Arc::default();
        let queue = still(t, noting(&seen));
        let later = t.clock.now() + Span::hours(1);
        // One after the other: what is of one moment is in no order.
        let next = async |job| {
            t.clock.advance(Span::milliseconds(5));
            ask(t, job).await
        };
        next(job(1).priority(Priority::Low)).await;
        next(job(2)).await;
        next(job(3).priority(Priority::High)).await;
        let last = next(job(4)).await;
        let far = ask(t, job(5).run_at(later)).await;
        let now = t.clock.now();
        let before = order!(t, prioritise, last, None, Priority::High, now).unwrap();
        assert_eq!(before.priority, Priority::Normal);
        queue.work_off().await.unwrap();
        assert_eq!(*seen.lock(), [3, 4, 2, 1]);
        order!(t, run_now, far, None, now).unwrap();
        queue.work_off().await.unwrap();
        assert_eq!(seen.lock().last(), Some(&5));
        let refused = order!(t, prioritise, far, None, Priority::Low, now);
        assert_eq!(refused, Err(Refused::State(JobState::Done)));
        let nobody = JobId(uuid::Uuid::from_u128(1));
        assert_eq!(order!(t, run_now, nobody, None, now), Err(Refused::Unknown));
    })
    .await;
}

#[tokio::test]
async fn the_dead_are_tried_again_one_by_one_or_all_of_a_kind() {
    each_backend(async |t| {
        migrate(t).await;
        let fails = Arc::new(AtomicUsize::new(usize::MAX));
        let left = Arc::clone(&fails);
        let queue = still(
            t,
            Handler::new(KIND, move |_| {
                let failing = left.load(Ordering::SeqCst) > 0;
                std::future::ready(if failing {
                    Err(Failure::dead("no such user"))
                } else {
                    Ok(())
                })
            }),
        );
        let tenant = uuid::Uuid::from_u128(7);
        let first = ask(t, job(1).tenant(tenant)).await;
        let unique = ask(t, job(2).unique("anna")).await;
        let (tx, cx) = (t.db.begin().await.unwrap(), context(t.clock.clone()));
        let more = (0..20).map(job).collect();
        assert_eq!(enqueue_all(&tx, &cx, more).await.unwrap().len(), 20);
        tx.commit().await.unwrap();
        queue.work_off().await.unwrap();
        let jobs = Desk::new(t.db.clone());
        assert_eq!(jobs.count(KIND, JobState::Dead).await.unwrap(), 22);
        let dead = Filter {
            tenant: Some(tenant),
            state: Some(JobState::Dead),
            ..Filter::default()
        };
        assert_eq!(jobs.list(&dead, ALL).await.unwrap()[0].id, first);
        let now = t.clock.now();
        // Another tenant has no such job.
        let foreign = Some(uuid::Uuid::from_u128(8));
        assert_eq!(order!(t, retry, first, foreign, now), Err(Refused::Unknown));
        let twin = ask(t, job(3).unique("anna").run_at(now + Span::days(1))).await;
        assert_eq!(order!(t, retry, unique, None, now), Err(Refused::Twin));
        order!(t, cancel, twin, None, now).unwrap();
        fails.store(0, Ordering::SeqCst);
        order!(t, retry, first, Some(tenant), now).unwrap();
        assert_eq!(queue.work_off().await.unwrap(), [(KIND, Ran::Done)]);
        let done = order!(t, retry_dead, KIND, now);
        assert_eq!((done.count, done.left), (21, 0));
        assert_eq!(queue.work_off().await.unwrap().len(), 21);
        // What it had said before is still there.
        let shown = jobs.detail(first, None).await.unwrap().unwrap();
        assert_eq!(shown.row.state, JobState::Done);
        assert_eq!(shown.attempts.len(), 1);
        assert_eq!(shown.attempts[0].outcome, "dead");
        assert_eq!(shown.attempts[0].error.as_deref(), Some("no such user"));
    })
    .await;
}

#[tokio::test]
async fn a_paused_kind_waits_in_every_process() {
    each_backend(async |t| {
        migrate(t).await;
        let (done, mut all) = mpsc::unbounded_channel();
        let handler = Handler::new(KIND, move |run: JobRun| {
            let done = done.clone();
            async move { Ok(done.send(run.payload::<u32>()?)?) }
        });
        let (queue, db) = live(t, "one", handler).await;
        let (stop, worker) = start(&queue);
        let now = SystemClock.now();
        assert!(order!(
            t,
            pause,
            KIND,
            "anna",
            Some("the mail server moves"),
            now
        ));
        assert!(!order!(t, pause, KIND, "berta", None, now));
        let tx = db.begin().await.unwrap();
        enqueue(&tx, &context(SystemClock), job(1)).await.unwrap();
        tx.commit().await.unwrap();
        // Nobody takes it, whoever looks.
        assert_eq!(queue.work_off().await.unwrap(), []);
        let kinds = Desk::new(t.db.clone()).kinds().await.unwrap();
        assert_eq!((kinds.len(), kinds[0].ready), (1, 1));
        assert_eq!(kinds[0].paused_by.as_deref(), Some("anna"));
        assert_eq!(
            kinds[0].paused_reason.as_deref(),
            Some("the mail server moves")
        );
        assert!(all.try_recv().is_err());
        let tx = db.begin().await.unwrap();
        assert!(portico_desk::resume(&tx, KIND).await.unwrap());
        tx.commit().await.unwrap();
        let next = tokio::time::timeout(PATIENCE, all.recv()).await;
        assert_eq!(next.unwrap(), Some(1));
        stop.cancel();
        worker.await.unwrap();
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_running_job_tells_how_far_it_is_and_ends_when_it_is_asked_to() {
    each_backend(async |t| {
        migrate(t).await;
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let handler = Handler::new(KIND, move |run: JobRun| {
            begun.send(()).ok();
            async move {
                run.progress(3, 10, "third of ten");
                run.cancel.cancelled().await;
                Err("cut off".into())
            }
        });
        let (queue, db) = live(t, "one", handler).await;
        let (stop, worker) = start(&queue);
        let tx = db.begin().await.unwrap();
        let id = enqueue(&tx, &context(SystemClock), job(1)).await.unwrap();
        tx.commit().await.unwrap();
        beginnings.recv().await.unwrap();
        let jobs = Desk::new(db.clone());
        let until = async |wanted: &dyn Fn(&JobDetail) -> bool| {
            let looking = async {
                loop {
                    let shown = jobs.detail(id, None).await.unwrap().unwrap();
                    if wanted(&shown) {
                        return shown;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, looking).await.unwrap()
        };
        let shown = until(&|job| job.row.progress.is_some()).await;
        let progress = shown.row.progress.unwrap();
        assert_eq!(
            (progress["done"].clone(), progress["total"].clone()),
            (3.into(), 10.into())
        );
        assert_eq!(shown.row.holder.as_deref(), Some("one"));
        let tx = db.begin().await.unwrap();
        let before = portico_desk::cancel(&tx, id, None, SystemClock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(before.unwrap().state, JobState::Running);
        let shown = until(&|job| job.row.state == JobState::Cancelled).await;
        assert_eq!(shown.attempts[0].outcome, "cancelled");
        assert!(!shown.row.cancel_asked);
        stop.cancel();
        worker.await.unwrap();
        assert_eq!(queue.figures()[0].cancelled, 1);
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_kind_runs_no_more_at_a_time_than_it_may_here_and_everywhere() {
    each_backend(async |t| {
        migrate(t).await;
        let (go, wait) = watch::channel(false);
        let running = Arc::new(Mutex::new((0_usize, 0_usize)));
        let handler = |wait: watch::Receiver<bool>| {
            let running = Arc::clone(&running);
            Handler::new(KIND, move |_| {
                let (running, mut wait) = (Arc::clone(&running), wait.clone());
                async move {
                    {
                        let mut count = running.lock();
                        count.0 += 1;
                        count.1 = count.1.max(count.0);
                    }
                    wait.wait_for(|go| *go).await?;
                    running.lock().0 -= 1;
                    Ok(())
                }
            })
            .at_once(2)
            .everywhere(3)
        };
        let (one, one_db) = live(t, "one", handler(wait.clone())).await;
        let (two, two_db) = live(t, "two", handler(wait.clone())).await;
        let tx = one_db.begin().await.unwrap();
        let all = (0..12).map(job).collect();
        enqueue_all(&tx, &context(SystemClock), all).await.unwrap();
        tx.commit().await.unwrap();
        let (stop_one, worker_one) = start(&one);
        let (stop_two, worker_two) = start(&two);
        let jobs = Desk::new(one_db.clone());
        let reaches = async |state, wanted: u64| {
            let looking = async {
                while jobs.count(KIND, state).await.unwrap() < wanted {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(PATIENCE, looking).await.unwrap();
        };
        let all_begun = async {
            while running.lock().0 < 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all_begun).await.unwrap();
        assert_eq!(jobs.count(KIND, JobState::Running).await.unwrap(), 3);
        go.send(true).unwrap();
        reaches(JobState::Done, 12).await;
        assert_eq!(running.lock().1, 3, "more ran at a time than may");
        for (stop, worker) in [(stop_one, worker_one), (stop_two, worker_two)] {
            stop.cancel();
            worker.await.unwrap();
        }
        one_db.close().await;
        two_db.close().await;
    })
    .await;
}

#[tokio::test]
async fn until_it_has_ended_the_same_job_is_one_even_while_it_runs() {
    each_backend(async |t| {
        migrate(t).await;
        let (ids, db) = (Arc::new(Mutex::new(Vec::new())), t.db.clone());
        let (seen, clock) = (Arc::clone(&ids), t.clock.clone());
        let handler = Handler::new(KIND, move |run: JobRun| {
            let (seen, db, clock) = (Arc::clone(&seen), db.clone(), clock.clone());
            async move {
                let tx = db.begin().await?;
                let again = Job::new(KIND, &9)?.unique_until_ended("anna");
                let id = enqueue(&tx, &context(clock), again).await?;
                tx.commit().await?;
                seen.lock().push((run.id(), id));
                Ok(())
            }
        });
        let queue = still(t, handler);
        let first = ask(t, job(1).unique_until_ended("anna")).await;
        assert_eq!(ask(t, job(2).unique_until_ended("anna")).await, first);
        assert_eq!(queue.work_off().await.unwrap(), [(KIND, Ran::Done)]);
        assert_eq!(*ids.lock(), [(first, first)]);
        assert_ne!(ask(t, job(3).unique_until_ended("anna")).await, first);
    })
    .await;
}

#[tokio::test]
async fn lists_are_paged_by_every_filter_over_an_index() {
    each_backend(async |t| {
        migrate(t).await;
        let queue = still(t, noting(&Arc::default()));
        let tenant = uuid::Uuid::from_u128(5);
        let mut asked = Vec::new();
        for n in 0..7 {
            t.clock.advance(Span::milliseconds(5));
            asked.push(ask(t, job(n).tenant(tenant)).await);
        }
        queue.work_off().await.unwrap();
        t.clock.advance(Span::milliseconds(5));
        asked.push(ask(t, job(7)).await);
        let jobs = Desk::new(t.db.clone());
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let order = Order { after, limit: 3 };
            let page = jobs.list(&Filter::default(), order).await.unwrap();
            after = page.last().map(|row| row.id.0);
            found.extend(page.iter().map(|row| row.id));
            if page.len() < 3 {
                break;
            }
        }
        asked.reverse();
        assert_eq!(found, asked);
        let of = async |filter: Filter| jobs.list(&filter, ALL).await.unwrap().len();
        let (kind, state) = (Some(KIND.to_owned()), Some(JobState::Done));
        let filter = |tenant, kind, state| Filter {
            tenant,
            kind,
            state,
        };
        assert_eq!(of(filter(Some(tenant), None, None)).await, 7);
        assert_eq!(of(filter(None, kind.clone(), state)).await, 7);
        assert_eq!(of(filter(None, kind, Some(JobState::Ready))).await, 1);
        assert_eq!(of(filter(None, Some("x.y".to_owned()), None)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn small_jobs_are_ended_together_and_counted_each() {
    each_backend(async |t| {
        migrate(t).await;
        let handler = Handler::new(KIND, |run: JobRun| async move {
            match run.payload::<u32>()? % 10 {
                0 => Err("every tenth fails once".into()),
                _ => Ok(()),
            }
        })
        .small()
        .backoff(Duration::from_millis(1), Duration::from_millis(2));
        let (queue, db) = live(t, "one", handler).await;
        let tx = db.begin().await.unwrap();
        let all = (1..=500).map(|n| job(n).max_tries(2)).collect();
        enqueue_all(&tx, &context(SystemClock), all).await.unwrap();
        tx.commit().await.unwrap();
        let (stop, worker) = start(&queue);
        let jobs = Desk::new(db.clone());
        let looking = async {
            while jobs.count(KIND, JobState::Done).await.unwrap() < 450
                || jobs.count(KIND, JobState::Dead).await.unwrap() < 50
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap();
        stop.cancel();
        worker.await.unwrap();
        let figures = queue.figures()[0];
        assert_eq!((figures.done, figures.retried, figures.dead), (450, 50, 50));
        db.close().await;
    })
    .await;
}
