//! A process of the real services in the test's own runtime.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use portico_base::{Clock, SystemClock, SystemRandom, id};
use portico_config::{Input, Loaded};
use portico_host::{Composition, Entry, Options, Process, Service, datadir};
use portico_web::RouteInfo;
use tempfile::TempDir;

use crate::audit::Records;
use crate::caller::Caller;
use crate::clock::JumpingClock;
use crate::keys::{AUDIENCE, ISSUER, TestKeys};

/// How a [`TestApp`] differs from the default.
#[derive(Debug, Clone, Default)]
pub struct TestOptions {
    /// Lines of `portico.toml` behind the test's own.
    pub config: String,
    /// Entries of `[settings]`, key and TOML value.
    pub settings: BTreeMap<String, String>,
    /// Database instead of a fresh SQLite file.
    pub database: Option<String>,
    /// Redis instead of none.
    pub redis: Option<String>,
    /// The clock; it can jump.
    pub clock: JumpingClock,
}

impl TestOptions {
    /// The same with a setting (value in TOML).
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// A running house. Stop it with [`TestApp::stop`], or drop it.
pub struct TestApp {
    process: Option<Process>,
    keys: TestKeys,
    folder: Arc<TempDir>,
    records: Records,
    operator: String,
    http: String,
    consul: String,
    admin: String,
}

impl TestApp {
    /// Starts with defaults on SQLite.
    pub async fn start() -> Self {
        Self::with(TestOptions::default()).await
    }

    /// Starts with options.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn with(options: TestOptions) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::at(folder, options).await
    }

    /// Starts on a folder that an earlier process may have used.
    ///
    /// # Panics
    /// When it cannot start.
    pub async fn at(folder: Arc<TempDir>, options: TestOptions) -> Self {
        // A provider that is there already is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let jwks = folder.path().join("jwks.json");
        let keys = TestKeys::new("test-1");
        keys.write(&jwks);
        let loaded = load(&folder, &options);
        let composition = Composition {
            entries: services().into_iter().map(active).collect(),
            version: "0.0.0-test",
            commit: "test",
            rustc: "test",
        };
        let records = Records::default();
        let start = Options {
            loaded: Arc::new(loaded),
            clock: Arc::new(options.clock.clone()),
            random: Arc::new(SystemRandom),
            next_free_port: false,
            own_logs: false,
            audit: Some(Arc::new(records.clone())),
            runtimes: portico_host::Runtimes::default(),
        };
        let process = Process::start(start, composition)
            .await
            .unwrap_or_else(|error| panic!("the house cannot start: {error} ({:?})", error.source));
        let url = |name: &str| process.ready().url(name).unwrap_or_default().to_owned();
        let operator = datadir::read_operator_token(&process.operator_token_file())
            .expect("the operator's token can be read")
            .map(|token| token.expose().clone())
            .unwrap_or_default();
        Self {
            http: url("http"),
            consul: url("consul"),
            admin: url("admin"),
            process: Some(process),
            keys,
            folder,
            records,
            operator,
        }
    }

    /// Nobody.
    #[must_use]
    pub fn anonymous(&self) -> Caller {
        Caller::new(&self.http, None)
    }

    /// The holder of the operator's token.
    #[must_use]
    pub fn operator(&self) -> Caller {
        self.holder(&self.operator)
    }

    /// The holder of any token.
    #[must_use]
    pub fn holder(&self, token: &str) -> Caller {
        Caller::new(&self.http, Some(token.to_owned()))
    }

    /// A user of the default tenant, by JWT.
    #[must_use]
    pub fn user(&self, roles: &[&str]) -> Caller {
        self.user_of(id::TENANT_DEFAULT, roles)
    }

