//! What a worker does all day: writes what has ended, takes what is due, waits for news.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portico_db::{DbError, News, OutboxRow};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::claims::{self, Claim, Due, Want};
use super::ends::{self, Ended, Left};
use super::figures::Ran;
use super::run::Finished;
use super::{CANCEL, COUNT, ENQUEUED, Inner, Kind, POLL};
use crate::settings;

/// A kind whose due jobs others were just taking, or may not run more of, is looked at again after this.
const BUSY: Duration = Duration::from_millis(100);

/// Runs on their way.
#[derive(Default)]
struct Crew {
    running: JoinSet<Option<Finished>>,
    /// Of these, those that are not of small kinds.
    large: usize,
    ended: Vec<Finished>,
}

impl Inner {
    pub(super) async fn work(self: &Arc<Self>, stop: &CancellationToken) {
        let mut crew = Crew::default();
        let head = self.db.outbox().head().await.unwrap_or(0);
        let mut news = self.db.follow(&[ENQUEUED, CANCEL], head, 12 * POLL);
        let (mut look_at, mut count_at) = (Instant::now(), Instant::now());
        while !stop.is_cancelled() {
            if Instant::now() >= count_at {
                count_at = Instant::now() + COUNT;
                self.count().await;
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + POLL;
                self.logged(self.recover().await);
                self.look_soon(|_| true);
            }
            self.gather(&mut crew);
            self.write_ends(&mut crew.ended).await;
            let filled = self.fill(&mut crew, stop).await;
            let due = self.logged(filled).unwrap_or(POLL);
            let mut until = look_at.min(Instant::now() + due);
            if !crew.ended.is_empty() {
                until = until.min(Instant::now() + Duration::from_secs(1));
            }
            tokio::select! {
                () = stop.cancelled() => break,
                told = news.next() => match told {
                    Ok(News::Events(events)) => self.hear(&events),
                    Ok(News::Reset) => self.look_soon(|_| true),
                    // The poll must do.
                    Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                },
                () = tokio::time::sleep_until(until) => {}
                Some(run) = crew.running.join_next() => self.returned(&mut crew, run),
            }
        }
        while let Some(run) = crew.running.join_next().await {
            self.returned(&mut crew, run);
        }
        self.write_ends(&mut crew.ended).await;
    }

    /// Takes the runs that have ended until now.
    fn gather(&self, crew: &mut Crew) {
        while let Some(run) = crew.running.try_join_next() {
            self.returned(crew, run);
        }
    }

    fn returned(&self, crew: &mut Crew, run: Result<Option<Finished>, tokio::task::JoinError>) {
        let Ok(Some(run)) = run else { return };
        if let Some(kind) = self.kinds.get(&*run.claim.kind) {
            kind.running.fetch_sub(1, Ordering::Relaxed);
            if !kind.handler.small {
                crew.large = crew.large.saturating_sub(1);
            }
        }
        crew.ended.push(run);
    }

    fn hear(&self, events: &[OutboxRow]) {
        for event in events {
            match (&*event.topic, Uuid::parse_str(&event.key)) {
                (CANCEL, Ok(job)) => self.hands.cancel(job),
                (CANCEL, Err(_)) => {}
                _ => self.look_soon(|kind| kind == event.key),
            }
        }
    }

    fn look_soon(&self, which: impl Fn(&str) -> bool) {
        let now = Instant::now();
        for (name, kind) in &self.kinds {
            if which(name) {
                *kind.look_at.lock() = now;
            }
        }
    }

