//! What all workers share: the route table and who rebuilds it, limits, cache, credentials, metrics.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::{ArcSwap, Guard};
use axum::Router;
use ipnet::IpNet;
use parking_lot::Mutex;
use portico_base::{Clock, Random};
use portico_contract::address::Addresses;
use portico_contract::credentials::Credentials;
use portico_contract::directory::{Directory, DirectorySource};
use portico_contract::settings::Settings;
use portico_state::{KeyHasher, Limiter};
use portico_telemetry::access::AccessLog;
use portico_telemetry::metrics::{Registry, Samples};
use portico_telemetry::trace::Tracer;
use portico_web::Failures;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::entrance::Entrance;
use super::metrics::{Families, TableFigures};
use super::overrides::Overrides;
use super::settings::CONSOLE_NETWORKS;
use crate::balance::Change;
use crate::cache::Cache;
use crate::limit::Concurrent;
use crate::objects::Objects;
use crate::route::build::{Builder, Input, Names};
use crate::route::table::Table;

/// Routers of built-in services: below `/api/{service}` with the prefix removed, and whole root prefixes.
#[derive(Clone, Default)]
pub struct Builtins {
    pub services: HashMap<&'static str, Router>,
    pub roots: Vec<(&'static str, Router)>,
}

/// A breaker opened, closed, or tries (GW-57).
#[derive(Debug, Clone)]
pub struct BreakerEvent {
    pub service: Arc<str>,
    /// Id of the service.
    pub service_id: uuid::Uuid,
    /// Owner of the service; absent for a global one.
    pub tenant: Option<uuid::Uuid>,
    /// Absent for the service's own breaker.
    pub instance: Option<uuid::Uuid>,
    pub change: Change,
    /// The last failures, newest last.
    pub reasons: Vec<&'static str>,
}

/// Told of breakers on a data thread: must be quick.
pub type BreakerListener = Arc<dyn Fn(BreakerEvent) + Send + Sync>;

/// What the gate is made from.
pub struct Parts {
    pub names: Names,
    pub builtins: Builtins,
    /// Networks of proxies that are believed.
    pub trusted: Vec<IpNet>,
    /// Directories below which routes may serve files.
    pub file_roots: Vec<PathBuf>,
    pub directory: Arc<dyn DirectorySource>,
    pub settings: Settings,
    pub objects: Arc<Objects>,
    pub credentials: Credentials,
    pub entrance: Entrance,
    pub addresses: Addresses,
    pub limiter: Limiter,
    /// Secret of the installation, the same on every replica.
    pub limit_seed: u64,
    pub cache: Cache,
    pub registry: Registry,
    pub access: Option<AccessLog>,
    pub tracer: Tracer,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub breakers: BreakerListener,
    /// Who hears of known callers that are refused.
    pub failures: Option<Arc<dyn Failures>>,
}

/// The shared part of the pipeline.
pub struct Gate {
    pub(super) table: ArcSwap<Table>,
    pub(super) trusted: ArcSwap<Vec<IpNet>>,
    pub(super) builtins: Builtins,
    pub(super) file_roots: Vec<PathBuf>,
    pub(super) directory: Arc<dyn DirectorySource>,
    pub(super) settings: Settings,
    pub(super) credentials: Credentials,
    pub(super) entrance: Entrance,
    pub(super) addresses: Addresses,
    pub(super) limiter: Limiter,
    pub(super) hasher: KeyHasher,
    pub(super) concurrent: Arc<Concurrent>,
    pub(super) cache: Cache,
    pub(super) families: Families,
    pub(super) access: Option<AccessLog>,
    pub(super) tracer: Tracer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) breakers: BreakerListener,
    pub(super) failures: Option<Arc<dyn Failures>>,
    pub(super) overrides: Overrides,
    origin: Instant,
    builder: Mutex<Builder>,
    wanted: Mutex<Wanted>,
    settings_version: AtomicU64,
    changed: Notify,
    built: watch::Sender<u64>,
}

/// The newest inputs; `number` rises with each.
struct Wanted {
    number: u64,
    directory: Arc<Directory>,
    objects: Arc<Objects>,
}

