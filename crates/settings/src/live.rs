//! The values in memory: loaded at the start, followed by position, in force without asking anybody (CT-6).
//!
//! A wake-up is only a hint; what counts is the position, so that a lost one costs time, never truth. When
//! the database is away the last values stay in force (CT-10).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use portico_base::clock::from_unix_us;
use portico_base::id::TENANT_SYSTEM;
use portico_base::{Clock, Timestamp};
use portico_contract::settings::{SettingsLayer, SettingsListener};
use portico_db::Backend;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::state::{Refused, State, Stored, Supposed, Taken};
use crate::error::{Error, Result};
use crate::hub::Core;
use crate::store;
use crate::store::applied::{Applied, Rejected};
use crate::store::values::{COUNTER, TOPIC};

/// Most watches of one process.
const MOST_WATCHERS: usize = 10_000;
/// Where a replica is, is said again after so long; without a word for an hour it is forgotten.
const SAY_AGAIN: chrono::Duration = chrono::Duration::minutes(10);
const FORGOTTEN: chrono::Duration = chrono::Duration::hours(1);

/// The values of this process.
pub(crate) struct Live {
    state: ArcSwap<State>,
    /// Only one takes changes over at a time.
    turn: tokio::sync::Mutex<()>,
    listeners: Mutex<Vec<SettingsListener>>,
    /// Position for whoever waits for news.
    news: watch::Sender<u64>,
    watchers: Arc<AtomicUsize>,
    /// When the database was last asked with success, in Unix microseconds.
    looked_us: AtomicI64,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            state: ArcSwap::default(),
            turn: tokio::sync::Mutex::default(),
            listeners: Mutex::default(),
            news: watch::Sender::new(0),
            watchers: Arc::default(),
            looked_us: AtomicI64::new(0),
        }
    }
}

/// A watch; counted as long as it lives.
pub(crate) struct Watching {
    watchers: Arc<AtomicUsize>,
    pub news: watch::Receiver<u64>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Relaxed);
    }
}

impl Live {
    /// The present values.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// When the database last said what is in force.
    pub(crate) fn looked_at(&self) -> Timestamp {
        from_unix_us(self.looked_us.load(Relaxed))
    }

    /// Open watches.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.load(Relaxed)
    }

    /// Opens a watch.
    pub(crate) fn watch(&self) -> Result<Watching> {
        let open = |n: usize| (n < MOST_WATCHERS).then_some(n + 1);
        if self.watchers.fetch_update(Relaxed, Relaxed, open).is_err() {
            return Err(Error::TooManyWatches);
        }
        Ok(Watching {
            watchers: Arc::clone(&self.watchers),
            news: self.news.subscribe(),
        })
    }

    /// Tells listeners that values in force are others now.
    pub(crate) fn tell(&self, changed: &[String]) {
        if changed.is_empty() {
            return;
        }
        let listeners = self.listeners.lock().clone();
        for listener in listeners {
            listener(changed);
        }
    }

    /// Adds a listener.
    pub(crate) fn subscribe(&self, listener: SettingsListener) {
        self.listeners.lock().push(listener);
    }

    fn saw(&self, clock: &dyn Clock) {
        self.looked_us
            .store(clock.now().timestamp_micros(), Relaxed);
    }
}

/// Our layer, as the host reads it.
pub(crate) struct Layer(pub Arc<Core>);

impl SettingsLayer for Layer {
    fn own(&self, scope: Uuid, key: &str) -> Option<Arc<Value>> {
        self.0.live.state.load().own(scope, key)
    }

    fn subscribe(&self, listener: SettingsListener) {
        self.0.live.subscribe(listener);
    }
}

/// Takes over what was committed since the last look.
pub(crate) async fn catch_up(core: &Core) -> Result<()> {
    let _turn = core.live.turn.lock().await;
    let upto = core.db.current_seq(COUNTER).await?;
    let present = core.live.state();
    if upto == present.seq {
        core.live.saw(&*core.clock);
        return Ok(());
    }
    // A counter that fell is another database (one that was restored): everything is read anew.
    let base = if upto < present.seq {
        State::default()
    } else {
        (*present).clone()
    };
    let rows = store::values::after(core.db.reader(), &core.keys, base.seq).await?;
    core.live.saw(&*core.clock);
    let started = Instant::now();
    take(core, &present, base, rows, upto);
    core.metrics.apply.observe(started.elapsed());
    Ok(())
}

/// Puts rows into force, those that this process refuses excepted.
fn take(core: &Core, present: &State, base: State, rows: Vec<Stored>, upto: u64) {
    let mut next = base;
    next.seq = next.seq.max(upto);
    let mut fresh = Vec::new();
    for stored in rows {
        let kept = present.own(stored.scope, &stored.key);
        let refused = look(core, &stored).err();
        fresh.push((stored.scope, Arc::clone(&stored.key)));
        next.put(Taken {
            stored: Arc::new(stored),
            refused: refused.map(|reason| Refused { reason, kept }),
        });
    }
    refuse_by_services(core, present, &mut next, &fresh);
    let changed: BTreeSet<String> = fresh
        .iter()
        .filter(|(scope, key)| present.own(*scope, key) != next.own(*scope, key))
        .map(|(_, key)| key.to_string())
        .collect();
    for taken in fresh.iter().filter_map(|(s, k)| next.get(*s, k)) {
        if let Some(refused) = &taken.refused {
            core.metrics.rejected.inc();
            let key = &*taken.stored.key;
            tracing::warn!(key, reason = %refused.reason, "a setting is not taken over");
        }
    }
    let seq = next.seq;
    core.live.state.store(Arc::new(next));
    let changed: Vec<String> = changed.into_iter().collect();
    core.live.tell(&changed);
    core.live.news.send_replace(seq);
}

