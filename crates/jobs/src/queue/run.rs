//! One run of a job: the handler under its time limit and its lease, and what is written at its end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::FutureExt as _;
use portico_base::{Caller, Context, Principal};
use portico_db::DbError;
use portico_telemetry::logs::LogContext;
use portico_telemetry::trace::{self, OpenSpan, SpanKind};
use tokio_util::sync::CancellationToken;

use super::figures::Ran;
use super::job::{Failure, JobRun};
use super::table::{self, Claim, Ended};
use super::{Inner, Kind};

/// How often the end of a run is written when it meets another transaction.
const TRIES: u32 = 3;

impl Inner {
    /// Runs the handler and writes how it ended.
    pub(super) async fn run(&self, kind: &Kind, claim: Claim, stop: &CancellationToken) -> Ran {
        let begun = Instant::now();
        let claim = Arc::new(claim);
        let result = self.handle(kind, &claim, stop).await;
        let ran = self.write_end(kind, &claim, result).await;
        if let Some(observer) = self.observer.get() {
            observer(kind.handler.kind, begun.elapsed());
        }
        kind.figures.note(ran);
        ran
    }

    /// The handler's own result; nothing when its lease was lost, or when it did not end in time after
    /// the process was told to stop (the second value tells which).
    async fn handle(
        &self,
        kind: &Kind,
        claim: &Arc<Claim>,
        stop: &CancellationToken,
    ) -> Result<Result<(), Failure>, Ran> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let request_id = format!("{}-{}-{number}", claim.kind, self.holder);
        let mut span = self.job_span(claim, &request_id);
        let cancel = stop.child_token();
        let run = JobRun {
            context: Context {
                caller: Caller::internal(Principal::system(), &request_id),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
            },
            cancel: cancel.clone(),
            claim: Arc::clone(claim),
        };
        let handler = Arc::clone(&kind.handler.run);
        // The closure itself may panic as well as its future.
        let guarded = AssertUnwindSafe(async move { handler(run).await }).catch_unwind();
        let limit = kind.handler.limit;
        let limited = async move {
            match tokio::time::timeout(limit, guarded).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Failure::Retry("the job panicked".into())),
                Err(_) => Err(format!("not done within {} s", limit.as_secs()).into()),
            }
        };
        let grace = self.timing.ttl.saturating_sub(self.timing.stop) * 2 / 3;
        let result = {
            let mut work = Box::pin(span.around(limited));
            tokio::select! {
                biased;
                // Whoever fails because it was told to stop has not failed.
                result = &mut work => match result {
                    Err(_) if stop.is_cancelled() => Err(Ran::GivenBack),
                    result => Ok(result),
                },
                () = self.keep(claim) => {
                    cancel.cancel();
                    let _ = tokio::time::timeout(grace, &mut work).await;
                    Err(Ran::Lost)
                }
                () = stop.cancelled() => match tokio::time::timeout(grace, &mut work).await {
                    Ok(Ok(())) => Ok(Ok(())),
                    _ => Err(Ran::GivenBack),
                },
            }
        };
        if let Ok(Err(failure)) = &result {
            span.fail(failure.text());
        }
        result
    }

    /// Renews the lease; returns when it is lost, or might be soon.
    async fn keep(&self, claim: &Claim) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep_until(renewed + self.timing.renew).await;
            let sent = tokio::time::Instant::now();
            let end = renewed + self.timing.stop;
            if sent >= end {
                return;
            }
            let renewing = table::renew(&self.db, claim, self.timing.ttl);
            match tokio::time::timeout_at(end, renewing).await {
                Ok(Ok(true)) => renewed = sent,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(job = claim.kind, job_id = %claim.id, err = %error, "a job's lease was not renewed");
                    tokio::time::sleep(self.timing.renew / 5).await;
                }
            }
        }
    }

    async fn write_end(
        &self,
        kind: &Kind,
        claim: &Claim,
        result: Result<Result<(), Failure>, Ran>,
    ) -> Ran {
        let now = self.clock.now();
        let (ran, ended) = match result {
            Ok(Ok(())) => (Ran::Done, None),
            Err(Ran::GivenBack) => (Ran::GivenBack, Some(Ended::Again(now, None))),
            Err(_) => {
                tracing::warn!(job = claim.kind, job_id = %claim.id, "a job's lease was lost");
                return Ran::Lost;
            }
            Ok(Err(failure)) => {
                let text = failure.text();
                let wait = match failure {
                    Failure::Dead(_) => None,
                    _ if claim.tries >= claim.max_tries => None,
                    Failure::RetryAfter(_, wait) => Some(wait),
                    Failure::Retry(_) => {
                        let backoff = kind.handler.backoff;
                        Some(backoff.wait(claim.tries, |bound| self.random.below(bound)))
                    }
                };
                log_failure(claim, &text, wait.is_none());
                match wait {
                    Some(wait) => (Ran::Retried, Some(Ended::Again(now + wait, Some(text)))),
                    None => (Ran::Dead, Some(Ended::Dead(text))),
                }
            }
        };
        match self.write(claim, ended.as_ref()).await {
            Ok(true) => ran,
            Ok(false) => {
                tracing::warn!(job = claim.kind, job_id = %claim.id, "a job's lease was lost");
                Ran::Lost
            }
            // The lease ends, and the job is run again: once too often rather than not at all.
            Err(error) => {
                tracing::error!(job = claim.kind, job_id = %claim.id, err = %error, "a job's end was not written");
                Ran::Lost
            }
        }
    }

    /// Writes the end (done, where nothing else is said); false when the lease was lost.
    async fn write(&self, claim: &Claim, ended: Option<&Ended>) -> Result<bool, DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let written = self.write_once(claim, ended).await;
            match written {
                // Somebody asked for the same at this moment: now it can be seen.
                Err(error)
                    if tries < TRIES && (error.is_unique_violation() || error.is_transient()) => {}
                done => return done,
            }
        }
    }

    async fn write_once(&self, claim: &Claim, ended: Option<&Ended>) -> Result<bool, DbError> {
        let now = self.clock.now();
        let tx = self.db.begin().await?;
        let written = match ended {
            // The handler may have written it itself, with its effect.
            None => table::finish(&tx, claim, now).await? || table::is_done(&tx, claim).await?,
            Some(ended) => table::end(&tx, claim, ended, now).await?,
        };
        tx.commit().await?;
        Ok(written)
    }

    /// A run begins a trace of its own and names that of the request which asked for it.
    fn job_span(&self, claim: &Claim, request_id: &str) -> OpenSpan {
        let context = LogContext {
            request_id: Some(Arc::from(request_id)),
            service: claim.kind.split('.').next().map(Arc::from),
            ..LogContext::default()
        };
        let name = claim.kind.clone();
        let mut span = trace::root(&self.tracer, "jobs", name, SpanKind::Consumer, context);
        span.set("portico.job", claim.kind.clone());
        span.set("portico.job_id", claim.id.to_string());
        span.set("portico.job_try", i64::from(claim.tries));
        if let Some(trace) = &claim.trace {
            span.set("portico.enqueued_by_trace", trace.clone());
        }
        span
    }
}

fn log_failure(claim: &Claim, err: &str, dead: bool) {
    let (job, job_id, tries) = (&claim.kind, claim.id, claim.tries);
    if dead {
        tracing::error!(job, %job_id, tries, err, "job given up");
    } else {
        tracing::warn!(job, %job_id, tries, err, "job failed, it will be tried again");
    }
}
