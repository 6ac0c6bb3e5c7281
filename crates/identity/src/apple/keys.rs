//! Apple's public keys: fetched when one is missing, at most once a minute, by one at a time, kept while Apple is away (ID-67).

use std::sync::Arc;
use std::time::Duration as Wait;

use chrono::Duration;
use parking_lot::Mutex;
use portico_base::{Clock, Timestamp};
use portico_host::Spawner;
use portico_token::KeySet;
use tokio::sync::watch;

use super::client::Client;

/// Between two fetches, whatever tokens name.
const BETWEEN: Duration = Duration::seconds(60);
/// After this time keys are looked for again although all are known: one may have been taken back.
const OLD: Duration = Duration::hours(6);
/// Longest wait for a fetch, a little more than its own limit.
const LONGEST: Wait = Wait::from_secs(6);

/// There are no keys, and none can be fetched now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoKeys {
    /// Seconds until the next fetch.
    pub retry_after_s: u32,
}

/// The keys of one process. They are Apple's, so that all tenants share them.
pub(crate) struct Keys(Arc<Inner>);

struct Inner {
    url: String,
    client: Client,
    spawner: Spawner,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    fetched_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
    /// A fetch that is under way; its sender is gone when it has ended.
    fetching: Option<watch::Receiver<()>>,
}

impl Keys {
    pub(super) fn new(
        url: String,
        client: Client,
        spawner: Spawner,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self(Arc::new(Inner {
            url,
            client,
            spawner,
            clock,
            state: Mutex::default(),
        }))
    }

    /// The keys, after a fetch when `kid` is not among them. The key may still be missing then.
    pub(crate) async fn with(&self, kid: &str) -> Result<Arc<KeySet>, NoKeys> {
        if let Some(mut ends) = self.0.fetch_for(kid) {
            // Ends with an error, because nothing is ever sent: the sender is dropped.
            let _ = tokio::time::timeout(LONGEST, ends.changed()).await;
        }
        let state = self.0.state.lock();
        state.keys.clone().ok_or_else(|| {
            let now = self.0.clock.now();
            let next = state.tried_at.map_or(now, |at| at + BETWEEN);
            let left = (next - now).num_seconds().clamp(1, BETWEEN.num_seconds());
            NoKeys {
                retry_after_s: u32::try_from(left).unwrap_or(1),
            }
        })
    }
}

impl Inner {
    /// What to wait for before the keys are looked at; nothing when they are good as they are, or when it is
    /// too early to ask again.
    fn fetch_for(self: &Arc<Self>, kid: &str) -> Option<watch::Receiver<()>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let known = state
            .keys
            .as_ref()
            .is_some_and(|k| k.find(Some(kid)).is_some());
        let old = state.fetched_at.is_none_or(|at| now - at >= OLD);
        if known && !old {
            return None;
        }
        // Whoever fetches is gone when its end of the channel is.
        if let Some(ends) = state.fetching.clone().filter(|f| f.has_changed().is_ok()) {
            return (!known).then_some(ends);
        }
        if state.tried_at.is_some_and(|at| now - at < BETWEEN) {
            return None;
        }
        let (done, ends) = watch::channel(());
        state.tried_at = Some(now);
        state.fetching = Some(ends.clone());
        let own = Arc::clone(self);
        // On its own: a client that goes away must not take the fetch with it that all wait for.
        self.spawner.spawn("identity.apple.keys", async move {
            own.fetch().await;
            drop(done);
        });
        // A key that is known is good meanwhile.
        (!known).then_some(ends)
    }

    async fn fetch(&self) {
        match self.client.keys(&self.url).await {
            Ok(keys) => {
                let mut state = self.state.lock();
                state.keys = Some(Arc::new(keys));
                state.fetched_at = Some(self.clock.now());
            }
            Err(error) => {
                tracing::warn!(err = %error, "apple's keys cannot be fetched");
            }
        }
    }
}
