//! The registry's heart: the model, the directory made from it, and whoever must hear of changes.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use portico_base::{Caller, Clock, Context, Principal, Random, Timestamp};
use portico_contract::address::{AddressGuard, Refused, judge};
use portico_contract::audit::Audit;
use portico_contract::directory::{
    Directory, DirectoryListener, DirectorySource, Observation, ServiceKey,
};
use portico_contract::settings::Settings;
use portico_contract::settings_tree::{PluginSettings, SettingsTree};
use portico_db::{Db, LeaseTiming};
use portico_host::OwnAddresses;
use portico_state::Heartbeats;
use uuid::Uuid;

use crate::agenda::Agenda;
use crate::beats::Beats;
use crate::checks::Net;
use crate::domain::event::SharedEvent;
use crate::drained::Drained;
use crate::metrics::Metrics;
use crate::model::{Changed, Model, Mutation, Topic};
use crate::settings::Tunables;
use crate::shards::Shards;
use crate::store::instances::Sealer;
use crate::ttl::Ttl;
use crate::wake::Topics;
use crate::watch::Ring;

/// What a registry is made of.
pub(crate) struct Parts {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub audit: Audit,
    pub sealer: Sealer,
    pub metrics: Metrics,
    pub own: OwnAddresses,
    /// Heartbeats as other replicas hear of them.
    pub heartbeats: Heartbeats,
    /// Host name of this machine.
    pub host: Arc<str>,
    /// Name of this replica.
    pub replica: Arc<str>,
    /// How long the leases over shards of instances last.
    pub lease_timing: LeaseTiming,
}

/// The registry of one process.
pub(crate) struct Core {
    pub db: Db,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub settings: Settings,
    pub tunables: Tunables,
    pub audit: Audit,
    pub sealer: Sealer,
    pub metrics: Metrics,
    pub host: Arc<str>,
    pub replica: Arc<str>,
    /// Truth in memory. Never locked across an await.
    pub model: RwLock<Model>,
    /// Held by whoever writes, from the first look at the model until the change is applied.
    pub(crate) writer: Arc<tokio::sync::Mutex<()>>,
    directory: ArcSwap<Directory>,
    listeners: Mutex<Vec<DirectoryListener>>,
    pub topics: Topics<Topic>,
    pub ring: Ring,
    pub addresses: Arc<AddressRules>,
    /// What active checks and fetches connect with.
    pub net: Net,
    pub agenda: Agenda,
    pub shards: Shards,
    pub beats: Beats,
    pub heartbeats: Heartbeats,
    pub ttl: Ttl,
    pub drained: Drained,
    /// The settings as keys, where there are settings.
    pub settings_tree: OnceLock<Arc<dyn SettingsTree>>,
    /// Who takes the settings that plug-ins declare.
    pub plugin_settings: OnceLock<Arc<dyn PluginSettings>>,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let tunables = Tunables::follow(&parts.settings);
        let single = parts.db.backend() == portico_db::Backend::Sqlite;
        let addresses = Arc::new(AddressRules {
            tunables: tunables.clone(),
            own: parts.own,
        });
        let core = Arc::new(Self {
            net: Net::new(addresses.clone()),
            addresses,
            db: parts.db,
            clock: parts.clock,
            random: parts.random,
            settings: parts.settings,
            tunables,
            audit: parts.audit,
            sealer: parts.sealer,
            metrics: parts.metrics,
            host: parts.host,
            replica: parts.replica,
            model: RwLock::default(),
            writer: Arc::default(),
            directory: ArcSwap::default(),
            listeners: Mutex::default(),
            topics: Topics::default(),
            ring: Ring::default(),
            agenda: Agenda::default(),
            shards: Shards::new(single, parts.lease_timing),
            beats: Beats::default(),
            heartbeats: parts.heartbeats,
            ttl: Ttl::default(),
            drained: Drained::default(),
            settings_tree: OnceLock::new(),
            plugin_settings: OnceLock::new(),
        });
        core.metrics.observe(&core);
        core
    }

    /// A context for the registry's own work.
    pub(crate) fn own_context(&self, what: &str) -> Context {
        Context {
            caller: Caller::internal(Principal::system(), what),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }

    /// Takes committed changes into memory and tells everybody who must know. The order of calls is the
    /// order of commits, because the caller holds the writer's lock.
    pub(crate) fn apply(
        &self,
        mutations: Vec<Mutation>,
        index: u64,
        seq: u64,
        events: Vec<SharedEvent>,
    ) {
        let mut changed = Changed::default();
        {
            let mut model = self.model.write();
            model.apply(mutations, index, &mut changed);
            model.seq = model.seq.max(seq);
            let now = self.clock.now();
            for entry in changed
                .instances
                .iter()
                .filter_map(|id| model.instance(*id))
            {
                entry.live.not_after(now);
            }
            let services = std::mem::take(&mut changed.services);
            if !services.is_empty() {
                let next = model.directory(&self.directory.load(), services);
                // Before anybody can read the model: what a list shows is already known to the door.
                self.publish(&Arc::new(next));
            }
        }
        for event in &events {
            self.metrics.event(event.kind);
        }
        if self.ring.push(events, seq) {
            changed.topics.insert(Topic::Watch);
        }
        self.agenda.touch(changed.instances);
        for topic in &changed.topics {
            self.topics.wake(topic);
        }
    }

    /// Builds the directory from nothing, after a load or a healing.
    pub(crate) fn rebuild(&self) {
        let next = {
            let model = self.model.read();
            let all: Vec<(Uuid, ServiceKey)> = model.all_keys();
            model.directory(&Directory::default(), all)
        };
        self.publish(&Arc::new(next));
    }

    fn publish(&self, next: &Arc<Directory>) {
        let listeners = self.listeners.lock();
        self.directory.store(Arc::clone(next));
        for listener in listeners.iter() {
            listener(next);
        }
    }

    /// Tells other replicas of a heartbeat. Where there is no room for it, they learn it from the database.
    ///
    /// The time always rises above the one that is known, whoever's clock wrote that: otherwise a clock that
    /// was once ahead would hide all signs of life until the others reach it.
    pub(crate) fn share(&self, instance: Uuid, at: Timestamp) {
        let id = instance.to_string();
        let known = self.heartbeats.known(&id).map_or(0, |beat| beat.at_ms);
        let at_ms = at.timestamp_millis().max(known.saturating_add(1));
        if let Err(error) = self.heartbeats.touch(&id, at_ms, bytes::Bytes::new()) {
            tracing::debug!(err = %error, "a heartbeat was not shared");
        }
    }

    /// Who watches over an instance: this process?
    pub(crate) fn owns(&self, instance: Uuid) -> bool {
        self.shards.owns(instance)
    }
}

