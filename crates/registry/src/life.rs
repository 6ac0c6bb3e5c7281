//! Time at work: whoever is silent too long, drained, or critical for too long is judged when it is due.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portico_base::{Context, Timestamp};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::check::{Check, Probe, Status};
use crate::error::Result;
use crate::hub::Core;
use crate::model::Model;
use crate::ops::{checks, deregister, settle};

/// Longest sleep: a clock that jumps is noticed after this.
const NAP: Duration = Duration::from_secs(5);

/// When each instance is to be judged next.
#[derive(Default)]
pub(crate) struct Calendar {
    due: BTreeSet<(Timestamp, Uuid)>,
    of: HashMap<Uuid, Timestamp>,
}

impl Calendar {
    fn set(&mut self, id: Uuid, at: Option<Timestamp>) {
        if let Some(before) = self.of.remove(&id) {
            self.due.remove(&(before, id));
        }
        if let Some(at) = at {
            self.of.insert(id, at);
            self.due.insert((at, id));
        }
    }

    fn take(&mut self, now: Timestamp) -> Vec<Uuid> {
        let mut out = Vec::new();
        while let Some((at, id)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            self.of.remove(&id);
            out.push(id);
        }
        out
    }

    fn first(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Runs until `stop`.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let cx = core.own_context("registry.life");
    let mut calendar = Calendar::default();
    let everybody: Vec<Uuid> = core
        .model
        .read()
        .instances()
        .map(|e| e.instance.id)
        .collect();
    core.agenda.judge(everybody);
    let mut pace = Pace {
        wall: core.clock.now(),
        steady: Instant::now(),
    };
    loop {
        if let Some(jump) = pace.jump(core.clock.now(), Instant::now()) {
            forgive(&core, jump);
        }
        if let Err(error) = step(&core, &cx, &mut calendar).await {
            // What was not written is judged again: the database may be away for a while.
            tracing::warn!(err = %error, "states of instances could not be written");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            continue;
        }
        let wait = calendar
            .first()
            .and_then(|at| (at - core.clock.now()).to_std().ok())
            .unwrap_or(if calendar.first().is_some() {
                Duration::ZERO
            } else {
                NAP
            });
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.agenda.judge_woken() => {}
            // A little later than due, so that neighbours in time share a transaction.
            () = tokio::time::sleep(wait.min(NAP) + Duration::from_millis(10)) => {}
        }
    }
}

/// Difference between the wall clock and the steady one that is taken for a jump.
const JUMP: chrono::Duration = chrono::Duration::seconds(2);

/// Compares the wall clock with the steady one, to notice when somebody sets it or the machine slept.
struct Pace {
    wall: Timestamp,
    steady: Instant,
}

impl Pace {
    /// How far the wall clock went beside the steady one since the last call, when it is a jump.
    fn jump(&mut self, wall: Timestamp, steady: Instant) -> Option<chrono::Duration> {
        let before = std::mem::replace(self, Self { wall, steady });
        let passed = chrono::Duration::from_std(steady - before.steady).ok()?;
        let drift = (wall - before.wall) - passed;
        (drift.abs() >= JUMP).then_some(drift)
    }
}

/// A clock that jumps is nobody's silence: all signs of life move with it, and everybody is judged again.
pub(crate) fn forgive(core: &Core, jump: chrono::Duration) {
    tracing::warn!(
        seconds = jump.num_seconds(),
        "the clock jumped; signs of life are moved with it"
    );
    let now = core.clock.now();
    core.ttl.shift(jump, now);
    let model = core.model.read();
    let mut ids = Vec::new();
    for entry in model.instances() {
        entry.live.shift(jump, now);
        ids.push(entry.instance.id);
    }
    core.agenda.judge(ids);
}

/// Judges everybody who is due.
pub(crate) async fn step(core: &Arc<Core>, cx: &Context, calendar: &mut Calendar) -> Result<()> {
    let now = cx.now();
    let mut ids = core.agenda.take_judge();
    ids.extend(calendar.take(now));
    let (changes, expired) = {
        let policy = core.tunables.get().policy;
        let model = core.model.read();
        let mut changes = Vec::new();
        let mut expired = Vec::new();
        for id in ids {
            calendar.set(id, None);
            let (Some(entry), Some(verdict)) = (model.instance(id), model.judge(id, now, policy))
            else {
                continue;
            };
            // What our own data plane was refused by is told by us, whoever watches over it.
            if !core.owns(id) && !entry.live.is_refused() {
                continue;
            }
            if Model::differs(entry, &verdict) {
                changes.push(id);
            }
            let ttl = ttl(core, &model, id, now, &mut expired);
            calendar.set(id, verdict.next.into_iter().chain(ttl).min());
        }
        (changes, expired)
    };
    let kept = changes.clone();
    let done = async {
        for check in &expired {
            checks::answer(core, cx, &check.key, Status::Critical, "TTL expired").await?;
        }
        settle::settle(core, cx, &changes).await
    };
    match done.await {
        Ok(_) => Ok(()),
        Err(error) => {
            core.agenda.judge(
                kept.into_iter()
                    .chain(expired.iter().filter_map(|c| c.instance)),
            );
            Err(error)
        }
    }
}

