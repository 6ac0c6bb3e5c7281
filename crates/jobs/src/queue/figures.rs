//! Figures of the queue for `portico_jobs_*`.

use std::sync::atomic::{AtomicU64, Ordering};

use portico_base::Timestamp;
use portico_db::sea_orm::ConnectionTrait as _;
use portico_db::sea_query::{Expr, ExprTrait as _, Query};
use portico_db::{Db, DbError};

use super::{TABLE, is};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// As it should.
    Done,
    /// It failed and will be tried again.
    Retried,
    /// It failed for good.
    Dead,
    /// The process stopped; the job waits for another worker, and the try does not count.
    GivenBack,
    /// Somebody wanted it cancelled, and it obeyed.
    Cancelled,
    /// Its lease was lost: another worker has it.
    Lost,
}

/// One queue at the last count.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueDepth {
    /// First word of its kinds.
    pub queue: String,
    /// Jobs that wait, due or not.
    pub waiting: u64,
    /// How long the oldest of them is due, in seconds; 0 when none is.
    pub oldest_s: f64,
}

/// What a process did with the jobs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindFigures {
    /// `service.verb`.
    pub kind: &'static str,
    /// Runs that ended as they should.
    pub done: u64,
    /// Runs that failed and were to be tried again.
    pub retried: u64,
    /// Jobs given up.
    pub dead: u64,
    /// Runs that were cut off or lost.
    pub cancelled: u64,
}

#[derive(Default)]
pub(crate) struct Figures {
    done: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    cancelled: AtomicU64,
}

impl Figures {
    pub(crate) fn note(&self, ran: Ran) {
        let counter = match ran {
            Ran::Done => &self.done,
            Ran::Retried => &self.retried,
            Ran::Dead => &self.dead,
            Ran::GivenBack | Ran::Lost | Ran::Cancelled => &self.cancelled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, kind: &'static str) -> KindFigures {
        KindFigures {
            kind,
            done: self.done.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            dead: self.dead.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
        }
    }
}

/// The waiting jobs of a kind, and since when the oldest is due.
pub(crate) struct Depth {
    kind: String,
    waiting: u64,
    oldest: Timestamp,
}

/// Depth of every kind that has waiting jobs.
pub(crate) async fn depths(db: &Db) -> Result<Vec<Depth>, DbError> {
    let mut select = Query::select();
    select
        .column("kind")
        .expr_as(Expr::col("id").count(), "waiting")
        .expr_as(Expr::col("run_at").min(), "oldest")
        .from(TABLE)
        .and_where(is("waiting"))
        .group_by_col("kind");
    let rows = db.reader().query_all(&select).await?;
    rows.iter()
        .map(|row| {
            let waiting: i64 = row.try_get("", "waiting")?;
            Ok(Depth {
                kind: row.try_get("", "kind")?,
                waiting: u64::try_from(waiting).unwrap_or(0),
                oldest: row.try_get("", "oldest")?,
            })
        })
        .collect()
}

/// Sums the kinds of each queue.
pub(crate) fn by_queue(depths: Vec<Depth>, now: Timestamp) -> Vec<QueueDepth> {
    let mut queues: Vec<QueueDepth> = Vec::new();
    for depth in depths {
        let queue = depth.kind.split('.').next().unwrap_or_default();
        let age = (now - depth.oldest).as_seconds_f64().max(0.0);
        match queues.iter_mut().find(|q| q.queue == queue) {
            Some(sum) => {
                sum.waiting += depth.waiting;
                sum.oldest_s = sum.oldest_s.max(age);
            }
            None => queues.push(QueueDepth {
                queue: queue.to_owned(),
                waiting: depth.waiting,
                oldest_s: age,
            }),
        }
    }
    queues
}
