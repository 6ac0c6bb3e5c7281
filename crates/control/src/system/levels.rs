//! Log levels that somebody raised for a while: in every process, and back by themselves (CT-133).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Clock, Timestamp};
use portico_db::{Db, News};
use portico_host::Telemetry;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Told to all processes when a level is changed.
pub(crate) const TOPIC: &str = "system.log_level_changed";
/// Targets that can be changed at a time.
pub(crate) const MOST: usize = 20;
/// How long without news the events are looked for.
const POLL: Duration = Duration::from_secs(60);

/// A level of one target until a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raised {
    /// `portico_gateway`, or empty for all.
    pub(crate) target: String,
    /// off, error, warn, info, debug or trace.
    pub(crate) level: String,
    pub(crate) until: Timestamp,
}

/// The levels of this process.
pub(crate) struct LogLevels {
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    now: Mutex<Levels>,
}

#[derive(Default)]
struct Levels {
    /// What holds without anybody's wish.
    base: Option<String>,
    /// What was set last; something else is a newer base, of a reloaded configuration.
    set: Option<String>,
    raised: BTreeMap<String, Raised>,
}

impl LogLevels {
    pub(crate) fn new(telemetry: Telemetry, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            telemetry,
            clock,
            now: Mutex::default(),
        })
    }

    /// The levels of the configuration, and what is raised above or below them for a while.
    pub(crate) fn shown(&self) -> (Option<String>, Vec<Raised>) {
        let levels = self.now.lock();
        let base = levels.base.clone();
        let raised = levels.raised.values().cloned().collect();
        (base.or_else(|| self.telemetry.log_levels()), raised)
    }

    /// Follows what is changed, in this process and others, and ends what is over.
    pub(crate) async fn follow(&self, db: &Db, stop: &CancellationToken) {
        let head = db.outbox().head().await.unwrap_or(0);
        let mut news = db.follow(&[TOPIC], head, POLL);
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                told = news.next() => Some(told),
                () = tokio::time::sleep(self.until_next()) => None,
            };
            match told {
                Some(Ok(News::Events(events))) => {
                    for event in events {
                        if let Ok(raised) = serde_json::from_value(event.payload) {
                            self.put(raised);
                        }
                    }
                }
                Some(Ok(News::Reset)) => {}
                Some(Err(_)) => tokio::time::sleep(Duration::from_secs(1)).await,
                None => self.apply(),
            }
        }
    }

    /// Takes one over; one that is over already ends that of its target.
    pub(crate) fn put(&self, raised: Raised) {
        {
            let mut levels = self.now.lock();
            if levels.raised.len() < MOST || levels.raised.contains_key(&raised.target) {
                levels.raised.insert(raised.target.clone(), raised);
            }
        }
        self.apply();
    }

    fn until_next(&self) -> Duration {
        let now = self.clock.now();
        let levels = self.now.lock();
        let next = levels.raised.values().map(|raised| raised.until).min();
        let left = next.map(|until| (until - now).to_std().unwrap_or_default());
        // A reloaded configuration is seen no later than this.
        left.unwrap_or(POLL).clamp(Duration::from_millis(10), POLL)
    }

    fn apply(&self) {
        let now = self.clock.now();
        let mut levels = self.now.lock();
        levels.raised.retain(|_, raised| raised.until > now);
        let current = self.telemetry.log_levels();
        if levels.base.is_none() || current != levels.set {
            levels.base = current;
        }
        let Some(base) = levels.base.clone() else {
            return;
        };
        let text = composed(&base, levels.raised.values());
        match self.telemetry.set_log_levels(&text) {
            Ok(()) => levels.set = self.telemetry.log_levels(),
            Err(error) => tracing::warn!(err = %error, "a log level was not changed"),
        }
        if levels.raised.is_empty() {
            (levels.base, levels.set) = (None, None);
        }
    }
}

/// The levels of the configuration with those of a while behind them, which count.
fn composed<'a>(base: &str, raised: impl Iterator<Item = &'a Raised>) -> String {
    let mut text = base.to_owned();
    for one in raised {
        text.push(',');
        if !one.target.is_empty() {
            text.push_str(&one.target);
            text.push('=');
        }
        text.push_str(&one.level);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_levels_stand_behind_the_others() {
        let raised = |target: &str, level: &str| Raised {
            target: target.to_owned(),
            level: level.to_owned(),
            until: portico_base::clock::from_unix_ms(0),
        };
        let both = [raised("", "debug"), raised("portico_jobs", "trace")];
        let text = composed("info,hyper=warn", both.iter());
        assert_eq!(text, "info,hyper=warn,debug,portico_jobs=trace");
        assert_eq!(composed("info", [].iter()), "info");
    }
}
