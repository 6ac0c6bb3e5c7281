//! Several processes on one database: they judge together, one of them acts, and a late one changes nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use portico_base::{Caller, Context, Principal, SeededRandom, Tx};
use portico_contract::audit::{AuditError, AuditSink, Record};
use portico_db::testing::{TestDb, each_backend};
use portico_jobs::{Outcome, Runner};
use serde_json::{Value, json};

use super::counts::{self, Count};
use super::job::{GuardJob, NAME};
use super::ops::{Command, Releases};
use super::serving::Serving;
use super::tally::Totals;
use super::tally::tests::totals;
use super::watch::Watch;
use crate::error::Error;
use crate::objects::doc::ReleaseDoc;
use crate::objects::{Amendment, Book, Kind, Ops, Wish};
use crate::release::Refused;

/// Actions that were committed.
#[derive(Default, Clone)]
struct Recorded(Arc<Mutex<Vec<&'static str>>>);

impl AuditSink for Recorded {
    fn record<'a>(
        &'a self,
        tx: &'a dyn Tx,
        _context: &'a Context,
        record: Record,
    ) -> BoxFuture<'a, Result<(), AuditError>> {
        let list = Arc::clone(&self.0);
        tx.after_commit(Box::new(move || list.lock().push(record.action)));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// One process without a data plane: what it would have counted is told by the test.
struct Process {
    ops: Ops,
    releases: Releases,
    job: Arc<GuardJob>,
    runner: Runner,
    audit: Recorded,
    cx: Context,
}

impl Process {
    async fn start(t: &TestDb, name: &str) -> Self {
        let db = t.another().await;
        let tables = [("gateway", crate::migrations::all())];
        db.migrate(&tables).await.expect("the tables can be made");
        // Ids must differ between processes.
        let seed = name.bytes().fold(0, |sum, b| sum * 256 + u64::from(b));
        let (clock, random) = (Arc::new(t.clock.clone()), Arc::new(SeededRandom::new(seed)));
        let audit = Recorded::default();
        let book = Book::load(&db).await.expect("the objects can be read");
        let ops = Ops {
            db: db.clone(),
            audit: Arc::new(audit.clone()),
            book: book.clone(),
            serving: Serving::default(),
        };
        let watch = Watch::new(db.clone(), Serving::default(), &*random);
        let releases = Releases::new(ops.clone(), Serving::default(), Arc::new(watch));
        let job = Arc::new(GuardJob {
            releases: releases.clone(),
            book,
            db: db.clone(),
            holder: Arc::from(name),
            held: Mutex::default(),
        });
        let cx = Context {
            caller: Caller::internal(Principal::operator(), "test"),
            clock: clock.clone(),
            random: random.clone(),
        };
        let runner = Runner::new(db, clock, random, name, job.jobs()).expect("one job");
        Self {
            ops,
            releases,
            job,
            runner,
            audit,
            cx,
        }
    }

    async fn save(&self, doc: Value) -> i64 {
        let wish = Wish {
            kind: Kind::Release,
            name: "shop".to_owned(),
            doc,
            message: String::new(),
            expected: None,
            create: false,
            dry_run: false,
        };
        let saved = self.ops.save(&self.cx, wish).await;
        saved.expect("the release can be saved").version.version
    }

    /// Version and document as this process reads them now.
    async fn release(&self) -> (i64, ReleaseDoc) {
        let version = self.ops.get(&self.cx, Kind::Release, "shop").await;
        let version = version.expect("there is a release");
        let doc = serde_json::from_value(version.doc.expect("it is there")).expect("a release");
        (version.version, doc)
    }

    async fn run(&self) {
        let outcome = self
            .runner
            .run_now(NAME)
            .await
            .expect("the database answers");
        assert_eq!(outcome, Some(Outcome::Done));
    }
}

/// What a process counted of the present trial.
async fn told(process: &Process, replica: &str, candidate: Totals, stable: Totals) {
    let (_, doc) = process.release().await;
    let run = doc.state.expect("a state").run;
    let count = |version: &str, totals| Count {
        service: "shop".to_owned(),
        run,
        version: version.to_owned(),
        totals,
    };
    let all = [count("2", candidate), count("1", stable)];
    let now = process.cx.clock.now();
    let told = counts::tell(&process.job.db, replica, &all, now).await;
    told.expect("the counts can be told");
}

fn plan() -> Value {
    json!({ "stable": "1", "candidate": { "version": "2" }, "plan": { "hold_s": 1000 } })
}

#[tokio::test]
async fn what_two_replicas_counted_decides_together_and_once() {
    each_backend(async |t| {
        let (a, b) = (Process::start(t, "a").await, Process::start(t, "b").await);
        a.save(plan()).await;
        b.job.book.refresh().await.expect("the objects can be read");
        let part = || (totals(60, 10, 1_000), totals(60, 0, 1_000));
        let (candidate, stable) = part();
        told(&a, "x", candidate, stable).await;
        a.run().await;
        b.run().await;
        assert_eq!(a.release().await.0, 1, "60 requests decide nothing");
        let (candidate, stable) = part();
        told(&a, "y", candidate, stable).await;
        // Told twice is counted once.
        let (candidate, stable) = part();
        told(&a, "y", candidate, stable).await;
        b.run().await;
        assert_eq!(b.release().await.0, 1, "the other one has the lease");
        a.run().await;
        let (version, doc) = a.release().await;
        assert_eq!(version, 2);
        let stopped = doc.state.and_then(|s| s.stopped).expect("it was stopped");
        let numbers = stopped.numbers.expect("the numbers that decided");
        assert_eq!(
            (numbers.candidate.requests, numbers.candidate.errors),
            (120, 12)
        );
        b.job.book.refresh().await.expect("the objects can be read");
        a.run().await;
        b.run().await;
        assert_eq!(a.release().await.0, 2);
        let recorded = a.audit.0.lock().clone();
        assert_eq!(
            recorded,
            ["gateway.object.created", "gateway.object.changed"]
        );
        assert_eq!(b.audit.0.lock().len(), 0);
        let topics = ["gateway.release.step", "gateway.release.aborted"].map(str::to_owned);
        let rows =
            t.db.outbox()
                .read(&topics, 0, 10)
                .await
                .expect("the outbox can be read");
        let topics: Vec<&str> = rows.iter().map(|row| row.topic.as_str()).collect();
        assert_eq!(topics, ["gateway.release.step", "gateway.release.aborted"]);
        assert_eq!(rows[1].payload["guard"], "error_rate");
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_lost_its_lease_changes_nothing() {
    each_backend(async |t| {
        let (a, b) = (Process::start(t, "a").await, Process::start(t, "b").await);
        a.save(plan()).await;
        b.job.book.refresh().await.expect("the objects can be read");
        a.run().await;
        assert!(a.job.held.lock().contains_key("shop"));
        // As if it had been paused for longer than its lease.
        let taken = t.db.leases().take_away("gateway.release.shop").await;
        assert!(taken.expect("the leases answer"));
        told(&a, "x", totals(200, 2, 1_000), totals(200, 0, 1_000)).await;
        b.run().await;
        assert_eq!(b.release().await.0, 2, "the other one took over");
        // It still believes in its lease and in the first version of the document.
        a.run().await;
        assert_eq!(a.release().await.0, 2);
        assert!(!a.job.held.lock().contains_key("shop"), "it knows now");
    })
    .await;
}

#[tokio::test]
async fn trials_that_are_over_are_forgotten() {
    each_backend(async |t| {
        let a = Process::start(t, "a").await;
        a.save(plan()).await;
        told(&a, "x", totals(500, 2, 1_000), totals(500, 0, 1_000)).await;
        t.clock.advance(chrono::TimeDelta::seconds(1));
        let next = json!({ "stable": "1", "candidate": { "version": "3" }, "plan": {} });
        a.save(next).await;
        told(&a, "x", totals(10, 0, 1_000), totals(10, 0, 1_000)).await;
        let left = counts::of_others(&a.job.db, "me")
            .await
            .expect("the counts can be read");
        assert_eq!(left.len(), 2, "{left:?}");
        a.run().await;
        assert_eq!(
            a.release().await.0,
            2,
            "the errors of another trial are not held against it"
        );
    })
    .await;
}

#[tokio::test]
async fn two_changes_at_once_collide() {
    each_backend(async |t| {
        let (a, b) = (Process::start(t, "a").await, Process::start(t, "b").await);
        let seen = a.save(plan()).await;
        let order = |command, expected| a.releases.command(&a.cx, "shop", command, expected, None);
        order(Command::Pause, Some(seen)).await.expect("it goes on");
        let stale = order(Command::Step, Some(seen)).await;
        assert!(matches!(stale, Err(Error::VersionMismatch(2))), "{stale:?}");
        // Another replica looked before the pause, and said nothing about a version.
        let amendment = Amendment {
            kind: Kind::Release,
            name: "shop",
            expected: None,
            seen: Some(seen),
            lease: None,
        };
        let late = b
            .ops
            .amend(&b.cx, amendment, |doc, _| Ok((doc.clone(), String::new())))
            .await;
        assert!(
            matches!(late, Err(Error::Release(Refused::Changed))),
            "{late:?}"
        );
        // However many ask at the same moment, each weight is reached once.
        let other = |command| b.releases.command(&b.cx, "shop", command, Some(2), None);
        let (one, two) = tokio::join!(order(Command::Step, Some(2)), other(Command::Step));
        assert_eq!(
            usize::from(one.is_ok()) + usize::from(two.is_ok()),
            1,
            "{one:?} {two:?}"
        );
        let (version, doc) = b.release().await;
        assert_eq!((version, doc.candidate.map(|c| c.weight)), (3, Some(5.0)));
    })
    .await;
}
