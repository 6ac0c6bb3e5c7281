//! Background work: jobs that run again and again, alone in the installation where they ask for it.
//!
//! A service declares its jobs in a [`JobSet`]; the host gives all sets to one [`Runner`]. Jobs of one
//! service that must run alone share a lease, so that one replica runs them all. Each run has a time
//! limit, a panic or an error ends the run and not the job, and a run that takes too long delays the next
//! one instead of running beside it.

mod ops;
mod periodic;
mod runner;
mod status;

pub use ops::ops_jobs;
pub use periodic::{JobCx, JobError, JobSet, Periodic};
pub use runner::{DuplicateJob, Runner};
pub use status::{JobStatus, Outcome};