impl Gate {
    /// Builds the gate with its first table, and follows directory and settings from now on. The future of
    /// [`Gate::run`] must run for changes to reach the workers.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let origin = Instant::now();
        let mut builder = Builder::new(parts.names);
        let directory = parts.directory.current();
        let first = builder.build(&Input {
            directory: Arc::clone(&directory),
            objects: Arc::clone(&parts.objects),
            settings: parts.settings.clone(),
            settings_version: 1,
            now_ms: 1_000,
        });
        let families = Families::new(&parts.registry);
        let gate = Arc::new(Self {
            table: ArcSwap::new(first),
            trusted: ArcSwap::from_pointee(parts.trusted),
            builtins: parts.builtins,
            file_roots: parts.file_roots,
            directory: parts.directory,
            settings: parts.settings,
            credentials: parts.credentials,
            entrance: parts.entrance,
            addresses: parts.addresses,
            limiter: parts.limiter,
            hasher: KeyHasher::new(parts.limit_seed),
            concurrent: Arc::default(),
            cache: parts.cache,
            families,
            access: parts.access,
            tracer: parts.tracer,
            clock: parts.clock,
            random: parts.random,
            breakers: parts.breakers,
            failures: parts.failures,
            overrides: Overrides::default(),
            origin,
            builder: Mutex::new(builder),
            wanted: Mutex::new(Wanted {
                number: 1,
                directory,
                objects: parts.objects,
            }),
            settings_version: AtomicU64::new(1),
            changed: Notify::new(),
            built: watch::Sender::new(1),
        });
        gate.follow(&parts.registry);
        gate
    }

    fn follow(self: &Arc<Self>, registry: &Registry) {
        let weak = Arc::downgrade(self);
        self.directory.subscribe(Arc::new(move |directory| {
            if let Some(gate) = weak.upgrade() {
                gate.want(|wanted| wanted.directory = Arc::clone(directory));
            }
        }));
        let weak = Arc::downgrade(self);
        self.settings.subscribe(Arc::new(move |keys| {
            if let Some(gate) = weak.upgrade()
                && keys
                    .iter()
                    .any(|k| k.starts_with("gateway.") || *k == CONSOLE_NETWORKS.declaration.key)
            {
                gate.settings_version.fetch_add(1, Relaxed);
                gate.want(|_| {});
            }
        }));
        let weak = Arc::downgrade(self);
        TableFigures::declare(registry);
        registry.collect_with(move |samples| {
            if let Some(gate) = weak.upgrade() {
                gate.gauges(samples);
            }
        });
    }

    /// Milliseconds of a clock that never goes back; it begins at one second.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        1_000 + u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX >> 1)
    }

    /// Nanoseconds of the same clock, for limits.
    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX >> 1)
    }

    /// Milliseconds of the same clock at a moment.
    pub(super) fn millis(&self, at: Instant) -> u64 {
        1_000
            + u64::try_from(at.saturating_duration_since(self.origin).as_millis())
                .unwrap_or(u64::MAX >> 1)
    }

    /// What flows through each service and route.
    pub(crate) fn flows(&self) -> &super::metrics::Flows {
        &self.families.flows
    }

    /// The newest directory, which may be ahead of the table.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.directory.current()
    }

    /// Rises when a setting of the gateway changes.
    pub(super) fn settings_version(&self) -> u64 {
        self.settings_version.load(Relaxed)
    }

    /// The table in use.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Takes new objects (routes, releases, limits …).
    pub fn set_objects(&self, objects: Arc<Objects>) {
        self.want(|wanted| wanted.objects = objects);
    }

    /// Takes new networks of trusted proxies.
    pub fn set_trusted(&self, trusted: Vec<IpNet>) {
        self.trusted.store(Arc::new(trusted));
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        let mut wanted = self.wanted.lock();
        change(&mut wanted);
        wanted.number += 1;
        drop(wanted);
        self.changed.notify_one();
    }

    /// Rebuilds the table whenever something changed, until told to stop. Runs on the shared runtime, never
    /// on a worker.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            loop {
                self.rebuild();
                self.changed.notified().await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Builds the newest table now, when it is not in use already.
    pub fn rebuild(&self) {
        let mut builder = self.builder.lock();
        let (number, directory, objects) = {
            let wanted = self.wanted.lock();
            (
                wanted.number,
                Arc::clone(&wanted.directory),
                Arc::clone(&wanted.objects),
            )
        };
        if *self.built.borrow() >= number {
            return;
        }
        let began = Instant::now();
        let settings_version = self.settings_version.load(Relaxed);
        let input = Input {
            directory,
            objects,
            settings: self.settings.clone(),
            settings_version,
            now_ms: self.now_ms(),
        };
        let table = builder.build(&input);
        // What an operator decided holds for what comes back, too.
        self.apply_overrides(&table);
        self.table.store(table);
        self.families.build.with(&[]).observe(began.elapsed());
        self.built.send_replace(number);
    }

    /// Waits until every change that was known when it was called is in the table: a registration that was
    /// answered is routable (RG-6).
    pub async fn settled(&self) {
        let number = self.wanted.lock().number;
        if *self.built.borrow() >= number {
            return;
        }
        // The sender lives as long as the gate, so that this ends with the number.
        let mut built = self.built.subscribe();
        let _closed = built.wait_for(|built| *built >= number).await;
    }

    /// True when a change waits to be built.
    pub(super) fn is_behind(&self) -> bool {
        *self.built.borrow() < self.wanted.lock().number
    }

    /// What is read at a scrape.
    fn gauges(&self, samples: &mut Samples) {
        let figures = TableFigures {
            table: &self.table.load(),
            now_ms: self.now_ms(),
        };
        figures.add_to(samples);
    }
}
