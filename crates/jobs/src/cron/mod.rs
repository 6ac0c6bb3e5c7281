//! Schedules: work that is due at moments of a calendar, once in the installation.
//!
//! A [`Cron`] names the setting that holds its expression. At each of its moments one process asks for a
//! durable job of the same name, in the transaction that notes the moment as asked for; so no two processes
//! ask twice, and what a killed process had begun is done again by another, under the same moment. Moments
//! that passed while nobody ran are made up once. A moment that comes while the run of an earlier one has
//! not ended is refused, and noted.

mod entries;
mod keep;
pub(crate) mod runs;
mod schedule;

use std::time::Duration;

use portico_contract::settings::{Key, SettingFault, Settings};

pub(crate) use entries::{ASKED, Seen};
pub use entries::{CronEntry, Form, NotAsked, ask, list, switch};
pub(crate) use keep::Scheduler;
pub use runs::CronRun;
pub use schedule::Schedule;

use crate::queue::{Failure, Handler, JobRun};
use crate::settings::TIME_ZONE;

/// Tries of one run.
const TRIES: u32 = 3;

/// What becomes of moments that passed while nobody ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// They are made up, once for all of them.
    #[default]
    Once,
    /// They are left out, when they passed more than a minute ago.
    Skip,
}

/// A schedule and what is done at its moments.
#[derive(Clone)]
pub struct Cron {
    pub(crate) handler: Handler,
    pub(crate) settings: Settings,
    pub(crate) key: &'static Key<String>,
    pub(crate) catch_up: CatchUp,
    pub(crate) tries: u32,
}

impl Cron {
    /// A schedule named `service.verb`, whose expression is the value of a setting. The run gets its moment
    /// by [`JobRun::tick`]: with the name it is the key of what the run does, so that a second run for the
    /// same moment finds it done.
    pub fn new<F, Fut>(
        name: &'static str,
        settings: &Settings,
        key: &'static Key<String>,
        run: F,
    ) -> Self
    where
        F: Fn(JobRun) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self {
            handler: Handler::new(name, run)
                .at_once(1)
                .backoff(Duration::from_secs(30), Duration::from_secs(600)),
            settings: settings.clone(),
            key,
            catch_up: CatchUp::Once,
            tries: TRIES,
        }
    }

    /// A run that takes longer has failed.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.handler = self.handler.limit(limit);
        self
    }

    /// A run is tried so often.
    #[must_use]
    pub const fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// What becomes of missed moments.
    #[must_use]
    pub const fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = catch_up;
        self
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.handler.kind
    }
}

/// The faults of settings that hold expressions, and of the time zone, for a service's own check.
#[must_use]
pub fn check_schedules(settings: &Settings, keys: &[&'static Key<String>]) -> Vec<SettingFault> {
    let zone = settings.system(&TIME_ZONE);
    let mut faults = Vec::new();
    if let Err(message) = Schedule::zone(&zone) {
        faults.push(SettingFault {
            key: TIME_ZONE.declaration.key,
            message,
        });
    }
    for key in keys {
        if let Err(message) = Schedule::parse(&settings.system(key), "UTC") {
            faults.push(SettingFault {
                key: key.declaration.key,
                message,
            });
        }
    }
    faults
}
