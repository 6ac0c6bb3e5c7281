//! From ground to services: secrets, database, state, then every service in its order.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use portico_base::envelope::MasterKeys;
use portico_base::{Clock, Random, Secret};
use portico_config::{Config, Fault, Row};
use portico_contract::audit::Audit;
use portico_contract::backup::AfterRestore;
use portico_contract::credentials::Credentials;
use portico_contract::personal::PersonalParts;
use portico_contract::sealed::SealedParts;
use portico_contract::settings::{Declaration, Settings};
use portico_db::{Db, DbError, DbOptions, Migrations, Pooler, Tls, TlsMode};
use portico_jobs::{JobSet, Runner};
use portico_objects::Objects;
use portico_rpc::RpcRoutes;
use portico_state::{Deps, RedisOptions, State};
use tokio::sync::watch;

use crate::audit_log::AuditLog;
use crate::audit_switch::AuditSwitch;
use crate::datadir::{DataDir, parse_key};
use crate::disk::Disk;
use crate::error::{StartError, exit};
use crate::health::{Check, CheckResult, Health};
use crate::numbers::ReplicaNumbers;
use crate::operator::OperatorToken;
use crate::own::OwnAddresses;
use crate::process::{Composition, Entry, Options};
use crate::provided::Provided;
use crate::service::{BuildCx, BuiltService, NodeInfo, Running, Service, Worker};
use crate::settings_file::FileSettings;
use crate::settings_layers::SettingsLayers;
use crate::skew::ClockWatch;
use crate::spawn::Spawner;
use crate::surface::Surface;
use crate::telemetry::Telemetry;

/// How long a dependency that is not there is waited for at the start (SD-1).
const PATIENCE: Duration = Duration::from_secs(60);

/// After so long without its database a process that needs it for every request is unready (HL-2).
const WITHOUT_DATABASE: Duration = Duration::from_secs(10);

/// What all services stand on.
pub(crate) struct Ground {
    pub(crate) db: Db,
    pub(crate) state: State,
    pub(crate) objects: Objects,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) keys: Arc<MasterKeys>,
    pub(crate) operator: Arc<Secret<String>>,
    pub(crate) file_settings: Arc<FileSettings>,
    /// Whoever reads settings reads these.
    pub(crate) layers: Arc<SettingsLayers>,
    /// The configuration in force, line by line.
    pub(crate) configuration: Arc<ArcSwap<Vec<Row>>>,
    pub(crate) disk: Disk,
    pub(crate) clocks: ClockWatch,
    /// What this process tells the others.
    pub(crate) numbers: ReplicaNumbers,
    /// Jobs of all services, once these are built.
    pub(crate) jobs: Arc<OnceLock<Runner>>,
    /// The configuration in force.
    pub(crate) reloads: watch::Sender<Arc<Config>>,
}

impl Ground {
    /// Secrets → database → schema → key check → settings → state.
    pub(crate) async fn lay(
        options: &Options,
        config: &Config,
        data_dir: &DataDir,
        composition: &Composition,
        telemetry: &Telemetry,
        spawner: &Spawner,
    ) -> Result<Self, StartError> {
        let operator = Arc::new(data_dir.operator_token(&*options.random)?);
        let keys = Arc::new(master_keys(config, &*options.random)?);
        let db = connect(config, &options.clock).await?;
        warn_if_plain(&db, config).await;
        let services = composition.entries.iter().map(|entry| &*entry.service);
        db.migrate(&migrations(services))
            .await
            .map_err(|error| migration_error(&error))?;
        refuse_half_restored(&db).await?;
        check_key(&db, &keys).await?;
        let declarations: Vec<Declaration> = composition
            .entries
            .iter()
            .flat_map(|e| e.service.settings().iter().copied())
            .collect();
        let file_settings = Arc::new(FileSettings::new(declarations));
        file_settings.replace(config).map_err(|faults| {
            StartError::new(exit::USAGE, portico_config::Faults(faults).to_string())
        })?;
        let state = state(config, options, telemetry, spawner)?;
        let objects = crate::objects::of(config, &telemetry.metrics)?;
        let clocks = ClockWatch::new(&options.clock, &db, &state, &telemetry.metrics);
        clocks.look().await;
        Ok(Self {
            db,
            state,
            objects,
            clock: Arc::clone(&options.clock),
            random: Arc::clone(&options.random),
            keys,
            operator,
            layers: SettingsLayers::new(file_settings.clone()),
            configuration: Arc::new(ArcSwap::from_pointee(portico_config::rows(&options.loaded))),
            file_settings,
            disk: Disk::default(),
            clocks,
            numbers: ReplicaNumbers::default(),
            jobs: Arc::default(),
            reloads: watch::Sender::new(Arc::new(config.clone())),
        })
    }
}

