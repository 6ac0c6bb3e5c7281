//! The life of jobs against a model that is a page long: random orders, runs and losses of workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Duration as Span;
use parking_lot::Mutex;
use portico_base::{Clock as _, SeededRandom};
use portico_db::Backend;
use portico_db::testing::{TestDb, sqlite};
use portico_desk::{Desk, Filter, JobState, Order, cancel, retry};
use portico_jobs::{Failure, Handler, Job, JobId, JobRun, Queue, end_all_job_leases};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use tokio::sync::broadcast;

use crate::rig::{KIND, ask, migrate};

/// What a job of the model does when it is run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Well,
    Fails,
    Dies,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A job with this many tries, and perhaps a key that waiting jobs share.
    Ask(Does, u32, Option<u8>),
    /// The oldest due job is run.
    Work,
    /// The oldest due job is taken by a worker that is lost.
    Lose,
    Retry(usize),
    Cancel(usize),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let does = prop_oneof![Just(Does::Well), Just(Does::Fails), Just(Does::Dies)];
    let step = prop_oneof![
        3 => (does, 1_u32..4, proptest::option::of(0_u8..3)).prop_map(|(d, n, k)| Step::Ask(d, n, k)),
        4 => Just(Step::Work),
        2 => Just(Step::Lose),
        2 => (0_usize..8).prop_map(Step::Retry),
        2 => (0_usize..8).prop_map(Step::Cancel),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A job as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    does: Does,
    most: u32,
    key: Option<u8>,
    tries: u32,
    state: JobState,
    due: portico_base::Timestamp,
}

impl Known {
    fn waits(&self) -> bool {
        matches!(self.state, JobState::Ready | JobState::Retrying)
    }
}

#[derive(Default)]
struct Model(BTreeMap<JobId, Known>);

impl Model {
    fn twin(&self, key: Option<u8>) -> Option<JobId> {
        let found = self.0.iter().find(|(_, job)| job.waits() && job.key == key);
        key.and_then(|_| found.map(|(id, _)| *id))
    }

    /// The job that is taken next.
    fn next(&self, now: portico_base::Timestamp) -> Option<JobId> {
        let due = self
            .0
            .iter()
            .filter(|(_, job)| job.waits() && job.due <= now);
        due.min_by_key(|(id, job)| (job.due, **id))
            .map(|(id, _)| *id)
    }

    fn fail(&mut self, id: JobId, due: portico_base::Timestamp) {
        let twin = self.twin(self.0[&id].key);
        let job = self.0.get_mut(&id).unwrap();
        job.state = match (job.does, job.tries >= job.most, twin) {
            (Does::Dies, ..) | (_, true, _) => JobState::Dead,
            (_, false, Some(_)) => JobState::Cancelled,
            _ => JobState::Retrying,
        };
        job.due = due;
    }
}

struct Rig {
    t: TestDb,
    queue: Queue,
    lost: Queue,
    ran: Arc<Mutex<Vec<JobId>>>,
    begun: broadcast::Sender<()>,
}

