//! What a service is: its name, its schema, its settings, and how it is built.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use futures_util::future::BoxFuture;
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, Random, Secret};
use portico_config::{Config, Row};
use portico_contract::audit::Audit;
use portico_contract::backup::AfterRestore;
use portico_contract::credentials::{CredentialSource, Credentials};
use portico_contract::permissions::PermissionDeclaration;
use portico_contract::personal::PersonalParts;
use portico_contract::sealed::SealedParts;
use portico_contract::settings::{Declaration, Settings, SettingsCheck};
use portico_db::{Db, Migrations};
use portico_jobs::{JobSet, Runner};
use portico_objects::Objects;
use portico_rpc::RpcRoutes;
use portico_state::State;
use portico_web::Built;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::audit_switch::AuditSwitch;
use crate::disk::Disk;
use crate::error::StartError;
use crate::health::{Check, Health};
use crate::numbers::ReplicaNumbers;
use crate::own::OwnAddresses;
use crate::provided::Provided;
use crate::sealed::{RowKey, SealedColumn};
use crate::settings_layers::SettingsLayers;
use crate::spawn::Spawner;
use crate::surface::Surface;
use crate::telemetry::Telemetry;

/// A part of the platform: a library with its own tables, settings, routes and workers.
pub trait Service: Send + Sync + 'static {
    /// Route prefix, configuration section and metric label.
    fn name(&self) -> &'static str;

    /// Its tables, one step after the other.
    fn migrations(&self) -> Migrations;

    /// Its settings.
    fn settings(&self) -> &'static [Declaration] {
        &[]
    }

    /// Its own check of all settings together, beyond what each declaration says (CT-3).
    fn settings_check(&self) -> Option<SettingsCheck> {
        None
    }

    /// Permissions that its routes and use-cases ask for (ID-20).
    fn permissions(&self) -> &'static [PermissionDeclaration] {
        &[]
    }

    /// True when its requests can be answered while the database is away: then a process that runs it
    /// stays ready (HL-2).
    fn serves_without_database(&self) -> bool {
        false
    }

    /// What has to be done with its rows when they come out of a backup. It is asked without the service
    /// being built, because the command line restores without a running process.
    fn after_restore(&self) -> Option<Arc<dyn AfterRestore>> {
        None
    }

    /// Builds it. May read the database (its snapshots must be loaded when it is ready) but serves nothing yet.
    ///
    /// # Errors
    /// When something it needs is missing.
    fn build<'a>(&'a self, cx: &'a mut BuildCx<'_>) -> BoxFuture<'a, Result<Running, StartError>>;
}

