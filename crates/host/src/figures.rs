//! Figures of database and jobs as metrics: read from their own counters at each scrape.

use portico_db::Db;
use portico_db::metrics::{Observed, Op};
use portico_jobs::{Queue, Runner};
use portico_telemetry::metrics::{CounterFamily, GaugeFamily, HistogramFamily, Registry, Samples};

static POOL: GaugeFamily = GaugeFamily::new(
    "portico_db_pool_connections",
    "Connections to the database by pool and state.",
    &["pool", "state"],
    8,
);
static ERRORS: CounterFamily = CounterFamily::new(
    "portico_db_errors_total",
    "Errors of the database by kind.",
    &["kind"],
    16,
);
static BUSY: CounterFamily = CounterFamily::new(
    "portico_db_busy_total",
    "Statements and commits refused because of another transaction.",
    &[],
    1,
);
static RETRIES: CounterFamily = CounterFamily::new(
    "portico_db_retries_total",
    "Transactions that were run again because they collided with another one.",
    &[],
    1,
);
static WAL: GaugeFamily = GaugeFamily::new(
    "portico_db_wal_bytes",
    "Size of SQLite's write-ahead log.",
    &[],
    1,
);
static RUNS: CounterFamily = CounterFamily::new(
    "portico_jobs_runs_total",
    "Runs of jobs by job and result, in this process.",
    &["kind", "result"],
    500,
);
static QUEUED: GaugeFamily = GaugeFamily::new(
    "portico_jobs_queued",
    "Durable jobs that wait, due or not, by queue; counted every 15 s.",
    &["queue"],
    32,
);
static OLDEST: GaugeFamily = GaugeFamily::new(
    "portico_jobs_oldest_seconds",
    "How long the oldest durable job is due, by queue.",
    &["queue"],
    32,
);
static DEAD: CounterFamily = CounterFamily::new(
    "portico_jobs_dead_total",
    "Durable jobs that this process gave up.",
    &[],
    1,
);
static ACQUIRE: HistogramFamily = HistogramFamily::seconds(
    "portico_db_acquire_seconds",
    "Waits for a connection to the database.",
    &[],
    1,
);
static QUERY: HistogramFamily = HistogramFamily::seconds(
    "portico_db_query_seconds",
    "Run times of statements, and of commits with their fsync, by kind.",
    &["op"],
    6,
);
static RUN: HistogramFamily = HistogramFamily::seconds(
    "portico_jobs_run_seconds",
    "Run times of jobs by job.",
    &["kind"],
    100,
);
static LEASE: GaugeFamily = GaugeFamily::new(
    "portico_lease_held",
    "1 for each lease that this process holds.",
    &["name"],
    64,
);

/// Declares what [`export`] exports and what the host exports itself, for the documentation.
pub fn declare_metrics(registry: &Registry) {
    portico_telemetry::declare_metrics(registry);
    portico_state::declare_metrics(registry);
    portico_objects::declare_metrics(registry);
    registry.declare(&crate::telemetry::families());
    registry.declare(&crate::degraded::FAMILIES);
    registry.declare(&crate::skew::FAMILIES);
    registry.declare(&crate::background::FAMILIES);
    registry.declare(&portico_rpc::FAMILIES);
    registry.declare(&[
        POOL.family(),
        ERRORS.family(),
        BUSY.family(),
        RETRIES.family(),
        WAL.family(),
        ACQUIRE.family(),
        QUERY.family(),
        RUNS.family(),
        RUN.family(),
        QUEUED.family(),
        OLDEST.family(),
        DEAD.family(),
        LEASE.family(),
    ]);
}

/// Adds the figures to every scrape.
pub(crate) fn export(registry: &Registry, db: &Db, jobs: &Runner) {
    declare_metrics(registry);
    let acquire = registry.histogram(&ACQUIRE).with(&[]);
    let query = registry.histogram(&QUERY);
    let query = Op::ALL.map(|op| query.with(&[op.as_str()]));
    db.metrics().observe(move |what, took| match what {
        Observed::Acquire => acquire.observe(took),
        Observed::Query(op) => query[op as usize].observe(took),
    });
    let run = registry.histogram(&RUN);
    jobs.observe(move |job, took| run.with(&[job]).observe(took));
    let (db, jobs) = (db.clone(), jobs.clone());
    registry.collect_with(move |samples| {
        for (pool, connections) in db.connections() {
            samples.gauge(&POOL, &[pool, "used"], f64::from(connections.used));
            samples.gauge(&POOL, &[pool, "idle"], f64::from(connections.idle));
            samples.gauge(&POOL, &[pool, "max"], f64::from(connections.max));
        }
        for (kind, count) in db.metrics().errors() {
            samples.counter(&ERRORS, &[kind], count as f64);
        }
        samples.counter(&BUSY, &[], db.metrics().busy_total() as f64);
        samples.counter(&RETRIES, &[], db.metrics().retries_total() as f64);
        if let Some(bytes) = db.wal_bytes() {
            samples.gauge(&WAL, &[], bytes as f64);
        }
        for job in jobs.status() {
            for (result, count) in [
                ("done", job.done),
                ("failed", job.failed),
                ("cancelled", job.cancelled),
            ] {
                samples.counter(&RUNS, &[job.name, result], count as f64);
            }
        }
        durable(samples, jobs.queue());
        for name in jobs.held_leases() {
            samples.gauge(&LEASE, &[&name], 1.0);
        }
    });
}

fn durable(samples: &mut Samples, queue: &Queue) {
    for depth in queue.depths() {
        samples.gauge(&QUEUED, &[&depth.queue], depth.waiting as f64);
        samples.gauge(&OLDEST, &[&depth.queue], depth.oldest_s);
    }
    let mut dead = 0;
    for kind in queue.figures() {
        dead += kind.dead;
        for (result, count) in [
            ("done", kind.done),
            ("retried", kind.retried),
            ("dead", kind.dead),
            ("cancelled", kind.cancelled),
        ] {
            samples.counter(&RUNS, &[kind.kind, result], count as f64);
        }
    }
    samples.counter(&DEAD, &[], dead as f64);
}
