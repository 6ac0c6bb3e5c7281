//! What is known of each job: for the metrics `portico_jobs_*`, the system page and the schedule.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::Timestamp;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// With an error, a panic or beyond its limit; the text says which.
    Failed(String),
    /// Given up because the process stops or the lease was lost.
    Cancelled,
}

/// A job at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStatus {
    /// `service.verb`.
    pub name: &'static str,
    /// True when only one replica runs it.
    pub alone: bool,
    /// True while a run is under way in this process.
    pub running: bool,
    /// Runs that ended as they should, in this process.
    pub done: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Runs that were given up.
    pub cancelled: u64,
    /// When the next run is due here, for a job that has its turn here.
    pub next_due: Timestamp,
    /// When the last run began.
    pub last_run: Option<Timestamp>,
    /// How it ended.
    pub last_outcome: Option<Outcome>,
}

/// The schedule and the figures of one job.
pub(crate) struct State {
    turn: Mutex<Turn>,
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
}

struct Turn {
    next_due: Timestamp,
    running: bool,
    last_run: Option<Timestamp>,
    last_outcome: Option<Outcome>,
}

impl State {
    pub(crate) fn due_at(next_due: Timestamp) -> Self {
        Self {
            turn: Mutex::new(Turn {
                next_due,
                running: false,
                last_run: None,
                last_outcome: None,
            }),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        }
    }

    /// How long until the next run. A clock that was set back does not put it off by more than `most`.
    pub(crate) fn wait(&self, now: Timestamp, most: Duration) -> Duration {
        let mut turn = self.turn.lock();
        let wait = (turn.next_due - now).to_std().unwrap_or_default();
        if wait > most {
            turn.next_due = now + most;
            return most;
        }
        wait
    }

    /// Notes the beginning of a run, unless one is under way.
    pub(crate) fn begin(&self, now: Timestamp) -> bool {
        let mut turn = self.turn.lock();
        if turn.running {
            return false;
        }
        turn.running = true;
        turn.last_run = Some(now);
        true
    }

    /// Notes the end of a run and when the next one is due.
    pub(crate) fn end(&self, outcome: Outcome, next_due: Timestamp) {
        let count = match outcome {
            Outcome::Done => &self.done,
            Outcome::Failed(_) => &self.failed,
            Outcome::Cancelled => &self.cancelled,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut turn = self.turn.lock();
        turn.running = false;
        turn.next_due = next_due;
        turn.last_outcome = Some(outcome);
    }

    pub(crate) fn status(&self, name: &'static str, alone: bool) -> JobStatus {
        let turn = self.turn.lock();
        JobStatus {
            name,
            alone,
            running: turn.running,
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
            next_due: turn.next_due,
            last_run: turn.last_run,
            last_outcome: turn.last_outcome.clone(),
        }
    }
}
