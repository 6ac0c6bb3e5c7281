//! The one cache contract of services (SC-14): typed keys, jittered ends, single-flight, negative entries,
//! a bound on size, and removal by the event of the change, so that no stale value is read after it.

mod flight;
mod second;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_base::{Clock, Random, Tx};
use portico_telemetry::metrics::{Counter, CounterFamily, Family, Registry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::flight::{Flight, Leader, Outcome};
use self::second::{Found, Second, Token};
use crate::bus::Bus;
use crate::link::Link;
use crate::options::Deps;

static REQUESTS: CounterFamily = CounterFamily::new(
    "portico_state_cache_requests_total",
    "Look-ups by cache, level (l1, l2, load) and result (hit, negative, miss, error, shared).",
    &["name", "level", "result"],
    900,
);

pub(crate) static FAMILIES: [&Family; 1] = [REQUESTS.family()];

/// Topic on which removals reach the other replicas' first level.
pub(crate) const TOPIC: &str = "state.cache";

/// Where the values of a kind are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Levels {
    /// In the process alone.
    Process,
    /// In the process, and in Redis when there is one.
    Shared,
}

/// One kind of cached thing: a documented pattern of keys, and its bounds. Declared as a static.
#[derive(Debug)]
pub struct CacheKind {
    /// The service that owns it.
    pub service: &'static str,
    /// What it is (`user`, `permissions`).
    pub kind: &'static str,
    /// Raise it when the stored form changes, so that replicas of two releases do not misread each other.
    pub form: u16,
    /// How long a value lives, give or take a tenth.
    pub ttl: Duration,
    /// How long "there is no such thing" lives.
    pub negative: Duration,
    /// Most values in the process.
    pub max_entries: u64,
    /// Where the values are kept.
    pub levels: Levels,
}

/// A cache of one kind. Cheap to clone.
pub struct Cache<T>(Arc<Inner<T>>);

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({}.{})", self.0.kind.service, self.0.kind.kind)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: Uuid,
    id: Arc<str>,
}

struct Entry<T> {
    value: Option<Arc<T>>,
    ends_ms: i64,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ends_ms: self.ends_ms,
        }
    }
}

struct Inner<T> {
    kind: &'static CacheKind,
    first: moka::sync::Cache<Key, Entry<T>>,
    /// Loads under way. A removal takes the load out, which then may not store what it found.
    flights: Mutex<HashMap<Key, Arc<Flight<T>>>>,
    second: Option<Second>,
    bus: Bus,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    count: Counts,
}

