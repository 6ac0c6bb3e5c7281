//! One run of a job: the handler under its time limit and its lease, and how it ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use portico_base::{Caller, Context, Principal};
use portico_telemetry::logs::{LogContext, LogTail, in_scope};
use portico_telemetry::trace::{self, OpenSpan, SpanKind};
use tokio_util::sync::CancellationToken;

use super::claims::Claim;
use super::ends::{Ended, Left};
use super::figures::Ran;
use super::held::Held;
use super::job::{Failure, JobRun};
use super::{Inner, Kind};

/// A run that has ended, not written yet.
pub(super) struct Finished {
    pub(super) claim: Arc<Claim>,
    pub(super) held: Arc<Held>,
    /// How; nothing when its lease was lost.
    pub(super) end: Option<End>,
    pub(super) left: Left,
    pub(super) took: Duration,
}

/// How a run ended.
pub(super) enum End {
    /// As it should.
    Done,
    /// Otherwise.
    Not(Ran, Ended),
}

impl Finished {
    /// It ended well, at once and without a word: nothing but its state is to be written.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.end, Some(End::Done)) && self.claim.tries <= 1 && self.left.logs.is_empty()
    }
}

impl Inner {
    /// Runs the handler.
    pub(super) async fn run(
        &self,
        kind: &Kind,
        claim: Claim,
        stop: &CancellationToken,
    ) -> Finished {
        let begun = Instant::now();
        let claim = Arc::new(claim);
        let held = self.hands.take(&claim);
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let request_id = format!("{}-{}-{number}", claim.kind, self.holder);
        let tail = Arc::new(LogTail::default());
        let mut span = self.job_span(&claim, &request_id, &tail);
        let result = self
            .handle(kind, &claim, &held, stop, &span, &request_id)
            .await;
        let lines = Arc::clone(&tail);
        let end = self
            .end_of(kind, &claim, &held, result, &mut span, lines)
            .await;
        let (mut logs, dropped) = tail.take();
        if dropped > 0 {
            logs.insert(0, format!("… {dropped} lines before"));
        }
        let trace = span.kept_trace().map(|trace| trace.to_string());
        Finished {
            left: Left { logs, trace },
            took: begun.elapsed(),
            claim,
            held,
            end,
        }
    }

    /// The handler's own result; [`Ran::Lost`] when its lease was lost, or [`Ran::GivenBack`] when it did
    /// not end in time after the process was told to stop.
    async fn handle(
        &self,
        kind: &Kind,
        claim: &Arc<Claim>,
        held: &Arc<Held>,
        stop: &CancellationToken,
        span: &OpenSpan,
        request_id: &str,
    ) -> Result<Result<(), Failure>, Ran> {
        let cancel = stop.child_token();
        let run = JobRun {
            context: Context {
                caller: Caller::internal(Principal::system(), request_id),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
            },
            cancel: cancel.clone(),
            claim: Arc::clone(claim),
            held: Arc::clone(held),
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
        let mut work = Box::pin(span.around(limited));
        let mut asked = false;
        loop {
            tokio::select! {
                biased;
                // Whoever fails because it was told to stop has not failed.
                result = &mut work => return match result {
                    Err(_) if stop.is_cancelled() && !asked => Err(Ran::GivenBack),
                    result => Ok(result),
                },
                () = held.lost(self.timing.stop) => {
                    cancel.cancel();
                    let _ = tokio::time::timeout(grace, &mut work).await;
                    return Err(Ran::Lost);
                }
                () = held.asked.cancelled(), if !asked => {
                    asked = true;
                    cancel.cancel();
                }
                () = stop.cancelled() => return match tokio::time::timeout(grace, &mut work).await {
                    Ok(Ok(())) => Ok(Ok(())),
                    Ok(Err(failure)) if asked => Ok(Err(failure)),
                    _ => Err(Ran::GivenBack),
                },
            }
        }
    }

    /// What is to be written about a result; nothing when the lease was lost.
    async fn end_of(
        &self,
        kind: &Kind,
        claim: &Claim,
        held: &Held,
        result: Result<Result<(), Failure>, Ran>,
        span: &mut OpenSpan,
        tail: Arc<LogTail>,
    ) -> Option<End> {
        let now = self.clock.now();
        let failure = match result {
            Ok(Ok(())) => return Some(End::Done),
            Err(Ran::GivenBack) => {
                return Some(End::Not(Ran::GivenBack, Ended::GivenBack(now)));
            }
            Err(_) => {
                tracing::warn!(job = claim.kind, job_id = %claim.id, "a job's lease was lost");
                return None;
            }
            Ok(Err(failure)) => failure,
        };
        if held.asked.is_cancelled() {
            return Some(End::Not(Ran::Cancelled, Ended::Cancelled));
        }
        let text = failure.text();
        span.fail(text.clone());
        let wait = match failure {
            Failure::Dead(_) => None,
            _ if claim.tries >= claim.max_tries => None,
            Failure::RetryAfter(_, wait) => Some(wait),
            Failure::Retry(_) => {
                let backoff = kind.handler.backoff;
                Some(backoff.wait(claim.tries, |bound| self.random.below(bound)))
            }
        };
        // The line belongs to the run as well.
        let context = LogContext {
            tail: Some(tail),
            ..LogContext::default()
        };
        let logging = async { log_failure(claim, &text, wait.is_none()) };
        in_scope(Arc::new(context), logging).await;
        Some(match wait {
            Some(wait) => End::Not(Ran::Retried, Ended::Again(now + wait, text)),
            None => End::Not(Ran::Dead, Ended::Dead(text)),
        })
    }

    /// A run begins a trace of its own and names that of the request which asked for it.
    fn job_span(&self, claim: &Claim, request_id: &str, tail: &Arc<LogTail>) -> OpenSpan {
        let context = LogContext {
            request_id: Some(Arc::from(request_id)),
            service: claim.kind.split('.').next().map(Arc::from),
            tail: Some(Arc::clone(tail)),
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
