//! A process: start in a fixed order, run, stop in the reverse.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use portico_base::{Clock, Random};
use portico_config::{Config, Loaded, Row};
use portico_contract::audit::Audit;
use portico_contract::settings::Settings;
use portico_db::Db;
use portico_jobs::JobSet;
use portico_telemetry::Runtimes;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Pulse};
use crate::background;
use crate::build::{self, Ground};
use crate::datadir::DataDir;
use crate::degraded::Degraded;
use crate::error::{StartError, exit};
use crate::health::Health;
use crate::own::OwnAddresses;
use crate::service::{BuiltService, NodeInfo, Service, Worker};
use crate::settings_file::FileSettings;
use crate::spawn::Spawner;
use crate::surface::{HttpSurface, Open, Surface};
use crate::telemetry::Telemetry;

/// A service of the binary, and whether this process's roles open its surfaces.
pub struct Entry {
    /// The service.
    pub service: Box<dyn Service>,
    /// True when this process opens its surfaces and runs its workers.
    pub active: bool,
}

/// What the binary consists of.
pub struct Composition {
    /// Services in the order in which they are built; the gateway is the last.
    pub entries: Vec<Entry>,
    /// Version of the binary.
    pub version: &'static str,
    /// Commit it was built from.
    pub commit: &'static str,
    /// Compiler.
    pub rustc: &'static str,
}

/// How to start.
#[derive(Clone)]
pub struct Options {
    /// The configuration.
    pub loaded: Arc<Loaded>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where randomness comes from.
    pub random: Arc<dyn Random>,
    /// A taken port is answered by the next free one of the 20 above it (the zero-argument start).
    pub next_free_port: bool,
    /// Logs are set up by this process; a test that runs several processes sets them up itself.
    pub own_logs: bool,
    /// Where changes are told of besides the audit service; absent: the log stream `audit`.
    pub audit: Option<Audit>,
    /// The runtimes to tell of; whoever builds one before the start counts its threads by it.
    pub runtimes: Runtimes,
}

/// The real addresses of a process that accepts connections.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// Listener → URL (`http`, `https`, `consul`, `admin`).
    #[serde(flatten)]
    pub urls: Map<String, Value>,
    /// Process id.
    pub pid: u32,
    /// Version of the binary.
    pub version: &'static str,
    /// The data directory.
    pub data_dir: String,
}

impl Ready {
    /// The URL of a listener, when it is open.
    #[must_use]
    pub fn url(&self, name: &str) -> Option<&str> {
        self.urls.get(name).and_then(Value::as_str)
    }
}

/// A running process.
pub struct Process {
    data_dir: DataDir,
    db: Db,
    config: Arc<Config>,
    health: Health,
    spawner: Spawner,
    surfaces: Vec<Box<dyn Open>>,
    admin: Option<Box<dyn Open>>,
    telemetry: Telemetry,
    replica: background::Membership,
    settings: Arc<FileSettings>,
    configuration: Arc<ArcSwap<Vec<Row>>>,
    ready: Ready,
    loaded: Arc<Loaded>,
    services: Vec<BuiltService>,
    node: NodeInfo,
    /// Tells services of a reloaded configuration.
    reloads: watch::Sender<Arc<Config>>,
    /// Ends the hand-over of spans to the present collector.
    exporting: CancellationToken,
}

/// How a stop ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// What had to be cut; empty after a clean stop.
    pub cut: Vec<String>,
    /// It was not let finish, or something did not end: more than streams that outlast the grace.
    pub forced: bool,
}