struct Counts {
    l1_hit: Counter,
    l1_negative: Counter,
    l1_miss: Counter,
    l2_hit: Counter,
    l2_negative: Counter,
    l2_miss: Counter,
    l2_error: Counter,
    loaded: Counter,
    load_none: Counter,
    load_error: Counter,
    load_shared: Counter,
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<T> {
    pub(crate) fn new(
        kind: &'static CacheKind,
        link: Option<&Arc<Link>>,
        bus: &Bus,
        deps: &Deps,
    ) -> Self {
        let second = link
            .filter(|_| kind.levels == Levels::Shared)
            .map(|link| Second::new(Arc::clone(link), kind, deps));
        // The library's own ends only free memory; whether a value is still good is asked of our clock.
        let first = moka::sync::Cache::builder()
            .max_capacity(kind.max_entries)
            .time_to_live(kind.ttl.max(kind.negative) * 2)
            .build();
        Self(Arc::new(Inner {
            kind,
            first,
            flights: Mutex::default(),
            second,
            bus: bus.clone(),
            clock: Arc::clone(&deps.clock),
            random: Arc::clone(&deps.random),
            count: Counts::new(kind, &deps.registry),
        }))
    }

    /// What this process holds, without asking anybody: `None` when nothing is known, `Some(None)` when
    /// it is known that there is no such thing.
    #[must_use]
    pub fn peek(&self, tenant: Uuid, id: &str) -> Option<Option<Arc<T>>> {
        self.0.lookup(&key(tenant, id)).map(|entry| entry.value)
    }

    /// The value from the process, else from Redis, else from `load`, which runs once for all who ask
    /// meanwhile. When the one who loads goes away, the next one loads. `Ok(None)` is kept for the
    /// kind's `negative` time; an error is given to all who waited and not kept.
    ///
    /// # Errors
    /// What `load` said. Redis being away is no error.
    pub async fn get_or_load<E, F, Fut>(
        &self,
        tenant: Uuid,
        id: &str,
        load: F,
    ) -> Result<Option<Arc<T>>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<Option<T>, E>> + Send,
    {
        let key = key(tenant, id);
        if let Some(entry) = self.0.lookup(&key) {
            let hit = entry.value.is_some();
            let counter = if hit {
                &self.0.count.l1_hit
            } else {
                &self.0.count.l1_negative
            };
            counter.inc();
            return Ok(entry.value);
        }
        self.0.count.l1_miss.inc();
        loop {
            let flight = match self.0.join(&key) {
                Joined::Known(value) => return Ok(value),
                Joined::Leads(flight) => {
                    let leader = Leader::new(&self.0.flights, key.clone(), flight);
                    return self.0.lead(&key, leader, load).await;
                }
                Joined::Follows(flight) => flight,
            };
            match flight.outcome().await {
                Outcome::Value(value) => {
                    self.0.count.load_shared.inc();
                    return Ok(value);
                }
                Outcome::Error(error) => {
                    // Another type of error comes from another call site: then this one asks itself.
                    if let Ok(error) = error.downcast::<E>() {
                        return Err(error);
                    }
                }
                Outcome::Pending | Outcome::Abandoned => {}
            }
        }
    }

    /// Forgets one value everywhere. To be called after the commit of the change, by whoever follows its
    /// event; a load that began before cannot bring the old value back.
    pub async fn remove(&self, tenant: Uuid, id: &str) {
        let key = key(tenant, id);
        self.0.forget(&key);
        self.0.announce(tenant, id);
        if let Some(second) = &self.0.second {
            second.remove(tenant, Some(id)).await;
        }
    }

    /// Forgets one value with the commit of the change: whoever asks this process after it does not get
    /// the old one. Redis and the other replicas hear of it as soon as they can; that they do for certain
    /// is the work of whoever follows the event of the change.
    pub fn remove_on_commit(&self, tx: &dyn Tx, tenant: Uuid, id: &str) {
        let (cache, id) = (Arc::clone(&self.0), id.to_owned());
        tx.after_commit(Box::new(move || {
            cache.forget(&key(tenant, &id));
            cache.announce(tenant, &id);
            if let Some(second) = &cache.second {
                second.remove_later(tenant, &id);
            }
        }));
    }

    /// Forgets everything that this process holds: when it cannot know what was changed meanwhile.
    pub fn clear(&self) {
        Member::clear(&*self.0);
    }

    /// Forgets all values of a tenant everywhere, in a fixed number of steps.
    pub async fn remove_tenant(&self, tenant: Uuid) {
        self.0.forget_tenant(tenant);
        self.0.announce(tenant, "");
        if let Some(second) = &self.0.second {
            second.remove(tenant, None).await;
        }
    }

    /// Values held in the process at present, about.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.0.first.run_pending_tasks();
        self.0.first.entry_count()
    }

    pub(crate) fn as_member(&self) -> Arc<dyn Member> {
        Arc::clone(&self.0) as Arc<dyn Member>
    }
}