/// Everything that the services brought, as far as this process's roles use it.
#[derive(Default)]
pub(crate) struct All {
    pub(crate) surfaces: Vec<Box<dyn Surface>>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) jobs: JobSet,
    pub(crate) checks: Vec<Check>,
    pub(crate) services: Vec<BuiltService>,
}

impl All {
    /// Takes in what a service brought, as far as its role is here.
    fn take(&mut self, entry: &Entry, running: Running, rpc: &mut RpcRoutes) -> BuiltService {
        let name = entry.service.name();
        self.checks.extend(running.checks);
        if !entry.active {
            return BuiltService {
                name,
                routes: None,
                root: Vec::new(),
            };
        }
        self.surfaces.extend(running.surfaces);
        rpc.extend(running.rpc);
        self.workers.extend(running.workers);
        self.jobs.extend(running.jobs);
        BuiltService {
            name,
            routes: running.routes,
            root: running.root,
        }
    }
}

/// The checks of what all services stand on.
fn own_checks(ground: &Ground, entries: &[Entry]) -> Vec<Check> {
    let gateway = entries
        .iter()
        .any(|e| e.active && e.service.serves_without_database());
    let mut checks = vec![
        database_check(&ground.db, gateway),
        ground.clocks.check(),
        crate::disk::check(&ground.disk),
    ];
    checks.extend(redis_check(&ground.state));
    checks.push(crate::objects::check(&ground.objects));
    checks
}

/// Builds all services in their order.
#[expect(
    clippy::too_many_arguments,
    reason = "the one place where everything meets"
)]
pub(crate) async fn all(
    ground: &Ground,
    audit: Option<Audit>,
    composition: &Composition,
    config: &Arc<Config>,
    node: &NodeInfo,
    telemetry: &Telemetry,
    spawner: &Spawner,
    own: &OwnAddresses,
    health: &Arc<OnceLock<Health>>,
) -> Result<All, StartError> {
    let settings = Settings::new(ground.layers.clone());
    let sealed = SealedParts::default();
    let settings_checks: Vec<_> = entries_of(composition)
        .filter_map(|service| service.settings_check())
        .collect();
    let declarations: Vec<_> = entries_of(composition)
        .map(|service| (service.name(), service.settings()))
        .collect();
    let schema = Arc::new(migrations(entries_of(composition)));
    let after_restore = after_restore(entries_of(composition));
    let audit_switch = AuditSwitch::new(audit.unwrap_or_else(|| Arc::new(AuditLog)));
    let audit: Audit = audit_switch.clone();
    let mut provided = Provided::default();
    let mut credentials = Credentials::default();
    let personal = PersonalParts::default();
    credentials.add(Arc::new(OperatorToken::new(Arc::clone(&ground.operator))));
    let entries = &composition.entries;
    let names: Vec<_> = entries.iter().map(|e| e.service.name()).collect();
    let here = entries.iter().filter(|e| e.active);
    let running_here: Vec<_> = here.map(|e| e.service.name()).collect();
    let declared = |e: &Entry| (e.service.name(), e.service.permissions());
    let permissions: Vec<_> = entries.iter().map(declared).collect();
    let mut built: Vec<BuiltService> = Vec::new();
    let reloads = ground.reloads.subscribe();
    let mut all = All {
        checks: own_checks(ground, entries),
        ..All::default()
    };
    let mut rpc = RpcRoutes::new();
    for entry in entries {
        let mut cx = BuildCx {
            config,
            reloads: &reloads,
            node,
            db: &ground.db,
            state: &ground.state,
            objects: &ground.objects,
            telemetry,
            clock: &ground.clock,
            random: &ground.random,
            settings: &settings,
            layers: &ground.layers,
            declarations: &declarations,
            settings_checks: &settings_checks,
            configuration: &ground.configuration,
            sealed: &sealed,
            migrations: &schema,
            after_restore: &after_restore,
            audit: &audit,
            audit_switch: &audit_switch,
            keys: &ground.keys,
            spawner,
            own,
            disk: &ground.disk,
            numbers: &ground.numbers,
            jobs: &ground.jobs,
            health,
            operator: &ground.operator,
            built: &built,
            provided: &mut provided,
            credentials: &mut credentials,
            personal: &personal,
            names: &names,
            running: &running_here,
            permissions: &permissions,
        };
        let running = entry.service.build(&mut cx).await?;
        built.push(all.take(entry, running, &mut rpc));
    }
    all.services = built;
    let who = (&provided, &credentials);
    let surface = crate::rpc::surface(rpc, ground, telemetry, who, health, spawner.runtime());
    all.surfaces.extend(surface.await?);
    Ok(all)
}