impl Process {
    /// Starts everything; listeners are bound last.
    ///
    /// # Errors
    /// With a sentence and the exit code of [`exit`].
    pub async fn start(options: Options, composition: Composition) -> Result<Self, StartError> {
        let base = Foundation::lay(&options, &composition).await?;
        let mut built = build::all(
            &base.ground,
            options.audit.clone(),
            &composition,
            &base.config,
            &base.node,
            &base.telemetry,
            &base.spawner,
            &base.own,
            &base.health,
        )
        .await?;
        let health = Health::new(
            Arc::clone(&options.clock),
            std::mem::take(&mut built.checks),
        );
        // Set once, here, before anybody can ask.
        let _ = base.health.set(health.clone());
        let services = std::mem::take(&mut built.services);
        let surfaces = std::mem::take(&mut built.surfaces);
        let workers = std::mem::take(&mut built.workers);
        let membership = base.set_going(&options, &health, built, workers).await?;
        let mut bound = Bound {
            own: base.own.clone(),
            next_free_port: options.next_free_port,
            urls: Map::new(),
        };
        let surfaces = surfaces
            .into_iter()
            .map(|surface| bound.bind(surface))
            .collect::<Result<Vec<_>, _>>()?;
        let admin = match base.admin(&composition, &health) {
            Some(surface) => Some(bound.bind(Box::new(surface))?),
            None => None,
        };
        health.set_started();
        membership.ready().await;
        let ready = Ready {
            event: "ready",
            urls: bound.urls,
            pid: std::process::id(),
            version: composition.version,
            data_dir: base.data_dir.path().display().to_string(),
        };
        base.data_dir
            .write_ready(&serde_json::to_string(&ready).unwrap_or_default())?;
        Ok(Self {
            data_dir: base.data_dir,
            db: base.ground.db.clone(),
            config: base.config,
            health,
            spawner: base.spawner,
            surfaces,
            admin,
            telemetry: base.telemetry,
            replica: membership,
            settings: base.ground.file_settings.clone(),
            configuration: Arc::clone(&base.ground.configuration),
            services,
            ready,
            loaded: options.loaded,
            node: base.node,
            reloads: base.ground.reloads,
            exporting: base.exporting,
        })
    }

    /// The real addresses.
    #[must_use]
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Health of the process.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The services of this process with their routes, in the order in which they were built.
    #[must_use]
    pub fn services(&self) -> &[BuiltService] {
        &self.services
    }

    /// Path of the operator's token.
    #[must_use]
    pub fn operator_token_file(&self) -> std::path::PathBuf {
        self.data_dir.path().join(crate::datadir::OPERATOR_TOKEN)
    }

    /// Takes over a new configuration as far as it can change at run time (CF-5), and counts how it went;
    /// `loaded` may be the faults that kept it from being read.
    ///
    /// # Errors
    /// Every fault; then nothing was taken over.
    pub fn reload(&mut self, loaded: Result<Arc<Loaded>, String>) -> Result<Vec<String>, String> {
        let done = loaded.and_then(|loaded| self.take_over(loaded));
        self.telemetry.reloaded(done.is_ok());
        done
    }

    fn take_over(&mut self, loaded: Arc<Loaded>) -> Result<Vec<String>, String> {
        let changes = portico_config::diff(&self.loaded, &loaded);
        let (old, new) = (&self.loaded.config, &loaded.config);
        let exporters = self.telemetry.other_exporters(old, new, &self.node)?;
        self.settings
            .replace(&loaded.config)
            .map_err(|faults| portico_config::Faults(faults).to_string())?;
        self.telemetry.reload(&loaded.config);
        if let Some(exporters) = exporters {
            let former =
                std::mem::replace(&mut self.exporting, self.spawner.stopping().child_token());
            let driver = self.telemetry.tracer.replace(exporters);
            self.spawner
                .spawn("traces", driver.run(self.exporting.clone()));
            former.cancel();
        }
        self.reloads.send_replace(Arc::new(loaded.config.clone()));
        let restart: Vec<String> = changes
            .restart
            .into_iter()
            .map(|change| change.key)
            .collect();
        for key in &restart {
            tracing::warn!(key, "this change needs a restart");
        }
        self.configuration
            .store(Arc::new(portico_config::rows(&loaded)));
        self.loaded = loaded;
        Ok(restart)
    }