impl Rig {
    fn new(t: TestDb) -> Self {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ran);
        let handler = Handler::new(KIND, move |run: JobRun| {
            seen.lock().push(run.id());
            std::future::ready(match run.payload::<u8>() {
                Ok(0) => Ok(()),
                Ok(1) => Err(Failure::RetryAfter(
                    "fails".into(),
                    std::time::Duration::ZERO,
                )),
                _ => Err(Failure::dead("dies")),
            })
        });
        let make = |holder, handler| {
            let random = Arc::new(SeededRandom::new(1));
            Queue::new(
                t.db.clone(),
                Arc::new(t.clock.clone()),
                random,
                holder,
                [handler],
            )
        };
        let (begun, _) = broadcast::channel(4);
        let tell = begun.clone();
        let hangs = Handler::new(KIND, move |_| {
            let _ = tell.send(());
            std::future::pending::<Result<(), Failure>>()
        });
        let (queue, lost) = (make("one", handler), make("lost", hangs));
        Self {
            queue,
            lost,
            ran,
            begun,
            t,
        }
    }

    /// A worker takes the next job and is lost when it has begun; its lease is then over.
    async fn lose(&self) {
        let mut begun = self.begun.subscribe();
        tokio::select! {
            done = self.lost.work_off() => assert_eq!(done.unwrap(), []),
            told = begun.recv() => told.unwrap(),
        }
        end_all_job_leases(&self.t.db).await.unwrap();
    }

    async fn check(&self, model: &Model) {
        let order = Order {
            after: None,
            limit: 1_000,
        };
        let jobs = Desk::new(self.t.db.clone());
        let rows = jobs.list(&Filter::default(), order).await.unwrap();
        let found: BTreeMap<JobId, (JobState, u32)> = rows
            .iter()
            .map(|row| (row.id, (row.state, u32::try_from(row.tries).unwrap())))
            .collect();
        let wanted = model
            .0
            .iter()
            .map(|(id, job)| (*id, (job.state, job.tries)));
        assert_eq!(found, wanted.collect());
    }

    async fn step(&self, model: &mut Model, step: Step) {
        let now = self.t.clock.now();
        let nth = |n: usize| model.0.keys().copied().nth(n);
        match step {
            Step::Ask(does, most, key) => {
                let mut job = Job::new(KIND, &(does as u8)).unwrap().max_tries(most);
                if let Some(key) = key {
                    job = job.unique(key.to_string());
                }
                let id = ask(&self.t, job).await;
                match model.twin(key) {
                    Some(twin) => assert_eq!(id, twin),
                    None => {
                        let (state, tries) = (JobState::Ready, 0);
                        let known = Known {
                            does,
                            most,
                            key,
                            tries,
                            state,
                            due: now,
                        };
                        assert_eq!(model.0.insert(id, known), None);
                    }
                }
            }
            Step::Work => self.work(model).await,
            Step::Lose => {
                self.lose().await;
                if let Some(id) = model.next(now) {
                    model.0.get_mut(&id).unwrap().tries += 1;
                    model.0.get_mut(&id).unwrap().state = JobState::Running;
                    // Found by whoever works next.
                    let does =
                        std::mem::replace(&mut model.0.get_mut(&id).unwrap().does, Does::Fails);
                    model.fail(id, now);
                    model.0.get_mut(&id).unwrap().does = does;
                    self.recover().await;
                }
            }
            Step::Retry(n) => {
                let Some(id) = nth(n) else { return };
                let twin = model.twin(model.0[&id].key).filter(|twin| *twin != id);
                let tx = self.t.db.begin().await.unwrap();
                let done = retry(&tx, id, None, now).await.unwrap();
                tx.commit().await.unwrap();
                let job = model.0.get_mut(&id).unwrap();
                let (may, twin) = match job.state {
                    JobState::Retrying => (true, None),
                    JobState::Dead | JobState::Cancelled => (true, twin),
                    _ => (false, None),
                };
                assert_eq!(done.is_ok(), may && twin.is_none());
                if done.is_ok() {
                    job.due = now;
                    if job.state != JobState::Retrying {
                        (job.state, job.tries) = (JobState::Ready, 0);
                    }
                }
            }
            Step::Cancel(n) => {
                let Some(id) = nth(n) else { return };
                let tx = self.t.db.begin().await.unwrap();
                let done = cancel(&tx, id, None, now).await.unwrap();
                tx.commit().await.unwrap();
                let job = model.0.get_mut(&id).unwrap();
                assert_eq!(done.is_ok(), job.waits());
                if job.waits() {
                    job.state = JobState::Cancelled;
                }
            }
            Step::Wait => self.t.clock.advance(Span::seconds(1)),
        }
    }

    /// Runs what is due until nothing is: what fails is due again at once.
    async fn work(&self, model: &mut Model) {
        self.ran.lock().clear();
        self.queue.work_off().await.unwrap();
        let now = self.t.clock.now();
        for id in self.ran.lock().clone() {
            assert_eq!(model.next(now), Some(id), "out of order, or twice");
            let job = model.0.get_mut(&id).unwrap();
            job.tries += 1;
            job.state = JobState::Running;
            if job.does == Does::Well {
                job.state = JobState::Done;
            } else {
                model.fail(id, now);
            }
        }
        assert_eq!(model.next(now), None, "something due was left");
    }

    /// Gives the lost worker's job back, without running anything.
    async fn recover(&self) {
        let random = Arc::new(SeededRandom::new(1));
        let clock = Arc::new(self.t.clock.clone());
        let idle = Queue::new(self.t.db.clone(), clock, random, "idle", []);
        assert_eq!(idle.work_off().await.unwrap(), []);
    }
}

#[test]
fn jobs_live_as_the_model_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases: 25,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(async {
                let rig = Rig::new(sqlite().await);
                assert_eq!(rig.t.db.backend(), Backend::Sqlite);
                migrate(&rig.t).await;
                let mut model = Model::default();
                for step in steps {
                    // Ids are in the order of their moments.
                    rig.t.clock.advance(Span::milliseconds(2));
                    rig.step(&mut model, step).await;
                    rig.check(&model).await;
                }
            });
            Ok(())
        })
        .unwrap();
}
