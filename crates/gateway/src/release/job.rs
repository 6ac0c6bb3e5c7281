//! `gateway.release_guard`: watches the trials of candidates, stops bad ones, and lets plans go on (GW-81).
//!
//! It runs in every process, because every process must tell what it counted. One replica a release decides,
//! by the lease `gateway.release.{service}`; its writes are fenced by it, and made only if the document is
//! still the one that was judged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Context, Timestamp};
use portico_db::{Db, DbError, Lease, LeaseTiming};
use portico_jobs::{JobCx, JobError, JobSet, Periodic};

use super::guards::{Verdict, judge};
use super::machine::{Due, World};
use super::ops::{Order, Releases};
use super::refused::Refused;
use crate::error::Error;
use crate::objects::Book;
use crate::objects::doc::{GuardsDoc, Object, Phase, ReleaseDoc};

/// Its name.
pub(super) const NAME: &str = "gateway.release_guard";
/// A violated guard has 5 s until the weight is 0 (GW-81). Two runs lie within them: one in which another
/// replica tells what it counted, and the one that decides by it.
const EVERY: Duration = Duration::from_secs(2);
/// A run that takes longer is given up; the next one begins anew.
const LIMIT: Duration = Duration::from_secs(20);
/// Short, because nobody watches a trial between the death of a replica and the end of its leases. A replica
/// that is slower than this loses nothing but the right, and its late writes are refused.
const LEASE: LeaseTiming = LeaseTiming {
    ttl: Duration::from_secs(8),
    renew: Duration::from_secs(3),
    stop: Duration::from_secs(7),
};

/// The job with what it works on.
pub(super) struct GuardJob {
    pub(super) releases: Releases,
    pub(super) book: Book,
    pub(super) db: Db,
    /// Name of the process in leases.
    pub(super) holder: Arc<str>,
    pub(super) held: Mutex<HashMap<Arc<str>, Held>>,
}

/// A lease, and when it was renewed by this process's own clock: the database's may be another one.
pub(super) struct Held {
    lease: Lease,
    renewed: Timestamp,
}

impl GuardJob {
    /// As jobs of the service.
    pub(super) fn jobs(self: &Arc<Self>) -> JobSet {
        let job = Arc::clone(self);
        let run = move |cx: JobCx| {
            let job = Arc::clone(&job);
            async move { job.run(&cx).await }
        };
        JobSet::new().with(Periodic::new(NAME, EVERY, run).limit(LIMIT))
    }