fn entries_of(composition: &Composition) -> impl Iterator<Item = &dyn Service> {
    composition.entries.iter().map(|entry| &*entry.service)
}

/// The steps of all services, and of the spine crates with tables of their own.
pub fn migrations<'a>(
    services: impl Iterator<Item = &'a dyn Service>,
) -> Vec<(&'static str, Migrations)> {
    std::iter::once(("jobs", portico_jobs::migrations()))
        .chain(services.map(|service| (service.name(), service.migrations())))
        .collect()
}

/// What all services, and jobs, do with rows that come out of a backup.
pub fn after_restore<'a>(
    services: impl Iterator<Item = &'a dyn Service>,
) -> Vec<Arc<dyn AfterRestore>> {
    let of_services = services.filter_map(Service::after_restore);
    of_services.chain([portico_jobs::after_restore()]).collect()
}

/// Database options from the configuration.
#[must_use]
pub fn db_options(config: &Config) -> DbOptions {
    let section = &config.database;
    let mut options = DbOptions::new(section.url.expose().to_owned());
    if section.url.kind() == portico_config::DatabaseKind::Postgres {
        options.max_connections = section.max_connections;
    }
    options.min_connections = section.min_connections.min(options.max_connections);
    options.acquire_timeout = section.acquire_timeout_ms.get();
    options.statement_timeout = section.statement_timeout_ms.get();
    options.idle_timeout = section.idle_s.get();
    options.max_lifetime = section.max_lifetime_s.get();
    options.slow = section.slow_ms.get();
    options.pooler = match section.pooler {
        portico_config::Pooler::None => Pooler::None,
        portico_config::Pooler::PgBouncer => Pooler::PgBouncer,
    };
    options.tls = Tls {
        // The default must not weaken what a CA file implies or the URL asks for (`?sslmode=`).
        mode: match section.tls.mode {
            portico_config::DatabaseTlsMode::Prefer => None,
            portico_config::DatabaseTlsMode::Require => Some(TlsMode::Require),
            portico_config::DatabaseTlsMode::VerifyFull => Some(TlsMode::VerifyFull),
        },
        ca_file: section.tls.ca_file.clone(),
        cert_file: section.tls.cert_file.clone(),
        key_file: section.tls.key_file.clone(),
    };
    options
}

