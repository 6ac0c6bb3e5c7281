//! The way to Redis: connections that the driver keeps, commands that never wait longer than their time-out.

mod endpoint;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use portico_base::Timestamp;
use portico_telemetry::metrics::{
    Counter, CounterFamily, Family, Gauge, GaugeFamily, HistogramFamily, HistogramVec,
};
use portico_telemetry::trace::{self, SpanKind};
use redis::aio::ConnectionLike;
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation};
use tokio::sync::{Notify, watch};

use self::endpoint::{Connection, Endpoint};
use crate::error::StateError;
use crate::options::{Deps, RedisOptions};
use crate::status::RedisStatus;

static UP: GaugeFamily = GaugeFamily::new(
    "portico_redis_up",
    "1 while Redis answers commands, else 0; absent when none is configured.",
    &[],
    1,
);
static SECONDS: HistogramFamily = HistogramFamily::seconds(
    "portico_redis_command_seconds",
    "Time of commands to Redis, time-outs included.",
    &["command"],
    24,
);
static ERRORS: CounterFamily = CounterFamily::new(
    "portico_redis_errors_total",
    "Commands to Redis that failed: timeout, io, refused by the server, down (not even tried).",
    &["kind"],
    4,
);

pub(crate) static FAMILIES: [&Family; 3] = [UP.family(), SECONDS.family(), ERRORS.family()];

/// A command that answers to nobody's patience; the driver asks this often whether Redis is there.
const PING_EVERY: Duration = Duration::from_millis(1_000);
const FIRST_BACKOFF_MS: u64 = 50;
const MAX_BACKOFF_MS: u64 = 2_000;

pub(crate) struct Link {
    endpoint: Endpoint,
    pub(crate) prefix: String,
    command_timeout: Duration,
    connect_timeout: Duration,
    pool: usize,
    plain: bool,
    connections: ArcSwap<Vec<Connection>>,
    next: AtomicUsize,
    up: AtomicBool,
    /// Whether Redis answers, and whether its messages arrive.
    changes: watch::Sender<bool>,
    bus: watch::Sender<bool>,
    trouble: Notify,
    health: Mutex<Health>,
    deps: Deps,
    seconds: HistogramVec,
    gauge: Gauge,
    errors: Errors,
}

struct Health {
    since: Timestamp,
    last_error: Option<String>,
}

struct Errors {
    timeout: Counter,
    io: Counter,
    refused: Counter,
    down: Counter,
}

impl Link {
    pub(crate) fn new(options: &RedisOptions, deps: &Deps) -> Result<Arc<Self>, StateError> {
        let endpoint = Endpoint::parse(options)?;
        let errors = deps.registry.counter(&ERRORS);
        let gauge = deps.registry.gauge(&UP).with(&[]);
        Ok(Arc::new(Self {
            endpoint,
            prefix: options.prefix.clone(),
            command_timeout: options.command_timeout,
            connect_timeout: options.connect_timeout,
            pool: options.pool.clamp(1, 32),
            plain: Endpoint::is_plain(options),
            connections: ArcSwap::default(),
            next: AtomicUsize::new(0),
            up: AtomicBool::new(false),
            changes: watch::Sender::new(false),
            bus: watch::Sender::new(false),
            trouble: Notify::new(),
            health: Mutex::new(Health {
                since: deps.clock.now(),
                last_error: None,
            }),
            seconds: deps.registry.histogram(&SECONDS),
            gauge,
            errors: Errors {
                timeout: errors.with(&["timeout"]),
                io: errors.with(&["io"]),
                refused: errors.with(&["refused"]),
                down: errors.with(&["down"]),
            },
            deps: deps.clone(),
        }))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Told whenever Redis comes or goes.
    pub(crate) fn changes(&self) -> watch::Receiver<bool> {
        self.changes.subscribe()
    }

    /// Told whenever messages begin or cease to arrive.
    pub(crate) fn bus_changes(&self) -> watch::Receiver<bool> {
        self.bus.subscribe()
    }

    pub(crate) fn set_bus_up(&self, up: bool) {
        self.bus.send_replace(up);
    }

    pub(crate) fn status(&self) -> RedisStatus {
        let health = self.health.lock();
        RedisStatus {
            up: self.is_up(),
            bus_up: *self.bus.borrow(),
            plain: self.plain,
            since: health.since,
            last_error: health.last_error.clone(),
        }
    }

    /// Sends a command; at once an error while Redis is known to be away.
    pub(crate) async fn query<T: FromRedisValue>(
        &self,
        name: &'static str,
        command: &Cmd,
    ) -> Result<T, StateError> {
        let mut connection = self.connection()?;
        self.guard(name, async {
            match &mut connection {
                Connection::One(c) => command.query_async(c).await,
                Connection::Cluster(c) => command.query_async(c).await,
            }
        })
        .await
    }

    /// Sends commands together; in a cluster all keys must share one hash tag.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        name: &'static str,
        commands: &Pipeline,
    ) -> Result<T, StateError> {
        let mut connection = self.connection()?;
        self.guard(name, async {
            match &mut connection {
                Connection::One(c) => commands.query_async(c).await,
                Connection::Cluster(c) => commands.query_async(c).await,
            }
        })
        .await
    }