    /// Stops: unready, drain, workers in reverse, flush. `force` ends the waiting early.
    pub async fn stop(mut self, force: impl Future<Output = ()>) -> Stopped {
        let shutdown = self.config.shutdown.clone();
        let delay = self.config.drain_delay();
        self.health.set_draining();
        self.data_dir.remove_ready();
        self.replica.draining().await;
        let work = async {
            for surface in &self.surfaces {
                surface.leave().await;
            }
            tokio::time::sleep(delay).await;
            let mut cut = Vec::new();
            let drains: Vec<_> = std::mem::take(&mut self.surfaces)
                .into_iter()
                .map(|s| s.drain(shutdown.grace_s.get()))
                .collect();
            for drained in futures_util::future::join_all(drains).await {
                cut.extend(drained.cut);
            }
            let left = self.spawner.stop(Duration::from_secs(5)).await;
            if left > 0 {
                cut.push(format!("{left} background tasks"));
            }
            (cut, left > 0)
        };
        let limit = delay + shutdown.force_s.get();
        let (cut, forced) = tokio::select! {
            done = work => done,
            () = force => (vec!["a second signal came".to_owned()], true),
            () = tokio::time::sleep(limit) => (vec![format!("not finished after {} s", limit.as_secs())], true),
        };
        self.replica.leave().await;
        if let Some(admin) = self.admin.take() {
            admin.drain(Duration::from_millis(200)).await;
        }
        if let Err(error) = self.db.checkpoint().await {
            tracing::warn!(err = %error, "the database could not be checkpointed");
        }
        self.db.close().await;
        self.telemetry.close();
        Stopped { cut, forced }
    }
}

/// What stands before any service is built.
struct Foundation {
    config: Arc<Config>,
    data_dir: DataDir,
    node: NodeInfo,
    telemetry: Telemetry,
    spawner: Spawner,
    ground: Ground,
    exporting: CancellationToken,
    own: OwnAddresses,
    health: Arc<OnceLock<Health>>,
    pulse: Pulse,
    roles: Arc<[String]>,
}

impl Foundation {
    async fn lay(options: &Options, composition: &Composition) -> Result<Self, StartError> {
        let config = Arc::new(options.loaded.config.clone());
        let data_dir = DataDir::open(&config.node.data_dir, &*options.clock)?;
        let node = node_info(&config, options, composition.version);
        let (telemetry, driver) = Telemetry::start(
            &config,
            composition,
            &node.name,
            &options.clock,
            &options.random,
            &options.runtimes,
            options.own_logs,
        )?;
        let spawner = Spawner::new(tokio::runtime::Handle::current());
        let exporting = spawner.stopping().child_token();
        spawner.spawn("traces", driver.run(exporting.clone()));
        let ground = Ground::lay(
            options,
            &config,
            &data_dir,
            composition,
            &telemetry,
            &spawner,
        )
        .await?;
        telemetry.runtimes.watch("shared", spawner.runtime());
        let roles = config.node.roles.iter().map(ToString::to_string).collect();
        Ok(Self {
            config,
            data_dir,
            node,
            telemetry,
            spawner,
            ground,
            exporting,
            own: OwnAddresses::default(),
            health: Arc::default(),
            pulse: Pulse::start(),
            roles,
        })
    }

    /// Enters the replicas and starts jobs, workers and what every process does.
    async fn set_going(
        &self,
        options: &Options,
        health: &Health,
        mut built: build::All,
        workers: Vec<Worker>,
    ) -> Result<background::Membership, StartError> {
        let (ground, spawner) = (&self.ground, &self.spawner);
        let metrics = &self.telemetry.metrics;
        let membership =
            background::join(ground, &self.node, &self.roles, metrics, health, spawner).await?;
        let degraded = Degraded::new(
            &self.telemetry.metrics,
            &ground.db,
            spawner,
            &self.node.name,
        );
        background::start(
            ground,
            spawner,
            health,
            &self.pulse,
            &self.config,
            &degraded,
        );
        let own = JobSet::new()
            .with(ground.clocks.job())
            .with(crate::disk::job(&ground.disk, &self.config, &degraded));
        built.jobs.extend(own);
        let settings = Settings::new(ground.layers.clone());
        built
            .jobs
            .extend(portico_jobs::ops_jobs(&ground.db, &settings));
        let jobs = portico_jobs::Runner::new(
            ground.db.clone(),
            Arc::clone(&options.clock),
            Arc::clone(&options.random),
            &self.node.name,
            built.jobs,
        )
        .map_err(|error| StartError::new(exit::FAILED, error.to_string()))?
        .with_tracer(self.telemetry.tracer.clone())
        .with_settings(settings);
        let _ = ground.jobs.set(jobs.clone());
        jobs.start(spawner.tasks(), spawner.stopping());
        crate::figures::export(&self.telemetry.metrics, &ground.db, &jobs);
        for Worker { name, run } in workers {
            spawner.spawn(name, run(spawner.stopping().clone()));
        }
        Ok(membership)
    }