/// A failed migration with its exit code.
#[must_use]
pub fn migration_error(error: &DbError) -> StartError {
    let code = match error {
        DbError::SchemaTooNew { .. } => exit::SCHEMA,
        _ => exit::FAILED,
    };
    let what = if code == exit::SCHEMA {
        format!("{error}; a newer Portico has used this database: start that version again")
    } else {
        format!("the database's schema: {error}")
    };
    StartError::new(code, what)
}

async fn connect(config: &Config, clock: &Arc<dyn Clock>) -> Result<Db, StartError> {
    let options = db_options(config);
    let attempt = || Db::connect(&options, Arc::clone(clock));
    patiently("the database", attempt).await
}

/// One warning for a way to the database that others could listen to (SC-13).
async fn warn_if_plain(db: &Db, config: &Config) {
    let host = config.database.url.host();
    let outside = host.is_some_and(|host| !portico_config::is_loopback_host(&host));
    if outside
        && !config.tls.internal.mesh
        && db.is_encrypted().await.is_ok_and(|on| on == Some(false))
    {
        tracing::warn!(
            "the connection to the database is not encrypted; set `database.tls.ca_file`, or `database.tls.mode = \"require\"`"
        );
    }
}

fn state(
    config: &Config,
    options: &Options,
    telemetry: &Telemetry,
    spawner: &Spawner,
) -> Result<State, StartError> {
    let section = &config.redis;
    let authority = section.ca_file.as_ref().map(std::fs::read).transpose();
    let authority = authority.map_err(|error| {
        StartError::new(exit::USAGE, format!("redis.ca_file: {error}")).because(error)
    })?;
    let redis = section.url.as_ref().map(|url| RedisOptions {
        ca_pem: authority.clone(),
        prefix: section.prefix.as_str().to_owned(),
        pool: section.pool as usize,
        connect_timeout: section.connect_timeout_ms.get(),
        command_timeout: section.command_timeout_ms.get(),
        ..RedisOptions::new(url.expose().to_owned())
    });
    let deps = Deps {
        clock: Arc::clone(&options.clock),
        random: Arc::clone(&options.random),
        registry: telemetry.metrics.clone(),
    };
    let (state, driver) = match redis {
        None => State::local(&deps),
        Some(redis) => State::redis(&redis, &deps).map_err(|error| {
            StartError::new(exit::USAGE, format!("redis.url: {error}")).because(error)
        })?,
    };
    spawner.spawn("state", driver.run(spawner.stopping().clone()));
    Ok(state)
}

/// Tries for a minute, with a line every five seconds.
pub(crate) async fn patiently<T, E, F>(what: &str, attempt: impl Fn() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let begin = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Ok(there) => return Ok(there),
            Err(error) if begin.elapsed() >= PATIENCE || !is_patient(&error) => {
                return Err(StartError::new(
                    exit::DEPENDENCY,
                    format!(
                        "{what} cannot be reached: {}",
                        portico_web::problem::chain(&error)
                    ),
                )
                .because(error));
            }
            Err(error) => {
                tracing::warn!(err = %portico_web::problem::chain(&error), "{what} is not there yet");
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    }
}

/// A wrong certificate or password does not get better by waiting.
fn is_patient(error: &(dyn std::error::Error + 'static)) -> bool {
    let text = portico_web::problem::chain(error).to_lowercase();
    ![
        "certificate",
        "password authentication",
        "unable to open database file",
        "no such host",
    ]
    .iter()
    .any(|word| text.contains(word))
}

/// The master keys that are there, for commands beside the running process; none is made.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn existing_master_keys(config: &Config) -> Result<MasterKeys, StartError> {
    let section = &config.keys;
    if section.master.is_none() && !section.master_file.exists() {
        return Err(StartError::new(
            exit::KEY,
            format!(
                "there is no master key at {}; give the right `keys.master_file`",
                section.master_file.display()
            ),
        ));
    }
    master_keys(config, &portico_base::SystemRandom)
}

