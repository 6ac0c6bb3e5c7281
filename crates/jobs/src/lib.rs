//! Background work: jobs that run again and again, alone in the installation where they ask for it, and
//! durable jobs that a transaction asks for.
//!
//! A service declares its jobs in a [`JobSet`]; the host gives all sets to one [`Runner`]. Jobs of one
//! service that must run alone share a lease, so that one replica runs them all. Each run has a time
//! limit, a panic or an error ends the run and not the job, and a run that takes too long delays the next
//! one instead of running beside it.
//!
//! A durable job is a row that [`enqueue`] writes in the caller's transaction; the [`Handler`] of its kind
//! does it after the commit, in whichever process takes it first, again after a failure, until it is done
//! or has no tries left. Those of a schedule ([`Cron`]) are asked for at its moments.

mod cron;
mod migrations;
mod ops;
mod periodic;
mod queue;
mod restored;
mod runner;
pub mod settings;
mod status;

pub use cron::{CatchUp, Cron, CronEntry, CronRun, Form, Schedule, check_schedules};
pub use migrations::migrations;
pub use ops::ops_jobs;
pub use periodic::{JobCx, JobError, JobSet, Periodic};
pub use queue::{
    Failure, Handler, Job, JobId, JobRun, KindFigures, Priority, Queue, QueueDepth, Ran,
    end_all_job_leases, enqueue, enqueue_all,
};
pub use restored::after_restore;
pub use runner::{DuplicateJob, Runner};
pub use status::{JobStatus, Outcome};

/// Schedules as people see them, and what they do with them; rights are the caller's to check.
pub mod schedules {
    pub use crate::cron::{NotAsked, ask, list, switch};
}

/// What the desk of jobs needs to know of their rows.
pub mod rows {
    pub use crate::cron::runs::{closed as moment_closed, reopened as moment_reopened};
    pub use crate::queue::{CANCEL, ENQUEUED, PAUSES, TABLE as JOBS, has_twin, is};
}