/// The contract's face of the registry.
pub(crate) struct Source(pub Arc<Core>);

impl DirectorySource for Source {
    fn current(&self) -> Arc<Directory> {
        self.0.directory.load_full()
    }

    fn subscribe(&self, listener: DirectoryListener) {
        let mut listeners = self.0.listeners.lock();
        listener(&self.0.directory.load_full());
        listeners.push(listener);
    }

    fn observe(&self, instance: Uuid, what: Observation) {
        // A lock that a writer holds is not waited for: the next request will see the same again.
        let Some(model) = self.0.model.try_read() else {
            return;
        };
        let Some(entry) = model.instance(instance) else {
            return;
        };
        let rise = self.0.tunables.get().defaults.rise;
        match what {
            Observation::ConnectFailed => {
                // Balancing avoids it from now on, so that a second refusal may never come from there:
                // a probe looks at once, whether or not this was the one that takes it out.
                if entry.live.connect_failed() {
                    self.0.agenda.judge([instance]);
                }
                self.0.agenda.suspect(instance);
            }
            Observation::Connected => {
                if entry.live.connected(rise) {
                    self.0.agenda.judge([instance]);
                }
            }
        }
    }
}

/// Where instances may live (RG-10).
pub(crate) struct AddressRules {
    tunables: Tunables,
    own: OwnAddresses,
}

impl AddressGuard for AddressRules {
    fn check(&self, address: SocketAddr) -> Result<(), Refused> {
        judge(address.ip(), &self.tunables.get().networks)?;
        if self
            .own
            .contains(SocketAddr::new(address.ip().to_canonical(), address.port()))
        {
            return Err(Refused::OwnListener);
        }
        Ok(())
    }
}
