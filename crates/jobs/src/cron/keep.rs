//! Keeps the schedules: looks which moments have come and asks for their jobs, each once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Caller, Clock, Context, Principal, Random, Timestamp};
use portico_db::{Db, DbError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::entries::{self, ONE, Seen};
use super::runs::{self, CronRun};
use super::{CatchUp, Cron, Schedule};
use crate::queue::is_live;
use crate::settings::TIME_ZONE;

/// Longest sleep; a clock that jumps costs no more than this.
const SLEEP: Duration = Duration::from_secs(30);
/// Shortest: expressions know seconds.
const NAP: Duration = Duration::from_millis(20);
/// After a failure of the database.
const PAUSE: Duration = Duration::from_secs(3);
/// How often a process says that it still has its entries.
const SEEN: chrono::Duration = chrono::Duration::hours(1);
/// Missed moments younger than this are late, not missed.
const LATE: chrono::Duration = chrono::Duration::minutes(1);
/// A last moment so far in the future is of a clock that was wrong.
const AHEAD: chrono::Duration = chrono::Duration::hours(1);

/// The schedules of one process.
pub(crate) struct Scheduler {
    db: Db,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    crons: Vec<Kept>,
    seen: Vec<Seen>,
    changed: Arc<Notify>,
    said_at: Mutex<Option<Timestamp>>,
}

struct Kept {
    cron: Cron,
    now: Mutex<Known>,
}

/// What this process knows of a schedule.
#[derive(Default)]
struct Known {
    /// Value of the settings as last read: expression and zone.
    text: Option<(String, String)>,
    /// What is in force.
    schedule: Option<Schedule>,
    force: Option<(String, String)>,
    /// Nothing is to be done before this moment.
    next: Option<Timestamp>,
}

impl Scheduler {
    pub(crate) fn new(
        db: Db,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        seen: Vec<Seen>,
        crons: Vec<Cron>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        if let Some(cron) = crons.first() {
            let wake = Arc::downgrade(&changed);
            cron.settings.subscribe(Arc::new(move |_| {
                if let Some(changed) = wake.upgrade() {
                    changed.notify_one();
                }
            }));
        }
        let kept = |cron| Kept {
            cron,
            now: Mutex::default(),
        };
        Self {
            db,
            clock,
            random,
            crons: crons.into_iter().map(kept).collect(),
            seen,
            changed,
            said_at: Mutex::default(),
        }
    }

    /// Looks until told to stop.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let wait = match self.look().await {
                Ok(next) => {
                    let left = next.map(|at| (at - self.clock.now()).to_std().unwrap_or_default());
                    left.unwrap_or(SLEEP).clamp(NAP, SLEEP)
                }
                Err(error) => {
                    tracing::warn!(err = %error, "schedules could not be looked after");
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Asks for everything whose moment has come. Gives the next moment of any schedule.
    pub(crate) async fn look(&self) -> Result<Option<Timestamp>, DbError> {
        self.say().await?;
        let mut next = None;
        for kept in &self.crons {
            self.define(kept).await?;
            let moment = self.ask(kept).await?;
            next = [next, moment].into_iter().flatten().min();
        }
        Ok(next)
    }

    /// Enters what this process runs, and again from time to time.
    async fn say(&self) -> Result<(), DbError> {
        let now = self.clock.now();
        if self.said_at.lock().is_some_and(|at| now - at < SEEN) {
            return Ok(());
        }
        let tx = self.db.begin().await?;
        entries::see(&tx, &self.seen, now).await?;
        tx.commit().await?;
        *self.said_at.lock() = Some(now);
        Ok(())
    }

    /// Takes over what the settings say, when that is something new to this process. Whoever still knows
    /// an older value says nothing, so that replicas never argue.
    async fn define(&self, kept: &Kept) -> Result<(), DbError> {
        let cron = &kept.cron;
        let text = (
            cron.settings.system(cron.key),
            cron.settings.system(&TIME_ZONE),
        );
        if kept.now.lock().text.as_ref() == Some(&text) {
            return Ok(());
        }
        let now = self.clock.now();
        let tx = self.db.begin().await?;
        match Schedule::parse(&text.0, &text.1) {
            Ok(schedule) => {
                entries::define(&tx, cron.name(), &text.0, &text.1, now).await?;
                tx.commit().await?;
                let mut known = kept.now.lock();
                known.schedule = Some(schedule);
                known.next = None;
                known.force = Some(text.clone());
                known.text = Some(text);
            }
            // What was in force goes on.
            Err(why) => {
                tracing::error!(
                    cron = cron.name(),
                    setting = cron.key.declaration.key,
                    why,
                    "not a schedule"
                );
                entries::fault(&tx, cron.name(), &why).await?;
                let row = entries::lock(&tx, cron.name()).await?;
                tx.commit().await?;
                let before = row.and_then(|row| row.expression.zip(row.zone));
                let mut known = kept.now.lock();
                if known.schedule.is_none()
                    && let Some((expression, zone)) = before
                {
                    known.schedule = Schedule::parse(&expression, &zone).ok();
                    known.force = Some((expression, zone));
                }
                known.text = Some(text);
            }
        }
        Ok(())
    }

    /// Asks for the job of a schedule when its moment has come and nobody else has. Gives its next moment.
    async fn ask(&self, kept: &Kept) -> Result<Option<Timestamp>, DbError> {
        let now = self.clock.now();
        let (schedule, next) = {
            let known = kept.now.lock();
            (known.schedule.clone(), known.next)
        };
        let Some(schedule) = schedule else {
            return Ok(None);
        };
        if let Some(next) = next
            && next > now
        {
            return Ok(Some(next));
        }
        let name = kept.cron.name();
        let tx = self.db.begin().await?;
        let row = entries::lock(&tx, name).await?;
        // Another replica knows a newer expression: its moments are that one's to ask for.
        let mine = kept.now.lock().force.clone();
        let row = row.filter(|row| row.expression.clone().zip(row.zone.clone()) == mine);
        if let Some(row) = row {
            let asked = row.last_tick.unwrap_or(now);
            if asked > now + AHEAD {
                entries::advance(&tx, name, now).await?;
            } else if let Some(tick) = schedule.due(asked, now) {
                entries::advance(&tx, name, tick).await?;
                let skipped = kept.cron.catch_up == CatchUp::Skip && now - tick > LATE;
                if row.enabled && !skipped {
                    self.begin(&tx, &kept.cron, tick).await?;
                }
            }
        }
        tx.commit().await?;
        let next = schedule.next_after(now);
        kept.now.lock().next = next;
        Ok(next)
    }

    async fn begin(
        &self,
        tx: &portico_db::WriteTx,
        cron: &Cron,
        tick: Timestamp,
    ) -> Result<(), DbError> {
        let name = cron.name();
        if is_live(tx, name, ONE).await? {
            tracing::warn!(
                cron = name,
                "a moment has passed: the last run has not ended"
            );
            let mut refused = CronRun::new(tick, "refused");
            refused.error = Some("the run of an earlier moment has not ended".to_owned());
            return runs::note(tx, name, &refused).await;
        }
        let cx = Context {
            caller: Caller::internal(Principal::system(), name),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        };
        entries::begin(tx, &cx, name, tick, cron.tries).await?;
        Ok(())
    }
}