    /// A user of the default tenant whose token carries scopes (separated by spaces).
    #[must_use]
    pub fn user_with_scopes(&self, scopes: &str) -> Caller {
        let now = SystemClock.now().timestamp();
        self.holder(&self.keys.sign(&serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "user-2", "tid": id::TENANT_DEFAULT, "iat": now,
            "exp": now + 3600, "scope": scopes,
        })))
    }

    /// A user of another tenant, by JWT.
    #[must_use]
    pub fn other_tenant(&self, roles: &[&str]) -> Caller {
        self.user_of(
            uuid::Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_00aa),
            roles,
        )
    }

    fn user_of(&self, tenant: uuid::Uuid, roles: &[&str]) -> Caller {
        let now = SystemClock.now().timestamp();
        self.holder(&self.keys.token("user-1", tenant, roles, now))
    }

    /// The keys of the test's issuer.
    #[must_use]
    pub const fn keys(&self) -> &TestKeys {
        &self.keys
    }

    /// Nobody, on the Consul-compatible listener.
    #[must_use]
    pub fn consul(&self) -> Caller {
        Caller::new(&self.consul, None)
    }

    /// Nobody, on the admin listener.
    #[must_use]
    pub fn admin(&self) -> Caller {
        Caller::new(&self.admin, None)
    }

    /// A registration token, made by the operator.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn registration_token(&self, pattern: &str, more: serde_json::Value) -> Caller {
        let mut body = serde_json::json!({ "name_pattern": pattern });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let answer = self
            .operator()
            .post("/api/registry/tokens", &body)
            .await
            .expect(201)
            .json();
        self.holder(answer["token"].as_str().expect("the answer has a token"))
    }

    /// What was recorded for the audit so far.
    #[must_use]
    pub const fn records(&self) -> &Records {
        &self.records
    }

    /// Every route of the services' own APIs, with the service that it belongs to.
    #[must_use]
    pub fn routes(&self) -> Vec<(&'static str, RouteInfo)> {
        let services = self.process().services().iter();
        services
            .filter_map(|service| Some((service.name, service.routes.as_ref()?)))
            .flat_map(|(name, built)| built.table.iter().map(move |route| (name, route.clone())))
            .collect()
    }

    /// The folder, for a restart.
    #[must_use]
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// The running process.
    ///
    /// # Panics
    /// After the stop.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.process
            .as_ref()
            .expect("the house runs until it is stopped")
    }

    /// Stops in order and fails the test when something had to be cut.
    ///
    /// # Panics
    /// When something had to be cut.
    pub async fn stop(mut self) {
        if let Some(process) = self.process.take() {
            let stopped = process.stop(std::future::pending()).await;
            assert!(stopped.cut.is_empty(), "cut at the stop: {:?}", stopped.cut);
        }
    }
}

fn load(folder: &TempDir, options: &TestOptions) -> Loaded {
    let data = folder.path().join("data");
    let mut text = format!(
        "[node]\ndata_dir = {data:?}\ndemo = false\nworkers = 2\n\
         [listen]\nhttp = \"127.0.0.1:0\"\nconsul = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\ninternal = \"127.0.0.1:0\"\n\
         [auth]\njwks_file = {:?}\nissuer = {ISSUER:?}\naudience = {AUDIENCE:?}\n",
        folder.path().join("jwks.json"),
    );
    if let Some(url) = &options.database {
        let _ = writeln!(text, "[database]\nurl = {url:?}");
    }
    if let Some(url) = &options.redis {
        let _ = writeln!(text, "[redis]\nurl = {url:?}");
    }
    text.push_str("[settings]\n");
    for (key, value) in &options.settings {
        let _ = writeln!(text, "{key:?} = {value}");
    }
    text.push_str(&options.config);
    let read = |path: &std::path::Path| {
        if path.ends_with("test.toml") {
            Ok(text.clone().into_bytes())
        } else {
            std::fs::read(path)
        }
    };
    let input = Input {
        env: BTreeMap::new(),
        flags: Vec::new(),
        config_file: Some("test.toml".into()),
        read: &read,
        also: Vec::new(),
    };
    portico_config::load(&input).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The services in the order of the binary.
fn services() -> Vec<Box<dyn Service>> {
    vec![
        Box::new(portico_settings::Settings),
        Box::new(portico_audit::Audit),
        Box::new(portico_registry::Registry),
        Box::new(portico_identity::Identity),
        Box::new(portico_control::Control),
        Box::new(portico_gateway::Gateway),
    ]
}

fn active(service: Box<dyn Service>) -> Entry {
    Entry {
        service,
        active: true,
    }
}