fn master_keys(config: &Config, random: &dyn Random) -> Result<MasterKeys, StartError> {
    let section = &config.keys;
    let key = match &section.master {
        Some(key) => key.0.clone(),
        None => DataDir::master_key(&section.master_file, random)?,
    };
    let mut keys = MasterKeys::new(&key_id(&key), *key.expose());
    for file in &section.previous_files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            StartError::new(
                exit::KEY,
                format!("cannot read the previous key {}: {error}", file.display()),
            )
        })?;
        let previous = parse_key(&text).ok_or_else(|| {
            StartError::new(
                exit::KEY,
                format!("{} is not a key of 64 hex digits", file.display()),
            )
        })?;
        keys = keys.with_previous(&key_id(&previous), *previous.expose());
    }
    Ok(keys)
}

/// A key's id: the first eight hex digits of its hash, so that the same key has the same id everywhere.
fn key_id(key: &Secret<[u8; 32]>) -> String {
    let hash = portico_base::secret::token_hash(&format!("portico/key-id/1|{:?}", key.expose()));
    hash[..4]
        .iter()
        .fold(String::from("mk"), |id, byte| format!("{id}{byte:02x}"))
}

/// Rows without what must follow them (dead tokens, ended leases) are not to be lived with.
async fn refuse_half_restored(db: &Db) -> Result<(), StartError> {
    let pending = db.restore_is_pending().await;
    match pending {
        Ok(false) => Ok(()),
        Ok(true) => Err(StartError::new(
            exit::FAILED,
            "a restore of this database was not finished; run `portico restore` again",
        )),
        Err(error) => {
            Err(StartError::new(exit::DEPENDENCY, "the database cannot be read").because(error))
        }
    }
}

async fn check_key(db: &Db, keys: &MasterKeys) -> Result<(), StartError> {
    let mine = keys.check_value();
    let theirs = db.claim_key_check(&mine).await.map_err(|error| {
        StartError::new(exit::FAILED, "the key check could not be read").because(error)
    })?;
    if mine == theirs {
        return Ok(());
    }
    // The key was changed, and the former one is here as a previous one: from now on the new one counts.
    if keys.knows(&theirs) {
        tracing::warn!(
            "the master key was changed: run `portico secrets rotate`, and keep the previous key until nothing is sealed with it"
        );
        return db.replace_key_check(&theirs, &mine).await.map_err(|error| {
            StartError::new(exit::FAILED, "the key check could not be written").because(error)
        });
    }
    Err(StartError::new(
        exit::KEY,
        "the master key is not the one that this database was made with; give the right `keys.master_file`",
    ))
}

/// Nothing without Redis. To be without it costs time, never truth (SC-3), so it is never unready.
fn redis_check(state: &State) -> Option<Check> {
    state.status().redis?;
    let state = state.clone();
    Some(Check {
        name: "redis",
        unready_after: None,
        run: Arc::new(move || {
            let result = match state.status().redis {
                Some(redis) if !redis.up || !redis.bus_up => {
                    let why = redis.last_error;
                    CheckResult::Degraded(why.unwrap_or_else(|| "not connected".to_owned()))
                }
                _ => CheckResult::Ok,
            };
            Box::pin(std::future::ready(result))
        }),
    })
}

/// The gateway goes on with what it knows, so that a lost database never makes its process unready: the
/// built-in services answer 503 themselves. A process without it has nothing else to do (HL-2).
fn database_check(db: &Db, gateway: bool) -> Check {
    let db = db.clone();
    Check {
        name: "database",
        unready_after: (!gateway).then_some(WITHOUT_DATABASE),
        run: Arc::new(move || {
            let db = db.clone();
            Box::pin(async move {
                match db.ping().await {
                    Ok(()) => CheckResult::Ok,
                    Err(error) => CheckResult::Failed(error.to_string()),
                }
            })
        }),
    }
}

/// Checks the settings of a configuration against their declarations.
#[must_use]
pub fn check_settings(config: &Config, declarations: &[Declaration]) -> Vec<Fault> {
    crate::settings_file::faults(config, declarations)
}