    async fn run(&self, job: &JobCx) -> Result<(), JobError> {
        let cx = &job.context;
        let objects = self.book.current();
        let now = cx.now();
        let watch = &self.releases.watch;
        watch.refresh(now, &objects.releases).await?;
        let mut failed = None;
        for release in &objects.releases {
            let outcome = if is_open(&release.doc) {
                self.attend(cx, release, now).await
            } else {
                self.leave(&release.name).await
            };
            // One release that fails must not keep the others from being watched.
            if let Err(error) = outcome {
                failed = Some(error);
            }
            if job.cancel.is_cancelled() {
                break;
            }
        }
        let held: Vec<Arc<str>> = self.held.lock().keys().cloned().collect();
        let is_gone = |name: &Arc<str>| !objects.releases.iter().any(|r| r.name == *name);
        let gone = held.into_iter().filter(is_gone);
        for name in gone {
            self.leave(&name).await?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Decides about one release, if the lease is ours.
    async fn attend(
        &self,
        cx: &Context,
        release: &Object<ReleaseDoc>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (service, doc) = (&release.name, &release.doc);
        // Most runs find nothing to do; only a decision needs the right to make it, but the right is taken
        // early so that it is there when a guard is violated.
        let Some(lease) = self.lease(service, now).await? else {
            return Ok(());
        };
        let Some(order) = self.decide(service, doc, now) else {
            return Ok(());
        };
        let done = { self.releases.carry_out(cx, service, doc, &order, &lease) }.await;
        match done {
            Ok(_) => {
                report(service, doc, &order);
                Ok(())
            }
            // Somebody was quicker: the next run sees what is there then.
            Err(Error::Release(Refused::Changed) | Error::UnknownObject) => Ok(()),
            Err(Error::Release(why)) => {
                tracing::warn!(service = %service, err = %why, code = why.code(), "a release cannot go on");
                Ok(())
            }
            Err(Error::Db(DbError::LeaseLost(_))) => {
                self.held.lock().remove(service);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What is to be done now: a violated guard comes before everything.
    fn decide(&self, service: &str, doc: &ReleaseDoc, now: Timestamp) -> Option<Order> {
        let state = doc.state.as_ref()?;
        let guards = { doc.plan.as_ref() }.map_or_else(GuardsDoc::default, |p| p.guards);
        let counted = { &self.releases.watch }.sides(service, state.run, guards.min_requests);
        if let (Some(_), Some((_, sides))) =
            (doc.plan.as_ref().filter(|_| doc.has_trial()), &counted)
        {
            let judged = judge(&guards, &sides.candidate, &sides.stable);
            let bad = judged.into_iter().find(|j| j.verdict == Verdict::Violated);
            if let Some(bad) = bad {
                return Some(Order::Stop(bad.guard, Box::new(bad.numbers)));
            }
        }
        let candidate = doc.candidate.as_ref().map(|c| c.version.as_str());
        let serving = &self.releases.serving;
        let world = World {
            now,
            candidate_ready: candidate.is_some_and(|version| serving.ready(service, version) > 0),
            requests: counted.map_or(0, |(whole, _)| {
                whole.candidate.requests.min(whole.stable.requests)
            }),
        };
        Some(match doc.due(&world)?.ok()? {
            Due::Step => Order::Step,
            Due::Promote => Order::Promote,
            Due::Wait => Order::Wait,
            Due::CloseWindow => Order::CloseWindow,
        })
    }

    /// The right to decide about a release, renewed when it is about to end.
    async fn lease(&self, service: &Arc<str>, now: Timestamp) -> Result<Option<Lease>, Error> {
        let known = |h: &Held| (h.lease.clone(), h.renewed);
        let held = self.held.lock().get(service).map(known);
        let leases = self.db.leases().with_timing(LEASE);
        let lease = match held {
            Some((lease, renewed)) if is_fresh(renewed, now) => return Ok(Some(lease)),
            Some((lease, _)) => leases.renew(&lease).await?,
            None => {
                let name = format!("gateway.release.{service}");
                leases.acquire(&name, &self.holder).await?
            }
        };
        let mut held = self.held.lock();
        match &lease {
            Some(lease) => {
                let (lease, renewed) = (lease.clone(), now);
                held.insert(Arc::clone(service), Held { lease, renewed });
            }
            None => {
                held.remove(service);
            }
        }
        drop(held);
        Ok(lease)
    }

    /// Gives the right back where there is nothing to decide any more.
    async fn leave(&self, service: &str) -> Result<(), Error> {
        let held = self.held.lock().remove(service);
        if let Some(held) = held {
            self.db.leases().release(&held.lease).await?;
        }
        Ok(())
    }
}

/// True when a lease need not be renewed yet; a clock that was set back proves nothing.
fn is_fresh(renewed: Timestamp, now: Timestamp) -> bool {
    (now - renewed).to_std().is_ok_and(|age| age < LEASE.renew)
}

/// True while time or guards can still decide something.
fn is_open(doc: &ReleaseDoc) -> bool {
    let planned = doc.plan.is_some() && doc.candidate.is_some() && doc.phase() != Phase::Aborted;
    let kept = { doc.state.as_ref() }.and_then(|s| s.previous.as_ref());
    planned || kept.is_some_and(|previous| !previous.over)
}

/// Until Control has rules for it, this line and the event are the alert (`spec/README.md` §6).
fn report(service: &str, doc: &ReleaseDoc, order: &Order) {
    let candidate = doc.candidate.as_ref().map_or("", |c| c.version.as_str());
    match order {
        Order::Stop(guard, numbers) => tracing::warn!(
            code = "gateway.release_aborted",
            service,
            candidate,
            guard = guard.as_str(),
            measured = numbers.measured,
            limit = numbers.limit,
            candidate_requests = numbers.candidate.requests,
            stable_requests = numbers.stable.requests,
            "a guard stopped a release"
        ),
        other => tracing::info!(service, candidate, order = ?other, "a release went on"),
    }
}