/// What a built service brings. The host uses only what the process's roles ask for.
#[derive(Default)]
pub struct Running {
    /// Routes below `/api/{service}`.
    pub routes: Option<Built>,
    /// Further root prefixes that it serves (`/docs`), without the prefix removed.
    pub root: Vec<(&'static str, Router)>,
    /// gRPC services, on the one listener for all of them.
    pub rpc: RpcRoutes,
    /// Listeners, bound last.
    pub surfaces: Vec<Box<dyn Surface>>,
    /// Long-running work.
    pub workers: Vec<Worker>,
    /// Work that is due again and again.
    pub jobs: JobSet,
    /// Health checks.
    pub checks: Vec<Check>,
}

/// Long-running work; ends soon after its token is cancelled.
pub struct Worker {
    /// Its name in logs.
    pub name: &'static str,
    /// Runs until told to stop.
    pub run: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Worker {
    /// Work from a function of the stop token.
    pub fn new<F>(
        name: &'static str,
        run: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            run: Box::new(move |stop| Box::pin(run(stop))),
        }
    }
}

/// A service that was built earlier in this process.
#[derive(Clone)]
pub struct BuiltService {
    /// Its name.
    pub name: &'static str,
    /// Its routes; nothing when its role does not run here.
    pub routes: Option<Built>,
    /// Further root prefixes.
    pub root: Vec<(&'static str, Router)>,
}

/// This process among the replicas.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Name of the replica: `node.name`, or the host name and four random letters.
    pub name: Arc<str>,
    /// Host name of the machine.
    pub host: Arc<str>,
    /// Zone, empty when unknown.
    pub zone: Arc<str>,
    /// Version of the binary.
    pub version: &'static str,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// Everything that a service is built from.
pub struct BuildCx<'a> {
    /// The configuration as loaded.
    pub config: &'a Arc<Config>,
    /// The configuration after each reload, for what can change at run time (CF-5).
    pub reloads: &'a watch::Receiver<Arc<Config>>,
    /// This process.
    pub node: &'a NodeInfo,
    /// The database.
    pub db: &'a Db,
    /// Cache, bus, limits: in process or Redis.
    pub state: &'a State,
    /// Objects: files of this machine or a bucket.
    pub objects: &'a Objects,
    /// Logs, metrics, traces.
    pub telemetry: &'a Telemetry,
    /// Where time comes from.
    pub clock: &'a Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: &'a Arc<dyn Random>,
    /// Business configuration.
    pub settings: &'a Settings,
    /// The layers that `settings` reads from; the settings service puts its own in.
    pub layers: &'a Arc<SettingsLayers>,
    /// Settings that all services of this binary declare, by the service's name.
    pub declarations: &'a [(&'static str, &'static [Declaration])],
    /// Their own checks of all settings together.
    pub settings_checks: &'a [SettingsCheck],
    /// The configuration in force, line by line and without secrets (CT-11).
    pub configuration: &'a Arc<ArcSwap<Vec<Row>>>,
    /// Tables with sealed rows; a service that has one adds it.
    pub sealed: &'a SealedParts,
    /// The migration steps of all services of this binary.
    pub migrations: &'a Arc<Vec<(&'static str, Migrations)>>,
    /// What they do with rows that come out of a backup.
    pub after_restore: &'a [Arc<dyn AfterRestore>],
    /// Where changes are recorded.
    pub audit: &'a Audit,
    /// The same, where the audit service puts its own sink in.
    pub audit_switch: &'a Arc<AuditSwitch>,
    /// Keys for secrets at rest.
    pub keys: &'a Arc<MasterKeys>,
    /// Tracked tasks on the shared runtime.
    pub spawner: &'a Spawner,
    /// Our own listeners.
    pub own: &'a OwnAddresses,
    /// Whether the disk is low.
    pub disk: &'a Disk,
    /// Figures that this process tells the other replicas.
    pub numbers: &'a ReplicaNumbers,
    /// Jobs and schedules of the process; there once all services are built.
    pub jobs: &'a Arc<std::sync::OnceLock<Runner>>,
    /// Health of the process; complete once all services are built.
    pub health: &'a Arc<std::sync::OnceLock<Health>>,
    /// The operator's token.
    pub operator: &'a Arc<Secret<String>>,
    /// Services built before this one.
    pub built: &'a [BuiltService],
    /// Contracts provided by services built before this one.
    pub provided: &'a mut Provided,
    /// Sources of credentials, shared by all clones: what a later service adds is known to everybody.
    pub credentials: &'a mut Credentials,
    /// What services keep about people, shared by all clones: what a later service adds is known to everybody.
    pub personal: &'a PersonalParts,
    /// Names of all services of this binary, built or not yet.
    pub names: &'a [&'static str],
    /// Names of those whose role this process has.
    pub running: &'a [&'static str],
    /// Permissions that all services of this binary declare, by the service's name.
    pub permissions: &'a [(&'static str, &'static [PermissionDeclaration])],
}

impl BuildCx<'_> {
    /// Provides an implementation of a contract to services built later.
    pub fn provide<T: ?Sized + Send + Sync + 'static>(&mut self, contract: Arc<T>) {
        self.provided.put(contract);
    }

    /// An implementation that a service built earlier provided.
    ///
    /// # Errors
    /// When nobody did: an error of composition.
    pub fn require<T: ?Sized + Send + Sync + 'static>(&self) -> Result<Arc<T>, StartError> {
        self.provided.get().ok_or_else(|| {
            StartError::new(
                crate::exit::FAILED,
                format!("nobody provides {}", std::any::type_name::<T>()),
            )
        })
    }

    /// Adds a column with envelopes to those that are sealed anew when the master key changes.
    pub fn add_sealed(
        &self,
        name: &'static str,
        table: &'static str,
        key: RowKey,
        column: &'static str,
    ) {
        self.sealed.add(Arc::new(SealedColumn {
            name,
            table,
            key,
            column,
            db: self.db.clone(),
            keys: Arc::clone(self.keys),
            random: Arc::clone(self.random),
        }));
    }

    /// Adds a source of credentials.
    pub fn add_credentials(&mut self, source: Arc<dyn CredentialSource>) {
        self.credentials.add(source);
    }
}