    /// Starts what is due as far as there is room; gives the time until the next look at a kind.
    async fn fill(
        self: &Arc<Self>,
        crew: &mut Crew,
        stop: &CancellationToken,
    ) -> Result<Duration, DbError> {
        let mut budget = self
            .settings
            .system(&settings::AT_ONCE)
            .saturating_sub(crew.large);
        let mut queues = self.rooms_of_queues();
        let now = Instant::now();
        let kinds: Vec<&str> = self
            .kinds
            .iter()
            .filter(|(_, kind)| *kind.look_at.lock() <= now)
            .filter(|(_, kind)| room(kind, budget, &queues) > 0)
            .map(|(name, _)| *name)
            .collect();
        if !kinds.is_empty() {
            let due = claims::due(&self.db, &kinds).await?;
            self.look_later(&kinds, &due);
            let clock = self.clock.now();
            let mut wants = Vec::new();
            for first in due.iter().filter(|first| first.run_at <= clock) {
                let Some(kind) = self.kinds.get(&*first.kind) else {
                    continue;
                };
                let room = room(kind, budget, &queues);
                if room == 0 {
                    continue;
                }
                let taken = wants.iter().filter(|w: &&Want<'_>| w.kind == first.kind);
                let room = room.saturating_sub(taken.map(|w| w.room).sum());
                if room > 0 {
                    wants.push(Want {
                        kind: &first.kind,
                        priority: first.priority,
                        room,
                        everywhere: kind.handler.everywhere,
                    });
                }
            }
            for want in &mut wants {
                reserve(&self.kinds, want, &mut budget, &mut queues);
            }
            wants.retain(|want| want.room > 0);
            if !wants.is_empty() {
                let claims = self.claim(&wants).await?;
                self.after_claims(&wants, &claims);
                self.start(crew, claims, stop);
            }
        }
        let next = self.kinds.values().map(|kind| *kind.look_at.lock()).min();
        // A kind without room is looked at when one of its runs has ended, which ends the wait anyway.
        let wait = next.map_or(POLL, |at| at.saturating_duration_since(Instant::now()));
        let has_room = |kind: &Kind| room(kind, budget, &queues) > 0;
        if wait.is_zero() && !self.kinds.values().any(|k| is_due(k) && has_room(k)) {
            return Ok(POLL);
        }
        Ok(wait)
    }

    /// Rooms that settings leave to queues.
    fn rooms_of_queues(&self) -> BTreeMap<String, usize> {
        let mut rooms = self.settings.system(&settings::QUEUES);
        for (name, kind) in &self.kinds {
            if let Some(room) = rooms.get_mut(queue_of(name)) {
                *room = room.saturating_sub(kind.running.load(Ordering::Relaxed));
            }
        }
        rooms
    }

    /// A kind is looked at again when its first job is due, or after the poll.
    fn look_later(&self, kinds: &[&str], due: &[Due]) {
        let (now, clock) = (Instant::now(), self.clock.now());
        for name in kinds {
            let first = due
                .iter()
                .filter(|d| d.kind == *name)
                .map(|d| d.run_at)
                .min();
            let wait = first.map_or(2 * POLL, |at| (at - clock).to_std().unwrap_or_default());
            if let Some(kind) = self.kinds.get(name) {
                *kind.look_at.lock() = now + wait.min(2 * POLL);
            }
        }
    }

    /// Whoever got nothing of what was due must not ask again at once.
    fn after_claims(&self, wants: &[Want<'_>], claims: &[Claim]) {
        for want in wants {
            if !claims.iter().any(|claim| claim.kind == want.kind)
                && let Some(kind) = self.kinds.get(want.kind)
            {
                *kind.look_at.lock() = Instant::now() + BUSY;
            }
        }
    }

    fn start(self: &Arc<Self>, crew: &mut Crew, claims: Vec<Claim>, stop: &CancellationToken) {
        for claim in claims {
            let Some((name, kind)) = self.kinds.get_key_value(&*claim.kind) else {
                continue;
            };
            kind.running.fetch_add(1, Ordering::Relaxed);
            crew.large += usize::from(!kind.handler.small);
            let (inner, name, stop) = (Arc::clone(self), *name, stop.clone());
            crew.running.spawn(async move {
                let kind = inner.kinds.get(name)?;
                Some(inner.run(kind, claim, &stop).await)
            });
        }
    }

    /// Gives the jobs of dead workers back, whatever their kind; those that have no tries left are dead.
    pub(super) async fn recover(&self) -> Result<(), DbError> {
        for claim in claims::expired(&self.db).await? {
            let now = self.clock.now();
            let error = "its worker was lost".to_owned();
            let ended = if claim.cancel_asked {
                Ended::Cancelled
            } else if claim.tries >= claim.max_tries {
                Ended::Dead(error)
            } else {
                Ended::Again(now, error)
            };
            let tx = self.db.begin().await?;
            let taken = claims::take_over(&tx, &self.db, &claim).await?
                && ends::end(&tx, &claim, &ended, &Left::default(), now).await?;
            match tx.commit().await {
                // Somebody asked for the same at this moment: the next look sees it.
                Err(error) if error.is_unique_violation() => continue,
                done => done?,
            };
            if taken {
                tracing::warn!(job = claim.kind, job_id = %claim.id, holder = claim.holder, "a job's worker was lost");
                if let (Some(kind), Ended::Dead(_)) = (self.kinds.get(&*claim.kind), &ended) {
                    kind.figures.note(Ran::Dead);
                }
            }
        }
        Ok(())
    }
}

fn is_due(kind: &Kind) -> bool {
    *kind.look_at.lock() <= Instant::now()
}

fn queue_of(kind: &str) -> &str {
    kind.split('.').next().unwrap_or(kind)
}

/// How many more runs of a kind this process may begin.
fn room(kind: &Kind, budget: usize, queues: &BTreeMap<String, usize>) -> usize {
    let used = kind.running.load(Ordering::Relaxed);
    let mut room = kind.handler.at_once.saturating_sub(used);
    if !kind.handler.small {
        room = room.min(budget);
    }
    if let Some(left) = queues.get(queue_of(kind.handler.kind)) {
        room = room.min(*left);
    }
    room
}

/// Takes the room of a want out of what all share, and cuts the want to what there is.
fn reserve(
    kinds: &BTreeMap<&'static str, Kind>,
    want: &mut Want<'_>,
    budget: &mut usize,
    queues: &mut BTreeMap<String, usize>,
) {
    let small = kinds.get(want.kind).is_some_and(|kind| kind.handler.small);
    if !small {
        want.room = want.room.min(*budget);
    }
    if let Some(left) = queues.get_mut(queue_of(want.kind)) {
        want.room = want.room.min(*left);
        *left -= want.room;
    }
    if !small {
        *budget -= want.room;
    }
}
