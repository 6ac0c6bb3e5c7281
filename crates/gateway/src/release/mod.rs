//! Progressive delivery: a candidate gets more traffic step by step, and none when it does worse (GW-80…83).
//!
//! The document of a release holds its state, so that every step is a version of it. `machine` says what may
//! happen, `tally` counts, `watch` adds up the counts of all replicas, `guards` judges, `job` acts.

mod counts;
mod guards;
mod job;
mod machine;
mod metrics;
mod ops;
mod refused;
#[cfg(test)]
mod replicas;
mod serving;
mod status;
pub mod tally;
#[cfg(test)]
mod tests;
mod watch;
mod window;

use std::sync::Arc;

use parking_lot::Mutex;
use portico_host::BuildCx;
use portico_jobs::JobSet;

pub(crate) use metrics::declare;
pub(crate) use ops::{Command, Releases, admitted, events};
pub(crate) use refused::Refused;
pub(crate) use serving::Serving;
pub(crate) use status::Status;

use crate::objects::{Book, Ops};

/// Builds the use-cases and the job; `ops` carries the `serving` that the gate is attached to later.
pub(crate) fn build(cx: &BuildCx<'_>, ops: &Ops, book: &Book) -> (Releases, JobSet) {
    let serving = ops.serving.clone();
    let watch = watch::Watch::new(cx.db.clone(), serving.clone(), &**cx.random);
    let watch = Arc::new(watch);
    let releases = Releases::new(ops.clone(), serving.clone(), watch);
    metrics::export(&cx.telemetry.metrics, book.clone(), serving);
    let job = Arc::new(job::GuardJob {
        releases: releases.clone(),
        book: book.clone(),
        db: cx.db.clone(),
        holder: Arc::clone(&cx.node.name),
        held: Mutex::default(),
    });
    (releases, job.jobs())
}
