//! Throw-away Redis servers for tests, and one suite over both backends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use portico_telemetry::metrics::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::options::{Deps, RedisOptions};
use crate::state::State;

/// A Redis server of its own, by default on a unix socket in a temporary directory; gone when dropped.
pub struct RedisServer {
    dir: TempDir,
    args: Vec<String>,
    url: String,
    child: Mutex<Option<Child>>,
}

impl std::fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisServer").field(&self.url).finish()
    }
}

impl RedisServer {
    /// Starts a server; `None`, with a line on standard error, where the program is not installed.
    ///
    /// # Panics
    /// When the program is missing and `CI=true`, or when it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(|dir| {
            let socket = dir.join("redis.sock").display().to_string();
            let url = format!("unix://{socket}");
            let args = ["--port", "0", "--unixsocket", &socket].map(str::to_owned);
            (args.to_vec(), url)
        })
    }

    /// Starts a server with arguments (and the URL that belongs to them) made for its directory.
    ///
    /// # Panics
    /// As [`RedisServer::start`].
    #[must_use]
    pub fn start_with(args: impl FnOnce(&Path) -> (Vec<String>, String)) -> Option<Self> {
        if Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "redis-server is not installed");
            let line =
                b"SKIPPED: redis-server is not installed, the Redis half of this test did not run\n";
            let _ = std::io::stderr().write_all(line);
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let (args, url) = args(dir.path());
        let server = Self {
            dir,
            args,
            url,
            child: Mutex::new(None),
        };
        server.start_again();
        Some(server)
    }

    /// Kills the server at once, like a power cut.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, empty, at the same place.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&self) {
        self.kill();
        let mut child = Command::new("redis-server")
            .args(&self.args)
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let out = child.stdout.take().expect("standard output is piped");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let ready = lines.any(|line| {
            line.contains("eady to accept connections") || line.contains("Sentinel ID is")
        });
        *self.child.lock() = Some(child);
        assert!(ready, "redis-server did not become ready");
        // Its output must be read on, or it would stop one day at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Stops it without closing its connections, so that nothing is answered any more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = &*self.child.lock() {
            let _ = Command::new("kill")
                .arg(signal)
                .arg(child.id().to_string())
                .status();
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.thaw();
        self.kill();
    }
}

/// A state with its driver running; both end when dropped.
#[derive(Debug)]
pub struct Replica {
    /// The state.
    pub state: State,
    /// Its figures.
    pub registry: Registry,
    stop: CancellationToken,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One backend of the suite.
#[derive(Debug, Clone)]
pub struct Backend {
    server: Option<Arc<RedisServer>>,
}

impl Backend {
    /// The backend within the process.
    #[must_use]
    pub const fn local() -> Self {
        Self { server: None }
    }

    /// The backend on a Redis server of its own, where there is one.
    #[must_use]
    pub fn redis() -> Option<Self> {
        let server = RedisServer::start()?;
        Some(Self {
            server: Some(Arc::new(server)),
        })
    }

    /// `local` or `redis`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.server {
            None => "local",
            Some(_) => "redis",
        }
    }

    /// The server behind it.
    #[must_use]
    pub fn server(&self) -> Option<&RedisServer> {
        self.server.as_deref()
    }

    /// A new replica, connected. On the local backend every replica is alone.
    pub async fn replica(&self) -> Replica {
        let registry = Registry::default();
        self.replica_with(&Deps::system(&registry)).await
    }

    /// The same with a clock and randomness of the test's.
    ///
    /// # Panics
    /// Never: the URL of a test server can be read.
    pub async fn replica_with(&self, deps: &Deps) -> Replica {
        let (state, driver) = match &self.server {
            None => State::local(deps),
            Some(server) => State::redis(&RedisOptions::new(server.url()), deps)
                .expect("the URL of a test server can be read"),
        };
        let stop = CancellationToken::new();
        tokio::spawn(driver.run(stop.clone()));
        state.connected().await;
        Replica {
            state,
            registry: deps.registry.clone(),
            stop,
        }
    }
}

/// Runs a test on every backend that is there.
pub async fn each_backend<F, Fut>(test: F)
where
    F: Fn(Backend) -> Fut,
    Fut: Future<Output = ()>,
{
    test(Backend::local()).await;
    if let Some(redis) = Backend::redis() {
        test(redis).await;
    }
}