/// What this process has against a single value.
fn look(core: &Core, stored: &Stored) -> std::result::Result<(), String> {
    let Some(value) = &stored.value else {
        return if stored.sealed {
            Err("the secret cannot be opened with the master keys here".to_owned())
        } else {
            Ok(())
        };
    };
    // What nobody declares here is kept for whoever does: a plug-in that is to come, a newer replica.
    let Some(declared) = core.catalogue.get(&stored.key, stored.scope) else {
        return Ok(());
    };
    match declared.check(value).into_iter().next() {
        None => Ok(()),
        Some(fault) => Err(fault),
    }
}

/// Asks the services' own checks, and takes back what they have something against.
fn refuse_by_services(core: &Core, present: &State, next: &mut State, fresh: &[(Uuid, Arc<str>)]) {
    let mut scopes: BTreeSet<Uuid> = fresh.iter().map(|(scope, _)| *scope).collect();
    scopes.insert(TENANT_SYSTEM);
    for scope in scopes {
        let supposed = Supposed {
            state: next.clone(),
            file: Arc::clone(&core.file),
        };
        let settings = supposed.settings();
        let faults: Vec<_> = core
            .checks
            .iter()
            .flat_map(|c| c(&settings, scope))
            .collect();
        for fault in faults {
            let blamed = fresh
                .iter()
                .find(|(of, key)| **key == *fault.key && (*of == scope || *of == TENANT_SYSTEM));
            let Some((of, key)) = blamed else { continue };
            let Some(taken) = next.get(*of, key).cloned() else {
                continue;
            };
            if taken.refused.is_none() {
                let kept = present.own(*of, key);
                next.put(Taken {
                    refused: Some(Refused {
                        reason: fault.message,
                        kept,
                    }),
                    ..taken
                });
            }
        }
    }
}

/// Looks again at what was refused, and at values of plug-ins, after declarations changed.
pub(crate) async fn review(core: &Core, keys: &[String]) {
    let _turn = core.live.turn.lock().await;
    let present = core.live.state();
    let mut next = (*present).clone();
    let touched: Vec<Taken> = present
        .rows()
        .filter(|taken| keys.iter().any(|key| **key == *taken.stored.key))
        .cloned()
        .collect();
    for taken in touched {
        let kept = taken.value().cloned();
        let refused = look(core, &taken.stored).err();
        next.put(Taken {
            refused: refused.map(|reason| Refused { reason, kept }),
            ..taken
        });
    }
    core.live.state.store(Arc::new(next));
    core.live.tell(keys);
}

/// What this process does not take over now.
pub(crate) fn rejected(state: &State) -> Vec<Rejected> {
    let mut all: Vec<Rejected> = state
        .rows()
        .filter_map(|taken| {
            let refused = taken.refused.as_ref()?;
            Some(Rejected {
                key: taken.stored.key.to_string(),
                scope: taken.stored.scope,
                version: taken.stored.version,
                reason: refused.reason.clone(),
            })
        })
        .collect();
    all.sort_by(|a, b| (&a.key, a.scope).cmp(&(&b.key, b.scope)));
    all.truncate(1_000);
    all
}

/// Follows until told to stop: woken by commits, with a poll as safety net.
pub(crate) async fn follow(core: Arc<Core>, stop: CancellationToken) {
    let woken = Arc::new(tokio::sync::Notify::new());
    let wake = Arc::clone(&woken);
    let _subscription = core.db.on_news(Some(TOPIC), move |_, _| wake.notify_one());
    let alone = core.db.backend() == Backend::Sqlite;
    let mut said = None;
    loop {
        if let Err(error) = catch_up(&core).await {
            tracing::debug!(err = %error, "settings could not be followed");
        } else if let Err(error) = say(&core, &mut said).await {
            tracing::debug!(err = %error, "the position of settings could not be told");
        }
        let pause = if alone {
            2_000
        } else {
            200 + core.random.below(300)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = woken.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }
}

/// Tells the others where this process is (CT-12).
async fn say(core: &Core, said: &mut Option<Applied>) -> Result<()> {
    let state = core.live.state();
    let now = core.clock.now();
    let word = Applied {
        replica: core.replica.to_string(),
        seq: state.seq,
        rejected: rejected(&state),
        at: now,
    };
    let same = |last: &Applied| {
        last.seq == word.seq && last.rejected == word.rejected && now - last.at < SAY_AGAIN
    };
    if said.as_ref().is_some_and(same) {
        return Ok(());
    }
    let tx = core.db.begin().await?;
    store::applied::put(&tx, &word).await?;
    store::applied::trim(&tx, now - FORGOTTEN).await?;
    tx.commit().await?;
    *said = Some(word);
    Ok(())
}
