//! Brings the counts of all replicas together: each tells its own, each adds up everybody's.
//!
//! Every replica keeps the windows, so that whoever gets the lease next judges by the same numbers, and any
//! replica can show them.

use std::collections::HashMap;

use parking_lot::Mutex;
use portico_base::{Random, Timestamp};
use portico_db::{Db, DbError};

use super::counts::{self, Count};
use super::serving::Serving;
use super::tally::Totals;
use super::window::{Sides, Window};
use crate::objects::doc::{Object, ReleaseDoc};

/// The counts of all trials.
pub(super) struct Watch {
    db: Db,
    serving: Serving,
    /// This process, unlike any before it: its counts begin at zero.
    me: String,
    windows: Mutex<HashMap<String, (i64, Window)>>,
    /// What was told last: nothing is written for what has not changed.
    told: Mutex<Vec<Count>>,
}

impl Watch {
    pub(super) fn new(db: Db, serving: Serving, random: &dyn Random) -> Self {
        Self {
            db,
            serving,
            me: format!("{:016x}", random.u64()),
            windows: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Tells the own counts and takes everybody's.
    pub(super) async fn refresh(
        &self,
        now: Timestamp,
        releases: &[Object<ReleaseDoc>],
    ) -> Result<(), DbError> {
        let trials: Vec<Trial<'_>> = releases.iter().filter_map(Trial::of).collect();
        let own = self.serving.counted();
        self.tell(&own, now).await?;
        if trials.is_empty() {
            self.windows.lock().clear();
            return Ok(());
        }
        let mut all = counts::of_others(&self.db, &self.me).await?;
        all.extend(own);
        self.note(now, &trials, &all);
        Ok(())
    }

    async fn tell(&self, own: &[Count], now: Timestamp) -> Result<(), DbError> {
        let news: Vec<Count> = {
            let told = self.told.lock();
            { own.iter() }
                .filter(|count| !told.contains(count))
                .cloned()
                .collect()
        };
        if !news.is_empty() {
            counts::tell(&self.db, &self.me, &news, now).await?;
        }
        *self.told.lock() = own.to_vec();
        Ok(())
    }

    fn note(&self, now: Timestamp, trials: &[Trial<'_>], all: &[Count]) {
        let mut windows = self.windows.lock();
        windows.retain(|service, (run, _)| {
            { trials.iter() }.any(|t| t.service == *service && t.run == *run)
        });
        for trial in trials {
            let of = |version: Option<&str>| {
                let mut totals = Totals::default();
                let same = |c: &&Count| {
                    c.service == trial.service && c.run == trial.run && Some(&*c.version) == version
                };
                { all.iter().filter(same) }.for_each(|count| totals.add(&count.totals));
                totals
            };
            let stable = match trial.stable {
                Some(version) => Some(version.to_owned()),
                None => { &self.serving }.stable(trial.service, Some(trial.candidate)),
            };
            let sides = Sides {
                candidate: of(Some(trial.candidate)),
                stable: of(stable.as_deref()),
            };
            { windows.entry(trial.service.to_owned()) }
                .or_insert_with(|| (trial.run, Window::default()))
                .1
                .note(now.timestamp_millis(), sides);
        }
    }

    /// What a trial counted as a whole, and what it is judged by; nothing before the first look.
    pub(super) fn sides(&self, service: &str, run: i64, least: u32) -> Option<(Sides, Sides)> {
        let windows = self.windows.lock();
        let (of, window) = windows.get(service)?;
        (*of == run).then(|| (window.whole().clone(), window.judged(least)))
    }
}

/// A trial that is under way.
struct Trial<'a> {
    service: &'a str,
    run: i64,
    stable: Option<&'a str>,
    candidate: &'a str,
}

impl<'a> Trial<'a> {
    fn of(object: &'a Object<ReleaseDoc>) -> Option<Self> {
        Some(Self {
            service: &object.name,
            run: object.doc.state.as_ref()?.run,
            stable: object.doc.stable.as_deref(),
            candidate: &object.doc.candidate.as_ref()?.version,
        })
    }
}