    /// The admin listener, unless it is off.
    fn admin(&self, composition: &Composition, health: &Health) -> Option<HttpSurface> {
        let address = self.config.listen.admin.addr()?;
        let section = &self.config.telemetry.metrics;
        let reachable = !self.config.listen.admin.is_private();
        let router = admin::router(Admin {
            health: health.clone(),
            metrics: self.telemetry.metrics.clone(),
            metrics_enabled: section.enabled,
            token: section.token.clone().filter(|_| reachable).map(Arc::new),
            pulse: self.pulse.clone(),
            version: composition.version,
            replica: Arc::clone(&self.node.name),
            roles: Arc::clone(&self.roles),
            services: composition
                .entries
                .iter()
                .map(|entry| (entry.service.name(), entry.active))
                .collect(),
        });
        let limits = portico_web::serve::Limits {
            connections: 1024,
            ..Default::default()
        };
        let runtime = self.spawner.runtime().clone();
        Some(HttpSurface::new("admin", address, router, limits, runtime))
    }
}

struct Bound {
    own: OwnAddresses,
    next_free_port: bool,
    urls: Map<String, Value>,
}

impl Bound {
    fn bind(&mut self, mut surface: Box<dyn Surface>) -> Result<Box<dyn Open>, StartError> {
        let wanted = surface.address();
        let name = surface.name();
        let tries = if self.next_free_port && wanted.port() != 0 {
            20
        } else {
            0
        };
        let mut address = wanted;
        loop {
            match surface.bind(address) {
                Ok(open) => {
                    let mut listeners = open.others();
                    listeners.push((name, surface.scheme(), open.local_address()));
                    for (name, scheme, local) in listeners {
                        self.own.add(local);
                        let url = format!("{scheme}://{}", reachable(local));
                        self.own.name(name, &url);
                        self.urls.insert(name.to_owned(), Value::from(url));
                    }
                    return Ok(open);
                }
                Err(error)
                    if error.kind() == std::io::ErrorKind::AddrInUse
                        && address.port() < wanted.port().saturating_add(tries) =>
                {
                    address.set_port(address.port() + 1);
                }
                Err(error) => {
                    return Err(StartError::new(
                        exit::FAILED,
                        cannot_listen(name, wanted, &error),
                    ));
                }
            }
        }
    }
}

/// Why a listener cannot be opened, and what to do (FM-7).
fn cannot_listen(name: &str, wanted: SocketAddr, error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let flag = match name {
        "http" => "--listen ADDR",
        "consul" => "--consul-listen ADDR",
        "admin" => "--admin-listen ADDR",
        _ => "another address in the `listen` section",
    };
    let why = match error.kind() {
        AddrInUse => format!("another program has the port; stop it, or use {flag}"),
        AddrNotAvailable => format!("this machine has no such address; use {flag}"),
        PermissionDenied => {
            format!(
                "ports below 1024 need rights (CAP_NET_BIND_SERVICE); grant them, or use {flag}"
            )
        }
        _ => format!("{error}; use {flag}"),
    };
    format!("listen.{name}: cannot listen on {wanted}: {why}")
}

/// The address as somebody on this machine can use it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

fn node_info(config: &Config, options: &Options, version: &'static str) -> NodeInfo {
    let host = host_name();
    let name = match &config.node.name {
        Some(name) => name.as_str().to_owned(),
        None => portico_db::replica_name(&host, &*options.random),
    };
    NodeInfo {
        name: Arc::from(name),
        host: Arc::from(host),
        zone: Arc::from(config.node.zone.as_ref().map_or("", |zone| zone.as_str())),
        version,
        data_dir: config.node.data_dir.clone(),
    }
}

pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
