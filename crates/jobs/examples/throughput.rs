//! Small jobs a second and CPU a job, beside the same rows written by hand: one database, one process.
//!
//! `throughput <database url> <pid of the server, or 0> <jobs>` prints one JSON object a line.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portico_base::{Caller, Context, Principal, SystemClock, SystemRandom};
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::{Db, DbOptions};
use portico_jobs::{Handler, Job, Queue, enqueue, enqueue_all, migrations};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const KIND: &str = "bench.nothing";
/// Jobs of one transaction that asks.
const ASKED: usize = 100;
/// Rows of one statement by hand: as many as the queue runs of a small kind at a time.
const BATCH: usize = 64;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().collect();
    let [_, url, server, jobs] = words.as_slice() else {
        println!("throughput <database url> <pid of the server, or 0> <jobs>");
        return;
    };
    let (server, jobs): (u32, usize) = (server.parse().unwrap(), jobs.parse().unwrap());
    let db = Db::connect(&DbOptions::new(url.clone()), Arc::new(SystemClock))
        .await
        .unwrap();
    db.migrate(&[("jobs", migrations())]).await.unwrap();
    let bench = Bench { db, server };
    for _ in 0..2 {
        // The first pass warms caches and connections; the second is printed behind it.
        bench.by_hand(jobs).await;
        bench.backlog(jobs).await;
        bench.each_asked_alone(jobs / 4).await;
    }
}

struct Bench {
    db: Db,
    server: u32,
}

impl Bench {
    /// The rows that the queue writes, without a queue: inserted, taken, ended, each many in a statement.
    async fn by_hand(&self, jobs: usize) {
        self.clear().await;
        let begin = Begin::now(self.server);
        self.ask(jobs).await;
        let asked = begin.at.elapsed();
        loop {
            let mut due = Query::select();
            due.column("id")
                .from("jobs")
                .and_where(Expr::cust("state = 'waiting'"))
                .limit(BATCH as u64);
            let ids = self
                .move_to("running", Expr::col("id").in_subquery(due))
                .await;
            if ids.is_empty() {
                break;
            }
            self.move_to("done", Expr::col("id").is_in(ids)).await;
        }
        begin.print("by hand", jobs, asked);
    }

    async fn move_to(&self, state: &str, which: Expr) -> Vec<Uuid> {
        let mut update = Query::update();
        update
            .table("jobs")
            .value("state", state)
            .and_where(which)
            .returning(Query::returning().column("id"));
        let tx = self.db.begin().await.unwrap();
        let rows = tx.query_all(&update).await.unwrap();
        tx.commit().await.unwrap();
        rows.iter()
            .map(|row| row.try_get("", "id").unwrap())
            .collect()
    }

    /// Jobs that wait already, worked off.
    async fn backlog(&self, jobs: usize) {
        self.clear().await;
        let begin = Begin::now(self.server);
        self.ask(jobs).await;
        let asked = begin.at.elapsed();
        let work = self.work();
        self.until_done(jobs, &work.count).await;
        begin.print("queue, asked 100 a transaction", jobs, asked);
        work.end().await;
    }

    /// Jobs that are asked for one by one, by four at a time, and done meanwhile.
    async fn each_asked_alone(&self, jobs: usize) {
        self.clear().await;
        let begin = Begin::now(self.server);
        let work = self.work();
        let asking = (0..4).map(|_| async {
            for _ in 0..jobs / 4 {
                let tx = self.db.begin().await.unwrap();
                enqueue(&tx, &context(), Job::new(KIND, &json!({ "n": 1 })).unwrap())
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
        });
        futures_util::future::join_all(asking).await;
        let asked = begin.at.elapsed();
        self.until_done(jobs / 4 * 4, &work.count).await;
        begin.print("queue, asked alone", jobs / 4 * 4, asked);
        work.end().await;
    }

    async fn ask(&self, jobs: usize) {
        for _ in 0..jobs / ASKED {
            let all = (0..ASKED).map(|n| Job::new(KIND, &json!({ "n": n })).unwrap());
            let tx = self.db.begin().await.unwrap();
            enqueue_all(&tx, &context(), all.collect()).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    fn work(&self) -> Work {
        let count = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&count);
        let handler = Handler::new(KIND, move |_| {
            done.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(()))
        });
        let random = Arc::new(SystemRandom);
        let handlers = [handler.small()];
        let queue = Queue::new(
            self.db.clone(),
            Arc::new(SystemClock),
            random,
            "bench",
            handlers,
        );
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move { queue.work(&stopping).await });
        Work { count, stop, task }
    }

    /// Waits until all have run and the ends of all are written.
    async fn until_done(&self, jobs: usize, count: &AtomicUsize) {
        while count.load(Ordering::Relaxed) < jobs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut left = Query::select();
        left.expr_as(Expr::col("id").count(), "n")
            .from("jobs")
            .and_where(Expr::col("state").ne("done"));
        loop {
            let row = self.db.reader().query_one(&left).await.unwrap().unwrap();
            if row.try_get::<i64>("", "n").unwrap() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count.load(Ordering::Relaxed), jobs, "a job ran twice");
    }

    async fn clear(&self) {
        let tx = self.db.begin().await.unwrap();
        for table in ["job_attempts", "jobs", "outbox"] {
            let mut delete = Query::delete();
            delete.from_table(table);
            tx.execute(&delete).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
}

struct Work {
    count: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Work {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

struct Begin {
    at: Instant,
    own_us: u64,
    server_us: u64,
    server: u32,
}

impl Begin {
    fn now(server: u32) -> Self {
        Self {
            at: Instant::now(),
            own_us: cpu_of(std::process::id()),
            server_us: cpu_of_server(server),
            server,
        }
    }

    fn print(&self, row: &str, jobs: usize, asked: Duration) {
        let took = self.at.elapsed();
        let own = cpu_of(std::process::id()) - self.own_us;
        let server = cpu_of_server(self.server) - self.server_us;
        let line = json!({
            "row": row,
            "jobs": jobs,
            "per_s": jobs as f64 / took.as_secs_f64(),
            "worked_per_s": jobs as f64 / took.saturating_sub(asked).as_secs_f64().max(1e-9),
            "own_us": own as f64 / jobs as f64,
            "server_us": server as f64 / jobs as f64,
        });
        println!("{line}");
    }
}

/// CPU of a process and of its children that are gone, in microseconds.
fn cpu_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default();
    let number = |n: usize| {
        fields
            .split(' ')
            .nth(n)
            .and_then(|f| f.parse().ok())
            .unwrap_or(0_u64)
    };
    // Fields 14 to 17 of proc(5), in ticks of 10 ms.
    (11..=14).map(number).sum::<u64>() * 10_000
}

/// CPU of a server with a process a connection.
fn cpu_of_server(pid: u32) -> u64 {
    if pid == 0 {
        return 0;
    }
    let mut sum = cpu_of(pid);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(child) = name.parse::<u32>() else {
            continue;
        };
        let text = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let fields = text.rsplit(") ").next().unwrap_or_default();
        if fields.split(' ').nth(1) == Some(&pid.to_string()) {
            sum += cpu_of(child);
        }
    }
    sum
}

fn context() -> Context {
    Context {
        caller: Caller::internal(Principal::system(), "bench"),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    }
}
