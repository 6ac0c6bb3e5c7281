//! Real worker processes, killed with SIGKILL in the middle of their work: no job is lost, and an effect in
//! the transaction that ends its job happens once. A program of its own, because it is its own worker.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portico_base::{Caller, Context, Principal, SystemClock, SystemRandom};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query, SelectStatement};
use portico_db::testing::{TestDb, each_backend};
use portico_db::{Backend, Db, DbOptions, LeaseTiming, Migrations, Step, schema};
use portico_jobs::{Handler, Job, JobRun, Queue, end_all_job_leases, enqueue_all, migrations};
use tokio_util::sync::CancellationToken;

const KIND: &str = "test.count";
const JOBS: u32 = 400;
/// A worker is killed whenever so many more effects are there.
const STRIDE: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);
const TIMING: LeaseTiming = LeaseTiming {
    ttl: Duration::from_millis(900),
    renew: Duration::from_millis(300),
    stop: Duration::from_millis(700),
};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [_, word, url, holder] = words.as_slice()
        && word == "--be-a-worker"
    {
        runtime.block_on(work(url, holder));
    } else {
        runtime.block_on(each_backend(async |t| {
            killed_workers_lose_and_double_nothing(t).await
        }));
    }
}

/// What a killed process was: takes jobs and does them, each with its effect in one transaction.
async fn work(url: &str, holder: &str) {
    let db = Db::connect(&DbOptions::new(url.to_owned()), Arc::new(SystemClock))
        .await
        .unwrap();
    if db.backend() == Backend::Sqlite {
        // As the host does at the start of the only process.
        end_all_job_leases(&db).await.unwrap();
    }
    let effects = db.clone();
    let handler = Handler::new(KIND, move |run: JobRun| {
        let db = effects.clone();
        async move {
            let number: u32 = run.payload()?;
            note(&db, "begun", number).await?;
            let tx = db.begin().await?;
            let mut insert = Query::insert();
            insert
                .into_table("effects")
                .columns(["number"])
                .values_panic([i64::from(number).into()]);
            tx.execute(&insert).await?;
            // With its effect or not at all: whoever dies before the commit has done nothing.
            run.done(&tx).await?;
            tx.commit().await?;
            Ok(())
        }
    })
    .small()
    .backoff(Duration::from_millis(1), Duration::from_millis(5));
    let random = Arc::new(SystemRandom);
    Queue::new(db, Arc::new(SystemClock), random, holder, [handler])
        .with_lease_timing(TIMING)
        .work(&CancellationToken::new())
        .await;
}

async fn note(db: &Db, table: &'static str, number: u32) -> Result<(), portico_db::DbError> {
    let mut insert = Query::insert();
    insert
        .into_table(table)
        .columns(["number"])
        .values_panic([i64::from(number).into()]);
    let tx = db.begin().await?;
    tx.execute(&insert).await?;
    tx.commit().await?;
    Ok(())
}

async fn killed_workers_lose_and_double_nothing(t: &TestDb) {
    let numbers = |name| {
        schema::table(name)
            .col(schema::big_integer("number"))
            .into()
    };
    let tables = Step::new("m0001_test", [numbers("effects"), numbers("begun")]);
    t.db.migrate(&[("jobs", migrations()), ("test", Migrations::new([tables]))])
        .await
        .unwrap();
    let tx = t.db.begin().await.unwrap();
    let cx = Context {
        caller: Caller::internal(Principal::system(), "test"),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let jobs = (0..JOBS).map(|n| Job::new(KIND, &n).unwrap()).collect();
    enqueue_all(&tx, &cx, jobs).await.unwrap();
    tx.commit().await.unwrap();
    // Several replicas where there is a server, one process where there is a file.
    let at_once = if t.db.backend() == Backend::Postgres {
        3
    } else {
        1
    };
    let mut workers: Vec<Child> = (0..at_once).map(|n| worker(t, n)).collect();
    let mut kills = 0;
    let watching = async {
        let mut next = STRIDE;
        while count(t, "effects", false).await < JOBS as usize {
            if count(t, "effects", false).await >= next {
                next += STRIDE;
                let victim = kills % workers.len();
                workers[victim].kill().unwrap();
                workers[victim].wait().unwrap();
                kills += 1;
                workers[victim] = worker(t, at_once + kills);
            }
            tokio::task::yield_now().await;
        }
        // The last ones are still to be ended.
        while waiting(t).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, watching).await;
    for mut worker in workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    assert!(done.is_ok(), "{} jobs are left", waiting(t).await);
    let effects = count(t, "effects", false).await;
    let different = count(t, "effects", true).await;
    let begun = count(t, "begun", false).await;
    assert_eq!((effects, different), (JOBS as usize, JOBS as usize));
    assert!(kills >= 5, "{kills} workers were killed");
    assert!(begun >= effects);
}

fn worker(t: &TestDb, number: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--be-a-worker",
            t.options.url.expose(),
            &format!("worker-{number}"),
        ])
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

async fn count(t: &TestDb, table: &'static str, different: bool) -> usize {
    let mut select = Query::select();
    let number = Expr::col("number");
    let count = if different {
        number.count_distinct()
    } else {
        number.count()
    };
    select.expr_as(count, "n").from(table);
    number_of(t, &select).await
}

async fn waiting(t: &TestDb) -> usize {
    let mut select = Query::select();
    select
        .expr_as(Expr::col("id").count(), "n")
        .from("jobs")
        .and_where(Expr::col("state").ne("done"));
    number_of(t, &select).await
}

async fn number_of(t: &TestDb, select: &SelectStatement) -> usize {
    let row = t.db.reader().query_one(select).await.unwrap().unwrap();
    usize::try_from(row.try_get::<i64>("", "n").unwrap()).unwrap()
}
