//! What the Consul-compatible API is made of, beside the registry's heart.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use portico_base::Principal;
use portico_contract::credentials::Credentials;
use portico_contract::tenants::TenantsCell;
use portico_telemetry::metrics::{CounterFamily, CounterVec, Gauge, GaugeFamily, Registry};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::reply::{Refused, refuse};
use super::views::View;
use super::wire::Text;
use crate::hub::Core;
use crate::model::Model;
use crate::wake::Topics;

/// Blocking queries of one principal (RG-46).
const MOST_BLOCKED: usize = 1_000;
/// Looks at the same time: more than there are connections for reading would only hold memory.
const LOOKS: usize = 32;
/// Tokens that are read at the same time, where they are not in memory.
const READING: usize = 16;

static REQUESTS: CounterFamily = CounterFamily::new(
    "portico_registry_consul_requests_total",
    "requests of the Consul-compatible API",
    &["route", "status_class"],
    400,
);
static BLOCKING: GaugeFamily = GaugeFamily::new(
    "portico_registry_consul_blocking",
    "blocking queries that wait",
    &[],
    1,
);
static KV_ENTRIES: GaugeFamily = GaugeFamily::new(
    "portico_registry_kv_entries",
    "keys of the key-value store",
    &[],
    1,
);
static SESSIONS: GaugeFamily = GaugeFamily::new(
    "portico_registry_sessions",
    "sessions of the Consul-compatible API",
    &[],
    1,
);

/// Declares what this API exports, for the documentation.
pub(crate) fn declare(registry: &Registry) {
    registry.declare(&[
        REQUESTS.family(),
        BLOCKING.family(),
        KV_ENTRIES.family(),
        SESSIONS.family(),
    ]);
}

/// Something of the key-value store, sessions or events that somebody may wait for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// Exactly this key.
    Key(Uuid, Text),
    /// Everything below a prefix.
    Prefix(Uuid, Text),
    /// Sessions of a tenant.
    Sessions(Uuid),
    /// Events of a tenant.
    Events(Uuid),
}

/// What configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub datacenter: Text,
    /// Least time of `DeregisterCriticalServiceAfter`, in milliseconds.
    pub deregister_min_ms: u64,
    /// Built-in services are listed too.
    pub list_builtin: bool,
    /// Configuration allows anonymous callers on this listener (RG-46); the setting may still not.
    pub anonymous: bool,
    /// Names under which this listener may be called, beside those of loopback.
    pub hosts: Vec<String>,
}

/// Counters of this API.
pub(crate) struct Figures {
    pub requests: CounterVec,
    pub blocking: Gauge,
    pub kv_entries: Gauge,
    pub sessions: Gauge,
}

/// The state of this API in one process.
pub(crate) struct Inner {
    pub core: Arc<Core>,
    pub options: Options,
    pub credentials: Credentials,
    pub tenants: Arc<TenantsCell>,
    pub topics: Topics<Topic>,
    pub figures: Figures,
    /// Cancelled when the process stops: whoever waits is answered at once.
    pub stop: CancellationToken,
    blocked: Mutex<HashMap<(&'static str, Text), usize>>,
    looks: Semaphore,
    /// Seats of those whose token has to be read.
    pub reading: Semaphore,
    /// Index at start: nothing that happened before is forgotten, it is below this.
    floor: AtomicU64,
}

/// Handle of the state. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ConsulState(Arc<Inner>);

impl std::ops::Deref for ConsulState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl ConsulState {
    pub(crate) fn new(
        core: Arc<Core>,
        options: Options,
        (credentials, tenants): (Credentials, Arc<TenantsCell>),
        stop: CancellationToken,
    ) -> Self {
        let registry = &core.metrics.registry;
        let figures = Figures {
            requests: registry.counter(&REQUESTS),
            blocking: registry.gauge(&BLOCKING).with(&[]),
            kv_entries: registry.gauge(&KV_ENTRIES).with(&[]),
            sessions: registry.gauge(&SESSIONS).with(&[]),
        };
        let floor = core.model.read().index;
        Self(Arc::new(Inner {
            core,
            options,
            credentials,
            tenants,
            topics: Topics::default(),
            figures,
            stop,
            blocked: Mutex::default(),
            looks: Semaphore::new(LOOKS),
            reading: Semaphore::new(READING),
            floor: AtomicU64::new(floor),
        }))
    }

    /// Index below which this process does not know what happened.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// Looks when it is its turn. What it needs for that is on the heap only as long: a query that waits for
    /// minutes, or for its turn among a thousand that came at once, is small.
    pub(super) async fn look<T>(&self, look: impl Future<Output = T>) -> T {
        // The semaphore is never closed.
        let _turn = match self.looks.try_acquire() {
            Ok(turn) => Some(turn),
            Err(_) => self.looks.acquire().await.ok(),
        };
        Box::pin(look).await
    }

    /// The model as a tenant's cluster.
    pub(crate) fn view<'a>(&'a self, model: &'a Model, tenant: Uuid) -> View<'a> {
        View {
            model,
            tenant,
            host: &self.core.host,
            datacenter: &self.options.datacenter,
            builtin: self.options.list_builtin,
            alone: self.core.db.backend() == portico_db::Backend::Sqlite,
        }
    }

    /// Counts a waiting query of a principal until the guard is dropped.
    pub(crate) fn block(&self, principal: &Principal) -> Result<Blocked, Refused> {
        let key = (principal.kind.as_str(), Arc::clone(&principal.subject));
        let mut blocked = self.blocked.lock();
        let count = blocked.entry(key.clone()).or_default();
        if *count >= MOST_BLOCKED {
            return refuse(429, "too many blocking queries wait for this caller");
        }
        *count += 1;
        self.figures.blocking.add(1.0);
        Ok(Blocked {
            state: self.clone(),
            key,
        })
    }
}

/// A waiting query.
pub(crate) struct Blocked {
    state: ConsulState,
    key: (&'static str, Text),
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.state.figures.blocking.add(-1.0);
        let mut blocked = self.state.blocked.lock();
        if let Some(count) = blocked.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                blocked.remove(&self.key);
            }
        }
    }
}
