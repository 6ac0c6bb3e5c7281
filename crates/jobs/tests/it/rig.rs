//! What the tests of durable jobs share: queues that go by the test's clock or by the wall clock.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Caller, Clock, Context, Principal, SeededRandom, SystemClock};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::testing::TestDb;
use portico_db::{Db, LeaseTiming};
use portico_jobs::{Handler, Job, JobId, JobRun, Queue, enqueue};
use tokio_util::sync::CancellationToken;

pub(crate) const KIND: &str = "test.do";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Times of a lease that a test can wait for.
pub(crate) const SHORT: LeaseTiming = LeaseTiming {
    ttl: Duration::from_millis(900),
    renew: Duration::from_millis(300),
    stop: Duration::from_millis(700),
};

pub(crate) async fn migrate(t: &TestDb) {
    let sets = [("jobs", portico_jobs::migrations())];
    t.db.migrate(&sets).await.unwrap();
}

pub(crate) fn context(clock: impl Clock) -> Context {
    Context {
        caller: Caller::internal(Principal::system(), "req-1"),
        clock: Arc::new(clock),
        random: Arc::new(portico_base::SystemRandom),
    }
}

pub(crate) async fn ask(t: &TestDb, job: Job) -> JobId {
    let tx = t.db.begin().await.unwrap();
    let id = enqueue(&tx, &context(t.clock.clone()), job).await.unwrap();
    tx.commit().await.unwrap();
    id
}

pub(crate) fn job(payload: u32) -> Job {
    Job::new(KIND, &payload).unwrap()
}

/// A queue that goes by the test's clock.
pub(crate) fn still(t: &TestDb, handler: Handler) -> Queue {
    let random = Arc::new(SeededRandom::new(1));
    Queue::new(
        t.db.clone(),
        Arc::new(t.clock.clone()),
        random,
        "me",
        [handler],
    )
}

/// A queue of another process that goes by the wall clock.
pub(crate) async fn live(t: &TestDb, holder: &str, handler: Handler) -> (Queue, Db) {
    let db = Db::connect(&t.options, Arc::new(SystemClock))
        .await
        .unwrap();
    let random = Arc::new(SeededRandom::new(1));
    let queue = Queue::new(db.clone(), Arc::new(SystemClock), random, holder, [handler])
        .with_lease_timing(SHORT);
    (queue, db)
}

pub(crate) fn start(queue: &Queue) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let (queue, stop) = (queue.clone(), CancellationToken::new());
    let stopping = stop.clone();
    (
        stop,
        tokio::spawn(async move { queue.work(&stopping).await }),
    )
}

/// State, tries and error of a job.
pub(crate) async fn row(t: &TestDb, id: JobId) -> (String, i32, Option<String>) {
    let mut select = Query::select();
    select
        .columns(["state", "tries", "last_error"])
        .from("jobs")
        .and_where(Expr::col("id").eq(id.0));
    let row = t.db.reader().query_one(&select).await.unwrap().unwrap();
    (
        row.try_get("", "state").unwrap(),
        row.try_get("", "tries").unwrap(),
        row.try_get("", "last_error").unwrap(),
    )
}

/// A handler that notes the payloads.
pub(crate) fn noting(seen: &Arc<Mutex<Vec<u32>>>) -> Handler {
    let seen = Arc::clone(seen);
    Handler::new(KIND, move |run: JobRun| {
        let seen = Arc::clone(&seen);
        async move {
            seen.lock().push(run.payload()?);
            Ok(())
        }
    })
}
