//! The state of one process: everything above, on one backend.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_base::clock::from_unix_ms;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bus::Bus;
use crate::cache::{Cache, CacheKind, Member};
use crate::driver::StateDriver;
use crate::error::StateError;
use crate::limit::{Limiter, Shared};
use crate::link::Link;
use crate::options::{Deps, RedisOptions};
use crate::status::StateStatus;
use crate::store::{Heartbeats, LocalStore, SharedStore};

/// Shared state. Cheap to clone.
#[derive(Clone)]
pub struct State(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) bus: Bus,
    limiter: Limiter,
    store: SharedStore,
    pub(crate) caches: Mutex<HashMap<CacheName, Arc<dyn Member>>>,
    pub(crate) heartbeats: Mutex<HashMap<&'static str, Heartbeats>>,
    pub(crate) deps: Deps,
}

/// Service and kind.
type CacheName = (&'static str, &'static str);

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl State {
    /// State that lives in this process alone (single mode, or two replicas without Redis).
    #[must_use]
    pub fn local(deps: &Deps) -> (Self, StateDriver) {
        let (bus, _) = Bus::new(deps, false);
        let first = deps.random.u64() >> 12;
        let store = SharedStore::local(Arc::new(LocalStore::new(Arc::clone(&deps.clock), first)));
        let state = Self::assemble(None, bus, Limiter::new(None), store, deps);
        (state.clone(), StateDriver::local(state))
    }

    /// State in Redis. Does not connect by itself and does not fail when Redis is away: that is the
    /// driver's work, and [`State::status`] tells.
    ///
    /// # Errors
    /// When the URL or a certificate cannot be read.
    pub fn redis(options: &RedisOptions, deps: &Deps) -> Result<(Self, StateDriver), StateError> {
        let link = Link::new(options, deps)?;
        let (bus, outbound) = Bus::new(deps, true);
        let (shared, orders) = Shared::new(Arc::clone(&link), deps);
        let store = SharedStore::redis(Arc::clone(&link), deps.clone());
        let limiter = Limiter::new(Some(Arc::clone(&shared)));
        let state = Self::assemble(Some(Arc::clone(&link)), bus, limiter, store, deps);
        let driver = StateDriver::redis(state.clone(), link, outbound, shared, orders);
        Ok((state, driver))
    }

    fn assemble(
        link: Option<Arc<Link>>,
        bus: Bus,
        limiter: Limiter,
        store: SharedStore,
        deps: &Deps,
    ) -> Self {
        Self(Arc::new(Inner {
            link,
            bus,
            limiter,
            store,
            caches: Mutex::default(),
            heartbeats: Mutex::default(),
            deps: deps.clone(),
        }))
    }

    /// Wake-ups between replicas.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.0.bus
    }

    /// Rate limits.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    /// Bytes by key, nonces, generations.
    #[must_use]
    pub fn store(&self) -> &SharedStore {
        &self.0.store
    }

    /// The cache of a kind; the same one for everybody who asks.
    ///
    /// # Panics
    /// When the kind is used with two types of value.
    #[must_use]
    pub fn cache<T>(&self, kind: &'static CacheKind) -> Cache<T>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let mut caches = self.0.caches.lock();
        let name = (kind.service, kind.kind);
        if let Some(member) = caches.get(&name) {
            return Cache::from_member(Arc::clone(member))
                .expect("a kind of cache holds one type of value");
        }
        let cache = Cache::new(kind, self.0.link.as_ref(), &self.0.bus, &self.0.deps);
        caches.insert(name, cache.as_member());
        cache
    }

    /// The heartbeats of a name; the same map for everybody who asks.
    #[must_use]
    pub fn heartbeats(&self, name: &'static str) -> Heartbeats {
        let mut maps = self.0.heartbeats.lock();
        maps.entry(name)
            .or_insert_with(|| Heartbeats::new(name, self.0.link.clone()))
            .clone()
    }

    /// How it is doing, from memory.
    #[must_use]
    pub fn status(&self) -> StateStatus {
        StateStatus {
            redis: self.0.link.as_ref().map(|link| link.status()),
            limits_shared: self.0.limiter.is_shared(),
        }
    }

    /// The time of Redis' clock; nothing without Redis.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn time(&self) -> Option<Result<Timestamp, StateError>> {
        let link = self.0.link.as_ref()?;
        let time = link.query::<(i64, i64)>("time", &redis::cmd("TIME")).await;
        Some(time.map(|(s, us)| from_unix_ms(s * 1_000 + us / 1_000)))
    }

    /// Waits until Redis answers and its messages arrive. Returns at once without Redis.
    pub async fn connected(&self) {
        let Some(link) = &self.0.link else { return };
        let mut up = link.changes();
        let mut bus = link.bus_changes();
        loop {
            if *up.borrow_and_update() && *bus.borrow_and_update() {
                return;
            }
            tokio::select! {
                changed = up.changed() => if changed.is_err() { return },
                changed = bus.changed() => if changed.is_err() { return },
            }
        }
    }

    pub(crate) fn members(&self) -> Vec<Arc<dyn Member>> {
        self.0.caches.lock().values().cloned().collect()
    }
}