/// When the next TTL check of an instance runs out; those that have are added to `expired`.
fn ttl(
    core: &Core,
    model: &Model,
    id: Uuid,
    now: Timestamp,
    expired: &mut Vec<Arc<Check>>,
) -> Option<Timestamp> {
    let mut next: Option<Timestamp> = None;
    for check in model.checks_of(id) {
        let Some(at) = runs_out(core, check, now) else {
            continue;
        };
        if at <= now {
            expired.push(Arc::clone(check));
        } else {
            next = Some(next.map_or(at, |n| n.min(at)));
        }
    }
    next
}

/// The end of a TTL check's time; nothing when it is not one, or has run out already.
fn runs_out(core: &Core, check: &Check, now: Timestamp) -> Option<Timestamp> {
    let Probe::Ttl { ttl_ms } = check.spec.probe else {
        return None;
    };
    if check.status == Status::Critical && check.answered {
        return None;
    }
    let ttl = chrono::Duration::milliseconds(i64::try_from(ttl_ms).unwrap_or(i64::MAX / 2));
    core.ttl.seen(&check.key, now).checked_add_signed(ttl)
}

/// TTL checks of nodes as a whole, which belong to no instance; and the reaper of those that stayed
/// critical for longer than their registration allows (C§5).
pub(crate) async fn reap(core: &Arc<Core>, cx: &Context, least: Duration) -> Result<()> {
    let now = cx.now();
    let (late, dead) = {
        let model = core.model.read();
        let late: Vec<Arc<Check>> = model
            .checks()
            .filter(|c| c.instance.is_none() && core.shards.owns_text(&c.key.id))
            .filter(|c| runs_out(core, c, now).is_some_and(|at| at <= now))
            .map(Arc::clone)
            .collect();
        let dead: Vec<Uuid> = model
            .checks()
            .filter(|c| {
                c.spec.deregister_after_ms > 0 && c.status == Status::Critical && c.answered
            })
            .filter(|c| {
                let after = Duration::from_millis(c.spec.deregister_after_ms).max(least);
                (now - c.since).to_std().is_ok_and(|age| age >= after)
            })
            .filter_map(|c| c.instance)
            .filter(|id| core.owns(*id))
            .collect();
        core.ttl.forget(|key| model.check(key).is_none());
        (late, dead)
    };
    for check in late {
        checks::answer(core, cx, &check.key, Status::Critical, "TTL expired").await?;
    }
    for id in dead {
        let found = deregister::own(core, cx, id);
        if let Ok((service, _)) = found {
            deregister::remove(core, cx, &service, id, "a check was critical for too long").await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portico_base::clock::from_unix_ms;

    use super::*;

    #[test]
    fn a_clock_that_jumps_is_noticed() {
        let begin = Instant::now();
        let after = |s| begin + Duration::from_secs(s);
        let mut pace = Pace {
            wall: from_unix_ms(0),
            steady: begin,
        };
        assert_eq!(pace.jump(from_unix_ms(10_500), after(10)), None);
        let hour = pace.jump(from_unix_ms(3_611_500), after(11));
        assert_eq!(hour.map(|d| d.num_seconds()), Some(3_600));
        let back = pace.jump(from_unix_ms(11_500), after(11));
        assert_eq!(back.map(|d| d.num_seconds()), Some(-3_600));
    }

    #[test]
    fn the_calendar_keeps_one_date_an_instance() {
        let mut calendar = Calendar::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        calendar.set(a, Some(from_unix_ms(10)));
        calendar.set(b, Some(from_unix_ms(20)));
        calendar.set(a, Some(from_unix_ms(30)));
        assert_eq!(calendar.first(), Some(from_unix_ms(20)));
        assert_eq!(calendar.take(from_unix_ms(25)), [b]);
        assert_eq!(calendar.take(from_unix_ms(30)), [a]);
        assert!(calendar.first().is_none() && calendar.of.is_empty());
    }
}
