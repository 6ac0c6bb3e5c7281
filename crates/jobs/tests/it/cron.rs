//! Schedules on both databases: once over all processes, made up once, never beside themselves.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Duration as Span, Utc};
use parking_lot::Mutex;
use portico_base::{Clock as _, SeededRandom, SystemClock, Timestamp};
use portico_contract::settings::{
    Declaration, Key, Kind, Settings, SettingsListener, SettingsSource,
};
use portico_db::Db;
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::settings::TIME_ZONE;
use portico_jobs::{
    CatchUp, Cron, CronEntry, Failure, Form, JobRun, JobSet, Periodic, Ran, Runner,
    schedules::{self, NotAsked},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::rig::{PATIENCE, SHORT, context, migrate};

const NAME: &str = "test.nightly";

static WHEN: Key<String> = Key::new(Declaration::new(
    "test.schedule",
    Kind::Text { max: 100 },
    "\"0 3 * * *\"",
    "when",
    "何时",
));

/// Settings that a test changes.
#[derive(Default)]
struct Changing {
    values: Mutex<std::collections::BTreeMap<String, Arc<Value>>>,
    listeners: Mutex<Vec<SettingsListener>>,
}

impl Changing {
    fn set(&self, key: &str, value: &str) {
        self.values
            .lock()
            .insert(key.to_owned(), Arc::new(json!(value)));
        for listener in self.listeners.lock().iter() {
            listener(&[key.to_owned()]);
        }
    }
}

impl SettingsSource for Changing {
    fn value(&self, _: uuid::Uuid, key: &str) -> Option<Arc<Value>> {
        self.values.lock().get(key).cloned()
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }
}

type Ticks = Arc<Mutex<Vec<Timestamp>>>;

fn noting(source: &Arc<Changing>, ticks: &Ticks) -> Cron {
    let ticks = Arc::clone(ticks);
    Cron::new(
        NAME,
        &Settings::new(source.clone()),
        &WHEN,
        move |run: JobRun| {
            let ticks = Arc::clone(&ticks);
            async move {
                ticks.lock().push(run.tick().ok_or("no moment")?);
                Ok(())
            }
        },
    )
}

fn runner(t: &TestDb, holder: &str, cron: Cron) -> Runner {
    let random = Arc::new(SeededRandom::new(1));
    let jobs = JobSet::new().cron(cron);
    Runner::new(
        t.db.clone(),
        Arc::new(t.clock.clone()),
        random,
        holder,
        jobs,
    )
    .unwrap()
}

fn at(text: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(text)
        .unwrap()
        .with_timezone(&Utc)
}

fn go_to(t: &TestDb, moment: &str) {
    t.clock.advance(at(moment) - t.clock.now());
}

/// Looks at the schedules and does what is due; gives how many jobs ran.
async fn pass(runner: &Runner) -> usize {
    runner.look_at_schedules().await.unwrap();
    runner.queue().work_off().await.unwrap().len()
}

async fn entry(t: &TestDb) -> CronEntry {
    let mut found = schedules::list(&t.db, Some(NAME), t.clock.now())
        .await
        .unwrap();
    found.remove(0)
}

#[tokio::test]
async fn two_processes_ask_for_each_moment_once() {
    each_backend(async |t| {
        migrate(t).await;
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        let one = runner(t, "one", noting(&source, &ticks));
        let two = runner(t, "two", noting(&source, &ticks));
        go_to(t, "2030-01-10T12:00:00Z");
        assert_eq!(pass(&one).await + pass(&two).await, 0);
        for day in 11..14 {
            go_to(t, &format!("2030-01-{day}T02:59:59Z"));
            assert_eq!(pass(&one).await + pass(&two).await, 0, "too early on {day}");
            t.clock.advance(Span::seconds(2));
            let (a, b) = tokio::join!(one.look_at_schedules(), two.look_at_schedules());
            a.unwrap();
            b.unwrap();
            assert_eq!(pass(&two).await + pass(&one).await, 1, "on {day}");
        }
        let wanted: Vec<_> = (11..14)
            .map(|d| at(&format!("2030-01-{d}T03:00:00Z")))
            .collect();
        assert_eq!(*ticks.lock(), wanted);
        let entry = entry(t).await;
        assert_eq!((entry.form, entry.enabled), (Form::Cron, true));
        assert_eq!(entry.next.len(), 5);
        assert_eq!(entry.next[0], at("2030-01-14T03:00:00Z"));
        assert_eq!(entry.setting.as_deref(), Some("test.schedule"));
        let outcomes: Vec<_> = entry.runs.iter().map(|run| &*run.outcome).collect();
        assert_eq!(outcomes, ["done", "done", "done"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_missed_is_made_up_once_or_left_out() {
    each_backend(async |t| {
        migrate(t).await;
        go_to(t, "2030-01-10T12:00:00Z");
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        pass(&runner(t, "one", noting(&source, &ticks))).await;
        // Four nights nobody runs; then another process of the same installation starts.
        go_to(t, "2030-01-14T12:00:00Z");
        let later = runner(t, "two", noting(&source, &ticks));
        assert_eq!(pass(&later).await, 1);
        assert_eq!(*ticks.lock(), [at("2030-01-14T03:00:00Z")]);
        assert_eq!(pass(&later).await, 0);
        go_to(t, "2030-01-18T12:00:00Z");
        let skipping = noting(&source, &ticks).catch_up(CatchUp::Skip);
        let third = runner(t, "three", skipping);
        assert_eq!(pass(&third).await, 0);
        go_to(t, "2030-01-19T03:00:20Z");
        assert_eq!(pass(&third).await, 1, "twenty seconds late is not missed");
    })
    .await;
}

#[tokio::test]
async fn a_moment_that_comes_during_a_run_is_refused_and_noted() {
    each_backend(async |t| {
        migrate(t).await;
        go_to(t, "2030-01-10T12:00:00Z");
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        source.set("test.schedule", "*/10 * * * *");
        let runner = runner(t, "one", noting(&source, &ticks));
        pass(&runner).await;
        go_to(t, "2030-01-10T12:10:00Z");
        runner.look_at_schedules().await.unwrap();
        // It waits still when the next moment comes, and when somebody wants it at once.
        go_to(t, "2030-01-10T12:20:00Z");
        runner.look_at_schedules().await.unwrap();
        let tx = t.db.begin().await.unwrap();
        let asked = schedules::ask(&tx, &context(t.clock.clone()), NAME)
            .await
            .unwrap();
        assert_eq!(asked, Err(NotAsked::Running));
        tx.rollback().await.unwrap();
        assert_eq!(
            runner.queue().work_off().await.unwrap(),
            [(NAME, Ran::Done)]
        );
        assert_eq!(*ticks.lock(), [at("2030-01-10T12:10:00Z")]);
        let runs = entry(t).await.runs;
        assert_eq!(runs[0].outcome, "refused");
        assert!(runs[0].error.as_deref().unwrap().contains("not ended"));
        assert_eq!(runs[1].outcome, "done");
        let tx = t.db.begin().await.unwrap();
        let asked = schedules::ask(&tx, &context(t.clock.clone()), NAME)
            .await
            .unwrap();
        assert!(asked.unwrap().is_some());
        tx.commit().await.unwrap();
        assert_eq!(
            runner.queue().work_off().await.unwrap(),
            [(NAME, Ran::Done)]
        );
    })
    .await;
}

#[tokio::test]
async fn a_changed_setting_is_in_force_from_then_on_and_nonsense_is_not() {
    each_backend(async |t| {
        migrate(t).await;
        go_to(t, "2030-06-10T12:00:00Z");
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        let runner = runner(t, "one", noting(&source, &ticks));
        pass(&runner).await;
        // 11:00 has passed today: a change makes nothing up.
        source.set("test.schedule", "0 11 * * *");
        assert_eq!(pass(&runner).await, 0);
        source.set("system.time_zone", "Asia/Shanghai");
        assert_eq!(TIME_ZONE.declaration.key, "system.time_zone");
        assert_eq!(pass(&runner).await, 0);
        assert_eq!(entry(t).await.next[0], at("2030-06-11T03:00:00Z"));
        go_to(t, "2030-06-11T03:00:00Z");
        assert_eq!(pass(&runner).await, 1);
        source.set("test.schedule", "at noon");
        pass(&runner).await;
        let broken = entry(t).await;
        assert!(
            broken
                .fault
                .as_deref()
                .unwrap()
                .contains("no cron expression")
        );
        go_to(t, "2030-06-12T03:00:00Z");
        assert_eq!(pass(&runner).await, 1, "what was in force goes on");
        source.set("test.schedule", "0 12 * * *");
        pass(&runner).await;
        assert_eq!(entry(t).await.fault, None);
    })
    .await;
}

#[tokio::test]
async fn a_schedule_that_is_off_lets_its_moments_pass() {
    each_backend(async |t| {
        migrate(t).await;
        go_to(t, "2030-01-10T12:00:00Z");
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        let runner = runner(t, "one", noting(&source, &ticks));
        pass(&runner).await;
        let switch = async |on| {
            let tx = t.db.begin().await.unwrap();
            let was = schedules::switch(&tx, NAME, on, t.clock.now())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            was
        };
        assert_eq!(switch(false).await, Some(true));
        go_to(t, "2030-01-12T12:00:00Z");
        assert_eq!(pass(&runner).await, 0);
        assert!(entry(t).await.next.is_empty());
        assert_eq!(switch(true).await, Some(false));
        assert_eq!(pass(&runner).await, 0, "nothing is made up");
        go_to(t, "2030-01-13T03:00:00Z");
        assert_eq!(pass(&runner).await, 1);
        let tx = t.db.begin().await.unwrap();
        assert_eq!(
            schedules::switch(&tx, "no.such", true, t.clock.now())
                .await
                .unwrap(),
            None
        );
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_was_wrong_for_a_while_stops_no_schedule() {
    each_backend(async |t| {
        migrate(t).await;
        go_to(t, "2030-01-10T12:00:00Z");
        let (source, ticks) = (Arc::new(Changing::default()), Ticks::default());
        let first = runner(t, "one", noting(&source, &ticks));
        pass(&first).await;
        go_to(t, "2040-01-10T03:00:00Z");
        assert_eq!(pass(&first).await, 1);
        go_to(t, "2030-01-11T01:00:00Z");
        let second = runner(t, "two", noting(&source, &ticks));
        assert_eq!(pass(&second).await, 0);
        go_to(t, "2030-01-11T03:00:00Z");
        assert_eq!(pass(&second).await, 1);
    })
    .await;
}

/// One replica is dropped in the middle of a run, as by kill -9; the other repeats the run for the same
/// moment, and its effect, whose key is the moment, happens once.
#[tokio::test]
async fn a_run_that_is_cut_off_is_repeated_for_the_same_moment() {
    each_backend(async |t| {
        migrate(t).await;
        let source = Arc::new(Changing::default());
        source.set("test.schedule", "*/2 * * * * *");
        let (begun, mut beginnings) = mpsc::unbounded_channel();
        let start = async |holder: &'static str, hangs: bool| {
            let db = Db::connect(&t.options, Arc::new(SystemClock))
                .await
                .unwrap();
            let begun = begun.clone();
            let cron = Cron::new(
                NAME,
                &Settings::new(source.clone()),
                &WHEN,
                move |run: JobRun| {
                    begun.send((holder, run.tick(), run.tries())).ok();
                    async move {
                        if hangs {
                            std::future::pending::<()>().await;
                        }
                        Ok::<_, Failure>(())
                    }
                },
            );
            let random = Arc::new(SeededRandom::new(1));
            let jobs = JobSet::new().cron(cron);
            let runner = Runner::new(db.clone(), Arc::new(SystemClock), random, holder, jobs)
                .unwrap()
                .with_lease_timing(SHORT);
            let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
            let (queue, stopping) = (runner.queue().clone(), stop.clone());
            let worker = tokio::spawn(async move { queue.work(&stopping).await });
            (runner, worker, stop, tasks, db)
        };
        let (one, worker_one, ..) = start("one", true).await;
        let (_, tick, tries) = loop {
            one.look_at_schedules().await.unwrap();
            match beginnings.try_recv() {
                Ok(begun) => break begun,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert_eq!(tries, 1);
        worker_one.abort();
        assert!(worker_one.await.unwrap_err().is_cancelled());
        let (_two, worker_two, stop, _tasks, db) = start("two", false).await;
        let next = tokio::time::timeout(PATIENCE, beginnings.recv()).await;
        assert_eq!(next.unwrap().unwrap(), ("two", tick, 2));
        stop.cancel();
        worker_two.await.unwrap();
        db.close().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_due_at_an_interval_is_listed_and_runs_when_asked() {
    each_backend(async |t| {
        migrate(t).await;
        let (ran, mut runs) = mpsc::unbounded_channel();
        let periodic = Periodic::new("test.beat", Duration::from_secs(3_600), move |_| {
            let ran = ran.clone();
            async move { Ok(ran.send(())?) }
        });
        let db = Db::connect(&t.options, Arc::new(SystemClock))
            .await
            .unwrap();
        let random = Arc::new(SeededRandom::new(1));
        let runner = Runner::new(
            db.clone(),
            Arc::new(SystemClock),
            random,
            "one",
            JobSet::new().with(periodic.alone()),
        )
        .unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        runner.start(&tasks, &stop);
        // Its first run comes soon after the start.
        tokio::time::timeout(PATIENCE, runs.recv())
            .await
            .unwrap()
            .unwrap();
        let listed = async || {
            let now = SystemClock.now();
            schedules::list(&db, Some("test.beat"), now).await.unwrap()
        };
        let looking = async {
            while listed().await.first().is_none_or(|e| e.runs.is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap();
        let entry = listed().await.remove(0);
        assert_eq!((entry.form, entry.alone), (Form::Interval, true));
        assert_eq!(entry.every, Some(Duration::from_secs(3_600)));
        assert_eq!(
            (entry.runs[0].outcome.as_str(), entry.next.len()),
            ("done", 5)
        );
        let tx = db.begin().await.unwrap();
        let asked = schedules::ask(&tx, &context(SystemClock), "test.beat")
            .await
            .unwrap();
        assert_eq!(asked, Ok(None));
        tx.commit().await.unwrap();
        tokio::time::timeout(PATIENCE, runs.recv())
            .await
            .unwrap()
            .unwrap();
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        db.close().await;
    })
    .await;
}
