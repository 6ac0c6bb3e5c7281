//! Health: checks run in the background, probes read the last result (HL-1…HL-3).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use portico_base::{Clock, Timestamp};
use serde::Serialize;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// All is well.
    Ok,
    /// Something is missing, but requests are served.
    Degraded(String),
    /// Requests of this process cannot be served.
    Failed(String),
}

/// A named check, run every few seconds.
#[derive(Clone)]
pub struct Check {
    /// Its name (`database`).
    pub name: &'static str,
    /// Looks once; more than a second counts as failed.
    pub run: Arc<dyn Fn() -> BoxFuture<'static, CheckResult> + Send + Sync>,
    /// How long it may fail before the process is unready; nothing: never (degraded only).
    pub unready_after: Option<Duration>,
}

/// One line of `/health`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Its name.
    pub name: &'static str,
    /// `ok`, `degraded` or `failed`.
    pub status: &'static str,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long the last look took, in milliseconds.
    pub ms: u64,
    /// Since when it has this status.
    pub since: Timestamp,
    #[serde(skip)]
    unready_after: Option<Duration>,
}

/// The health of this process. Cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    started: AtomicBool,
    draining: AtomicBool,
    checks: Vec<Check>,
    reports: RwLock<Vec<CheckReport>>,
}

impl Health {
    /// Health with these checks; not started yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, checks: Vec<Check>) -> Self {
        let now = clock.now();
        let reports = checks
            .iter()
            .map(|check| CheckReport {
                name: check.name,
                status: "ok",
                detail: None,
                ms: 0,
                since: now,
                unready_after: check.unready_after,
            })
            .collect();
        Self(Arc::new(Inner {
            clock,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            checks,
            reports: RwLock::new(reports),
        }))
    }

    /// All listeners are open and all snapshots loaded.
    pub fn set_started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// No new work shall come.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// True once started.
    #[must_use]
    pub fn started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// True while stopping.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// True when requests may come (HL-2).
    #[must_use]
    pub fn ready(&self) -> bool {
        if !self.started() || self.draining() {
            return false;
        }
        let now = self.0.clock.now();
        self.0
            .reports
            .read()
            .iter()
            .all(|report| match report.unready_after {
                Some(limit) if report.status == "failed" => {
                    (now - report.since).to_std().unwrap_or_default() < limit
                }
                _ => true,
            })
    }

    /// The last results.
    #[must_use]
    pub fn reports(&self) -> Vec<CheckReport> {
        self.0.reports.read().clone()
    }

    /// Runs every check once, each for at most a second. Gives the checks that were well before and are
    /// not any more (true), or the other way round (false).
    pub async fn look(&self) -> Vec<(&'static str, bool)> {
        let mut changed = Vec::new();
        for (index, check) in self.0.checks.iter().enumerate() {
            let begin = std::time::Instant::now();
            let result = tokio::time::timeout(Duration::from_secs(1), (check.run)())
                .await
                .unwrap_or_else(|_| CheckResult::Failed("no answer within a second".to_owned()));
            let (status, detail) = match result {
                CheckResult::Ok => ("ok", None),
                CheckResult::Degraded(why) => ("degraded", Some(why)),
                CheckResult::Failed(why) => ("failed", Some(why)),
            };
            let now = self.0.clock.now();
            let mut reports = self.0.reports.write();
            let report = &mut reports[index];
            if report.status != status {
                tracing::info!(
                    check = check.name,
                    from = report.status,
                    to = status,
                    "health changed"
                );
                if (report.status == "ok") != (status == "ok") {
                    changed.push((check.name, status != "ok"));
                }
                report.since = now;
            }
            report.status = status;
            report.detail = detail;
            report.ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use portico_base::ManualClock;
    use portico_base::clock::from_unix_ms;

    use super::*;

    #[tokio::test]
    async fn a_failing_dependency_makes_unready_only_after_its_time() {
        let clock = ManualClock::at(from_unix_ms(0));
        let broken = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&broken);
        let check = Check {
            name: "database",
            unready_after: Some(Duration::from_secs(10)),
            run: Arc::new(move || {
                let failed = seen.load(Ordering::SeqCst);
                Box::pin(async move {
                    if failed {
                        CheckResult::Failed("gone".to_owned())
                    } else {
                        CheckResult::Ok
                    }
                })
            }),
        };
        let health = Health::new(Arc::new(clock.clone()), vec![check]);
        assert!(!health.ready());
        health.set_started();
        assert!(health.ready());
        broken.store(true, Ordering::SeqCst);
        assert_eq!(health.look().await, [("database", true)]);
        assert!(health.look().await.is_empty(), "told once");
        assert!(health.ready());
        clock.advance(chrono::Duration::seconds(11));
        assert!(!health.ready());
        broken.store(false, Ordering::SeqCst);
        assert_eq!(health.look().await, [("database", false)]);
        assert!(health.ready());
        health.set_draining();
        assert!(!health.ready());
    }
}
