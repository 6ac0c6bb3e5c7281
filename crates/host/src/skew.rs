//! The machine's clock beside those of the database, of Redis, and of its own past (job `ops.clock`, FM-7).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Clock, Timestamp};
use portico_db::{Backend, Db};
use portico_jobs::Periodic;
use portico_state::State;
use portico_telemetry::metrics::{Family, Gauge, GaugeFamily, Registry};

use crate::health::{Check, CheckResult};

static SKEW: GaugeFamily = GaugeFamily::new(
    "portico_clock_skew_seconds",
    "How far this machine's clock is ahead of the database's or Redis' (behind, when negative), the larger one.",
    &[],
    1,
);

pub(crate) static FAMILIES: [&Family; 1] = [SKEW.family()];

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(60);
/// Longest wait for another clock.
const PATIENCE: Duration = Duration::from_secs(1);
/// From here on it has a sentence of its own.
const OFF_MS: i64 = 5 * 60 * 1_000;

/// Compares clocks and remembers the result. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClockWatch(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    db: Db,
    state: State,
    gauge: Gauge,
    last: Mutex<Option<Skew>>,
}

/// A difference of clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Skew {
    /// Positive when ours is ahead.
    ms: i64,
    /// Of what.
    other: &'static str,
}

impl Skew {
    const fn is_off(self) -> bool {
        self.ms.abs() > OFF_MS
    }

    fn sentence(self) -> String {
        let (minutes, side) = (
            (self.ms.abs() + 30_000) / 60_000,
            if self.ms > 0 { "ahead of" } else { "behind" },
        );
        format!(
            "this machine's clock is {minutes} minutes {side} {}; tokens, certificates and leases are judged by the \
             time, so set it (best by NTP)",
            self.other
        )
    }
}

impl ClockWatch {
    pub(crate) fn new(clock: &Arc<dyn Clock>, db: &Db, state: &State, registry: &Registry) -> Self {
        Self(Arc::new(Inner {
            clock: Arc::clone(clock),
            db: db.clone(),
            state: state.clone(),
            gauge: registry.gauge(&SKEW).with(&[]),
            last: Mutex::new(None),
        }))
    }

    /// Compares once, and says so when the clock has just been found wrong, or right again.
    pub(crate) async fn look(&self) {
        let skew = self.0.worst().await;
        self.0
            .gauge
            .set(skew.map_or(0.0, |s| s.ms as f64 / 1_000.0));
        let before = std::mem::replace(&mut *self.0.last.lock(), skew);
        match (before.is_some_and(Skew::is_off), skew) {
            (false, Some(skew)) if skew.is_off() => {
                tracing::error!(skew_ms = skew.ms, "{}", skew.sentence());
            }
            (true, skew) if !skew.is_some_and(Skew::is_off) => {
                tracing::info!("this machine's clock is right again");
            }
            _ => {}
        }
    }

    /// The job that compares again and again, in every process.
    pub(crate) fn job(&self) -> Periodic {
        let watch = self.clone();
        Periodic::new("ops.clock", EVERY, move |_| {
            let watch = watch.clone();
            async move {
                watch.look().await;
                Ok(())
            }
        })
    }

    /// What was found last, for `/health`.
    pub(crate) fn check(&self) -> Check {
        let watch = self.clone();
        Check {
            name: "clock",
            unready_after: None,
            run: Arc::new(move || {
                let last = *watch.0.last.lock();
                Box::pin(std::future::ready(match last {
                    Some(skew) if skew.is_off() => CheckResult::Degraded(skew.sentence()),
                    _ => CheckResult::Ok,
                }))
            }),
        }
    }
}

impl Inner {
    async fn worst(&self) -> Option<Skew> {
        let all = [
            self.of_database().await,
            self.of_redis().await,
            self.of_the_past().await,
        ];
        all.into_iter().flatten().max_by_key(|skew| skew.ms.abs())
    }

