//! The desk of the durable jobs: what people see of them and what they order. The engine is `portico-jobs`,
//! whose tables these are; no rights are checked here.

mod orders;
mod view;

pub use orders::{Bulk, Refused, cancel, pause, prioritise, resume, retry, retry_dead, run_now};
pub use view::{Attempt, Desk, Filter, JobDetail, JobRow, JobState, KindState, Order};