/// What the driver does with every cache, whatever its values are.
pub(crate) trait Member: Any + Send + Sync {
    /// A removal on another replica, as [`Inner::announce`] writes it.
    fn removed_elsewhere(&self, message: &str);
    /// Removals may have been missed.
    fn clear(&self);
    /// Tells Redis about removals that it could not be told before.
    fn catch_up(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// For finding the cache again by its type.
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Member for Inner<T> {
    fn removed_elsewhere(&self, message: &str) {
        let mut parts = message.splitn(3, '\n');
        let (Some(name), Some(tenant), Some(id)) = (parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        let Ok(tenant) = tenant.parse() else { return };
        if name != self.name() {
            return;
        }
        if id.is_empty() {
            self.forget_tenant(tenant);
        } else {
            self.forget(&key(tenant, id));
        }
    }

    fn clear(&self) {
        self.flights.lock().clear();
        self.first.invalidate_all();
    }

    fn catch_up(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if let Some(second) = &self.second {
                // In between another replica may have read the old value from Redis.
                for (tenant, id) in second.catch_up().await {
                    self.announce(tenant, &id);
                }
            }
        })
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Cache<T> {
    pub(crate) fn from_member(member: Arc<dyn Member>) -> Option<Self> {
        member.as_any().downcast().ok().map(Self)
    }
}

enum Joined<T> {
    Known(Option<Arc<T>>),
    Leads(Arc<Flight<T>>),
    Follows(Arc<Flight<T>>),
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Inner<T> {
    fn name(&self) -> String {
        format!("{}.{}", self.kind.service, self.kind.kind)
    }

    fn lookup(&self, key: &Key) -> Option<Entry<T>> {
        let entry = self.first.get(key)?;
        (entry.ends_ms > self.clock.unix_ms()).then_some(entry)
    }

    fn join(&self, key: &Key) -> Joined<T> {
        let mut flights = self.flights.lock();
        // Whoever loaded it in between has stored it under this lock.
        if let Some(entry) = self.lookup(key) {
            return Joined::Known(entry.value);
        }
        if let Some(flight) = flights.get(key) {
            return Joined::Follows(Arc::clone(flight));
        }
        let flight = Arc::new(Flight::new());
        flights.insert(key.clone(), Arc::clone(&flight));
        Joined::Leads(flight)
    }

    async fn lead<E, F, Fut>(
        &self,
        key: &Key,
        leader: Leader<'_, T>,
        load: F,
    ) -> Result<Option<Arc<T>>, Arc<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<Option<T>, E>> + Send,
    {
        let mut token = None;
        if let Some(second) = &self.second {
            match self.ask_second(second, key).await {
                Ok(value) => return Ok(self.finish(leader, key, value)),
                Err(place) => token = place,
            }
        }
        let value = match load().await {
            Ok(value) => value.map(Arc::new),
            Err(error) => {
                self.count.load_error.inc();
                let error = Arc::new(error);
                leader.finish(Outcome::Error(error.clone()), || {});
                return Err(error);
            }
        };
        let counter = if value.is_some() {
            &self.count.loaded
        } else {
            &self.count.load_none
        };
        counter.inc();
        let shared = value.clone();
        // Those who waited are answered before Redis has taken the value; only the one who loaded sees it
        // through, because nobody else may be left to do it.
        let answer = self.finish(leader, key, value);
        if let (Some(second), Some(token)) = (&self.second, token) {
            let text = shared.as_deref().map(serde_json::to_vec).transpose();
            if let Ok(text) = text {
                second
                    .put(
                        key.tenant,
                        &key.id,
                        &token,
                        text,
                        self.ttl(shared.is_some()),
                    )
                    .await;
            }
        }
        Ok(answer)
    }

    /// What Redis holds; else the token with which a loaded value may be stored.
    async fn ask_second(
        &self,
        second: &Second,
        key: &Key,
    ) -> Result<Option<Arc<T>>, Option<Token>> {
        match second.get(key.tenant, &key.id).await {
            Found::Value(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => {
                    self.count.l2_hit.inc();
                    Ok(Some(Arc::new(value)))
                }
                Err(_) => {
                    self.count.l2_error.inc();
                    Err(None)
                }
            },
            Found::Nothing => {
                self.count.l2_negative.inc();
                Ok(None)
            }
            Found::Miss(token) => {
                self.count.l2_miss.inc();
                Err(Some(token))
            }
            Found::Away => {
                self.count.l2_error.inc();
                Err(None)
            }
        }
    }

    fn finish(&self, leader: Leader<'_, T>, key: &Key, value: Option<Arc<T>>) -> Option<Arc<T>> {
        let ttl = i64::try_from(self.ttl(value.is_some()).as_millis()).unwrap_or(i64::MAX);
        let entry = Entry {
            value: value.clone(),
            ends_ms: self.clock.unix_ms().saturating_add(ttl),
        };
        let store = || self.first.insert(key.clone(), entry);
        leader.finish(Outcome::Value(value.clone()), store);
        value
    }

    /// The kind's time, give or take a tenth.
    fn ttl(&self, positive: bool) -> Duration {
        let ttl = if positive {
            self.kind.ttl
        } else {
            self.kind.negative
        };
        let jitter = self.random.below(2_001) as f64 / 10_000.0;
        ttl.mul_f64(0.9 + jitter)
    }

    fn forget(&self, key: &Key) {
        let mut flights = self.flights.lock();
        flights.remove(key);
        self.first.invalidate(key);
    }

    fn forget_tenant(&self, tenant: Uuid) {
        let mut flights = self.flights.lock();
        flights.retain(|key, _| key.tenant != tenant);
        for (key, _) in &self.first {
            if key.tenant == tenant {
                self.first.invalidate(&*key);
            }
        }
    }

    fn announce(&self, tenant: Uuid, id: &str) {
        let message = format!("{}\n{tenant}\n{id}", self.name());
        self.bus.publish(TOPIC, message);
    }
}

impl Counts {
    fn new(kind: &CacheKind, registry: &Registry) -> Self {
        let name = format!("{}.{}", kind.service, kind.kind);
        let requests = registry.counter(&REQUESTS);
        let counter = |level, result| requests.with(&[&name, level, result]);
        Self {
            l1_hit: counter("l1", "hit"),
            l1_negative: counter("l1", "negative"),
            l1_miss: counter("l1", "miss"),
            l2_hit: counter("l2", "hit"),
            l2_negative: counter("l2", "negative"),
            l2_miss: counter("l2", "miss"),
            l2_error: counter("l2", "error"),
            loaded: counter("load", "hit"),
            load_none: counter("load", "negative"),
            load_error: counter("load", "error"),
            load_shared: counter("load", "shared"),
        }
    }
}

fn key(tenant: Uuid, id: &str) -> Key {
    Key {
        tenant,
        id: Arc::from(id),
    }
}