    /// SQLite has no clock of its own.
    async fn of_database(&self) -> Option<Skew> {
        if self.db.backend() == Backend::Sqlite {
            return None;
        }
        self.beside("the database server's", async { self.db.time().await.ok() })
            .await
    }

    async fn of_redis(&self) -> Option<Skew> {
        self.beside("Redis'", async { self.state.time().await?.ok() })
            .await
    }

    /// A change that was written in the future: by this machine, before its clock was set back, or by
    /// another one. The only comparison that a single process has.
    async fn of_the_past(&self) -> Option<Skew> {
        let newest = tokio::time::timeout(PATIENCE, self.db.outbox().newest_at()).await;
        let newest = newest.ok()?.ok()??;
        let behind = (newest - self.clock.now()).num_milliseconds();
        (behind > OFF_MS).then_some(Skew {
            ms: -behind,
            other: "the last change in its own database",
        })
    }

    /// Half of the way there and back is taken for the way there (Cristian, 1989).
    async fn beside(
        &self,
        other: &'static str,
        ask: impl Future<Output = Option<Timestamp>>,
    ) -> Option<Skew> {
        let before = self.clock.now();
        let theirs = tokio::time::timeout(PATIENCE, ask).await.ok()??;
        let after = self.clock.now();
        let ours = before + (after - before) / 2;
        Some(Skew {
            ms: (ours - theirs).num_milliseconds(),
            other,
        })
    }
}

#[cfg(test)]
mod tests {
    use portico_base::{ManualClock, SeededRandom};
    use portico_db::testing::{TestDb, each_backend};
    use portico_state::{Deps, State};

    use super::*;

    fn watch(t: &TestDb, clock: &ManualClock) -> (ClockWatch, Registry) {
        let (clock, registry): (Arc<dyn Clock>, _) = (Arc::new(clock.clone()), Registry::default());
        let deps = Deps {
            clock: Arc::clone(&clock),
            random: Arc::new(SeededRandom::new(1)),
            registry: registry.clone(),
        };
        let (state, _driver) = State::local(&deps);
        (ClockWatch::new(&clock, &t.db, &state, &registry), registry)
    }

    async fn says(watch: &ClockWatch) -> CheckResult {
        watch.look().await;
        (watch.check().run)().await
    }

    #[tokio::test]
    async fn a_clock_that_is_off_has_a_sentence_until_it_is_right() {
        each_backend(async |t| {
            let clock = ManualClock::at(t.db.time().await.unwrap());
            let (watch, registry) = watch(t, &clock);
            assert_eq!(says(&watch).await, CheckResult::Ok);
            clock.advance(chrono::Duration::minutes(7));
            let ahead = says(&watch).await;
            let gauge = registry.gauge(&SKEW).with(&[]).value();
            if t.backend() == Backend::Sqlite {
                // Nobody is there to say so.
                assert_eq!(ahead, CheckResult::Ok);
            } else {
                let CheckResult::Degraded(text) = ahead else {
                    panic!("{ahead:?}")
                };
                assert!(text.contains("7 minutes ahead of the database"), "{text}");
                assert!((gauge - 420.0).abs() < 30.0, "{gauge}");
            }
            clock.advance(chrono::Duration::minutes(-7));
            assert_eq!(says(&watch).await, CheckResult::Ok);
        })
        .await;
    }

    #[tokio::test]
    async fn a_clock_that_was_set_back_is_seen_without_any_other() {
        let t = portico_db::testing::sqlite().await;
        let (watch, _registry) = watch(&t, &t.clock);
        let tx = t.db.begin().await.unwrap();
        tx.publish("a.thing.done", "1", &1).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(says(&watch).await, CheckResult::Ok);
        t.clock.advance(chrono::Duration::minutes(-30));
        let CheckResult::Degraded(text) = says(&watch).await else {
            panic!("nothing was said")
        };
        assert!(text.contains("30 minutes behind the last change"), "{text}");
        t.clock.advance(chrono::Duration::minutes(28));
        assert_eq!(says(&watch).await, CheckResult::Ok);
    }
}