    /// Runs a script, loading it where it is not known yet.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        name: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StateError> {
        let mut connection = self.connection()?;
        self.guard(name, async {
            match &mut connection {
                Connection::One(c) => script.invoke_async(c).await,
                Connection::Cluster(c) => script.invoke_async(c).await,
            }
        })
        .await
    }

    /// A connection of its own for messages.
    pub(crate) async fn pubsub(&self) -> Result<redis::aio::PubSub, StateError> {
        let connecting = self.endpoint.pubsub();
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(pubsub)) => Ok(pubsub),
            Ok(Err(error)) => Err(StateError::Unavailable(error.to_string())),
            Err(_) => Err(StateError::Unavailable("connecting timed out".to_owned())),
        }
    }

    /// Keeps the connections until the future is dropped.
    pub(crate) async fn keep(&self) {
        if self.plain {
            tracing::warn!("the way to redis leaves this machine without encryption");
        }
        let mut failures = 0_u32;
        loop {
            // Trouble with the connections that are replaced now is over.
            let _ = self.trouble.notified().now_or_never();
            match self.connect().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    self.went_down(&error);
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(self.backoff(failures)).await;
                    continue;
                }
            }
            self.watch().await;
        }
    }

    /// A pause with full jitter, so that replicas do not come back all at once.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let most = (FIRST_BACKOFF_MS << failures.min(10)).min(MAX_BACKOFF_MS);
        Duration::from_millis(most / 4 + self.deps.random.below(most * 3 / 4 + 1))
    }

    async fn connect(&self) -> Result<(), String> {
        let mut connections = Vec::with_capacity(self.pool);
        let count = if self.endpoint.is_cluster() {
            1
        } else {
            self.pool
        };
        for _ in 0..count {
            let connecting = self
                .endpoint
                .connect(self.connect_timeout, self.command_timeout);
            let connection = tokio::time::timeout(self.connect_timeout, connecting)
                .await
                .map_err(|_| "connecting timed out".to_owned())?
                .map_err(|e| e.to_string())?;
            connections.push(connection);
        }
        if let Some(first) = connections.first() {
            ping(first.clone(), self.command_timeout).await?;
        }
        self.connections.store(Arc::new(connections));
        self.came_up();
        Ok(())
    }

    /// Returns when the connections should be made anew.
    async fn watch(&self) {
        loop {
            tokio::select! {
                () = self.trouble.notified() => return,
                () = tokio::time::sleep(PING_EVERY) => {}
            }
            let Ok(connection) = self.connection() else {
                return;
            };
            if let Err(error) = ping(connection, self.command_timeout).await {
                self.went_down(&error);
                return;
            }
        }
    }

    fn connection(&self) -> Result<Connection, StateError> {
        let connections = self.connections.load();
        if !self.is_up() || connections.is_empty() {
            self.errors.down.inc();
            let why = self.health.lock().last_error.clone();
            let why = why.unwrap_or_else(|| "not connected yet".to_owned());
            return Err(StateError::Unavailable(why));
        }
        let index = self.next.fetch_add(1, Relaxed) % connections.len();
        Ok(connections[index].clone())
    }

    async fn guard<T>(
        &self,
        name: &'static str,
        command: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StateError> {
        let mut span = trace::start("redis", name, SpanKind::Client);
        span.set("db.system.name", "redis");
        span.set("db.operation.name", name);
        let begin = Instant::now();
        let outcome = tokio::time::timeout(self.command_timeout, command).await;
        self.seconds.with(&[name]).observe(begin.elapsed());
        let outcome = self.judge(name, outcome);
        if let Err(error) = &outcome {
            span.fail(error.to_string());
        }
        outcome
    }

    fn judge<T>(
        &self,
        name: &'static str,
        outcome: Result<RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, StateError> {
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if is_lost(&error) => {
                let timeout = error.is_timeout();
                let counter = if timeout {
                    &self.errors.timeout
                } else {
                    &self.errors.io
                };
                counter.inc();
                let text = error.to_string();
                self.went_down(&text);
                Err(StateError::Unavailable(text))
            }
            Ok(Err(error)) => {
                self.errors.refused.inc();
                Err(StateError::Refused(error.to_string()))
            }
            Err(_) => {
                self.errors.timeout.inc();
                let text = format!("{name} timed out");
                self.went_down(&text);
                Err(StateError::Unavailable(text))
            }
        }
    }

    fn came_up(&self) {
        if !self.up.swap(true, Relaxed) {
            self.health.lock().since = self.deps.clock.now();
            self.gauge.set(1.0);
            self.changes.send_replace(true);
            tracing::info!("redis is available");
        }
    }

    fn went_down(&self, error: &str) {
        let was_up = self.up.swap(false, Relaxed);
        {
            let mut health = self.health.lock();
            health.last_error = Some(error.to_owned());
            if was_up {
                health.since = self.deps.clock.now();
            }
        }
        if was_up {
            self.gauge.set(0.0);
            self.changes.send_replace(false);
            tracing::warn!(err = error, "redis is not available, going on without it");
        }
        self.trouble.notify_one();
    }
}

/// Errors after which a connection cannot be trusted: lost, or a server that is no longer the master.
fn is_lost(error: &RedisError) -> bool {
    // An answer of another form than expected is a fault of ours, not of the connection; one that is no
    // RESP at all is found by the next PING.
    use redis::ErrorKind::{Parse, UnexpectedReturnType};
    if matches!(error.kind(), Parse | UnexpectedReturnType) {
        return false;
    }
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || error.is_cluster_error()
        || matches!(
            error.code(),
            Some("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN")
        )
}

async fn ping(connection: Connection, timeout: Duration) -> Result<(), String> {
    let ask = async {
        let command = redis::cmd("PING");
        match connection {
            Connection::One(mut c) => c.req_packed_command(&command).await,
            Connection::Cluster(mut c) => command.query_async(&mut c).await,
        }
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("PING timed out".to_owned()),
    }
}
