//! The ends of runs on their way into the database: those of many runs in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use portico_db::DbError;
use uuid::Uuid;

use super::figures::Ran;
use super::run::{End, Finished};
use super::{Inner, ends};

/// How often an end is written at once when it meets another transaction.
const TRIES: u32 = 3;

impl Inner {
    /// Writes the ends of all runs and forgets those that are written. What could not be written stays, as
    /// long as its lease is ours: it is done, and must not be done again because the database is away.
    pub(super) async fn write_ends(&self, ended: &mut Vec<Finished>) {
        ended.retain(|run| {
            let lost = run.end.is_none() || run.held.is_overdue(self.timing.stop);
            if lost {
                self.note(run, Ran::Lost);
            }
            !lost
        });
        let plain: Vec<&Finished> = ended.iter().filter(|run| run.is_plain()).collect();
        let mut written = BTreeSet::new();
        if !plain.is_empty() {
            match self.write_done(&plain).await {
                Ok(done) => {
                    for run in plain {
                        let ours = done.contains(&run.claim.id);
                        self.note(run, if ours { Ran::Done } else { Ran::Lost });
                        written.insert(run.claim.id);
                    }
                }
                Err(error) => {
                    tracing::error!(jobs = plain.len(), err = %error, "ends of jobs were not written");
                }
            }
        }
        for run in ended.iter().filter(|run| !run.is_plain()) {
            match self.write_one(run).await {
                Ok(ran) => {
                    self.note(run, ran);
                    written.insert(run.claim.id);
                }
                Err(error) => {
                    tracing::error!(job = run.claim.kind, job_id = %run.claim.id, err = %error, "a job's end was not written");
                }
            }
        }
        ended.retain(|run| !written.contains(&run.claim.id));
    }

    /// The ids of those that are done.
    async fn write_done(&self, plain: &[&Finished]) -> Result<BTreeSet<Uuid>, DbError> {
        let now = self.clock.now();
        let claims: Vec<_> = plain
            .iter()
            .map(|run| (&*run.claim, run.left.trace.as_deref()))
            .collect();
        let mut tries = 0;
        loop {
            tries += 1;
            let writing = async {
                let tx = self.db.begin().await?;
                let done = ends::finish_all(&tx, &claims, now).await?;
                tx.commit().await?;
                Ok(done)
            };
            match writing.await {
                Err::<_, DbError>(error) if tries < TRIES && error.is_transient() => {}
                done => return done,
            }
        }
    }

    async fn write_one(&self, run: &Finished) -> Result<Ran, DbError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.write_once(run).await {
                // Somebody asked for the same at this moment: now it can be seen.
                Err(error)
                    if tries < TRIES && (error.is_unique_violation() || error.is_transient()) => {}
                done => return done,
            }
        }
    }

    async fn write_once(&self, run: &Finished) -> Result<Ran, DbError> {
        let now = self.clock.now();
        self.write_progress_of(&run.held).await?;
        let tx = self.db.begin().await?;
        let ran = match &run.end {
            Some(End::Not(ran, how)) => {
                let ours = ends::end(&tx, &run.claim, how, &run.left, now).await?;
                if ours {
                    *ran
                } else {
                    self.left_behind(&tx, run).await?
                }
            }
            _ => {
                let claim = [(&*run.claim, run.left.trace.as_deref())];
                let done = ends::finish_all(&tx, &claim, now).await?;
                if done.is_empty() {
                    Ran::Lost
                } else if run.is_plain() {
                    Ran::Done
                } else {
                    ends::attempt(&tx, &run.claim, "done", None, &run.left, now).await?;
                    Ran::Done
                }
            }
        };
        tx.commit().await?;
        Ok(ran)
    }

    /// A run that failed after it had ended its job with its effect has done it.
    async fn left_behind(&self, tx: &portico_db::WriteTx, run: &Finished) -> Result<Ran, DbError> {
        if ends::is_done(tx, &run.claim).await? {
            return Ok(Ran::Done);
        }
        Ok(Ran::Lost)
    }

    /// Counts a run that is over and lets its job go.
    fn note(&self, run: &Finished, ran: Ran) {
        if ran == Ran::Lost && run.end.is_some() {
            tracing::warn!(job = run.claim.kind, job_id = %run.claim.id, "a job's lease was lost");
        }
        self.hands.let_go(&run.held);
        if let Some(kind) = self.kinds.get(&*run.claim.kind) {
            kind.figures.note(ran);
            if let Some(observer) = self.observer.get() {
                observer(kind.handler.kind, run.took);
            }
        }
    }

    /// Writes the end of one run at once, for a worker that runs one after the other.
    pub(super) async fn write_now(self: &Arc<Self>, run: Finished) -> Ran {
        let lost = run.end.is_none();
        let ran = if lost {
            Ran::Lost
        } else {
            match self.write_one(&run).await {
                Ok(ran) => ran,
                // The lease ends, and the job is run again: once too often rather than not at all.
                Err(error) => {
                    tracing::error!(job = run.claim.kind, job_id = %run.claim.id, err = %error, "a job's end was not written");
                    Ran::Lost
                }
            }
        };
        self.note(&run, ran);
        ran
    }
}
